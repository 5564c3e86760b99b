//! What the API server does for tokenscope, on the older of the two minor versions of Kubernetes that are tested: admission, the guard, the lock,
//! the record and the schema. It has no MutatingAdmissionPolicy, so the webhook itself takes forged marks away.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use anyhow::{Context as _, ensure};
use policies::{GOOD, bad};
use serde_json::{Value, json};
use tokenscope_e2e::admission::{Answer, accepts, create, create_pod, try_pod};
use tokenscope_e2e::control_plane::{self, ControlPlane};
use tokenscope_e2e::fixtures::{ADMIN, CARTS, ORDERS, PROPAGATION, Shop, annotation, reviewed, sts, variable, who_is};
use tokenscope_e2e::install::{Installed, Options, install};
use tokenscope_e2e::{eventually, get_json, merge};
use tokio::sync::OnceCell;

#[allow(dead_code, unused_imports, reason = "other tests use the rest of it")]
#[path = "../../crds/tests/policies/mod.rs"]
mod policies;

const LOCKED: &str = "sts.amazonaws.com";

/// The older control plane with tokenscope installed, shared by the tests.
async fn environment() -> &'static (Installed, ControlPlane) {
    static SHARED: OnceCell<(Installed, ControlPlane)> = OnceCell::const_new();
    let started = SHARED.get_or_init(async || {
        let control_plane = older().await;
        let options = Options {
            values: json!({"lock": {"mode": "deny"}}),
            ..Options::default()
        };
        (install(&control_plane, options).await.unwrap(), control_plane)
    });
    started.await
}

async fn older() -> ControlPlane {
    let options = control_plane::Options {
        older: true,
        ..control_plane::Options::default()
    };
    ControlPlane::start(options).await.unwrap()
}

async fn shop(namespace: &str) -> Shop<'static> {
    let (_, control_plane) = environment().await;
    Shop::open(control_plane, namespace, &[]).await.unwrap()
}

fn refused(answer: &Answer, part: &str) {
    assert!(!answer.accepted(), "accepted: {}", answer.body);
    assert!(answer.message().contains(part), "{}", answer.message());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_an_older_version_and_takes_no_marks_away_itself() {
    let (installed, control_plane) = environment().await;
    let client = control_plane.client().await.unwrap();
    let version = get_json(&client, "/version").await.unwrap();
    assert_eq!(version["gitVersion"], format!("v{}", control_plane.version()));
    let minor: u32 = version["minor"].as_str().unwrap().parse().unwrap();
    assert!(minor < 36, "{version}");
    let kinds = installed.objects().iter().map(|object| &object["kind"]);
    assert_eq!(kinds.filter(|kind| *kind == "MutatingAdmissionPolicy").count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_gets_what_a_policy_grants_and_the_sdk_uses_it() {
    let shop = shop("granted").await;
    shop.allow_orders().await.unwrap();
    let pod = shop.granted(&shop.asking("orders-1", ORDERS)).await.unwrap().body;
    assert_eq!(variable(&pod, "app", "AWS_ROLE_ARN").as_deref(), Some(ORDERS));
    shop.refused(&shop.asking("admin", ADMIN), "does not allow")
        .await
        .unwrap();
    shop.untouched(&shop.pod("plain")).await.unwrap();

    let (_, control_plane) = environment().await;
    let by_default =
        json!({"subjects": [{"serviceAccounts": ["orders"]}], "roles": {"allowed": [ORDERS, CARTS], "default": CARTS}});
    shop.policy("by-default", by_default).await.unwrap();
    let trust = shop.trust_policy("by-default", CARTS).await.unwrap();
    let sts = sts(control_plane, &[LOCKED], &[(CARTS, &trust)]).await.unwrap();
    shop.granted(&shop.pod("carts-1")).await.unwrap();
    let arn = who_is(control_plane, &sts, "granted", "carts-1", "app").await.unwrap();
    assert!(
        arn.starts_with("arn:aws:sts::111122223333:assumed-role/carts/"),
        "{arn}"
    );
    sts.stop().await;
    assert_eq!(control_plane.forbidden().unwrap(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_that_a_pod_brings_is_worth_nothing_and_one_that_it_has_stays() {
    let shop = shop("marks").await;
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("known", ORDERS)).await.unwrap();
    let mut forged = shop.asking("forged", ADMIN);
    forged["metadata"]["labels"] = json!({"tokenscope.io/reviewed": "granted"});
    refused(&create_pod(&shop.client, &forged).await.unwrap(), "does not allow");
    let mut plain = shop.pod("plain");
    plain["metadata"]["labels"] = json!({"tokenscope.io/reviewed": "granted"});
    let stored = accepts(&shop.client, &plain).await.unwrap();
    assert_eq!(reviewed(&stored), None);

    let path = shop.path("pods/known");
    for change in [
        json!({"labels": {"tokenscope.io/reviewed": null}}),
        json!({"annotations": {"tokenscope.io/grant": "{}"}}),
        json!({"annotations": {"tokenscope.io/role-arn": ADMIN}}),
    ] {
        let refused = merge(&shop.client, &path, &json!({"metadata": change}))
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("'tokenscope-record'"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_token_exists_only_by_a_policy() {
    let shop = shop("locked").await;
    let token = json!({"serviceAccountToken": {"audience": LOCKED, "expirationSeconds": 3600, "path": "token"}});
    let mut by_hand = shop.pod("by-hand");
    by_hand["spec"]["volumes"] = json!([{"name": "own", "projected": {"sources": [token]}}]);
    by_hand["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "own", "mountPath": "/own"}]);
    refused(&create_pod(&shop.client, &by_hand).await.unwrap(), LOCKED);

    let request = |audience: &str| json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": [audience]}});
    let path = shop.path("serviceaccounts/orders/token");
    refused(
        &create(&shop.client, &path, &request(LOCKED)).await.unwrap(),
        "'tokenscope-lock-tokens'",
    );
    assert!(create(&shop.client, &path, &request("vault")).await.unwrap().accepted());

    shop.allow_orders().await.unwrap();
    eventually(PROPAGATION, "the policy is known", async || {
        let answer = try_pod(&shop.client, &by_hand).await?;
        ensure!(answer.accepted(), "{}", answer.message());
        Ok(())
    })
    .await
    .unwrap();
    let pod = shop.granted(&shop.asking("granted", ORDERS)).await.unwrap().body;
    let volume = pod["spec"]["volumes"][0]["name"].as_str().unwrap();
    let ephemeral = json!({"spec": {"ephemeralContainers": [
        {"name": "debugger", "image": "app", "volumeMounts": [{"name": volume, "mountPath": "/stolen"}]},
    ]}});
    let refusal = merge(&shop.client, &shop.path("pods/granted/ephemeralcontainers"), &ephemeral)
        .await
        .unwrap_err();
    assert!(refusal.to_string().contains("'tokenscope-ephemeral'"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_webhook_no_pod_that_needs_a_review_is_admitted() {
    let control_plane = older().await;
    let installed = install(&control_plane, Options::default()).await.unwrap();
    let shop = Shop::open(&control_plane, "shop", &[]).await.unwrap();
    let strict = Shop::open(&control_plane, "strict", &[("tokenscope.io/required", "true")])
        .await
        .unwrap();
    installed.webhook(0).kill().unwrap();
    let mut marked = shop.pod("marked");
    marked["metadata"]["labels"] = json!({"tokenscope.io/reviewed": "granted"});
    refused(
        &create_pod(&shop.client, &shop.asking("asks", ORDERS)).await.unwrap(),
        "'tokenscope-guard'",
    );
    refused(
        &create_pod(&shop.client, &strict.pod("required")).await.unwrap(),
        "'tokenscope-guard-required'",
    );
    refused(
        &create_pod(&shop.client, &marked).await.unwrap(),
        "forged-marks.tokenscope.io",
    );
    let plain = accepts(&shop.client, &shop.pod("plain")).await.unwrap();
    assert_eq!(annotation(&plain, "tokenscope.io/grant"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_policies_are_accepted_and_bad_ones_refused_with_the_field_and_the_remedy() {
    let shop = shop("schema").await;
    let path = "/apis/tokenscope.io/v1alpha1/namespaces/schema/tokenscopepolicies?dryRun=All&fieldValidation=Strict";
    let policy = |spec: Value| {
        json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
            "metadata": {"generateName": "case-"}, "spec": spec,
        })
    };
    for (case, spec) in GOOD {
        let answer = create(&shop.client, path, &policy(serde_saphyr::from_str(spec).unwrap()))
            .await
            .unwrap();
        assert!(answer.accepted(), "{case}: {}", answer.message());
    }
    for (case, spec, (field, right)) in bad() {
        let spec: Value = serde_saphyr::from_str(spec).with_context(|| case.to_owned()).unwrap();
        let answer = create(&shop.client, path, &policy(spec)).await.unwrap();
        assert!(!answer.accepted(), "{case}");
        let message = answer.message();
        assert!(
            message.contains(&format!("{field}: ")) && message.contains(right),
            "{case}: {message}"
        );
    }
}
