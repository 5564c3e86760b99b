//! The honest load: pods that ask, pods whose ServiceAccount asks, ordinary pods, and pods that ask for too much. Beside some
//! attacks there are also large pods that ask.
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

/// Between two creates of large pods: enough to see whether each is granted, and too few to be a load.
const LARGE_PERIOD: Duration = Duration::from_millis(400);

/// The shape of a large pod, which has some 400 kB.
const LARGE_CONTAINERS: usize = 48;
const LARGE_VARIABLES: usize = 140;
/// What stands in its text for its name.
const LARGE_NAME: &str = "name-of-a-large-pod";

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
    /// The text of a large pod.
    large: String,
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
    /// It asks, has very many variables in many containers, and each of these must be granted. Only tried, so that what is
    /// stored is what an attack stores.
    Large,
}

/// The creates of some seconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    latencies: Vec<Duration>,
    /// The latencies of large pods, and how many of these were granted.
    pub(crate) large: Vec<Duration>,
    pub(crate) large_granted: usize,
    /// Creates, of large pods too, that should have been admitted and were refused, or failed otherwise.
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
            large: large_pod(),
        };
        this.is_served().await?;
        Ok(this)
    }

    /// Waits until every kind of pod gets what it should.
    pub(crate) async fn is_served(&self) -> Result<()> {
        eventually(PROPAGATION, "honest pods get what they should", async || {
            for kind in Kind::ALL.into_iter().chain([Kind::Large]) {
                self.create(kind).await?.map_err(|fault| anyhow::anyhow!("{fault:?}"))?;
            }
            Ok(())
        })
        .await
    }

    /// Creates pods at the steady rate for so long, and large ones beside if that is wanted.
    pub(crate) async fn window(self: &Arc<Self>, length: Duration, with_large: bool) -> Window {
        let this = Arc::clone(self);
        let large_length = if with_large { length } else { Duration::ZERO };
        let windows = self.runtime.spawn(async move {
            tokio::join!(
                this.creates(&Kind::ALL, PERIOD, length),
                this.creates(&[Kind::Large], LARGE_PERIOD, large_length)
            )
        });
        let (mut window, large) = windows.await.unwrap_or_default();
        window.large_granted = large.latencies.len() - large.refused.len() - large.unreviewed.len();
        window.large = large.latencies;
        window.refused.extend(large.refused);
        window.unreviewed.extend(large.unreviewed);
        window
    }

    async fn creates(self: &Arc<Self>, kinds: &'static [Kind], period: Duration, length: Duration) -> Window {
        let mut creates = JoinSet::new();
        let mut ticks = tokio::time::interval(period);
        let until = Instant::now() + length;
        while Instant::now() < until {
            let due = ticks.tick().await;
            let this = Arc::clone(self);
            creates.spawn(async move {
                let kind = kinds[this.number.load(Ordering::Relaxed) % kinds.len()];
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
        let (pod, query) = if kind == Kind::Large {
            (self.large.replace(LARGE_NAME, &name), "?dryRun=All")
        } else {
            (pod(&name, kind).to_string(), "")
        };
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods{query}");
        let request = http::Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Body::from(pod.into_bytes()))?;
        let answer = self.client.send(request).await?;
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await?.to_bytes();
        if kind == Kind::Large && status == 201 {
            return Ok(judge_large(&bytes));
        }
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
    /// As often as each should come, but for large ones.
    const ALL: [Self; 4] = [Self::Asks, Self::ByAccount, Self::Ordinary, Self::AsksTooMuch];
}

impl Window {
    /// The time below which `percent` of the creates stayed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        percentile(&self.latencies, percent)
    }
}

/// The time below which `percent` of these stayed, the shortest of which is the first.
pub(crate) fn percentile(latencies: &[Duration], percent: usize) -> Duration {
    let index = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
    latencies.get(index).copied().unwrap_or_default()
}

fn pod(name: &str, kind: Kind) -> Value {
    let account = match kind {
        Kind::ByAccount => ANNOTATED,
        Kind::Asks | Kind::AsksTooMuch | Kind::Large => "orders",
        Kind::Ordinary => "default",
    };
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE, "annotations": {}},
        "spec": {"serviceAccountName": account, "containers": [{"name": "app", "image": "app"}]},
    });
    match kind {
        Kind::Asks | Kind::Large => with_annotations(pod, &[("tokenscope.io/role-arn", ORDERS)]),
        Kind::AsksTooMuch => with_annotations(pod, &[("tokenscope.io/role-arn", ADMIN)]),
        Kind::ByAccount | Kind::Ordinary => pod,
    }
}

/// The text of a pod that asks, with many containers of many variables.
fn large_pod() -> String {
    let mut pod = pod(LARGE_NAME, Kind::Large);
    let variables: Vec<Value> = (0..LARGE_VARIABLES)
        .map(|number| json!({"name": format!("SETTING_{number}"), "value": format!("https://{number}.example.com/")}))
        .collect();
    let containers =
        (0..LARGE_CONTAINERS).map(|number| json!({"name": format!("app-{number}"), "image": "app", "env": variables}));
    pod["spec"]["containers"] = containers.collect();
    pod.to_string()
}

/// A large pod that was admitted. Its text is only searched, since this thread serves the other creates too; in the list of who
/// manages which field the quotation marks are escaped.
fn judge_large(body: &[u8]) -> Result<(), Fault> {
    let granted = String::from_utf8_lossy(body)
        .matches(r#""name":"AWS_WEB_IDENTITY_TOKEN_FILE""#)
        .count();
    if granted == LARGE_CONTAINERS {
        return Ok(());
    }
    Err(Fault::Unreviewed(format!(
        "admitted, and {granted} of {LARGE_CONTAINERS} containers have their grant"
    )))
}

fn judge(kind: Kind, status: u16, body: &Value) -> Result<(), Fault> {
    let message = || format!("{status} {}", body["message"].as_str().unwrap_or_default());
    let admitted = status == 201;
    let result: Result<()> = (|| {
        let granted = body["spec"].to_string().contains("AWS_WEB_IDENTITY_TOKEN_FILE");
        match kind {
            Kind::Asks | Kind::ByAccount | Kind::Large => ensure!(granted, "admitted without its grant"),
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
