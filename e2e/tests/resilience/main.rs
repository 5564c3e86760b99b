//! What happens to pods when something fails: each test breaks something for real, on a control plane of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod certificates;
mod crowd;
mod gone;
mod malformed;
mod operators;
mod rights;
mod watches;

use std::ops::Deref;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use kube::Client;
use serde_json::Value;
use tokenscope_e2e::admission::try_pod;
use tokenscope_e2e::control_plane::{self, ControlPlane};
use tokenscope_e2e::fixtures::{PROPAGATION, Shop};
use tokenscope_e2e::install::{Installed, Options, install};
use tokenscope_e2e::{Environment, eventually, get_json};

const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tokenscope";

/// A control plane with tokenscope that belongs to one test. Should the test fail, its logs stay.
struct Scenario(Environment);

impl Scenario {
    async fn start(options: Options) -> Self {
        Self(Environment::start(options).await.unwrap())
    }

    /// The same with more arguments for kube-apiserver.
    async fn start_with(arguments: &[&str], options: Options) -> Self {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let control_plane = ControlPlane::start(control_plane::Options {
            arguments,
            ..control_plane::Options::default()
        });
        let control_plane = control_plane.await.unwrap();
        let installed = install(&control_plane, options).await.unwrap();
        Self(Environment {
            installed,
            control_plane,
        })
    }

    /// What must be true after whatever happened: no request was beyond the chart's rights, every program still runs, and
    /// no token is in a log. `secrets` are tokens beside those of the programs.
    fn holds(&self, secrets: &[String]) {
        let nothing: [String; 0] = [];
        assert_eq!(self.control_plane.forbidden().unwrap(), nothing);
        self.holds_but_for_rights(secrets);
    }

    fn holds_but_for_rights(&self, secrets: &[String]) {
        let mut tokens = secrets.to_vec();
        for entry in std::fs::read_dir(self.control_plane.folder()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "kubeconfig") {
                let config: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
                tokens.extend(config["users"][0]["user"]["token"].as_str().map(str::to_owned));
            }
        }
        assert!(tokens.len() >= 2, "the programs authenticate by tokens");
        for process in self.installed.processes() {
            assert!(process.exit_status().unwrap().is_none(), "{} has ended", process.name());
            let log = process.log();
            // Every JSON Web Token begins with a brace and a quotation mark, in base64.
            assert!(
                !log.contains("eyJ"),
                "something like a token is in the log of {}",
                process.name()
            );
            for token in &tokens {
                let signature = token.rsplit('.').next().unwrap_or_default();
                assert!(
                    signature.len() > 40 && !log.contains(signature),
                    "a token is in {}",
                    process.name()
                );
            }
            for panicked in ["panicked at", "thread '"] {
                assert!(
                    !log.contains(panicked),
                    "{} has panicked:\n{}",
                    process.name(),
                    process.log_tail(20)
                );
            }
        }
    }
}

impl Deref for Scenario {
    type Target = Environment;

    fn deref(&self) -> &Environment {
        &self.0
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.control_plane.keep_folder();
            for process in self.0.installed.processes() {
                eprintln!("{}", process.log_tail(15));
            }
        }
    }
}

/// A policy once its status is about what it says now, and `wanted` is true of it.
async fn policy_when(
    shop: &Shop<'_>,
    name: &str,
    within: Duration,
    wanted: impl Fn(&Value) -> Result<()>,
) -> Result<Value> {
    let path = format!(
        "/apis/tokenscope.io/v1alpha1/namespaces/{}/tokenscopepolicies/{name}",
        shop.namespace
    );
    eventually(
        within,
        format!("policy {name} has the status that it should"),
        async || {
            let policy = get_json(&shop.client, &path).await?;
            let of_now = policy["status"]["observedGeneration"] == policy["metadata"]["generation"];
            ensure!(of_now, "the status is {}", policy["status"]);
            wanted(&policy).with_context(|| format!("the status is {}", policy["status"]))?;
            Ok(policy)
        },
    )
    .await
}

/// The condition of an object, as (status, reason, message).
fn condition<'a>(object: &'a Value, name: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == name)?;
    Some((
        found["status"].as_str()?,
        found["reason"].as_str()?,
        found["message"].as_str().unwrap_or_default(),
    ))
}

fn is_ready(policy: &Value) -> Result<()> {
    let ready = condition(policy, "Ready");
    ensure!(matches!(ready, Some(("True", ..))), "not ready: {ready:?}");
    Ok(())
}

/// As a kubelet that starts a pod.
async fn runs(shop: &Shop<'_>, pod: &str) {
    let path = shop.path(&format!("pods/{pod}/status"));
    let status = serde_json::json!({"status": {"phase": "Running", "startTime": Timestamp::now()}});
    tokenscope_e2e::merge(&shop.client, &path, &status).await.unwrap();
}

/// Waits until what is created is younger than a moment in an object, by the API server's clock: such times are of whole
/// seconds.
async fn until_after(shop: &Shop<'_>, moment: &Value) {
    eventually(SOON, format!("{moment} is over"), async || {
        let created =
            try_pod(&shop.client, &shop.pod("what-time-is-it")).await?.body["metadata"]["creationTimestamp"].take();
        ensure!(created.as_str() > moment.as_str(), "it is {created}");
        Ok(())
    })
    .await
    .unwrap();
}

/// The caBundle of each webhook in our registration; empty where there is none.
async fn bundles(client: &Client) -> Result<Vec<String>> {
    let configuration = get_json(client, CONFIGURATION).await?;
    let webhooks = configuration["webhooks"].as_array().context("it has webhooks")?;
    Ok(webhooks
        .iter()
        .map(|webhook| {
            webhook["clientConfig"]["caBundle"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect())
}

/// Waits until the API server is ready again.
async fn is_back(control_plane: &ControlPlane, installed: &Installed) {
    eventually(Duration::from_secs(180), "the API server is back", async || {
        let client = control_plane.client().await?;
        // It is ready once it knows its roles again: until then it refuses what they allow.
        client
            .request_text(http::Request::get("/readyz").body(Vec::new())?)
            .await?;
        Ok(get_json(&client, "/api/v1/namespaces/default").await?)
    })
    .await
    .unwrap();
    installed.wait_ready(control_plane).await.unwrap();
}

/// For what follows from a watch or a retry on a busy machine.
const SOON: Duration = PROPAGATION;
