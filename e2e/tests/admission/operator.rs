//! What the operator and the webhook could do with their rights if somebody took them over, and what others may do with the webhook
//! configuration.

use anyhow::ensure;
use kube::Client;
use serde_json::{Value, json};
use tokenscope_e2e::admission::create;
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::rights_act::Right;
use tokenscope_e2e::{delete, eventually, get_json, merge, post, put};

use crate::{Door, SOON};

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tokenscope";

/// Gives the operator every right over what the policies are about, so that they alone hold it back.
async fn operator(door: &Door) -> Client {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "too-much"},
        "rules": [
            {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"], "verbs": ["*"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]},
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "too-much"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "too-much"},
        "subjects": [{"kind": "ServiceAccount", "name": "tokenscope-operator", "namespace": NAMESPACE}],
    });
    door.control_plane.apply(&[role, binding], NAMESPACE).await.unwrap();
    let configurations = Right::to("update", "mutatingwebhookconfigurations.admissionregistration.k8s.io");
    for right in [configurations, Right::to("create", "secrets").within(NAMESPACE)] {
        door.control_plane
            .has_right(NAMESPACE, "tokenscope-operator", &right)
            .await
            .unwrap();
    }
    door.control_plane
        .client_as(NAMESPACE, "tokenscope-operator")
        .await
        .unwrap()
}

/// A configuration with one change by JSON pointer.
fn with(configuration: &Value, pointer: &str, value: Value) -> Value {
    let mut changed = configuration.clone();
    let (parent, member) = pointer.rsplit_once('/').unwrap();
    changed.pointer_mut(parent).unwrap()[member] = value;
    changed
}

/// Every way to make the configuration mean something else.
fn weakened(configuration: &Value) -> Vec<Value> {
    let everything = json!([{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]}]);
    let nowhere = json!({"matchLabels": {"never": "there"}});
    let condition = json!([{"name": "never", "expression": "false"}]);
    let mut all: Vec<Value> = [
        ("/webhooks/1/rules", everything.clone()),
        ("/webhooks/0/failurePolicy", json!("Ignore")),
        ("/webhooks/1/failurePolicy", json!("Fail")),
        ("/webhooks/1/namespaceSelector", json!({})),
        ("/webhooks/0/namespaceSelector", nowhere.clone()),
        ("/webhooks/1/objectSelector", nowhere),
        ("/webhooks/1/matchConditions", condition),
        ("/webhooks/1/timeoutSeconds", json!(30)),
        ("/webhooks/1/reinvocationPolicy", json!("Never")),
        ("/webhooks/1/sideEffects", json!("None")),
        ("/webhooks/1/clientConfig/url", json!("https://attacker.example.com/")),
        ("/webhooks/1/name", json!("other.example.com")),
        ("/webhooks", json!([])),
    ]
    .into_iter()
    .map(|(pointer, value)| with(configuration, pointer, value))
    .collect();
    let mut webhooks = configuration["webhooks"].as_array().unwrap().clone();
    webhooks.reverse();
    all.push(with(configuration, "/webhooks", json!(webhooks)));
    let mut more = webhooks[0].clone();
    more["name"] = json!("everything.example.com");
    more["rules"] = everything;
    webhooks.reverse();
    webhooks.push(more);
    all.push(with(configuration, "/webhooks", json!(webhooks)));
    all
}

/// Changes of the configuration that are none of the caBundle.
fn forbidden_changes(configuration: &Value) -> Vec<Value> {
    let mut changes = weakened(configuration);
    changes.push(with(configuration, "/metadata/labels", json!({})));
    changes.push(with(
        configuration,
        "/metadata/annotations",
        json!({"cert-manager.io/inject-ca-from": "a/b"}),
    ));
    changes.push(with(configuration, "/metadata/finalizers", json!(["example.com/stay"])));
    changes
}

#[tokio::test]
async fn the_operator_can_change_the_ca_bundle_and_nothing_else_of_any_webhook_configuration() {
    let door = Door::open(&Value::Null).await;
    let operator = operator(&door).await;
    let configuration = get_json(&door.client, CONFIGURATION).await.unwrap();

    for change in forbidden_changes(&configuration) {
        let error = put(&operator, CONFIGURATION, &change).await.unwrap_err().to_string();
        assert!(
            error.contains("may change nothing of webhook configurations but the caBundle"),
            "{error} for {change}"
        );
    }
    let own = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": "own"}, "webhooks": []});
    let answer = create(&operator, CONFIGURATIONS, &own).await.unwrap();
    assert_eq!(answer.status, 403, "{}", answer.body);
    let answer = create(&door.client, CONFIGURATIONS, &own).await.unwrap();
    assert!(answer.accepted(), "others are not held back: {}", answer.body);
    merge(
        &operator,
        &format!("{CONFIGURATIONS}/own"),
        &json!({"metadata": {"labels": {"a": "b"}}}),
    )
    .await
    .unwrap_err();
    for path in [CONFIGURATION.to_owned(), format!("{CONFIGURATIONS}/own")] {
        delete(&operator, &path).await.unwrap_err();
    }
    // A collection's members are deleted one by one, without a name in the request.
    delete(
        &operator,
        &format!("{CONFIGURATIONS}?labelSelector=app.kubernetes.io/name=tokenscope"),
    )
    .await
    .unwrap_err();
    assert_eq!(get_json(&door.client, CONFIGURATION).await.unwrap(), configuration);

    let rotated = with(&configuration, "/webhooks/0/clientConfig/caBundle", Value::Null);
    let rotated = put(&operator, CONFIGURATION, &rotated).await.unwrap();
    assert_eq!(rotated["webhooks"][0]["clientConfig"].get("caBundle"), None);
    let distrusted = json!({"metadata": {"annotations": {
        "tokenscope.io/distrusted-certificates": "a", "tokenscope.io/distrusted-issuer-certificates": "b",
    }}});
    let rotated = merge(&operator, CONFIGURATION, &distrusted).await.unwrap();
    assert_eq!(
        rotated["metadata"]["annotations"]["tokenscope.io/distrusted-certificates"],
        "a"
    );
    let bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"].clone();
    put(
        &operator,
        CONFIGURATION,
        &with(&rotated, "/webhooks/0/clientConfig/caBundle", bundle),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn the_operator_can_write_its_two_secrets_and_no_token_of_a_service_account() {
    let door = Door::open(&Value::Null).await;
    let operator = operator(&door).await;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    let secret = |name: &str, kind: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": kind,
            "metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": "tokenscope-webhook"}},
        })
    };
    let token = "kubernetes.io/service-account-token";
    let generated = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"generateName": "tokenscope-ca"}});
    let refused = [
        secret("other", "Opaque"),
        secret("tokenscope-ca", token),
        secret("tokenscope-webhook-tls", token),
        generated,
    ];
    for secret in refused {
        let answer = create(&operator, &path, &secret).await.unwrap();
        assert_eq!(answer.status, 403, "{}", answer.body);
        assert!(
            answer.message().contains(
                "may write the Secrets tokenscope-ca, tokenscope-webhook-tls and, with an issuer, tokenscope-issuer-ca"
            ),
            "{}",
            answer.message()
        );
    }
    for name in ["tokenscope-ca", "tokenscope-webhook-tls"] {
        let answer = create(&operator, &path, &secret(name, "Opaque")).await.unwrap();
        assert!(answer.accepted(), "{}", answer.body);
        merge(
            &operator,
            &format!("{path}/{name}"),
            &json!({"metadata": {"labels": {"a": "b"}}}),
        )
        .await
        .unwrap();
    }
    let answer = create(&door.client, &path, &secret("other", token)).await.unwrap();
    assert!(answer.accepted(), "others are not held back: {}", answer.body);
    merge(
        &operator,
        &format!("{path}/other"),
        &json!({"metadata": {"labels": {"a": "b"}}}),
    )
    .await
    .unwrap_err();
}

#[tokio::test]
async fn a_protected_configuration_is_changed_and_deleted_by_listed_users_only() {
    let values = json!({"protectConfiguration": {
        "enabled": true, "allowed": {"users": ["system:serviceaccount:kube-system:helm"], "groups": []},
    }});
    let door = Door::open(&values).await;
    door.control_plane
        .create_service_account("kube-system", "helm", &[])
        .await
        .unwrap();
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "helm"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "helm", "namespace": "kube-system"}],
    });
    door.control_plane.apply(&[binding], NAMESPACE).await.unwrap();
    let right = Right::to("update", "mutatingwebhookconfigurations.admissionregistration.k8s.io");
    door.control_plane
        .has_right("kube-system", "helm", &right)
        .await
        .unwrap();
    let helm = door.control_plane.client_as("kube-system", "helm").await.unwrap();

    let configuration = get_json(&door.client, CONFIGURATION).await.unwrap();
    let mut changes = weakened(&configuration);
    changes.push(with(&configuration, "/webhooks/0/clientConfig/caBundle", Value::Null));
    let mut distrusting = configuration.clone();
    distrusting["metadata"]["annotations"]["tokenscope.io/distrusted-issuer-certificates"] = json!("all");
    changes.push(distrusting);
    for change in &changes {
        let error = put(&door.client, CONFIGURATION, change).await.unwrap_err().to_string();
        assert!(error.contains("protectConfiguration.allowed"), "{error} for {change}");
    }
    delete(&door.client, CONFIGURATION).await.unwrap_err();
    delete(&door.client, CONFIGURATIONS).await.unwrap_err();
    merge(
        &door.client,
        CONFIGURATION,
        &json!({"metadata": {"labels": {"free": "to-change"}, "annotations": {"this": "too"}}}),
    )
    .await
    .unwrap();

    let changed = merge(&helm, CONFIGURATION, &json!({"webhooks": []})).await.unwrap();
    assert_eq!(changed["webhooks"].as_array().map_or(0, Vec::len), 0);
    tokenscope_e2e::eventually(SOON, "a listed user may delete it", async || {
        Ok(delete(&helm, CONFIGURATION).await?)
    })
    .await
    .unwrap();
}

/// Whether RBAC gives a client this right: the verb, the API group, the resource, and a name, in a namespace.
async fn may(client: &Client, [verb, group, resource, name]: [&str; 4], namespace: &str) -> anyhow::Result<bool> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {
            "verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name, "namespace": namespace,
        }},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    Ok(post(client, path, &review).await?["status"]["allowed"] == true)
}

#[tokio::test]
async fn the_webhook_reads_what_decides_about_pods_and_writes_nothing_but_events() {
    let door = Door::open(&Value::Null).await;
    let webhook = door
        .control_plane
        .client_as(NAMESPACE, "tokenscope-webhook")
        .await
        .unwrap();
    let rights = [
        ["list", "", "serviceaccounts", ""],
        ["watch", "", "namespaces", ""],
        ["watch", "tokenscope.io", "clustertokenscopepolicies", ""],
        ["get", "apps", "deployments", "any"],
        ["create", "", "events", ""],
    ];
    for right in rights {
        eventually(SOON, format!("the webhook has the right {right:?}"), async || {
            ensure!(may(&webhook, right, "default").await?, "it has not");
            Ok(())
        })
        .await
        .unwrap();
    }
    let own = ["watch", "", "secrets", "tokenscope-webhook-tls"];
    eventually(SOON, "the webhook may watch its certificate", async || {
        ensure!(may(&webhook, own, NAMESPACE).await?, "it may not");
        Ok(())
    })
    .await
    .unwrap();
    for right in [
        ["get", "", "secrets", "tokenscope-ca"],
        ["list", "", "secrets", ""],
        ["get", "", "configmaps", "any"],
        ["get", "", "pods", "any"],
        ["create", "", "pods", ""],
        ["patch", "", "pods", "any"],
        ["create", "", "pods/exec", "any"],
        ["create", "", "serviceaccounts/token", "any"],
        ["patch", "", "serviceaccounts", "any"],
        ["impersonate", "", "serviceaccounts", "any"],
        ["list", "apps", "deployments", ""],
        ["patch", "apps", "deployments", "any"],
        ["patch", "", "events", "any"],
        ["create", "tokenscope.io", "tokenscopepolicies", ""],
        ["patch", "tokenscope.io", "tokenscopepolicies/status", "any"],
        [
            "patch",
            "admissionregistration.k8s.io",
            "mutatingwebhookconfigurations",
            "tokenscope",
        ],
        ["create", "rbac.authorization.k8s.io", "rolebindings", ""],
    ] {
        for namespace in [NAMESPACE, "default"] {
            let has = may(&webhook, right, namespace).await.unwrap();
            assert!(!has, "{right:?} in namespace {namespace}");
        }
    }
}
