//! What the status of policies says.

use super::*;

#[test]
fn two_defaults_for_one_pod_show_on_both_policies_until_one_goes() {
    let mut test = Test::new();
    let one = test.policy("one", &default_role(ROLE));
    let two = test.policy("two", &default_role(OTHER_ROLE));
    let same = test.policy(
        "same",
        &json!({"subjects": [{"serviceAccounts": ["other"]}], "roles": {"default": ROLE}}),
    );
    for (policy, other) in [(&one, "shop/two"), (&two, "shop/one")] {
        assert_eq!(test.reasons(policy)[2], "Conflict");
        let message = test.ready_message(policy);
        assert!(
            message.contains(other) && message.contains(ROLE) && message.contains(OTHER_ROLE),
            "{message}"
        );
    }
    assert_eq!(test.reasons(&same)[2], "UpToDate");

    test.policy_object("two", 2, &default_role(&format!("{OTHER_ROLE}s")));
    assert!(test.ready_message(&one).contains(&format!("{OTHER_ROLE}s")));
    test.policy_object("two", 3, &default_role(ROLE));
    assert_eq!(test.written().len(), 2);
    assert_eq!(test.reasons(&one)[2], "UpToDate");
    test.policy_object("two", 4, &default_role(OTHER_ROLE));
    assert_eq!(test.reasons(&one)[2], "Conflict");
    test.delete_policy(&two);
    assert_eq!(test.written(), std::slice::from_ref(&one));
    assert_eq!(test.reasons(&one)[2], "UpToDate");
}

#[test]
fn a_conflict_ends_when_one_side_expires() {
    let mut test = Test::new();
    let one = test.policy("one", &default_role(ROLE));
    let mut ending = default_role(OTHER_ROLE);
    ending["expiresAt"] = at("11:00").to_string().into();
    let two = test.policy("two", &ending);
    assert_eq!(test.reasons(&one)[2], "Conflict");
    test.now = at("11:00");
    assert!(test.index.is_dirty(test.now));
    assert_eq!(test.reasons(&one)[2], "UpToDate");
    assert_eq!(test.reasons(&two), ["Valid", "Expired", "NotInForce"]);
}

#[test]
fn an_unusable_policy_says_what_is_wrong_and_the_others_go_on() {
    let mut test = Test::new();
    let bad = test.policy("bad", &json!({"subjects": [{}], "roles": {"default": "nonsense"}}));
    let shape = test.policy("shape", &json!({"subjects": 7}));
    let good = test.policy("good", &default_role(ROLE));
    test.injected_pod("a", at("07:00"));

    assert_eq!(test.reasons(&bad), ["Invalid", "Unusable", "NotAccepted"]);
    assert_eq!(test.reasons(&shape), ["Invalid", "Unusable", "NotAccepted"]);
    let message = test.status(&bad).conditions[0].message.clone();
    assert!(message.starts_with("spec.roles.default: \"nonsense\""), "{message}");
    assert_eq!(test.counts(&good), [1, 1, 0, 0]);
}

#[test]
fn a_source_that_this_version_lacks_is_not_accepted() {
    let mut test = Test::new();
    let mut spec = default_role(ROLE);
    spec["token"] = json!({"source": "Issuer"});
    let policy = test.policy("orders", &spec);
    assert_eq!(test.reasons(&policy), ["SourceNotAvailable", "Unusable", "NotAccepted"]);
    assert_eq!(test.status(&policy).trust_policies, []);
}

#[test]
fn a_policy_beyond_a_boundary_of_its_namespace_is_not_accepted_and_the_message_says_why() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    assert_eq!(test.reasons(&policy)[0], "Valid");
    let boundary = |spec: Value| -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopeBoundary", "metadata": {"name": "core"}, "spec": spec,
        }))
        .unwrap()
    };
    let spec = json!({
        "namespaceSelector": {"matchLabels": {"team": "core"}},
        "roles": ["arn:aws:iam::111122223333:role/none"],
    });

    test.apply(IndexEvent::Boundary(Event::Apply(boundary(spec.clone()))));
    assert_eq!(test.reasons(&policy)[0], "Valid", "it selects other namespaces");
    assert_eq!(test.status(&policy).trust_policies.len(), 1);

    test.namespace("shop", &json!({"team": "core"}));
    assert_eq!(test.reasons(&policy), ["OutsideBoundary", "Unusable", "NotAccepted"]);
    assert_eq!(test.status(&policy).trust_policies, [], "it grants nothing");
    let message = test.status(&policy).conditions[0].message.clone();
    assert!(
        message.contains("TokenScopeBoundary core does not allow spec.roles.default"),
        "{message}"
    );

    test.apply(IndexEvent::Boundary(Event::Delete(boundary(spec))));
    assert_eq!(test.reasons(&policy)[0], "Valid");
    assert_eq!(test.status(&policy).trust_policies.len(), 1);

    test.apply(IndexEvent::Boundary(Event::Apply(boundary(json!({"roles": []})))));
    let message = test.status(&policy).conditions[0].message.clone();
    assert!(message.contains("can't be used"), "{message}");
}

#[test]
fn trust_policies_are_given_for_exact_roles() {
    let mut test = Test::new();
    let spec = json!({
        "subjects": [{"serviceAccounts": ["orders"], "podSelector": {"matchLabels": {"app": "orders"}}}],
        "roles": {"default": ROLE, "allowed": [ROLE, OTHER_ROLE, "arn:aws:iam::111122223333:role/shop/*"]},
    });
    let policy = test.policy("orders", &spec);
    let trust = test.status(&policy).trust_policies;
    let roles: Vec<_> = trust.iter().map(|trust| trust.role_arn.as_str()).collect();
    assert_eq!(roles, [ROLE, OTHER_ROLE]);
    let document: Value = serde_json::from_str(&trust[0].document).unwrap();
    let statement = &document["Statement"][0];
    assert_eq!(
        statement["Principal"]["Federated"],
        "arn:aws:iam::111122223333:oidc-provider/oidc.example.com/id/1"
    );
    assert_eq!(
        statement["Condition"]["StringEquals"]["oidc.example.com/id/1:sub"],
        "system:serviceaccount:shop:orders"
    );
    assert!(trust[0].notes[0].contains("podSelector"));

    test.apply(IndexEvent::Issuer(Issuer::Unknown));
    assert_eq!(test.status(&policy).trust_policies, []);
    assert!(test.ready_message(&policy).contains("has not said what its issuer is"));
}

#[test]
fn at_most_twenty_trust_policies_are_given_and_the_status_says_so() {
    let mut test = Test::new();
    let allowed: Vec<String> = (10..40).map(|n| format!("{ROLE}-{n}")).collect();
    let policy = test.policy("many", &json!({"subjects": [{}], "roles": {"allowed": allowed}}));
    assert_eq!(test.status(&policy).trust_policies.len(), 20);
    assert!(test.ready_message(&policy).contains("20 of 30 roles"));
}

#[test]
fn nothing_is_written_twice() {
    let mut test = Test::new();
    test.policy("orders", &default_role(ROLE));
    test.policy("bad", &json!({"subjects": 7}));
    test.pod("a", at("07:00"), &json!({}));
    assert_eq!(test.written().len(), 2);

    test.now = at("10:05");
    test.index.enqueue_all_statuses();
    assert_eq!(test.written(), [], "also when all is looked at again");
    // The watch brings what was written.
    test.policy("orders", &default_role(ROLE));
    test.pod("a", at("07:00"), &json!({"somebody.else/annotation": "x"}));
    assert!(!test.index.is_dirty(test.now));
    assert_eq!(test.written(), []);
}

#[test]
fn what_somebody_else_wrote_into_the_status_is_corrected() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    let right = test.status(&policy);
    test.index.objects.get_mut(&policy).unwrap().status = PolicyStatus::default();
    test.policy("orders", &default_role(ROLE));
    test.index.enqueue_status(policy.clone());
    test.now = at("10:05");
    let mut again = test.status(&policy);
    for (present, before) in again.conditions.iter_mut().zip(&right.conditions) {
        present.last_transition_time = before.last_transition_time.clone();
    }
    assert_eq!(again, right);
}

#[test]
fn a_status_keeps_the_time_of_a_condition_until_it_flips() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    test.written();
    test.now = at("11:00");
    test.pod("a", at("10:30"), &json!({}));
    let status = test.status(&policy);
    let times: Vec<_> = status
        .conditions
        .iter()
        .map(|found| found.last_transition_time.0)
        .collect();
    assert_eq!(times, [at("10:00"), at("10:00"), at("11:00")], "only Ready has flipped");
}

#[test]
fn trust_policies_name_who_opts_out_and_is_trusted_all_the_same() {
    let mut test = Test::new();
    let spec = json!({"subjects": [{"serviceAccounts": ["ord*"]}], "roles": {"default": ROLE}});
    let own = test.policy("orders", &spec);
    let mut of_all = spec.clone();
    of_all["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": "shop"}});
    let cluster = test.cluster_policy("orders", &of_all);
    let notes = |test: &mut Test| {
        let of = |name: &PolicyName, test: &mut Test| test.status(name).trust_policies[0].notes.join("\n");
        let (own, cluster) = (of(&own, test), of(&cluster, test));
        assert_eq!(own, cluster);
        own
    };
    let account = |name: &str, inject: &str| {
        let annotations = json!({"tokenscope.io/inject": inject});
        let object = json!({"metadata": {"name": name, "namespace": "shop", "annotations": annotations}});
        IndexEvent::ServiceAccount(Event::Apply(serde_json::from_value(object).unwrap()))
    };
    let named = json!({"kubernetes.io/metadata.name": "shop"});
    test.namespace("shop", &named);
    assert_eq!(notes(&mut test), "");

    test.apply(account("orders", "false"));
    test.apply(account("ord-b", "true"));
    test.apply(account("carts", "false"));
    let said = notes(&mut test);
    assert!(
        said.contains("opt out by their annotation") && said.ends_with("not name them: shop/orders"),
        "{said}"
    );
    test.apply(account("orders", "true"));
    assert_eq!(notes(&mut test), "");

    let mut opted_out = named.clone();
    opted_out["tokenscope.io/inject"] = "false".into();
    test.namespace("shop", &opted_out);
    let said = notes(&mut test);
    assert!(said.ends_with("yet the document trusts their tokens: shop"), "{said}");
    test.namespace("shop", &named);
    assert_eq!(notes(&mut test), "");
}

#[test]
fn a_namespace_with_very_many_service_accounts_hides_none_that_opts_out_after_it() {
    let mut test = Test::new();
    let names = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a-crowd", "z-out"]});
    let policy = test.cluster_policy(
        "orders",
        &json!({
            "subjects": [{"serviceAccounts": ["orders"]}], "roles": {"default": ROLE},
            "namespaceSelector": {"matchExpressions": [names]},
        }),
    );
    test.namespace("a-crowd", &json!({"kubernetes.io/metadata.name": "a-crowd"}));
    let opted_out = json!({"kubernetes.io/metadata.name": "z-out", "tokenscope.io/inject": "false"});
    test.namespace("z-out", &opted_out);
    for number in 0..1025 {
        let annotations = json!({"tokenscope.io/inject": "true"});
        let metadata = json!({"name": format!("account-{number}"), "namespace": "a-crowd", "annotations": annotations});
        let object = serde_json::from_value(json!({"metadata": metadata})).unwrap();
        test.apply(IndexEvent::ServiceAccount(Event::Apply(object)));
    }
    let notes = test.status(&policy).trust_policies[0].notes.join("\n");
    assert!(notes.contains("trusts their tokens: z-out"), "{notes}");
    assert!(notes.contains("than were looked at"), "{notes}");
}
