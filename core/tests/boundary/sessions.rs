//! Boundaries of what sessions may do.

use tokenscope_core::delivery::{Delivery, EndpointDelivery, SessionPolicy};
use tokenscope_core::outbound::{OutboundSource, OutboundToken};

use super::*;

const READ: &str = "arn:aws:iam::aws:policy/ReadOnlyAccess";
const AUDIT: &str = "arn:aws:iam::aws:policy/SecurityAudit";
const DOCUMENT: &str = r#"{"Version": "2012-10-17", "Statement": []}"#;

fn narrowed(inline: Option<&str>, arns: &[&str]) -> SessionPolicy {
    SessionPolicy {
        inline: inline.map(|document| document.parse().unwrap()),
        arns: arns.iter().map(|arn| arn.parse().unwrap()).collect(),
    }
}

fn bounded(most: Option<SessionPolicy>) -> Boundary {
    Boundary {
        session_policy: most,
        ..boundary("core")
    }
}

/// A policy whose sessions a sidecar takes, narrowed by these.
fn served(policy: SessionPolicy) -> Policy {
    Policy {
        delivery: Delivery::Endpoint(EndpointDelivery {
            regions: vec!["eu-central-1".parse().unwrap()],
            policy,
            ..EndpointDelivery::default()
        }),
        ..inside("orders")
    }
}

fn why(policy: &Policy, most: SessionPolicy) -> Option<String> {
    bounded(Some(most)).outside(policy).map(|why| why.to_string())
}

#[test]
fn a_session_that_is_narrowed_by_policies_of_the_boundary_alone_is_inside() {
    for (inline, arns) in [
        (Some(DOCUMENT), &[][..]),
        (None, &[READ]),
        (None, &[AUDIT, READ]),
        (Some(DOCUMENT), &[AUDIT]),
    ] {
        let set = |most| set([served(narrowed(inline, arns))], [bounded(most)]);
        assert!(is_granted(&set(Some(narrowed(Some(DOCUMENT), &[READ, AUDIT])))));
        assert!(is_granted(&set(None)), "nothing is bounded");
    }
}

#[test]
fn a_session_may_have_no_policy_that_the_boundary_does_not_have() {
    let most = || narrowed(None, &[READ]);
    assert_eq!(
        refused(&set([served(narrowed(None, &[READ, AUDIT]))], [bounded(Some(most()))])),
        "TokenScopePolicy shop/orders grants nothing: TokenScopeBoundary core does not allow spec.aws.sessionPolicy.arns[1] to be arn:aws:iam::aws:policy/SecurityAudit: it allows arn:aws:iam::aws:policy/ReadOnlyAccess"
    );
    // What one of a session's policies allows, the session may do: so a document beside the allowed ARN is one too many.
    let text = why(&served(narrowed(Some(DOCUMENT), &[READ])), most()).unwrap();
    assert!(
        text.contains("spec.aws.sessionPolicy.inline to be set: it allows no document"),
        "{text}"
    );
    let other = r#"{"Version": "2012-10-17", "Statement": [{}]}"#;
    let text = why(&served(narrowed(Some(other), &[])), narrowed(Some(DOCUMENT), &[READ])).unwrap();
    assert!(
        text.contains("to be another document: it allows only that of its sessionPolicy.inline"),
        "{text}"
    );
    let text = why(&served(narrowed(None, &[READ])), narrowed(Some(DOCUMENT), &[])).unwrap();
    assert!(text.contains("it allows no managed policies"), "{text}");
}

#[test]
fn a_session_without_a_policy_is_outside_and_so_is_whoever_takes_the_role_without_one() {
    let most = || narrowed(Some(DOCUMENT), &[READ]);
    let text = why(&served(SessionPolicy::default()), most()).unwrap();
    assert!(
        text.contains(
            "spec.aws.sessionPolicy to be left out: it allows the document of its sessionPolicy.inline, arn:aws:iam::aws:policy/ReadOnlyAccess"
        ),
        "{text}"
    );
    for (delivery, name) in [(Delivery::File, "File"), (Delivery::Profile(Vec::new()), "Profile")] {
        let policy = Policy {
            delivery,
            ..inside("orders")
        };
        let text = why(&policy, most()).unwrap();
        assert!(
            text.contains(&format!("spec.delivery.type to be {name}: it allows only Endpoint")),
            "{text}"
        );
    }
    let mut giving = served(narrowed(None, &[READ]));
    if let Delivery::Endpoint(endpoint) = &mut giving.delivery {
        endpoint.gives_tokens = true;
    }
    let text = why(&giving, most()).unwrap();
    assert!(
        text.contains("spec.delivery.endpoint.aporetoTokens to be true"),
        "{text}"
    );
}

#[test]
fn where_sessions_must_be_narrowed_tokens_for_others_have_only_audiences_that_the_boundary_names() {
    let token = OutboundToken {
        name: "vault".parse().unwrap(),
        audience: "vault".parse().unwrap(),
        source: OutboundSource::ServiceAccount,
        expiration: TokenExpiration::HOUR,
        variables: Vec::new(),
    };
    let policy = || Policy {
        outbound: [token.clone()].into(),
        ..served(narrowed(None, &[READ]))
    };
    let text = why(&policy(), narrowed(None, &[READ])).unwrap();
    assert!(text.contains("spec.outboundTokens[0].audience to be vault"), "{text}");
    let naming = Boundary {
        outbound_audiences: Some(vec!["vault".parse().unwrap()]),
        ..bounded(Some(narrowed(None, &[READ])))
    };
    assert_eq!(naming.outside(&policy()), None);
}

#[test]
fn several_boundaries_leave_what_all_of_them_have() {
    let of = |most: &[&str], name: &str| Boundary {
        session_policy: Some(narrowed(None, most)),
        ..boundary(name)
    };
    let with = |arns: &[&str]| {
        let boundaries = [of(&[READ, AUDIT], "wide"), of(&[READ], "narrow")];
        set([served(narrowed(None, arns))], boundaries)
    };
    assert!(is_granted(&with(&[READ])));
    assert!(refused(&with(&[AUDIT])).contains("TokenScopeBoundary narrow"));
}

#[test]
fn where_no_policy_is_required_a_role_without_one_has_no_session_policy_either() {
    let settings = Settings {
        policy_required: false,
        ..Settings::default()
    };
    let most = narrowed(None, &[READ]);
    let Decision::Denied(denied) = decided(&set([], [bounded(Some(most))]), "shop/orders", &settings) else {
        panic!("granted");
    };
    let text = denied.to_string();
    assert!(
        text.contains(
            "does not allow the session policy to be left out: it allows arn:aws:iam::aws:policy/ReadOnlyAccess"
        ),
        "{text}"
    );
}
