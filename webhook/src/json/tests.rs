//! What is read, what is passed over and what is refused, beside serde_json.

use std::fmt;

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokenscope_core::pod::{Pod, Text};

use super::*;

fn message<'a, T: Deserialize<'a> + fmt::Debug>(text: &'a str) -> String {
    from_str::<T>(text).unwrap_err().to_string()
}

#[test]
fn an_error_says_what_is_wrong_and_where() {
    for (text, expected) in [
        ("", "expected a value, but the text ends at byte 0"),
        ("{", "expected a member's name, but the text ends at byte 1"),
        (r#"{"a":1,}"#, "expected a member's name, found '}' at byte 7"),
        (r#"{"a" 1}"#, "expected ':', found '1' at byte 5"),
        (r#"{"a":1 "b":2}"#, "expected ',' or '}', found '\"' at byte 7"),
        ("[1 2]", "expected ',' or ']', found '2' at byte 3"),
        ("[1,]", "expected a value, found ']' at byte 3"),
        ("[ä]", "expected a value, found 'ä' at byte 1"),
        ("[01]", "a number that begins with 0 at byte 3"),
        ("[-]", "expected a digit, found ']' at byte 2"),
        ("1e999", "a number out of range at byte 5"),
        ("nul", "expected a value, found 'n' at byte 0"),
        (r#""a"#, "the text ends in a string at byte 2"),
        ("\"\t\"", "a control character in a string at byte 1"),
        (r#""\x""#, "an escape that JSON does not know at byte 1"),
        (r#""\u12g4""#, "\\u without four hexadecimal digits at byte 3"),
        (r#""\ud800""#, "half a surrogate pair at byte 7"),
        (r#""\ud800\u0041""#, "half a surrogate pair at byte 13"),
        ("1 2", "more text follows the value at byte 2"),
    ] {
        assert_eq!(message::<Value>(text), expected, "{text}");
    }
    assert_eq!(
        message::<Pod<Text<'_>>>(r#"{"spec":{"containers":[{"image":"x"}]}}"#),
        "missing field `name` at byte 36"
    );
    assert_eq!(
        message::<Pod<Text<'_>>>(r#"{"spec":{"containers":{}}}"#),
        "expected a sequence, found an object at byte 22"
    );
    assert_eq!(
        message::<IgnoredAny>(r#"{"a":["}"]"#),
        "the text ends in the value at byte 0"
    );
    assert_eq!(message::<(u8, u8)>("[1,2,3]"), "an item too many at byte 6");
}

#[test]
fn no_depth_exhausts_the_stack() {
    let deep = |depth| "[".repeat(depth) + &"]".repeat(depth);
    for depth in [127, 128] {
        let is_read = |read| assert_eq!(read, depth == 127, "{depth}");
        is_read(from_str::<Value>(&deep(depth)).is_ok());
        is_read(serde_json::from_str::<Value>(&deep(depth)).is_ok());
    }
    assert_eq!(message::<Value>(&deep(129)), "nested too deeply at byte 127");
    assert!(from_str::<IgnoredAny>(&deep(1_000_000)).is_ok());
}

/// Texts that have everything in them that could be taken for something else.
fn any_text() -> impl Strategy<Value = String> {
    proptest::string::string_regex(r#"[a-c{}\[\]":,\\ \n\u{1}/äß€😀]{0,40}"#).unwrap()
}

fn any_value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        (-99..99).prop_map(|n| Value::from(f64::from(n) / 8.0))
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        any_text().prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any_text(), inner, 0..6).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// What serde_json makes of it: floats there may differ in the last digit.
fn rounded(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => (number.as_f64().unwrap() as f32).to_string().into(),
        Value::Array(items) => items.into_iter().map(rounded).collect(),
        Value::Object(members) => members.into_iter().map(|(key, value)| (key, rounded(value))).collect(),
        value => value,
    }
}

/// The whole of a text that was damaged in one place.
fn damaged(text: &str, at: prop::sample::Index, by: Option<char>) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    let at = at.index(characters.len());
    match by {
        Some(by) => characters[at] = by,
        None => drop(characters.remove(at)),
    }
    characters.into_iter().collect()
}

fn any_damage() -> impl Strategy<Value = Option<char>> {
    prop::option::of(prop::sample::select(
        "{}[]\",:\\ 0-.eu\n\u{1}nä".chars().collect::<Vec<_>>(),
    ))
}

fn list_of(item: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    prop::collection::vec(item, 0..4).prop_map(Value::from).boxed()
}

/// An object with nearly always these members, and sometimes others.
fn object(members: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let members: Vec<_> = members
        .into_iter()
        .map(|(key, value)| prop::option::weighted(0.97, value).prop_map(move |value| (key, value)))
        .collect();
    (members, prop::collection::btree_map("[x-z]{1,3}", any_value(), 0..3))
        .prop_map(|(known, unknown)| {
            let known = known
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value?)));
            known.chain(unknown).collect::<Value>()
        })
        .boxed()
}

fn text() -> BoxedStrategy<Value> {
    any_text().prop_map(Value::from).boxed()
}

fn any_container() -> BoxedStrategy<Value> {
    let variable = object(vec![
        ("name", text()),
        ("value", text()),
        (
            "valueFrom",
            object(vec![("fieldRef", object(vec![("fieldPath", text())]))]),
        ),
    ]);
    let mount = object(vec![
        ("name", text()),
        ("mountPath", text()),
        ("readOnly", any::<bool>().prop_map(Value::from).boxed()),
    ]);
    object(vec![
        ("name", text()),
        ("env", list_of(variable)),
        ("envFrom", list_of(any_value().boxed())),
        ("volumeMounts", list_of(mount)),
    ])
}

/// A pod whose members are what they should be, or mostly.
fn any_pod() -> impl Strategy<Value = String> {
    let texts = || {
        prop::collection::btree_map(any_text(), text(), 0..4)
            .prop_map(|pairs| pairs.into_iter().collect())
            .boxed()
    };
    let token = object(vec![
        ("audience", text()),
        ("expirationSeconds", any::<i64>().prop_map(Value::from).boxed()),
        ("path", text()),
    ]);
    let projected = object(vec![("sources", list_of(object(vec![("serviceAccountToken", token)])))]);
    let metadata = object(vec![
        ("name", text()),
        ("labels", texts()),
        ("annotations", texts()),
        ("managedFields", any_value().boxed()),
    ]);
    let volume = object(vec![("name", text()), ("projected", projected)]);
    let spec = object(vec![
        ("containers", list_of(any_container())),
        ("initContainers", list_of(any_container())),
        ("volumes", list_of(volume)),
        ("nodeSelector", texts()),
    ]);
    let pod = object(vec![
        ("metadata", metadata),
        ("spec", spec),
        ("status", any_value().boxed()),
    ]);
    (pod, any::<bool>()).prop_map(|(pod, pretty)| if pretty { format!("{pod:#}") } else { pod.to_string() })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_written_as_a_string_is_read_as_that_string(text in prop_oneof![any_text(), any::<String>()]) {
        let mut json = String::new();
        push_string(&mut json, &text);
        prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn whole_values_are_what_serde_json_reads(value in any_value()) {
        for text in [value.to_string(), format!(" {value:#}\n")] {
            prop_assert_eq!(rounded(from_str(&text).unwrap()), rounded(value.clone()));
        }
    }

    #[test]
    fn damaged_texts_are_refused_where_serde_json_refuses_them(value in any_value(), at: prop::sample::Index, by in any_damage()) {
        let text = damaged(&value.to_string(), at, by);
        let expected: Option<Value> = serde_json::from_str(&text).ok();
        prop_assert_eq!(from_str::<Value>(&text).ok().map(rounded), expected.map(rounded), "{}", text);
    }

    #[test]
    fn pods_are_what_serde_json_reads(text in any_pod()) {
        let expected = serde_json::from_str::<Pod<Text<'_>>>(&text).map_err(drop);
        let found = from_str::<Pod<Text<'_>>>(&text).map_err(drop);
        prop_assert_eq!(format!("{:?}", found), format!("{:?}", expected), "{}", text);
    }

    #[test]
    fn a_damaged_pod_that_serde_json_reads_is_the_same_here(text in any_pod(), at: prop::sample::Index, by in any_damage()) {
        let text = damaged(&text, at, by);
        let found = from_str::<Pod<Text<'_>>>(&text);
        if let Ok(expected) = serde_json::from_str::<Pod<Text<'_>>>(&text) {
            prop_assert_eq!(format!("{:?}", found.unwrap()), format!("{:?}", expected), "{}", text);
        }
    }

    #[test]
    fn what_is_passed_over_ends_where_it_ends(before in 0..70_usize, value in any_value(), pretty: bool) {
        let value = if pretty { format!("{value:#}") } else { value.to_string() };
        let text = format!("{}[{value},{value} , 7]", " ".repeat(before));
        prop_assert_eq!(from_str::<(IgnoredAny, IgnoredAny, u8)>(&text).unwrap().2, 7);
    }

    #[test]
    fn a_raw_value_is_its_text(value in any_value()) {
        let text = format!("[ {value} ,7]");
        let (raw, seven) = from_str::<(super::Raw<'_>, u8)>(&text).unwrap();
        prop_assert_eq!((raw.0, seven), (&*value.to_string(), 7));
    }

    #[test]
    fn half_a_value_is_an_error_wherever_it_is_cut(value in any_value(), at: prop::sample::Index) {
        let text = format!("[{value}]");
        let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let text = &text[..ends[at.index(ends.len())]];
        prop_assert!(from_str::<IgnoredAny>(text).is_err());
        prop_assert!(from_str::<Value>(text).is_err());
    }
}
