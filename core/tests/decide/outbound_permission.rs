//! The permission of a role that AWS signs tokens for third parties for.

use serde_json::{Value, json};
use tokenscope_core::delivery::{Delivery, EndpointDelivery, RoleHop, SessionPolicy};
use tokenscope_core::outbound::{AwsAlgorithm, AwsSubject, AwsToken, OutboundSource, OutboundToken};
use tokenscope_fixtures::ORDERS;

use super::*;

const FAR: &str = "arn:aws:iam::444455556666:role/far";

fn token(name: &str, seconds: i64, source: OutboundSource) -> OutboundToken {
    OutboundToken {
        name: name.parse().unwrap(),
        audience: format!("https://{name}.example").parse().unwrap(),
        source,
        expiration: TokenExpiration::from_seconds(seconds).unwrap(),
        variables: Vec::new(),
    }
}

fn giving(tokens: Vec<OutboundToken>) -> Policy {
    let mut policy = policy("orders");
    policy.roles.allowed = vec![ORDERS.parse().unwrap(), CARTS.parse().unwrap()];
    policy.delivery = Delivery::Endpoint(EndpointDelivery::default());
    policy.outbound = tokens.into();
    policy
}

fn statements(found: &OutboundPermission) -> Value {
    serde_json::to_value(&found.permission_policy).unwrap()["Statement"].clone()
}

#[test]
fn each_role_is_allowed_each_token_with_its_audience_algorithm_and_lifetime_and_no_other() {
    let es384 = AwsToken {
        algorithm: AwsAlgorithm::ES384,
        subject: AwsSubject::Origin {
            scope: "read".parse().ok(),
        },
    };
    let found = outbound_permissions(&giving(vec![
        token("claude", 3600, OutboundSource::Aws(AwsToken::default())),
        token("data", 900, OutboundSource::Aws(es384)),
        token("own", 900, OutboundSource::ServiceAccount),
    ]));
    let roles: Vec<&str> = found.iter().map(|found| found.role.as_str()).collect();
    assert_eq!(roles, [CARTS, ORDERS]);
    let allow = |audience: &str, algorithm: &str, seconds: &str| {
        json!({"Effect": "Allow", "Action": "sts:GetWebIdentityToken", "Resource": "*", "Condition": {
            "ForAllValues:StringEquals": {"sts:IdentityTokenAudience": audience},
            "StringEquals": {"sts:SigningAlgorithm": algorithm},
            "NumericLessThanEquals": {"sts:DurationSeconds": seconds},
        }})
    };
    let expected = json!([
        allow("https://claude.example", "RS256", "3600"),
        allow("https://data.example", "ES384", "900"),
        {"Effect": "Allow", "Action": "sts:SetWebIdentityTokenScope", "Resource": "*"},
    ]);
    assert!(found.iter().all(|found| statements(found) == expected));
    let notes = found[0].notes.join("; ");
    for part in [
        "enable-outbound-web-identity-federation",
        "OriginIdentity needs",
        "not yet seen by AWS",
        "every session of the role can ask for these tokens, whoever has it",
    ] {
        assert!(notes.contains(part), "{notes}");
    }
}

#[test]
fn after_a_chain_it_is_the_last_role_and_a_session_policy_and_patterns_are_noted() {
    let mut policy = giving(vec![token("claude", 900, OutboundSource::Aws(AwsToken::default()))]);
    policy.roles.allowed = vec!["arn:aws:iam::111122223333:role/shop/*".parse().unwrap()];
    policy.delivery = Delivery::Endpoint(EndpointDelivery {
        policy: SessionPolicy {
            inline: "{}".parse().ok(),
            arns: Vec::new(),
        },
        ..EndpointDelivery::default()
    });
    assert!(outbound_permissions(&policy).is_empty(), "it names no role");
    policy.roles.default = ORDERS.parse().ok();
    let notes = outbound_permissions(&policy)[0].notes.join("; ");
    assert!(
        notes.contains("has patterns") && notes.contains("spec.aws.sessionPolicy narrows"),
        "{notes}"
    );
    policy.aws.role_chain = vec![RoleHop {
        role: FAR.parse().unwrap(),
        external_id: None,
        session_name: None,
    }];
    let [far] = &*outbound_permissions(&policy) else {
        panic!("one role")
    };
    assert_eq!(far.role.as_str(), FAR);
    assert!(!far.notes.join("; ").contains("has patterns"), "{:?}", far.notes);
}

#[test]
fn without_a_token_that_aws_signs_no_permission_is_needed() {
    for tokens in [Vec::new(), vec![token("own", 900, OutboundSource::Issuer)]] {
        assert!(outbound_permissions(&giving(tokens)).is_empty());
    }
}

#[test]
fn the_permission_ends_with_the_policy_and_says_what_else_limits_it_and_not_the_document() {
    let scoped = AwsToken {
        subject: AwsSubject::Origin {
            scope: "read".parse().ok(),
        },
        ..AwsToken::default()
    };
    let mut policy = giving(vec![token("claude", 900, OutboundSource::Aws(scoped))]);
    limit_in_every_way(&mut policy);
    let found = &outbound_permissions(&policy)[0];
    let statements = statements(found);
    assert_eq!(statements.as_array().unwrap().len(), 2);
    for statement in statements.as_array().unwrap() {
        assert_eq!(
            statement["Condition"]["DateLessThan"],
            json!({"aws:CurrentTime": "2027-01-15T08:01:00Z"})
        );
    }
    assert_limits(
        &found.notes,
        &[
            "tokens that were signed before spec.expiresAt last until their end",
            "a permission policy can't express activeSchedule, so tokens can be asked for at any time",
            "a permission policy can't express sessionPolicy, so sessions of the role that it doesn't narrow",
            "a permission policy can't express spec.containers, so tokens can be asked for by every container",
            "a permission policy can't express podSelector, so tokens can be asked for by every pod",
        ],
    );
    policy.on_expiry = OnExpiry::Keep;
    assert_limits(
        &outbound_permissions(&policy)[0].notes,
        &["from spec.expiresAt on AWS signs no token for running pods either, although spec.onExpiry is Keep"],
    );
}

#[test]
fn what_iam_reads_in_a_special_way_is_escaped_in_the_audience() {
    let mut token = token("odd", 900, OutboundSource::Aws(AwsToken::default()));
    token.audience = "https://a.example/${aws:username}".parse().unwrap();
    assert_eq!(
        statements(&outbound_permissions(&giving(vec![token]))[0])[0]["Condition"]["ForAllValues:StringEquals"],
        json!({"sts:IdentityTokenAudience": "https://a.example/${$}{aws:username}"})
    );
}
