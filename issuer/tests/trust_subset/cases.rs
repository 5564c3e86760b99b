//! Documented cases of trust policies (F4 and F17 of `e2e/tests/cases`): exact subjects, conditions, notes, and no document.

use super::*;

#[test]
fn f04_a_selector_that_names_namespaces_gives_exactly_their_subjects() {
    let mut policy = policy("p");
    policy.name = PolicyName::cluster("p");
    policy.namespace_selector = Selector(vec![requirement(NAME_LABEL, SelectorOperator::In(vec!["shop".into()]))]);
    policy.subjects = vec![Subject::default()];
    let trust = trust(&policy).unwrap();
    let document = serde_json::to_value(&trust.document).unwrap();
    assert_eq!(
        document["Statement"][0]["Condition"]["StringLike"]["oidc.example.com/id/1:sub"],
        "system:serviceaccount:shop:*"
    );
    assert_eq!(trust.notes, Vec::<String>::new());
}

#[test]
fn f04_labels_give_the_namespaces_of_now_with_a_note_or_no_document() {
    let mut policy = policy("p");
    policy.name = PolicyName::cluster("p");
    policy.subjects = vec![Subject::default()];
    let mut with = |requirement: Option<Requirement>| {
        policy.namespace_selector = Selector(requirement.into_iter().collect());
        trust(&policy)
    };
    let found = with(Some(requirement("team", SelectorOperator::In(vec!["b".into()])))).unwrap();
    let document = serde_json::to_value(&found.document).unwrap();
    assert_eq!(
        document["Statement"][0]["Condition"]["StringLike"]["oidc.example.com/id/1:sub"],
        json!(["system:serviceaccount:evil:*", "system:serviceaccount:shop-b:*"])
    );
    assert!(found.notes[0].contains("selects now"), "{:?}", found.notes);

    let found = with(None).unwrap();
    assert!(found.notes[0].contains("selects now"), "{:?}", found.notes);
    assert_eq!(
        with(Some(requirement("team", SelectorOperator::In(vec!["c".into()])))),
        None
    );
}

#[test]
fn f04_subjects_that_name_the_policy_name_the_namespaces_too_where_the_selector_names_few() {
    let of = |selector: Option<Requirement>| {
        let mut policy = policy("p");
        policy.name = PolicyName::cluster("p");
        policy.namespace_selector = Selector(selector.into_iter().collect());
        policy.token.source = TokenSource::Issuer;
        policy.token.subject_format = SubjectFormat::Policy;
        policy
    };
    let naming = |names: Vec<Box<str>>| of(Some(requirement(NAME_LABEL, SelectorOperator::In(names))));
    let admitted = |policy: &Policy, namespace: &str| {
        let subject = TokenClaims::of(policy).subject(namespace, "orders", None);
        admits(&trust(policy).unwrap(), &subject, AUDIENCES[0], now())
    };
    let shops = naming(vec!["shop".into(), "shop-b".into()]);
    assert!(admitted(&shops, "shop") && admitted(&shops, "shop-b") && !admitted(&shops, "evil"));
    let says = |note: &String| note.contains("have * for the namespace");
    assert!(!trust(&shops).unwrap().notes.iter().any(says));
    assert_eq!(trust(&naming(vec!["*".into()])), None, "no namespace has this name");

    let many = naming((0..21).map(|number| format!("n{number}").into()).collect());
    let by_label = of(Some(requirement("team", SelectorOperator::In(vec!["b".into()]))));
    for open in [many, by_label, of(None)] {
        assert!(admitted(&open, "shop-b"));
        let notes = trust(&open).unwrap().notes;
        assert!(notes.iter().any(says), "{notes:?}");
    }
}

#[test]
fn f17_expiry_is_a_condition_and_what_iam_can_not_say_a_note() {
    let mut limited = policy("p");
    limited.subjects = vec![Subject::default()];
    limited.expires_at = Some(Timestamp::from_second(NOW + 60).unwrap());
    limited.active_schedule = Some(Schedule::parse("0 8 * * *", "1h", "UTC").unwrap());
    limited.containers.include = vec![Glob::new("app")];
    let found = trust(&limited).unwrap();
    let document = serde_json::to_value(&found.document).unwrap();
    assert_eq!(
        document["Statement"][0]["Condition"]["DateLessThan"],
        json!({"aws:CurrentTime": "2027-01-15T08:01:00Z"})
    );
    for word in ["expiresAt", "activeSchedule", "spec.containers"] {
        assert!(
            found.notes.iter().any(|note| note.contains(word)),
            "{word}: {:?}",
            found.notes
        );
    }
}

#[test]
fn f17_what_never_grants_has_no_document() {
    let with = |change: &dyn Fn(&mut Policy)| {
        let mut policy = policy("p");
        policy.subjects = vec![Subject::default()];
        change(&mut policy);
        trust(&policy)
    };
    assert!(with(&|_| {}).is_some());
    assert_eq!(with(&|policy| policy.disabled = true), None);
    assert_eq!(with(&|policy| policy.expires_at = Some(now())), None);
    assert_eq!(with(&|policy| policy.subjects.clear()), None);
    let never = || Some(Schedule::parse("0 0 31 2 *", "1h", "UTC").unwrap());
    assert_eq!(with(&|policy| policy.active_schedule = never()), None);
    assert_eq!(with(&|policy| policy.containers.exclude = vec![Glob::new("*")]), None);
}

#[test]
fn f17_a_subject_whose_pod_selector_contradicts_itself_is_trusted_by_no_document() {
    let app = |name: &str| requirement("app", SelectorOperator::In(vec![name.into()]));
    let never = || Selector(vec![app("a"), app("b")]);
    let subject = |account: &str, pod_selector: Option<Selector>| Subject {
        service_accounts: vec![Glob::new(account)],
        pod_selector,
    };
    for source in [TokenSource::ServiceAccount, TokenSource::Issuer] {
        let mut policy = policy("p");
        policy.token.source = source;
        policy.subjects = vec![subject("carts", Some(never()))];
        assert_eq!(trust(&policy), None, "it never grants anything");

        policy.subjects.push(subject("orders", None));
        let found = trust(&policy).unwrap();
        let admitted = |account: &str| {
            let subject = format!("system:serviceaccount:shop:{account}");
            admits(&found, &subject, AUDIENCES[0], now())
        };
        assert!(admitted("orders") && !admitted("carts"));
    }
}

#[test]
fn f17_tags_that_persist_are_admitted_where_the_policy_gives_such_and_no_others() {
    let admitted = |transitive: &[&str], of_token: Option<&[&str]>| {
        let mut policy = policy("p");
        policy.subjects = vec![Subject {
            service_accounts: vec![Glob::new("orders")],
            pod_selector: None,
        }];
        policy.token.source = TokenSource::Issuer;
        policy.claims = Arc::new(Claims {
            principal_tags: ["team", "stage"].map(|key| (key.into(), "a".parse().unwrap())).into(),
            transitive_tag_keys: transitive.iter().map(|key| (*key).into()).collect(),
            ..Claims::default()
        });
        let mut tags = json!({"principal_tags": {"team": ["a"], "stage": ["a"]}});
        if let Some(keys) = of_token {
            tags["transitive_tag_keys"] = json!(keys);
        }
        let claims = json!({"https://aws.amazon.com/tags": tags});
        let trust = trust(&policy).unwrap();
        admits_with(
            &trust,
            "system:serviceaccount:shop:orders",
            AUDIENCES[0],
            now(),
            &claims,
        )
    };
    assert!(admitted(&[], None) && admitted(&["team"], Some(&["team"])));
    assert!(!admitted(&[], Some(&["team"])));
    assert!(!admitted(&["team"], Some(&["stage"])) && !admitted(&["team"], Some(&["team", "stage"])));
    assert!(admitted(&["team"], None), "a tag that does not persist says less");
}
