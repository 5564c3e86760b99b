//! Any text in any annotation that a decision reads.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;
use regex::Regex;
use tokenscope_core::annotations::*;
use tokenscope_core::bounds::{MOST_LIST_BYTES, MOST_LIST_ENTRIES};
use tokenscope_core::{
    ContainerFacts, Decision, OwnRole, Pairs, PodFacts, Policy, PolicySet, Request, Settings, decide,
};
use tokenscope_fixtures::{NAMESPACE, ORDERS};

use crate::{all, any_text, corpus, fuzz, in_time};

const EKS_SKIP_CONTAINERS: &str = "eks.amazonaws.com/skip-containers";

const PIECES: &[&str] = &[
    ",",
    ",,",
    " ",
    "\t",
    "\n",
    "\r\n",
    "\u{a0}",
    "\u{2028}",
    "\u{3000}",
    "\u{200b}",
    "\0",
    ";",
    "app",
    "a",
    "init",
    "ä",
    "😀",
    "true",
    "false",
    "True",
    "1",
    "0",
    "600",
    "86400",
    "-600",
    "+600",
    "99999999999999999999",
    "arn:aws:iam::",
    "111122223333",
    ":role/",
    "shop/orders",
    "*",
    "?",
    "/",
    "\"",
    "\\",
    "sts.amazonaws.com",
    ORDERS,
];

/// A pod's annotation of a container's role, of which the key is at random too.
const OF_CONTAINER: &str = "tokenscope.io/role-arn.app";

fn keys() -> Vec<&'static str> {
    let on_pods = [OF_CONTAINER, EKS_SKIP_CONTAINERS, GRANT, REVIEWED, MIRROR];
    OF_SERVICE_ACCOUNTS.into_iter().chain(on_pods).collect()
}

fn policies() -> PolicySet {
    let mut policy = Policy {
        roles: tokenscope_core::Roles {
            allowed: vec!["arn:aws:iam::111122223333:role/*".parse().unwrap()],
            default: None,
        },
        ..tokenscope_fixtures::policy("all")
    };
    policy.token.expiration = tokenscope_core::TokenExpiration::DAY;
    [policy].into_iter().collect()
}

fn settings(eks_compatible: bool) -> Settings {
    Settings {
        eks_compatible,
        ..Settings::default()
    }
}

fn decided(pod: &[(&str, &str)], service_account: &[(&str, &str)], containers: &[&str], eks: bool) -> Decision {
    let facts = |name| ContainerFacts {
        name,
        own_role: OwnRole::Absent,
        own_token_file: false,
        own_agent: false,
        own_configuration: tokenscope_core::OwnConfiguration::Absent,
    };
    let request = Request {
        namespace: NAMESPACE,
        namespace_labels: Pairs::default(),
        service_account: "orders",
        service_account_annotations: service_account.iter().copied().collect(),
        pod: PodFacts {
            annotations: pod.iter().copied().collect(),
            annotation_count: pod.len(),
            containers: containers.iter().copied().map(facts).collect(),
            ..PodFacts::default()
        },
    };
    decide(&request, &policies(), &settings(eks), Timestamp::UNIX_EPOCH)
}

/// What is said of a pod has its bounds, whatever the pod says.
fn is_bounded(decision: &Decision) -> TestCaseResult {
    let (message, warnings) = match decision {
        Decision::Denied(denied) => (denied.to_string(), &[][..]),
        Decision::Granted(granted) => (String::new(), &granted.warnings[..]),
        Decision::Associated(associated) => (String::new(), &associated.warnings[..]),
        Decision::Untouched(untouched) => (untouched.to_string(), &[][..]),
    };
    prop_assert!(message.len() <= 4096, "{} bytes: {message}", message.len());
    prop_assert!(warnings.len() <= 17 && warnings.iter().all(|warning| warning.len() <= 512));
    Ok(())
}

#[test]
fn no_text_of_an_annotation_makes_a_decision_fail_otherwise_than_with_a_refusal() {
    let texts = || any_text(corpus("annotations"), PIECES);
    let pairs = || prop::collection::vec((select(keys()), texts()), 0..6);
    let inputs = (pairs(), pairs(), texts(), any::<[bool; 2]>());
    fuzz(&inputs, |(mut pod, service_account, name, [eks, asks])| {
        if asks {
            pod.push((ROLE_ARN, ORDERS.to_owned()));
        }
        let named = format!("{CONTAINER_ROLE_ARN}{name}");
        let mut pod: Vec<_> = pod.iter().map(|(key, text)| (*key, text.as_str())).collect();
        pod.push((&named, ORDERS));
        let service_account: Vec<_> = service_account
            .iter()
            .map(|(key, text)| (*key, text.as_str()))
            .collect();
        let decision = decided(&pod, &service_account, &["init", "app", &name], eks);
        is_bounded(&decision)?;
        if let Decision::Granted(granted) = decision {
            for container in granted.containers {
                let role = container.grant.role.as_str();
                let asked = pod.iter().chain(&service_account).any(|(_, text)| *text == role);
                prop_assert!(asked, "{role} was asked for by nobody");
            }
        }
        Ok(())
    });
}

/// The most bytes that an object's annotations may have together in Kubernetes.
const MOST_ANNOTATION_BYTES: usize = 256 * 1024;

#[test]
fn the_longest_texts_of_annotations_are_decided_about_in_time() {
    let inputs = (
        select(keys()),
        any_text(corpus("annotations"), PIECES),
        any::<bool>(),
        prop_oneof![Just(2048), Just(MOST_LIST_BYTES), Just(MOST_ANNOTATION_BYTES)],
    );
    fuzz(&inputs, |(key, text, on_pod, most)| {
        let text = text.repeat(most / text.len().max(1));
        let mut pod = vec![(ROLE_ARN, ORDERS)];
        let mut service_account = vec![];
        if on_pod { &mut pod } else { &mut service_account }.push((key, text.as_str()));
        let mut decision = None;
        in_time(|| decision = Some(decided(&pod, &service_account, &["init", "app"], true)))?;
        is_bounded(&decision.unwrap())
    });
}

/// The names of a list, read character by character.
fn parts(key: &str, list: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for character in list.chars() {
        let separates = character == ',' || (key != EKS_SKIP_CONTAINERS && character.is_whitespace());
        match parts.last_mut() {
            Some(part) if !separates => part.push(character),
            _ => parts.push(String::new()),
        }
    }
    // Beside EKS's commas there may be white space.
    let parts = parts.into_iter().map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

/// The names that a container can have (RFC 1123, as Kubernetes checks it).
static LABEL: LazyLock<Regex> = LazyLock::new(|| Regex::new("^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$").unwrap());

/// Whether a pod with this list gets credentials in exactly the containers that a plain reader of the list says.
fn check_list(key: &'static str, list: &str, on_pod: bool) -> TestCaseResult {
    let listed = parts(key, list);
    let distinct: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    let whole = list.trim();
    let containers: BTreeSet<&str> = distinct
        .iter()
        .copied()
        .take(200)
        .chain(["app", "other", whole])
        .collect();
    let containers: Vec<&str> = containers.into_iter().collect();
    let mut pod = vec![(ROLE_ARN, ORDERS)];
    let mut service_account = vec![];
    if on_pod { &mut pod } else { &mut service_account }.push((key, list));
    let decision = decided(&pod, &service_account, &containers, true);

    let is_only = key == CONTAINERS;
    let may_be_empty = key != CONTAINERS;
    let is_read = on_pod || key != EKS_SKIP_CONTAINERS;
    let has_other = key != EKS_SKIP_CONTAINERS && listed.iter().any(|name| !LABEL.is_match(name));
    let is_refused = list.len() > MOST_LIST_BYTES
        || listed.len() > MOST_LIST_ENTRIES
        || has_other
        || (listed.is_empty() && !may_be_empty);
    let expected: Vec<&str> = containers
        .iter()
        .copied()
        .filter(|name| !is_read || distinct.contains(name) == is_only)
        .collect();
    match decision {
        Decision::Denied(denied) => prop_assert!(is_refused, "{denied}"),
        Decision::Untouched(why) => prop_assert!(!is_refused && expected.is_empty(), "{why}"),
        Decision::Associated(associated) => prop_assert!(false, "no service account is listed: {associated:?}"),
        Decision::Granted(granted) => {
            prop_assert!(!is_refused);
            let found: Vec<&str> = granted.containers.iter().map(|it| containers[it.container]).collect();
            prop_assert_eq!(found, expected);
        }
    }
    Ok(())
}

#[test]
fn an_accepted_list_is_exactly_the_parts_between_its_separators() {
    let lists = [CONTAINERS, SKIP_CONTAINERS, EKS_SKIP_CONTAINERS];
    all(&corpus("annotations"), |text| {
        lists
            .into_iter()
            .try_for_each(|key| check_list(key, text, true).and_then(|()| check_list(key, text, false)))
    });
    let one = any_text(corpus("annotations"), PIECES);
    let inputs = (select(lists.to_vec()), one, 1..40_usize, any::<bool>());
    fuzz(&inputs, |(key, text, times, on_pod)| {
        check_list(key, &text.repeat(times), on_pod)
    });
}
