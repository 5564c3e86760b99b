//! Credentials that a sidecar serves.

use tokenscope_core::delivery::{Delivery, EndpointDelivery, RoleHop, SessionDuration, SessionPolicy};
use tokenscope_core::outbound::{OutboundSource, OutboundToken};
use tokenscope_fixtures::ORDERS;

use super::*;

const TARGET: &str = "arn:aws:iam::444455556666:role/target";

fn served(name: &str) -> Policy {
    let mut policy = policy(name);
    policy.delivery = Delivery::Endpoint(EndpointDelivery {
        regions: vec!["eu-central-1".parse().unwrap(), "eu-west-1".parse().unwrap()],
        duration: Some(SessionDuration::HOUR),
        policy: SessionPolicy {
            inline: Some("{}".parse().unwrap()),
            arns: vec!["arn:aws:iam::aws:policy/ReadOnlyAccess".parse().unwrap()],
        },
        gives_tokens: false,
    });
    policy.aws.role_session_name = Some("${pod.name}".parse().unwrap());
    policy.aws.role_chain = vec![RoleHop {
        role: TARGET.parse().unwrap(),
        external_id: Some("e2".parse().unwrap()),
        session_name: None,
    }];
    policy
}

fn with(change: impl FnOnce(&mut EndpointDelivery)) -> Policy {
    let mut policy = served("orders");
    if let Delivery::Endpoint(endpoint) = &mut policy.delivery {
        change(endpoint);
    }
    policy
}

fn endpoint(granted: &Granted) -> &GrantedEndpoint {
    granted.containers[0].grant.endpoint.as_ref().unwrap()
}

#[test]
fn the_pod_names_the_first_role_and_the_policy_all_that_follows() {
    let granted = asking(ORDERS).granted([served("orders")]);
    let grant = &granted.containers[0].grant;
    assert_eq!((grant.role.as_str(), &grant.config_file), (ORDERS, &None));
    let endpoint = endpoint(&granted);
    let regions: Vec<&str> = endpoint.regions.iter().map(Region::as_str).collect();
    assert_eq!(regions, ["eu-central-1", "eu-west-1"]);
    assert_eq!(endpoint.chain[0].role.as_str(), TARGET);
    assert_eq!(endpoint.chain[0].external_id.as_ref().unwrap().as_str(), "e2");
    assert_eq!(
        endpoint.chain[0].session_name,
        Some(SessionName::PodName),
        "the policy's"
    );
    assert_eq!(endpoint.duration, Some(SessionDuration::HOUR));
    assert_eq!(endpoint.policy.arns.len(), 1);
    let refusal = asking(TARGET).refused([served("orders")]);
    assert!(refusal.contains(&format!("does not allow {TARGET}")), "{refusal}");
}

#[test]
fn without_regions_of_sts_it_is_the_policys_or_the_installations_region_and_without_any_a_refusal() {
    let mut policy = with(|endpoint| endpoint.regions.clear());
    let refusal = asking(ORDERS).refused([policy.clone()]);
    assert!(refusal.contains("delivery.type Endpoint needs a region"), "{refusal}");
    let settings = Settings {
        default_region: Some("eu-north-1".parse().unwrap()),
        ..Settings::default()
    };
    let by_default = granted(asking(ORDERS).decided_with([policy.clone()], &settings));
    assert_eq!(endpoint(&by_default).regions[0].as_str(), "eu-north-1");
    policy.aws.region = Some("us-east-1".parse().unwrap());
    let of_policy = granted(asking(ORDERS).decided_with([policy], &settings));
    assert_eq!(endpoint(&of_policy).regions[0].as_str(), "us-east-1");
}

#[test]
fn a_container_with_credentials_of_its_own_is_left_alone_with_the_reason() {
    type Change = fn(&mut ContainerFacts<&'static str>);
    let changes: [(Change, &str); 2] = [
        (
            |container| container.own_agent = true,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ),
        (
            |container| container.own_token_file = true,
            "AWS_WEB_IDENTITY_TOKEN_FILE",
        ),
    ];
    for (change, variable) in changes {
        let mut workload = asking(ORDERS);
        change(&mut workload.containers[0]);
        let Decision::Untouched(Untouched::NoContainer { warnings }) = workload.decided([served("orders")]) else {
            panic!("{variable}")
        };
        let warning = warnings.join("; ");
        assert!(
            warning.contains("delivers them by a sidecar and the container sets") && warning.contains(variable),
            "{warning}"
        );
    }
    let mut workload = asking(ORDERS);
    workload.containers[0].own_configuration = OwnConfiguration::Elsewhere("AWS_CONFIG_FILE");
    assert_eq!(
        workload.granted([served("orders")]).containers.len(),
        1,
        "it says nothing of credentials"
    );
}

#[test]
fn two_defaults_of_one_role_whose_sessions_may_do_different_things_are_a_conflict() {
    let of = |name: &str, policy: Policy| {
        assigning(
            ORDERS,
            Policy {
                name: PolicyName::namespaced("shop", name),
                ..policy
            },
        )
    };
    let other = |change: fn(&mut EndpointDelivery)| workload().decided([of("a", served("a")), of("b", with(change))]);
    assert!(matches!(other(|_| {}), Decision::Granted(_)));
    for change in [
        (|endpoint| endpoint.policy.inline = None) as fn(&mut EndpointDelivery),
        |endpoint| endpoint.policy.arns.clear(),
        |endpoint| endpoint.duration = None,
        |endpoint| endpoint.regions.truncate(1),
    ] {
        let Decision::Denied(denied) = other(change) else {
            panic!("two different sessions")
        };
        assert!(denied.to_string().contains("role chains or deliveries"), "{denied}");
    }
    let mut without_chain = served("b");
    without_chain.aws.role_chain.clear();
    let decision = workload().decided([of("a", served("a")), of("b", without_chain)]);
    assert!(matches!(decision, Decision::Denied(_)));
}

#[test]
fn the_status_has_both_sides_of_each_hop_as_for_a_config_file() {
    let mut policy = served("orders");
    policy.roles.allowed = vec![ORDERS.parse().unwrap()];
    let chained = chained_roles(&policy);
    let roles: Vec<&str> = chained.iter().map(|found| found.role.as_str()).collect();
    assert_eq!(roles, [ORDERS, TARGET]);
    assert!(chained[0].permission_policy.is_some() && chained[1].trust_policy.is_some());
}

#[test]
fn tokens_are_given_by_audience_where_the_policy_says_so_and_the_issuer_signs_them() {
    let issuing = |source: TokenSource, gives: bool| {
        let mut policy = with(|endpoint| endpoint.gives_tokens = gives);
        policy.token.source = source;
        policy.audiences.default = Some("sts.amazonaws.com".parse().unwrap());
        let token = |name: &str, audience: &str, source, seconds| OutboundToken {
            name: name.parse().unwrap(),
            audience: audience.parse().unwrap(),
            source,
            expiration: TokenExpiration::from_seconds(seconds).unwrap(),
            variables: Vec::new(),
        };
        policy.outbound = [
            token("vault", "https://vault.example", OutboundSource::Issuer, 1800),
            token("vault-short", "https://vault.example", OutboundSource::Issuer, 900),
            token(
                "cluster",
                "https://cluster.example",
                OutboundSource::ServiceAccount,
                900,
            ),
        ]
        .into();
        policy
    };
    let settings = Settings {
        issuer: Some("https://tokens.example.org".into()),
        ..Settings::default()
    };
    let given = |policy: Policy| -> Vec<(String, u32)> {
        let granted = granted(asking(ORDERS).decided_with([policy], &settings));
        let tokens = granted.containers[0].grant.given_tokens().into_iter();
        tokens
            .map(|(audience, expiration)| (audience.to_string(), expiration.seconds()))
            .collect()
    };
    let seconds = issuing(TokenSource::Issuer, true).token.expiration.seconds();
    assert_eq!(
        given(issuing(TokenSource::Issuer, true)),
        [
            ("sts.amazonaws.com".to_owned(), seconds),
            ("https://vault.example".to_owned(), 900)
        ],
        "the shortest of two with one audience"
    );
    assert!(given(issuing(TokenSource::Issuer, false)).is_empty());
    let mut of_cluster = issuing(TokenSource::ServiceAccount, true);
    of_cluster.outbound = [].into();
    assert!(given(of_cluster).is_empty(), "such a policy is refused before");
}
