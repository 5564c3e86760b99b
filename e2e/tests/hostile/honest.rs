//! The honest load: pods that ask, pods whose ServiceAccount asks, ordinary pods, and pods that ask for too much.
//!
//! It keeps its rate whatever the answers take, and each time counts from when the create was due. It has a thread of its
//! own, so that what the attackers do in this process does not count.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokenscope_e2e::control_plane::{ControlPlane, client_of};
use tokenscope_e2e::eventually;
use tokenscope_e2e::fixtures::{ADMIN, ORDERS, PROPAGATION, Shop, with_annotations};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Between two creates.
const PERIOD: Duration = Duration::from_millis(35);

/// A create that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(15);

const NAMESPACE: &str = "honest";
/// The ServiceAccount that names a role itself.
const ANNOTATED: &str = "annotated";

/// An honest namespace and its pods.
pub(crate) struct Honest {
    client: Client,
    number: AtomicUsize,
    runtime: Handle,
}

/// What a pod expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Its own annotation asks, and it must be granted.
    Asks,
    /// Its ServiceAccount's annotation asks, and it must be granted.
    ByAccount,
    /// Nothing concerns it, and it must be admitted as it is.
    Ordinary,
    /// It asks for a role that nobody allows, and must be refused.
    AsksTooMuch,
}

/// The creates of some seconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    latencies: Vec<Duration>,
    /// Creates that should have been admitted and were refused, or failed otherwise.
    pub(crate) refused: Vec<String>,
    /// Creates that were admitted without what they must have, or although they must be refused.
    pub(crate) unreviewed: Vec<String>,
}

impl Honest {
    /// `runtime` is where the load runs.
    pub(crate) async fn open(control_plane: &ControlPlane, runtime: Handle) -> Result<Self> {
        let shop = Shop::open(control_plane, NAMESPACE, &[]).await?;
        control_plane
            .create_service_account(NAMESPACE, ANNOTATED, &[("tokenscope.io/role-arn", ORDERS)])
            .await?;
        let policy = json!({
            "subjects": [{"serviceAccounts": ["orders", ANNOTATED]}],
            "roles": {"allowed": ["arn:aws:iam::111122223333:role/shop/*"]},
        });
        shop.policy("orders", policy).await?;
        let kubeconfig = control_plane.kubeconfig();
        let this = Self {
            // A client's connections live in the runtime that it is made in.
            client: runtime.spawn(async move { client_of(&kubeconfig).await }).await??,
            number: AtomicUsize::new(0),
            runtime,
        };
        this.is_served().await?;
        Ok(this)
    }

    /// Waits until every kind of pod gets what it should.
    pub(crate) async fn is_served(&self) -> Result<()> {
        eventually(PROPAGATION, "honest pods get what they should", async || {
            for kind in Kind::ALL {
                self.create(kind).await?.map_err(|fault| anyhow::anyhow!("{fault:?}"))?;
            }
            Ok(())
        })
        .await
    }

    /// Creates pods at the steady rate for so long.
    pub(crate) async fn window(self: &Arc<Self>, length: Duration) -> Window {
        let this = Arc::clone(self);
        let window = self.runtime.spawn(async move { this.creates(length).await });
        window.await.unwrap_or_default()
    }

    async fn creates(self: &Arc<Self>, length: Duration) -> Window {
        let mut creates = JoinSet::new();
        let mut ticks = tokio::time::interval(PERIOD);
        let until = Instant::now() + length;
        while Instant::now() < until {
            let due = ticks.tick().await;
            let this = Arc::clone(self);
            creates.spawn(async move {
                let kind = Kind::ALL[this.number.load(Ordering::Relaxed) % Kind::ALL.len()];
                let result = tokio::time::timeout(DEADLINE, this.create(kind)).await;
                (kind, due.elapsed(), result)
            });
        }
        let mut window = Window::default();
        while let Some(create) = creates.join_next().await {
            let Ok((kind, took, result)) = create else { continue };
            window.latencies.push(took);
            match result {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(Fault::Unreviewed(text)))) => window.unreviewed.push(format!("{kind:?}: {text}")),
                Ok(Ok(Err(Fault::Refused(text)))) => window.refused.push(format!("{kind:?}: {text}")),
                Ok(Err(error)) => window.refused.push(format!("{kind:?}: {error:#}")),
                Err(_) => window.refused.push(format!("{kind:?}: no answer within {DEADLINE:?}")),
            }
        }
        window.latencies.sort_unstable();
        window
    }

    /// Creates one pod; the inner result says what is wrong with the answer.
    async fn create(&self, kind: Kind) -> Result<Result<(), Fault>> {
        let name = format!("honest-{}", self.number.fetch_add(1, Ordering::Relaxed));
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        let request = http::Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Body::from(pod(&name, kind).to_string().into_bytes()))?;
        let answer = self.client.send(request).await?;
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await?.to_bytes();
        let body: Value = serde_json::from_slice(&bytes).context("the API server answers in JSON")?;
        Ok(judge(kind, status, &body))
    }
}

/// What is wrong with an answer.
#[derive(Debug)]
enum Fault {
    Refused(String),
    Unreviewed(String),
}

impl Kind {
    /// As often as each should come.
    const ALL: [Self; 4] = [Self::Asks, Self::ByAccount, Self::Ordinary, Self::AsksTooMuch];
}

impl Window {
    /// The time below which `percent` of the creates stayed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let index = (self.latencies.len() * percent / 100).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

fn pod(name: &str, kind: Kind) -> Value {
    let account = match kind {
        Kind::ByAccount => ANNOTATED,
        Kind::Asks | Kind::AsksTooMuch => "orders",
        Kind::Ordinary => "default",
    };
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE, "annotations": {}},
        "spec": {"serviceAccountName": account, "containers": [{"name": "app", "image": "app"}]},
    });
    match kind {
        Kind::Asks => with_annotations(pod, &[("tokenscope.io/role-arn", ORDERS)]),
        Kind::AsksTooMuch => with_annotations(pod, &[("tokenscope.io/role-arn", ADMIN)]),
        Kind::ByAccount | Kind::Ordinary => pod,
    }
}

fn judge(kind: Kind, status: u16, body: &Value) -> Result<(), Fault> {
    let message = || format!("{status} {}", body["message"].as_str().unwrap_or_default());
    let admitted = status == 201;
    let result: Result<()> = (|| {
        let granted = body["spec"].to_string().contains("AWS_WEB_IDENTITY_TOKEN_FILE");
        match kind {
            Kind::Asks | Kind::ByAccount => ensure!(granted, "admitted without its grant"),
            Kind::Ordinary => ensure!(!granted, "granted what it did not ask for"),
            Kind::AsksTooMuch => ensure!(!admitted, "admitted, and asks for a role that nobody allows"),
        }
        Ok(())
    })();
    match (kind, admitted) {
        (Kind::AsksTooMuch, false) if status == 403 => Ok(()),
        (_, false) => Err(Fault::Refused(message())),
        (_, true) => result.map_err(|error| Fault::Unreviewed(error.to_string())),
    }
}
