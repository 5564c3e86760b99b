//! Policies that no schema of today would let through: written under an older definition, or around it.

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_e2e::fixtures::{ADMIN, CARTS, ORDERS, Shop, orders_may};
use tokenscope_e2e::helm::template;
use tokenscope_e2e::install::Options;
use tokenscope_e2e::{eventually, get_json, merge, post, put};

use crate::{SOON, Scenario, condition, is_ready, policy_when};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const POLICIES: &str = "/apis/tokenscope.io/v1alpha1/namespaces/broken/tokenscopepolicies";
const CLUSTER_POLICIES: &str = "/apis/tokenscope.io/v1alpha1/clustertokenscopepolicies";

#[tokio::test]
async fn a_malformed_policy_never_stops_the_others_and_says_what_is_wrong_with_it() {
    let scenario = Scenario::start(Options {
        operator_arguments: vec!["--lease-duration=6".to_owned()], // it is killed, so its successor has to wait for that
        ..Options::default()
    })
    .await;
    let control_plane = &scenario.control_plane;
    let broken = Shop::open(control_plane, "broken", &[]).await.unwrap();
    let sound = Shop::open(control_plane, "sound", &[]).await.unwrap();
    sound.policy("before", orders_may(&[ORDERS])).await.unwrap();
    sound.granted(&sound.asking("before", ORDERS)).await.unwrap();
    let client = &broken.client;

    let names = store_malformed(client).await;
    good_ones_are_honoured(&broken, &sound).await;
    each_says_what_is_wrong(&broken, &sound, &names).await;

    upgrade_with_unseen_ones(&scenario, client).await;
    good_ones_are_honoured_after_the_upgrade(&broken, &sound).await;
    the_unseen_ones_say_what_is_wrong(&broken, &names).await;
    a_repaired_one_is_honoured(&broken).await;
    scenario.holds(&[]);
}

/// Stores every malformed policy under a definition without any rule, and without a status of its own, so that a status can be
/// malformed as well. Returns their names.
async fn store_malformed(client: &Client) -> Vec<&'static str> {
    loosen(client, false).await.unwrap();
    let mut names = Vec::new();
    for (name, rest) in malformed() {
        let policy = policy(name, &rest);
        eventually(SOON, format!("{name} is stored"), async || {
            Ok(post(client, POLICIES, &policy).await?)
        })
        .await
        .unwrap();
        names.push(name);
    }
    let everywhere = json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "ClusterTokenScopePolicy", "metadata": {"name": "everywhere"},
        "spec": {"namespaceSelector": "all of them", "subjects": [{}], "roles": {"allowed": [ORDERS]}},
    });
    // The probe was of the other definition, which may be served so earlier.
    eventually(SOON, "the cluster's policy is stored", async || {
        Ok(post(client, CLUSTER_POLICIES, &everywhere).await?)
    })
    .await
    .unwrap();
    names
}

/// Good ones beside and after them are read and honoured.
async fn good_ones_are_honoured(broken: &Shop<'_>, sound: &Shop<'_>) {
    broken.policy("good", orders_may(&[ORDERS])).await.unwrap();
    broken.granted(&broken.asking("good", ORDERS)).await.unwrap();
    sound.policy("after", orders_may(&[CARTS])).await.unwrap();
    sound.granted(&sound.asking("after", CARTS)).await.unwrap();
}

/// With a status to write to, each says what is wrong with it.
async fn each_says_what_is_wrong(broken: &Shop<'_>, sound: &Shop<'_>, names: &[&str]) {
    let client = &broken.client;
    loosen(client, true).await.unwrap();
    policy_when(broken, "good", SOON, is_ready).await.unwrap();
    for name in names {
        policy_when(broken, name, SOON, not_accepted).await.unwrap();
    }
    eventually(SOON, "the cluster's policy is not accepted", async || {
        let policy = get_json(client, &format!("{CLUSTER_POLICIES}/everywhere")).await?;
        not_accepted(&policy)
    })
    .await
    .unwrap();
    // And so does whoever creates a pod there, here and nowhere else.
    let said = broken
        .refused(&broken.asking("refused", ADMIN), "can't be used")
        .await
        .unwrap();
    assert!(said.contains("good does not allow"), "{said}");
    assert!(
        names
            .iter()
            .any(|name| said.contains(&format!("broken/{name} can't be used"))),
        "{said}"
    );
    let said = sound
        .refused(&sound.asking("refused", ADMIN), "does not allow")
        .await
        .unwrap();
    assert!(!said.contains("broken/"), "{said}");
}

/// The strict definition is back and the malformed policies are still stored, some of which nobody has seen yet: as after an
/// upgrade. Who starts anew reads them in its first list.
async fn upgrade_with_unseen_ones(scenario: &Scenario, client: &Client) {
    let (control_plane, installed) = (&scenario.control_plane, &scenario.installed);
    for process in installed.processes() {
        process.kill().unwrap();
    }
    for (name, rest) in malformed() {
        post(client, POLICIES, &policy(&format!("unseen-{name}"), &rest))
            .await
            .unwrap();
    }
    control_plane
        .apply(&template("tokenscope-crds", &Value::Null).unwrap(), "default")
        .await
        .unwrap();
    eventually(SOON, "the strict definitions are served", async || {
        let policy = json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy", "metadata": {"name": "strict"}, "spec": "text",
        });
        let answer = post(client, &format!("{POLICIES}?dryRun=All"), &policy).await;
        ensure!(answer.is_err(), "a malformed one is still accepted");
        Ok(())
    })
    .await
    .unwrap();
    for process in installed.processes() {
        process.restart().unwrap();
    }
    installed.wait_ready(control_plane).await.unwrap();
}

async fn good_ones_are_honoured_after_the_upgrade(broken: &Shop<'_>, sound: &Shop<'_>) {
    sound.policy("strict", orders_may(&[ADMIN])).await.unwrap();
    policy_when(sound, "strict", SOON, is_ready).await.unwrap();
    sound.granted(&sound.asking("strict", ADMIN)).await.unwrap();
    sound.granted(&sound.asking("before-strict", ORDERS)).await.unwrap();
    broken.granted(&broken.asking("good-strict", ORDERS)).await.unwrap();
    broken
        .refused(&broken.asking("refused-strict", ADMIN), "can't be used")
        .await
        .unwrap();
}

/// In their status, or in an Event: where a rule of the schema can't even be evaluated, the API server lets nobody write a status.
async fn the_unseen_ones_say_what_is_wrong(broken: &Shop<'_>, names: &[&str]) {
    let client = &broken.client;
    let (mut unwritable, mut inapplicable) = (Vec::new(), Vec::new());
    for name in names {
        let name = format!("unseen-{name}");
        let status = json!({"status": {"matchedPods": 0}});
        if may_be_written(client, &name, &status).await.unwrap() {
            if apply_status(client, &name, &status).await.is_err() {
                inapplicable.push(name.clone());
            }
            policy_when(broken, &name, SOON, not_accepted).await.unwrap();
        } else {
            eventually(SOON, format!("the operator tells of {name}"), async || {
                let events = broken.events_about("TokenScopePolicy", &name).await?;
                let event = events.first().context("there is no Event on it")?;
                ensure!(event["reason"] == "StatusNotWritten", "{event}");
                let message = event["message"].as_str().unwrap_or_default();
                ensure!(message.contains("spec"), "no field is named: {message}");
                Ok(())
            })
            .await
            .unwrap();
            unwritable.push(name);
        }
    }
    assert!(unwritable.len() < names.len() / 2, "{unwritable:?}");
    // Why statuses are not applied (docs/adr/0017).
    println!(
        "server-side apply would write no status of {} of {} policies: {inapplicable:?}",
        inapplicable.len(),
        names.len()
    );
    assert!(!inapplicable.is_empty());
}

/// Whether the API server lets somebody write this status. A conflict with the operator, which writes it too, says neither.
async fn may_be_written(client: &Client, name: &str, status: &Value) -> Result<bool> {
    let path = format!("{POLICIES}/{name}/status?dryRun=All");
    eventually(
        SOON,
        format!("the status of {name} is written or refused"),
        async || match merge(client, &path, status).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(refusal)) if refusal.code != 409 => Ok(false),
            Err(error) => Err(error.into()),
        },
    )
    .await
}

async fn a_repaired_one_is_honoured(broken: &Shop<'_>) {
    let client = &broken.client;
    let repair = json!({"spec": {"roles": {"allowed": [ADMIN]}}});
    merge(client, &format!("{POLICIES}/bad-role"), &repair).await.unwrap();
    policy_when(broken, "bad-role", SOON, is_ready).await.unwrap();
    broken.granted(&broken.asking("repaired", ADMIN)).await.unwrap();
}

/// A dry run of writing a status by server-side apply.
async fn apply_status(client: &Client, name: &str, status: &Value) -> Result<Value> {
    let object = policy(name, status);
    let path = format!("{POLICIES}/{name}/status?dryRun=All&fieldManager=test&force=true");
    let request = http::Request::patch(path)
        .header(http::header::CONTENT_TYPE, "application/apply-patch+yaml")
        .body(object.to_string().into_bytes())?;
    Ok(client.request(request).await?)
}

fn policy(name: &str, rest: &Value) -> Value {
    let mut policy = json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy", "metadata": {"name": name, "namespace": "broken"},
    });
    policy
        .as_object_mut()
        .unwrap()
        .extend(rest.as_object().unwrap().clone());
    policy
}

/// Name, and spec and status.
fn malformed() -> Vec<(&'static str, Value)> {
    let mut all = malformed_roles_and_subjects();
    all.extend(malformed_rest());
    all
}

/// A policy with this in a field of its spec.
fn with(field: &str, value: Value) -> Value {
    let mut spec = orders_may(&[ADMIN]);
    spec[field] = value;
    json!({"spec": spec})
}

fn malformed_roles_and_subjects() -> Vec<(&'static str, Value)> {
    vec![
        ("no-spec", json!({})),
        ("spec-is-null", json!({"spec": null})),
        ("spec-is-text", json!({"spec": "everything"})),
        ("roles-is-a-list", with("roles", json!([ADMIN]))),
        (
            "bad-role",
            with("roles", json!({"allowed": ["arn:aws:iam::1:role/short-account"]})),
        ),
        (
            "bad-pattern",
            with("roles", json!({"allowed": ["arn:aws:iam::*:role/any-account"]})),
        ),
        (
            "default-is-a-number",
            with("roles", json!({"allowed": [ADMIN], "default": 7})),
        ),
        (
            "default-not-allowed",
            with("roles", json!({"allowed": [ADMIN], "default": ORDERS})),
        ),
        (
            "subjects-is-an-object",
            with("subjects", json!({"serviceAccounts": ["orders"]})),
        ),
        ("token-is-a-list", with("token", json!([]))),
        ("subject-is-a-list", with("subjects", json!([[]]))),
        ("selector-is-a-list", with("subjects", json!([{"podSelector": []}]))),
        (
            "bad-selector",
            with(
                "subjects",
                json!([{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}]),
            ),
        ),
        (
            "labels-are-numbers",
            with("subjects", json!([{"podSelector": {"matchLabels": {"a": 1}}}])),
        ),
    ]
}

fn malformed_rest() -> Vec<(&'static str, Value)> {
    vec![
        (
            "expiration-is-text",
            with("token", json!({"expirationSeconds": "an hour"})),
        ),
        ("expiration-is-short", with("token", json!({"expirationSeconds": 5}))),
        ("expiration-is-huge", with("token", json!({"expirationSeconds": 1e30}))),
        ("unknown-source", with("token", json!({"source": "Magic"}))),
        (
            "bad-schedule",
            with("activeSchedule", json!({"cron": "every day", "duration": "some hours"})),
        ),
        ("region-is-a-zone", with("aws", json!({"region": "eu-central-1a"}))),
        ("bad-end", with("expiresAt", json!("tomorrow"))),
        ("disabled-is-text", with("disabled", json!("no"))),
        ("audiences-is-null", with("audiences", json!({"allowed": [null]}))),
        ("bad-status", {
            let mut policy = with("token", json!("any"));
            policy["status"] = json!("fine");
            policy
        }),
        ("bad-conditions", {
            let mut policy = with("aws", json!("eu-central-1"));
            policy["status"] =
                json!({"conditions": {"type": "Accepted"}, "observedGeneration": "first", "matchedPods": []});
            policy
        }),
    ]
}

fn not_accepted(policy: &Value) -> Result<()> {
    let accepted = condition(policy, "Accepted").with_context(|| policy["status"].to_string())?;
    ensure!(
        accepted.0 == "False" && !accepted.1.is_empty() && !accepted.2.is_empty(),
        "{accepted:?}"
    );
    let ready = condition(policy, "Ready").context("it has Ready too")?;
    ensure!(ready.0 == "False", "{ready:?}");
    Ok(())
}

/// Takes every rule out of the definitions, and waits until they are served so.
async fn loosen(client: &Client, status: bool) -> Result<()> {
    for plural in ["tokenscopepolicies", "clustertokenscopepolicies"] {
        let path = format!("{DEFINITIONS}/{plural}.tokenscope.io");
        eventually(SOON, format!("{plural} are loosened"), async || {
            let mut definition = get_json(client, &path).await?;
            for version in definition["spec"]["versions"]
                .as_array_mut()
                .context("it has versions")?
            {
                version["schema"] =
                    json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
                version["subresources"] = if status { json!({"status": {}}) } else { json!({}) };
            }
            put(client, &path, &definition).await.context("a conflict")
        })
        .await?;
    }
    let probe = json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy", "metadata": {"name": "probe"},
        "spec": "text", "status": "text",
    });
    eventually(SOON, "the loosened definitions are served", async || {
        let answer = post(client, &format!("{POLICIES}?dryRun=All"), &probe).await?;
        // Where status is a resource of its own, it can't be set with the rest.
        ensure!(answer["status"].is_null() == status, "{answer}");
        Ok(())
    })
    .await
}
