//! Trust policies as IAM reads them.

use serde_json::json;

use super::*;

const PROVIDER: &str = "arn:aws:iam::111122223333:oidc-provider/a.test/Id";

fn identity() -> WebIdentity {
    WebIdentity {
        subject: "system:serviceaccount:shop:orders".into(),
        audience: "sts.amazonaws.com".into(),
        original_audiences: vec!["sts.amazonaws.com".into()],
        ..WebIdentity::default()
    }
}

fn tagged() -> WebIdentity {
    WebIdentity {
        tags: [("Team".to_owned(), "blue".to_owned())].into(),
        ..identity()
    }
}

fn statement(changes: &Value) -> Value {
    let mut statement = json!({"Effect": "Allow", "Principal": {"Federated": PROVIDER}, "Action": ASSUME_ROLE});
    for (name, value) in changes.as_object().unwrap() {
        statement[name] = value.clone();
    }
    statement
}

fn allowed(statements: &Value, identity: &WebIdentity) -> bool {
    let policy = IamTrustPolicy::parse(&json!({"Version": "2012-10-17", "Statement": statements})).unwrap();
    let facts = Facts::new("https://a.test/Id", identity, "pod-1", Timestamp::UNIX_EPOCH);
    match authorize(&policy, PROVIDER, identity, &facts) {
        Ok(()) => true,
        Err(error) => {
            let missing = if !policy.allows(ASSUME_ROLE, PROVIDER, &facts) {
                ASSUME_ROLE
            } else if identity.source_identity.is_some() {
                "sts:SetSourceIdentity"
            } else {
                "sts:TagSession"
            };
            assert_eq!(
                error.to_string(),
                format!("AccessDenied: Not authorized to perform {missing}")
            );
            assert_eq!(error.status, 403);
            false
        }
    }
}

#[test]
fn the_principal_must_be_the_tokens_provider_and_the_action_the_right_one() {
    for (changes, expected) in [
        (json!({}), true),
        (
            json!({"Principal": {"Federated": ["arn:aws:iam::111122223333:oidc-provider/b.test", PROVIDER]}}),
            true,
        ),
        (json!({"Principal": "*"}), true),
        (json!({"Principal": {"AWS": "*"}}), true),
        (json!({"Principal": {"Federated": PROVIDER.to_lowercase()}}), false),
        (
            json!({"Principal": {"Federated": "arn:aws:iam::999922223333:oidc-provider/a.test/Id"}}),
            false,
        ),
        (json!({"Principal": {"Service": "ec2.amazonaws.com"}}), false),
        (json!({"Action": "sts:*"}), true),
        (json!({"Action": "STS:assumerolewith?????dentity"}), false),
        (json!({"Action": "STS:assumerolewith????dentity"}), true),
        (json!({"Action": "*"}), true),
        (json!({"Action": ["sts:AssumeRole", "sts:TagSession"]}), false),
        (json!({"Effect": "Deny"}), false),
    ] {
        assert_eq!(
            allowed(&json!([statement(&changes)]), &identity()),
            expected,
            "{changes}"
        );
    }
}

/// Whether a statement with each condition allows.
fn each_holds_or_not<const N: usize>(conditions: [(Value, bool); N]) {
    for (condition, expected) in conditions {
        assert_eq!(
            allowed(&json!([statement(&json!({"Condition": condition}))]), &identity()),
            expected,
            "{condition}"
        );
    }
}

#[test]
fn a_condition_holds_only_if_all_its_operators_and_keys_do() {
    each_holds_or_not([
        (json!({"StringEquals": {"a.test/Id:aud": "sts.amazonaws.com"}}), true),
        (json!({"StringEquals": {"A.TEST/id:AUD": "sts.amazonaws.com"}}), true),
        (
            json!({"StringEquals": {"a.test/Id:aud": ["x", "sts.amazonaws.com"]}}),
            true,
        ),
        (json!({"StringEquals": {"a.test/Id:aud": "STS.amazonaws.com"}}), false),
        (
            json!({"StringEqualsIgnoreCase": {"a.test/Id:aud": "STS.amazonaws.com"}}),
            true,
        ),
        (
            json!({"StringEquals": {"a.test/Id:sub": "system:serviceaccount:shop:*"}}),
            false,
        ),
        (
            json!({"StringLike": {"a.test/Id:sub": "system:serviceaccount:shop:*"}}),
            true,
        ),
        (
            json!({"StringLike": {"a.test/Id:sub": "system:serviceaccount:???p:o*s"}}),
            true,
        ),
        (
            json!({"StringLike": {"a.test/Id:sub": "system:serviceaccount:other:*"}}),
            false,
        ),
        (
            json!({"StringEquals": {"a.test/Id:aud": "sts.amazonaws.com", "a.test/Id:sub": "x"}}),
            false,
        ),
        (
            json!({"StringEquals": {"a.test/Id:aud": "sts.amazonaws.com"}, "StringLike": {"a.test/Id:sub": "x*"}}),
            false,
        ),
    ]);
}

#[test]
fn negations_and_absent_and_unknown_keys_and_operators_hold_as_iam_says() {
    each_holds_or_not([
        (json!({"StringNotEquals": {"a.test/Id:sub": "x"}}), true),
        (
            json!({"StringNotEquals": {"a.test/Id:sub": ["x", "system:serviceaccount:shop:orders"]}}),
            false,
        ),
        (json!({"StringNotLike": {"a.test/Id:sub": "system:*"}}), false),
        (json!({"StringEquals": {"a.test/Id:oaud": "sts.amazonaws.com"}}), true),
        (json!({"StringEquals": {"sts:RoleSessionName": "pod-1"}}), true),
        (json!({"StringEquals": {"aws:RequestTag/Team": "blue"}}), false),
        (json!({"StringEqualsIfExists": {"aws:RequestTag/Team": "blue"}}), true),
        (json!({"StringNotEquals": {"aws:RequestTag/Team": "blue"}}), true),
        (json!({"Null": {"aws:RequestTag/Team": "true"}}), true),
        (json!({"Null": {"aws:RequestTag/Team": false}}), false),
        (json!({"ForAllValues:StringEquals": {"aws:TagKeys": ["Team"]}}), true),
        (json!({"ForAnyValue:StringEquals": {"aws:TagKeys": ["Team"]}}), false),
        // Not a key for this issuer, not an operator known here, a policy variable: never holds.
        (json!({"StringEquals": {"b.test:aud": "sts.amazonaws.com"}}), false),
        (json!({"StringNotEquals": {"a.test/Id:kubernetes.io": "x"}}), false),
        (json!({"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}), false),
        (json!({"StringEqual": {"a.test/Id:aud": "sts.amazonaws.com"}}), false),
        (
            json!({"ForSome:StringEquals": {"a.test/Id:aud": "sts.amazonaws.com"}}),
            false,
        ),
        (json!({"StringNotEquals": {"a.test/Id:sub": "${aws:username}"}}), false),
    ]);
}

#[test]
fn a_deny_wins_and_holds_where_it_cannot_be_decided() {
    let deny = |condition: Value| {
        let deny = statement(&json!({"Effect": "Deny", "Principal": "*", "Action": "*", "Condition": condition}));
        allowed(&json!([statement(&json!({})), deny]), &identity())
    };
    assert!(!deny(json!({"StringLike": {"a.test/Id:sub": "*:orders"}})));
    assert!(deny(json!({"StringLike": {"a.test/Id:sub": "*:carts"}})));
    assert!(!deny(json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})));
}

#[test]
fn tags_and_source_identity_need_their_own_actions() {
    let with = |actions: Value, condition: Value| statement(&json!({"Action": actions, "Condition": condition}));
    let plain = json!([statement(&json!({}))]);
    assert!(!allowed(&plain, &tagged()));
    let both = json!([ASSUME_ROLE, "sts:TagSession"]);
    assert!(allowed(&json!([with(both.clone(), json!({}))]), &tagged()));
    assert!(allowed(
        &json!([statement(&json!({})), with(json!("sts:TagSession"), json!({}))]),
        &tagged()
    ));
    for (condition, expected) in [
        (json!({"StringEquals": {"aws:RequestTag/team": "blue"}}), true),
        (json!({"StringEquals": {"aws:RequestTag/Team": "red"}}), false),
        (
            json!({"ForAllValues:StringEquals": {"aws:TagKeys": ["Team", "x"]}}),
            true,
        ),
        (json!({"ForAllValues:StringEquals": {"aws:TagKeys": ["x"]}}), false),
        (json!({"ForAnyValue:StringLike": {"aws:TagKeys": "Te*"}}), true),
        (json!({"StringEquals": {"aws:TagKeys": "Team"}}), false),
        (
            json!({"ForAnyValue:StringEquals": {"sts:TransitiveTagKeys": "Team"}}),
            false,
        ),
    ] {
        assert_eq!(
            allowed(&json!([with(both.clone(), condition.clone())]), &tagged()),
            expected,
            "{condition}"
        );
    }
    let sourced = WebIdentity {
        source_identity: Some("shop.orders".into()),
        ..identity()
    };
    assert!(!allowed(&plain, &sourced));
    let actions = json!([ASSUME_ROLE, "sts:SetSourceIdentity"]);
    let condition = json!({"StringLike": {"sts:SourceIdentity": "shop.*"}});
    assert!(allowed(&json!([with(actions.clone(), condition)]), &sourced));
    let condition = json!({"StringLike": {"sts:SourceIdentity": "bank.*"}});
    assert!(!allowed(&json!([with(actions, condition)]), &sourced));
}

#[test]
fn a_document_that_iam_refuses_is_refused_with_its_place() {
    let one = |changes: Value| json!({"Statement": [statement(&changes)]});
    for (document, problem) in [
        (json!([]), "must be an object"),
        (json!({"Version": "2020-01-01", "Statement": []}), "Version: "),
        (json!({"Statement": []}), "Statement: "),
        (json!({"Statements": []}), "Statements: must be one of"),
        (
            one(json!({"Resource": "*"})),
            "Statement[0].Resource: Has prohibited field Resource",
        ),
        (
            one(json!({"NotPrincipal": "*"})),
            "Statement[0].NotPrincipal: must be one of",
        ),
        (
            one(json!({"Effect": "allow"})),
            "Statement[0].Effect: must be Allow or Deny",
        ),
        (
            one(json!({"Principal": PROVIDER})),
            "Statement[0].Principal: must be an object",
        ),
        (
            one(json!({"Principal": {"Federate": PROVIDER}})),
            "Statement[0].Principal.Federate: ",
        ),
        (
            one(json!({"Principal": {"Federated": "arn:aws:iam::1:oidc-provider/*"}})),
            "Statement[0].Principal.Federated: ",
        ),
        (one(json!({"Action": []})), "Statement[0].Action: "),
        (
            one(json!({"Action": "s3:GetObject"})),
            "Statement[0].Action: s3:GetObject: AssumeRole policy may only",
        ),
        (
            one(json!({"Condition": {"StringEquals": "x"}})),
            "Statement[0].Condition.StringEquals: ",
        ),
        (
            one(json!({"Condition": {"StringEquals": {"k": 1}}})),
            "Statement[0].Condition.StringEquals.k: ",
        ),
    ] {
        let error = IamTrustPolicy::parse(&document).unwrap_err();
        assert!(error.starts_with(problem), "{document}: {error}");
    }
}
