//! Policies as people may write them: from any YAML to a decision, nothing panics, and what is refused is refused by a field's name.
//!
//! Each target runs for 5 seconds, or for a minute where `TOKENSCOPE_NIGHTLY=1`. Policies that once mattered are in `tests/corpus`;
//! every run begins with them and with changes of them. The seed is another one each time, and `TOKENSCOPE_FUZZ_SEED` repeats one.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    clippy::print_stdout,
    reason = "this is test code, also outside the tests themselves"
)]

mod policies;

use std::cell::Cell;
use std::fmt::Debug;
use std::sync::Arc;

use jiff::Timestamp;
use kube::CustomResourceExt as _;
use kube::core::DynamicObject;
use policies::{GOOD, bad, longest, too_long};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};
use tokenscope_core::annotations::ROLE_ARN;
use tokenscope_core::{ContainerFacts, Decision, OwnRole, PodFacts, PolicySet, Request, Settings, Untouched, decide};
use tokenscope_crds::read;
use tokenscope_crds::v1alpha1::ClusterTokenScopePolicy;
use tokenscope_fixtures::fuzz;

const ROLE: &str = "arn:aws:iam::111122223333:role/r";

/// Values for texts: right in some field, nearly right, or wrong everywhere.
const TEXTS: [&str; 34] = [
    "",
    " ",
    "*",
    "orders",
    "orders-*",
    "app",
    "a.b/c",
    "ä😀",
    "\0",
    "\u{202e}",
    "true",
    "null",
    "600",
    ROLE,
    "arn:aws:iam::111122223333:role/*",
    "arn:aws:iam::*:role/r",
    "sts.amazonaws.com",
    "eu-central-1",
    "${pod.name}",
    "${namespace}.${serviceAccount}",
    "${pod.labels['team']}",
    "${",
    "${x}",
    "0 8 * * 1-5",
    "0 0 30 2 *",
    "* * * * *",
    "10h",
    "1h30m",
    "Europe/Berlin",
    "UTC",
    "2027-01-01T00:00:00Z",
    "2027-01-01",
    "spiffe://example.org/app",
    "example.org",
];

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => select(&TEXTS[..]).prop_map(Value::from),
        1 => any::<String>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let key = select(&TEXTS[..]).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(key, inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// A value of the type that a schema says. What it says of texts and numbers beside their type is kept to in part.
fn by_schema(schema: &Value) -> BoxedStrategy<Value> {
    if let Some(words) = schema["enum"].as_array() {
        return select(words.clone()).boxed();
    }
    let text = || prop_oneof![8 => select(&TEXTS[..]).prop_map(str::to_owned), 1 => any::<String>()];
    match schema["type"].as_str() {
        Some("object") if schema["properties"].is_object() => fields(schema, 40),
        Some("object") => {
            let value = by_schema(&schema["additionalProperties"]);
            let pairs = prop::collection::hash_map(text(), value, 0..4);
            pairs.prop_map(|pairs| pairs.into_iter().collect()).boxed()
        }
        Some("array") => prop::collection::vec(by_schema(&schema["items"]), 0..4)
            .prop_map(Value::from)
            .boxed(),
        Some("boolean") => any::<bool>().prop_map(Value::from).boxed(),
        Some("integer") => prop_oneof![Just(600), Just(3600), Just(86_400), any::<i64>()]
            .prop_map(Value::from)
            .boxed(),
        _ => text().prop_map(Value::from).boxed(),
    }
}

/// An object with each of its fields so often of a hundred times, and at times one of another type in its place.
fn fields(schema: &Value, often: u32) -> BoxedStrategy<Value> {
    let mut all = Just(Map::new()).boxed();
    for (name, field) in schema["properties"].as_object().unwrap() {
        let name = name.clone();
        let value = prop_oneof![60 => by_schema(field), 1 => any_json()];
        let field = prop::option::weighted(f64::from(often) / 100.0, value);
        all = (all, field)
            .prop_map(move |(mut map, value)| {
                map.extend(value.map(|value| (name.clone(), value)));
                map
            })
            .boxed();
    }
    all.prop_map(Value::from).boxed()
}

/// Specs of random fields, of which most have a role, so that something is looked at beside it.
fn any_spec() -> impl Strategy<Value = Value> {
    let definition = serde_json::to_value(ClusterTokenScopePolicy::crd()).unwrap();
    let schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone();
    assert!(schema["properties"]["namespaceSelector"].is_object(), "{schema}");
    (fields(&schema, 20), 0..4_u8).prop_map(|(mut spec, with)| {
        if with > 0 {
            spec["roles"] = json!({"default": ROLE});
        }
        spec
    })
}

/// The texts of policies in the corpus, and those of the tests beside.
fn seeds() -> Vec<String> {
    let files = fuzz::corpus_of_texts(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus"));
    let good = GOOD.iter().map(|(_, spec)| (*spec).to_owned());
    files
        .into_iter()
        .chain(good)
        .chain(bad().map(|(_, spec, _)| (*spec).to_owned()))
        .collect()
}

const PIECES: [&str; 26] = [
    "{", "}", "[", "]", ":", ",", "\n", "\n  ", "- ", "'", "\"", "*", "&a ", "*a", "!!str ", "<<: ", "~", "null", "# ",
    "|\n", "0x1f", ".nan", "---\n", "roles", "default", "ä",
];

/// YAML that is near a policy's.
fn any_yaml() -> impl Strategy<Value = String> {
    let piece = prop_oneof![select(&PIECES[..]), select(&TEXTS[..])];
    let change = (any::<Index>(), 0..8_usize, piece);
    (select(seeds()), prop::collection::vec(change, 0..4)).prop_map(|(seed, changes)| {
        let mut text: Vec<char> = seed.chars().collect();
        for (at, removed, piece) in changes {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, piece.chars());
        }
        text.into_iter().collect()
    })
}

fn decided(policies: &PolicySet, asked: &[(&'static str, &'static str)]) -> Decision {
    let request = Request {
        namespace: "shop",
        namespace_labels: [("team", "shop")].into_iter().collect(),
        service_account: "orders",
        service_account_annotations: [].into_iter().collect(),
        pod: PodFacts {
            labels: [("team", "orders")].into_iter().collect(),
            annotations: asked.iter().copied().collect(),
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
    decide(&request, policies, &Settings::default(), Timestamp::UNIX_EPOCH)
}

/// Reads a spec as each kind of policy and decides by it; true if it is one.
fn check(spec: &Value) -> Result<bool, TestCaseError> {
    let mut is_policy = true;
    for (kind, metadata) in [
        ("TokenScopePolicy", json!({"name": "p", "namespace": "shop"})),
        ("ClusterTokenScopePolicy", json!({"name": "p"})),
    ] {
        let object = json!({"apiVersion": "tokenscope.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let mut policies = PolicySet::default();
        let is_read = match read::read(&object) {
            (name, Ok(policy)) => {
                prop_assert_eq!(name, policy.name.clone());
                policies.insert(Arc::new(policy));
                true
            }
            (name, Err(error)) => {
                let field = error.field.as_str();
                prop_assert!(field == "spec" || field.starts_with("spec."), "{error}");
                prop_assert!(!error.reason.is_empty() && error.to_string().len() <= 1002, "{error}");
                policies.insert_unusable(name, &error);
                false
            }
        };
        is_policy &= is_read;
        for asked in [&[][..], &[(ROLE_ARN, ROLE)]] {
            match decided(&policies, asked) {
                Decision::Granted(_) => {
                    prop_assert!(is_read, "an invalid policy grants");
                }
                Decision::Associated(associated) => prop_assert!(false, "no service account is listed: {associated:?}"),
                Decision::Denied(denied) => prop_assert!(denied.to_string().len() <= 4096),
                Decision::Untouched(why) => {
                    let is_told = matches!(&why, Untouched::NoContainer { warnings } if !warnings.is_empty());
                    prop_assert!(asked.is_empty() || is_told, "who asks hears an answer: {why:?}");
                }
            }
        }
    }
    Ok(is_policy)
}

/// Checks inputs until the time is over. At least one of so many is a policy; of few inputs fewer may be, by chance, so more are checked then.
fn fuzz<S: Strategy<Value: Debug>>(inputs: &S, one_of: u32, check: impl Fn(S::Value) -> Result<bool, TestCaseError>) {
    let policies = Cell::new(0);
    let mut checked = 0;
    for _ in 0..10 {
        checked += fuzz::fuzz(inputs, 101, |input| {
            policies.set(policies.get() + u32::from(check(input)?));
            Ok(())
        });
        println!("{} of {checked} were policies", policies.get());
        if policies.get() * one_of > checked {
            return;
        }
    }
    panic!("{checked} inputs, {} of them policies", policies.get());
}

#[test]
fn fields_at_random_are_a_policy_to_decide_by_or_are_refused_by_name() {
    fuzz(&any_spec(), 50, |spec| check(&spec));
}

#[test]
fn any_yaml_near_a_policy_is_one_to_decide_by_or_is_refused_by_name() {
    let read = |text: &str| match serde_saphyr::from_str::<Value>(text) {
        Ok(spec) => check(&spec),
        Err(_) => Ok(false),
    };
    for seed in seeds() {
        read(&seed).unwrap_or_else(|why| panic!("{seed}\n{why}"));
    }
    for spec in [longest(true), longest(false)]
        .into_iter()
        .flatten()
        .chain(too_long().into_iter().map(|(spec, _)| spec))
    {
        check(&spec).unwrap_or_else(|why| panic!("{spec}\n{why}"));
    }
    fuzz(&any_yaml(), 50, |text| read(&text));
}

#[test]
fn an_object_of_any_shape_is_read_or_refused_by_name() {
    let specs = (any_json(), any::<bool>()).prop_map(|(spec, with)| match spec {
        Value::Object(mut map) if with => {
            map.insert("roles".to_owned(), json!({"default": ROLE}));
            Value::Object(map)
        }
        _ if with => json!({"roles": {"default": ROLE}, "description": spec}),
        other => other,
    });
    fuzz(&specs, 50, |spec| check(&spec));
}
