//! Measures tokenscope on this machine. What counts are ratios between servers that take turns in one run.

mod constant;
mod load;
mod report;
mod reviews;
mod sidecar;
mod through;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};
use tokenscope_tests::control_plane::{self, ControlPlane};
use tokenscope_tests::helm::NAMESPACE;
use tokenscope_tests::install::{self, Installed, install};
use tokenscope_tests::pki::Authority;
use tokenscope_tests::process::{Process, Start, Watchdog, free_port};
use tokenscope_tests::{eventually, get_json};
use tokenscope_xtask::progress::{Step, say};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::load::Server;
use crate::report::{Budget, MemoryUse, Report};
use crate::reviews::{Contestant, Recorded};
use crate::through::Variant;

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
    /// them says what the reviewing itself costs, whatever else the machine does.
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
    /// same run if one is given.
    ///
    /// Examples:
    ///   cargo xtask bench sidecar
    ///   cargo xtask bench sidecar --spiffe-helper /usr/local/bin/spiffe-helper
    ///   cargo xtask bench sidecar --life 300 --refreshes 22 --check
    #[command(verbatim_doc_comment)]
    Sidecar(sidecar::Arguments),
    /// The webhook that always says the same
    #[command(hide = true)]
    Constant(constant::Arguments),
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
    /// Measure creates of pods through the API server as well
    #[arg(long)]
    through_apiserver: bool,
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

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
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

/// As many threads as the webhook has by default.
const WORKERS: usize = 2;

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
        Command::Constant(arguments) => constant::serve(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Webhook(arguments) => bench(&arguments),
        Command::Sidecar(arguments) => sidecar::bench(&arguments),
    };
    result.unwrap_or_else(|error| {
        say(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

fn bench(arguments: &Webhook) -> Result<ExitCode> {
    if cfg!(debug_assertions) {
        say("warning: this is no release build, so the numbers say little; use `cargo xtask bench`");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let report = runtime.block_on(measure(arguments))?;
    match arguments.output {
        Output::Table => print!("\n{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    let failed = arguments.check && !report.passes();
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
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
    create_service_accounts(&control_plane, arguments.service_accounts as usize, annotation).await?;

    let constant = Constant::start(&control_plane).await?;
    let step = Step::start("starting tokenscope", None);
    let mut values = arguments.values.clone();
    if arguments.peer.is_some() {
        values["eksCompatible"] = json!(true);
    }
    let installed = install(
        &control_plane,
        install::Options {
            values,
            ..install::Options::default()
        },
    )
    .await?;
    step.done("");
    let mut report = Report {
        service_accounts: arguments.service_accounts as usize,
        ..Report::default()
    };
    // Whatever follows the first list has settled by then.
    tokio::time::sleep(Duration::from_secs(3)).await;
    report.memory.push(memory("after the first list", &installed)?);

    control_plane.apply_yaml(POLICY).await?;
    let contestants = contestants(arguments, &control_plane, &constant, &installed).await?;
    if let Some(peer) = &arguments.peer {
        say(&format!(
            "  the peer at {peer} has to know ServiceAccount {SHOP}/{ORDERS}; its kubeconfig could be"
        ));
        say(&format!("    {}", control_plane.kubeconfig().display()));
    }
    let first = recorded.first().context("at least one number of containers")?;
    for contestant in &contestants {
        let deadline = if contestant.is_peer() {
            PEER_DEADLINE
        } else {
            Duration::from_secs(30)
        };
        let what = format!("{} answers with credentials", contestant.name());
        eventually(deadline, what, async || contestant.try_once(first).await).await?;
    }

    let lines = recorded.len() * arguments.connections.len();
    let length = Duration::from_secs(arguments.seconds);
    let expected = length.as_secs() as usize * lines * contestants.len();
    let step = Step::start("sending reviews", Some(&format!("about {expected} s")));
    for recorded in &recorded {
        for &connections in &arguments.connections {
            step.detail(&format!(
                "{} containers, {connections} connections",
                recorded.containers
            ));
            let measured =
                tokio::task::block_in_place(|| reviews::measure(&contestants, recorded, connections.into(), length))?;
            report.reviews.extend(measured);
        }
    }
    step.done("");
    report.memory.push(memory("after the reviews", &installed)?);

    if arguments.through_apiserver {
        let step = Step::start("creating pods through the API server", None);
        let variants = variants(
            arguments,
            &control_plane,
            &constant,
            &installed,
            &contestants,
            annotation,
        )
        .await?;
        let pod = Recorded::read(3)?.pod();
        report.through_apiserver = through::measure(&control_plane, &variants, &pod, arguments.seconds).await?;
        step.done("");
    }
    report.budgets = budgets(&report);
    Ok(report)
}

/// Creates annotated ServiceAccounts, 500 to a namespace, as fast as the API server takes them.
async fn create_service_accounts(control_plane: &ControlPlane, count: usize, annotation: &str) -> Result<()> {
    const IN_A_NAMESPACE: usize = 500;
    const AT_ONCE: usize = 24;
    let step = Step::start(&format!("creating {count} annotated ServiceAccounts"), None);
    for number in 0..count.div_ceil(IN_A_NAMESPACE) {
        control_plane
            .create_namespace(&format!("accounts-{number}"), &[])
            .await?;
    }
    let client = control_plane.client().await?;
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE.min(count) {
        let (client, next, annotation) = (client.clone(), Arc::clone(&next), annotation.to_owned());
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(());
                }
                let name = format!("service-account-{number:06}");
                let account = json!({
                    "apiVersion": "v1", "kind": "ServiceAccount",
                    "metadata": {
                        "name": name,
                        "labels": {
                            "app.kubernetes.io/name": name, "app.kubernetes.io/instance": name,
                            "app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": "service-1.4.2",
                        },
                        "annotations": {
                            annotation.as_str(): format!("arn:aws:iam::111122223333:role/applications/{name}"),
                            "meta.helm.sh/release-name": name,
                        },
                    },
                });
                let path = format!(
                    "/api/v1/namespaces/accounts-{}/serviceaccounts",
                    number / IN_A_NAMESPACE
                );
                let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
                client
                    .request_text(request.body(account.to_string().into_bytes())?)
                    .await?;
            }
        });
    }
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    while !workers.is_empty() {
        tokio::select! {
            Some(worker) = workers.join_next() => worker??,
            _ = ticks.tick() => step.detail(&format!("{} of {count}", next.load(Ordering::Relaxed).min(count))),
        }
    }
    step.done("");
    Ok(())
}

/// The webhook that always says the same, in a process of its own.
struct Constant {
    process: Process,
    port: u16,
    authority: String,
    /// Where it finds the patch of its other answer.
    patch: PathBuf,
}

impl Constant {
    async fn start(control_plane: &ControlPlane) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("tokenscope-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let watchdog = Watchdog::start(&folder)?;
        let authority = Authority::new("tokenscope-bench-ca")?;
        let identity = authority.server(&["127.0.0.1", "localhost"])?;
        let (certificate, key, patch) = (folder.join("tls.crt"), folder.join("tls.key"), folder.join("patch"));
        std::fs::write(&certificate, &identity.certificate)?;
        std::fs::write(&key, &identity.key)?;
        let port = free_port()?;
        let start = Start {
            name: "constant".to_owned(),
            program: std::env::current_exe()?,
            arguments: vec![
                "constant".to_owned(),
                format!("--listen=127.0.0.1:{port}"),
                format!("--certificate={}", certificate.display()),
                format!("--key={}", key.display()),
                format!("--patch={}", patch.display()),
                format!("--workers={WORKERS}"),
            ],
            environment: BTreeMap::new(),
            logs: control_plane.folder().join("logs"),
            observe_port: None,
        };
        let process = Process::start(start, &watchdog)?;
        eventually(Duration::from_secs(10), "the constant webhook listens", async || {
            ensure!(
                process.exit_status()?.is_none(),
                "it has ended:\n{}",
                process.log_tail(10)
            );
            TcpStream::connect(("127.0.0.1", port)).await?;
            Ok(())
        })
        .await?;
        Ok(Self {
            process,
            port,
            authority: authority.certificate(),
            patch,
        })
    }

    fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }
}

async fn contestants<'a>(
    arguments: &Webhook,
    control_plane: &ControlPlane,
    constant: &'a Constant,
    installed: &'a Installed,
) -> Result<Vec<Contestant<'a>>> {
    let server = |port: u16, authorities: &[u8]| -> Result<Server> {
        Ok(Server {
            address: ([127, 0, 0, 1], port).into(),
            name: "127.0.0.1".try_into()?,
            config: load::client_config(authorities, None)?,
        })
    };
    let secret = format!("/api/v1/namespaces/{NAMESPACE}/secrets/tokenscope-ca");
    let secret = get_json(&control_plane.client().await?, &secret).await?;
    let bundle = secret["data"]["ca.crt"]
        .as_str()
        .context("the Secret tokenscope-ca has a ca.crt")?;
    let mut contestants = vec![
        Contestant::constant(server(constant.port, constant.authority.as_bytes())?, &constant.process),
        Contestant::tokenscope(
            server(installed.webhook_port(0), &STANDARD.decode(bundle)?)?,
            installed.webhook(0),
        ),
    ];
    if let (Some(url), Some(authorities)) = (&arguments.peer, &arguments.peer_ca) {
        let host = url.host().context("--peer needs a host")?;
        ensure!(
            url.scheme_str() == Some("https") && ["127.0.0.1", "localhost"].contains(&host),
            "--peer should read https://127.0.0.1:PORT/PATH"
        );
        let authorities =
            std::fs::read(authorities).with_context(|| format!("can't read {}", authorities.display()))?;
        let mut server = server(url.port_u16().unwrap_or(443), &authorities)?;
        server.name = host.to_owned().try_into()?;
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        contestants.push(Contestant::peer(server, path));
    }
    Ok(contestants)
}

/// One after the other has its turn; the order is that of the report.
async fn variants(
    arguments: &Webhook,
    control_plane: &ControlPlane,
    constant: &Constant,
    installed: &Installed,
    contestants: &[Contestant<'_>],
    annotation: &str,
) -> Result<Vec<Variant>> {
    let account = (ORDERS, annotation, ROLE);
    let bare = async |name, injects| Variant::bare(control_plane, name, injects, account).await;
    let ours = contestants.iter().find(|contestant| contestant.is_tokenscope());
    let ours = ours.context("tokenscope is measured")?;
    std::fs::write(&constant.patch, ours.patch(&Recorded::read(3)?).await?)?;

    let none = bare("no webhook", false).await?;
    let plain = bare("constant", false).await?;
    plain
        .register(control_plane, &constant.url(constant::ANSWER), &constant.authority)
        .await?;
    let patching = bare("constant+patch", true).await?;
    patching
        .register(control_plane, &constant.url(constant::PATCH), &constant.authority)
        .await?;
    // What is left between this and tokenscope is tokenscope's own time, and the guard's.
    let alike = bare("constant+patch+rules", true).await?;
    let configuration = installed
        .objects()
        .iter()
        .find(|object| object["kind"] == "MutatingWebhookConfiguration");
    let configuration = configuration.context("the chart has a webhook configuration")?;
    alike
        .register_like(
            control_plane,
            configuration,
            &constant.url(constant::PATCH),
            &constant.authority,
        )
        .await?;
    let ours = Variant {
        name: "tokenscope",
        namespace: SHOP.to_owned(),
        injects: true,
    };
    let mut variants = vec![none, plain, patching, alike, ours];
    if let (Some(url), Some(authorities)) = (&arguments.peer, &arguments.peer_ca) {
        let peer = bare("peer", true).await?;
        peer.register(control_plane, &url.to_string(), &std::fs::read_to_string(authorities)?)
            .await?;
        variants.push(peer);
    }
    Ok(variants)
}

fn memory(when: &'static str, installed: &Installed) -> Result<MemoryUse> {
    let memory = installed.webhook(0).memory()?;
    Ok(MemoryUse {
        when,
        resident: memory.resident,
        peak: memory.peak,
    })
}

/// What was aimed at, as far as this run says something about it.
fn budgets(report: &Report) -> Vec<Budget> {
    let mut budgets = Vec::new();
    let load = |containers, connections| format!("{containers} containers, {connections} connections");
    let of = |server: &'static str| report.reviews.iter().filter(move |line| line.server == server);
    for line in of("tokenscope") {
        let load = load(line.containers, line.connections);
        budgets.push(Budget::at_least(
            format!("{load}: of the constant answer's reviews/s"),
            line.ratio,
            0.6,
        ));
        let peer = of("peer").find(|peer| peer.containers == line.containers && peer.connections == line.connections);
        if let Some(peer) = peer {
            let ratio = line.per_second / peer.per_second;
            budgets.push(Budget::at_least(format!("{load}: of the peer's reviews/s"), ratio, 5.0));
        }
    }
    let most = match report.service_accounts {
        ..=100 => Some(15.0),
        101..=50_000 => Some(28.0),
        _ => None,
    };
    for line in &report.memory {
        if let Some(most) = most {
            budgets.push(Budget::at_most(
                format!("peak memory {}, MB", line.when),
                line.peak as f64 / 1e6,
                most,
            ));
        }
    }
    let creates = |webhook: &str| report.through_apiserver.iter().find(|line| line.webhook == webhook);
    if let Some(ours) = creates("tokenscope") {
        for (other, most) in [("constant", 1.3), ("constant+patch", 1.3), ("peer", 0.7)] {
            if let Some(other) = creates(other) {
                let what = format!("added to a create, of what {} adds", other.webhook);
                budgets.push(Budget::at_most(what, ours.added_us / other.added_us, most));
            }
        }
    }
    budgets
}
