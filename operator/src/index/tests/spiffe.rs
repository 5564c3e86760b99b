//! Policies whose tokens come from SPIFFE.

use super::*;

/// The sidecar's image of an installation that says nothing about it.
fn sidecar_image() -> String {
    Settings::default().sidecar.image.into()
}

fn from_spiffe(spiffe: &Value) -> Value {
    let mut spec = default_role(ROLE);
    spec["token"] = json!({"source": "SPIFFE", "spiffe": spiffe});
    spec
}

#[test]
fn the_trust_policy_of_a_spiffe_id_names_the_spiffe_providers_issuer() {
    let mut test = Test::new();
    let policy = test.policy(
        "orders",
        &from_spiffe(&json!({"spiffeId": "spiffe://example.org/orders"})),
    );
    let trust = test.status(&policy).trust_policies;
    let document: Value = serde_json::from_str(&trust[0].document).unwrap();
    let statement = &document["Statement"][0];
    assert_eq!(
        statement["Principal"]["Federated"],
        "arn:aws:iam::111122223333:oidc-provider/oidc.example.org"
    );
    assert_eq!(
        statement["Condition"]["StringEquals"]["oidc.example.org:sub"],
        "spiffe://example.org/orders"
    );
    assert_eq!(test.reasons(&policy), ["Valid", "InForce", "UpToDate"]);

    let open = test.policy("open", &from_spiffe(&json!({"trustDomain": "example.org"})));
    assert_eq!(test.status(&open).trust_policies, []);
    let message = test.ready_message(&open);
    assert!(message.contains("spec.token.spiffe.spiffeId is left out"), "{message}");

    for (issuer, why) in [(None, "spiffe.issuer says it"), (Some("http://x"), "is no https URL")] {
        test.index.installation.spiffe_issuer = issuer.map(Into::into);
        test.index.enqueue_all_statuses();
        assert_eq!(test.status(&policy).trust_policies, []);
        let message = test.ready_message(&policy);
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn a_pod_without_the_sidecar_of_its_record_is_missed_and_one_with_an_old_sidecar_outdated() {
    let mut test = Test::new();
    let policy = test.policy("orders", &from_spiffe(&json!({})));
    test.injected_pod_with("good", at("07:00"), Some(&sidecar_image()));
    test.injected_pod_with("own-file", at("07:00"), None);
    assert_eq!(test.counts(&policy), [2, 2, 0, 0]);
    test.injected_pod_with("old", at("07:00"), Some("tokenscope-sidecar:0"));
    assert_eq!(test.counts(&policy), [3, 2, 0, 1]);
    assert_eq!(test.reasons(&policy)[2], "OutdatedPods");
    let message = test.ready_message(&policy);
    assert!(message.contains("another sidecar than new ones get"), "{message}");
    test.injected_pod_with("without", at("07:00"), Some(""));
    assert_eq!(test.counts(&policy), [4, 2, 1, 1]);
    assert_eq!(test.reasons(&policy)[2], "MissedPods");
}

/// An upgrade that writes the sidecar in another form must not have every pod restarted.
#[test]
fn a_pod_is_up_to_date_whichever_probes_resources_and_pull_secrets_its_sidecar_came_with() {
    let mut test = Test::new();
    let policy = test.policy("orders", &from_spiffe(&json!({})));
    test.injected_pod_with(
        "before-there-was-a-readiness-probe",
        at("07:00"),
        Some(&sidecar_image()),
    );
    let mut other = test.last.clone();
    other["metadata"]["name"] = json!("other");
    other["metadata"]["uid"] = json!("other");
    other["spec"]["imagePullSecrets"] = json!([{"name": "registry"}]);
    let sidecar = &mut other["spec"]["initContainers"][0];
    sidecar["readinessProbe"] = json!({"exec": {"command": ["/tokenscope-sidecar", "ready"]}, "periodSeconds": 7});
    sidecar["resources"] = json!({"limits": {"memory": "1Gi"}});
    test.apply(IndexEvent::Pod(Event::Apply(serde_json::from_value(other).unwrap())));
    assert_eq!(test.counts(&policy), [2, 2, 0, 0]);
    assert_eq!(test.reasons(&policy)[2], "UpToDate");
}

#[test]
fn pods_that_no_cluster_spiffe_id_selects_are_told_of_where_there_are_any() {
    let mut test = Test::new();
    let policy = test.policy("orders", &from_spiffe(&json!({})));
    let other = test.policy("other", &default_role(ROLE));
    test.injected_pod_with("a", at("07:00"), Some(&sidecar_image()));
    assert_eq!(test.reasons(&policy)[2], "UpToDate", "there is no controller manager");

    test.apply(IndexEvent::SpiffeId(Some(Event::InitDone)));
    assert_eq!(test.reasons(&policy), ["Valid", "InForce", "NoSpiffeIdentity"]);
    let message = test.ready_message(&policy);
    assert!(message.starts_with("1 of 1 pods match no ClusterSPIFFEID"), "{message}");
    assert_eq!(test.reasons(&other)[2], "UpToDate");

    test.identity("carts");
    assert_eq!(test.reasons(&policy)[2], "NoSpiffeIdentity");
    test.identity("orders");
    assert_eq!(test.reasons(&policy)[2], "UpToDate");
    test.apply(IndexEvent::SpiffeId(Some(Event::Init)));
    test.apply(IndexEvent::SpiffeId(Some(Event::InitDone)));
    assert_eq!(test.reasons(&policy)[2], "NoSpiffeIdentity");
    test.apply(IndexEvent::SpiffeId(None));
    assert_eq!(test.reasons(&policy)[2], "UpToDate");
}
