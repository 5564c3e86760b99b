//! Policies whose tokens tokenscope's own issuer signs.

use super::*;

const OWN_ISSUER: &str = "https://tokens.example.com";

fn with_issuer() -> Test {
    Test::with(Settings {
        issuer: Some(OWN_ISSUER.into()),
        ..Settings::default()
    })
}

fn from_issuer(claims: &Value) -> Value {
    let mut spec = default_role(ROLE);
    spec["token"] = json!({"source": "Issuer"});
    spec["claims"] = claims.clone();
    spec
}

fn statement(test: &mut Test, policy: &PolicyName) -> Value {
    let status = test.status(policy);
    let document: Value = serde_json::from_str(&status.trust_policies[0].document).unwrap();
    document["Statement"][0].clone()
}

#[test]
fn a_policy_with_source_issuer_is_accepted_where_the_installation_runs_one_and_trusts_its_tokens() {
    let mut test = Test::new();
    let policy = test.policy("orders", &from_issuer(&json!({})));
    assert_eq!(test.reasons(&policy), ["SourceNotAvailable", "Unusable", "NotAccepted"]);
    assert_eq!(test.status(&policy).trust_policies, []);

    let mut test = with_issuer();
    let policy = test.policy("orders", &from_issuer(&json!({})));
    assert_eq!(test.reasons(&policy), ["Valid", "InForce", "UpToDate"]);
    assert_eq!(
        statement(&mut test, &policy),
        json!({
            "Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
            "Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/tokens.example.com"},
            "Condition": {"StringEquals": {
                "tokens.example.com:aud": "sts.amazonaws.com",
                "tokens.example.com:sub": "system:serviceaccount:shop:orders",
            }},
        })
    );
    assert!(!test.ready_message(&policy).contains("sts:TagSession"));

    test.index.installation.cluster_name = Some("eu-1".parse().unwrap());
    test.index.enqueue_all_statuses();
    assert_eq!(
        statement(&mut test, &policy)["Condition"]["StringEquals"]["tokens.example.com:sub"],
        "eu-1/system:serviceaccount:shop:orders"
    );
}

#[test]
fn where_tokens_have_tags_the_document_demands_them_and_a_note_names_what_every_role_needs() {
    let mut test = with_issuer();
    let policy = test.policy(
        "orders",
        &from_issuer(&json!({"principalTags": {"tenant": "${namespace}"}})),
    );
    let statement = statement(&mut test, &policy);
    assert_eq!(
        statement["Action"],
        json!(["sts:AssumeRoleWithWebIdentity", "sts:TagSession"])
    );
    assert_eq!(statement["Condition"]["StringEquals"]["aws:RequestTag/tenant"], "shop");
    assert_eq!(statement["Condition"]["Null"], json!({"sts:TransitiveTagKeys": "true"}));
    let message = test.ready_message(&policy);
    assert!(message.contains("does not allow sts:TagSession"), "{message}");
}

#[test]
fn a_note_says_what_a_source_identity_needs_and_that_aws_has_not_seen_it() {
    let mut test = with_issuer();
    let policy = test.policy("orders", &from_issuer(&json!({"sourceIdentity": "${namespace}"})));
    let message = test.ready_message(&policy);
    for part in ["does not allow sts:SetSourceIdentity", "Not yet seen by AWS"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_note_says_what_context_claims_need_and_that_aws_has_not_seen_it() {
    let mut test = with_issuer();
    let policy = test.policy("orders", &from_issuer(&json!({"context": {"team": "${namespace}"}})));
    let message = test.ready_message(&policy);
    for part in ["ConfigMap tokenscope-issuer-context", "Not yet seen by AWS"] {
        assert!(message.contains(part), "{message}");
    }
    let policy = test.policy("plain", &from_issuer(&json!({})));
    assert!(!test.ready_message(&policy).contains("Not yet seen"));
}

#[test]
fn a_document_follows_the_namespaces_that_its_policy_selects() {
    let mut test = with_issuer();
    let mut spec = from_issuer(&json!({}));
    spec["namespaceSelector"] = json!({"matchLabels": {"team": "a"}});
    let policy = test.cluster_policy("all", &spec);
    assert_eq!(test.status(&policy).trust_policies, []);
    let message = test.ready_message(&policy);
    assert!(message.contains("selects no namespace now"), "{message}");

    test.namespace("web", &json!({"team": "a"}));
    test.namespace("evil", &json!({"team": "b"}));
    let subjects = |test: &mut Test| {
        let found = statement(test, &policy);
        found["Condition"]["StringEquals"]["tokens.example.com:sub"].clone()
    };
    assert_eq!(subjects(&mut test), "system:serviceaccount:web:orders");
    test.namespace("shop", &json!({"team": "a"}));
    assert_eq!(
        subjects(&mut test),
        json!(["system:serviceaccount:shop:orders", "system:serviceaccount:web:orders"])
    );
    test.namespace("web", &json!({}));
    assert_eq!(subjects(&mut test), "system:serviceaccount:shop:orders");
}

#[test]
fn of_eleven_context_keys_the_newest_policy_has_none_until_an_older_one_makes_room() {
    let mut test = with_issuer();
    let context = |keys: std::ops::Range<usize>| {
        let keys: serde_json::Map<_, _> = keys.map(|key| (format!("k{key}"), "x".into())).collect();
        from_issuer(&json!({"context": keys}))
    };
    let first = test.policy("a", &context(0..9));
    let later = test.policy("b", &context(8..11));
    assert_eq!(test.reasons(&first)[0], "Valid");
    assert_eq!(test.reasons(&later), ["TooManyContextKeys", "Unusable", "NotAccepted"]);
    assert_eq!(test.status(&later).trust_policies, []);
    let accepted = test.status(&later).conditions.remove(0).message;
    assert!(
        accepted.starts_with("spec.claims.context[k9] would be one key too many"),
        "{accepted}"
    );

    test.policy_object("a", 2, &context(0..7));
    assert_eq!(test.reasons(&later)[0], "Valid");
    test.policy_object("a", 3, &context(0..9));
    assert_eq!(test.reasons(&later)[0], "TooManyContextKeys");
    test.delete_policy(&first);
    assert_eq!(test.reasons(&later)[0], "Valid");
}

#[test]
fn a_pod_with_the_issuers_sidecar_is_up_to_date_and_one_with_another_outdated() {
    let mut test = with_issuer();
    let policy = test.policy("orders", &from_issuer(&json!({})));
    let image: String = Settings::default().sidecar.issuer_image.into();
    test.injected_pod_with("good", at("07:00"), Some(&image));
    assert_eq!(test.counts(&policy), [1, 1, 0, 0]);
    let other: String = Settings::default().sidecar.image.into();
    test.injected_pod_with("old", at("07:00"), Some(&other));
    assert_eq!(test.counts(&policy), [2, 1, 0, 1]);
    let message = test.ready_message(&policy);
    assert!(message.contains("another sidecar than new ones get"), "{message}");
}

#[test]
fn a_policy_that_names_the_issuers_own_audience_is_not_accepted_and_the_field_and_value_are_named() {
    for audiences in [
        json!({"allowed": ["sts.amazonaws.com", OWN_ISSUER]}),
        json!({"default": OWN_ISSUER}),
    ] {
        for source in ["ServiceAccount", "SPIFFE", "Issuer"] {
            let mut test = with_issuer();
            let mut spec = default_role(ROLE);
            spec["token"] = json!({"source": source});
            spec["audiences"] = audiences.clone();
            let policy = test.policy("orders", &spec);
            assert_eq!(test.reasons(&policy), ["ExchangeAudience", "Unusable", "NotAccepted"]);
            let status = test.status(&policy);
            assert_eq!(status.trust_policies, []);
            let message = &status.conditions[0].message;
            assert!(
                message.starts_with("spec.audiences has https://tokens.example.com, which is the URL"),
                "{message}"
            );
            assert!(message.contains("Remove it"), "{message}");
        }
    }
    let mut test = Test::new();
    let mut spec = default_role(ROLE);
    spec["audiences"] = json!({"default": OWN_ISSUER});
    let policy = test.policy("orders", &spec);
    assert_eq!(
        test.reasons(&policy)[0],
        "Valid",
        "without an issuer it is an audience as any other"
    );
}

#[test]
fn two_policies_with_one_default_role_and_different_tokens_show_the_conflict_on_both() {
    let mut test = with_issuer();
    let plain = test.policy("a", &from_issuer(&json!({})));
    let tagged = test.policy("b", &from_issuer(&json!({"principalTags": {"tenant": "b"}})));
    for policy in [&plain, &tagged] {
        assert_eq!(test.reasons(policy), ["Valid", "InForce", "Conflict"]);
        let message = test.ready_message(policy);
        assert!(message.contains(&format!("{ROLE} with another token")), "{message}");
    }
    test.policy_object("b", 2, &from_issuer(&json!({})));
    assert_eq!(test.reasons(&plain)[2], "UpToDate");
    assert_eq!(test.reasons(&tagged)[2], "UpToDate");
}

#[test]
fn running_pods_that_were_told_of_another_authority_of_the_issuer_are_counted() {
    let mut test = with_issuer();
    test.policy("orders", &from_issuer(&json!({})));
    let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    let image: String = Settings::default().sidecar.issuer_image.into();
    let mut told = |name: &str, phase: &str, authorities: String| {
        test.injected_pod_with(name, at("07:00"), Some(&image));
        let mut object = test.last.clone();
        object["spec"]["initContainers"][0]["env"] = json!([{"name": "TOKENSCOPE_ISSUER_CA", "value": authorities}]);
        object["status"] = json!({"phase": phase});
        object["metadata"]["resourceVersion"] = json!("999");
        test.apply(IndexEvent::Pod(Event::Apply(serde_json::from_value(object).unwrap())));
    };
    told("new", "Running", pem("bmV3"));
    told("between", "Running", pem("bmV3") + &pem("b2xk"));
    told("old", "Running", pem("b2xk"));
    told("ended", "Succeeded", pem("b2xk"));
    test.injected_pod("of-another-source", at("07:00"));
    let count = |test: &Test, body: &str| {
        let present = crate::drift::IssuerAuthority::first_of(&pem(body)).unwrap();
        test.index.pods_with_other_issuer_authority(present)
    };
    assert_eq!(count(&test, "bmV3"), 1);
    assert_eq!(count(&test, "b2xk"), 2);
}

#[test]
fn f05_context_keys_that_a_policy_of_another_namespace_has_given_back_make_older_pods_not_missed() {
    let mut test = with_issuer();
    let keys: serde_json::Map<_, _> = (0..10).map(|key| (format!("k{key}"), json!("x"))).collect();
    let elsewhere: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
        "metadata": {"name": "a", "namespace": "bank", "uid": "a", "generation": 1, "creationTimestamp": at("05:00").to_string()},
        "spec": from_issuer(&json!({"context": keys})),
    }))
    .unwrap();
    test.apply(IndexEvent::Policy(Event::Apply(elsewhere.clone())));
    let policy = test.policy("orders", &from_issuer(&json!({"context": {"other": "x"}})));
    test.pod("before", at("07:00"), &json!({}));
    assert_eq!(test.counts(&policy), [0; 4]);

    test.apply(IndexEvent::Policy(Event::Delete(elsewhere)));
    test.pod("after", at("10:03"), &json!({}));
    assert_eq!(test.counts(&policy), [2, 0, 1, 1]);
}
