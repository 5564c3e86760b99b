//! A pod of each kind that both versions know: by each source of tokens and each delivery that the last published state has.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::admission::Answer;
use tokenscope_e2e::fixtures::{CARTS, ORDERS, Shop, init_containers, orders_may, variable, with_annotations};
use tokenscope_e2e::rollout::Judge;

use crate::{admitted_with, judge};

/// The policies whose pods are counted.
pub(crate) const POLICIES: [&str; 5] = ["orders", "carts", "files", "spiffe", "issued"];

/// The values of both versions.
pub(crate) fn values() -> Value {
    json!({
        "lock": {"mode": "deny"},
        "spiffe": {"issuer": "https://oidc-discovery.example.org"},
        "issuer": {"enabled": true, "url": "https://tokens.example.org"},
    })
}

/// Creates the service accounts and policies of all kinds.
pub(crate) async fn prepare(shop: &Shop<'_>) -> Result<()> {
    for account in POLICIES.into_iter().filter(|name| *name != "orders") {
        shop.control_plane
            .create_service_account(&shop.namespace, account, &[])
            .await?;
    }
    shop.allow_orders().await?;
    let of = |account: &str, more: Value| {
        let mut spec = orders_may(&[ORDERS]);
        spec["subjects"] = json!([{"serviceAccounts": [account]}]);
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        spec
    };
    let chain = json!([{"roleArn": "arn:aws:iam::444455556666:role/target", "externalId": "e2"}]);
    let aws = json!({"region": "eu-central-1", "roleSessionName": "${pod.name}", "roleChain": chain});
    let spiffe_id = json!({"spiffeId": "spiffe://example.org/ns/shop/sa/spiffe"});
    let claims = json!({"principalTags": {"team": "${namespace}"}});
    for (account, more) in [
        ("carts", json!({"roles": {"allowed": [CARTS], "default": CARTS}})),
        ("files", json!({"aws": aws, "delivery": {"type": "Profile"}})),
        ("spiffe", json!({"token": {"source": "SPIFFE", "spiffe": spiffe_id}})),
        ("issued", json!({"token": {"source": "Issuer"}, "claims": claims})),
    ] {
        shop.policy(account, of(account, more)).await?;
    }
    Ok(())
}

/// A pod of each kind, and what its answer should be.
pub(crate) fn kinds(shop: &Shop<'_>, strict: &Shop<'_>) -> Vec<(Value, Judge)> {
    let of = |account: &str, mut pod: Value| {
        pod["spec"]["serviceAccountName"] = json!(account);
        pod
    };
    let mut many = shop.asking("many", ORDERS);
    many["spec"]["containers"] = json!([{"name": "app", "image": "app"}, {"name": "other", "image": "app"}]);
    many["spec"]["initContainers"] =
        json!([{"name": "init", "image": "app"}, {"name": "mesh", "image": "app", "restartPolicy": "Always"}]);
    let mut by_hand = shop.pod("by-hand");
    let token =
        json!({"serviceAccountToken": {"audience": "sts.amazonaws.com", "expirationSeconds": 3600, "path": "token"}});
    by_hand["spec"]["volumes"] = json!([{"name": "own", "projected": {"sources": [token]}}]);
    by_hand["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "own", "mountPath": "/own"}]);
    let shorter = [
        ("tokenscope.io/token-expiration", "900"),
        ("tokenscope.io/role-arn.app", CARTS),
    ];
    let of_account = |account: &str| of(account, shop.asking(account, ORDERS));
    vec![
        (shop.asking("asks", ORDERS), admitted_with(Some(ORDERS))),
        (
            with_annotations(shop.asking("for-one", ORDERS), &shorter),
            admitted_with(Some(CARTS)),
        ),
        (of("carts", shop.pod("by-default")), admitted_with(Some(CARTS))),
        (many, admitted_with(Some(ORDERS))),
        (by_hand, admitted_with(None)),
        (shop.pod("plain"), admitted_with(None)),
        (strict.pod("required"), admitted_with(None)),
        (of_account("files"), Arc::new(has_config_file)),
        (of_account("spiffe"), Arc::new(has_sidecar)),
        (of_account("issued"), Arc::new(has_sidecar)),
    ]
}

/// Says what is wrong unless a pod has a sidecar that fetches the token of its role.
fn has_sidecar(answer: &Answer) -> Result<()> {
    judge(answer, Some(ORDERS))?;
    let added = init_containers(&answer.body);
    ensure!(added == ["tokenscope-sidecar"], "{added:?}");
    Ok(())
}

/// Says what is wrong unless a pod has an init container that writes a config file with its role and the last of its chain.
fn has_config_file(answer: &Answer) -> Result<()> {
    judge(answer, None)?;
    let file = variable(&answer.body, "app", "AWS_CONFIG_FILE");
    ensure!(file.is_some(), "no config file: {}", answer.body);
    let writer = &answer.body["spec"]["initContainers"][0];
    ensure!(writer["name"] == "tokenscope-aws-config", "{writer}");
    let text = writer["args"][2].as_str().context("a text")?;
    ensure!(
        text.contains(ORDERS) && text.contains("arn:aws:iam::444455556666:role/target"),
        "{text}"
    );
    Ok(())
}
