//! The JSON reader beside serde_json, on texts that nobody thought of.
//!
//! Texts are made of those in `tests/json_corpus` by changes at random, and of nothing but pieces of JSON. A text on which the two
//! disagree is made smaller before it is shown; add it to the corpus then.
//!
//! It takes 5 seconds, and a minute with `TOKENSCOPE_NIGHTLY=1`. The seed is another one each time, and `TOKENSCOPE_FUZZ_SEED`
//! repeats one.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestCaseResult;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokenscope_core::pod::{Pod, Text};
use tokenscope_fixtures::fuzz::{corpus_of_texts, fuzz};
use tokenscope_webhook::json::{Raw, from_str, push_string};

/// What has a meaning in JSON, and what is nearly that.
const PIECES: [&str; 40] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\\",
    "\\\"",
    "\\u0041",
    "\\ud83d\\ude00",
    "\\ud800",
    "\\n",
    "\\x",
    "null",
    "true",
    "false",
    "nul",
    "0",
    "-0",
    "-1",
    "01",
    "1.5",
    "1e3",
    "1E-400",
    "1e400",
    "18446744073709551616",
    ".",
    "-",
    "+",
    " ",
    "\n",
    "\u{1}",
    "ä",
    "😀",
    "\"name\":",
    "\"spec\":",
    "\"containers\":[",
    "\"a\":1,\"a\":2",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

/// One change of a text. Places are counted in characters, and go round at the end.
#[derive(Clone, Debug)]
enum Change {
    /// Puts a piece there.
    Insert(Index, &'static str),
    /// Takes so many characters away.
    Delete(Index, usize),
    /// Repeats the characters between two places so many times.
    Repeat(Index, Index, usize),
}

impl Change {
    fn apply(&self, text: &mut Vec<char>) {
        // Texts stay small, so that many are looked at.
        const LONGEST: usize = 16 * 1024;
        let end = text.len() + 1;
        match self {
            Self::Insert(at, piece) => {
                let at = at.index(end);
                text.splice(at..at, piece.chars());
            }
            Self::Delete(at, count) => {
                let at = at.index(end);
                text.drain(at..(at + count).min(text.len()));
            }
            Self::Repeat(from, to, times) => {
                let (from, to) = (from.index(end), to.index(end));
                let part = text[from.min(to)..from.max(to)].repeat(*times);
                if text.len() + part.len() <= LONGEST {
                    text.splice(from.min(to)..from.min(to), part);
                }
            }
        }
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), select(PIECES.to_vec())).prop_map(|(at, piece)| Change::Insert(at, piece)),
        3 => (at(), 1..8_usize).prop_map(|(at, count)| Change::Delete(at, count)),
        1 => (at(), at(), 1..4_usize).prop_map(|(from, to, times)| Change::Repeat(from, to, times)),
    ]
}

fn corpus() -> Vec<String> {
    corpus_of_texts(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/json_corpus"))
}

fn any_text() -> impl Strategy<Value = String> {
    let changed = (select(corpus()), prop::collection::vec(any_change(), 0..6)).prop_map(|(text, changes)| {
        let mut text: Vec<char> = text.chars().collect();
        for change in &changes {
            change.apply(&mut text);
        }
        text.into_iter().collect()
    });
    let made = prop::collection::vec(select(PIECES.to_vec()), 0..24).prop_map(|pieces| pieces.concat());
    prop_oneof![3 => changed, 1 => made]
}

/// Whether two values are the same. Floats of serde_json may differ from the nearest one by a few of the smallest steps.
fn are_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| are_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let is_in_other =
                |(key, value): (&String, &Value)| other.get(key).is_some_and(|found| are_same(value, found));
            one.len() == other.len() && one.iter().all(is_in_other)
        }
        (Value::Number(one), Value::Number(other)) if one.is_f64() && other.is_f64() => {
            let bits = |number: &serde_json::Number| number.as_f64().unwrap().to_bits();
            bits(one).abs_diff(bits(other)) <= 8
        }
        _ => one == other,
    }
}

/// Whether there is a float so close to the largest one that a few of the smallest steps decide about its being in range.
fn has_float_at_the_edge(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_float_at_the_edge),
        Value::Object(members) => members.values().any(has_float_at_the_edge),
        Value::Number(number) => number
            .as_f64()
            .is_some_and(|float| f64::MAX.to_bits() - float.abs().to_bits() <= 8),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// Fails where the two readers disagree about a text.
fn compare(text: &str) -> TestCaseResult {
    let (found, expected) = (from_str::<Value>(text), serde_json::from_str::<Value>(text));
    match (&found, &expected) {
        (Ok(found), Ok(expected)) => prop_assert!(are_same(found, expected), "{found} is read, not {expected}"),
        (Ok(read), Err(_)) | (Err(_), Ok(read)) if has_float_at_the_edge(read) => {}
        _ => prop_assert_eq!(found.is_ok(), expected.is_ok(), "{:?}, not {:?}", found, expected),
    }

    // Of what nobody reads the grammar is not checked, so the readers agree about what is JSON as a whole.
    let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
    let pod = from_str::<Pod<Text<'_>>>(text);
    if is_json {
        let expected = serde_json::from_str::<Pod<Text<'_>>>(text).map_err(drop);
        prop_assert_eq!(format!("{:?}", pod.map_err(drop)), format!("{expected:?}"));
        prop_assert!(from_str::<IgnoredAny>(text).is_ok());
        let whole = text.trim_matches([' ', '\t', '\n', '\r']);
        prop_assert!(from_str::<Raw<'_>>(text).is_ok_and(|raw| raw.0 == whole));
    }

    let mut written = String::new();
    push_string(&mut written, text);
    prop_assert!(serde_json::from_str::<String>(&written).is_ok_and(|read| read == text));
    prop_assert!(from_str::<String>(&written).is_ok_and(|read| read == text));
    Ok(())
}

#[test]
fn the_reader_agrees_with_serde_json_about_every_text_of_the_corpus() {
    let corpus = corpus();
    assert!(corpus.len() > 10);
    for text in &corpus {
        if let Err(disagreement) = compare(text) {
            panic!("{text}\n{disagreement}");
        }
    }
    let accepted = corpus.iter().filter(|text| serde_json::from_str::<Value>(text).is_ok());
    assert_eq!(
        corpus.len() - accepted.count(),
        3,
        "too_deep.json, not_json.json and largest_number.json"
    );
}

#[test]
fn the_reader_agrees_with_serde_json_about_texts_that_are_made_at_random() {
    fuzz(&any_text(), 101, |text| compare(&text));
}
