//! Beside somebody else's mutating webhook, which runs before or after ours and changes what ours has seen.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokenscope_tests::admission::{accepts, rejects, try_pod};
use tokenscope_tests::fixtures::{
    ADMIN, CARTS, ORDERS, Shop, annotation, container_of, environment, mounted_at, orders_may, reviewed, variable,
};
use tokenscope_tests::second_webhook::{Order, SecondWebhook};
use tokenscope_tests::{Environment, Shared, install};

static SHARED: Shared = Shared::new(install::Options::default);

const MOUNT: &str = "/var/run/secrets/tokenscope.io/aws";
const VOLUME: &str = "tokenscope-aws-token";

async fn shop(namespace: &str) -> Shop<'static> {
    let Environment { control_plane, .. } = SHARED.environment().await;
    Shop::open(control_plane, namespace, &[]).await.unwrap()
}

/// Nothing of all this needed a right that the chart doesn't give.
fn within_rights(shop: &Shop<'_>) {
    let nothing: [String; 0] = [];
    assert_eq!(shop.control_plane.forbidden().unwrap(), nothing);
}

#[tokio::test]
async fn sidecars_that_another_webhook_adds_get_their_own_edits_and_nothing_is_doubled() {
    let shop = shop("sidecars").await;
    shop.allow_orders().await.unwrap();
    shop.control_plane
        .create_service_account("sidecars", "annotated", &[("tokenscope.io/role-arn", CARTS)])
        .await
        .unwrap();
    let by_account = json!({
        "subjects": [{"serviceAccounts": ["annotated"]}], "roles": {"allowed": [CARTS]},
    });
    shop.policy("annotated", by_account).await.unwrap();
    let by_default = json!({
        "subjects": [{"podSelector": {"matchLabels": {"app": "by-default"}}}], "roles": {"allowed": [CARTS], "default": CARTS},
    });
    shop.policy("by-default", by_default).await.unwrap();
    let of_account = |name: &str| {
        let mut pod = shop.pod(name);
        pod["spec"]["serviceAccountName"] = json!("annotated");
        pod
    };
    let labelled = |name: &str| {
        let mut pod = shop.pod(name);
        pod["metadata"]["labels"] = json!({"app": "by-default"});
        pod
    };
    shop.granted(&shop.asking("alone", ORDERS)).await.unwrap();
    shop.granted(&of_account("alone-of-account")).await.unwrap();
    shop.granted(&labelled("alone-by-default")).await.unwrap();

    let injected = |pod: &Value, role: &str| -> Result<()> {
        ensure!(reviewed(pod) == Some("granted"), "not granted: {pod}");
        let volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        let ours = volumes.iter().filter(|volume| volume["name"] == VOLUME).count();
        ensure!(ours == 1, "{ours} volumes of ours: {volumes:?}");
        let expected = environment(pod, "app");
        for container in ["app", "mesh", "proxy"] {
            let environment = environment(pod, container);
            ensure!(
                environment == expected,
                "{container}: {environment:?} and not {expected:?}"
            );
            let mut names: Vec<_> = environment.iter().map(|(name, _)| name).collect();
            names.sort();
            names.dedup();
            ensure!(
                names.len() == environment.len(),
                "a variable is there twice: {environment:?}"
            );
            ensure!(
                variable(pod, container, "AWS_ROLE_ARN").as_deref() == Some(role),
                "{pod}"
            );
            let file = variable(pod, container, "AWS_WEB_IDENTITY_TOKEN_FILE");
            ensure!(file.as_deref() == Some(&format!("{MOUNT}/token")), "{pod}");
            ensure!(mounted_at(pod, container, VOLUME) == Some(MOUNT), "{pod}");
            let mounts = container_of(pod, container)["volumeMounts"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let ours = mounts.iter().filter(|mount| mount["name"] == VOLUME).count();
            ensure!(ours == 1, "mounted {ours} times: {mounts:?}");
        }
        let record: Value = serde_json::from_str(annotation(pod, "tokenscope.io/grant").unwrap_or_default())?;
        let grants = record["grants"].as_array().cloned().unwrap_or_default();
        let mut containers: Vec<String> = grants
            .iter()
            .flat_map(|grant| grant["containers"].as_array().cloned().unwrap_or_default())
            .map(|name| name.as_str().unwrap_or_default().to_owned())
            .collect();
        containers.sort();
        ensure!(containers == ["app", "mesh", "proxy"], "the record is {record}");
        Ok(())
    };

    let mut specs = Vec::new();
    for order in [Order::After, Order::Before] {
        let second = SecondWebhook::start(shop.control_plane, order, "sidecars", add_sidecars)
            .await
            .unwrap();
        let suffix = suffix(order);
        let asking = accepts(&shop.client, &shop.asking(&format!("asking-{suffix}"), ORDERS))
            .await
            .unwrap();
        injected(&asking, ORDERS).unwrap();
        for pod in [
            of_account(&format!("account-{suffix}")),
            labelled(&format!("default-{suffix}")),
        ] {
            let calls = second.calls();
            let pod = accepts(&shop.client, &pod).await.unwrap();
            injected(&pod, CARTS).unwrap();
            assert!(second.calls() > calls);
        }
        specs.push(comparable(&asking["spec"]));
        second.remove(shop.control_plane).await.unwrap();
    }
    assert_eq!(specs[0], specs[1], "the order of the webhooks doesn't matter");
    within_rights(&shop);
}

#[tokio::test]
async fn edits_for_a_service_account_that_another_webhook_replaces_are_redone_for_the_new_one() {
    let shop = shop("accounts").await;
    for (account, role) in [("old", ORDERS), ("new", CARTS)] {
        shop.control_plane
            .create_service_account("accounts", account, &[("tokenscope.io/role-arn", role)])
            .await
            .unwrap();
        let aws = if account == "old" {
            json!({"region": "eu-central-1", "roleSessionName": "${pod.name}"})
        } else {
            json!({})
        };
        let spec = json!({
            "subjects": [{"serviceAccounts": [account]}], "roles": {"allowed": [role]}, "aws": aws,
            "token": {"expirationSeconds": if account == "old" { 7200 } else { 900 }},
        });
        shop.policy(account, spec).await.unwrap();
    }
    let of_account = |name: &str, account: &str| {
        let mut pod = shop.pod(name);
        pod["spec"]["serviceAccountName"] = json!(account);
        pod
    };
    let old = shop.granted(&of_account("old", "old")).await.unwrap().body;
    assert_eq!(variable(&old, "app", "AWS_ROLE_ARN").as_deref(), Some(ORDERS));
    assert_eq!(variable(&old, "app", "AWS_REGION").as_deref(), Some("eu-central-1"));
    let new = shop.granted(&of_account("new", "new")).await.unwrap().body;
    assert_eq!(variable(&new, "app", "AWS_ROLE_ARN").as_deref(), Some(CARTS));
    assert_eq!(variable(&new, "app", "AWS_REGION"), None);

    for order in [Order::After, Order::Before] {
        let second = SecondWebhook::start(shop.control_plane, order, "accounts", |pod| {
            replace_account(pod, "old", "new")
        })
        .await
        .unwrap();
        let changed = accepts(&shop.client, &of_account(&format!("changed-{}", suffix(order)), "old"))
            .await
            .unwrap();
        assert_eq!(changed["spec"]["serviceAccountName"], "new");
        assert_eq!(
            comparable(&changed["spec"]),
            comparable(&new["spec"]),
            "nothing is left of what was injected for the old account"
        );
        for key in ["tokenscope.io/grant", "tokenscope.io/reviewed"] {
            assert_eq!(annotation(&changed, key), annotation(&new, key));
        }

        // A pod that names its role itself: the policy of the new account doesn't allow it.
        let mut asking = shop.asking(&format!("asking-{}", suffix(order)), ORDERS);
        asking["spec"]["serviceAccountName"] = json!("old");
        let message = rejects(&shop.client, &asking).await.unwrap();
        assert!(
            message.contains("new does not allow") && message.contains(ORDERS),
            "{message}"
        );
        second.remove(shop.control_plane).await.unwrap();
    }
    within_rights(&shop);
}

#[tokio::test]
async fn edits_for_a_service_account_are_taken_back_when_another_webhook_sets_one_without_a_role() {
    let shop = shop("plain-accounts").await;
    shop.control_plane
        .create_service_account("plain-accounts", "old", &[("tokenscope.io/role-arn", ORDERS)])
        .await
        .unwrap();
    let spec = json!({"subjects": [{"serviceAccounts": ["old"]}], "roles": {"allowed": [ORDERS]}});
    shop.policy("old", spec).await.unwrap();
    let of_old = |name: &str| {
        let mut pod = shop.pod(name);
        pod["spec"]["serviceAccountName"] = json!("old");
        pod
    };
    shop.granted(&of_old("old")).await.unwrap();

    let mut plain = shop.pod("plain");
    plain["spec"]["serviceAccountName"] = json!("default");
    let plain = shop.untouched(&plain).await.unwrap().body;
    for order in [Order::After, Order::Before] {
        let second = SecondWebhook::start(shop.control_plane, order, "plain-accounts", |pod| {
            replace_account(pod, "old", "default")
        })
        .await
        .unwrap();
        let changed = accepts(&shop.client, &of_old(&format!("changed-{}", suffix(order))))
            .await
            .unwrap();
        assert_eq!(changed["spec"]["serviceAccountName"], "default");
        assert_eq!(comparable(&changed["spec"]), comparable(&plain["spec"]));
        assert_eq!(annotation(&changed, "tokenscope.io/grant"), None);
        assert_ne!(reviewed(&changed), Some("granted"));
        second.remove(shop.control_plane).await.unwrap();
    }
    within_rights(&shop);
}

#[tokio::test]
async fn a_pod_that_another_webhook_makes_ask_late_is_reviewed() {
    let shop = shop("late").await;
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("early", ORDERS)).await.unwrap();

    for order in [Order::After, Order::Before] {
        // It asks for the role in the label, as a translator between two annotations would.
        let second = SecondWebhook::start(shop.control_plane, order, "late", |pod| {
            let Some(role) = pod["metadata"]["labels"]["wanted"].as_str() else {
                return Vec::new();
            };
            let arn = if role == "orders" { ORDERS } else { ADMIN };
            if annotation(pod, "tokenscope.io/role-arn").is_some() {
                return Vec::new();
            }
            let mut annotations = pod["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
            annotations.insert("tokenscope.io/role-arn".to_owned(), json!(arn));
            vec![json!({"op": "add", "path": "/metadata/annotations", "value": annotations})]
        })
        .await
        .unwrap();
        let wanting = |name: &str, role: &str| {
            let mut pod = shop.pod(&format!("{name}-{}", suffix(order)));
            pod["metadata"]["labels"] = json!({"wanted": role});
            pod
        };
        let granted = accepts(&shop.client, &wanting("granted", "orders")).await.unwrap();
        assert_eq!(reviewed(&granted), Some("granted"));
        assert_eq!(variable(&granted, "app", "AWS_ROLE_ARN").as_deref(), Some(ORDERS));
        assert_eq!(mounted_at(&granted, "app", VOLUME), Some(MOUNT));

        let message = rejects(&shop.client, &wanting("refused", "admin")).await.unwrap();
        assert!(
            message.contains("orders does not allow") && message.contains(ADMIN),
            "{message}"
        );
        second.remove(shop.control_plane).await.unwrap();
    }
    within_rights(&shop);
}

#[tokio::test]
async fn a_pod_that_another_webhook_makes_ask_late_is_reviewed_in_a_required_namespace_too() {
    let Environment { control_plane, .. } = SHARED.environment().await;
    let labels = [("tokenscope.io/required", "true")];
    let shop = Shop::open(control_plane, "late-required", &labels).await.unwrap();
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("early", ORDERS)).await.unwrap();
    let second = SecondWebhook::start(control_plane, Order::After, "late-required", |pod| {
        if annotation(pod, "tokenscope.io/role-arn").is_some() {
            return Vec::new();
        }
        vec![json!({"op": "add", "path": "/metadata/annotations/tokenscope.io~1role-arn", "value": ORDERS})]
    })
    .await
    .unwrap();
    let pod = accepts(&shop.client, &shop.pod("late")).await.unwrap();
    assert_eq!(reviewed(&pod), Some("granted"));
    assert_eq!(variable(&pod, "app", "AWS_ROLE_ARN").as_deref(), Some(ORDERS));
    second.remove(control_plane).await.unwrap();
    within_rights(&shop);
}

#[tokio::test]
async fn edits_that_another_webhook_throws_away_are_made_again() {
    let shop = shop("careless").await;
    shop.policy("orders", orders_may(&[ORDERS])).await.unwrap();
    let expected = shop.granted(&shop.asking("expected", ORDERS)).await.unwrap().body;

    // It writes the first container anew from a template, once.
    let second = SecondWebhook::start(shop.control_plane, Order::After, "careless", |pod| {
        if pod["metadata"]["labels"]["templated"].is_string() {
            return Vec::new();
        }
        vec![
            json!({"op": "add", "path": "/metadata/labels", "value": {"templated": "yes"}}),
            json!({"op": "replace", "path": "/spec/containers/0", "value": {
                "name": "app", "image": "app", "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File", "imagePullPolicy": "Always", "resources": {},
            }}),
        ]
    })
    .await
    .unwrap();
    let pod = accepts(&shop.client, &shop.asking("templated", ORDERS)).await.unwrap();
    assert_eq!(pod["metadata"]["labels"]["templated"], "yes");
    assert_eq!(environment(&pod, "app"), environment(&expected, "app"));
    assert_eq!(mounted_at(&pod, "app", VOLUME), Some(MOUNT));
    let (record, expected) = (record_of(&pod), record_of(&expected));
    assert_eq!(
        record["labels"],
        json!({"templated": "yes"}),
        "those that the pod was admitted with"
    );
    assert_eq!(record["grants"], expected["grants"]);
    assert_eq!(record["hash"], expected["hash"]);
    second.remove(shop.control_plane).await.unwrap();

    // And a pod of its own whose record is forged: what it claims to be ours is the user's, or is refused; it is never a
    // way around the policy.
    let record = r#"{"grants":[{"role":"x","containers":["app"],"env":["AWS_ROLE_ARN"]}],"hash":"0000000000000000"}"#;
    let mut forged = shop.asking("forged", ORDERS);
    forged["metadata"]["annotations"]["tokenscope.io/grant"] = json!(record);
    forged["metadata"]["annotations"]["tokenscope.io/reviewed"] = json!("granted");
    forged["spec"]["containers"][0]["env"] = json!([{"name": "AWS_ROLE_ARN", "value": ADMIN}]);
    let answer = try_pod(&shop.client, &forged).await.unwrap();
    if answer.accepted() {
        assert_eq!(
            variable(&answer.body, "app", "AWS_ROLE_ARN").as_deref(),
            Some(ORDERS),
            "{}",
            answer.body
        );
    }
    within_rights(&shop);
}

/// What the webhook wrote down of its decision.
fn record_of(pod: &Value) -> Value {
    serde_json::from_str(annotation(pod, "tokenscope.io/grant").unwrap()).unwrap()
}

fn suffix(order: Order) -> &'static str {
    match order {
        Order::Before => "before",
        Order::After => "after",
    }
}

/// As a mesh does: a container and a native sidecar, unless they are there.
fn add_sidecars(pod: &Value) -> Vec<Value> {
    let has = |list: &str, name: &str| {
        let containers = pod["spec"][list].as_array();
        containers.is_some_and(|containers| containers.iter().any(|container| container["name"] == name))
    };
    let mut operations = Vec::new();
    if !has("containers", "mesh") {
        let container = json!({"name": "mesh", "image": "mesh"});
        operations.push(json!({"op": "add", "path": "/spec/containers/-", "value": container}));
    }
    if !has("initContainers", "proxy") {
        let container = json!({"name": "proxy", "image": "proxy", "restartPolicy": "Always"});
        operations.push(json!({"op": "add", "path": "/spec/initContainers", "value": [container]}));
    }
    operations
}

fn replace_account(pod: &Value, old: &str, new: &str) -> Vec<Value> {
    if pod["spec"]["serviceAccountName"] != old {
        return Vec::new();
    }
    vec![
        json!({"op": "replace", "path": "/spec/serviceAccountName", "value": new}),
        json!({"op": "add", "path": "/spec/serviceAccount", "value": new}),
    ]
}

/// A pod's specification without what the order of the webhooks may change: the random end of the name that the API server
/// gives the volume of its own token, and where that is mounted first.
fn comparable(spec: &Value) -> Value {
    const NAME: &str = "kube-api-access-";
    let text = spec.to_string();
    let mut parts = text.split(NAME);
    let mut same = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        same.push_str(NAME);
        same.push_str(part.get(5..).unwrap_or_default());
    }
    let mut spec: Value = serde_json::from_str(&same).unwrap();
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            if let Some(mounts) = container["volumeMounts"].as_array_mut() {
                mounts.sort_by_key(Value::to_string);
            }
        }
    }
    spec
}
