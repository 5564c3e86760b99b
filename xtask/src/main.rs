//! The commands a newcomer needs: demo, test, tools, cluster, images, crds, bench, compat.

mod checks;
mod cluster_command;
mod crds;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tokenscope_xtask::cluster::Cluster;
use tokenscope_xtask::images;
use tokenscope_xtask::packaged::{self, Packaged};
use tokenscope_xtask::progress::say;
use tokenscope_xtask::tools::{Resolved, Tool, locate};

/// Runs and tests tokenscope from its checkout.
///
/// Real servers (etcd, kube-apiserver, helm) are found in the environment or PATH, or are built once with Go into
/// ~/.cache/tokenscope.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a real API server and tokenscope, annotate a pod, and get AWS credentials with its token
    Demo {
        /// In a cluster with a node, where Helm installs and pods run (needs root)
        #[arg(long)]
        cluster: bool,
        /// In such a cluster, with tokens from real SPIRE (needs root)
        #[arg(long, conflicts_with = "cluster")]
        spiffe: bool,
        /// With tokens of tokenscope's own issuer: two tenants isolated by tags
        #[arg(long, conflicts_with_all = ["cluster", "spiffe"])]
        issuer: bool,
        /// In a cluster with a node: a chain of roles, credentials from a sidecar, and tokens for third parties (needs root)
        #[arg(long, conflicts_with_all = ["cluster", "spiffe", "issuer"])]
        delivery: bool,
        /// Leave everything running and print the kubeconfig; Ctrl-C ends it
        #[arg(long)]
        keep: bool,
        /// Show every request and what was written into the pod
        #[arg(short, long)]
        verbose: bool,
        /// With --cluster: use the cluster of this kubeconfig's current context, and leave it as it was
        #[arg(long, value_name = "FILE", requires = "cluster", conflicts_with = "keep")]
        kubeconfig: Option<PathBuf>,
        /// With --kubeconfig: where that cluster's nodes pull the images from
        #[arg(long, value_name = "REGISTRY", requires = "kubeconfig")]
        registry: Option<String>,
    },
    /// Run every check and test, and end with one line: N passed, N failed
    Test(checks::Selection),
    /// List the real servers and clients that demo and test use; builds or fetches what is missing
    Tools {
        /// Only these, by their names in the list
        tools: Vec<String>,
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// A real cluster of one node on this machine, apart from everything else on it (needs root)
    #[command(subcommand)]
    Cluster(cluster_command::ClusterCommand),
    /// Build the container images, of one static program each, into target/images
    Images {
        /// Only these; all by default
        names: Vec<String>,
        /// A profile of Cargo: dist for what is published; dev compiles faster
        #[arg(long, default_value = images::RELEASE_PROFILE)]
        profile: String,
        /// Make them known to this running cluster, too
        #[arg(long, value_name = "CLUSTER")]
        load: Option<String>,
    },
    /// Write the custom resource definitions and docs/reference.md from the Rust types
    Crds {
        /// Change nothing; fail if a file isn't what would be written
        #[arg(long)]
        check: bool,
    },
    /// Measure: `bench webhook --help` lists what can be varied
    Bench(PassedOn),
    /// Replay recorded cases of another webhook's suite through ours: compat FILE…
    Compat(PassedOn),
}

#[derive(Args)]
struct PassedOn {
    /// Passed on as they stand
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo {
            cluster,
            spiffe,
            issuer,
            delivery,
            keep,
            verbose,
            kubeconfig,
            registry,
        } => {
            let flags = [("--keep", keep), ("--verbose", verbose)];
            let flags = flags
                .iter()
                .filter(|(_, given)| *given)
                .map(|(flag, _)| (*flag).to_owned())
                .chain(kubeconfig.map(|file| format!("--kubeconfig={}", file.display())))
                .chain(registry.map(|registry| format!("--registry={registry}")));
            let asked = [
                (cluster, "demo_cluster"),
                (spiffe, "demo_spiffe"),
                (issuer, "demo_issuer"),
                (delivery, "demo_delivery"),
            ];
            let program = asked.iter().find(|(given, _)| *given);
            let program = program.map_or("demo", |(_, program)| program);
            run::program(program, run::Profile::Debug, flags.collect())
        }
        Command::Test(selection) => Ok(checks::run(&selection)),
        Command::Tools { tools, output } => list_tools(&tools, output).map(|()| ExitCode::SUCCESS),
        Command::Cluster(command) => cluster_command::run(command),
        Command::Images { names, profile, load } => {
            build_images(&names, &profile, load.as_deref()).map(|()| ExitCode::SUCCESS)
        }
        Command::Crds { check } => crds::run(check).map(|()| ExitCode::SUCCESS),
        Command::Bench(PassedOn { arguments }) => run::program("bench", run::Profile::Dist, arguments),
        Command::Compat(PassedOn { arguments }) => run::program("compat", run::Profile::Debug, arguments),
    };
    result.unwrap_or_else(|error| {
        say(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

fn build_images(names: &[String], profile: &str, load: Option<&str>) -> Result<()> {
    let cluster = load.map(Cluster::named).transpose()?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let built = images::build(profile, &names)?;
    if let Some(cluster) = cluster {
        images::load(&built, &cluster)?;
    }
    images::print(&built);
    Ok(())
}

fn list_tools(names: &[String], output: Output) -> Result<()> {
    let known = || {
        Tool::ALL
            .map(Tool::name)
            .into_iter()
            .chain(Packaged::ALL.map(Packaged::name))
    };
    for name in names {
        ensure!(
            known().any(|known| known == name),
            "there is no tool {name:?}, but {}",
            known().collect::<Vec<_>>().join(", ")
        );
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let tools = Tool::ALL.into_iter().filter(|tool| wanted(tool.name())).map(locate);
    let mut found = tools.collect::<Result<Vec<Resolved>>>()?;
    for server in Packaged::ALL.into_iter().filter(|server| wanted(server.name())) {
        // One test program needs them, and fails with the same words where they can't be had.
        match packaged::locate(server) {
            Ok(located) => found.push(located),
            Err(error) => say(&format!("  {error:#}")),
        }
    }
    match output {
        Output::Json => {
            let rows: Vec<_> = found
                .iter()
                .map(
                    |Resolved {
                         name,
                         version,
                         origin,
                         path,
                     }| {
                        serde_json::json!({
                            "tool": name, "version": version, "origin": origin.to_string(), "path": path,
                        })
                    },
                )
                .collect();
            println!("{}", serde_json::to_string_pretty(&rows)?);
        }
        Output::Table => {
            println!("{:<23} {:<20} {:<22} PATH", "TOOL", "VERSION", "FROM");
            for Resolved {
                name,
                version,
                origin,
                path,
            } in found
            {
                println!("{name:<23} {version:<20} {:<22} {}", origin.to_string(), path.display());
            }
        }
    }
    Ok(())
}
