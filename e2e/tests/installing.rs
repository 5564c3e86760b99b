//! An install into a cluster full of workloads changes and refuses nothing until somebody asks, and works on every network and with every quota.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::admission::{Answer, create_pod, try_pod};
use tokenscope_e2e::control_plane::{self, ControlPlane};
use tokenscope_e2e::fixtures::{ADMIN, CARTS, ORDERS, PROPAGATION, Shop, volume, with_annotations};
use tokenscope_e2e::helm::{NAMESPACE, chart, helm, template, template_with};
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

    eventually(PROPAGATION, "the webhook was asked about each", async || {
        let asked = reviews(&installed.webhook(0).observe("/metrics").await?.1) - reviews_before;
        ensure!(asked >= workloads(&shop, &owner).len() as u64, "{asked} times");
        Ok(())
    })
    .await
    .unwrap();
    // Nobody else heard of anything either.
    let events = get_json(&shop.client, &shop.path("events")).await.unwrap();
    assert_eq!(events["items"], json!([]), "{events}");

    the_first_who_asks_is_answered(&shop, &owner).await;

    // All that was done with no more rights than the chart gives.
    assert_eq!(control_plane.forbidden().unwrap(), Vec::<String>::new());
}

/// As GKE has it: pods of the critical classes exist outside kube-system only where a ResourceQuota names the class.
#[tokio::test]
async fn the_pods_exist_also_where_only_a_quota_allows_their_priority_class() {
    let limits = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": [
        {"name": "ResourceQuota", "configuration": {
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "ResourceQuotaConfiguration", "limitedResources": [
                {"resource": "pods", "matchScopes": [{"scopeName": "PriorityClass", "operator": "In",
                    "values": ["system-cluster-critical", "system-node-critical"]}]},
            ]}},
    ]});
    let file = std::env::temp_dir().join(format!("tokenscope-quotas-{}.json", std::process::id()));
    std::fs::write(&file, limits.to_string()).unwrap();
    let options = control_plane::Options {
        arguments: vec![format!("--admission-control-config-file={}", file.display())],
        ..control_plane::Options::default()
    };
    let control_plane = ControlPlane::start(options).await.unwrap();
    let _controllers = control_plane.start_controllers(&["resourcequota-controller"]).unwrap();
    std::fs::remove_file(&file).unwrap();
    let client = control_plane.client().await.unwrap();
    for namespace in [NAMESPACE, "without-quota"] {
        control_plane.create_namespace(namespace, &[]).await.unwrap();
    }
    let objects = template("tokenscope", &Value::Null).unwrap();
    let of_kind = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind).cloned();
    let quotas: Vec<_> = of_kind("ResourceQuota").collect();
    assert_eq!(quotas.len(), 1);
    control_plane.apply(&quotas, NAMESPACE).await.unwrap();

    // Another class is there, or the install says at once that it isn't.
    let kubeconfig = format!("--kubeconfig={}", control_plane.kubeconfig().display());
    let rendered = |class: &str| {
        let flags = ["--is-upgrade", "--dry-run=server", &kubeconfig];
        template_with("tokenscope", &flags, &json!({"priorityClassName": class}))
    };
    let error = format!("{:#}", rendered("no-such-class").unwrap_err());
    assert!(error.contains("no PriorityClass no-such-class"), "{error}");
    rendered("system-node-critical").unwrap();

    for deployment in of_kind("Deployment") {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": deployment["metadata"]["name"]},
            "spec": deployment["spec"]["template"]["spec"]});
        pod["spec"]["serviceAccountName"] = json!("default");
        pod["metadata"]["namespace"] = json!("without-quota");
        eventually(PROPAGATION, "a pod without a quota is refused for it", async || {
            let message = create_pod(&client, &pod).await?.message().to_owned();
            ensure!(
                message.contains("insufficient quota to match these scopes"),
                "{message}"
            );
            Ok(())
        })
        .await
        .unwrap();
        pod["metadata"]["namespace"] = json!(NAMESPACE);
        // The controller writes what the quota has left before anything is created.
        eventually(3 * PROPAGATION, "a pod of the chart is created", async || {
            let answer = create_pod(&client, &pod).await?;
            ensure!(answer.accepted(), "{}", answer.message());
            Ok(())
        })
        .await
        .unwrap();
    }
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

#[test]
fn every_process_listens_on_both_families_unless_it_is_told_otherwise() -> Result<()> {
    let issuer = json!({"enabled": true, "url": "https://tokens.example.com"});
    for (address, values) in [
        ("[::]", json!({"issuer": issuer})),
        ("0.0.0.0", json!({"issuer": issuer, "listenAddress": "0.0.0.0"})),
    ] {
        let objects = template("tokenscope", &values)?;
        let mut listeners = Vec::new();
        for deployment in objects.iter().filter(|object| object["kind"] == "Deployment") {
            let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
            let arguments = arguments.as_array().into_iter().flatten().filter_map(Value::as_str);
            listeners.extend(arguments.filter(|flag| flag.starts_with("--listen=") || flag.starts_with("--observe=")));
        }
        listeners.sort_unstable();
        let expected = [
            format!("--listen={address}:8443"),
            format!("--listen={address}:8443"),
            format!("--observe={address}:8080"),
            format!("--observe={address}:8080"),
            format!("--observe={address}:8080"),
        ];
        assert_eq!(listeners, expected);
    }
    Ok(())
}

#[test]
fn a_critical_priority_class_has_a_quota_that_names_it_outside_kube_system() -> Result<()> {
    let quotas = |flags: &[&str], values: Value| -> Result<Vec<Value>> {
        let mut objects = template_with("tokenscope", flags, &values)?;
        objects.retain(|object| object["kind"] == "ResourceQuota");
        Ok(objects.iter().map(|object| object["spec"].clone()).collect())
    };
    let of_class = |class: &str| {
        json!({"hard": {"pods": "100"}, "scopeSelector": {
            "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": [class]}]}})
    };
    assert_eq!(quotas(&[], Value::Null)?, [of_class("system-cluster-critical")]);
    let node = json!({"priorityClassName": "system-node-critical"});
    assert_eq!(quotas(&[], node)?, [of_class("system-node-critical")]);
    for values in [
        json!({"priorityClassName": ""}),
        json!({"priorityClassName": "platform"}),
        json!({"priorityQuota": {"create": false}}),
    ] {
        ensure!(quotas(&[], values)?.is_empty());
    }
    // A quota there would count what isn't ours.
    ensure!(quotas(&["--namespace=kube-system"], Value::Null)?.is_empty());

    let folder = chart("tokenscope").display().to_string();
    let notes = |values: Value| helm(&["install", "tokenscope", &folder, "--dry-run=client"], &values);
    assert!(notes(json!({"priorityQuota": {"create": false}}))?.contains("insufficient quota to match these scopes"));
    assert!(!notes(Value::Null)?.contains("insufficient quota"));
    Ok(())
}
