//! The rule from outside: who gets which role by which policy, and in which words it is refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail as tests do")]

mod asking;
mod association;
mod cases;
mod containers;
mod delivery;
mod eks;
mod endpoint;
mod named;
mod outbound;
mod outbound_permission;
mod policies;
mod properties;
mod role_chain;
mod tokens;

use jiff::Timestamp;
use tokenscope_core::delivery::{Delivery, EndpointDelivery, SessionPolicy};
use tokenscope_core::*;

const CARTS: &str = "arn:aws:iam::111122223333:role/shop/carts";
const ADMIN: &str = "arn:aws:iam::111122223333:role/admin";

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

/// A policy of namespace `shop` for service account `orders` that allows `shop/*` and assigns nothing.
fn policy(name: &str) -> Policy {
    Policy {
        subjects: vec![Subject {
            service_accounts: vec![Glob::new("orders")],
            pod_selector: None,
        }],
        roles: Roles {
            allowed: vec!["arn:aws:iam::111122223333:role/shop/*".parse().unwrap()],
            default: None,
        },
        ..tokenscope_fixtures::policy(name)
    }
}

fn cluster_policy(name: &str) -> Policy {
    Policy {
        name: PolicyName::cluster(name),
        ..policy(name)
    }
}

fn assigning(role: &str, mut policy: Policy) -> Policy {
    policy.roles.default = Some(role.parse().unwrap());
    policy
}

/// Limits the policy in each way that IAM documents can't express, or only in part.
fn limit_in_every_way(policy: &mut Policy) {
    policy.expires_at = "2027-01-15T08:01:00Z".parse().ok();
    policy.on_expiry = OnExpiry::Evict;
    policy.active_schedule = Some(Schedule::parse("0 8 * * *", "1h", "UTC").unwrap());
    policy.containers.include = vec![Glob::new("app")];
    policy.subjects[0].pod_selector = Some(Selector(Vec::new()));
    policy.delivery = Delivery::Endpoint(EndpointDelivery {
        policy: SessionPolicy {
            inline: "{}".parse().ok(),
            arns: Vec::new(),
        },
        ..EndpointDelivery::default()
    });
}

/// Each of these is how a note begins, and all notes have room in the status.
fn assert_limits(notes: &[String], beginnings: &[&str]) {
    for beginning in beginnings {
        assert!(
            notes.iter().any(|note| note.starts_with(beginning)),
            "{beginning}: {notes:#?}"
        );
    }
    assert!(notes.len() <= 16 && notes.iter().all(|note| note.len() <= 1024));
}

/// A pod of service account `orders` in namespace `shop`, with container `app`.
#[derive(Debug)]
struct Workload {
    annotations: Vec<(&'static str, &'static str)>,
    service_account: Vec<(&'static str, &'static str)>,
    namespace_labels: Vec<(&'static str, &'static str)>,
    pod_labels: Vec<(&'static str, &'static str)>,
    containers: Vec<ContainerFacts<&'static str>>,
}

fn container(name: &'static str) -> ContainerFacts<&'static str> {
    ContainerFacts {
        name,
        own_role: OwnRole::Absent,
        own_token_file: false,
        own_agent: false,
        own_configuration: tokenscope_core::OwnConfiguration::Absent,
    }
}

fn workload() -> Workload {
    Workload {
        annotations: vec![],
        service_account: vec![],
        namespace_labels: vec![],
        pod_labels: vec![("app", "orders")],
        containers: vec![container("app")],
    }
}

fn asking(role: &'static str) -> Workload {
    Workload {
        annotations: vec![(annotations::ROLE_ARN, role)],
        ..workload()
    }
}

impl Workload {
    fn request(&self) -> Request<'_> {
        let pairs = |pairs: &[(&'static str, &'static str)]| pairs.iter().copied().collect::<Pairs<_>>();
        Request {
            namespace: "shop",
            namespace_labels: pairs(&self.namespace_labels),
            service_account: "orders",
            service_account_annotations: pairs(&self.service_account),
            pod: PodFacts {
                token_volumes: Vec::new(),
                labels: pairs(&self.pod_labels),
                annotations: pairs(&self.annotations),
                containers: self.containers.clone(),
                ..PodFacts::default()
            },
        }
    }

    fn with(mut self, key: &'static str, value: &'static str) -> Self {
        self.annotations.push((key, value));
        self
    }

    fn decided(&self, policies: impl IntoIterator<Item = Policy>) -> Decision {
        self.decided_with(policies, &Settings::default())
    }

    fn decided_with(&self, policies: impl IntoIterator<Item = Policy>, settings: &Settings) -> Decision {
        decide(&self.request(), &policies.into_iter().collect(), settings, now())
    }

    fn refused(&self, policies: impl IntoIterator<Item = Policy>) -> String {
        match self.decided(policies) {
            Decision::Denied(denied) => denied.to_string(),
            other => panic!("not denied: {other:?}"),
        }
    }

    fn granted(&self, policies: impl IntoIterator<Item = Policy>) -> Granted {
        granted(self.decided(policies))
    }
}

fn granted(decision: Decision) -> Granted {
    match decision {
        Decision::Granted(granted) => granted,
        other => panic!("not granted: {other:?}"),
    }
}

fn roles(granted: &Granted) -> Vec<(usize, &str)> {
    granted
        .containers
        .iter()
        .map(|container| (container.container, container.grant.role.as_str()))
        .collect()
}
