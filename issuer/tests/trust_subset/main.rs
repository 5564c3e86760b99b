//! What the strict stand-in for AWS admits by a generated trust policy is a subset of what the rule grants, but for what a note
//! names; and it is never a namespace that the policy does not select.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod cases;
mod hashed;

use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokenscope_core::pod_identity::{PodIdentity, PodIdentityAgent};
use tokenscope_core::*;
use tokenscope_fixtures::{ORDERS, policy};
use tokenscope_sts::{Provider, Role, judge};

const ISSUER: &str = "https://oidc.example.com/id/1";
const NOW: i64 = 1_800_000_000;
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The audiences that policies name and workloads ask for.
const AUDIENCES: [&str; 3] = ["sts.amazonaws.com", "other", "third"];
const ACCOUNTS: [&str; 4] = ["orders", "orders-a", "carts", "default"];
/// Names of namespaces, and the value of their label `team`.
const NAMESPACES: [(&str, &str); 4] = [("shop", "a"), ("shop-b", "b"), ("evil", "b"), ("kube-system", "")];

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

/// Who gets nothing although a policy selects it.
#[derive(Clone, Debug, Default)]
struct Excluded {
    namespaces: Vec<&'static str>,
    /// Namespaces and names.
    accounts: Vec<(&'static str, &'static str)>,
    /// Those that the configuration of EKS Pod Identity lists, likewise.
    associated: Vec<(&'static str, &'static str)>,
}

impl Excluded {
    /// The settings of an installation whose configuration of EKS Pod Identity lists these service accounts.
    fn settings(&self) -> Settings {
        let identity = |(namespace, name): &(&str, &str)| json!({"namespace": namespace, "serviceAccount": name});
        let identities: Vec<_> = self.associated.iter().map(identity).collect();
        let file = json!({"identities": identities}).to_string();
        let configured = PodIdentity::parse(&file, PodIdentityAgent::default()).unwrap();
        Settings {
            pod_identity: Some(Arc::new(configured)),
            ..Settings::eks_compatible()
        }
    }
}

fn labels((name, team): (&'static str, &'static str), out: &Excluded) -> Pairs<&'static str> {
    let inject = if out.namespaces.contains(&name) { "false" } else { "" };
    [(NAME_LABEL, name), ("team", team), (annotations::INJECT, inject)]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

fn trust(policy: &Policy) -> Option<TrustPolicy> {
    trust_where(policy, &Excluded::default())
}

/// The document as the operator asks for it where these opt out.
fn trust_where(policy: &Policy, out: &Excluded) -> Option<TrustPolicy> {
    let selected = NAMESPACES.into_iter().filter(|namespace| {
        !out.namespaces.contains(&namespace.0) && policy.namespace_selector.matches(&labels(*namespace, out))
    });
    let unserved = Unserved {
        namespaces: out.namespaces.iter().copied().collect(),
        service_accounts: out.accounts.clone(),
        associated: out.associated.clone(),
        is_incomplete: false,
    };
    let context = TrustContext {
        issuer: ISSUER,
        default_audience: &Audience::sts(),
        cluster: None,
        namespaces: selected.map(|(name, _)| name).collect(),
        unserved: &unserved,
        now: now(),
    };
    trust_policy(policy, &ORDERS.parse().unwrap(), &context)
}

/// Whether AWS takes the cluster's token of a service account at a moment.
fn admits(trust: &TrustPolicy, subject: &str, audience: &str, at: Timestamp) -> bool {
    admits_with(trust, subject, audience, at, &json!({}))
}

/// The same of a token with further claims.
fn admits_with(trust: &TrustPolicy, subject: &str, audience: &str, at: Timestamp, further: &Value) -> bool {
    let provider = Provider {
        url: ISSUER.into(),
        client_ids: AUDIENCES.map(Into::into).to_vec(),
        account: "111122223333".into(),
        partition: "aws".into(),
        context_provider: None,
    };
    let role = Role {
        arn: ORDERS.into(),
        trust_policy: serde_json::to_value(&trust.document).unwrap(),
        max_session_duration: 3600,
    };
    let claims = json!({
        "iss": ISSUER, "sub": subject, "aud": [audience], "iat": at.as_second() - 1, "nbf": at.as_second() - 1,
        "exp": at.as_second() + 3600,
    });
    let Value::Object(mut claims) = claims else {
        return false;
    };
    claims.extend(
        further
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, claim)| (name.clone(), claim.clone())),
    );
    judge(&provider, &role, &claims, at).is_ok()
}

/// A pod as far as it counts.
#[derive(Clone, Debug)]
struct Workload {
    namespace: (&'static str, &'static str),
    service_account: &'static str,
    app: &'static str,
    container: &'static str,
}

impl Workload {
    fn subject(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace.0, self.service_account)
    }

    /// True if its service account opts out.
    fn opts_out(&self, out: &Excluded) -> bool {
        out.accounts.contains(&(self.namespace.0, self.service_account))
    }

    /// What the rule grants it where it asks for an audience, or for none.
    fn granted(&self, audience: Option<&str>, policy: &Policy, out: &Excluded, at: Timestamp) -> Option<Grant> {
        let asked = audience.map(|audience| (annotations::AUDIENCE, audience));
        let pod = PodFacts {
            annotations: asked.into_iter().collect(),
            labels: [("app", self.app)].into_iter().collect(),
            containers: vec![ContainerFacts {
                name: self.container,
                own_role: OwnRole::Absent,
                own_token_file: false,
                own_agent: false,
                own_configuration: tokenscope_core::OwnConfiguration::Absent,
            }],
            ..PodFacts::default()
        };
        let request = Request {
            namespace: self.namespace.0,
            namespace_labels: labels(self.namespace, out),
            service_account: self.service_account,
            service_account_annotations: self
                .opts_out(out)
                .then_some((annotations::INJECT, "false"))
                .into_iter()
                .collect(),
            pod,
        };
        let policies: PolicySet = [policy.clone()].into_iter().collect();
        match decide(&request, &policies, &out.settings(), at) {
            Decision::Granted(mut granted) => Some(Arc::unwrap_or_clone(granted.containers.remove(0).grant)),
            Decision::Associated(_) | Decision::Denied(_) | Decision::Untouched(_) => None,
        }
    }
}

fn requirement(key: &str, operator: SelectorOperator) -> Requirement {
    Requirement {
        key: key.into(),
        operator,
    }
}

fn any_requirement() -> impl Strategy<Value = Requirement> {
    let names = prop::collection::vec(prop::sample::select(vec!["shop", "shop-b", "gone", "*", "s*"]), 0..3);
    let teams = prop::collection::vec(prop::sample::select(vec!["a", "b"]), 0..3);
    let texts = |list: Vec<&str>| list.into_iter().map(Into::into).collect::<Vec<Box<str>>>();
    prop_oneof![
        names
            .clone()
            .prop_map(move |names| requirement(NAME_LABEL, SelectorOperator::In(texts(names)))),
        names.prop_map(move |names| requirement(NAME_LABEL, SelectorOperator::NotIn(texts(names)))),
        teams
            .clone()
            .prop_map(move |teams| requirement("team", SelectorOperator::In(texts(teams)))),
        teams.prop_map(move |teams| requirement("team", SelectorOperator::NotIn(texts(teams)))),
        Just(requirement("team", SelectorOperator::Exists)),
        Just(requirement("team", SelectorOperator::DoesNotExist)),
    ]
}

fn any_subject() -> impl Strategy<Value = Subject> {
    let accounts = prop::collection::vec(
        prop::sample::select(vec!["orders", "carts", "orders*", "*s", "*"]),
        0..3,
    );
    // Two that contradict each other select no pod.
    let apps = prop::sample::select(vec![vec![], vec!["a"], vec!["a", "b"]]);
    let is = |app: &str| requirement("app", SelectorOperator::In(vec![app.into()]));
    (accounts, prop::option::of(apps)).prop_map(move |(accounts, apps)| Subject {
        service_accounts: accounts.into_iter().map(Glob::new).collect(),
        pod_selector: apps.map(|apps| Selector(apps.into_iter().map(is).collect())),
    })
}

fn any_schedule() -> impl Strategy<Value = Option<Schedule>> {
    let times = prop::sample::select(vec!["0 8 * * *", "* * * * *", "0 0 31 2 *"]);
    prop::option::of(times.prop_map(|cron| Schedule::parse(cron, "30m", "UTC").unwrap()))
}

fn any_containers() -> impl Strategy<Value = ContainerFilter> {
    let names = || prop::collection::vec(prop::sample::select(vec!["app", "a*", "*"]).prop_map(Glob::new), 0..2);
    (names(), names()).prop_map(|(include, exclude)| ContainerFilter { include, exclude })
}

/// Those that a policy can have: its default is among those that it allows.
fn any_audiences() -> impl Strategy<Value = Audiences> {
    let named = || prop::sample::select(AUDIENCES.to_vec()).prop_map(|audience| audience.parse::<Audience>().unwrap());
    (prop::collection::vec(named(), 0..3), prop::option::of(named())).prop_map(|(allowed, default)| Audiences {
        default: default.filter(|default| allowed.is_empty() || allowed.contains(default)),
        allowed,
    })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    (
        0..4usize,
        prop::collection::vec(any_requirement(), 0..3),
        prop::collection::vec(any_subject(), 0..3),
        prop::option::of(-1..2i64),
        any_schedule(),
        any_containers(),
        (prop::bool::weighted(0.1), any::<bool>(), any_audiences()),
    )
        .prop_map(
            |(place, requirements, subjects, expires, schedule, containers, (disabled, keep, audiences))| {
                let mut policy = policy("p");
                policy.name = match NAMESPACES.get(place).filter(|_| place < 2) {
                    Some((namespace, _)) => PolicyName::namespaced(namespace, "p"),
                    None => PolicyName::cluster("p"),
                };
                if policy.name.is_cluster() {
                    policy.namespace_selector = Selector(requirements);
                }
                policy.subjects = subjects;
                policy.roles.default = Some(ORDERS.parse().unwrap());
                policy.expires_at = expires.map(|hours| Timestamp::from_second(NOW + hours * 3600).unwrap());
                policy.active_schedule = schedule;
                policy.containers = containers;
                policy.disabled = disabled;
                policy.on_expiry = if keep { OnExpiry::Keep } else { OnExpiry::Evict };
                policy.audiences = audiences;
                policy
            },
        )
}

fn any_workload() -> impl Strategy<Value = Workload> {
    (
        prop::sample::select(NAMESPACES.to_vec()),
        prop::sample::select(ACCOUNTS.to_vec()),
        prop::sample::select(vec!["a", "b"]),
        prop::sample::select(vec!["app", "web"]),
    )
        .prop_map(|(namespace, service_account, app, container)| Workload {
            namespace,
            service_account,
            app,
            container,
        })
}

fn any_excluded() -> impl Strategy<Value = Excluded> {
    let namespace = || prop::sample::select(NAMESPACES.map(|(name, _)| name).to_vec());
    let account = (namespace(), prop::sample::select(ACCOUNTS.to_vec()));
    (
        prop::collection::vec(namespace(), 0..3),
        prop::collection::vec(account.clone(), 0..4),
        prop::collection::vec(account, 0..3),
    )
        .prop_map(|(namespaces, accounts, associated)| Excluded {
            namespaces,
            accounts,
            associated,
        })
}

/// The words of the note that names why the policy's document admits what the policy does not grant.
fn excuse(policy: &Policy, workload: &Workload, out: &Excluded, at: Timestamp) -> Option<[String; 2]> {
    let (namespace, account) = (workload.namespace.0, workload.service_account);
    if out.namespaces.contains(&namespace) {
        return Some(["no pod of these namespaces".into(), format!(" {namespace}")]);
    }
    if workload.opts_out(out) {
        return Some(["opt out".into(), format!("{namespace}/{account}")]);
    }
    if out.associated.contains(&(namespace, account)) {
        return Some([
            "association of EKS Pod Identity".into(),
            format!("{namespace}/{account}"),
        ]);
    }
    let standing = policy.standing(
        namespace,
        &labels(workload.namespace, out),
        account,
        &[("app", workload.app)].into_iter().collect::<Pairs<&str>>(),
        at,
    );
    let word = match standing {
        Standing::OtherSubject => "podSelector",
        Standing::Inactive => "activeSchedule",
        Standing::Candidate => "spec.containers",
        _ => return None,
    };
    Some([word.into(), String::new()])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn aws_admits_what_the_policy_grants_and_nothing_else_that_no_note_names(
        policy in any_policy(),
        workload in any_workload(),
        out in any_excluded(),
        later in 0..3i64,
    ) {
        let at = Timestamp::from_second(NOW + later * 1800).unwrap();
        let granted = workload.granted(None, &policy, &out, at);
        let Some(trust) = trust_where(&policy, &out) else {
            prop_assert!(granted.is_none(), "granted without a document: {:?}", policy);
            return Ok(());
        };
        let text = serde_json::to_string(&trust.document).unwrap();
        prop_assert!(!text.contains("serviceaccount:*"), "{}", text);
        if let Some(grant) = &granted {
            prop_assert!(admits(&trust, &workload.subject(), grant.audience.as_str(), at), "{}", text);
        }
        for audience in AUDIENCES {
            let asking = workload.granted(Some(audience), &policy, &out, at);
            let is_granted = asking.iter().chain(&granted).any(|grant| grant.audience.as_str() == audience);
            let is_admitted = admits(&trust, &workload.subject(), audience, at);
            if policy.audiences.allowed.iter().any(|allowed| allowed.as_str() == audience) {
                prop_assert!(is_admitted || !is_granted, "{} is granted and not admitted by {}", audience, text);
            }
            if !is_admitted || is_granted {
                continue;
            }
            // No note names an audience: what a granted workload may not have is no other limit's fault.
            let excuse = excuse(&policy, &workload, &out, at).filter(|_| granted.is_none());
            let says = |note: &String, words: &[String; 2]| words.iter().all(|word| note.contains(word));
            let noted = excuse.as_ref().is_some_and(|words| trust.notes.iter().any(|note| says(note, words)));
            prop_assert!(noted, "{} admits {:?} by {:?}, and no note says {:?}", text, workload, policy, excuse);
        }
    }
}
