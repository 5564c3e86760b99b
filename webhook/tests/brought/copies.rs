//! Copies of pods that have tokens for third parties (the cases F8).

use serde_json::{Value, json};
use tokenscope_core::outbound::{AwsToken, OutboundSource, OutboundToken, OutboundValue, OutboundVariable};
use tokenscope_core::pod::SUBJECT_TOKEN_VOLUME;
use tokenscope_core::{Glob, Policy, TokenExpiration, TokenSource};
use tokenscope_webhook::metrics::ReviewOutcome;

use crate::fixtures::{ROLE, ReviewFixture, VOLUME, app, copy_of, plain, refusal, run_issuer, served};
use crate::{by_file, granted};

fn token(source: OutboundSource) -> OutboundToken {
    OutboundToken {
        name: "claude".parse().unwrap(),
        audience: "https://api.anthropic.com".parse().unwrap(),
        source,
        expiration: TokenExpiration::from_seconds(900).unwrap(),
        variables: vec![OutboundVariable {
            name: "ANTHROPIC_IDENTITY_TOKEN_FILE".parse().unwrap(),
            value: OutboundValue::File,
        }],
    }
}

/// An installation whose pods get a token for a third party of this source. The service account asks, so a copy without annotations asks too.
fn giving(source: OutboundSource, change: impl FnOnce(&mut Policy)) -> ReviewFixture {
    let mut fixture = ReviewFixture::with_policy(|policy| {
        change(policy);
        policy.outbound = [token(source)].into();
    });
    run_issuer(&mut fixture);
    fixture.service_account = vec![("tokenscope.io/role-arn", ROLE.to_owned())];
    fixture
}

fn of_issuer(policy: &mut Policy) {
    policy.token.source = TokenSource::Issuer;
}

#[test]
fn f08_a_copy_without_its_record_keeps_the_tokens_for_third_parties_of_every_source() {
    let skipping = |original: &Value| {
        let mut copy = copy_of(original);
        copy["metadata"]["annotations"] = json!({"tokenscope.io/skip-containers": "debugger"});
        copy
    };
    // By File the container brings its role and token itself, so nothing is granted.
    for (source, fixture, outcome) in [
        (
            "ServiceAccount",
            giving(OutboundSource::ServiceAccount, |_| ()),
            ReviewOutcome::Untouched,
        ),
        (
            "ServiceAccount by Profile",
            giving(OutboundSource::ServiceAccount, by_file),
            ReviewOutcome::Granted,
        ),
        (
            "AWS",
            giving(OutboundSource::Aws(AwsToken::default()), served),
            ReviewOutcome::Granted,
        ),
    ] {
        let original = granted(&fixture, &plain(app())).pod;
        let text = original["spec"].to_string();
        assert!(text.contains("ANTHROPIC_IDENTITY_TOKEN_FILE"), "{source}: {text}");
        let reviewed = fixture.review(&skipping(&original));
        assert_eq!(reviewed.outcome(), outcome, "{source}: {}", reviewed.message());
        for part in ["volumes", "initContainers"] {
            assert_eq!(reviewed.pod["spec"][part], original["spec"][part], "{source}: {part}");
        }
        assert_eq!(
            reviewed.pod["spec"]["containers"][0], original["spec"]["containers"][0],
            "{source}"
        );
        assert_eq!(reviewed.mounts("debugger"), Vec::<String>::new(), "{source}");
    }
    // Where nothing is granted nobody knows what the sidecar should be like.
    let fixture = giving(OutboundSource::Issuer, of_issuer);
    let message = refusal(&fixture, &skipping(&granted(&fixture, &plain(app())).pod));
    assert!(message.contains("--keep-annotations"), "{message}");
}

#[test]
fn f08_a_container_that_a_copy_adds_shares_the_token_of_the_pod_and_has_aws_sign_its_own() {
    for fixture in [
        giving(OutboundSource::ServiceAccount, |_| ()),
        giving(OutboundSource::Issuer, of_issuer),
    ] {
        let original = granted(&fixture, &plain(app()));
        let reviewed = granted(&fixture, &copy_of(&original.pod));
        assert_eq!(reviewed.mounts("debugger"), original.mounts("app"));
        assert_eq!(
            reviewed.value("debugger", "ANTHROPIC_IDENTITY_TOKEN_FILE"),
            original.value("app", "ANTHROPIC_IDENTITY_TOKEN_FILE")
        );
        assert_eq!(reviewed.pod["spec"]["volumes"], original.pod["spec"]["volumes"]);
        // One that is mounted elsewhere than ours is nobody's but the pod's.
        let mut elsewhere = copy_of(&original.pod);
        let mounts = elsewhere["spec"]["containers"][0]["volumeMounts"].as_array_mut();
        let of_party = |mount: &&mut Value| mount["name"].as_str().unwrap().starts_with("tokenscope-outbound-");
        mounts.unwrap().iter_mut().find(of_party).unwrap()["mountPath"] = json!("/elsewhere");
        let message = refusal(&fixture, &elsewhere);
        assert!(message.contains("itself, which tokenscope adds"), "{message}");
    }
    let fixture = giving(OutboundSource::Aws(AwsToken::default()), served);
    let original = granted(&fixture, &plain(app())).pod;
    let message = refusal(&fixture, &copy_of(&original));
    assert!(message.contains("--keep-annotations"), "{message}");
    let mut kept = copy_of(&original);
    kept["metadata"]["annotations"] = original["metadata"]["annotations"].clone();
    kept["metadata"]["labels"] = original["metadata"]["labels"].clone();
    let reviewed = granted(&fixture, &kept);
    let (app, debugger) = (reviewed.mounts("app"), reviewed.mounts("debugger"));
    assert_eq!(app.len(), debugger.len());
    assert!(
        app.iter().all(|mount| !debugger.contains(mount)),
        "{app:?} {debugger:?}"
    );
}

#[test]
fn a_container_that_the_policy_does_not_cover_shares_no_token_that_the_sidecar_writes_whatever_variables_it_brings() {
    let mut fixture = giving(OutboundSource::Issuer, |policy| {
        of_issuer(policy);
        policy.containers.include = vec![Glob::new("app"), Glob::new("app-*")];
    });
    let original = granted(&fixture, &plain(app())).pod;
    let named = |name: &str| {
        let mut copy = original["spec"]["containers"][0].clone();
        copy["name"] = json!(name);
        copy
    };
    let beside = |name: &str| {
        let mut pod = plain(json!([{"name": "app", "image": "app"}, named(name)]));
        let volumes = original["spec"]["volumes"].as_array().unwrap().iter();
        let others = volumes.filter(|volume| volume["name"] != SUBJECT_TOKEN_VOLUME);
        pod["spec"]["volumes"] = others.cloned().collect();
        pod
    };
    // Volumes, variables and mounts are exactly ours, and the lock finds no token in them.
    let message = refusal(&fixture, &beside("thief"));
    assert!(
        message.contains(&format!("container thief mounts volume {VOLUME} itself"))
            && message.contains("container thief mounts volume tokenscope-outbound-"),
        "{message}"
    );
    // With the record of a review the mounts go, as they came.
    let mut changed = original.clone();
    changed["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(named("thief"));
    assert_eq!(granted(&fixture, &changed).mounts("thief"), Vec::<String>::new());
    // One that is covered shares both, as in a copy.
    let reviewed = granted(&fixture, &beside("app-2"));
    assert_eq!(reviewed.mounts("app-2"), reviewed.mounts("app"));
    assert_eq!(reviewed.mounts("app").len(), 2);
    // The policy decides, and nothing else: once it covers every container, the pod that was refused is granted.
    let covering = fixture.policies.about("shop").map(|policy| {
        let mut policy = Policy::clone(policy);
        policy.containers.include = Vec::new();
        policy
    });
    fixture.policies = covering.collect::<Vec<_>>().into_iter().collect();
    assert_eq!(granted(&fixture, &beside("thief")).mounts("thief").len(), 2);
}
