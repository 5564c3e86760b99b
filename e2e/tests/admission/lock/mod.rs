//! The lock: who gets tokens of a locked audience, and who doesn't.

mod allowed;
mod drivers;
mod editors;
mod others;
mod remains;

use anyhow::{Context, Result};
pub(crate) use drivers::add_driver;
use kube::Client;
use serde_json::{Value, json};
use tokenscope_e2e::admission::{Answer, create};
use tokenscope_e2e::control_plane::client_of;
use tokenscope_e2e::fixtures::Shop;
use tokenscope_e2e::rights_act::Right;
use tokenscope_e2e::{Environment, Shared, get_json, install, put};

const LOCKED: &str = "sts.amazonaws.com";

static DENYING: Shared = Shared::new(|| install::Options {
    values: json!({"lock": {"mode": "deny", "allowed": {
        "users": [
            "system:serviceaccount:listed:vault", "system:serviceaccount:listed-too:vault", "system:serviceaccount:listed-by-name:vault",
        ],
        "groups": ["system:serviceaccounts:listed-by-group"],
    }}}),
    ..install::Options::default()
});

/// The shop, and a user who has the built-in role `edit` there and nothing else.
async fn shop_and_editor(namespace: &str) -> (Shop<'static>, Client) {
    let Environment { control_plane, .. } = DENYING.environment().await;
    let shop = Shop::open(control_plane, namespace, &[]).await.unwrap();
    let editor = editor(&shop).await;
    (shop, editor)
}

pub(crate) async fn editor(shop: &Shop<'_>) -> Client {
    let namespace = &shop.namespace;
    shop.control_plane
        .create_service_account(namespace, "editor", &[])
        .await
        .unwrap();
    // What a controller that doesn't run here would put into the role `edit`.
    let bindings = ["system:aggregate-to-edit", "system:aggregate-to-view"].map(|role| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": role.replace(':', "-"), "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "editor", "namespace": namespace}],
        })
    });
    shop.control_plane.apply(&bindings, namespace).await.unwrap();
    for right in [Right::to("create", "pods"), Right::to("get", "pods")] {
        let right = right.within(namespace);
        shop.control_plane.has_right(namespace, "editor", &right).await.unwrap();
    }
    shop.control_plane.client_as(namespace, "editor").await.unwrap()
}

/// The editor who acts as a ServiceAccount of the shop, which has the same rights there.
async fn acting_as(shop: &Shop<'_>, account: &str) -> Client {
    let (control_plane, namespace) = (shop.control_plane, &shop.namespace);
    let rights = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": account, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:aggregate-to-edit"},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    });
    control_plane.apply(&[rights], namespace).await.unwrap();
    let right = Right::to("create", "serviceaccounts/token").within(namespace);
    control_plane.has_right(namespace, account, &right).await.unwrap();
    let file = control_plane.config_as(namespace, "editor").await.unwrap();
    let mut config: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    config["users"][0]["user"]["as"] = json!(format!("system:serviceaccount:{namespace}:{account}"));
    let file = control_plane
        .folder()
        .join(format!("as-{namespace}-{account}.kubeconfig"));
    std::fs::write(&file, config.to_string()).unwrap();
    client_of(&file).await.unwrap()
}

/// Lets the editor add ephemeral containers, which `edit` has no right to by itself; whoever debugs has it.
async fn may_debug(shop: &Shop<'_>) {
    let namespace = &shop.namespace;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "debugger", "namespace": namespace},
        "rules": [{"apiGroups": [""], "resources": ["pods/ephemeralcontainers"], "verbs": ["update", "patch"]}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "debugger", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "debugger"},
        "subjects": [{"kind": "ServiceAccount", "name": "editor", "namespace": namespace}],
    });
    shop.control_plane.apply(&[role, binding], namespace).await.unwrap();
    let right = Right::to("update", "pods/ephemeralcontainers").within(namespace);
    shop.control_plane.has_right(namespace, "editor", &right).await.unwrap();
}

/// Adds an ephemeral container to a pod of the shop. Fails with the API server's words.
async fn add_ephemeral(editor: &Client, shop: &Shop<'_>, pod: &str, container: Value) -> Result<()> {
    let path = shop.path(&format!("pods/{pod}"));
    let mut pod = get_json(editor, &path).await?;
    let containers = pod["spec"]["ephemeralContainers"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    pod["spec"]["ephemeralContainers"] = [vec![container], containers].concat().into();
    put(editor, &format!("{path}/ephemeralcontainers"), &pod)
        .await
        .context("refused")?;
    Ok(())
}

/// A request for a token of a ServiceAccount.
pub(crate) async fn token(client: &Client, namespace: &str, account: &str, audiences: &[&str]) -> Answer {
    let request =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": audiences}});
    create(
        client,
        &format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"),
        &request,
    )
    .await
    .unwrap()
}

pub(crate) fn refused(answer: &Answer, part: &str) {
    assert_eq!(answer.status, 403, "{}", answer.body);
    assert!(answer.message().contains(part), "{}", answer.message());
}
