//! Credentials that reach the SDK by a config file.

use tokenscope_core::config_file::{CONFIG_FILE, ConfigFile};
use tokenscope_core::delivery::{Delivery, NamedProfile, RoleHop};
use tokenscope_fixtures::ORDERS;

use super::*;

const TARGET: &str = "arn:aws:iam::444455556666:role/target";

fn hop(role: &str) -> RoleHop {
    RoleHop {
        role: role.parse().unwrap(),
        external_id: Some("e2".parse().unwrap()),
        session_name: None,
    }
}

/// A policy that delivers by a config file, whose default profile ends at [`TARGET`].
fn by_file(name: &str) -> Policy {
    let mut policy = policy(name);
    policy.delivery = Delivery::Profile(vec![NamedProfile {
        name: "reports".parse().unwrap(),
        region: "us-east-1".parse().unwrap(),
        role: Some("arn:aws:iam::111122223333:role/reports".parse().unwrap()),
        chain: Vec::new(),
    }]);
    policy.aws.region = Some("eu-central-1".parse().unwrap());
    policy.aws.role_chain = vec![hop(TARGET)];
    policy
}

fn file(granted: &Granted) -> &ConfigFile {
    granted.containers[0].grant.config_file.as_ref().unwrap()
}

fn with_own(own: OwnConfiguration<&'static str>) -> Workload {
    let mut workload = asking(ORDERS);
    workload.containers[0].own_configuration = own;
    workload
}

/// The warning of a pod that gets nothing.
fn warned(workload: &Workload) -> String {
    match workload.decided([by_file("orders")]) {
        Decision::Untouched(Untouched::NoContainer { warnings }) => warnings.join("\n"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_pod_names_the_first_role_and_the_policy_all_others() {
    let granted = asking(ORDERS).granted([by_file("orders")]);
    let text = "\
[profile tokenscope-1]
role_arn = arn:aws:iam::111122223333:role/shop/orders
web_identity_token_file = /token
region = eu-central-1
[default]
role_arn = arn:aws:iam::444455556666:role/target
source_profile = tokenscope-1
external_id = e2
region = eu-central-1
[profile reports]
role_arn = arn:aws:iam::111122223333:role/reports
web_identity_token_file = /token
region = us-east-1
";
    assert_eq!(file(&granted).text("/token", None), text);
    assert_eq!(granted.containers[0].grant.role.as_str(), ORDERS);
    let refusal = asking(TARGET).refused([by_file("orders")]);
    assert!(
        refusal.contains("does not allow arn:aws:iam::444455556666:role/target"),
        "{refusal}"
    );
    assert_eq!(
        asking(ORDERS).granted([policy("orders")]).containers[0]
            .grant
            .config_file,
        None
    );
}

#[test]
fn a_hop_without_a_session_name_has_the_policys() {
    let mut named = by_file("orders");
    named.aws.role_session_name = Some("${pod.name}".parse().unwrap());
    named.aws.role_chain.push(RoleHop {
        session_name: Some("${namespace}.last".parse().unwrap()),
        ..hop(TARGET)
    });
    let granted = asking(ORDERS).granted([named.clone()]);
    let profile = &file(&granted).profiles[0];
    assert_eq!(profile.first.session_name, Some(SessionName::PodName));
    assert_eq!(profile.chain[0].session_name, Some(SessionName::PodName));
    assert_eq!(
        profile.chain[1].session_name,
        Some(SessionName::Text("shop.last".into()))
    );

    named.aws.role_chain[1].session_name = Some("${pod.labels['tier']}".parse().unwrap());
    let granted = asking(ORDERS).granted([named]);
    assert_eq!(file(&granted).profiles[0].chain[1].session_name, None);
    assert!(
        granted.warnings[0].contains("roleSessionName of a role chain"),
        "{:?}",
        granted.warnings
    );
}

#[test]
fn without_a_region_and_with_a_role_that_no_file_can_have_it_grants_nothing_and_says_why() {
    let mut policy = by_file("orders");
    policy.aws.region = None;
    let refusal = asking(ORDERS).refused([policy.clone()]);
    assert!(refusal.contains("set spec.aws.region"), "{refusal}");
    let settings = Settings {
        default_region: Some("eu-west-1".parse().unwrap()),
        ..Settings::default()
    };
    assert!(matches!(
        asking(ORDERS).decided_with([policy], &settings),
        Decision::Granted(_)
    ));

    for role in [
        "arn:aws:iam::111122223333:role/shop/#/orders",
        "arn:aws:iam::111122223333:role/shop/[default]/orders",
        "arn:aws:iam::111122223333:role/shop/$(NAME)/orders",
        "arn:aws:iam::111122223333:role/shop/\"/orders",
    ] {
        let refusal = asking(role).refused([by_file("orders")]);
        let remedy = "use a role whose path has only letters, digits and _+=,.@:/-";
        assert!(refusal.contains(remedy), "{refusal}");
    }
}

#[test]
fn a_containers_own_configuration_is_left_alone_with_the_reason() {
    let warning = warned(&with_own(OwnConfiguration::Elsewhere("AWS_CONFIG_FILE")));
    assert!(
        warning.contains("container app gets no credentials") && warning.contains("sets AWS_CONFIG_FILE itself"),
        "{warning}"
    );
    let warning = warned(&with_own(OwnConfiguration::Profile("mine")));
    assert!(warning.contains("chooses profile mine itself"), "{warning}");
    let mut workload = asking(ORDERS);
    workload.containers[0].own_token_file = true;
    assert!(warned(&workload).contains("sets AWS_WEB_IDENTITY_TOKEN_FILE itself"));

    for own in ["default", "reports"] {
        assert_eq!(
            with_own(OwnConfiguration::Profile(own))
                .granted([by_file("orders")])
                .containers
                .len(),
            1
        );
    }
    // By variables, it is the webhook that warns.
    let by_variables = with_own(OwnConfiguration::Elsewhere("AWS_CONFIG_FILE")).granted([policy("orders")]);
    assert_eq!(by_variables.containers.len(), 1);
    assert!(CONFIG_FILE.starts_with("/var/run/secrets/tokenscope.io/"));
}

#[test]
fn two_policies_that_assign_one_role_with_different_chains_are_in_conflict() {
    let assigned = |chain: Vec<RoleHop>, name: &str| {
        let mut policy = assigning(ORDERS, by_file(name));
        policy.aws.role_chain = chain;
        policy
    };
    let refusal = workload().refused([assigned(vec![hop(TARGET)], "a"), assigned(Vec::new(), "b")]);
    assert!(
        refusal.contains("different tokens, role chains or deliveries"),
        "{refusal}"
    );
    let both = [assigned(vec![hop(TARGET)], "a"), assigned(vec![hop(TARGET)], "b")];
    assert_eq!(workload().granted(both).containers.len(), 1);
}

#[test]
fn whatever_changes_the_file_changes_the_fingerprint() {
    let changes: [fn(&mut Policy); 6] = [
        |_| {},
        |policy| policy.aws.role_chain.clear(),
        |policy| policy.aws.role_chain[0].external_id = None,
        |policy| policy.aws.region = Some("eu-west-1".parse().unwrap()),
        |policy| policy.delivery = Delivery::Profile(Vec::new()),
        |policy| policy.delivery = Delivery::File,
    ];
    let fingerprints: std::collections::BTreeSet<String> = changes
        .into_iter()
        .map(|change| {
            let mut policy = by_file("orders");
            change(&mut policy);
            let granted = asking(ORDERS).granted([policy]);
            Fingerprint::of("orders", [("app", &*granted.containers[0].grant)]).to_string()
        })
        .collect();
    assert_eq!(fingerprints.len(), changes.len());
}
