//! Pods whose sidecar also gives tokens by audience.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod fixtures;

use fixtures::{ReviewFixture, ReviewedPod, asking, run_issuer, served, told};
use serde_json::{Value, json};
use tokenscope_core::delivery::Delivery;
use tokenscope_core::outbound::{OutboundSource, OutboundToken};
use tokenscope_core::{Policy, TokenExpiration, TokenSource};

const VAULT: &str = "https://vault.example";

fn giving(policy: &mut Policy) {
    served(policy);
    policy.token.source = TokenSource::Issuer;
    if let Delivery::Endpoint(endpoint) = &mut policy.delivery {
        endpoint.gives_tokens = true;
    }
    policy.outbound = [OutboundToken {
        name: "vault".parse().unwrap(),
        audience: VAULT.parse().unwrap(),
        source: OutboundSource::Issuer,
        expiration: TokenExpiration::from_seconds(900).unwrap(),
        variables: Vec::new(),
    }]
    .into();
}

fn fixture(change: impl FnOnce(&mut Policy)) -> ReviewFixture {
    let mut fixture = ReviewFixture::with_policy(|policy| {
        giving(policy);
        change(policy);
    });
    run_issuer(&mut fixture);
    fixture
}

/// A pod with an init container and two others.
fn pod() -> Value {
    let mut pod = asking(json!([{"name": "app", "image": "a"}, {"name": "job", "image": "j"}]));
    pod["spec"]["initContainers"] = json!([{"name": "migrate", "image": "m"}]);
    pod
}

/// Whether it serves all containers, and what each of them is given.
fn given(reviewed: &ReviewedPod) -> (bool, Vec<(String, Vec<String>)>) {
    let told = told(reviewed);
    let tokens = told.containers.iter().map(|container| {
        let tokens = container.tokens.iter();
        let tokens = tokens.map(|token| format!("{} {}", token.audience, token.most_seconds));
        (container.name.to_string(), tokens.collect())
    });
    (told.has_all_containers, tokens.collect())
}

fn both() -> Vec<String> {
    vec!["sts.amazonaws.com 3600".to_owned(), format!("{VAULT} 900")]
}

#[test]
fn the_sidecar_is_told_what_each_container_may_have_and_that_these_are_all() {
    let reviewed = fixture(|_| ()).review(&pod());
    let expected = ["migrate", "app", "job"].map(|name| (name.to_owned(), both()));
    assert_eq!(given(&reviewed), (true, expected.to_vec()));
}

#[test]
fn a_container_without_a_grant_and_one_that_takes_its_role_itself_leave_tokens_to_those_that_have_one() {
    let covering = |name: &str| {
        let name = tokenscope_core::Glob::new(name);
        fixture(|policy| policy.containers.exclude = vec![name]).review(&pod())
    };
    let reviewed = covering("job");
    let expected = ["migrate", "app"].map(|name| (name.to_owned(), both()));
    assert_eq!(given(&reviewed), (false, expected.to_vec()));
    assert!(
        !given(&covering("migrate")).0,
        "an init container is one of the pod's, too"
    );

    let mut skipping = pod();
    skipping["metadata"]["annotations"]["tokenscope.io/skip-containers"] = json!("app");
    assert!(!given(&fixture(|_| ()).review(&skipping)).0);
}

#[test]
fn a_container_that_joins_later_without_a_grant_ends_what_all_were_given() {
    let fixture = fixture(|policy| policy.containers.exclude = vec![tokenscope_core::Glob::new("late")]);
    let reviewed = fixture.review(&pod());
    assert!(given(&reviewed).0);
    let mut joined = reviewed.pod;
    let containers = joined["spec"]["containers"].as_array_mut().unwrap();
    containers.push(json!({"name": "late", "image": "l"}));
    assert!(!given(&fixture.review(&joined)).0);
}

#[test]
fn without_the_policys_word_the_sidecar_is_told_of_no_token() {
    for change in [
        (|policy: &mut Policy| {
            if let Delivery::Endpoint(endpoint) = &mut policy.delivery {
                endpoint.gives_tokens = false;
            }
        }) as fn(&mut Policy),
        |policy| {
            policy.token.source = TokenSource::ServiceAccount;
            policy.outbound = [].into();
        },
    ] {
        let reviewed = fixture(change).review(&pod());
        let told = serde_json::to_value(told(&reviewed)).unwrap();
        assert_eq!(told.get("hasAllContainers"), None);
        assert_eq!(told["containers"][0].get("tokens"), None);
    }
}
