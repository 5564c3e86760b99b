//! What must hold while an attack goes on.

use std::time::Duration;

use serde_json::Value;

use crate::field::{Field, LOCKED, MARK, REQUIRED};
use crate::health::{FAILURE_THRESHOLD, Health};
use crate::honest::Window;
use crate::report::{Outcome, Tally};

/// How much longer honest creates may take than when it is quiet, beyond what the same attack adds without tokenscope.
const MOST_ADDED: Duration = Duration::from_millis(250);

/// A refusal that an attacker provokes is no longer than this, in bytes.
const LONGEST_REFUSAL: usize = 32 << 10;

/// What an attacker's request may add to the logs on average, in bytes; and what may be there besides.
const LOGGED_PER_REQUEST: u64 = 4 << 10;
const LOGGED_ANYWAY: u64 = 512 << 10;

/// Whether times are judged: the programs are then those of the images.
///
/// Unoptimised programs share the two processors of a small machine with the API server, etcd and the attackers, and take
/// several times as long for the same review.
pub(crate) fn times_are_judged() -> bool {
    std::env::var_os("TOKENSCOPE_PROGRAMS").is_some()
}

/// Judges all but the times.
pub(crate) fn judge(field: &Field, attacked: &[Window], tally: &Tally, outcome: &mut Outcome) {
    let failures = &mut outcome.failures;
    let unreviewed = attacked
        .iter()
        .flat_map(|window| &window.unreviewed)
        .chain(&tally.unreviewed);
    if let Some(first) = unreviewed.clone().next() {
        failures.push(format!(
            "{} pods were admitted unreviewed, first {}",
            unreviewed.count(),
            short(first)
        ));
    }
    if tally.answers.is_empty() {
        failures.push("the attack sent nothing".to_owned());
    }
    if let Some(large) = outcome.large.filter(|large| large.granted == 0) {
        failures.push(format!("none of {} honest large pods was granted", large.created));
    }
    if tally.longest_refusal > LONGEST_REFUSAL {
        failures.push(format!(
            "a refusal had {} bytes, and may have {LONGEST_REFUSAL}",
            tally.longest_refusal
        ));
    }
    let requests: u64 = tally.answers.values().sum();
    for (health, limit) in outcome.health.iter().zip(field.limits()) {
        let Health {
            name,
            restarts,
            peak,
            logged,
            ..
        } = health;
        if *restarts > 0 {
            failures.push(format!("{name} ended {restarts} times"));
        }
        if *peak > limit {
            failures.push(format!("{name} took {} MiB, and may take {}", peak >> 20, limit >> 20));
        }
        if *logged > LOGGED_ANYWAY + requests * LOGGED_PER_REQUEST {
            failures.push(format!("{name} logged {} kB about {requests} requests", logged / 1000));
        }
    }
}

/// What was too late, or was not answered in time.
pub(crate) fn late(outcome: &Outcome) -> Vec<String> {
    let (without, refused_without) = outcome.without.unwrap_or_default();
    let (added, anyway) = (outcome.times.added(), without.added());
    let mut late = Vec::new();
    if added > anyway + MOST_ADDED {
        late.push(format!(
            "the p99 of honest creates rose by {added:.0?}, without tokenscope by {anyway:.0?}, and may by {MOST_ADDED:?} more"
        ));
    }
    if outcome.refused.len() > refused_without {
        late.push(format!(
            "{} honest creates were refused, {refused_without} without tokenscope; first {}",
            outcome.refused.len(),
            short(&outcome.refused[0])
        ));
    }
    for Health {
        name,
        failed_in_a_row,
        last_failure,
        ..
    } in &outcome.health
    {
        if *failed_in_a_row >= FAILURE_THRESHOLD {
            let last = short(last_failure);
            late.push(format!("{name} failed {failed_in_a_row} probes in a row, last {last}"));
        }
    }
    late
}

/// What is wrong with a pod that was admitted: it asks for a role by an annotation of its own and has none, or one that nobody allows; it holds a
/// token of the locked audience that no policy grants its ServiceAccount; or it lives where reviews are required, and had none.
pub(crate) fn got_past(pod: &Value) -> Option<String> {
    let fault = if asks_without_grant(pod) {
        "without its grant"
    } else if holds_ungranted_token(pod) {
        "with a locked token that nobody grants"
    } else if pod["metadata"]["namespace"] == REQUIRED && pod["metadata"]["labels"][MARK].is_null() {
        "without a review where one is required"
    } else {
        return None;
    };
    Some(format!("admitted {fault}: {}", pod["metadata"]["name"]))
}

fn asks_without_grant(pod: &Value) -> bool {
    let (Some(annotations), Some(containers)) = (
        pod["metadata"]["annotations"].as_object(),
        pod["spec"]["containers"].as_array(),
    ) else {
        return false;
    };
    let asks = annotations.keys().any(|key| {
        let rest = key.strip_prefix("tokenscope.io/role-arn");
        // A role for a container that isn't there asks for nothing.
        rest.is_some_and(|rest| rest.is_empty() || containers.iter().any(|one| one["name"] == rest[1..]))
    });
    let opted_out = annotations
        .get("tokenscope.io/inject")
        .is_some_and(|value| value == "false");
    let spec = pod["spec"].to_string();
    let granted = spec.contains("AWS_WEB_IDENTITY_TOKEN_FILE") && spec.contains(":role/shop/");
    asks && !opted_out && !granted
}

/// The policies are about the ServiceAccount `orders` alone.
fn holds_ungranted_token(pod: &Value) -> bool {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let mut sources = volumes.flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten());
    pod["spec"]["serviceAccountName"] != "orders"
        && sources.any(|source| source["serviceAccountToken"]["audience"] == LOCKED)
}

fn short(text: &str) -> String {
    text.chars().take(300).collect()
}
