//! The aims, as far as a run says something about it.

use crate::report::{Budget, Report, Reviews};
use crate::reviews::PROFILE;

/// The aims, as far as this run says something about it.
pub(crate) fn budgets(report: &Report) -> Vec<Budget> {
    let mut budgets = Vec::new();
    let load = |containers, connections| format!("{containers} containers, {connections} connections");
    let of = |server: &'static str| report.reviews.iter().filter(move |line| line.server == server);
    for line in of("tokenscope") {
        let load = load(line.containers, line.connections);
        let is_alike = |other: &&Reviews| (other.containers, other.connections) == (line.containers, line.connections);
        let aims = [
            ("read+patch", "those who read all and answer a constant patch", 0.6),
            ("peer", "the peer", 5.0),
        ];
        for (server, called, least) in aims {
            if let Some(other) = of(server).find(is_alike) {
                let ratio = line.per_second / other.per_second;
                budgets.push(Budget::at_least(format!("{load}: reviews/s of {called}"), ratio, least));
            }
        }
        // Of several connections at once the time has the others' reviews in it.
        if let Some(profile) = of(PROFILE).find(is_alike).filter(|line| line.connections == 1) {
            let what = format!("{load}: added by delivery.type Profile to a review (p50), ms");
            budgets.push(Budget::at_most(what, (profile.p50_us - line.p50_us) / 1e3, 1.0));
        }
    }
    let most = match report.service_accounts {
        ..=100 => Some(15.0),
        101..=50_000 => Some(28.0),
        _ => None,
    };
    for line in report.memory.iter().filter(|line| !line.when.contains("beside")) {
        if let Some(most) = most {
            budgets.push(Budget::at_most(
                format!("peak memory {}, MB", line.when),
                line.peak as f64 / 1e6,
                most,
            ));
        }
    }
    creates(report, &mut budgets);
    hostile(report, &mut budgets);
    budgets
}

/// What tokenscope adds to a create.
fn creates(report: &Report, budgets: &mut Vec<Budget>) {
    let line = |pod: &str, webhook: &str| {
        let mut lines = report.through_apiserver.iter();
        lines.find(|line| line.pod == pod && line.webhook == webhook)
    };
    let aims = [
        ("granted", "constant+patch", 1.15),
        ("granted", "peer", 0.9),
        ("ordinary, 3 volumes", "constant", 1.8),
        ("ordinary, 30 volumes", "constant", 1.8),
    ];
    for (pod, webhook, most) in aims {
        if let (Some(ours), Some(other)) = (line(pod, "tokenscope"), line(pod, webhook)) {
            let what = format!("added to a create ({pod}), of what {webhook} adds");
            budgets.push(Budget::at_most(what, ours.added_us / other.added_us, most));
        }
    }
}

/// What a hostile pod costs, and a hostile namespace.
fn hostile(report: &Report, budgets: &mut Vec<Budget>) {
    for line in &report.hostile {
        let shape = line.shape;
        let what = format!("{shape}: CPU of an honest review of as many bytes");
        budgets.push(Budget::at_most(what, line.processor_ratio, 3.0));
        budgets.push(Budget::at_most(
            format!("{shape}: peak memory of the review's bytes"),
            line.peak_ratio,
            4.0,
        ));
        let what = format!("{shape}: the API server's CPU without tokenscope");
        budgets.push(Budget::at_most(what, line.apiserver_ratio, 2.0));
    }
    let peak = |when: &str| {
        let mut lines = report.memory.iter();
        Some(lines.find(|line| line.when == when)?.peak as f64 / 1e6)
    };
    if let (Some(before), Some(after)) = (peak("after a start"), peak("after a start beside 50 MB of annotations")) {
        budgets.push(Budget::at_most(
            "peak memory added by a hostile namespace, MB".to_owned(),
            after - before,
            16.0,
        ));
    }
}
