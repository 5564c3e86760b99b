//! Tokens for the agent of EKS Pod Identity that a pod brings itself, as the lock judges them.

use serde_json::{Value, json};
use tokenscope_core::lock::LockMode;
use tokenscope_core::{Audience, Glob, PolicySet, TokenExpiration};
use tokenscope_webhook::metrics::ReviewOutcome;

use crate::fixtures::{self, AGENT_VOLUME, ReviewFixture, policy};
use crate::{agents_volume, by_eks, listed, plain, settings};

#[test]
fn a_volume_of_the_pods_own_stays_and_is_judged_by_the_lock() {
    let mut own = plain();
    own["spec"]["volumes"] = json!([agents_volume(3600)]);
    let reviewed = listed().review(&own);
    assert_eq!(reviewed.outcome(), ReviewOutcome::Granted);
    assert_eq!(reviewed.pod["spec"]["volumes"], own["spec"]["volumes"]);
    assert!(
        reviewed
            .warnings()
            .contains("brings a volume eks-pod-identity-token of its own"),
        "{}",
        reviewed.warnings()
    );
    assert_eq!(reviewed.record()["association"], json!({}));

    // A token that lives longer than any policy gives is none that the review wrote.
    let mut fixture = ReviewFixture::new();
    fixture.settings = settings(&["orders"]);
    fixture.settings.lock.mode = LockMode::Deny;
    let message = fixtures::refusal(&fixture, &by_eks(82_345));
    assert!(message.contains("for at most 3600 seconds"), "{message}");
}

#[test]
fn the_lock_keeps_whoever_writes_pods_from_the_token_that_no_policy_allows() {
    let mut fixture = listed();
    fixture.settings = settings(&["others"]);
    fixture.settings.lock.mode = LockMode::Deny;
    fixture.policies = PolicySet::default();
    let message = fixtures::refusal(&fixture, &by_eks(3600));
    assert!(
        message.contains("volume eks-pod-identity-token holds a token for audience pods.eks.amazonaws.com"),
        "{message}"
    );
}

#[test]
fn a_second_volume_of_the_agents_name_is_judged_by_the_lock_whatever_the_first_one_is() {
    let mut fixture = listed();
    fixture.settings.lock.mode = LockMode::Deny;
    let mut allowing = policy("orders");
    allowing.audiences.allowed = vec![Audience::eks_pod_identity()];
    allowing.token.expiration = TokenExpiration::DAY;
    fixture.policies = [allowing].into_iter().collect();
    let ours = agents_volume(79_200);
    let mut other = ours.clone();
    other["projected"]["sources"][0]["serviceAccountToken"]["audience"] = json!("sts.amazonaws.com");
    for volumes in [json!([ours, other]), json!([other, ours])] {
        let mut pod = by_eks(79_200);
        pod["spec"]["volumes"] = volumes;
        let message = fixtures::refusal(&fixture, &pod);
        assert!(
            message.contains("volume eks-pod-identity-token holds a token for audience sts.amazonaws.com"),
            "{message}"
        );
    }
}

/// A pod with a second container that mounts the volume of the token.
fn with_an_uncovered_container() -> Value {
    let mut pod = plain();
    let containers = pod["spec"]["containers"].as_array_mut().unwrap();
    containers.push(json!({"name": "evil", "image": "evil",
        "volumeMounts": [{"name": AGENT_VOLUME, "mountPath": "/mine", "readOnly": true}]}));
    pod
}

#[test]
fn a_container_that_no_policy_gives_the_token_may_not_mount_its_volume() {
    let mut covering = policy("orders");
    covering.token.expiration = TokenExpiration::DAY;
    covering.containers.include = vec![Glob::new("app")];
    let mut by_policy = listed();
    by_policy.policies = [covering].into_iter().collect();
    let pod = with_an_uncovered_container();
    let mut skipping = pod.clone();
    skipping["metadata"]["annotations"] = json!({"eks.amazonaws.com/skip-containers": "evil"});
    for (fixture, pod) in [(by_policy, pod), (listed(), skipping)] {
        let mut with_ours = pod.clone();
        with_ours["spec"]["volumes"] = json!([agents_volume(79_200)]);
        for pod in [&pod, &with_ours] {
            let message = fixtures::refusal(&fixture, pod);
            assert!(
                message.contains(
                    "container evil mounts volume eks-pod-identity-token whose token no policy gives it: remove that mount"
                ),
                "{message}"
            );
        }
    }
}
