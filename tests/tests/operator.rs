//! What the operator keeps true, on a real API server and with the rights of the chart.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_tests::admission::{accepts, try_pod};
use tokenscope_tests::control_plane::ISSUER;
use tokenscope_tests::fixtures::{CARTS, ORDERS, PROPAGATION, Shop, orders_may, reviewed};
use tokenscope_tests::helm::NAMESPACE;
use tokenscope_tests::install::Options;
use tokenscope_tests::{Environment, Shared, delete, eventually, get_json, merge, post};

const POLICIES: &str = "/apis/tokenscope.io/v1alpha1";
const OPERATOR: &str = "system:serviceaccount:tokenscope-system:tokenscope-operator";

static SHARED: Shared = Shared::new(Options::default);

#[tokio::test]
async fn a_status_is_true_within_seconds_and_has_the_trust_policies() {
    let shop = Shop::open(&SHARED.environment().await.control_plane, "status", &[])
        .await
        .unwrap();
    let spec = json!({
        "subjects": [{"serviceAccounts": ["orders", "batch-*"]}],
        "roles": {"allowed": [ORDERS, CARTS, "arn:aws:iam::111122223333:role/other/*"], "default": CARTS},
        "audiences": {"allowed": ["sts.amazonaws.com"]},
    });
    shop.policy("orders", spec).await.unwrap();
    let pod = shop.granted(&shop.pod("by-default")).await.unwrap().body;
    assert!(pod["spec"].to_string().contains(CARTS));

    let policy = when(&shop, "orders", |status| counts(status, [1, 1, 0, 0]))
        .await
        .unwrap();
    let status = &policy["status"];
    assert_eq!(reasons(status), ["Valid", "InForce", "UpToDate"]);
    assert_eq!(status["generationObservedAt"], policy["metadata"]["creationTimestamp"]);
    let trust = status["trustPolicies"].as_array().unwrap();
    let roles: Vec<&str> = trust.iter().filter_map(|entry| entry["roleArn"].as_str()).collect();
    assert_eq!(roles, [CARTS, ORDERS], "the pattern has no trust policy of its own");
    let document: Value = serde_json::from_str(trust[0]["document"].as_str().unwrap()).unwrap();
    let provider = ISSUER.strip_prefix("https://").unwrap();
    let expected = json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": {"Federated": format!("arn:aws:iam::111122223333:oidc-provider/{provider}")},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {
                "StringEquals": {format!("{provider}:aud"): "sts.amazonaws.com"},
                "StringLike": {format!("{provider}:sub"): [
                    "system:serviceaccount:status:batch-*", "system:serviceaccount:status:orders",
                ]},
            },
        }],
    });
    assert_eq!(document, expected);

    // A new generation is observed, and pods that have what it said before are outdated.
    shop.policy("orders", orders_may(&[ORDERS])).await.unwrap();
    let policy = when(&shop, "orders", |status| counts(status, [0, 0, 0, 1]))
        .await
        .unwrap();
    assert_eq!(policy["status"]["observedGeneration"], 2);
    assert_eq!(reasons(&policy["status"]), ["Valid", "InForce", "OutdatedPods"]);
    assert_eq!(policy["status"]["trustPolicies"].as_array().unwrap().len(), 1);
    delete(&shop.client, &shop.path("pods/by-default")).await.unwrap();
    when(&shop, "orders", |status| counts(status, [0, 0, 0, 0]))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_conflict_shows_on_both_policies_before_a_pod_meets_it() {
    let shop = Shop::open(&SHARED.environment().await.control_plane, "conflict", &[])
        .await
        .unwrap();
    let with_default = |role: &str| json!({"subjects": [{"serviceAccounts": ["orders"]}], "roles": {"default": role}});
    shop.policy("one", with_default(ORDERS)).await.unwrap();
    shop.policy("two", with_default(CARTS)).await.unwrap();
    for (name, other) in [("one", "two"), ("two", "one")] {
        let policy = when(&shop, name, |status| ready(status, "False", "Conflict"))
            .await
            .unwrap();
        let message = message(&policy["status"], "Ready");
        for part in [ORDERS, CARTS, &format!("TokenScopePolicy conflict/{other}")] {
            assert!(message.contains(part), "{message}");
        }
    }
    shop.delete_policy("two").await.unwrap();
    when(&shop, "one", |status| ready(status, "True", "UpToDate"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_missed_pod_has_an_event_and_its_owner_too_and_is_counted() {
    let environment = SHARED.environment().await;
    let shop = Shop::open(&environment.control_plane, "missed", &[]).await.unwrap();
    let spec = json!({"subjects": [{"serviceAccounts": ["orders"]}], "roles": {"default": ORDERS}});
    shop.policy("orders", spec).await.unwrap();
    when(&shop, "orders", |status| ready(status, "True", "UpToDate"))
        .await
        .unwrap();
    unreviewed(&shop, &of_replica_set(&shop, "missed-1")).await.unwrap();
    unreviewed(&shop, &of_replica_set(&shop, "missed-2")).await.unwrap();

    let policy = when(&shop, "orders", |status| counts(status, [2, 0, 2, 0]))
        .await
        .unwrap();
    assert_eq!(reasons(&policy["status"])[2], "MissedPods");
    for (kind, name) in [("Pod", "missed-1"), ("Pod", "missed-2"), ("ReplicaSet", "orders")] {
        let events = eventually(PROPAGATION, format!("there is an Event on {name}"), async || {
            let events = shop.events_about(kind, name).await?;
            ensure!(!events.is_empty(), "none");
            Ok(events)
        })
        .await
        .unwrap();
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(
            (&events[0]["reason"], &events[0]["type"]),
            (&json!("CredentialsMissed"), &json!("Warning"))
        );
        let message = events[0]["message"].as_str().unwrap();
        assert!(
            message.contains("TokenScopePolicy missed/orders") && message.contains(ORDERS),
            "{message}"
        );
    }
    eventually(PROPAGATION, "the metrics say so", async || {
        let (_, text) = environment.installed.operator(0).observe("/metrics").await?;
        ensure!(text.contains("tokenscope_operator_pods{state=\"missed\"} 2"), "{text}");
        ensure!(text.contains("tokenscope_operator_leader 1"), "{text}");
        Ok(())
    })
    .await
    .unwrap();
    for pod in ["missed-1", "missed-2"] {
        delete(&shop.client, &shop.path(&format!("pods/{pod}"))).await.unwrap();
    }
    when(&shop, "orders", |status| ready(status, "True", "UpToDate"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_quiet_cluster_is_written_to_no_more() {
    let environment = Environment::start(Options {
        operators: 2,
        operator_arguments: vec!["--resync=2".to_owned()],
        ..Options::default()
    })
    .await
    .unwrap();
    let control_plane = &environment.control_plane;
    let shop = Shop::open(control_plane, "quiet", &[]).await.unwrap();
    let spec = json!({"subjects": [{}], "roles": {"default": ORDERS}});
    shop.policy("orders", spec).await.unwrap();
    shop.policy("over", {
        let mut spec = orders_may(&[CARTS]);
        spec["activeSchedule"] = json!({"cron": "0 0 1 1 *", "duration": "1h", "timeZone": "UTC"});
        spec
    })
    .await
    .unwrap();
    shop.granted(&shop.pod("injected")).await.unwrap();
    unreviewed(&shop, &shop.pod("missed")).await.unwrap();
    when(&shop, "orders", |status| counts(status, [2, 1, 1, 0]))
        .await
        .unwrap();
    when(&shop, "over", |status| ready(status, "True", "NotInForce"))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await; // until the Event is written

    let writes = || {
        let of_operator = |event: &Value| {
            event["user"]["username"] == OPERATOR
                && !matches!(event["verb"].as_str(), Some("get" | "list" | "watch"))
                && event["objectRef"]["resource"] != "leases"
        };
        control_plane.audit_events(of_operator).unwrap().len()
    };
    let before = writes();
    assert!(
        before >= 5,
        "two Secrets, the configuration and two policies were written: {before}"
    );
    tokio::time::sleep(Duration::from_secs(12)).await;
    let (after, written) = (
        writes(),
        control_plane
            .audit_events(|event| event["user"]["username"] == OPERATOR)
            .unwrap(),
    );
    let last = &written[written.len() - (after - before).min(written.len())..];
    assert_eq!(after, before, "{last:?}");
    assert_eq!(control_plane.forbidden().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn secrets_that_are_deleted_or_damaged_are_healed_and_pods_are_reviewed_all_the_while() {
    let environment = Environment::start(Options {
        webhook_arguments: vec!["--serving-secret-poll=1".to_owned()],
        operator_arguments: vec!["--rotation-overlap=2".to_owned()],
        ..Options::default()
    })
    .await
    .unwrap();
    let control_plane = &environment.control_plane;
    let shop = Shop::open(control_plane, "heal", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("before", ORDERS)).await.unwrap();

    let damages: [(&str, &[&str], Option<Value>); 6] = [
        ("the authority is deleted", &["tokenscope-ca"], None),
        ("the serving certificate is deleted", &["tokenscope-webhook-tls"], None),
        ("both are deleted", &["tokenscope-ca", "tokenscope-webhook-tls"], None),
        (
            "the authority is emptied",
            &["tokenscope-ca"],
            Some(json!({"data": {"tls.crt": "", "tls.key": "", "ca.crt": ""}})),
        ),
        (
            "the authority's key is nonsense",
            &["tokenscope-ca"],
            Some(json!({"stringData": {"tls.key": "nonsense"}})),
        ),
        (
            "the serving key is nonsense",
            &["tokenscope-webhook-tls"],
            Some(json!({"stringData": {"tls.key": "nonsense"}})),
        ),
    ];
    for (what, names, damage) in damages {
        let mut versions = Vec::new();
        for name in names {
            let path = secret_path(name);
            versions.push(get_json(&shop.client, &path).await.unwrap()["metadata"]["resourceVersion"].take());
            match &damage {
                None => delete(&shop.client, &path).await.unwrap(),
                Some(change) => merge(&shop.client, &path, change).await.unwrap(),
            };
        }
        eventually(PROPAGATION, format!("{what}, and healed"), async || {
            // At every moment: whoever looks at the cluster from outside sees nothing of it.
            let answer = try_pod(&shop.client, &shop.asking("meanwhile", ORDERS)).await?;
            assert_eq!(reviewed(&answer.body), Some("granted"), "{what}: {}", answer.message());
            for (name, version) in names.iter().zip(&versions) {
                let secret = get_json(&shop.client, &secret_path(name)).await?;
                ensure!(secret["metadata"]["resourceVersion"] != *version, "{name} is untouched");
                for key in ["tls.crt", "tls.key", "ca.crt"] {
                    ensure!(
                        secret["data"][key].as_str().unwrap_or_default().len() > 200,
                        "{name} has no {key}"
                    );
                }
            }
            let trusted = authorities(&shop.client).await?;
            ensure!(trusted == 1, "{trusted} authorities are trusted");
            Ok(())
        })
        .await
        .unwrap();
    }
    let log = environment.installed.operator(0).log();
    assert!(
        !log.contains("PRIVATE") && !log.contains("LS0tLS1CRUdJTi"),
        "key material is in the log"
    );
    assert_eq!(control_plane.forbidden().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn short_lived_certificates_are_replaced_in_time_again_and_again() {
    let environment = Environment::start(Options {
        webhook_arguments: vec!["--serving-secret-poll=1".to_owned()],
        operator_arguments: ["--ca-lifetime=27", "--serving-lifetime=12", "--rotation-overlap=3"]
            .map(str::to_owned)
            .to_vec(),
        ..Options::default()
    })
    .await
    .unwrap();
    let shop = Shop::open(&environment.control_plane, "short", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("before", ORDERS)).await.unwrap();
    let mut seen = BTreeSet::new();
    let began = Instant::now();
    while seen.len() < 3 {
        let answer = try_pod(&shop.client, &shop.asking("meanwhile", ORDERS)).await.unwrap();
        assert_eq!(reviewed(&answer.body), Some("granted"), "{}", answer.message());
        let secret = get_json(&shop.client, &secret_path("tokenscope-ca")).await.unwrap();
        seen.insert(secret["data"]["tls.crt"].as_str().unwrap().to_owned());
        assert!(began.elapsed() < Duration::from_secs(120), "{} authorities", seen.len());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (_, text) = environment.installed.operator(0).observe("/metrics").await.unwrap();
    assert!(
        text.contains("tokenscope_operator_certificate_steps_total{step=\"drop_old_ca\"}"),
        "{text}"
    );
}

#[tokio::test]
async fn missed_pods_are_evicted_where_the_chart_allows_it_and_only_if_a_controller_makes_new_ones() {
    let environment = Environment::start(Options {
        values: json!({"operator": {"evictMissed": true}}),
        ..Options::default()
    })
    .await
    .unwrap();
    let shop = Shop::open(&environment.control_plane, "evict", &[]).await.unwrap();
    let spec = json!({"subjects": [{"serviceAccounts": ["orders"]}], "roles": {"default": ORDERS}});
    shop.policy("orders", spec).await.unwrap();
    when(&shop, "orders", |status| ready(status, "True", "UpToDate"))
        .await
        .unwrap();
    unreviewed(&shop, &of_replica_set(&shop, "made-by-a-controller"))
        .await
        .unwrap();
    unreviewed(&shop, &shop.pod("alone")).await.unwrap();

    eventually(PROPAGATION, "the pod is evicted", async || {
        let gone = get_json(&shop.client, &shop.path("pods/made-by-a-controller")).await;
        ensure!(
            matches!(gone, Err(kube::Error::Api(ref status)) if status.is_not_found()),
            "it is still there"
        );
        Ok(())
    })
    .await
    .unwrap();
    when(&shop, "orders", |status| counts(status, [1, 0, 1, 0]))
        .await
        .unwrap();
    get_json(&shop.client, &shop.path("pods/alone")).await.unwrap();
    assert_eq!(environment.control_plane.forbidden().unwrap(), Vec::<String>::new());
}

/// Budget: the first full status in under a minute, and an idle cluster for less than a hundredth of a core.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes and all of the machine: run it alone, with programs built for release (TOKENSCOPE_TEST_PROGRAMS)"]
async fn ten_thousand_policies_and_fifty_thousand_pods_have_their_status_within_a_minute() {
    const NAMESPACES: usize = 100;
    const POLICIES_EACH: usize = 100;
    const PODS_EACH: usize = 500;
    let environment = Environment::start(Options {
        programs: std::env::var_os("TOKENSCOPE_TEST_PROGRAMS").map(Into::into),
        ..Options::default()
    })
    .await
    .unwrap();
    let (control_plane, operator) = (&environment.control_plane, environment.installed.operator(0));
    let client = control_plane.client().await.unwrap();
    operator.kill().unwrap();
    let configuration = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tokenscope";
    delete(&client, configuration).await.unwrap();

    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..NAMESPACES {
        let namespace = format!("n{number}");
        control_plane.create_namespace(&namespace, &[]).await.unwrap();
        let client = client.clone();
        tasks.spawn(async move {
            for policy in 0..POLICIES_EACH {
                let object = json!({
                    "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
                    "metadata": {"name": format!("p{policy}"), "namespace": namespace},
                    "spec": {
                        "subjects": [{"podSelector": {"matchLabels": {"app": format!("a{policy}")}}}],
                        "roles": {"allowed": [ORDERS], "default": ORDERS},
                    },
                });
                post(
                    &client,
                    &format!("{POLICIES}/namespaces/{namespace}/tokenscopepolicies"),
                    &object,
                )
                .await?;
            }
            for pod in 0..PODS_EACH {
                let labels = json!({"app": format!("a{}", pod % POLICIES_EACH), "tier": "x"});
                let object = json!({
                    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("pod-{pod}"), "labels": labels},
                    "spec": {"containers": [
                        {"name": "app", "image": "app", "env": [{"name": "A", "value": "b"}]},
                        {"name": "sidecar", "image": "sidecar"},
                    ]},
                });
                post(&client, &format!("/api/v1/namespaces/{namespace}/pods"), &object).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap().unwrap();
    }
    println!("everything is created after {:?}", began.elapsed());

    let began = Instant::now();
    operator.restart().unwrap();
    operator.wait_ready(Duration::from_secs(300)).await.unwrap();
    println!("it knows and has judged everything after {:?}", began.elapsed());
    let wanted = NAMESPACES * POLICIES_EACH;
    eventually(Duration::from_secs(300), "every status is written", async || {
        let (_, text) = operator.observe("/metrics").await?;
        let mut lines = text.lines();
        let written =
            lines.find_map(|line| line.strip_prefix("tokenscope_operator_status_writes_total{outcome=\"written\"} "));
        let written: usize = written.unwrap_or("0").parse()?;
        ensure!(written >= wanted, "{written} of {wanted}");
        Ok(())
    })
    .await
    .unwrap();
    let took = began.elapsed();
    println!(
        "the first full status took {took:?}, memory {:?}",
        operator.memory().unwrap()
    );
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = operator.processor_time().unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let idle = operator.processor_time().unwrap().saturating_sub(before);
    println!("a minute of quiet took {idle:?}");
    assert!(took < Duration::from_secs(60), "{took:?}");
}

/// Creates a pod as if the webhook had been away: by the one way round it that needs no fault, a label that is taken back.
async fn unreviewed(shop: &Shop<'_>, pod: &Value) -> Result<()> {
    let path = format!("/api/v1/namespaces/{}", shop.namespace);
    let labels = |value: Value| json!({"metadata": {"labels": {"tokenscope.io/inject": value}}});
    merge(&shop.client, &path, &labels(json!("false"))).await?;
    eventually(PROPAGATION, "the webhook is not called", async || {
        ensure!(reviewed(&try_pod(&shop.client, pod).await?.body).is_none(), "it is");
        Ok(())
    })
    .await?;
    accepts(&shop.client, pod).await?;
    merge(&shop.client, &path, &labels(Value::Null)).await?;
    Ok(())
}

fn of_replica_set(shop: &Shop<'_>, name: &str) -> Value {
    let mut pod = shop.pod(name);
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders", "uid": "a-replica-set", "controller": true,
    }]);
    pod
}

/// A policy once its status is about what it says now, and `wanted` is true of the status.
async fn when(shop: &Shop<'_>, name: &str, wanted: impl Fn(&Value) -> Result<()>) -> Result<Value> {
    let path = format!("{POLICIES}/namespaces/{}/tokenscopepolicies/{name}", shop.namespace);
    eventually(PROPAGATION, format!("{name} has the right status"), async || {
        let policy = get_json(&shop.client, &path).await?;
        ensure!(
            policy["status"]["observedGeneration"] == policy["metadata"]["generation"],
            "it is not observed"
        );
        wanted(&policy["status"]).with_context(|| policy["status"].to_string())?;
        Ok(policy)
    })
    .await
}

/// Matched, injected, missed and outdated pods.
fn counts(status: &Value, wanted: [i64; 4]) -> Result<()> {
    let found = ["matchedPods", "injectedPods", "missedPods", "outdatedPods"].map(|field| status[field].as_i64());
    ensure!(found == wanted.map(Some), "the counts are {found:?}");
    Ok(())
}

fn ready(status: &Value, is: &str, reason: &str) -> Result<()> {
    let found = condition(status, "Ready");
    ensure!(found["status"] == is && found["reason"] == reason, "Ready is {found}");
    Ok(())
}

fn reasons(status: &Value) -> [&str; 3] {
    ["Accepted", "Active", "Ready"].map(|kind| condition(status, kind)["reason"].as_str().unwrap_or_default())
}

fn message<'a>(status: &'a Value, kind: &str) -> &'a str {
    condition(status, kind)["message"].as_str().unwrap_or_default()
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions
        .find(|condition| condition["type"] == kind)
        .unwrap_or(&Value::Null)
}

fn secret_path(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}")
}

/// How many certificate authorities are trusted.
async fn authorities(client: &Client) -> Result<usize> {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    let secret = get_json(client, &secret_path("tokenscope-ca")).await?;
    let bundle = BASE64_STANDARD.decode(secret["data"]["ca.crt"].as_str().unwrap_or_default())?;
    Ok(String::from_utf8(bundle)?.matches("BEGIN CERTIFICATE").count())
}
