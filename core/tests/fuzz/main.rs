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

use proptest::prelude::*;
use proptest::sample::{Index, select};
use tokenscope_fixtures::fuzz;

/// The texts of a folder of `tests/corpus`.
fn corpus(name: &str) -> Vec<String> {
    fuzz::corpus_of_texts(format!("{}/tests/corpus/{name}", env!("CARGO_MANIFEST_DIR")))
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

/// Fails where something takes long.
fn in_time(mut run: impl FnMut()) -> Result<(), TestCaseError> {
    fuzz::in_time(|| {
        run();
        Ok(())
    })
}

/// Checks inputs until the time is over. Schedules are slow, so there may be few.
fn fuzz<S: Strategy<Value: Debug>>(inputs: &S, check: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    fuzz::fuzz(inputs, 21, check);
}

fn all(texts: &[String], check: impl Fn(&str) -> Result<(), TestCaseError>) {
    for text in texts {
        if let Err(why) = check(text) {
            panic!("{text:?}\n{why}");
        }
    }
}
