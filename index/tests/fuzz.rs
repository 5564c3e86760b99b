//! Tokens at random: no text makes the reader of their audiences panic or take long, and what it reads is what a plain second reader
//! reads.
//!
//! It takes 5 seconds, and a minute with `TOKENSCOPE_NIGHTLY=1`. Claims that once mattered are in `tests/corpus`; every run begins with
//! them and with changes of them. The seed is another one each time, and `TOKENSCOPE_FUZZ_SEED` repeats one.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use tokenscope_fixtures::fuzz::{changed, corpus, fuzz_bytes};
use tokenscope_index::audiences::audiences_of;

/// The members of an object in their order, also those that are there twice.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// The audiences of claims: of one `aud`, which is a text or a list of nothing but texts.
fn plainly_read(Members(members): Members) -> Vec<String> {
    let mut audiences = members.into_iter().filter(|(key, _)| key == "aud");
    let (Some((_, audience)), None) = (audiences.next(), audiences.next()) else {
        return Vec::new();
    };
    match audience {
        Value::String(audience) => vec![audience],
        Value::Array(list) => {
            let texts: Option<Vec<_>> = list.iter().map(|text| text.as_str().map(str::to_owned)).collect();
            texts.unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

fn check(token: &[u8]) -> TestCaseResult {
    let Ok(token) = std::str::from_utf8(token) else {
        return Ok(());
    };
    let audiences = audiences_of(token);
    let bytes: usize = audiences.iter().map(String::len).sum();
    prop_assert!(bytes <= token.len());
    let claims = token
        .trim()
        .split('.')
        .nth(1)
        .map(|claims| URL_SAFE_NO_PAD.decode(claims));
    let Some(Ok(claims)) = claims else {
        prop_assert_eq!(audiences, Vec::<String>::new());
        return Ok(());
    };
    // A number beyond all bounds is an error to the second reader alone.
    if let Ok(members) = serde_json::from_slice::<Members>(&claims) {
        prop_assert_eq!(audiences, plainly_read(members));
    } else if serde_json::from_slice::<Value>(&claims).is_ok() {
        prop_assert_eq!(audiences, Vec::<String>::new(), "claims that are no object");
    }
    Ok(())
}

#[test]
fn the_audiences_of_a_token_are_what_a_plain_reader_reads() {
    let token = |claims: Vec<u8>| format!("e30.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims)).into_bytes();
    let claims = corpus(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/claims"));
    let tokens: Vec<Vec<u8>> = claims.iter().cloned().map(token).collect();
    let inputs = prop_oneof![
        3 => changed(select(claims)).prop_map(token),
        1 => changed(select(tokens.clone())),
    ];
    fuzz_bytes(&tokens, &inputs, check);
}
