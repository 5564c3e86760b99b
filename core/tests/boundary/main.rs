//! Boundaries: the most that policies of a namespace may grant.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail as tests do")]

mod not_required;
mod outbound;
mod patterns;
mod policies;
mod sessions;

use std::sync::Arc;

use jiff::Timestamp;
use tokenscope_core::*;
use tokenscope_fixtures::policy;

const ROLES: &str = "arn:aws:iam::111122223333:role/";

fn role(name: &str) -> RolePattern {
    format!("{ROLES}{name}").parse().unwrap()
}

fn boundary(name: &str) -> Boundary {
    Boundary {
        name: name.into(),
        namespace_selector: Selector::default(),
        roles: vec![role("shop/*")],
        audiences: Vec::new(),
        max_expiration: None,
        sources: Vec::new(),
        claims: None,
        outbound_audiences: None,
        session_policy: None,
    }
}

fn inside(name: &str) -> Policy {
    Policy {
        roles: Roles {
            allowed: vec![role("shop/orders")],
            default: None,
        },
        ..policy(name)
    }
}

/// What becomes of a pod of namespace shop, whose label team is core, that asks for a role.
fn decided(policies: &PolicySet, name: &str, settings: &Settings) -> Decision {
    let pairs = |pairs: &[(&'static str, &'static str)]| -> Pairs<&'static str> { pairs.iter().copied().collect() };
    let wanted = format!("{ROLES}{name}");
    let annotations = [(annotations::ROLE_ARN, &*wanted)].into_iter().collect();
    let request = Request {
        namespace: "shop",
        namespace_labels: pairs(&[("team", "core")]),
        service_account: "orders",
        service_account_annotations: Pairs::default(),
        pod: PodFacts {
            annotations,
            containers: vec![ContainerFacts {
                name: "app",
                own_role: OwnRole::Absent,
                own_token_file: false,
                own_agent: false,
                own_configuration: tokenscope_core::OwnConfiguration::Absent,
            }],
            ..PodFacts::default()
        },
    };
    decide(&request, policies, settings, Timestamp::UNIX_EPOCH)
}

fn set(policies: impl IntoIterator<Item = Policy>, boundaries: impl IntoIterator<Item = Boundary>) -> PolicySet {
    let mut set: PolicySet = policies.into_iter().collect();
    for boundary in boundaries {
        set.insert_boundary(Arc::new(boundary));
    }
    set
}

fn is_granted(set: &PolicySet) -> bool {
    matches!(decided(set, "shop/orders", &Settings::default()), Decision::Granted(_))
}

fn refused(set: &PolicySet) -> String {
    match decided(set, "shop/orders", &Settings::default()) {
        Decision::Denied(denied) => denied.to_string(),
        other => panic!("{other:?}"),
    }
}
