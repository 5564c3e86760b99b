//! The things that are measured: the cluster's ServiceAccounts, the webhook that always says the same, and the namespaces of
//! each webhook.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokenscope_e2e::control_plane::ControlPlane;
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::install::{self, Installed, install};
use tokenscope_e2e::pki::CertificateAuthority;
use tokenscope_e2e::process::{ServerProcess, Start, Watchdog};
use tokenscope_e2e::{eventually, get_json};
use tokenscope_fixtures::free_port;
use tokenscope_xtask::progress::Step;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::load::{self, TlsServer};
use crate::reviews::{BY_PROFILE, Recorded, Target};
use crate::via_apiserver::{Variant, namespace_of};
use crate::{ORDERS, ROLE, SHOP, Webhook, baseline};

/// The webhooks that tokenscope is compared with, in namespaces without it.
const COMPARED: [&str; 5] = [
    "no webhook",
    "constant",
    "constant+patch",
    "constant+patch+rules",
    "peer",
];

/// As many threads as the webhook has by default.
const WORKERS: usize = 2;

/// Creates annotated ServiceAccounts, 500 to a namespace, as fast as the API server takes them.
pub(crate) async fn create_service_accounts(
    control_plane: &ControlPlane,
    count: usize,
    annotation: &str,
) -> Result<()> {
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

/// Installs tokenscope with the chart's values that were asked for.
pub(crate) async fn install_tokenscope(arguments: &Webhook, control_plane: &ControlPlane) -> Result<Installed> {
    let step = Step::start("starting tokenscope", None);
    let mut values = arguments.values.clone();
    ensure!(
        values["lock"]["mode"].is_null(),
        "--values has lock.mode: give it with --lock-mode, so that it is in the report"
    );
    values["lock"]["mode"] = json!(arguments.lock_mode);
    if values["webhook"]["timeoutSeconds"].is_null() {
        values["webhook"]["timeoutSeconds"] = json!(2); // the chart's own: the harness would have the API server wait longer
    }
    // The lock leaves what it is compared with alone; the guard does by the label of those namespaces.
    if values["lock"]["exemptNamespaces"].is_null() {
        values["lock"]["exemptNamespaces"] = COMPARED.map(namespace_of).as_slice().into();
    }
    if arguments.peer.is_some() {
        values["eksCompatible"] = json!(true);
    }
    let options = install::Options {
        values,
        ..install::Options::default()
    };
    let installed = install(control_plane, options).await?;
    step.done("");
    Ok(installed)
}

/// The webhook that always says the same, in a process of its own.
pub(crate) struct Baseline {
    pub(crate) process: ServerProcess,
    pub(crate) port: u16,
    authority: String,
    /// Where it finds the patch of its other answer.
    patch: PathBuf,
}

impl Baseline {
    pub(crate) async fn start(control_plane: &ControlPlane) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("tokenscope-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let watchdog = Watchdog::start(&folder)?;
        let authority = CertificateAuthority::new("tokenscope-bench-ca")?;
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
        let process = ServerProcess::start(start, &watchdog)?;
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

    /// The server that it is.
    pub(crate) fn server(&self) -> Result<TlsServer> {
        Ok(TlsServer {
            address: ([127, 0, 0, 1], self.port).into(),
            name: "127.0.0.1".try_into()?,
            config: load::client_config(self.authority.as_bytes(), None)?,
        })
    }

    fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }
}

/// The namespace whose policy has delivery.type Profile and a chain of two, in which the recorded pods ask for the same role.
pub(crate) async fn allow_by_profile(control_plane: &ControlPlane, annotation: &str) -> Result<()> {
    control_plane.create_namespace(BY_PROFILE, &[]).await?;
    control_plane
        .create_service_account(BY_PROFILE, ORDERS, &[(annotation, ROLE)])
        .await?;
    let hop = |name: &str| json!({"roleArn": format!("arn:aws:iam::444455556666:role/{name}"), "externalId": "7f3e1c"});
    let policy = json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
        "metadata": {"name": "orders", "namespace": BY_PROFILE},
        "spec": {
            "subjects": [{"serviceAccounts": [ORDERS]}],
            "roles": {"allowed": ["arn:aws:iam::111122223333:role/shop/*"]},
            "aws": {"region": "eu-central-1", "roleChain": [hop("partner"), hop("archive")]},
            "delivery": {"type": "Profile"},
        },
    });
    control_plane.apply(&[policy], BY_PROFILE).await?;
    Ok(())
}

pub(crate) async fn targets<'a>(
    arguments: &Webhook,
    control_plane: &ControlPlane,
    constant: &'a Baseline,
    installed: &'a Installed,
) -> Result<Vec<Target<'a>>> {
    let server = |port: u16, authorities: &[u8]| -> Result<TlsServer> {
        Ok(TlsServer {
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
    let ours = || server(installed.webhook_port(0), &STANDARD.decode(bundle)?);
    let mut targets = vec![
        Target::constant(constant.server()?, &constant.process),
        Target::tokenscope(ours()?, installed.webhook(0)),
        Target::tokenscope_profile(ours()?, installed.webhook(0)),
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
        targets.push(Target::peer(server, path));
    }
    Ok(targets)
}

/// The webhook that reads all of a review as JSON, once it knows the patches that tokenscope makes for the recorded ones.
pub(crate) async fn read_and_patch<'a>(
    constant: &'a Baseline,
    targets: &[Target<'_>],
    recorded: &[Recorded],
) -> Result<Target<'a>> {
    let ours = targets.iter().find(|target| target.is_tokenscope());
    let ours = ours.context("tokenscope is measured")?;
    for recorded in recorded {
        let file = baseline::patch_of_recorded(&constant.patch, recorded.containers);
        std::fs::write(file, ours.patch(recorded).await?)?;
    }
    Ok(Target::read_and_patch(constant.server()?, &constant.process))
}

/// A patch in base64 with names of the same length in place of tokenscope's, whose mark nobody else may set.
fn unmarked(patch: &str) -> Result<String> {
    let patch = String::from_utf8(STANDARD.decode(patch)?)?;
    Ok(STANDARD.encode(patch.replace("tokenscope.io", "tokenscope-io")))
}

/// One after the other has its turn; the order is that of the report.
pub(crate) async fn variants(
    arguments: &Webhook,
    control_plane: &ControlPlane,
    constant: &Baseline,
    installed: &Installed,
    targets: &[Target<'_>],
    annotation: &str,
) -> Result<Vec<Variant>> {
    let account = (ORDERS, annotation, ROLE);
    let bare = async |name, injects| Variant::bare(control_plane, name, injects, account).await;
    let ours = targets.iter().find(|target| target.is_tokenscope());
    let ours = ours.context("tokenscope is measured")?;
    std::fs::write(&constant.patch, unmarked(&ours.patch(&Recorded::read(3)?).await?)?)?;

    let none = bare("no webhook", false).await?;
    let plain = bare("constant", false).await?;
    plain
        .register(control_plane, &constant.url(baseline::ANSWER), &constant.authority)
        .await?;
    let patching = bare("constant+patch", true).await?;
    patching
        .register(control_plane, &constant.url(baseline::PATCH), &constant.authority)
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
            &constant.url(baseline::PATCH),
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
