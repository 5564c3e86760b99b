//! A trust policy that IAM would not take says so (case O11 of `e2e/tests/cases/own.md`).

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

use jiff::Timestamp;
use tokenscope_core::*;
use tokenscope_fixtures::{ORDERS, policy};

/// The notes and the length without white space, which is what IAM counts, of the document for so many namespaces.
fn document(namespaces: usize) -> (Vec<String>, usize) {
    let names: Vec<String> = (0..namespaces)
        .map(|number| format!("team-kubeflow-{number:02}"))
        .collect();
    let mut policy = policy("p");
    policy.name = PolicyName::cluster("p");
    policy.namespace_selector = Selector(vec![Requirement {
        key: "kubernetes.io/metadata.name".into(),
        operator: SelectorOperator::In(names.iter().map(|name| name.as_str().into()).collect()),
    }]);
    policy.subjects = vec![Subject {
        service_accounts: vec![Glob::new("default-editor")],
        ..Subject::default()
    }];
    let context = TrustContext {
        issuer: "https://oidc.example.com/id/1",
        default_audience: &Audience::sts(),
        cluster: None,
        namespaces: names.iter().map(String::as_str).collect(),
        unserved: &Unserved::default(),
        now: Timestamp::from_second(1_800_000_000).unwrap(),
    };
    let trust = trust_policy(&policy, &ORDERS.parse().unwrap(), &context).unwrap();
    (trust.notes, serde_json::to_string(&trust.document).unwrap().len())
}

#[test]
fn o11_a_trust_policy_beyond_the_quota_of_iam_has_a_note_with_its_size() {
    let (notes, bytes) = document(20);
    assert!(bytes <= 2048, "{bytes}");
    assert_eq!(notes, Vec::<String>::new());
    let (notes, bytes) = document(40);
    assert!(bytes > 2048, "{bytes}");
    let expected = format!("the document has {bytes} bytes; IAM takes 2048 unless the account's quota was raised");
    assert_eq!(notes, [expected]);
}
