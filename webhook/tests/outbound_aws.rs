//! Pods whose sidecar has AWS sign tokens for third parties.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod fixtures;

use fixtures::{
    OTHER_ROLE, ROLE, ReviewFixture, ReviewedPod, app, asking, asking_for_two, policy, refusal, served, told, volume,
};
use serde_json::{Value, json};
use tokenscope_core::outbound::{
    AwsAlgorithm, AwsSubject, AwsToken, OutboundSource, OutboundToken, OutboundValue, OutboundVariable,
};
use tokenscope_core::pod::SIDECAR;
use tokenscope_core::{Policy, TokenExpiration};
use tokenscope_webhook::metrics::ReviewOutcome;

const CLAUDE: &str = "https://api.anthropic.com/$(HOME)";
const FOLDER: &str = "/var/run/secrets/tokenscope.io/outbound";

/// The variable with a token's path, one of those that the fixture knows as ours.
fn variable_of(name: &str) -> &'static str {
    if name == "claude" {
        return "ANTHROPIC_IDENTITY_TOKEN_FILE";
    }
    "MY_AUDIENCE"
}

fn token(name: &str, aws: AwsToken) -> OutboundToken {
    OutboundToken {
        name: name.parse().unwrap(),
        audience: CLAUDE.parse().unwrap(),
        source: OutboundSource::Aws(aws),
        expiration: TokenExpiration::from_seconds(900).unwrap(),
        variables: vec![OutboundVariable {
            name: variable_of(name).parse().unwrap(),
            value: OutboundValue::File,
        }],
    }
}

fn giving(policy: &mut Policy) {
    served(policy);
    let scoped = AwsToken {
        algorithm: AwsAlgorithm::ES384,
        subject: AwsSubject::Origin {
            scope: "read write".parse().ok(),
        },
    };
    policy.outbound = [token("claude", AwsToken::default()), token("scoped", scoped)].into();
}

/// The volume that a container has at the folder of a token.
fn volume_at(reviewed: &ReviewedPod, container: &str, name: &str) -> Option<String> {
    let mounts = reviewed.mounts(container);
    let end = format!(":{FOLDER}/{name}");
    let mut volumes = mounts.iter().filter_map(|mount| mount.strip_suffix(&end));
    volumes.next().map(ToOwned::to_owned)
}

/// Where the sidecar has that volume.
fn folder_of(volume: &str) -> String {
    [FOLDER, volume.strip_prefix("tokenscope-outbound").unwrap()].concat()
}

#[test]
fn the_sidecar_is_told_what_to_ask_aws_for_and_writes_it_where_the_container_reads_it() {
    let reviewed = ReviewFixture::with_policy(giving).review(&asking(app()));
    assert_eq!(reviewed.init_containers(), [SIDECAR]);
    assert_eq!(reviewed.warnings(), "");
    let claude = volume_at(&reviewed, "app", "claude").unwrap();
    let scoped = volume_at(&reviewed, "app", "scoped").unwrap();
    assert_ne!(claude, scoped);
    for name in [&claude, &scoped] {
        assert_eq!(
            volume(&reviewed, name).unwrap()["emptyDir"],
            json!({"medium": "Memory", "sizeLimit": "1Mi"})
        );
        let mounts = reviewed.mounts(SIDECAR);
        assert!(mounts.contains(&format!("{name}:{}", folder_of(name))), "{mounts:?}");
    }
    let mounts = reviewed.pod["spec"]["containers"][0]["volumeMounts"]
        .as_array()
        .unwrap();
    assert!(mounts.iter().all(|mount| mount["readOnly"] == true), "{mounts:?}");
    assert_eq!(
        reviewed.value("app", variable_of("claude")).unwrap(),
        format!("{FOLDER}/claude/token")
    );
    assert_eq!(
        serde_json::to_value(&told(&reviewed).containers[0].outbound).unwrap(),
        json!([
            {"name": "claude", "file": format!("{}/token", folder_of(&claude)), "audience": CLAUDE,
             "durationSeconds": 900, "algorithm": "RS256"},
            {"name": "scoped", "file": format!("{}/token", folder_of(&scoped)), "audience": CLAUDE,
             "durationSeconds": 900, "algorithm": "ES384", "originIdentity": true, "scope": "read write"},
        ])
    );
}

#[test]
fn no_container_sees_a_token_that_was_signed_for_the_role_of_another_one() {
    let mut orders = policy("orders");
    giving(&mut orders);
    orders.roles.allowed = vec![ROLE.parse().unwrap(), OTHER_ROLE.parse().unwrap()];
    let fixture = ReviewFixture {
        policies: [orders].into_iter().collect(),
        ..ReviewFixture::new()
    };
    let reviewed = fixture.review(&asking_for_two());
    let of_app = volume_at(&reviewed, "app", "claude").unwrap();
    let of_other = volume_at(&reviewed, "other", "claude").unwrap();
    assert_ne!(of_app, of_other);
    for (container, own, others) in [("app", &of_app, &of_other), ("other", &of_other, &of_app)] {
        let mounts = reviewed.mounts(container);
        assert!(!mounts.iter().any(|mount| mount.starts_with(&**others)), "{mounts:?}");
        let told = told(&reviewed);
        let served = told.containers.iter().find(|served| &*served.name == container);
        assert_eq!(&*served.unwrap().outbound[0].file, format!("{}/token", folder_of(own)));
    }
}

#[test]
fn a_second_review_changes_nothing_and_a_policy_without_them_takes_them_away() {
    let reviewed = ReviewFixture::with_policy(giving).review(&asking(app()));
    assert_eq!(reviewed.outcome(), ReviewOutcome::Granted);
    let pod = reviewed.pod;
    assert_eq!(
        ReviewFixture::with_policy(giving).review(&pod).patch,
        Vec::<Value>::new()
    );
    let without = ReviewFixture::with_policy(served).review(&pod);
    assert_eq!(volume_at(&without, "app", "claude"), None);
    assert!(told(&without).containers[0].outbound.is_empty());
    let volumes = without.pod["spec"]["volumes"].to_string();
    assert!(!volumes.contains("tokenscope-outbound"), "{volumes}");
}

#[test]
fn a_volume_of_their_name_that_a_pod_brings_is_refused() {
    let fixture = ReviewFixture::with_policy(giving);
    let claude = volume_at(&fixture.review(&asking(app())), "app", "claude").unwrap();
    let mut pod = asking(app());
    pod["spec"]["volumes"] = json!([{"name": claude, "hostPath": {"path": "/"}}]);
    let message = refusal(&fixture, &pod);
    assert!(
        message.contains("which is the name of the volume that tokenscope adds"),
        "{message}"
    );
}

#[test]
fn one_token_under_two_names_is_asked_for_once() {
    let fixture = ReviewFixture::with_policy(|policy| {
        giving(policy);
        policy.outbound = ["claude", "again"].map(|name| token(name, AwsToken::default())).into();
    });
    let reviewed = fixture.review(&asking(app()));
    let volume = volume_at(&reviewed, "app", "claude");
    assert_eq!(volume_at(&reviewed, "app", "again"), volume);
    assert_eq!(told(&reviewed).containers[0].outbound.len(), 1);
    let folder = folder_of(&volume.unwrap());
    let mounts = reviewed.mounts(SIDECAR);
    let there = mounts.iter().filter(|mount| mount.ends_with(&format!(":{folder}")));
    assert_eq!(there.count(), 1, "{mounts:?}");
}
