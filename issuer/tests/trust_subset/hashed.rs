//! Subjects that are too long to be written out, and are a hash instead: a pattern does not match them, and a note says so.

use super::*;

fn from_issuer(name: PolicyName, accounts: &[&str]) -> Policy {
    let mut policy = policy("p");
    policy.name = name;
    policy.token.source = TokenSource::Issuer;
    policy.subjects = vec![Subject {
        service_accounts: accounts.iter().map(|name| Glob::new(name)).collect(),
        pod_selector: None,
    }];
    policy
}

fn note(policy: &Policy) -> Option<String> {
    let notes = trust(policy).unwrap().notes;
    notes.into_iter().find(|note| note.contains("is signed as a hash"))
}

/// Whether AWS takes the token of a service account of namespace shop whose name has so many characters.
fn admitted(policy: &Policy, length: usize) -> bool {
    let subject = TokenClaims::of(policy).subject("shop", &"o".repeat(length), None);
    admits(&trust(policy).unwrap(), &subject, AUDIENCES[0], now())
}

#[test]
fn f17_service_accounts_that_a_glob_does_not_match_since_their_subject_is_a_hash_are_named_in_a_note() {
    let of = |accounts: &[&str]| from_issuer(PolicyName::namespaced("shop", "orders"), accounts);
    let open = of(&["o*"]);
    let said = note(&open).unwrap();
    let named = "service accounts of namespace shop whose names have more than 228 characters";
    assert!(said.contains(named) && said.contains("without *"), "{said}");
    assert!(admitted(&open, 228) && !admitted(&open, 229));
    let with_remedy = of(&["o*", &"o".repeat(229)]);
    assert!(admitted(&with_remedy, 229));
    let exact = of(&["orders"]);
    assert_eq!(
        note(&exact),
        None,
        "a subject without a pattern is exact, also as a hash"
    );
}

#[test]
fn f17_namespaces_that_a_cluster_policys_pattern_does_not_match_are_named_in_a_note() {
    let of = |name: &str, accounts: &[&str]| {
        let mut policy = from_issuer(PolicyName::cluster(name), accounts);
        policy.token.subject_format = SubjectFormat::Policy;
        note(&policy).unwrap_or_default()
    };
    let said = of(&"p".repeat(200), &["orders"]);
    assert!(
        said.contains("namespaces whose names have more than 31 characters"),
        "{said}"
    );
    assert_eq!(of("p", &["orders"]), "");
    let said = of("p", &["orders*"]);
    assert!(said.contains("names of more than 236 characters together"), "{said}");
}
