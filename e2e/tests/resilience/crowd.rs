//! Many at once, just created; and what all of it asked of the API server.

use std::time::Duration;

use anyhow::ensure;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tokenscope_e2e::admission::{accepts, create_pod, try_pod};
use tokenscope_e2e::fixtures::{ADMIN, CARTS, ORDERS, Shop, reviewed, variable};
use tokenscope_e2e::install::Options;
use tokenscope_e2e::webhook_only::review;
use tokenscope_e2e::{eventually, get_json, merge, post};
use tokio::time::MissedTickBehavior;

use crate::rights::rights;
use crate::{SOON, Scenario, policy_when, runs, until_after};

/// The least time between two accounts of one of four tasks; `webhook/src/lookup/limits.rs` admits twenty a second.
const EACH: Duration = Duration::from_millis(220);
const WEBHOOK: &str = "system:serviceaccount:tokenscope-system:tokenscope-webhook";
/// How often many reviews at one moment are tried.
const ATTEMPTS: usize = 10;
const SERVING_SECRET: &str = "/api/v1/namespaces/tokenscope-system/secrets/tokenscope-webhook-tls";

#[tokio::test]
async fn just_created_accounts_are_never_missed_and_nothing_is_asked_beyond_the_charts_rights() {
    let scenario = Scenario::start(Options {
        values: json!({"logging": {"level": "debug"}, "operator": {"evictMissed": true}}),
        ..Options::default()
    })
    .await;
    let control_plane = &scenario.control_plane;
    let shop = Shop::open(control_plane, "crowd", &[]).await.unwrap();
    apply_policies(&shop).await;
    let lists_before = requests_of_webhook(&scenario, "list", None);

    two_hundred_accounts_with_a_pod_each_are_granted(&scenario).await;
    accounts_of_new_namespaces_are_granted(&shop).await;
    many_pods_of_a_new_account_are_a_handful_of_requests(&scenario, &shop).await;
    many_reviews_at_one_moment_share_a_request(&scenario).await;

    // What the programs do less often: a refusal, whose Event goes to the pod's owner, and a pod that was missed.
    let owner = replica_set(&shop).await;
    a_refusal_is_an_event_on_the_owner(&shop, &owner).await;
    let missed = miss_a_pod(&scenario, &shop, owner).await;
    let lists_of_start = requests_of_webhook(&scenario, "list", None);
    the_missed_pod_has_an_event(&shop).await;
    assert_eq!(
        lists_of_start, lists_before,
        "the webhook lists nothing after its start"
    );
    let token = control_plane
        .pod_token("crowd", "known", "sts.amazonaws.com", 3600)
        .await
        .unwrap();
    scenario.installed.wait_ready(control_plane).await.unwrap();
    the_missed_pod_is_evicted(&shop, &missed).await;
    the_serving_certificate_is_rotated(&shop).await;
    scenario.holds(&[token]);

    // A watch is written down when it ends.
    for process in scenario.installed.processes() {
        process.kill().unwrap();
    }
    eventually(SOON, "the audit log shows what the chart grants", async || {
        rights(&scenario)
    })
    .await
    .unwrap();
}

/// Policies for accounts that are known and for those that are still to come; returns once both webhook and watches know them.
async fn apply_policies(shop: &Shop<'_>) {
    let control_plane = shop.control_plane;
    let spec = json!({"subjects": [{"serviceAccounts": ["fresh-*"]}], "roles": {"allowed": [ORDERS]}});
    shop.policy("fresh", spec).await.unwrap();
    let spec = json!({
        "subjects": [{"podSelector": {"matchLabels": {"app": "by-default"}}}, {"serviceAccounts": ["by-default"]}],
        "roles": {"allowed": [CARTS], "default": CARTS},
    });
    shop.policy("by-default", spec).await.unwrap();
    let cluster_policy = json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "ClusterTokenScopePolicy", "metadata": {"name": "teams"},
        "spec": {
            "namespaceSelector": {"matchLabels": {"team": "fresh"}},
            "subjects": [{"serviceAccounts": ["fresh"]}], "roles": {"allowed": [ORDERS]},
        },
    });
    control_plane.apply(&[cluster_policy], "default").await.unwrap();
    control_plane
        .create_service_account("crowd", "by-default", &[])
        .await
        .unwrap();
    control_plane
        .create_service_account("crowd", "fresh-known", &[("tokenscope.io/role-arn", ORDERS)])
        .await
        .unwrap();
    shop.granted(&of("crowd", "known", "fresh-known")).await.unwrap();
    let known = Shop::open(control_plane, "known-team", &[("team", "fresh")])
        .await
        .unwrap();
    control_plane
        .create_service_account("known-team", "fresh", &[("tokenscope.io/role-arn", ORDERS)])
        .await
        .unwrap();
    known.granted(&of("known-team", "known", "fresh")).await.unwrap();
}

/// 200 ServiceAccounts, and at once a pod of each. No more of them a second than the webhook asks the API server for in one namespace, should its watch
/// have brought none of them yet.
async fn two_hundred_accounts_with_a_pod_each_are_granted(scenario: &Scenario) {
    let mut tasks = Vec::new();
    for task in 0..4 {
        let client = scenario.control_plane.client().await.unwrap();
        tasks.push(tokio::spawn(async move {
            let mut missed = Vec::new();
            let mut pace = tokio::time::interval(EACH);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for number in 0..50 {
                pace.tick().await;
                let name = format!("fresh-{task}-{number}");
                let account = json!({
                    "metadata": {"name": name, "annotations": {"tokenscope.io/role-arn": ORDERS}},
                });
                post(&client, "/api/v1/namespaces/crowd/serviceaccounts", &account)
                    .await
                    .unwrap();
                let answer = create_pod(&client, &of("crowd", &name, &name)).await.unwrap();
                if reviewed(&answer.body) != Some("granted") {
                    missed.push(format!("{} {}", answer.status, answer.body));
                }
            }
            missed
        }));
    }
    let mut missed = Vec::new();
    for task in tasks {
        missed.extend(task.await.unwrap());
    }
    assert!(missed.is_empty(), "{} of 200 were missed: {}", missed.len(), missed[0]);
}

/// The same in namespaces that are just as new.
async fn accounts_of_new_namespaces_are_granted(shop: &Shop<'_>) {
    let client = &shop.client;
    for number in 0..20 {
        let name = format!("fresh-{number}");
        let namespace = json!({"metadata": {"name": name, "labels": {"team": "fresh"}}});
        post(client, "/api/v1/namespaces", &namespace).await.unwrap();
        let account = json!({"metadata": {"name": "fresh", "annotations": {"tokenscope.io/role-arn": ORDERS}}});
        post(client, &format!("/api/v1/namespaces/{name}/serviceaccounts"), &account)
            .await
            .unwrap();
        let pod = accepts(client, &of(&name, "orders", "fresh")).await.unwrap();
        assert_eq!(
            variable(&pod, "app", "AWS_ROLE_ARN").as_deref(),
            Some(ORDERS),
            "namespace {name}: {pod}"
        );
    }
}

/// 50 pods at once of one such account are at most a handful of live requests. Where the watch brings the account late, on a busy machine, the pods come
/// in turns that each ask: then another account is tried.
async fn many_pods_of_a_new_account_are_a_handful_of_requests(scenario: &Scenario, shop: &Shop<'_>) {
    let mut asked = Vec::new();
    for name in [
        "fresh-many",
        "fresh-many-more",
        "fresh-many-again",
        "fresh-many-at-last",
    ] {
        many_pods_of(shop, name).await;
        asked.push(requests_of_webhook(scenario, "get", Some(name)));
        if asked.last() <= Some(&5) {
            break;
        }
    }
    assert!(
        asked.last() <= Some(&5),
        "{asked:?} requests for one ServiceAccount each"
    );
}

/// Creates an account, and 50 pods of it at once that are granted its role.
async fn many_pods_of(shop: &Shop<'_>, name: &'static str) {
    let client = &shop.client;
    let account = json!({"metadata": {"name": name, "annotations": {"tokenscope.io/role-arn": ORDERS}}});
    post(client, "/api/v1/namespaces/crowd/serviceaccounts", &account)
        .await
        .unwrap();
    let mut pods = Vec::new();
    for number in 0..50 {
        let client = client.clone();
        pods.push(tokio::spawn(async move {
            try_pod(&client, &of("crowd", &format!("many-{number}"), name))
                .await
                .unwrap()
        }));
    }
    for pod in pods {
        let answer = pod.await.unwrap();
        assert_eq!(reviewed(&answer.body), Some("granted"), "{}", answer.body);
    }
}

/// A ReplicaSet, since an Event is about an owner that exists; as a reference of pods to their owner.
async fn replica_set(shop: &Shop<'_>) -> Value {
    let replica_set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "orders-7d9", "namespace": "crowd"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "none"}}, "template": {
            "metadata": {"labels": {"app": "none"}}, "spec": {"containers": [{"name": "app", "image": "app"}]}}},
    });
    let replica_set = post(&shop.client, "/apis/apps/v1/namespaces/crowd/replicasets", &replica_set)
        .await
        .unwrap();
    json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-7d9", "controller": true,
        "uid": replica_set["metadata"]["uid"],
    }])
}

async fn a_refusal_is_an_event_on_the_owner(shop: &Shop<'_>, owner: &Value) {
    let mut refused = of("crowd", "refused", "fresh-many");
    refused["metadata"]["annotations"] = json!({"tokenscope.io/role-arn": ADMIN});
    refused["metadata"]["ownerReferences"] = owner.clone();
    shop.refused(&refused, "fresh does not allow").await.unwrap();
    eventually(SOON, "there is an Event on the pod's owner", async || {
        let events = shop.events_about("ReplicaSet", "orders-7d9").await?;
        ensure!(events.iter().any(|event| event["type"] == "Warning"), "{events:?}");
        Ok(())
    })
    .await
    .unwrap();
}

/// A pod that is created while the webhook is away, once the policy is older than it; the webhook is back then.
async fn miss_a_pod(scenario: &Scenario, shop: &Shop<'_>, owner: Value) -> Value {
    let policy = policy_when(shop, "by-default", SOON, |_| Ok(())).await.unwrap();
    until_after(shop, &policy["status"]["generationObservedAt"]).await;
    scenario.installed.webhook(0).kill().unwrap();
    let mut pod = shop.pod("missed");
    // Labels of a running pod may be anybody's, so only what a policy gives its service account makes it evictable.
    pod["spec"]["serviceAccountName"] = json!("by-default");
    pod["metadata"]["ownerReferences"] = owner;
    let missed = accepts(&shop.client, &pod).await.unwrap();
    runs(shop, "missed").await;
    scenario.installed.webhook(0).restart().unwrap();
    missed
}

async fn the_missed_pod_has_an_event(shop: &Shop<'_>) {
    eventually(SOON, "there is an Event on the missed pod", async || {
        let events = shop.events_about("Pod", "missed").await?;
        ensure!(
            events.iter().any(|event| event["reason"] == "CredentialsMissed"),
            "{events:?}"
        );
        Ok(())
    })
    .await
    .unwrap();
}

/// Once pods are reviewed again, it is evicted, for its controller to make another.
async fn the_missed_pod_is_evicted(shop: &Shop<'_>, missed: &Value) {
    let client = &shop.client;
    until_after(shop, &missed["metadata"]["creationTimestamp"]).await;
    accepts(client, &of("crowd", "reviewed", "fresh-known")).await.unwrap();
    // Whose eviction was refused is tried again after half a minute.
    eventually(3 * SOON, "the missed pod is evicted", async || {
        let pod = get_json(client, &shop.path("pods/missed")).await;
        let gone = matches!(&pod, Err(kube::Error::Api(status)) if status.code == 404);
        ensure!(
            gone || !pod?["metadata"]["deletionTimestamp"].is_null(),
            "it still runs"
        );
        Ok(())
    })
    .await
    .unwrap();
}

/// A certificate is made anew.
async fn the_serving_certificate_is_rotated(shop: &Shop<'_>) {
    let client = &shop.client;
    let change = json!({"metadata": {"annotations": {"tokenscope.io/rotate": "now"}}});
    merge(client, SERVING_SECRET, &change).await.unwrap();
    eventually(SOON, "the serving certificate is rotated", async || {
        let rotated = get_json(client, SERVING_SECRET).await?;
        ensure!(
            rotated["metadata"]["annotations"]["tokenscope.io/rotated"] == "now",
            "not yet"
        );
        Ok(())
    })
    .await
    .unwrap();
}

/// All of them at the same moment, for certain: the API server stands still while 50 reviews come in for an account that nobody
/// knows.
///
/// The webhook gives the API server less than a second. On a busy machine it may not be back by then, and reviews then rightly end as errors; or some
/// reviews come in only after it is back, and ask for themselves. Such an attempt shows nothing, and another account is tried: a webhook that shared nothing
/// would ask fifty times in each.
async fn many_reviews_at_one_moment_share_a_request(scenario: &Scenario) {
    let control_plane = &scenario.control_plane;
    let client = control_plane.client().await.unwrap();
    let secret = get_json(&client, SERVING_SECRET).await.unwrap();
    let authorities = BASE64_STANDARD
        .decode(secret["data"]["ca.crt"].as_str().unwrap())
        .unwrap();
    let authorities = String::from_utf8(authorities).unwrap();
    let port = scenario.installed.webhook_port(0);
    let mut shown = false;
    for attempt in 0..ATTEMPTS {
        let account = format!("fresh-nobody-{attempt}");
        let pod = of("crowd", "nobody", &account);
        control_plane.apiserver().signal("STOP").unwrap();
        let reviews: Vec<_> = (0..50)
            .map(|_| {
                let (authorities, pod) = (authorities.clone(), pod.clone());
                tokio::spawn(async move { review(port, &authorities, &pod).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(400)).await; // half of what the webhook gives it
        control_plane.apiserver().signal("CONT").unwrap();
        let mut late = 0;
        for review in reviews {
            if let Err(error) = review.await.unwrap() {
                let text = error.to_string();
                let late_words = ["the API server could not be asked", "no verdict within"];
                assert!(late_words.iter().any(|words| text.contains(words)), "{error:#}");
                late += 1;
            }
        }
        if late > 0 {
            println!("attempt {attempt}: the API server came back too late for {late} of 50 reviews");
            continue;
        }
        eventually(SOON, "the API server has written down the request", async || {
            ensure!(
                requests_of_webhook(scenario, "get", Some(&account)) > 0,
                "no request yet"
            );
            Ok(())
        })
        .await
        .unwrap();
        let asked = requests_of_webhook(scenario, "get", Some(&account));
        if asked <= 3 {
            shown = true;
            break;
        }
        println!("attempt {attempt}: {asked} requests for one ServiceAccount");
    }
    assert!(
        shown,
        "in each of {ATTEMPTS} attempts the API server came back too late, or was asked again and again"
    );
}

fn of(namespace: &str, name: &str, account: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {"serviceAccountName": account, "containers": [{"name": "app", "image": "app"}]},
    })
}

/// How many requests of a verb the webhook has made, for an object if one is named.
fn requests_of_webhook(scenario: &Scenario, verb: &str, name: Option<&str>) -> usize {
    let requests = scenario.control_plane.audit_events(|event| {
        event["user"]["username"] == WEBHOOK
            && event["verb"] == verb
            && name.is_none_or(|name| event["objectRef"]["name"] == name)
    });
    requests.unwrap().len()
}
