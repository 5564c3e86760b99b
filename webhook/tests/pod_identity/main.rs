//! EKS Pod Identity in a review: what the pod gets, and what of it is ours. [`lock`]: the tokens that others bring.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

#[path = "../fixtures/mod.rs"]
mod fixtures;
mod lock;

use std::sync::Arc;

use fixtures::{AGENT_VOLUME, EKS_VOLUME, ROLE, ReviewFixture, ReviewedPod, app, asking, policy};
use serde_json::{Value, json};
use tokenscope_core::lock::LockMode;
use tokenscope_core::pod_identity::{PodIdentity, PodIdentityAgent};
use tokenscope_core::{Audience, Glob, PolicySet, Settings, TokenExpiration};
use tokenscope_webhook::metrics::ReviewOutcome;

const AGENT: &str = "http://169.254.170.23/v1/credentials";
const MOUNT: &str = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount";
const TOKEN: &str = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token";
const AUDIENCE: &str = "pods.eks.amazonaws.com";
const LABEL: &str = "eks.amazonaws.com/pod-identity";

/// EKS-compatible mode with these service accounts of namespace `shop`.
fn settings(accounts: &[&str]) -> Settings {
    let identities: Vec<Value> = accounts
        .iter()
        .map(|account| json!({"namespace": "shop", "serviceAccount": account}))
        .collect();
    let config = json!({"identities": identities}).to_string();
    let mut settings = Settings {
        pod_identity: Some(Arc::new(
            PodIdentity::parse(&config, PodIdentityAgent::default()).unwrap(),
        )),
        ..Settings::eks_compatible()
    };
    // As the chart does where service accounts are listed.
    settings.lock.audiences.push(Audience::eks_pod_identity());
    settings
}

/// One policy that allows tokens of a day for every audience.
fn listed() -> ReviewFixture {
    let mut fixture = ReviewFixture::with_policy(|policy| policy.token.expiration = TokenExpiration::DAY);
    fixture.settings = settings(&["orders"]);
    fixture
}

/// A pod that asks for nothing.
fn plain() -> Value {
    fixtures::plain(app())
}

fn agents_variables(container: &str, reviewed: &ReviewedPod) -> Vec<String> {
    let env = reviewed.env(container).into_iter();
    env.filter(|variable| variable.starts_with("AWS_CONTAINER_")).collect()
}

fn pair() -> Vec<String> {
    vec![
        format!("AWS_CONTAINER_CREDENTIALS_FULL_URI={AGENT}"),
        format!("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE={TOKEN}"),
    ]
}

fn agents_volume(seconds: u32) -> Value {
    json!({"name": AGENT_VOLUME, "projected": {"sources": [
        {"serviceAccountToken": {"audience": AUDIENCE, "expirationSeconds": seconds, "path": AGENT_VOLUME}}]}})
}

/// A pod as the EKS webhook leaves it.
fn by_eks(seconds: u32) -> Value {
    let mut pod = plain();
    pod["metadata"]["labels"][LABEL] = json!("enabled");
    for container in pod["spec"]["containers"].as_array_mut().unwrap() {
        container["env"] = json!([
            {"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI", "value": AGENT},
            {"name": "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "value": TOKEN},
        ]);
        container["volumeMounts"] = json!([{"name": AGENT_VOLUME, "mountPath": MOUNT, "readOnly": true}]);
    }
    pod["spec"]["volumes"] = json!([agents_volume(seconds)]);
    pod
}

#[test]
fn a_listed_pod_is_sent_to_the_agent_and_the_record_says_whose_role_it_has() {
    let reviewed = listed().review(&plain());
    assert_eq!(reviewed.outcome(), ReviewOutcome::Granted);
    assert_eq!(agents_variables("app", &reviewed), pair());
    assert_eq!(reviewed.mounts("app"), [format!("{AGENT_VOLUME}:{MOUNT}")]);
    assert_eq!(
        reviewed.tokens_in(AGENT_VOLUME),
        [format!("{AGENT_VOLUME} {AUDIENCE} 79200")]
    );
    assert_eq!(reviewed.pod["metadata"]["labels"][LABEL], "enabled");
    assert_eq!(reviewed.mark(), Some("granted"));
    let record = reviewed.record();
    assert_eq!(record["association"], json!({"volume": AGENT_VOLUME}));
    assert_eq!(record["service_account_annotations"], json!({}));
    let grant = &record["grants"][0];
    assert_eq!(grant["role"], "EKS Pod Identity association");
    assert_eq!(grant["policy"], "TokenScopePolicy shop/orders");
    let audit = &reviewed.response["auditAnnotations"];
    assert_eq!(audit["role"], "EKS Pod Identity association");
    assert_eq!(audit["policy"], "TokenScopePolicy shop/orders");
    assert!(
        audit["reasons"]
            .as_str()
            .unwrap()
            .contains("allows audience pods.eks.amazonaws.com"),
        "{audit}"
    );
    assert_eq!(reviewed.warnings(), "");
}

#[test]
fn a_policy_whose_role_the_association_displaces_is_named_to_whoever_creates_the_pod() {
    let mut fixture = listed();
    let mut assigning = policy("orders");
    assigning.roles.default = Some(ROLE.parse().unwrap());
    fixture.policies = [assigning].into_iter().collect();
    let reviewed = fixture.review(&plain());
    assert_eq!(agents_variables("app", &reviewed), pair());
    assert_eq!(reviewed.value("app", "AWS_ROLE_ARN"), None);
    let warnings = reviewed.warnings();
    assert!(
        warnings.contains("and not the default role of TokenScopePolicy shop/orders"),
        "{warnings}"
    );
}

#[test]
fn a_pod_that_asks_for_a_role_is_refused_and_not_given_another_one() {
    let message = fixtures::refusal(&listed(), &asking(app()));
    assert!(
        message.contains("it would get the role of the association"),
        "{message}"
    );
}

#[test]
fn policies_that_are_required_or_closed_are_not_walked_around() {
    let mut fixture = listed();
    fixture.policies = PolicySet::default();
    let message = fixtures::refusal(&fixture, &plain());
    assert!(
        message.contains("stands in the configuration of EKS Pod Identity, but no policy"),
        "{message}"
    );

    let mut closed = policy("orders");
    closed.audiences.allowed = vec![Audience::sts()];
    fixture.policies = [closed].into_iter().collect();
    for required in [true, false] {
        fixture.settings.policy_required = required;
        let message = fixtures::refusal(&fixture, &plain());
        assert!(
            message.contains("TokenScopePolicy shop/orders does not allow"),
            "{message}"
        );
    }
}

#[test]
fn what_the_eks_webhook_wrote_is_taken_over_with_the_lifetime_that_it_drew() {
    for seconds in [79_200, 82_345, 86_400] {
        let mut fixture = listed();
        fixture.settings.lock.mode = LockMode::Deny;
        let pod = by_eks(seconds);
        let reviewed = fixture.review(&pod);
        assert_eq!(reviewed.outcome(), ReviewOutcome::Granted);
        assert_eq!(reviewed.pod["spec"], pod["spec"], "{seconds}");
        assert_eq!(reviewed.warnings(), "");
        assert_eq!(reviewed.record()["association"], json!({"volume": AGENT_VOLUME}));
    }
}

#[test]
fn a_service_account_that_is_not_listed_any_more_loses_what_a_review_added() {
    let mut fixture = listed();
    let once = fixture.review(&plain());
    fixture.settings = settings(&["others"]);
    let again = fixture.review(&once.pod);
    assert_eq!(fixtures::without_ours(&again.pod), fixtures::without_ours(&plain()));
    assert_eq!(agents_variables("app", &again), Vec::<String>::new());
    assert!(
        again.pod["spec"]["volumes"].as_array().is_none_or(Vec::is_empty),
        "{}",
        again.pod
    );
    assert_eq!(again.mounts("app"), Vec::<String>::new());
    assert_eq!(again.pod["metadata"]["labels"].get(LABEL), None);
    assert_eq!(again.annotation("tokenscope.io/grant"), None);
}

#[test]
fn a_pod_goes_from_web_identity_to_the_agent_and_back() {
    let mut fixture = listed();
    fixture.settings.pod_identity = None;
    let mut assigning = policy("orders");
    assigning.roles.default = Some(ROLE.parse().unwrap());
    fixture.policies = [assigning].into_iter().collect();
    let by_role = fixture.review(&plain());
    assert!(by_role.tokens_in(EKS_VOLUME).len() == 1);

    let mut to_agent = fixture;
    to_agent.settings = settings(&["orders"]);
    let by_agent = to_agent.review(&by_role.pod);
    assert_eq!(agents_variables("app", &by_agent), pair());
    assert_eq!(by_agent.value("app", "AWS_ROLE_ARN"), None);
    assert_eq!(by_agent.tokens_in(EKS_VOLUME), Vec::<String>::new());
    assert_eq!(by_agent.mounts("app"), [format!("{AGENT_VOLUME}:{MOUNT}")]);

    let mut back = to_agent;
    back.settings = settings(&["others"]);
    let back = back.review(&by_agent.pod);
    assert_eq!(back.value("app", "AWS_ROLE_ARN").as_deref(), Some(ROLE));
    assert_eq!(back.tokens_in(AGENT_VOLUME), Vec::<String>::new());
}

#[test]
fn a_forged_record_takes_nothing_from_the_pod_but_what_a_review_writes() {
    let mut pod = plain();
    pod["metadata"]["annotations"]["tokenscope.io/grant"] = json!(
        json!({"grants": [{"role": "x", "containers": ["app"], "env": []}], "hash": "", "association": {"volume": "data"}}).to_string()
    );
    pod["spec"]["volumes"] = json!([{"name": "data", "projected": {"sources": [
        {"serviceAccountToken": {"audience": "vault", "expirationSeconds": 3600, "path": "token"}}]}}]);
    for accounts in [&["orders"][..], &["others"]] {
        let mut fixture = listed();
        fixture.settings = settings(accounts);
        let reviewed = fixture.review(&pod);
        assert!(
            reviewed.pod["spec"]["volumes"]
                .as_array()
                .unwrap()
                .contains(&pod["spec"]["volumes"][0]),
            "{}",
            reviewed.pod
        );
    }
}

#[test]
fn a_label_that_the_pod_brings_is_the_one_that_policies_see() {
    let mut fixture = listed();
    let mut pod = plain();
    pod["metadata"]["labels"][LABEL] = json!("disabled");
    let reviewed = fixture.review(&pod);
    assert_eq!(reviewed.pod["metadata"]["labels"][LABEL], "enabled");
    assert_eq!(reviewed.record()["labels"][LABEL], "disabled");
    fixture.settings = settings(&["others"]);
    let back = fixture.review(&reviewed.pod);
    assert_eq!(back.pod["metadata"]["labels"][LABEL], "disabled");
}

#[test]
fn another_volume_where_the_token_goes_is_a_refusal_that_names_it() {
    let mut pod = plain();
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": MOUNT}]);
    let message = fixtures::refusal(&listed(), &pod);
    assert!(message.contains("mounts volume data at"), "{message}");
    assert!(
        message.contains("where tokenscope puts the token of EKS Pod Identity"),
        "{message}"
    );
}

#[test]
fn credentials_that_sdks_prefer_are_told() {
    for name in [
        "AWS_ACCESS_KEY_ID",
        "AWS_ROLE_ARN",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    ] {
        let mut pod = plain();
        pod["spec"]["containers"][0]["env"] = json!([{"name": name, "value": "mine"}]);
        let reviewed = listed().review(&pod);
        assert_eq!(reviewed.outcome(), ReviewOutcome::Granted);
        assert!(
            reviewed.warnings().contains(&format!("sets {name} itself")),
            "{}",
            reviewed.warnings()
        );
    }
}

#[test]
fn a_container_that_loses_its_policy_loses_the_mount_that_a_review_added() {
    let mut pod = plain();
    let containers = pod["spec"]["containers"].as_array_mut().unwrap();
    containers.push(json!({"name": "other", "image": "other"}));
    let mut fixture = listed();
    let once = fixture.review(&pod);
    assert_eq!(once.mounts("other"), [format!("{AGENT_VOLUME}:{MOUNT}")]);
    let mut covering = policy("orders");
    covering.token.expiration = TokenExpiration::DAY;
    covering.containers.include = vec![Glob::new("app")];
    fixture.policies = [covering].into_iter().collect();
    let again = fixture.review(&once.pod);
    assert_eq!(again.outcome(), ReviewOutcome::Granted);
    assert_eq!(again.mounts("other"), Vec::<String>::new());
    assert_eq!(again.mounts("app"), [format!("{AGENT_VOLUME}:{MOUNT}")]);
}
