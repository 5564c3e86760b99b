//! Both readers of what strangers send: no bytes make them panic, take long, or say yes.
//!
//! Each runs for 5 seconds, or for a minute where `TOKENSCOPE_NIGHTLY=1`. Inputs that once mattered are in `tests/corpus`, and every
//! run begins with them and with changes of them.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod fixtures;

use fixtures::{Cluster, claims};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;
use tokenscope_core::Algorithm;
use tokenscope_fixtures::fuzz::{self, changed, fuzz_bytes};
use tokenscope_issuer::exchange_request::ExchangeRequest;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    fuzz::corpus(format!("{}/tests/corpus/{name}", env!("CARGO_MANIFEST_DIR")))
}

/// Checks seeds, changes of them and any bytes.
fn fuzz(seeds: &[Vec<u8>], check: impl Fn(&[u8])) {
    let inputs = prop_oneof![8 => changed(select(seeds.to_vec())), 1 => vec(any::<u8>(), 0..512)];
    fuzz_bytes(seeds, &inputs, |input| {
        check(input);
        Ok(())
    });
}

#[test]
fn no_bytes_make_the_reader_of_requests_fail_otherwise_than_with_an_error() {
    fuzz(&corpus("exchange_request"), |input| {
        match ExchangeRequest::read(input) {
            Ok(request) => assert!(!request.subject_token.is_empty() && request.audience.as_str().len() <= 255),
            Err(error) => assert!(error.code.status().as_u16() == 400 && error.body().len() < 4096),
        }
    });
}

#[test]
fn no_bytes_but_an_honest_token_prove_a_pod() {
    let cluster = Cluster::new(Algorithm::ES256);
    let honest = cluster.token(&claims(&json!({})));
    let caller = cluster.verify(&honest).unwrap();
    let mut seeds = corpus("subject_token");
    seeds.push(honest.into_bytes());
    fuzz(&seeds, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(proven) = cluster.verify(text) {
            assert_eq!(proven, caller);
        }
    });
}
