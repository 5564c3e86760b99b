//! A pod as its users run it: the sidecar's program keeps the token in its file, and the unmodified AWS SDK takes the role with it, again
//! and again. STS reads discovery and keys as everybody does, from whichever replica answers.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokenscope_core::Algorithm;
use tokenscope_core::pod::SUBJECT_TOKEN_VOLUME;
use tokenscope_e2e::boto3;
use tokenscope_e2e::fixtures::PROPAGATION;
use tokenscope_e2e::forward::Forward;
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::sidecar::{FILE, Sidecar};
use tokenscope_fixtures::free_port;
use tokenscope_issuer::rotation::KeyRing;
use tokenscope_sidecar::token::Token;
use tokio::task::JoinHandle;

use super::*;

/// Takes the role until it is told to stop, by a new session each time, as a program that starts. It also ends with its parent, and by
/// itself after a quarter of an hour.
const CALLS: &str = r#"
import boto3, json, os, sys, time
task = json.load(sys.stdin)
good, failed = 0, []
parent, end = os.getppid(), time.monotonic() + 900
while not os.path.exists(task["stop"]) and os.getppid() == parent and time.monotonic() < end:
    try:
        boto3.Session().get_credentials().get_frozen_credentials()
        good += 1
    except Exception as error:
        failed.append(f"after {good} good ones: {error}")
    with open(task["made"] + ".new", "w") as made:
        made.write(str(good + len(failed)))
    os.replace(task["made"] + ".new", task["made"])
    time.sleep(0.1)
print(json.dumps({"good": good, "failed": failed}))
"#;

/// The calls of a workload.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Calls {
    /// How many brought credentials, with the retries of the SDK.
    pub(crate) good: usize,
    /// What each other one said.
    pub(crate) failed: Vec<String>,
}

/// The pod, and the STS that it calls.
pub(crate) struct Workload {
    sidecar: Sidecar,
    folder: PathBuf,
    /// Stands for the issuer's Service: connections go to a replica that answers.
    service: Forward,
    authorities: String,
    trust_policy: Value,
    /// The address of STS, whose last server answers. Each has its own memory of keys.
    sts: Forward,
    servers: Vec<Server>,
    calls: Option<JoinHandle<Result<Value>>>,
}

impl Workload {
    /// Starts a pod of a tenant in a namespace of this name, and waits for its first call.
    pub(crate) async fn start(environment: &Environment, namespace: &str, policy: Value, replicas: usize) -> Self {
        let tenant = Tenant::open(environment, namespace).await;
        tenant.shop.policy("orders", policy).await.unwrap();
        let mut pod = tenant.shop.asking("orders-1", ORDERS);
        pod["metadata"]["labels"] = json!({"app": "orders"});
        let pod = tenant.shop.granted(&pod).await.unwrap().body;
        let control_plane = &environment.control_plane;
        let folder = control_plane.folder().join(namespace);
        fs::create_dir_all(folder.join(SUBJECT_TOKEN_VOLUME)).unwrap();
        let subject = control_plane.pod_token(namespace, "orders-1", URL, 3600).await.unwrap();
        fs::write(folder.join(SUBJECT_TOKEN_VOLUME).join("token"), subject).unwrap();

        let service = Forward::listen(free_port().unwrap()).unwrap();
        for number in 0..replicas {
            service.add(environment.installed.issuer(number).1);
        }
        let reached = (
            format!("https://tokenscope-issuer.{NAMESPACE}.svc"),
            format!("https://127.0.0.1:{}", service.port()),
        );
        let watchdog = control_plane.watchdog();
        let sidecar = Sidecar::of_pod(&pod, &folder, "sidecar", (&reached.0, &reached.1), watchdog).unwrap();
        sidecar
            .wait_for(PROPAGATION, "the issued token is in its file", |_| true)
            .await
            .unwrap();
        let mut this = Self {
            sidecar,
            folder,
            service,
            authorities: authority(&tenant.shop.client).await.unwrap(),
            trust_policy: trust_policy(&format!("system:serviceaccount:{namespace}:orders"), "blue"),
            sts: Forward::listen(free_port().unwrap()).unwrap(),
            servers: Vec::new(),
            calls: None,
        };
        this.forget_keys().await;
        this.calls = Some(this.call());
        this.called(1).await;
        this
    }

    fn call(&self) -> JoinHandle<Result<Value>> {
        let file = self.sidecar.directory().join(FILE).display().to_string();
        let sts = format!("http://127.0.0.1:{}", self.sts.port());
        let task = json!({"stop": self.folder.join("stop"), "made": self.folder.join("made")});
        tokio::task::spawn_blocking(move || {
            let environment = [
                ("AWS_ENDPOINT_URL_STS", &*sts),
                ("AWS_DEFAULT_REGION", "eu-central-1"),
                ("AWS_ROLE_ARN", ORDERS),
                ("AWS_ROLE_SESSION_NAME", "orders-1"),
                ("AWS_WEB_IDENTITY_TOKEN_FILE", &file),
            ];
            boto3::run(CALLS, &environment, &task)
        })
    }

    /// Waits until so many more calls have ended.
    async fn called(&self, more: usize) {
        let made = || {
            let text = fs::read_to_string(self.folder.join("made")).unwrap_or_default();
            text.parse::<usize>().unwrap_or_default()
        };
        let before = made();
        eventually(PROPAGATION, "the SDK calls", async || {
            anyhow::ensure!(made() >= before + more, "{} calls", made());
            Ok(())
        })
        .await
        .unwrap();
    }

    /// Starts the sidecar again, so that it exchanges at once. The token that it had stays in the file until there is another.
    pub(crate) fn renew(&self) {
        self.sidecar.process.restart().unwrap();
    }

    /// What happens before hours have passed, which they do in the Secret alone: the pod has a token of the key that signs now, and STS has
    /// read the keys of now.
    pub(crate) async fn let_time_pass(&mut self, ring: &KeyRing) {
        let (signer, _) = ring.signing(Algorithm::ES256).unwrap();
        self.renew();
        let is_of_signer = |token: &Token| kid_of(token.secret()).is_ok_and(|kid| kid == signer.kid());
        self.sidecar
            .wait_for(
                PROPAGATION,
                "the sidecar has a token of the key that signs",
                is_of_signer,
            )
            .await
            .unwrap();
        self.forget_keys().await;
        // One call may have begun before. The next one has the new token, and STS reads the keys for it.
        self.called(2).await;
    }

    /// Another server answers for STS, which remembers no keys.
    async fn forget_keys(&mut self) {
        let server = sts(self.authorities.clone(), self.service.port(), self.trust_policy.clone());
        let server = server.await.unwrap();
        self.sts.add(server.addr().port());
        if let Some(before) = self.servers.last() {
            self.sts.remove(before.addr().port());
        }
        self.servers.push(server);
    }

    /// Ends the calls: what they were.
    pub(crate) async fn stop(mut self) -> Calls {
        fs::write(self.folder.join("stop"), "").unwrap();
        let calls = self.calls.take().unwrap().await.unwrap().unwrap();
        serde_json::from_value(calls).unwrap()
    }

    /// How many tokens the sidecar wrote first after a start.
    pub(crate) fn first_tokens(&self) -> usize {
        self.sidecar.process.log().matches("written for the first time").count()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // A test that has failed does not wait for calls; a folder that is gone has none.
        let _ = fs::write(self.folder.join("stop"), "");
    }
}

/// The policy of pods whose tokens are signed with ES256.
pub(crate) fn es256() -> Value {
    let mut policy = policy();
    policy["token"]["algorithm"] = json!("ES256");
    policy
}

/// The identifier of the key that signed a token.
pub(crate) fn kid_of(token: &str) -> Result<String> {
    let header = token.split('.').next().context("a header")?;
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
    Ok(header["kid"].as_str().context("a kid")?.to_owned())
}
