//! What the strict stand-in for AWS admits by a generated trust policy is a subset of what the rule grants, but for what a note
//! names; and it is never a namespace that the policy does not select.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokenscope_core::*;
use tokenscope_fixtures::{ORDERS, policy};
use tokenscope_sts::{Provider, Role, judge};

const ISSUER: &str = "https://oidc.example.com/id/1";
const NOW: i64 = 1_800_000_000;
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Names of namespaces, and the value of their label `team`.
const NAMESPACES: [(&str, &str); 4] = [("shop", "a"), ("shop-b", "b"), ("evil", "b"), ("kube-system", "")];

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn labels((name, team): (&'static str, &'static str)) -> Pairs<&'static str> {
    [(NAME_LABEL, name), ("team", team)]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

fn trust(policy: &Policy) -> Option<TrustPolicy> {
    let selected = NAMESPACES
        .into_iter()
        .filter(|namespace| policy.namespace_selector.matches(&labels(*namespace)));
    let context = TrustContext {
        issuer: ISSUER,
        default_audience: &Audience::sts(),
        cluster: None,
        namespaces: selected.map(|(name, _)| name).collect(),
        now: now(),
    };
    trust_policy(policy, &ORDERS.parse().unwrap(), &context)
}

/// Whether AWS takes the cluster's token of a service account at a moment.
fn admits(trust: &TrustPolicy, subject: &str, audience: &str, at: Timestamp) -> bool {
    let provider = Provider {
        url: ISSUER.into(),
        client_ids: vec!["sts.amazonaws.com".into(), "other".into()],
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
    let Value::Object(claims) = claims else { return false };
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

    fn granted(&self, policy: &Policy, at: Timestamp) -> Option<Grant> {
        let pod = PodFacts {
            labels: [("app", self.app)].into_iter().collect(),
            containers: vec![ContainerFacts {
                name: self.container,
                own_role: OwnRole::Absent,
                own_token_file: false,
                own_configuration: tokenscope_core::OwnConfiguration::Absent,
            }],
            ..PodFacts::default()
        };
        let request = Request {
            namespace: self.namespace.0,
            namespace_labels: labels(self.namespace),
            service_account: self.service_account,
            service_account_annotations: Pairs::default(),
            pod,
        };
        let policies: PolicySet = [policy.clone()].into_iter().collect();
        match decide(&request, &policies, &Settings::default(), at) {
            Decision::Granted(mut granted) => Some(std::sync::Arc::unwrap_or_clone(granted.containers.remove(0).grant)),
            Decision::Denied(_) | Decision::Untouched(_) => None,
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
    (accounts, any::<bool>()).prop_map(|(accounts, selects)| Subject {
        service_accounts: accounts.into_iter().map(Glob::new).collect(),
        pod_selector: selects.then(|| Selector(vec![requirement("app", SelectorOperator::In(vec!["a".into()]))])),
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

fn any_policy() -> impl Strategy<Value = Policy> {
    (
        0..4usize,
        prop::collection::vec(any_requirement(), 0..3),
        prop::collection::vec(any_subject(), 0..3),
        prop::option::of(-1..2i64),
        any_schedule(),
        any_containers(),
        (prop::bool::weighted(0.1), any::<bool>(), any::<bool>()),
    )
        .prop_map(
            |(place, requirements, subjects, expires, schedule, containers, (disabled, keep, other_audience))| {
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
                policy.audiences.default = other_audience.then(|| "other".parse().unwrap());
                policy
            },
        )
}

fn any_workload() -> impl Strategy<Value = Workload> {
    (
        prop::sample::select(NAMESPACES.to_vec()),
        prop::sample::select(vec!["orders", "orders-a", "carts", "default"]),
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

/// The word of the note that names why the policy's document admits what the policy does not grant.
fn excuse(policy: &Policy, workload: &Workload, at: Timestamp) -> Option<&'static str> {
    let standing = policy.standing(
        workload.namespace.0,
        &labels(workload.namespace),
        workload.service_account,
        &[("app", workload.app)].into_iter().collect::<Pairs<&str>>(),
        at,
    );
    match standing {
        Standing::OtherSubject => Some("podSelector"),
        Standing::Inactive => Some("activeSchedule"),
        Standing::Candidate => Some("spec.containers"),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn aws_admits_what_the_policy_grants_and_nothing_else_that_no_note_names(
        policy in any_policy(),
        workload in any_workload(),
        later in 0..3i64,
    ) {
        let at = Timestamp::from_second(NOW + later * 1800).unwrap();
        let granted = workload.granted(&policy, at);
        let Some(trust) = trust(&policy) else {
            prop_assert!(granted.is_none(), "granted without a document: {:?}", policy);
            return Ok(());
        };
        let text = serde_json::to_string(&trust.document).unwrap();
        prop_assert!(!text.contains("serviceaccount:*"), "{}", text);
        if let Some(grant) = &granted {
            prop_assert!(admits(&trust, &workload.subject(), grant.audience.as_str(), at), "{}", text);
        }
        for audience in ["sts.amazonaws.com", "other"] {
            if !admits(&trust, &workload.subject(), audience, at) || granted.is_some() {
                continue;
            }
            let excuse = excuse(&policy, &workload, at);
            let noted = excuse.is_some_and(|word| trust.notes.iter().any(|note| note.contains(word)));
            prop_assert!(noted, "{} admits {:?} by {:?}, and no note says {:?}", text, workload, policy, excuse);
        }
    }
}

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
