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

mod world;

use std::path::Path;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::json;
use tokenscope_core::Algorithm;
use tokenscope_issuer::exchange_request::ExchangeRequest;
use world::{Cluster, claims};

/// The slowest input may take this long, on a machine that others use too and without optimisation.
const SLOWEST: Duration = Duration::from_millis(500);

fn time() -> Duration {
    let nightly = std::env::var("TOKENSCOPE_NIGHTLY").is_ok_and(|value| value == "1");
    Duration::from_secs(if nightly { 60 } else { 5 })
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let inputs: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(!inputs.is_empty());
    inputs
}

/// A seed with some bytes changed, cut, doubled or put in.
fn changed(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let change = (0u8..5, any::<prop::sample::Index>(), any::<u8>(), 1usize..64);
    let changes = (prop::sample::select(seeds), vec(change, 0..8));
    let mutated = changes.prop_map(|(mut bytes, changes)| {
        for (kind, at, byte, length) in changes {
            if bytes.is_empty() {
                bytes.push(byte);
            }
            let at = at.index(bytes.len());
            let end = (at + length).min(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte % 8),
                2 => drop(bytes.drain(at..end)),
                3 => bytes.insert(at, byte),
                _ => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        bytes
    });
    prop_oneof![8 => mutated, 1 => vec(any::<u8>(), 0..512)]
}

fn fuzz(seeds: Vec<Vec<u8>>, mut check: impl FnMut(&[u8])) {
    let mut one = |input: &[u8]| {
        let mut once = || {
            let began = Instant::now();
            check(input);
            began.elapsed()
        };
        // A busy machine disturbs some of the measurements.
        let took = (0..3).map(|_| once()).find(|took| *took < SLOWEST);
        assert!(took.is_some(), "slow three times: {:?}", String::from_utf8_lossy(input));
    };
    for seed in &seeds {
        one(seed);
    }
    let strategy = changed(seeds);
    let mut runner = TestRunner::deterministic();
    let (end, mut inputs) = (Instant::now() + time(), 0u32);
    while Instant::now() < end {
        one(&strategy.new_tree(&mut runner).unwrap().current());
        inputs += 1;
    }
    assert!(inputs > 100, "{inputs} inputs");
}

#[test]
fn no_bytes_make_the_reader_of_requests_fail_otherwise_than_with_an_error() {
    fuzz(corpus("exchange_request"), |input| match ExchangeRequest::read(input) {
        Ok(request) => assert!(!request.subject_token.is_empty() && request.audience.as_str().len() <= 255),
        Err(error) => assert!(error.code.status().as_u16() == 400 && error.body().len() < 4096),
    });
}

#[test]
fn no_bytes_but_an_honest_token_prove_a_pod() {
    let cluster = Cluster::new(Algorithm::ES256);
    let honest = cluster.token(&claims(&json!({})));
    let caller = cluster.verify(&honest).unwrap();
    let mut seeds = corpus("subject_token");
    seeds.push(honest.into_bytes());
    fuzz(seeds, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(proven) = cluster.verify(text) {
            assert_eq!(proven, caller);
        }
    });
}
