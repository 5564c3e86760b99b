//! What the issuer knows of: namespaces of one algorithm each, their policies, and pods that admission granted a role.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_core::Algorithm;
use tokenscope_e2e::control_plane::ControlPlane;
use tokenscope_e2e::fixtures::ORDERS;
use tokenscope_e2e::{eventually, post};
use tokenscope_issuer::keys::algorithm_name;
use tokenscope_xtask::progress::Step;
use tokio::task::JoinSet;

use super::{Arguments, PATIENCE, STS, URL};

/// As in a namespace of a large cluster.
const PODS_EACH: usize = 500;
const AT_ONCE: usize = 16;

/// A pod that exchanges.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// What its policy signs with.
    pub(super) algorithm: Algorithm,
    pub(super) namespace: String,
    pub(super) pod: String,
    /// The token that its kubelet brings.
    pub(super) subject: String,
}

/// Creates all of it, and gets the tokens of those pods that exchange.
pub(super) async fn fill(control_plane: &ControlPlane, arguments: &Arguments) -> Result<Vec<Caller>> {
    let (pods, policies) = (arguments.pods as usize, arguments.policies as usize);
    let namespaces = pods.div_ceil(PODS_EACH).next_multiple_of(Algorithm::ALL.len());
    anyhow::ensure!(
        policies >= namespaces,
        "so many pods need {namespaces} --policies at least"
    );
    let step = Step::start(&format!("creating {policies} policies and {pods} pods"), None);
    let client = control_plane.client().await?;
    for number in 0..namespaces {
        let namespace = namespace_of(number);
        control_plane.create_namespace(&namespace, &[("team", "blue")]).await?;
        control_plane.create_service_account(&namespace, "orders", &[]).await?;
    }
    at_once(&client, policies, move |client, number| async move {
        let namespace = number % namespaces;
        let path = format!(
            "/apis/tokenscope.io/v1alpha1/namespaces/{}/tokenscopepolicies",
            namespace_of(namespace)
        );
        post(&client, &path, &policy(number / namespaces, algorithm_of(namespace))).await?;
        Ok(())
    })
    .await?;
    // The first pod of a namespace may come before the webhook knows of its policy.
    for number in 0..namespaces.min(pods) {
        let create = async || create(&client, number % namespaces, number).await;
        eventually(PATIENCE, "pods are granted their roles", create).await?;
    }
    at_once(
        &client,
        pods.saturating_sub(namespaces),
        move |client, number| async move {
            let number = number + namespaces;
            create(&client, number % namespaces, number).await
        },
    )
    .await?;
    step.done("");

    let count = (arguments.callers as usize).min(pods);
    let step = Step::start(&format!("getting the tokens of {count} pods"), None);
    let mut callers = Vec::with_capacity(count);
    for from in (0..count).step_by(AT_ONCE) {
        let some = (from..count.min(from + AT_ONCE)).map(|number| token(control_plane, namespaces, number));
        callers.extend(futures::future::try_join_all(some).await?);
    }
    step.done("");
    Ok(callers)
}

/// Creates a pod that must be granted its role.
async fn create(client: &Client, namespace: usize, number: usize) -> Result<()> {
    let path = format!("/api/v1/namespaces/{}/pods", namespace_of(namespace));
    let answer = post(client, &path, &pod(number)).await?;
    let mark = &answer["metadata"]["labels"]["tokenscope.io/reviewed"];
    anyhow::ensure!(mark == "granted", "it was not granted its role: {answer}");
    Ok(())
}

async fn token(control_plane: &ControlPlane, namespaces: usize, number: usize) -> Result<Caller> {
    let (namespace, pod) = (namespace_of(number % namespaces), name_of(number));
    let subject = control_plane.pod_token(&namespace, &pod, URL, 7200).await;
    Ok(Caller {
        algorithm: algorithm_of(number % namespaces),
        subject: subject.with_context(|| format!("the token of {pod}"))?,
        namespace,
        pod,
    })
}

/// Does something for each number, some at a time.
async fn at_once<F: Future<Output = Result<()>> + Send + 'static>(
    client: &Client,
    count: usize,
    work: impl Fn(Client, usize) -> F,
) -> Result<()> {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        if tasks.len() >= AT_ONCE {
            tasks.join_next().await.context("there are tasks")???;
        }
        tasks.spawn(work(client.clone(), number));
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

fn algorithm_of(namespace: usize) -> Algorithm {
    Algorithm::ALL[namespace % Algorithm::ALL.len()]
}

fn namespace_of(number: usize) -> String {
    format!("bench-{number}")
}

fn name_of(pod: usize) -> String {
    format!("orders-{pod}")
}

/// The first policy of a namespace grants its pods; further ones are there to be judged.
fn policy(number: usize, algorithm: Algorithm) -> Value {
    let subjects = if number == 0 {
        json!([{"serviceAccounts": ["orders"]}])
    } else {
        json!([{"serviceAccounts": [format!("other-{number}")]}])
    };
    json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
        "metadata": {"name": format!("policy-{number}")},
        "spec": {
            "subjects": subjects,
            "roles": {"allowed": [ORDERS]},
            "audiences": {"allowed": [STS]},
            "token": {"source": "Issuer", "algorithm": algorithm_name(algorithm)},
            "claims": {
                "principalTags": {"team": "${namespace.labels['team']}", "app": "${pod.labels['app']}"},
                "transitiveTagKeys": ["team"],
                "sourceIdentity": "${namespace}.${serviceAccount}",
            },
        },
    })
}

fn pod(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name_of(number), "labels": {"app": "orders"},
            "annotations": {"tokenscope.io/role-arn": ORDERS},
        },
        "spec": {"serviceAccountName": "orders", "containers": [{"name": "app", "image": "app"}]},
    })
}

/// How long one round of waiting may take.
pub(super) const KNOWN: Duration = Duration::from_secs(60);
