//! What the programs asked of the API server, beside what the chart grants them.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::Value;
use tokenscope_e2e::helm::NAMESPACE;

use crate::Scenario;

/// A verb on a resource, as a rule of the chart grants it or a request uses it.
type Right = (String, String);

/// The rights that are rarely used: for API servers that can't stream lists, for a namespace that the webhook's watch has not brought yet, for owners of refused
/// pods that are no ReplicaSets, and for clusters that have spire-controller-manager.
const RARE: [&str; 22] = [
    "tokenscope-webhook get cronjobs.batch",
    "tokenscope-webhook get daemonsets.apps",
    "tokenscope-webhook get deployments.apps",
    "tokenscope-webhook get jobs.batch",
    "tokenscope-webhook get replicationcontrollers.",
    "tokenscope-webhook get statefulsets.apps",
    "tokenscope-webhook list csidrivers.storage.k8s.io",
    "tokenscope-operator list csidrivers.storage.k8s.io",
    "tokenscope-webhook get namespaces.",
    "tokenscope-webhook list clustertokenscopepolicies.tokenscope.io",
    "tokenscope-webhook list namespaces.",
    "tokenscope-webhook list serviceaccounts.",
    "tokenscope-webhook list tokenscopeboundaries.tokenscope.io",
    "tokenscope-webhook list tokenscopepolicies.tokenscope.io",
    "tokenscope-operator list clustertokenscopepolicies.tokenscope.io",
    "tokenscope-operator list namespaces.",
    "tokenscope-operator list pods.",
    "tokenscope-operator list serviceaccounts.",
    "tokenscope-operator list tokenscopeboundaries.tokenscope.io",
    "tokenscope-operator list tokenscopepolicies.tokenscope.io",
    "tokenscope-operator list clusterspiffeids.spire.spiffe.io",
    "tokenscope-operator watch clusterspiffeids.spire.spiffe.io",
];

/// What the programs have used must be granted by the chart itself, not only by what Kubernetes gives to everybody; what
/// they have not used is printed, and must be known.
pub(crate) fn rights(scenario: &Scenario) -> Result<()> {
    let mut unknown = Vec::new();
    for process in ["tokenscope-webhook", "tokenscope-operator"] {
        let unused = unused_rights(scenario, process)?;
        let rights = unused.iter().map(|(verb, what)| format!("{process} {verb} {what}"));
        unknown.extend(rights.filter(|right| !RARE.contains(&right.as_str())));
    }
    ensure!(unknown.is_empty(), "granted and never used: {unknown:?}");
    Ok(())
}

/// The rights that the chart grants a process and that it has not used. Fails where it has used others.
fn unused_rights(scenario: &Scenario, process: &str) -> Result<BTreeSet<Right>> {
    let user = format!("system:serviceaccount:{NAMESPACE}:{process}");
    let mut unused = BTreeSet::new();
    let mut rules = Vec::new();
    for role in scenario.installed.objects() {
        let is_ours = role["metadata"]["name"] == process;
        if is_ours && (role["kind"] == "ClusterRole" || role["kind"] == "Role") {
            for rule in role["rules"].as_array().into_iter().flatten() {
                unused.extend(granted(rule));
                let namespace = (role["kind"] == "Role").then_some(NAMESPACE);
                rules.push((namespace, rule.clone()));
            }
        }
    }
    let requests = scenario
        .control_plane
        .audit_events(|event| event["user"]["username"] == *user)?;
    ensure!(!requests.is_empty(), "{process} has asked for nothing");
    let mut beyond = BTreeSet::new();
    for request in &requests {
        let right = used(request);
        let covered = rules.iter().any(|(namespace, rule)| {
            granted(rule).contains(&right)
                && namespace.is_none_or(|namespace| request["objectRef"]["namespace"] == namespace)
                && names_it(rule, request)
        });
        if !covered {
            beyond.insert(format!("{right:?} {}", request["requestURI"]));
        }
        unused.remove(&right);
    }
    println!(
        "{process} made {} requests; rights that it did not use: {unused:?}",
        requests.len()
    );
    ensure!(
        beyond.is_empty(),
        "{process} needs what the chart does not grant: {beyond:?}"
    );
    Ok(unused)
}

fn granted(rule: &Value) -> BTreeSet<Right> {
    let list = |field: &str| -> Vec<String> {
        let values = rule[field].as_array().cloned().unwrap_or_default();
        values
            .iter()
            .map(|value| value.as_str().unwrap_or_default().to_owned())
            .collect()
    };
    let mut what = list("nonResourceURLs");
    for group in list("apiGroups") {
        what.extend(list("resources").iter().map(|resource| format!("{resource}.{group}")));
    }
    let verbs = list("verbs");
    what.iter()
        .flat_map(|what| verbs.iter().map(|verb| (verb.clone(), what.clone())))
        .collect()
}

fn used(request: &Value) -> Right {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &request["objectRef"];
    let what = if object.is_null() {
        let uri = text(&request["requestURI"]);
        uri.split('?').next().unwrap_or_default().to_owned()
    } else {
        let subresource = object["subresource"]
            .as_str()
            .map(|name| format!("/{name}"))
            .unwrap_or_default();
        format!(
            "{}{subresource}.{}",
            text(&object["resource"]),
            text(&object["apiGroup"])
        )
    };
    (text(&request["verb"]), what)
}

/// Whether the rule is about all names or about that of the request.
fn names_it(rule: &Value, request: &Value) -> bool {
    let names = rule["resourceNames"].as_array();
    names.is_none_or(|names| names.is_empty() || names.contains(&request["objectRef"]["name"]))
}
