//! Pods that get tokens for third parties with their role.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod fixtures;

use fixtures::{
    MOUNT, OTHER_ROLE, ROLE, ReviewFixture, SUBJECT_TOKEN_VOLUME, VOLUME, app, asking, asking_for_two, plain, policy,
    refusal, run_issuer,
};
use serde_json::{Value, json};
use tokenscope_core::lock::LockMode;
use tokenscope_core::outbound::{OutboundSource, OutboundToken, OutboundValue, OutboundVariable};
use tokenscope_core::pod::SIDECAR;
use tokenscope_core::{Policy, TokenExpiration, TokenSource};
use tokenscope_webhook::metrics::ReviewOutcome;

const CLAUDE: &str = "https://api.anthropic.com";
const FOLDER: &str = "/var/run/secrets/tokenscope.io/outbound/claude";

fn variable(name: &str, value: OutboundValue) -> OutboundVariable {
    OutboundVariable {
        name: name.parse().unwrap(),
        value,
    }
}

fn token(name: &str, audience: &str, variables: Vec<OutboundVariable>) -> OutboundToken {
    OutboundToken {
        name: name.parse().unwrap(),
        audience: audience.parse().unwrap(),
        source: OutboundSource::ServiceAccount,
        expiration: TokenExpiration::from_seconds(900).unwrap(),
        variables,
    }
}

fn claude() -> OutboundToken {
    token(
        "claude",
        CLAUDE,
        vec![
            variable("ANTHROPIC_IDENTITY_TOKEN_FILE", OutboundValue::File),
            variable(
                "ANTHROPIC_FEDERATION_RULE_ID",
                OutboundValue::Text("fdrl_$(HOME)".into()),
            ),
            variable("MY_AUDIENCE", OutboundValue::Audience),
        ],
    )
}

fn giving(tokens: Vec<OutboundToken>) -> impl FnOnce(&mut Policy) {
    |policy| policy.outbound = tokens.into()
}

fn fixture() -> ReviewFixture {
    ReviewFixture::with_policy(giving(vec![claude()]))
}

/// The volume that a container has at the folder of a token.
fn volume_at(reviewed: &fixtures::ReviewedPod, container: &str, folder: &str) -> Option<String> {
    let mounts = reviewed.mounts(container);
    let mut volumes = mounts
        .iter()
        .filter_map(|mount| mount.strip_suffix(&format!(":{folder}")));
    volumes.next().map(ToOwned::to_owned)
}

#[test]
fn a_granted_pod_gets_the_tokens_file_and_the_variables_that_tell_of_it() {
    let reviewed = fixture().review(&asking(app()));
    let volume = volume_at(&reviewed, "app", FOLDER).unwrap();
    assert_eq!(reviewed.tokens_in(&volume), [format!("token {CLAUDE} 900")]);
    assert_eq!(
        reviewed.mounts("app"),
        [format!("{VOLUME}:{MOUNT}"), format!("{volume}:{FOLDER}")]
    );
    assert_eq!(
        reviewed.pod["spec"]["containers"][0]["volumeMounts"][1]["readOnly"],
        true
    );
    let env = reviewed.env("app");
    assert_eq!(
        env[env.len() - 3..],
        [
            format!("ANTHROPIC_IDENTITY_TOKEN_FILE={FOLDER}/token"),
            "ANTHROPIC_FEDERATION_RULE_ID=fdrl_$$(HOME)".to_owned(),
            format!("MY_AUDIENCE={CLAUDE}"),
        ]
    );
    assert!(reviewed.value("app", "AWS_ROLE_ARN").is_some());
    let recorded = reviewed.record()["grants"][0]["env"].to_string();
    assert!(recorded.contains("ANTHROPIC_IDENTITY_TOKEN_FILE"), "{recorded}");
    assert_eq!(reviewed.warnings(), "");
}

#[test]
fn a_container_that_the_policy_grants_nothing_gets_no_token() {
    let mut carts = policy("carts");
    carts.roles.allowed = vec![OTHER_ROLE.parse().unwrap()];
    let mut orders = policy("orders");
    orders.roles.allowed = vec![ROLE.parse().unwrap()];
    giving(vec![claude()])(&mut orders);
    let fixture = ReviewFixture {
        policies: [carts, orders].into_iter().collect(),
        ..ReviewFixture::new()
    };
    let reviewed = fixture.review(&asking_for_two());
    assert!(volume_at(&reviewed, "app", FOLDER).is_some());
    assert_eq!(volume_at(&reviewed, "other", FOLDER), None);
    assert_eq!(reviewed.value("other", "ANTHROPIC_IDENTITY_TOKEN_FILE"), None);
}

#[test]
fn containers_share_a_volume_for_the_same_token_and_have_their_own_for_another() {
    let mut orders = policy("orders");
    orders.roles.allowed = vec![ROLE.parse().unwrap()];
    giving(vec![claude(), token("data", "d", Vec::new())])(&mut orders);
    let mut other = policy("other");
    other.roles.allowed = vec![OTHER_ROLE.parse().unwrap()];
    giving(vec![
        token("claude", "another", Vec::new()),
        token("renamed", CLAUDE, Vec::new()),
    ])(&mut other);
    let fixture = ReviewFixture {
        policies: [orders, other].into_iter().collect(),
        ..ReviewFixture::new()
    };
    let reviewed = fixture.review(&asking_for_two());
    let of_app = volume_at(&reviewed, "app", FOLDER).unwrap();
    let renamed = volume_at(&reviewed, "other", "/var/run/secrets/tokenscope.io/outbound/renamed");
    assert_eq!(renamed.as_ref(), Some(&of_app), "the name is that of the folder alone");
    let of_other = volume_at(&reviewed, "other", FOLDER).unwrap();
    assert_ne!(of_other, of_app);
    assert_eq!(reviewed.tokens_in(&of_other), ["token another 900"]);
}

#[test]
fn a_variable_that_a_container_sets_itself_is_left_alone_and_an_empty_one_makes_room() {
    let own = json!([{"name": "app", "env": [
        {"name": "MY_AUDIENCE", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "y"}}},
        {"name": "ANTHROPIC_FEDERATION_RULE_ID", "value": "mine"},
        {"name": "ANTHROPIC_IDENTITY_TOKEN_FILE", "value": ""},
        {"name": "OTHER", "value": "o"},
    ]}]);
    let reviewed = fixture().review_whole(&asking(own));
    assert_eq!(reviewed.value("app", "ANTHROPIC_FEDERATION_RULE_ID").unwrap(), "mine");
    assert_eq!(
        reviewed.value("app", "ANTHROPIC_IDENTITY_TOKEN_FILE").unwrap(),
        format!("{FOLDER}/token")
    );
    let env = reviewed.pod["spec"]["containers"][0]["env"].as_array().unwrap().clone();
    assert_eq!(env[0]["valueFrom"]["configMapKeyRef"]["name"], "x");
    assert_eq!(
        env.iter().filter(|variable| variable["name"] == "MY_AUDIENCE").count(),
        1
    );
    let recorded = reviewed.record()["grants"][0]["env"].to_string();
    assert!(!recorded.contains("ANTHROPIC_FEDERATION_RULE_ID"), "{recorded}");
}

#[test]
fn what_another_webhook_changed_of_ours_is_made_as_it_should_be() {
    let good = fixture().review(&asking(app())).pod;
    let at = |pod: &Value, list: &str, name: &str| {
        let items = pod["spec"]["containers"][0][list].as_array().unwrap();
        items
            .iter()
            .position(|item| item["name"].as_str().unwrap().starts_with(name))
            .unwrap()
    };
    let variable = at(&good, "env", "ANTHROPIC_IDENTITY");
    let mount = at(&good, "volumeMounts", "tokenscope-outbound");
    let volumes = good["spec"]["volumes"].as_array().unwrap();
    let volume = volumes
        .iter()
        .position(|volume| volume["name"].as_str().unwrap().starts_with("tokenscope-outbound"));
    let volume = volume.unwrap();
    let changes: [&dyn Fn(&mut Value); 5] = [
        &|pod| pod["spec"]["containers"][0]["env"][variable]["value"] = json!("/evil"),
        &|pod| {
            pod["spec"]["containers"][0]["volumeMounts"][mount]["subPath"] = json!("x");
        },
        &|pod| {
            drop(
                pod["spec"]["containers"][0]["volumeMounts"]
                    .as_array_mut()
                    .unwrap()
                    .remove(mount),
            );
        },
        &|pod| {
            pod["spec"]["volumes"][volume]["projected"]["sources"][0]["serviceAccountToken"]["audience"] =
                json!("evil");
        },
        &|pod| drop(pod["spec"]["volumes"].as_array_mut().unwrap().remove(volume)),
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut pod = good.clone();
        change(&mut pod);
        let sorted = |pod: &Value| {
            let mut names = fixture().review(pod).pod["spec"]["volumes"].to_string().into_bytes();
            names.sort_unstable();
            names
        };
        assert_eq!(sorted(&pod), sorted(&good), "{index}");
        let containers = fixture().review(&pod).pod["spec"]["containers"].clone();
        assert_eq!(containers, good["spec"]["containers"], "{index}");
    }
    // A copy that kept its annotations is as good; one that lost its record brings its own role, and is left as it is.
    assert_eq!(fixture().review(&good).patch, Vec::<Value>::new());
    let mut copy = good;
    copy["metadata"]["annotations"] = json!({"tokenscope.io/role-arn": ROLE});
    assert_eq!(fixture().review(&copy).pod["spec"], copy["spec"]);
}

#[test]
fn a_pod_that_may_not_have_them_any_more_loses_all_of_them() {
    let granted = fixture().review(&asking(app())).pod;
    let reviewed = ReviewFixture::new().review(&granted);
    assert_eq!(reviewed.mounts("app"), [format!("{VOLUME}:{MOUNT}")]);
    assert_eq!(reviewed.pod["spec"]["volumes"].as_array().unwrap().len(), 1);
    assert_eq!(reviewed.value("app", "ANTHROPIC_IDENTITY_TOKEN_FILE"), None);
    assert_eq!(reviewed.value("app", "MY_AUDIENCE"), None);
    let mut pod = granted;
    let annotations = pod["metadata"]["annotations"].as_object_mut().unwrap();
    annotations.remove("tokenscope.io/role-arn");
    let reviewed = fixture().review(&pod);
    assert_eq!(
        reviewed.pod["spec"]["containers"],
        json!([{"name": "app", "image": "app", "env": [], "volumeMounts": []}])
    );
}

#[test]
fn a_record_makes_no_variable_ours_that_no_policy_can_have_named() {
    let mut pod =
        plain(json!([{"name": "app", "env": [{"name": "PATH", "value": "/bin"}, {"name": "A_1", "value": "x"}]}]));
    let record = json!({"grants": [{"role": ROLE, "containers": ["app"], "env": ["PATH", "A_1"]}], "hash": ""});
    pod["metadata"]["annotations"] = json!({"tokenscope.io/grant": record.to_string()});
    let reviewed = ReviewFixture::new().review_whole(&pod);
    assert_eq!(reviewed.env("app"), ["PATH=/bin"]);
}

#[test]
fn what_bears_our_names_and_is_not_ours_is_refused() {
    let granted = fixture().review(&asking(app()));
    let volume = volume_at(&granted, "app", FOLDER).unwrap();
    let mut pod = asking(app());
    pod["spec"]["volumes"] = json!([{"name": volume, "hostPath": {"path": "/"}}]);
    let message = refusal(&fixture(), &pod);
    assert!(
        message.contains("of its own, which is the name of the volume that tokenscope adds"),
        "{message}"
    );
    let mut pod = asking(json!([{"name": "app", "volumeMounts": [{"name": volume, "mountPath": "/x"}]}]));
    let message = refusal(&fixture(), &pod);
    assert!(message.contains("itself, which tokenscope adds"), "{message}");
    pod["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "mine", "mountPath": "/run/secrets/tokenscope.io/outbound/claude/x"}]);
    pod["spec"]["volumes"] = json!([{"name": "mine", "emptyDir": {}}]);
    let message = refusal(&fixture(), &pod);
    assert!(message.contains("where tokenscope puts the token"), "{message}");
}

#[test]
fn the_lock_lets_them_pass_and_judges_what_the_pod_brings() {
    let mut fixture = fixture();
    fixture.settings.lock.mode = LockMode::Deny;
    fixture.settings.lock.policy_audiences = true;
    assert_eq!(fixture.review(&asking(app())).outcome(), ReviewOutcome::Granted);
    let mut pod = asking(app());
    pod["spec"]["volumes"] = json!([{"name": "mine", "projected": {"sources": [
        {"serviceAccountToken": {"audience": "sts.amazonaws.com", "expirationSeconds": 86400, "path": "t"}},
    ]}}]);
    assert!(refusal(&fixture, &pod).contains("at most 3600 seconds"));
}

#[test]
fn on_windows_the_variable_has_the_path_as_programs_write_it() {
    let mut pod = asking(app());
    pod["spec"]["os"] = json!({"name": "windows"});
    let reviewed = fixture().review(&pod);
    assert_eq!(
        reviewed.value("app", "ANTHROPIC_IDENTITY_TOKEN_FILE").unwrap(),
        r"C:\var\run\secrets\tokenscope.io\outbound\claude\token"
    );
}

#[test]
fn beside_a_config_file_and_in_the_mode_of_eks_they_are_the_same() {
    let mut fixture = ReviewFixture::with_policy(|policy| {
        giving(vec![claude()])(policy);
        policy.delivery = tokenscope_core::delivery::Delivery::Profile(Vec::new());
        policy.aws.region = Some("eu-central-1".parse().unwrap());
    });
    let reviewed = fixture.review(&asking(app()));
    assert_eq!(reviewed.mounts("app").len(), 3);
    assert!(reviewed.value("app", "ANTHROPIC_IDENTITY_TOKEN_FILE").is_some());
    fixture.settings.eks_compatible = true;
    assert!(volume_at(&fixture.review(&asking(app())), "app", FOLDER).is_some());
}

fn issued() -> ReviewFixture {
    let mut fixture = ReviewFixture::with_policy(|policy| {
        policy.token.source = TokenSource::Issuer;
        let issued = OutboundToken {
            source: OutboundSource::Issuer,
            ..claude()
        };
        giving(vec![issued, token("plain", "p", Vec::new())])(policy);
    });
    run_issuer(&mut fixture);
    fixture
}

#[test]
fn the_sidecar_keeps_those_of_the_issuer_and_the_kubelet_the_others() {
    let reviewed = issued().review(&asking(app()));
    assert_eq!(reviewed.init_containers(), [SIDECAR]);
    let volume = volume_at(&reviewed, "app", FOLDER).unwrap();
    let hash = volume.strip_prefix("tokenscope-outbound").unwrap();
    let folder = format!("/var/run/secrets/tokenscope.io/outbound{hash}");
    assert_eq!(
        reviewed.value(SIDECAR, "TOKENSCOPE_ISSUED_TOKENS").unwrap(),
        format!("token=sts.amazonaws.com {folder}/token={CLAUDE}")
    );
    assert_eq!(reviewed.value(SIDECAR, "TOKENSCOPE_TOKEN_LIFETIME").unwrap(), "900");
    assert!(reviewed.mounts(SIDECAR).contains(&format!("{volume}:{folder}")));
    let volumes = reviewed.pod["spec"]["volumes"].as_array().unwrap();
    let found = volumes.iter().find(|found| found["name"] == *volume).unwrap();
    assert_eq!(found["emptyDir"]["medium"], "Memory");
    let plain = volume_at(&reviewed, "app", "/var/run/secrets/tokenscope.io/outbound/plain").unwrap();
    assert_eq!(reviewed.tokens_in(&plain), ["token p 900"]);
    assert!(
        !reviewed
            .mounts("app")
            .iter()
            .any(|mount| mount.starts_with(SUBJECT_TOKEN_VOLUME))
    );
    // A container that has its AWS token elsewhere gets them too.
    let own = json!([{"name": "app", "env": [{"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/mine"}]}]);
    let reviewed = issued().review(&asking(own));
    assert_eq!(reviewed.init_containers(), [SIDECAR]);
    assert!(volume_at(&reviewed, "app", FOLDER).is_some());
}

#[test]
fn more_different_tokens_than_the_bound_are_refused_with_the_bound() {
    let policies = |count: usize| -> Vec<Policy> {
        let of = |number: usize| {
            let mut policy = policy(&format!("p{number:02}"));
            policy.roles.allowed = vec![format!("arn:aws:iam::111122223333:role/c{number}").parse().unwrap()];
            let tokens = (0..8).map(|at| token(&format!("t{at}"), &format!("a{number}-{at}"), Vec::new()));
            giving(tokens.collect())(&mut policy);
            policy
        };
        (0..count).map(of).collect()
    };
    let pod = |containers: usize| {
        let names: Vec<String> = (0..containers).map(|number| format!("c{number}")).collect();
        let mut pod = plain(names.iter().map(|name| json!({"name": name})).collect());
        let role = |name: &String| {
            let role = json!(format!("arn:aws:iam::111122223333:role/{name}"));
            (format!("tokenscope.io/role-arn.{name}"), role)
        };
        pod["metadata"]["annotations"] = names.iter().map(role).collect();
        pod
    };
    let fixture = |count| ReviewFixture {
        policies: policies(count).into_iter().collect(),
        ..ReviewFixture::new()
    };
    assert_eq!(fixture(4).review(&pod(4)).outcome(), ReviewOutcome::Granted);
    for containers in [5, 40] {
        let message = refusal(&fixture(containers), &pod(containers));
        assert!(
            message.contains("more than 32 different tokens for third parties"),
            "{message}"
        );
    }
}
