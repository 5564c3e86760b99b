//! What becomes of pods whose tokens come from tokenscope's own issuer.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod fixtures;

use std::fs;
use std::sync::Arc;

use arc_swap::ArcSwap;
use fixtures::{
    ISSUER, MOUNT, ROLE, ReviewFixture, ReviewedPod, SUBJECT_TOKEN_VOLUME, VOLUME, app, asking, asking_for_two, issuer,
    refusal, run_issuer, two_audiences,
};
use serde_json::{Value, json};
use tokenscope_core::pod::SIDECAR;
use tokenscope_core::{Settings, TokenExpiration, TokenSource};
use tokenscope_webhook::issuer_authorities::{read, reload};
use tokenscope_webhook::metrics::ReviewOutcome;

fn volume(reviewed: &ReviewedPod, name: &str) -> Option<Value> {
    let mut volumes = reviewed.pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.find(|volume| volume["name"] == name).cloned()
}

#[test]
fn a_granted_pod_gets_the_sidecar_and_its_subject_token_which_no_other_container_mounts() {
    let reviewed = issuer().review(&asking(app()));

    let sidecar = &reviewed.pod["spec"]["initContainers"][0];
    assert_eq!(
        sidecar["image"],
        concat!("localhost/tokenscope-sidecar-issuer:", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(
        sidecar["env"],
        json!([
            {"name": "TOKENSCOPE_DIRECTORY", "value": MOUNT},
            {"name": "TOKENSCOPE_ISSUED_TOKENS", "value": "token=sts.amazonaws.com"},
            {"name": "TOKENSCOPE_ISSUER", "value": "https://tokenscope-issuer.tokenscope-system.svc"},
            {"name": "TOKENSCOPE_ISSUER_CA", "value": "-----BEGIN CERTIFICATE-----\n"},
            {"name": "TOKENSCOPE_SUBJECT_TOKEN", "value": "/tokenscope-subject-token/token"},
            {"name": "TOKENSCOPE_TOKEN_LIFETIME", "value": "3600"},
            {"name": "TOKENSCOPE_LOG_LEVEL", "value": "info"},
            {"name": "TOKENSCOPE_INJECTED", "value": "true"},
        ])
    );
    assert_eq!(
        sidecar["volumeMounts"],
        json!([
            {"name": VOLUME, "mountPath": MOUNT},
            {"name": SUBJECT_TOKEN_VOLUME, "mountPath": "/tokenscope-subject-token", "readOnly": true},
        ])
    );
    assert_eq!(
        reviewed.pod["spec"]["volumes"],
        json!([
            {"name": VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": SUBJECT_TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken":
                {"audience": ISSUER, "expirationSeconds": 3600, "path": "token"}}]}},
        ])
    );
    assert_eq!(reviewed.value("app", "AWS_ROLE_ARN").as_deref(), Some(ROLE));
    assert_eq!(
        reviewed.value("app", "AWS_WEB_IDENTITY_TOKEN_FILE"),
        Some(format!("{MOUNT}/token"))
    );
    assert_eq!(
        reviewed.pod["spec"]["containers"][0]["volumeMounts"],
        json!([{"name": VOLUME, "mountPath": MOUNT, "readOnly": true}])
    );
    assert_eq!(reviewed.record()["sidecar"], true);
    assert_eq!(reviewed.mark(), Some("granted"));
}

#[test]
fn each_audience_has_a_file_of_its_own_and_the_shortest_lifetime_is_asked_for() {
    let mut fixture = two_audiences(TokenSource::Issuer, "vault");
    run_issuer(&mut fixture);
    let policies = fixture.policies.about("shop").map(|policy| {
        let mut policy = tokenscope_core::Policy::clone(policy);
        if policy.audiences.default.is_some() {
            policy.token.expiration = TokenExpiration::from_seconds(900).unwrap();
        }
        policy
    });
    fixture.policies = policies.collect::<Vec<_>>().into_iter().collect();
    let reviewed = fixture.review(&asking_for_two());
    let hash = "vault".parse::<tokenscope_core::Audience>().unwrap().short_hash();
    assert_eq!(
        reviewed.value(SIDECAR, "TOKENSCOPE_ISSUED_TOKENS"),
        Some(format!("token=sts.amazonaws.com {MOUNT}-{hash}/token=vault"))
    );
    assert_eq!(
        reviewed.value(SIDECAR, "TOKENSCOPE_TOKEN_LIFETIME").as_deref(),
        Some("900")
    );
    assert_eq!(reviewed.mounts("other"), [format!("{VOLUME}-{hash}:{MOUNT}")]);
}

#[test]
fn without_an_issuer_its_authorities_or_linux_a_policy_of_its_tokens_grants_nothing() {
    let mut fixture = issuer();
    fixture.settings.sidecar.issuer_authorities = None;
    assert!(refusal(&fixture, &asking(app())).contains("authorities of the issuer's certificate are not known yet"));

    let mut windows = asking(app());
    windows["spec"]["nodeSelector"] = json!({"kubernetes.io/os": "windows"});
    assert!(refusal(&issuer(), &windows).contains("runs on Linux only"));

    let fixture = ReviewFixture::with_policy(|policy| policy.token.source = TokenSource::Issuer);
    assert!(refusal(&fixture, &asking(app())).contains("wants tokens from Issuer, which is not available"));
}

#[test]
fn where_pods_are_never_refused_none_gets_tokens_of_the_issuer() {
    let mut fixture = issuer();
    fixture.settings.never_denied = vec!["shop".into()];
    let reviewed = fixture.review(&asking(app()));
    assert_eq!(reviewed.outcome(), ReviewOutcome::Warned);
    assert_eq!(reviewed.pod, asking(app()));
    assert!(
        reviewed
            .warnings()
            .contains("get no tokens from tokenscope's issuer, since the chart's value guard.excludeNamespaces"),
        "{}",
        reviewed.warnings()
    );
}

#[test]
fn the_name_of_the_subject_tokens_volume_is_ours_in_every_reviewed_pod() {
    let mut pod = asking(app());
    pod["spec"]["volumes"] = json!([{"name": SUBJECT_TOKEN_VOLUME, "emptyDir": {}}]);
    for fixture in [issuer(), ReviewFixture::new(), fixtures::spiffe()] {
        let message = refusal(&fixture, &pod);
        assert!(
            message.contains("brings a volume tokenscope-subject-token of its own"),
            "{message}"
        );
    }
    let mut pod = asking(app());
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": SUBJECT_TOKEN_VOLUME, "mountPath": "/mine"}]);
    let message = refusal(&issuer(), &pod);
    assert!(
        message.contains("container app mounts volume tokenscope-subject-token itself"),
        "{message}"
    );
    // A record doesn't make the mount ours either.
    let mut granted = issuer().review(&asking(app())).pod;
    let mounts = granted["spec"]["containers"][0]["volumeMounts"].as_array_mut().unwrap();
    mounts.push(json!({"name": SUBJECT_TOKEN_VOLUME, "mountPath": "/mine", "readOnly": true}));
    assert!(refusal(&issuer(), &granted).contains("container app mounts volume tokenscope-subject-token itself"));
}

#[test]
fn what_differs_from_ours_in_any_member_is_replaced() {
    let granted = issuer().review(&asking(app())).pod;
    let mut pod = granted.clone();
    pod["spec"]["volumes"][1]["projected"]["defaultMode"] = json!(0o444);
    assert_eq!(issuer().review(&pod).pod, granted);
    pod["spec"]["volumes"][1] = json!({"name": SUBJECT_TOKEN_VOLUME, "hostPath": {"path": "/"}});
    assert_eq!(issuer().review(&pod).pod, granted);
    let mut pod = granted.clone();
    pod["spec"]["initContainers"][0]["env"][2]["value"] = json!("https://evil.example.com");
    assert_eq!(issuer().review(&pod).pod, granted);
    // What the API server fills in between two reviews is no difference.
    let mut pod = granted;
    pod["spec"]["volumes"][1]["projected"]["defaultMode"] = json!(0o644);
    assert_eq!(issuer().review(&pod).patch, Vec::<Value>::new());
}

#[test]
fn a_policy_of_another_source_takes_the_subject_token_away_again() {
    let granted = issuer().review(&asking(app())).pod;
    let mut other = ReviewFixture::new();
    run_issuer(&mut other);
    let reviewed = other.review(&granted);
    assert_eq!(reviewed.outcome(), ReviewOutcome::Granted);
    assert_eq!(volume(&reviewed, SUBJECT_TOKEN_VOLUME), None);
    assert_eq!(reviewed.tokens(), ["token sts.amazonaws.com 3600"]);
}

#[test]
fn a_copy_without_its_record_keeps_what_is_exactly_ours() {
    let mut fixture = issuer();
    fixture.service_account = vec![("tokenscope.io/role-arn", ROLE.to_owned())];
    let original = fixture.review(&asking(app())).pod;
    let mut copy = original.clone();
    copy["metadata"] = json!({"name": "copy", "namespace": "shop"});
    let containers = copy["spec"]["containers"].as_array_mut().unwrap();
    containers.push(json!({"name": "debugger", "image": "busybox"}));
    let reviewed = fixture.review(&copy);
    assert_eq!(reviewed.outcome(), ReviewOutcome::Granted, "{}", reviewed.message());
    for part in ["volumes", "initContainers"] {
        assert_eq!(reviewed.pod["spec"][part], original["spec"][part], "{part}");
    }
    assert_eq!(reviewed.mounts("debugger"), [format!("{VOLUME}:{MOUNT}")]);
}

/// A certificate and its key, each as PEM.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["issuer".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn the_authorities_are_read_again_and_nothing_but_certificates_reaches_a_pod() {
    let folder = std::env::temp_dir().join(format!("tokenscope-authorities-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("ca.crt");
    let (first, key) = certificate();
    let (second, _) = certificate();
    let settings = ArcSwap::from(Arc::new(Settings::default()));
    let known = || settings.load().sidecar.issuer_authorities.clone();

    assert!(reload(&file, &settings).is_err(), "there is no file yet");
    fs::write(&file, format!("# mine\n{key}{first}")).unwrap();
    reload(&file, &settings).unwrap();
    assert_eq!(known().unwrap().replace('\r', ""), first.replace('\r', ""));

    fs::write(&file, format!("{first}{second}")).unwrap();
    reload(&file, &settings).unwrap();
    assert_eq!(known().unwrap().matches("BEGIN CERTIFICATE").count(), 2);
    let before = known();

    for text in [
        String::new(),
        key,
        "x".repeat(40 << 10),
        "-----BEGIN CERTIFICATE-----\n!".to_owned(),
    ] {
        fs::write(&file, text).unwrap();
        let error = read(&file).unwrap_err().to_string();
        assert!(error.contains("ca.crt"), "{error}");
        assert!(reload(&file, &settings).is_err());
        assert_eq!(known(), before, "what was known stays");
    }
    fs::remove_dir_all(&folder).unwrap();
}
