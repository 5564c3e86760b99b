//! Proves the project from outside, against real servers; demo and benches run on the same harness.
//!
//! - [`control_plane`]: a real etcd and kube-apiserver, and what a kubelet and an administrator ask of them;
//! - [`controllers`]: the real controllers of Kubernetes beside it;
//! - [`install`]: tokenscope as its charts say, with its real programs running outside the cluster;
//! - [`policies_act`]: waits until the API server acts by the admission policies that it has, and [`rights_act`]: by the rights;
//! - [`admission`]: creating pods and looking at the whole answer, warnings included;
//! - [`compat`]: recorded cases of the EKS webhook's suite;
//! - [`container`]: what a process in a container would find, for the unmodified AWS SDK; [`boto3`]: that SDK elsewhere;
//! - [`fixtures`]: a namespace of a shop, its policies and its pods;
//! - [`issuer`]: exchanges of tokens, as a sidecar does them;
//! - [`webhook_only`]: a webhook without an API server between;
//! - [`helm`]: the real helm;
//! - [`node`]: a cluster in which pods run, [`issuer_site`]: issuers on web servers in its network, [`probes`]: what the pods run, and [`local_probe`]: the same without a cluster;
//! - [`aws`]: somebody else's STS and S3 in it, [`strict_sts`]: ours there, which judges as AWS documents it;
//! - [`spire_cluster`]: SPIRE in such a cluster, and [`csi`]: drivers, one of which mounts its socket;
//! - [`second_webhook`]: somebody else's webhook beside ours, and [`eks_webhook`]: that of EKS;
//! - [`rollout`]: another release or other values in place of what is installed, under load;
//! - [`shapes`]: pods that are hostile by their shape;
//! - [`sidecar`]: the sidecar, and a workload that reads its file all the time; [`spire`]: real SPIRE without a cluster;
//! - [`keycloak`], [`radosgw`]: real servers that judge an OIDC issuer's tokens, and [`token_maker`]: those of our issuer, and forged ones;
//! - [`workload_api`]: an agent that does what real SPIRE can't be made to do;
//! - [`process`]: child processes that end when the test does, and the faults to give them;
//! - [`output`]: what the demos print;
//! - [`Shared`]: one control plane for all tests of a file.

pub mod admission;
pub mod apply;
pub mod aws;
pub mod boto3;
mod ceph;
pub mod cert_manager;
pub mod compat;
pub mod container;
pub mod control_plane;
pub mod controllers;
pub mod csi;
pub mod eks_webhook;
pub mod fixtures;
pub mod forward;
pub mod helm;
pub mod install;
pub mod issuer;
pub mod issuer_site;
pub mod keycloak;
pub mod local_probe;
pub mod ministack;
pub mod node;
pub mod node_servers;
pub mod output;
pub mod pki;
pub mod policies_act;
pub mod probes;
pub mod process;
pub mod published;
pub mod radosgw;
pub mod rights_act;
pub mod rollout;
pub mod second_webhook;
pub mod shapes;
pub mod sidecar;
pub mod spire;
pub mod spire_cluster;
pub mod strict_sts;
pub mod token_maker;
pub mod webhook_only;
pub mod workload_api;

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::Client;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::control_plane::ControlPlane;
use crate::install::{Installed, install};

/// How long an answer on this machine may take before it is a failure.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// One control plane with tokenscope installed, shared by the tests of a file:
///
/// ```ignore
/// static SHARED: Shared = Shared::new(install::Options::default);
///
/// #[tokio::test]
/// async fn a_pod_is_injected() {
///     let Environment { control_plane, installed } = SHARED.environment().await;
///     control_plane.create_namespace("injected", &[]).await.unwrap();
/// ```
///
/// Each test uses namespaces of its own. When the test program ends, so do the servers.
pub struct Shared {
    options: fn() -> install::Options,
    environment: OnceCell<Result<Environment, String>>,
}

/// A control plane with tokenscope installed.
#[derive(Debug)]
pub struct Environment {
    /// tokenscope; before the control plane, so that it ends first.
    pub installed: Installed,
    /// etcd and kube-apiserver.
    pub control_plane: ControlPlane,
}

impl Shared {
    /// Nothing is started before the first use.
    pub const fn new(options: fn() -> install::Options) -> Self {
        Self {
            options,
            environment: OnceCell::const_new(),
        }
    }

    /// Starts it for the first test and gives it to all.
    ///
    /// # Panics
    /// If it can't be started; for each test, with the same message.
    pub async fn environment(&self) -> &Environment {
        let started = self.environment.get_or_init(async || {
            let environment = Environment::start((self.options)())
                .await
                .map_err(|error| format!("{error:#}"))?;
            environment.show_logs_on_panic();
            Ok(environment)
        });
        match started.await {
            Ok(environment) => environment,
            #[expect(clippy::panic, reason = "no test can go on")]
            Err(message) => panic!("the servers for the tests didn't start: {message}"),
        }
    }
}

impl Environment {
    /// Starts a control plane and installs tokenscope there.
    pub async fn start(options: install::Options) -> Result<Self> {
        let control_plane = ControlPlane::start(control_plane::Options::default()).await?;
        let installed = install(&control_plane, options).await?;
        Ok(Self {
            installed,
            control_plane,
        })
    }

    /// When the first test fails, the ends of tokenscope's logs are shown and the folder stays.
    fn show_logs_on_panic(&self) {
        static ONCE: std::sync::Once = std::sync::Once::new();
        let before = std::panic::take_hook();
        let logs: Vec<_> = self
            .installed
            .processes()
            .map(|process| process.log_path().to_owned())
            .collect();
        let folder = self.control_plane.folder().to_owned();
        let watchdog = std::sync::Arc::clone(self.control_plane.watchdog());
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            ONCE.call_once(|| {
                watchdog.keep_folder();
                for log in &logs {
                    let text = std::fs::read_to_string(log).unwrap_or_default();
                    let lines: Vec<&str> = text.lines().collect();
                    eprintln!("--- the end of {}", log.display());
                    lines[lines.len().saturating_sub(15)..]
                        .iter()
                        .for_each(|line| eprintln!("{line}"));
                }
                eprintln!("--- all logs stay in {}", folder.join("logs").display());
            });
        }));
    }
}

/// The least number of attempts of [`eventually`]: a machine that stands still for seconds takes none of them away.
const LEAST_ATTEMPTS: u32 = 8;

/// Tries until it succeeds. Fails with the last error and `what` should have come true.
pub async fn eventually<T>(
    deadline: Duration,
    what: impl Display,
    mut attempt: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(20);
    let mut attempts = 0;
    loop {
        attempts += 1;
        let error = match tokio::time::timeout(deadline, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => bail!("waited {deadline:?} in vain until {what}: no answer at all"),
        };
        if attempts >= LEAST_ATTEMPTS && started.elapsed() + pause >= deadline {
            return Err(error.context(format!("waited {deadline:?} in vain until {what}")));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(250));
    }
}

/// Status and body of a GET on 127.0.0.1, in plain HTTP.
pub async fn get(port: u16, path: &str) -> Result<(u16, String)> {
    let answer = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n").as_bytes())
            .await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        anyhow::Ok(bytes)
    };
    let bytes = tokio::time::timeout(ANSWER_DEADLINE, answer)
        .await
        .context("no answer in time")??;
    let text = String::from_utf8(bytes)?;
    let (head, body) = text.split_once("\r\n\r\n").context("an HTTP answer has a head")?;
    let status = head.split_whitespace().nth(1).context("an HTTP answer has a status")?;
    Ok((status.parse()?, body.to_owned()))
}

/// A GET of the API server.
pub async fn get_json(client: &Client, path: &str) -> kube::Result<Value> {
    client.request(request(http::Method::GET, path, Vec::new())?).await
}

/// A POST to the API server. An API error keeps its message.
pub async fn post(client: &Client, path: &str, object: &Value) -> kube::Result<Value> {
    client
        .request(request(http::Method::POST, path, object.to_string().into_bytes())?)
        .await
}

/// A PUT to the API server.
pub async fn put(client: &Client, path: &str, object: &Value) -> kube::Result<Value> {
    client
        .request(request(http::Method::PUT, path, object.to_string().into_bytes())?)
        .await
}

/// A DELETE to the API server, without waiting for a controller.
pub async fn delete(client: &Client, path: &str) -> kube::Result<Value> {
    client
        .request(request(
            http::Method::DELETE,
            path,
            br#"{"gracePeriodSeconds":0}"#.to_vec(),
        )?)
        .await
}

/// A JSON merge patch.
pub async fn merge(client: &Client, path: &str, change: &Value) -> kube::Result<Value> {
    let mut request = request(http::Method::PATCH, path, change.to_string().into_bytes())?;
    let json_merge = http::HeaderValue::from_static("application/merge-patch+json");
    request.headers_mut().insert(http::header::CONTENT_TYPE, json_merge);
    client.request(request).await
}

pub(crate) fn request(method: http::Method, path: &str, body: Vec<u8>) -> kube::Result<http::Request<Vec<u8>>> {
    http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(kube::Error::HttpError)
}
