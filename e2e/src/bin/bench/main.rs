//! Measures tokenscope on this machine. What counts are ratios between servers that take turns in one run.

mod baseline;
mod budgets;
mod hostile;
mod issuer;
mod load;
mod outcome;
mod report;
mod reviews;
mod setup;
mod sidecar;
mod via_apiserver;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde_json::Value;
use tokenscope_e2e::control_plane::{self, ControlPlane};
use tokenscope_e2e::eventually;
use tokenscope_e2e::install::Installed;
use tokenscope_xtask::progress::{Step, say};

use crate::budgets::budgets;
use crate::outcome::{Aims, Output, warn_of_debug_build};
use crate::report::{Budget, LockMode, MemoryUse, Report, Reviews};
use crate::reviews::{Recorded, Target};
use crate::setup::{
    Baseline, allow_by_profile, create_service_accounts, install_tokenscope, read_and_patch, targets, variants,
};
use crate::via_apiserver::{Variant, ordinary_pod};

/// Measures tokenscope on this machine
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reviews a second, time and processor time of a review, and memory of the webhook
    ///
    /// The release build of the webhook runs against a real API server, and answers recorded reviews over TLS connections
    /// that stay open. A handler that answers a constant from the same stack takes turns with it, so the ratio between
    /// them says what the reviewing itself costs, whatever else the machine does. So does one that checks the review's JSON
    /// with serde_json, keeps nothing of it, and answers with the patch that tokenscope makes. So does the webhook itself with a policy that has
    /// delivery.type Profile and a chain of two roles: what that costs more is an aim.
    ///
    /// Examples:
    ///   cargo xtask bench webhook
    ///   cargo xtask bench webhook --service-accounts 50000 --seconds 2
    ///   cargo xtask bench webhook --through-apiserver --containers 3 --output json
    #[command(verbatim_doc_comment)]
    Webhook(Webhook),
    /// Size, memory, wake-ups and start of the sidecar
    ///
    /// It keeps short tokens of a real SPIRE, and a workload reads the file all the time. A spiffe-helper does the same in the
    /// same run if one is given. Before that it serves credentials (delivery.type Endpoint) with a strict STS behind it, and is asked as
    /// SDKs ask; a thread that writes a constant takes turns with it.
    ///
    /// Examples:
    ///   cargo xtask bench sidecar
    ///   cargo xtask bench sidecar --only endpoint --output json
    ///   cargo xtask bench sidecar --spiffe-helper /usr/local/bin/spiffe-helper
    ///   cargo xtask bench sidecar --life 300 --refreshes 22 --check
    #[command(verbatim_doc_comment)]
    Sidecar(sidecar::Arguments),
    /// Exchanges a second, memory of the issuer, and thousands of sidecars that ask it at once
    ///
    /// A constant answer of the same stack takes turns with it, so the ratio between them says what an exchange itself costs.
    ///
    /// Examples:
    ///   cargo xtask bench issuer
    ///   cargo xtask bench issuer --pods 50000 --policies 1000 --output json
    #[command(verbatim_doc_comment)]
    Issuer(issuer::Arguments),
    /// The webhook that always says the same
    #[command(hide = true)]
    Constant(baseline::Arguments),
}

#[derive(clap::Args)]
struct Webhook {
    /// How many annotated ServiceAccounts the cluster has
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    service_accounts: u32,
    /// How long each server is measured under each load
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How many connections are used at once; one table line each
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,8", value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: Vec<u16>,
    /// How many containers the reviewed pod has: 1, 3 or 10; one table line each
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,3,10")]
    containers: Vec<usize>,
    /// Another webhook on 127.0.0.1 to measure too; tokenscope is then EKS-compatible, and ServiceAccounts have EKS's annotation
    #[arg(long, value_name = "URL", requires = "peer_ca")]
    peer: Option<http::Uri>,
    /// The authorities that vouch for the peer's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "peer")]
    peer_ca: Option<PathBuf>,
    /// Measure creates of pods through the API server as well, ordinary and hostile ones too
    #[arg(long)]
    through_apiserver: bool,
    /// The lock while tokenscope is measured; the chart's own default is audit
    #[arg(long, value_enum, default_value_t = LockMode::Deny)]
    lock_mode: LockMode,
    /// Values for the chart, as JSON, such as '{"guard": {"enabled": false}}'
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = values)]
    values: Value,
    /// Exit with status 1 if an aim is missed
    #[arg(long)]
    check: bool,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// The namespace, the ServiceAccount and the role of the recorded reviews.
const SHOP: &str = "shop";
const ORDERS: &str = "orders";
const ROLE: &str = "arn:aws:iam::111122223333:role/shop/orders";
const POLICY: &str = "\
apiVersion: tokenscope.io/v1alpha1
kind: TokenScopePolicy
metadata: {name: orders, namespace: shop}
spec:
  subjects:
  - serviceAccounts: [orders]
  roles:
    allowed: [\"arn:aws:iam::111122223333:role/shop/*\"]
  aws: {region: eu-central-1}
";

/// How long whoever starts the peer has for it.
const PEER_DEADLINE: Duration = Duration::from_secs(300);

fn values(text: &str) -> Result<Value, String> {
    let values: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if values.is_object() {
        Ok(values)
    } else {
        Err("it should be an object".to_owned())
    }
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Constant(arguments) => baseline::serve(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Webhook(arguments) => bench(&arguments),
        Command::Sidecar(arguments) => sidecar::bench(&arguments),
        Command::Issuer(arguments) => issuer::bench(&arguments),
    };
    result.unwrap_or_else(|error| {
        say(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

fn bench(arguments: &Webhook) -> Result<ExitCode> {
    warn_of_debug_build();
    outcome::report(measure(arguments), arguments.output, arguments.check)
}

impl Aims for Report {
    fn budgets(&self) -> &[Budget] {
        &self.budgets
    }
}

async fn measure(arguments: &Webhook) -> Result<Report> {
    let recorded = arguments
        .containers
        .iter()
        .map(|&containers| Recorded::read(containers))
        .collect::<Result<Vec<_>>>()?;
    let annotation = if arguments.peer.is_some() {
        "eks.amazonaws.com/role-arn"
    } else {
        "tokenscope.io/role-arn"
    };

    let control_plane = start_control_plane(annotation).await?;
    create_service_accounts(&control_plane, arguments.service_accounts as usize, annotation).await?;
    let without = hostile_without_tokenscope(arguments, &control_plane).await?;
    let constant = Baseline::start(&control_plane).await?;
    let installed = install_tokenscope(arguments, &control_plane).await?;
    let mut report = Report {
        service_accounts: arguments.service_accounts as usize,
        lock_mode: arguments.lock_mode,
        ..Report::default()
    };
    // Whatever follows the first list has settled by then.
    tokio::time::sleep(Duration::from_secs(3)).await;
    report.memory.push(memory("after the first list", &installed)?);

    control_plane.apply_yaml(POLICY).await?;
    allow_by_profile(&control_plane, annotation).await?;
    let mut targets = targets(arguments, &control_plane, &constant, &installed).await?;
    let first = recorded.first().context("at least one number of containers")?;
    wait_for_all(arguments, &control_plane, &targets, first).await?;
    let read_and_patch = read_and_patch(&constant, &targets, &recorded).await?;
    targets.insert(1, read_and_patch);
    report.reviews = send_reviews(arguments, &recorded, &targets)?;
    report.memory.push(memory("after the reviews", &installed)?);

    if arguments.through_apiserver {
        through_apiserver(
            arguments,
            &control_plane,
            &constant,
            &installed,
            &targets,
            annotation,
            &mut report,
        )
        .await?;
        hostile_with_tokenscope(&control_plane, &installed, &targets, &without, &mut report).await?;
    }
    report.budgets = budgets(&report);
    Ok(report)
}

async fn start_control_plane(annotation: &str) -> Result<ControlPlane> {
    let step = Step::start("starting a real API server", None);
    let options = control_plane::Options {
        audit: false,
        ..control_plane::Options::default()
    };
    let control_plane = ControlPlane::start(options).await?;
    control_plane.create_namespace(SHOP, &[]).await?;
    control_plane
        .create_service_account(SHOP, ORDERS, &[(annotation, ROLE)])
        .await?;
    step.done("");
    Ok(control_plane)
}

/// The creates of hostile pods that tokenscope's are compared with.
async fn hostile_without_tokenscope(arguments: &Webhook, control_plane: &ControlPlane) -> Result<Vec<Duration>> {
    if !arguments.through_apiserver {
        return Ok(Vec::new());
    }
    let step = Step::start("creating pods of hostile shapes without tokenscope", None);
    let without = hostile::creates(control_plane, SHOP).await?;
    step.done("");
    Ok(without)
}

/// Waits until each server answers with credentials.
async fn wait_for_all(
    arguments: &Webhook,
    control_plane: &ControlPlane,
    targets: &[Target<'_>],
    recorded: &Recorded,
) -> Result<()> {
    if let Some(peer) = &arguments.peer {
        say(&format!(
            "  the peer at {peer} has to know ServiceAccount {SHOP}/{ORDERS}; its kubeconfig could be"
        ));
        say(&format!("    {}", control_plane.kubeconfig().display()));
    }
    for target in targets {
        let deadline = if target.is_peer() {
            PEER_DEADLINE
        } else {
            Duration::from_secs(30)
        };
        let what = format!("{} answers with credentials", target.name());
        eventually(deadline, what, async || target.try_once(recorded).await).await?;
    }
    Ok(())
}

/// Sends every recorded review over every number of connections.
fn send_reviews(arguments: &Webhook, recorded: &[Recorded], targets: &[Target<'_>]) -> Result<Vec<Reviews>> {
    let lines = recorded.len() * arguments.connections.len();
    let length = Duration::from_secs(arguments.seconds);
    let expected = length.as_secs() as usize * lines * targets.len();
    let step = Step::start("sending reviews", Some(&format!("about {expected} s")));
    let mut reviews = Vec::new();
    for recorded in recorded {
        for &connections in &arguments.connections {
            step.detail(&format!(
                "{} containers, {connections} connections",
                recorded.containers
            ));
            let measured =
                tokio::task::block_in_place(|| reviews::measure(targets, recorded, connections.into(), length))?;
            reviews.extend(measured);
        }
    }
    step.done("");
    Ok(reviews)
}

/// Reviews and creates of pods of hostile shapes.
async fn hostile_with_tokenscope(
    control_plane: &ControlPlane,
    installed: &Installed,
    targets: &[Target<'_>],
    without: &[Duration],
    report: &mut Report,
) -> Result<()> {
    let step = Step::start("creating and reviewing pods of hostile shapes", None);
    let ours = targets.iter().find(|target| target.is_tokenscope());
    let ours = ours.context("tokenscope is measured")?.server();
    report.hostile = hostile::measure(control_plane, installed, ours, without).await?;
    step.done("");
    let step = Step::start("starting beside a hostile namespace", None);
    report
        .memory
        .extend(hostile::memory_beside_a_crowd(control_plane, installed).await?);
    step.done("");
    Ok(())
}

/// Creates of pods that get credentials, and of ordinary ones.
async fn through_apiserver(
    arguments: &Webhook,
    control_plane: &ControlPlane,
    constant: &Baseline,
    installed: &Installed,
    targets: &[Target<'_>],
    annotation: &str,
    report: &mut Report,
) -> Result<()> {
    let step = Step::start("creating pods through the API server", None);
    let variants = variants(arguments, control_plane, constant, installed, targets, annotation).await?;
    let granted = ("granted", &Recorded::read(3)?.pod());
    report.through_apiserver = via_apiserver::measure(control_plane, &variants, granted, arguments.seconds).await?;
    let untouched: Vec<Variant> = variants
        .into_iter()
        .filter(|variant| ["no webhook", "constant", "tokenscope"].contains(&variant.name))
        .map(|variant| Variant {
            injects: false,
            ..variant
        })
        .collect();
    for (called, volumes) in [("ordinary, 3 volumes", 3), ("ordinary, 30 volumes", 30)] {
        let pod = (called, &ordinary_pod(volumes));
        report
            .through_apiserver
            .extend(via_apiserver::measure(control_plane, &untouched, pod, arguments.seconds).await?);
    }
    step.done("");
    Ok(())
}

fn memory(when: &'static str, installed: &Installed) -> Result<MemoryUse> {
    let memory = installed.webhook(0).memory()?;
    Ok(MemoryUse {
        when,
        resident: memory.resident,
        anonymous: memory.anonymous,
        peak: memory.peak,
    })
}
