//! What happens to a pod that is denied, and to those that stay out.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::admission::{create_pod, try_pod};
use tokenscope_e2e::control_plane::ControlPlane;
use tokenscope_e2e::fixtures::{
    ADMIN, ORDERS, PROPAGATION, Shop, annotation, environment, orders_may, reviewed, volume, with_annotations,
};
use tokenscope_e2e::{eventually, get_json, merge};

use crate::{SHARED, VOLUME};

#[tokio::test]
async fn a_namespace_with_the_warn_label_admits_without_credentials_and_warns() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "warned", &[("tokenscope.io/warn", "true")])
        .await
        .unwrap();
    let long = "arn:aws:iam::111122223333:role/a/long/path/that/takes/this/sentence/over/the/limit/of/one/warning/*";
    shop.policy("orders", orders_may(&["arn:aws:iam::111122223333:role/shop/*", long]))
        .await
        .unwrap();
    shop.granted(&shop.asking("allowed", ORDERS)).await.unwrap();
    let answer = admitted_without_credentials(&shop, "denied").await;

    let text = answer.warnings.join(" ");
    assert!(text.contains("gets no AWS credentials"), "{text}");
    // The API server cuts a warning after 256 characters, so a sentence goes on in the next one.
    let text = text.replace("… ", "");
    assert!(
        text.contains(&format!(
            "TokenScopePolicy warned/orders does not allow {ADMIN}: its roles.allowed has arn:aws:iam::111122223333:role/shop/*, {long}"
        )),
        "{text}"
    );

    // Whoever asked a controller for the pod does not see its warnings.
    let owner = shop.owner("orders").await.unwrap();
    let answer = create_pod(&shop.client, &owned_by(&shop, &owner, ADMIN)).await.unwrap();
    assert!(answer.accepted(), "{}", answer.message());
    let event = event_on_owner(&shop, "orders").await;
    assert_eq!(event["type"], "Warning");
    let text = event["message"].as_str().unwrap();
    assert!(
        text.starts_with("A pod was admitted without AWS credentials: "),
        "{text}"
    );
}

#[tokio::test]
async fn a_namespace_with_the_audit_label_admits_without_credentials_and_only_the_audit_log_says_so() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "audited", &[("tokenscope.io/audit", "true")])
        .await
        .unwrap();
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("allowed", ORDERS)).await.unwrap();
    let answer = admitted_without_credentials(&shop, "denied").await;
    assert!(answer.warnings.is_empty(), "{:?}", answer.warnings);

    let audit_annotations = audited(control_plane, "audited", "denied").await;
    assert!(audit_annotations.contains("pods.tokenscope.io/"), "{audit_annotations}");
    assert!(
        audit_annotations.contains(&format!("TokenScopePolicy audited/orders does not allow {ADMIN}")),
        "{audit_annotations}"
    );
    let granted = audited(control_plane, "audited", "allowed").await;
    assert!(
        granted.contains(ORDERS) && granted.contains("TokenScopePolicy audited/orders"),
        "{granted}"
    );
}

#[tokio::test]
async fn a_namespace_that_is_labelled_later_behaves_so_from_then_on() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "relabelled", &[]).await.unwrap();
    shop.refused(&shop.asking("first", ADMIN), "no policy selects")
        .await
        .unwrap();
    let path = "/api/v1/namespaces/relabelled";
    merge(
        &shop.client,
        path,
        &json!({"metadata": {"labels": {"tokenscope.io/audit": "true"}}}),
    )
    .await
    .unwrap();
    admitted_without_credentials(&shop, "second").await;
    merge(
        &shop.client,
        path,
        &json!({"metadata": {"labels": {"tokenscope.io/enforce": "true"}}}),
    )
    .await
    .unwrap();
    shop.refused(&shop.asking("third", ADMIN), "no policy selects")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_denied_copy_of_an_injected_pod_keeps_nothing_of_ours() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "stripped", &[("tokenscope.io/warn", "true")])
        .await
        .unwrap();
    shop.allow_orders().await.unwrap();
    let mut copy = shop.granted(&shop.asking("original", ORDERS)).await.unwrap().body;
    copy["metadata"] = json!({
        "name": "copy", "namespace": "stripped", "annotations": copy["metadata"]["annotations"],
    });
    let copy = with_annotations(copy, &[("tokenscope.io/role-arn", ADMIN)]);
    let answer = create_pod(&shop.client, &copy).await.unwrap();

    assert!(answer.accepted(), "{}", answer.message());
    assert_eq!(reviewed(&answer.body), Some("refused"));
    assert_eq!(annotation(&answer.body, "tokenscope.io/grant"), None);
    assert_eq!(environment(&answer.body, "app"), []);
    assert!(volume(&answer.body, VOLUME).is_none());
}

#[tokio::test]
async fn a_refusal_leaves_a_warning_on_the_owner_and_a_dry_run_leaves_nothing() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "owners", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    let (fine, tried, refused) = (
        shop.owner("fine").await,
        shop.owner("tried").await,
        shop.owner("refused").await,
    );
    let (fine, tried, owner) = (fine.unwrap(), tried.unwrap(), refused.unwrap());
    shop.granted(&owned_by(&shop, &fine, ORDERS)).await.unwrap();
    let tried = try_pod(&shop.client, &owned_by(&shop, &tried, ADMIN)).await.unwrap();
    assert!(!tried.accepted(), "{}", tried.body);
    let refused = create_pod(&shop.client, &owned_by(&shop, &owner, ADMIN)).await.unwrap();
    assert_eq!(tried.message(), refused.message(), "a dry run says what would happen");

    let event = event_on_owner(&shop, "refused").await;
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["involvedObject"]["apiVersion"], "apps/v1");
    assert_eq!(event["involvedObject"]["uid"], owner["uid"]);
    let text = event["message"].as_str().unwrap();
    assert!(
        text.contains(&format!("TokenScopePolicy owners/orders does not allow {ADMIN}")),
        "{event}"
    );
    // It was sent after what the dry run would have sent.
    for quiet in ["tried", "fine"] {
        assert_eq!(
            shop.events_about("ReplicaSet", quiet).await.unwrap(),
            Vec::<Value>::new()
        );
    }
}

#[tokio::test]
async fn a_controller_that_tries_again_and_again_does_not_fill_the_cluster_with_events() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "stubborn", &[]).await.unwrap();
    let owner = shop.owner("stubborn").await.unwrap();
    let pod = owned_by(&shop, &owner, ADMIN);
    for _ in 0..30 {
        assert!(!create_pod(&shop.client, &pod).await.unwrap().accepted());
    }
    eventually(PROPAGATION, "an Event is on the owner", async || {
        let events = shop.events_about("ReplicaSet", "stubborn").await?;
        ensure!(!events.is_empty(), "none yet");
        ensure!(events.len() <= 3, "{} events for one reason", events.len());
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn opting_out_works_on_the_pod_its_service_account_and_its_namespace() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "opted-out", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    let everybody = json!({"subjects": [{}], "roles": {"default": ORDERS}});
    shop.policy("everybody", everybody.clone()).await.unwrap();
    control_plane
        .create_service_account("opted-out", "quiet", &[("tokenscope.io/inject", "false")])
        .await
        .unwrap();
    shop.granted(&shop.pod("by-default")).await.unwrap();

    let out = with_annotations(shop.asking("pod", ADMIN), &[("tokenscope.io/inject", "false")]);
    let out = shop.untouched(&out).await.unwrap().body;
    assert_eq!(reviewed(&out), Some("holds-nothing"), "it names a role all the same");
    let of_quiet = |mut pod: Value| {
        pod["spec"]["serviceAccountName"] = json!("quiet");
        pod
    };
    shop.untouched(&of_quiet(shop.pod("account"))).await.unwrap();
    let asking = shop
        .untouched(&of_quiet(shop.asking("account-asking", ORDERS)))
        .await
        .unwrap()
        .body;
    assert_eq!(
        reviewed(&asking),
        Some("holds-nothing"),
        "or the guard would not let it pass"
    );
    let back_in = with_annotations(of_quiet(shop.pod("back-in")), &[("tokenscope.io/inject", "true")]);
    shop.granted(&back_in).await.unwrap();

    let quiet = Shop::open(control_plane, "quiet-namespace", &[("tokenscope.io/inject", "false")])
        .await
        .unwrap();
    quiet.policy("everybody", everybody).await.unwrap();
    let answer = quiet.untouched(&quiet.asking("asking", ADMIN)).await.unwrap();
    assert_eq!(reviewed(&answer.body), None);
    assert!(answer.warnings.is_empty(), "{:?}", answer.warnings);
}

#[tokio::test]
async fn every_pod_of_a_required_namespace_bears_the_mark_of_its_review() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "required", &[("tokenscope.io/required", "true")])
        .await
        .unwrap();
    shop.allow_orders().await.unwrap();
    eventually(PROPAGATION, "the label is known", async || {
        let answer = try_pod(&shop.client, &shop.pod("plain")).await?;
        ensure!(answer.accepted(), "{}", answer.message());
        ensure!(reviewed(&answer.body) == Some("asks-nothing"), "{}", answer.body);
        Ok(())
    })
    .await
    .unwrap();
    let plain = shop.untouched(&shop.pod("plain")).await.unwrap().body;
    assert_eq!(reviewed(&plain), Some("asks-nothing"));
    shop.granted(&shop.asking("asking", ORDERS)).await.unwrap();
    shop.refused(&shop.asking("denied", ADMIN), "does not allow")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_pod_is_reviewed_once() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "once", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("asking", ORDERS)).await.unwrap();
    shop.untouched(&shop.pod("plain")).await.unwrap();
    let required = Shop::open(control_plane, "once-required", &[("tokenscope.io/required", "true")])
        .await
        .unwrap();
    required.allow_orders().await.unwrap();
    required.granted(&required.asking("asking", ORDERS)).await.unwrap();

    for (namespace, pod) in [("once", "asking"), ("once", "plain"), ("once-required", "asking")] {
        let annotations: Value = serde_json::from_str(&audited(control_plane, namespace, pod).await).unwrap();
        let calls = annotations.as_object().unwrap().iter();
        let calls: Vec<_> = calls
            .filter(|(key, _)| key.starts_with("mutation.webhook.admission.k8s.io/"))
            .map(|(_, value)| value.as_str().unwrap())
            .collect();
        let [call] = calls.as_slice() else {
            panic!("{namespace}/{pod}: {calls:?}")
        };
        assert!(call.contains("\"pods.tokenscope.io\""), "{call}");
    }
}

#[tokio::test]
async fn a_pod_that_may_have_nothing_is_left_alone_in_the_namespaces_of_the_control_plane_and_our_own() {
    let control_plane = &SHARED.environment().await.control_plane;
    let client = control_plane.client().await.unwrap();
    for namespace in ["kube-system", "tokenscope-system"] {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "asking", "namespace": namespace, "annotations": {"tokenscope.io/role-arn": ADMIN},
            },
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        });
        let answer = try_pod(&client, &pod).await.unwrap();
        assert!(answer.accepted(), "{}", answer.message());
        assert_eq!(reviewed(&answer.body), None);
        assert!(volume(&answer.body, VOLUME).is_none());
    }
}

/// A pod as a ReplicaSet creates it, which is given by a reference.
fn owned_by(shop: &Shop<'_>, owner: &Value, role: &str) -> Value {
    let mut pod = shop.asking("unused", role);
    pod["metadata"]["name"].take();
    pod["metadata"]["generateName"] = json!(format!("{}-", owner["name"].as_str().unwrap_or_default()));
    pod["metadata"]["ownerReferences"] = json!([owner]);
    pod
}

/// The only Event on a ReplicaSet.
async fn event_on_owner(shop: &Shop<'_>, owner: &str) -> Value {
    eventually(PROPAGATION, "an Event is on the owner", async || {
        let events = shop.events_about("ReplicaSet", owner).await?;
        ensure!(events.len() == 1, "{events:?}");
        Ok(events[0].clone())
    })
    .await
    .unwrap()
}

/// Creates a pod that asks for what it may not have, and is let in without it.
async fn admitted_without_credentials(shop: &Shop<'_>, name: &str) -> tokenscope_e2e::admission::Answer {
    let pod = shop.asking(name, ADMIN);
    eventually(PROPAGATION, "the namespace's label is known", async || {
        let answer = try_pod(&shop.client, &pod).await?;
        ensure!(answer.accepted(), "{}", answer.message());
        Ok(())
    })
    .await
    .unwrap();
    let answer = create_pod(&shop.client, &pod).await.unwrap();
    assert!(answer.accepted(), "{}", answer.message());
    assert_eq!(reviewed(&answer.body), Some("refused"));
    assert_eq!(annotation(&answer.body, "tokenscope.io/grant"), None);
    assert_eq!(environment(&answer.body, "app"), []);
    assert!(volume(&answer.body, VOLUME).is_none());
    let stored = get_json(&shop.client, &shop.path(&format!("pods/{name}")))
        .await
        .unwrap();
    assert_eq!(reviewed(&stored), Some("refused"));
    answer
}

/// The audit annotations of the creation of a pod, as JSON.
async fn audited(control_plane: &ControlPlane, namespace: &str, pod: &str) -> String {
    eventually(PROPAGATION, "the creation is in the audit log", async || {
        let created = |event: &Value| {
            let object = &event["objectRef"];
            let dry_run = event["requestURI"].as_str().unwrap_or_default().contains("dryRun");
            event["verb"] == "create"
                && !dry_run
                && object["resource"] == "pods"
                && object["namespace"] == namespace
                && object["name"] == pod
        };
        let events = control_plane.audit_events(created)?;
        Ok(events.first().context("not yet")?["annotations"].to_string())
    })
    .await
    .unwrap()
}
