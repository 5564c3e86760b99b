//! A status has room in its schema and in etcd, whatever the schema lets a policy say.

use super::*;

const TARGET: &str = "arn:aws:iam::444455556666:role/t";
/// The most characters of a document that the schema of the status takes.
const MOST_CHARACTERS: usize = 65_536;

/// A policy with as many steps to one role, each with an external id of its own, and as many transitive tags as the schema takes.
fn many_steps() -> Value {
    let tags: Vec<String> = (0..50).map(|number| format!("tag-{number:06}")).collect();
    let chain = |place: usize| -> Value {
        let hop = |number: usize| json!({"roleArn": TARGET, "externalId": format!("{place}{number}")});
        (0..4).map(hop).collect()
    };
    let profile =
        |place: usize| json!({"name": place.to_string(), "region": "eu-central-1", "roleChain": chain(place)});
    let mut spec = default_role(ROLE);
    spec["token"] = json!({"source": "Issuer"});
    spec["claims"] = json!({
        "principalTags": tags.iter().map(|key| (key.clone(), json!("x"))).collect::<Value>(),
        "transitiveTagKeys": tags,
    });
    spec["delivery"] = json!({"type": "Profile", "profile": {"profiles": (0..6).map(profile).collect::<Value>()}});
    spec["aws"] = json!({"region": "eu-central-1", "roleChain": chain(9)});
    spec
}

#[test]
fn a_document_of_a_role_chain_that_the_schema_would_not_take_is_left_out_and_a_note_says_so() {
    let mut test = Test::with(Settings {
        issuer: Some("https://tokens.example.com".into()),
        ..Settings::default()
    });
    let policy = test.policy("orders", &many_steps());
    assert_eq!(test.reasons(&policy)[0], "Valid", "{}", test.ready_message(&policy));
    let status = test.status(&policy);
    for found in &status.role_chain_policies {
        let documents = found.permission_policy.iter().chain(&found.trust_policy);
        for document in documents {
            assert!(document.chars().count() <= MOST_CHARACTERS, "{}", document.len());
        }
        assert!(found.notes.len() <= 16, "{:?}", found.notes);
    }
    let mut chained = status.role_chain_policies.iter();
    let target = chained.find(|found| found.role_arn == TARGET).unwrap();
    assert!(target.permission_policy.is_some() && target.trust_policy.is_none());
    let is_told = |note: &String| note.contains("a document of more than 65536 bytes is left out");
    assert!(target.notes.iter().any(is_told), "{:?}", target.notes);
}

#[test]
fn the_trust_policies_of_many_roles_take_a_part_of_what_etcd_takes_and_the_message_says_how_many_there_are() {
    let mut test = Test::new();
    let names = |subject: usize| {
        (0..60)
            .map(move |number| format!("s{subject}{number:05}"))
            .collect::<Value>()
    };
    let subjects = (0..9).map(|subject| json!({"serviceAccounts": names(subject)}));
    let roles = (0..20).map(|number| format!("arn:aws:iam::111122223333:role/r{number:02}"));
    let policy = test.policy(
        "orders",
        &json!({"subjects": subjects.collect::<Value>(), "roles": {"allowed": roles.collect::<Value>()}}),
    );
    let given = test.status(&policy).trust_policies;
    assert!((1..20).contains(&given.len()), "{}", given.len());
    let bytes = serde_json::to_string(&given).unwrap().len();
    assert!(bytes <= 400_000, "{bytes}");
    let message = test.ready_message(&policy);
    let expected = format!("Trust policies are given for {} of 20 roles", given.len());
    assert!(message.contains(&expected), "{message}");
}
