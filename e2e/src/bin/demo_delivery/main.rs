//! What a pod can get beyond one role and one token: a chain of roles, credentials from a sidecar, a token for a third party, and tokens
//! by audience.
//! Each in a cluster with a node, with pods that run, an unmodified AWS SDK in them, and an STS that judges as AWS documents it.

mod acts;
mod stage;
mod tokens;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use tokenscope_e2e::node::Node;
use tokenscope_e2e::output::{DemoOutput, exit_code};
use tokenscope_e2e::probes::Sdk;
use tokenscope_e2e::strict_sts::StrictSts;
use tokenscope_xtask::images;
use tokenscope_xtask::tools::{Tool, resolve};

use self::stage::Stage;

/// Shows role chains, the credentials endpoint, tokens for third parties and tokens by audience in a real cluster of one node on this machine.
///
/// Example: cargo xtask demo --delivery --keep
#[derive(Parser)]
#[command(name = "cargo xtask demo --delivery", bin_name = "cargo xtask demo --delivery")]
struct Arguments {
    /// Leave everything running and print how to look at it; Ctrl-C ends it
    #[arg(long)]
    keep: bool,
    /// Show the whole pods as they came out of the API server
    #[arg(short, long)]
    verbose: bool,
    /// The cluster's name: two demos of one name end each other
    #[arg(long, default_value = "demo-delivery")]
    name: String,
}

fn main() -> ExitCode {
    exit_code(demo(&Arguments::parse()))
}

fn demo(arguments: &Arguments) -> Result<()> {
    let tell = DemoOutput::new();

    tell.step("Images of one static program each");
    let built = images::build("dev", &[])?;
    let python = resolve(Tool::Anthropic)?.display().to_string();
    tell.done("of operator, webhook, issuer and sidecars");

    tell.step("A Kubernetes cluster with a node, apart from everything else on this machine");
    let helper = std::env::current_exe()?.with_file_name("cluster_helper");
    let node = Node::start(&arguments.name, &helper)?;
    node.load(&built)?;
    Sdk::Python.load(&node)?;
    tell.done("pods can run");

    let stage = Stage {
        sts: StrictSts::prepare(&node)?,
        python,
        tell: &tell,
        node: &node,
        verbose: arguments.verbose,
    };
    stage.install()?;
    let caller = acts::chain(&stage)?;
    acts::another_external_id(&stage)?;
    acts::endpoint(&stage)?;
    acts::refused_session(&stage)?;
    acts::outbound(&stage)?;
    tokens::tokens(&stage)?;

    if arguments.keep {
        tell.keep_cluster(&arguments.name);
    }
    node.end()?;
    println!(
        "\nThe chain ends as {caller}; the endpoint's session is of team blue alone; billing takes billing's token, and another party refuses it"
    );
    Ok(())
}
