//! The IAM documents of a policy whose tokens pass session tags on, walked with boto3: the stand-in is told nothing else.

use std::sync::Arc;

use serde_json::{Value, json};
use tokenscope_core::delivery::{Delivery, RoleHop};
use tokenscope_core::{Claims, Policy, TokenSource, chained_roles};
use tokenscope_sts::{Permissions, Role, Server};

use crate::boto3::calls;
use crate::{EXTERNAL_ID, FAR, NEAR, stand_in};

/// A role of a third account, which is taken after the other two.
const BEYOND: &str = "arn:aws:iam::777788889999:role/beyond";

/// A policy with a chain of both further roles, whose tokens have the tag `Team` and pass it on.
fn policy() -> Policy {
    let hop = |role: &str, external_id: Option<&str>| RoleHop {
        role: role.parse().unwrap(),
        external_id: external_id.map(|id| id.parse().unwrap()),
        session_name: None,
    };
    let mut policy = tokenscope_fixtures::policy("orders");
    policy.roles.allowed = vec![NEAR.parse().unwrap()];
    policy.aws.role_chain = vec![hop(FAR, Some(EXTERNAL_ID)), hop(BEYOND, None)];
    policy.delivery = Delivery::Profile(Vec::new());
    policy.token.source = TokenSource::Issuer;
    policy.claims = Arc::new(Claims {
        principal_tags: [("Team".into(), "core".parse().unwrap())].into(),
        transitive_tag_keys: vec!["Team".into()],
        ..Claims::default()
    });
    policy
}

/// The roles' permissions and trust policies, each with the role.
struct Documents {
    permissions: Vec<(String, Value)>,
    trust: Vec<(String, Value)>,
}

impl Documents {
    fn of(policy: &Policy) -> Self {
        let mut documents = Self {
            permissions: Vec::new(),
            trust: Vec::new(),
        };
        for found in chained_roles(policy) {
            let role = found.role.to_string();
            if let Some(document) = &found.permission_policy {
                let document = serde_json::to_value(document).unwrap();
                documents.permissions.push((role.clone(), document));
            }
            if let Some(document) = &found.trust_policy {
                documents.trust.push((role, serde_json::to_value(document).unwrap()));
            }
        }
        documents
    }

    /// From now on the stand-in goes by them.
    fn apply(&self, sts: &Server) {
        for (principal, document) in &self.permissions {
            let permissions = Permissions {
                principal: principal.clone(),
                policies: vec![document.clone()],
                ..Permissions::default()
            };
            sts.set_permissions(permissions).unwrap();
        }
        for (arn, document) in &self.trust {
            let role = Role {
                arn: arn.clone(),
                trust_policy: document.clone(),
                max_session_duration: 3600,
            };
            sts.set_role(&role).unwrap();
        }
    }
}

/// Takes a permission out of a document.
fn without(document: &Value, action: &str) -> Value {
    let mut document = document.clone();
    let actions = document["Statement"][0]["Action"].as_array_mut().unwrap();
    let count = actions.len();
    actions.retain(|allowed| allowed != action);
    assert_eq!(actions.len() + 1, count, "{action} was there");
    document
}

/// A call for a role with these tags, of which these keys are passed on.
fn take(role: &str, tags: &[(&str, &str)], transitive: &[&str], by: Option<usize>) -> Value {
    let mut with = json!({"RoleArn": role, "RoleSessionName": "pod-1"});
    if role == FAR {
        with["ExternalId"] = json!(EXTERNAL_ID);
    }
    if !tags.is_empty() {
        let tag = |(key, value): &(&str, &str)| json!({"Key": key, "Value": value});
        with["Tags"] = tags.iter().map(tag).collect();
    }
    if !transitive.is_empty() {
        with["TransitiveTagKeys"] = json!(transitive);
    }
    json!({"call": "assume_role", "with": with, "as": by})
}

fn tags_of(sts: &Server, outcome: &Value) -> Value {
    let key = outcome["Credentials"]["AccessKeyId"].as_str().unwrap();
    let session = sts.session(key).unwrap();
    json!(session.principal_tags)
}

const TEAM: (&str, &str) = ("Team", "core");
const JOB: (&str, &str) = ("Job", "7");

fn refused(action: &str) -> String {
    format!(
        "User: arn:aws:sts::111122223333:assumed-role/near/pod-1 is not authorized to perform: {action} on resource: {FAR}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_let_the_tags_through_that_the_policy_passes_on_and_no_others() {
    let sts = stand_in().await.unwrap();
    Documents::of(&policy()).apply(&sts);
    let outcomes = calls(
        &sts.url(),
        &json!([
            take(NEAR, &[TEAM], &["Team"], None),
            take(FAR, &[], &[], Some(0)),
            take(BEYOND, &[], &[], Some(1)),
            take(NEAR, &[], &[], None),
            take(FAR, &[TEAM], &["Team"], Some(3)),
            take(BEYOND, &[], &[], Some(4)),
            take(FAR, &[], &[], Some(3)),
            take(FAR, &[JOB], &[], Some(0)),
            take(FAR, &[JOB], &["Job"], Some(3)),
            take(FAR, &[TEAM, JOB], &["Team"], Some(3)),
        ]),
    )
    .unwrap();
    for step in [1, 2, 4, 5] {
        assert_eq!(tags_of(&sts, &outcomes[step]), json!({"Team": "core"}), "step {step}");
    }
    assert_eq!(tags_of(&sts, &outcomes[6]), json!({}), "tags may be left out");
    for step in [7, 8, 9] {
        assert_eq!(outcomes[step]["Message"], refused("sts:AssumeRole"), "step {step}");
    }
    sts.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tag_session_on_either_side_no_tag_goes_through() {
    let sts = stand_in().await.unwrap();
    let steps = json!([
        take(NEAR, &[TEAM], &["Team"], None),
        take(FAR, &[], &[], Some(0)),
        take(NEAR, &[], &[], None),
        take(FAR, &[TEAM], &["Team"], Some(2)),
        take(FAR, &[], &[], Some(2))
    ]);
    for side in ["permission", "trust"] {
        let mut documents = Documents::of(&policy());
        let of_side = match side {
            "permission" => &mut documents.permissions,
            _ => &mut documents.trust,
        };
        for (_, document) in of_side {
            *document = without(document, "sts:TagSession");
        }
        documents.apply(&sts);
        let outcomes = calls(&sts.url(), &steps).unwrap();
        for step in [1, 3] {
            assert_eq!(
                outcomes[step]["Message"],
                refused("sts:TagSession"),
                "{side}, step {step}"
            );
        }
        assert_eq!(
            tags_of(&sts, &outcomes[4]),
            json!({}),
            "{side}: without a tag it is not needed"
        );
    }
    sts.stop().await;
}
