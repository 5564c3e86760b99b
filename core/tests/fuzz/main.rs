//! What users write, at random: no text makes a reader panic or take long, and what is read is what a plain second reader reads.
//!
//! Each target runs for 5 seconds, or for a minute where `TOKENSCOPE_NIGHTLY=1`. Texts that once mattered are in `tests/corpus`, and
//! every run begins with them and with changes of them. The seed is another one each time, and `TOKENSCOPE_FUZZ_SEED` repeats one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "this is test code, also outside the tests themselves"
)]

mod annotations;
mod names;
mod schedules;

use std::fmt::Debug;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestCaseResult, TestError, TestRng, TestRunner};

/// The slowest input may take this long, on a machine that others use too and without optimisation.
const SLOWEST: Duration = Duration::from_millis(500);

/// The texts of a folder of `tests/corpus`.
fn corpus(name: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let texts: Vec<_> = files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    assert!(!texts.is_empty());
    texts
}

/// A text of these pieces, or one of these texts with some pieces put in and some characters taken away.
fn any_text(seeds: Vec<String>, pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let change = (any::<Index>(), 0..8_usize, prop::option::of(select(pieces)));
    let changed = (select(seeds), prop::collection::vec(change, 0..6)).prop_map(|(seed, changes)| {
        let mut text: Vec<char> = seed.chars().collect();
        for (at, removed, piece) in changes {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, piece.unwrap_or_default().chars());
        }
        text.into_iter().collect()
    });
    let made = prop::collection::vec(select(pieces), 0..16).prop_map(|pieces| pieces.concat());
    prop_oneof![4 => changed, 3 => made, 1 => any::<String>()]
}

/// Fails where something takes long three times: a busy machine disturbs some of the measurements.
fn in_time(mut run: impl FnMut()) -> TestCaseResult {
    let mut once = || {
        let began = Instant::now();
        run();
        began.elapsed()
    };
    let took = (0..3).map(|_| once()).find(|took| *took < SLOWEST);
    prop_assert!(took.is_some(), "slow three times");
    Ok(())
}

/// Checks inputs until the time is over. One that fails is made smaller before it is shown.
fn fuzz<S: Strategy<Value: Debug>>(inputs: &S, check: impl Fn(S::Value) -> TestCaseResult) {
    let is_nightly = std::env::var_os("TOKENSCOPE_NIGHTLY").is_some_and(|value| value == "1");
    let until = Instant::now() + Duration::from_secs(if is_nightly { 60 } else { 5 });
    let given = std::env::var("TOKENSCOPE_FUZZ_SEED");
    let seed: u64 = given.map_or_else(|_| RandomState::new().hash_one(()), |seed| seed.parse().unwrap());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let mut checked = 0;
    while Instant::now() < until {
        let input = inputs.new_tree(&mut runner).unwrap();
        if let Err(TestError::Fail(why, input)) = runner.run_one(input, &check) {
            panic!("TOKENSCOPE_FUZZ_SEED={seed} makes this input, after {checked} others:\n{input:?}\n{why}");
        }
        checked += 1;
    }
    println!("{checked} inputs, with TOKENSCOPE_FUZZ_SEED={seed}");
    assert!(checked > 20, "only {checked} inputs");
}

fn all(texts: &[String], check: impl Fn(&str) -> Result<(), TestCaseError>) {
    for text in texts {
        if let Err(why) = check(text) {
            panic!("{text:?}\n{why}");
        }
    }
}
