//! Events about refused exchanges.

use serde_json::json;

use crate::fixtures::claims;
use crate::setup::{POD_UID, Setup, pod, policy, policy_with};

#[tokio::test]
async fn a_refused_pod_has_an_event_with_the_sentence_that_the_answer_has_once() {
    let setup = Setup::new().await;
    setup.put_policy(policy_with("a", &json!({"disabled": true})));
    let (_, description) = setup.refused().await;
    setup.refused().await;
    let notice = setup.told.next_notice().unwrap();
    assert_eq!(notice.reason, "TokenRefused");
    assert_eq!(
        notice.message,
        format!("tokenscope's issuer gave no token for the audience sts.amazonaws.com: {description}")
    );
    let about = &notice.about;
    let text = |text: &Option<String>| text.clone().unwrap();
    assert_eq!(
        [&about.kind, &about.namespace, &about.name, &about.uid].map(text),
        ["Pod", "shop", "orders-1", POD_UID]
    );
    assert!(setup.told.next_notice().is_none(), "the same is told once");
}

#[tokio::test]
async fn claims_that_break_a_rule_are_told_too() {
    let setup = Setup::new().await;
    let tags = json!({"principalTags": {"team": "${pod.labels['team']}"}});
    setup.put_policy(policy_with("a b;c", &json!({"claims": tags})));
    setup.put_pod(pod("a b;c", "x"));
    let (error, description) = setup.refused().await;
    assert_eq!(error, "unauthorized_client", "{description}");
    assert!(setup.told.next_notice().unwrap().message.contains("team"));
}

#[tokio::test]
async fn a_pod_that_has_ended_and_still_asks_has_an_event() {
    let setup = Setup::new().await;
    let mut ended = pod("a", "a");
    ended["status"]["phase"] = json!("Succeeded");
    setup.put_pod(ended);
    let (_, description) = setup.refused().await;
    let notice = setup.told.next_notice().unwrap();
    assert!(notice.message.ends_with(&description), "{}", notice.message);
    assert_eq!(notice.about.uid.as_deref(), Some(POD_UID));
}

#[tokio::test]
async fn whoever_is_no_pod_of_this_cluster_with_that_uid_writes_no_event() {
    let setup = Setup::new().await;
    let mut other = pod("a", "a");
    other["metadata"]["uid"] = json!("another");
    setup.put_pod(other);
    setup.put_policy(policy_with("a", &json!({"disabled": true})));
    setup.refused().await;
    setup.put_pod(pod("a", "a"));
    setup.refused_for("no token", "sts.amazonaws.com").await;
    let expired = setup.cluster.token(&claims(&json!({"exp": 1})));
    setup.refused_for(&expired, "sts.amazonaws.com").await;
    setup.put_policy(policy("a"));
    setup.exchange(&setup.subject(), "sts.amazonaws.com").await;
    setup.signers.store(None);
    setup.refused().await;
    assert!(
        setup.told.next_notice().is_none(),
        "nor does what nobody but an administrator can change"
    );
}

#[tokio::test]
async fn a_pod_that_asks_for_ever_new_audiences_has_a_bounded_number_of_events() {
    let setup = Setup::new().await;
    for number in 0..40 {
        setup.exchange(&setup.subject(), &format!("audience-{number}")).await;
    }
    let told = std::iter::from_fn(|| setup.told.next_notice()).count();
    assert_eq!(told, 16);
    let counted = setup.registry.encode().unwrap();
    assert!(
        counted.contains("tokenscope_issuer_events_total{outcome=\"dropped\"}"),
        "{counted}"
    );
}
