//! An install into a cluster full of workloads changes and refuses nothing until somebody asks.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use anyhow::ensure;
use serde_json::{Value, json};
use tokenscope_e2e::admission::{Answer, create_pod, try_pod};
use tokenscope_e2e::control_plane::{self, ControlPlane};
use tokenscope_e2e::fixtures::{ADMIN, CARTS, ORDERS, PROPAGATION, Shop, volume, with_annotations};
use tokenscope_e2e::install::{Options, install};
use tokenscope_e2e::{eventually, get_json};

const LABELLED: &[(&str, &str)] = &[("pod-security.kubernetes.io/enforce", "baseline"), ("team", "shop")];

#[tokio::test]
async fn an_install_changes_and_refuses_nothing_that_does_not_ask() {
    let control_plane = ControlPlane::start(control_plane::Options::default()).await.unwrap();
    let shop = Shop::open(&control_plane, "shop", LABELLED).await.unwrap();
    let annotations = [
        ("eks.amazonaws.com/role-arn", ORDERS),
        ("eks.amazonaws.com/audience", "sts.amazonaws.com"),
        ("eks.amazonaws.com/token-expiration", "not even a number"),
        ("eks.amazonaws.com/sts-regional-endpoints", "true"),
    ];
    control_plane
        .create_service_account("shop", "on-eks", &annotations)
        .await
        .unwrap();
    let nonsense = [("eks.amazonaws.com/role-arn", "nonsense")];
    control_plane
        .create_service_account("shop", "badly-annotated", &nonsense)
        .await
        .unwrap();

    let mut before = Vec::new();
    let owner = shop.owner("owner").await.unwrap();
    for pod in workloads(&shop, &owner) {
        let tried = try_pod(&shop.client, &pod).await.unwrap();
        let created = create_pod(&shop.client, &pod).await.unwrap();
        assert!(
            tried.accepted() && created.accepted(),
            "{} {}",
            tried.message(),
            created.message()
        );
        before.push((pod, tried, created));
    }

    let installed = install(&control_plane, Options::default()).await.unwrap();
    // The webhook is asked about these pods, or their staying the same would mean little.
    let reviews_before = reviews(&installed.webhook(0).observe("/metrics").await.unwrap().1);

    for (pod, tried, created) in before {
        is_as_before(&shop, &pod, tried, &created).await;
    }

    let asked = reviews(&installed.webhook(0).observe("/metrics").await.unwrap().1) - reviews_before;
    assert!(
        asked >= workloads(&shop, &owner).len() as u64,
        "the webhook was asked {asked} times"
    );
    // Nobody else heard of anything either.
    let events = get_json(&shop.client, &shop.path("events")).await.unwrap();
    assert_eq!(events["items"], json!([]), "{events}");

    the_first_who_asks_is_answered(&shop, &owner).await;

    // All that was done with no more rights than the chart gives.
    assert_eq!(control_plane.forbidden().unwrap(), Vec::<String>::new());
}

/// The pod was not written to, and one like it is created as before the installation.
async fn is_as_before(shop: &Shop<'_>, pod: &Value, tried: Answer, created: &Answer) {
    let name = pod["metadata"]["name"].as_str().unwrap();
    let stored = get_json(&shop.client, &shop.path(&format!("pods/{name}")))
        .await
        .unwrap();
    assert_eq!(
        stored["metadata"]["resourceVersion"], created.body["metadata"]["resourceVersion"],
        "{name} was written to"
    );

    let mut anew = pod.clone();
    anew["metadata"]["name"] = json!(format!("{name}-2"));
    let created = create_pod(&shop.client, &anew).await.unwrap();
    assert!(created.accepted(), "{name}: {}", created.message());
    assert_eq!(created.warnings, tried.warnings, "{name}");
    let (mut before, mut after) = (comparable(tried.body), comparable(created.body));
    before["metadata"]["name"].take();
    after["metadata"]["name"].take();
    assert_eq!(after, before, "{name}");
}

/// In the same namespace the first who asks is answered.
async fn the_first_who_asks_is_answered(shop: &Shop<'_>, owner: &Value) {
    shop.allow_orders().await.unwrap();
    let pod = shop.granted(&shop.asking("asking", ORDERS)).await.unwrap().body;
    assert!(volume(&pod, "tokenscope-aws-token").is_some());
    let mut refused = shop.asking("refused", ADMIN);
    refused["metadata"]["ownerReferences"] = json!([owner]);
    shop.refused(&refused, "does not allow").await.unwrap();
    eventually(PROPAGATION, "the refusal is on the owner", async || {
        ensure!(!shop.events_about("ReplicaSet", "owner").await?.is_empty(), "no Event");
        Ok(())
    })
    .await
    .unwrap();
    let policy = "/apis/tokenscope.io/v1alpha1/namespaces/shop/tokenscopepolicies/orders";
    eventually(PROPAGATION, "the policy's status counts the pods", async || {
        let status = get_json(&shop.client, policy).await?["status"].take();
        ensure!(status["injectedPods"] == 1, "{status}");
        ensure!(status["missedPods"].as_i64().unwrap_or_default() == 0, "{status}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Pods as clusters have them: plain, on EKS, with AWS variables of every kind, and some that are odd.
fn workloads(shop: &Shop<'_>, owner: &Value) -> Vec<Value> {
    let of = |name, account: &str| {
        let mut pod = shop.pod(name);
        pod["spec"]["serviceAccountName"] = json!(account);
        pod
    };
    let mut our_names = shop.pod("our-names");
    our_names["spec"]["volumes"] = json!([{"name": "tokenscope-aws-token", "emptyDir": {}}]);
    our_names["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "tokenscope-aws-token", "mountPath": "/var/run/secrets/tokenscope.io/aws"}]);
    let mut owned = shop.pod("owned");
    owned["metadata"]["ownerReferences"] = json!([owner]);
    let mut bare = shop.pod("bare");
    bare["metadata"].as_object_mut().unwrap().remove("annotations");
    let mut windows = shop.pod("windows");
    windows["spec"]["os"] = json!({"name": "windows"});
    let mut many = shop.pod("many");
    many["spec"]["initContainers"] = json!([{"name": "proxy", "image": "app", "restartPolicy": "Always"}]);
    many["spec"]["containers"] = json!([{"name": "a", "image": "app"}, {"name": "b", "image": "app"}]);
    let mut all = vec![
        shop.pod("plain"),
        bare,
        of("default", "default"),
        of("on-eks", "on-eks"),
        of("badly-annotated", "badly-annotated"),
        with_annotations(
            of("skipping", "on-eks"),
            &[("eks.amazonaws.com/skip-containers", "app")],
        ),
        with_annotations(shop.pod("eks-on-pod"), &[("eks.amazonaws.com/role-arn", ADMIN)]),
        // These say how, but ask for nothing.
        with_annotations(
            shop.pod("side"),
            &[
                ("tokenscope.io/audience", "a b"),
                ("tokenscope.io/token-expiration", "0"),
            ],
        ),
        injected_by_eks(shop),
        our_names,
        owned,
        windows,
        many,
    ];
    all.extend(with_variables(shop));
    for pod in &mut all {
        // Not under test, and its volume has a random name.
        pod["spec"]["automountServiceAccountToken"] = json!(false);
    }
    all
}

/// Pods with AWS variables of every kind.
fn with_variables(shop: &Shop<'_>) -> [Value; 6] {
    [
        ("role-only", json!([{"name": "AWS_ROLE_ARN", "value": CARTS}])),
        ("bad-role", json!([{"name": "AWS_ROLE_ARN", "value": "nonsense"}])),
        (
            "file-only",
            json!([{"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/token"}]),
        ),
        ("region", json!([{"name": "AWS_REGION", "value": "eu-central-1"}])),
        (
            "keys",
            json!([
                {"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "aws", "key": "id"}}},
                {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": {"secretKeyRef": {"name": "aws", "key": "secret"}}},
            ]),
        ),
        (
            "indirect",
            json!([{"name": "AWS_ROLE_ARN", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
        ),
    ]
    .map(|(name, env)| {
        let mut pod = shop.pod(name);
        pod["spec"]["containers"][0]["env"] = env;
        pod
    })
}

/// A pod as the EKS webhook leaves it.
fn injected_by_eks(shop: &Shop<'_>) -> Value {
    let mut pod = shop.pod("injected-by-eks");
    pod["spec"]["serviceAccountName"] = json!("on-eks");
    let token =
        json!({"serviceAccountToken": {"audience": "sts.amazonaws.com", "expirationSeconds": 86400, "path": "token"}});
    pod["spec"]["volumes"] = json!([{"name": "aws-iam-token", "projected": {"sources": [token]}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "aws-iam-token", "mountPath": "/var/run/secrets/eks.amazonaws.com/serviceaccount", "readOnly": true}]);
    pod["spec"]["containers"][0]["env"] = json!([
        {"name": "AWS_ROLE_ARN", "value": ORDERS},
        {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"},
    ]);
    pod
}

/// How many reviews the webhook has counted, whatever their outcome.
fn reviews(metrics: &str) -> u64 {
    let lines = metrics
        .lines()
        .filter(|line| !line.starts_with('#') && line.contains("_reviews"));
    lines
        .filter(|line| line.contains("outcome="))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

fn comparable(mut pod: Value) -> Value {
    for key in ["uid", "creationTimestamp", "resourceVersion", "managedFields"] {
        pod["metadata"].as_object_mut().unwrap().remove(key);
    }
    pod
}
