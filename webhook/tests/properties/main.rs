//! What holds for every pod, installation and policy: from the decision to the patch, and to the pod that it gives.
//!
//! Each target runs for 5 seconds, or for a minute where `TOKENSCOPE_NIGHTLY=1`. Pods that once mattered are in `tests/pod_corpus`;
//! every run begins with them in an installation of each kind, and goes on with them, parts of them and others. The seed is
//! another one each time, and `TOKENSCOPE_FUZZ_SEED` repeats one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is test code, also outside the tests themselves"
)]

#[path = "../fixtures/mod.rs"]
mod fixtures;
mod inputs;
mod installations;
mod our_names;

use fixtures::{
    EKS_MOUNT, EKS_VOLUME, MOUNT, ReviewFixture, VOLUME, comparable, is_empty_variable, misplaced_of, two_audiences,
    with_each_variable_once, without_ours,
};
use inputs::{any_pod, or_known, pods};
use installations::{any_fixture, fixtures, nobody_is_listed};
use our_names::pod_with_our_names;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use serde_json::Value;
use tokenscope_core::TokenSource;
use tokenscope_core::pod::is_added_container;
use tokenscope_fixtures::fuzz::fuzz;
use tokenscope_webhook::metrics::ReviewOutcome;

/// Checks each pod that once mattered in an installation of each kind.
fn all_known(check: impl Fn(&Value, &ReviewFixture) -> TestCaseResult) {
    let fixtures = fixtures();
    for pod in pods() {
        for fixture in &fixtures {
            if let Err(why) = check(&pod, fixture) {
                panic!("{pod}\n{fixture:?}\n{why}");
            }
        }
    }
}

/// Each review checks that nothing else changes, and that a second one finds nothing to do: see `ReviewFixture::review`.
fn reviewed_where_our_names_are_taken(pod: &Value, fixture: &ReviewFixture) -> TestCaseResult {
    let reviewed = fixture.review(pod);
    // Beside an association, volumes of these names and their mounts are the pod's own.
    if reviewed.outcome() == ReviewOutcome::Granted && fixture.settings.pod_identity.is_none() {
        let place = if fixture.settings.eks_compatible {
            (EKS_VOLUME, EKS_MOUNT)
        } else {
            (VOLUME, MOUNT)
        };
        prop_assert_eq!(misplaced_of(&reviewed.pod, place), Vec::<String>::new());
    }
    // Reviewed by another installation in between, and changed by another webhook.
    let mut copy = reviewed.pod;
    copy["metadata"] = pod["metadata"].clone();
    fixture.review(&copy);
    Ok(())
}

#[test]
fn also_where_our_names_are_taken_nothing_else_changes_and_a_second_review_finds_nothing_to_do() {
    all_known(reviewed_where_our_names_are_taken);
    let inputs = (or_known(pod_with_our_names()), any_fixture(), any::<bool>());
    fuzz(&inputs, 101, |(pod, mut fixture, two)| {
        if two {
            fixture.policies = two_audiences(TokenSource::ServiceAccount, "elsewhere").policies;
        }
        reviewed_where_our_names_are_taken(&pod, &fixture)
    });
}

#[test]
fn a_review_after_another_ones_changes_nothing_of_others_either() {
    let inputs = (or_known(pod_with_our_names()), any_fixture(), any_fixture());
    fuzz(&inputs, 51, |(mut pod, before, after)| {
        with_each_variable_once(&mut pod);
        after.review(&before.review(&pod).pod);
        Ok(())
    });
}

fn nothing_of_others_changes(pod: &Value, fixture: &ReviewFixture) -> TestCaseResult {
    let reviewed = fixture.review(pod);
    prop_assert_eq!(without_ours(&reviewed.pod), without_ours(pod));
    // Variables that were there are there still, as they were and in their order, but for empty ones.
    for list in ["containers", "initContainers"] {
        let (before, after) = (pod["spec"][list].as_array(), reviewed.pod["spec"][list].as_array());
        let after = after.into_iter().flatten();
        let after = after.filter(|container| !is_added_container(container["name"].as_str().unwrap()));
        for (before, after) in before.into_iter().flatten().zip(after) {
            let before = before["env"].as_array().cloned().unwrap_or_default();
            let after = after["env"].as_array().cloned().unwrap_or_default();
            for (before, after) in before.iter().zip(&after) {
                prop_assert!(before == after || (is_empty_variable(before) && before["name"] == after["name"]));
            }
            prop_assert!(after.len() >= before.len());
        }
    }
    Ok(())
}

#[test]
fn nothing_that_is_not_ours_changes() {
    fuzz(&(any_pod(), any_fixture()), 101, |(pod, fixture)| {
        nothing_of_others_changes(&pod, &fixture)
    });
}

fn a_second_review_finds_nothing(pod: &Value, fixture: &ReviewFixture) -> TestCaseResult {
    let once = fixture.review(pod);
    let twice = fixture.review(&once.pod);
    prop_assert_eq!(&twice.patch, &Vec::<Value>::new());
    prop_assert_eq!(twice.outcome(), once.outcome());
    Ok(())
}

#[test]
fn a_second_review_finds_nothing_to_do() {
    all_known(a_second_review_finds_nothing);
    fuzz(&(or_known(any_pod()), any_fixture()), 101, |(pod, fixture)| {
        a_second_review_finds_nothing(&pod, &fixture)
    });
}

#[test]
fn after_a_change_the_pod_is_as_if_it_had_been_reviewed_only_then() {
    fuzz(
        &(any_pod(), any_fixture(), any_fixture()),
        51,
        |(mut pod, before, mut after)| {
            with_each_variable_once(&mut pod);
            // The two modes have other names for volumes and folders, and what has those of the other one is the pod's own.
            after.settings.eks_compatible = before.settings.eks_compatible;
            // What an association added is known by the installation's settings of its agent.
            if before.settings.pod_identity.is_some() && after.settings.pod_identity.is_none() {
                after.settings.pod_identity = Some(nobody_is_listed());
            }
            let first = before.review(&pod);
            let redone = after.review(&first.pod);
            let direct = after.review(&pod);
            prop_assert_eq!(redone.outcome(), direct.outcome());
            if redone.outcome() != ReviewOutcome::Denied {
                prop_assert_eq!(comparable(&redone.pod), comparable(&direct.pod));
            }
            Ok(())
        },
    );
}
