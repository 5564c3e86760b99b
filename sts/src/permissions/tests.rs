//! Sessions before policies: tenants apart by their tags, and sessions that were revoked.

use serde_json::json;

use super::*;
use crate::context_provider::ContextProvider;
use crate::identity::WebIdentity;
use crate::names::AssumableRole;
use crate::request::SessionPolicies;
use crate::session::SessionGrant;

const ROLE: &str = "arn:aws:iam::111122223333:role/shop/orders";
const PROVIDER: &str = "arn:aws:iam::111122223333:oidc-provider/a.test";
const ISSUED: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn session_for(role: &AssumableRole, principal: Principal) -> Session {
    let grant = SessionGrant {
        role_arn: ROLE,
        role,
        session_name: "pod-1",
        duration: 3600,
        packed_percent: 0,
        minimum_token_size: 0,
    };
    Session::issue(&grant, at(ISSUED), principal).unwrap()
}

fn session_of(tags: &Value, policies: SessionPolicies) -> AssumedSession {
    let tags = tags.as_object().unwrap();
    let mut identity = WebIdentity {
        subject: "system:serviceaccount:shop:orders".into(),
        audience: "sts.amazonaws.com".into(),
        original_audiences: vec!["sts.amazonaws.com".into()],
        tags: tags
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().unwrap().into()))
            .collect(),
        source_identity: Some("shop.orders".into()),
        ..WebIdentity::default()
    };
    let document = json!({"SubjectSourceKey": "sub", "SubjectTypeValue": "workload",
        "KeyDefinitionList": [{"SourceKey": "tokenscope_team", "TargetKey": "team"}]});
    let claims = json!({"sub": "shop/orders", "tokenscope_team": "blue"});
    let context = ContextProvider::parse(&document).unwrap();
    let propagated = context.read(claims.as_object().unwrap(), "https://a.test", PROVIDER);
    identity.propagated = Some(propagated.unwrap());
    let principal = Principal::federated("https://a.test", PROVIDER, &identity, &BTreeMap::new(), policies);
    let arn = AssumableRole::parse(ROLE).unwrap();
    AssumedSession::of(&session_for(&arn, principal))
}

fn session(tags: &Value) -> AssumedSession {
    session_of(tags, SessionPolicies::default())
}

fn policy(statement: &Value) -> Value {
    json!({"Version": "2012-10-17", "Statement": [statement]})
}

/// A bucket with a prefix of its own for each team.
fn by_team() -> Value {
    policy(
        &json!({"Effect": "Allow", "Action": "s3:*Object", "Resource": "arn:aws:s3:::data/${aws:PrincipalTag/team}/*"}),
    )
}

fn get(session: &AssumedSession, policies: &[Value], key: &str) -> PolicyDecision {
    let resource = format!("arn:aws:s3:::data/{key}");
    session
        .decide(policies, "s3:GetObject", &resource, at(ISSUED + 60))
        .unwrap()
}

#[test]
fn two_tenants_with_one_role_reach_their_own_prefix_only() {
    let (blue, red) = (session(&json!({"team": "blue"})), session(&json!({"Team": "red"})));
    for (session, key, expected) in [
        (&blue, "blue/x", PolicyDecision::Allowed),
        (&blue, "red/x", PolicyDecision::ImplicitDeny),
        (&blue, "blue", PolicyDecision::ImplicitDeny),
        (&blue, "bluebird/x", PolicyDecision::ImplicitDeny),
        (&red, "red/x/y", PolicyDecision::Allowed),
        (&red, "blue/x", PolicyDecision::ImplicitDeny),
    ] {
        assert_eq!(get(session, &[by_team()], key), expected, "{key}");
    }
}

#[test]
fn a_session_without_the_tag_reaches_nothing_and_one_with_a_slash_in_it_no_other_prefix() {
    assert_eq!(
        get(&session(&json!({})), &[by_team()], "/x"),
        PolicyDecision::ImplicitDeny
    );
    assert_eq!(
        get(&session(&json!({"team": ""})), &[by_team()], "blue/x"),
        PolicyDecision::ImplicitDeny
    );
    // The tag decides alone: an issuer must not let a tenant choose it.
    let nested = session(&json!({"team": "blue/x"}));
    assert_eq!(get(&nested, &[by_team()], "blue/x/y"), PolicyDecision::Allowed);
    assert_eq!(get(&nested, &[by_team()], "blue/y"), PolicyDecision::ImplicitDeny);
}

#[test]
fn the_statement_that_revokes_sessions_denies_those_issued_before_it_and_no_later_ones() {
    let anything = policy(&json!({"Effect": "Allow", "Action": "*", "Resource": "*"}));
    let session = session(&json!({}));
    for (revoked, expected) in [
        ("2027-01-15T08:00:00Z", PolicyDecision::Allowed),
        ("2027-01-15T08:00:00.001Z", PolicyDecision::ExplicitDeny),
        ("2027-01-15T08:00:01Z", PolicyDecision::ExplicitDeny),
        ("2027-01-15T07:00:00Z", PolicyDecision::Allowed),
        ("not a date", PolicyDecision::ExplicitDeny),
    ] {
        let revoke = policy(&json!({"Effect": "Deny", "Action": ["*"], "Resource": ["*"],
            "Condition": {"DateLessThan": {"aws:TokenIssueTime": revoked}}}));
        assert_eq!(get(&session, &[anything.clone(), revoke], "x"), expected, "{revoked}");
    }
}

#[test]
fn conditions_see_the_session_and_its_propagated_context() {
    let session = session(&json!({"team": "blue"}));
    for (condition, expected) in [
        (json!({"StringEquals": {"aws:PrincipalTag/Team": "blue"}}), true),
        (json!({"StringEquals": {"aws:PrincipalTag/other": "blue"}}), false),
        (json!({"Null": {"aws:PrincipalTag/other": "true"}}), true),
        (json!({"StringLike": {"aws:SourceIdentity": "shop.*"}}), true),
        (json!({"StringEquals": {"aws:FederatedProvider": PROVIDER}}), true),
        (json!({"StringEquals": {"aws:PrincipalArn": ROLE}}), true),
        (json!({"StringLike": {"aws:userid": "AROA*:pod-1"}}), true),
        (
            json!({"StringEquals": {"a.test:sub": "system:serviceaccount:shop:orders"}}),
            true,
        ),
        (
            json!({"StringEquals": {"aws:OriginIdentity/Subject": "shop/orders"}}),
            true,
        ),
        (
            json!({"StringEquals": {"aws:OriginIdentity/SubjectType": "user"}}),
            false,
        ),
        (
            json!({"StringEquals": {"aws:TransactionContext/IdentityProvider/team": "blue"}}),
            true,
        ),
        (
            json!({"StringEquals": {"aws:TransactionContext/IdentityProvider/other": "blue"}}),
            false,
        ),
        (
            json!({"DateGreaterThan": {"aws:CurrentTime": "2027-01-15T08:00:59Z"}}),
            true,
        ),
        (json!({"DateLessThan": {"aws:EpochTime": "1800000060"}}), false),
        (json!({"StringEquals": {"aws:ResourceTag/team": "blue"}}), false),
        (json!({"StringNotEquals": {"aws:ResourceTag/team": "blue"}}), false),
    ] {
        let allow = policy(&json!({"Effect": "Allow", "Action": "s3:*", "Resource": "*", "Condition": condition}));
        let expected = if expected {
            PolicyDecision::Allowed
        } else {
            PolicyDecision::ImplicitDeny
        };
        assert_eq!(get(&session, &[allow], "x"), expected, "{condition}");
    }
}

#[test]
fn a_deny_wins_everywhere_and_holds_where_it_cannot_be_decided() {
    let session = session(&json!({"team": "blue"}));
    let deny = |statement: Value| {
        let mut statement = statement;
        statement["Effect"] = json!("Deny");
        get(&session, &[policy(&statement), by_team()], "blue/x")
    };
    for (statement, expected) in [
        (
            json!({"Action": "*", "Resource": "arn:aws:s3:::data/${aws:PrincipalTag/other}/*"}),
            PolicyDecision::ExplicitDeny,
        ),
        (json!({"NotAction": "s3:*", "Resource": "*"}), PolicyDecision::Allowed),
        (
            json!({"NotAction": "S3:putobject", "Resource": "*"}),
            PolicyDecision::ExplicitDeny,
        ),
        (
            json!({"Action": "*", "NotResource": "arn:aws:s3:::data/${aws:PrincipalTag/team}/*"}),
            PolicyDecision::Allowed,
        ),
        (
            json!({"Action": "*", "NotResource": "arn:aws:s3:::data/red/*"}),
            PolicyDecision::ExplicitDeny,
        ),
        (
            json!({"Action": "*", "Resource": "*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}),
            PolicyDecision::ExplicitDeny,
        ),
    ] {
        assert_eq!(deny(statement.clone()), expected, "{statement}");
    }
}

#[test]
fn a_session_policy_narrows_and_never_widens() {
    let narrow = |document: Value| SessionPolicies {
        inline: Some(document),
        ..SessionPolicies::default()
    };
    let tags = json!({"team": "blue"});
    let read_x = policy(&json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::data/*/x"}));
    let session = session_of(&tags, narrow(read_x));
    assert_eq!(get(&session, &[by_team()], "blue/x"), PolicyDecision::Allowed);
    assert_eq!(get(&session, &[by_team()], "blue/y"), PolicyDecision::ImplicitDeny);
    assert_eq!(get(&session, &[by_team()], "red/x"), PolicyDecision::ImplicitDeny);
    assert_eq!(get(&session, &[], "blue/x"), PolicyDecision::ImplicitDeny);
    let managed = SessionPolicies {
        managed: vec!["arn:aws:iam::aws:policy/ReadOnlyAccess".into()],
        ..SessionPolicies::default()
    };
    let undecided = session_of(&tags, managed).decide(&[by_team()], "s3:GetObject", "*", at(ISSUED));
    assert_eq!(undecided, Err(PolicyDecisionError::ManagedSessionPolicies));
}

#[test]
fn an_expired_session_and_a_document_that_iam_refuses_decide_nothing() {
    let session = session(&json!({}));
    let ended = session.decide(&[by_team()], "s3:GetObject", "*", at(ISSUED + 3600));
    assert_eq!(ended, Err(PolicyDecisionError::Expired));
    for (document, problem) in [
        (json!([]), "must be an object"),
        (json!({"Version": "2020-01-01", "Statement": []}), "Version: "),
        (json!({"Version": "2012-10-17"}), "Statement: "),
        (
            policy(&json!({"Effect": "Allow", "Action": "*"})),
            "Statement[0].Resource: ",
        ),
        (
            policy(&json!({"Effect": "Allow", "Resource": "*"})),
            "Statement[0].Action: ",
        ),
        (
            policy(&json!({"Effect": "allow", "Action": "*", "Resource": "*"})),
            "Statement[0].Effect: ",
        ),
        (
            policy(&json!({"Effect": "Allow", "Action": "*", "NotAction": "*", "Resource": "*"})),
            "Statement[0].Action: excludes NotAction",
        ),
        (
            policy(&json!({"Effect": "Allow", "Action": "GetObject", "Resource": "*"})),
            "Statement[0].Action: GetObject: must be *",
        ),
        (
            policy(&json!({"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"})),
            "Statement[0].Principal: ",
        ),
    ] {
        let error = session
            .decide(std::slice::from_ref(&document), "s3:GetObject", "*", at(ISSUED))
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("MalformedPolicyDocument: {problem}")),
            "{document}: {error}"
        );
    }
}

#[test]
fn variables_are_texts_in_a_policy_of_the_old_version() {
    let mut old = by_team();
    old["Version"] = json!("2008-10-17");
    assert_eq!(
        get(&session(&json!({"team": "blue"})), &[old], "blue/x"),
        PolicyDecision::ImplicitDeny
    );
}
