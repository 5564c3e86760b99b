//! The lock: who gets tokens of a locked audience, and who doesn't.

mod drivers;
mod editors;
mod others;
mod remains;

use kube::Client;
use serde_json::json;
use tokenscope_e2e::admission::{Answer, create};
use tokenscope_e2e::fixtures::Shop;
use tokenscope_e2e::install;
use tokenscope_e2e::{Environment, Shared};

const LOCKED: &str = "sts.amazonaws.com";

static DENYING: Shared = Shared::new(|| install::Options {
    values: json!({"lock": {"mode": "deny", "allowed": {"users": [
        "system:serviceaccount:listed:vault", "system:serviceaccount:listed-too:vault",
    ]}}}),
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
    shop.control_plane.client_as(namespace, "editor").await.unwrap()
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
