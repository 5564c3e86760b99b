//! What IAM must say on both sides of each step of a chain.

use serde_json::{Value, json};
use tokenscope_core::delivery::{Delivery, NamedProfile, RoleHop};
use tokenscope_fixtures::ORDERS;

use super::*;

const A: &str = "arn:aws:iam::444455556666:role/a";
const B: &str = "arn:aws:iam::777788889999:role/b";
/// What is always true of such documents.
const EVERY_SESSION: &str = "every session of a role can take the next one by these documents, whoever has it: also pods of other policies that have the role, and others whom the role trusts";

fn hop(role: &str, id: Option<&str>) -> RoleHop {
    RoleHop {
        role: role.parse().unwrap(),
        external_id: id.map(|id| id.parse().unwrap()),
        session_name: None,
    }
}

fn with_chain(chain: Vec<RoleHop>) -> Policy {
    let mut policy = policy("orders");
    policy.roles.allowed = vec![ORDERS.parse().unwrap(), CARTS.parse().unwrap()];
    policy.aws.role_chain = chain;
    policy.delivery = Delivery::Profile(Vec::new());
    policy
}

fn statements(document: Option<&ChainDocument>) -> Value {
    serde_json::to_value(document).unwrap()["Statement"].clone()
}

#[test]
fn each_role_may_take_the_next_one_which_trusts_it_by_its_external_id() {
    let chained = chained_roles(&with_chain(vec![hop(A, Some("e1")), hop(B, None)]));
    let names: Vec<&str> = chained.iter().map(|found| found.role.as_str()).collect();
    assert_eq!(names, [CARTS, ORDERS, A, B]);
    let allow = |resource: &str| json!([{"Effect": "Allow", "Action": ["sts:AssumeRole"], "Resource": [resource]}]);
    for first in &chained[..2] {
        assert_eq!(statements(first.permission_policy.as_ref()), allow(A));
        assert_eq!(first.trust_policy, None, "it is taken with the pod's token");
    }
    assert_eq!(statements(chained[2].permission_policy.as_ref()), allow(B));
    assert_eq!(
        statements(chained[2].trust_policy.as_ref()),
        json!([{
            "Effect": "Allow", "Principal": {"AWS": [CARTS, ORDERS]}, "Action": ["sts:AssumeRole"],
            "Condition": {"StringEquals": {"sts:ExternalId": "e1"}},
        }])
    );
    assert_eq!(
        statements(chained[3].trust_policy.as_ref()),
        json!([{"Effect": "Allow", "Principal": {"AWS": [A]}, "Action": ["sts:AssumeRole"]}])
    );
    assert_eq!(chained[3].permission_policy, None);
    assert_eq!(
        chained[3].notes,
        [
            "AWS limits a session that is taken with a role's credentials to one hour",
            EVERY_SESSION
        ]
    );
}

#[test]
fn what_a_session_passes_on_is_allowed_at_each_step() {
    let mut policy = with_chain(vec![hop(A, None)]);
    policy.token.source = TokenSource::Issuer;
    policy.claims = std::sync::Arc::new(Claims {
        principal_tags: [("Team".into(), "core".parse().unwrap())].into(),
        transitive_tag_keys: vec!["Team".into()],
        source_identity: Some("${serviceAccount}".parse().unwrap()),
        ..Claims::default()
    });
    let actions = json!(["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]);
    for found in chained_roles(&policy) {
        for document in [found.permission_policy, found.trust_policy].iter().flatten() {
            assert_eq!(statements(Some(document))[0]["Action"], actions);
            assert_eq!(
                statements(Some(document))[0]["Condition"],
                json!({"ForAllValues:StringEquals": {"aws:TagKeys": "Team", "sts:TransitiveTagKeys": "Team"}}),
                "and no other tags"
            );
        }
        let unseen = "not yet seen by AWS: only tokenscope's own stand-in for AWS has judged steps with sts:TagSession";
        let chosen = "no condition here compares values of tags and the source identity with the policy";
        let others =
            "a step is refused with tags of other keys, also those that the session before passes on by another policy";
        assert_limits(&found.notes, &[unseen, chosen, others]);
    }
    // Tags that are not transitive end with the first session.
    let mut claims = Claims::clone(&policy.claims);
    claims.transitive_tag_keys.clear();
    policy.claims = claims.into();
    let found = chained_roles(&policy);
    let trust = statements(found[2].trust_policy.as_ref());
    assert_eq!(trust[0]["Action"], json!(["sts:AssumeRole", "sts:SetSourceIdentity"]));
    assert_eq!(trust[0]["Condition"], json!(null));
}

#[test]
fn what_no_document_can_say_stands_in_the_notes() {
    let mut policy = with_chain(vec![hop("arn:aws-cn:iam::444455556666:role/a", None)]);
    policy
        .roles
        .allowed
        .push("arn:aws:iam::111122223333:role/shop/*".parse().unwrap());
    policy.delivery = Delivery::Profile(vec![NamedProfile {
        name: "back".parse().unwrap(),
        region: "eu-central-1".parse().unwrap(),
        role: Some(A.parse().unwrap()),
        chain: vec![hop(ORDERS, Some("e2"))],
    }]);
    let notes = |role: &str| {
        let found = chained_roles(&policy)
            .into_iter()
            .find(|found| found.role.as_str() == role);
        found.unwrap().notes.join("\n")
    };
    let chinese = notes("arn:aws-cn:iam::444455556666:role/a");
    assert!(
        chinese.contains("is of another partition") && chinese.contains("spec.roles.allowed has patterns"),
        "{chinese}"
    );
    assert!(notes(ORDERS).contains("put the statements of both trust policies into one"));
    assert_eq!(notes(A), EVERY_SESSION);
    assert!(chained_roles(&with_chain(Vec::new())).is_empty());
}

#[test]
fn the_documents_of_a_chain_end_with_the_policy_and_say_what_else_limits_it_and_not_them() {
    let mut policy = with_chain(vec![hop(A, Some("e1")), hop(B, None)]);
    limit_in_every_way(&mut policy);
    let ends = json!({"aws:CurrentTime": "2027-01-15T08:01:00Z"});
    for found in chained_roles(&policy) {
        let documents = [&found.permission_policy, &found.trust_policy];
        for document in documents.into_iter().flatten() {
            assert_eq!(statements(Some(document))[0]["Condition"]["DateLessThan"], ends);
        }
        assert_limits(
            &found.notes,
            &[
                "sessions that have begun before spec.expiresAt last until their end",
                "the documents can't express activeSchedule, so steps can be taken at any time",
                "the documents can't express sessionPolicy, so whoever has a session of the role before can take",
                "the documents can't express spec.containers, so steps can be taken for every container",
                "the documents can't express podSelector, so steps can be taken for every pod",
                "every session of a role can take the next one",
            ],
        );
    }
    let trusts = chained_roles(&policy);
    let trust = statements(trusts[2].trust_policy.as_ref());
    assert_eq!(trust[0]["Condition"]["StringEquals"], json!({"sts:ExternalId": "e1"}));

    policy.on_expiry = OnExpiry::Keep;
    assert_limits(
        &chained_roles(&policy)[0].notes,
        &["from spec.expiresAt on AWS lets running pods take no step either, although spec.onExpiry is Keep"],
    );
}

#[test]
fn a_trust_policy_with_more_roles_than_iam_takes_has_a_note_with_its_size() {
    let mut policy = with_chain(vec![hop(A, None)]);
    let roles = |count: usize| (0..count).map(|number| format!("arn:aws:iam::111122223333:role/shop/orders-{number}"));
    let of_last = |policy: &Policy| chained_roles(policy).pop().unwrap().notes.join("; ");
    policy.roles.allowed = roles(20).map(|role| role.parse().unwrap()).collect();
    assert!(!of_last(&policy).contains("IAM takes"), "{}", of_last(&policy));
    policy.roles.allowed = roles(50).map(|role| role.parse().unwrap()).collect();
    assert!(
        of_last(&policy).contains("bytes; IAM takes 2048 unless"),
        "{}",
        of_last(&policy)
    );
}
