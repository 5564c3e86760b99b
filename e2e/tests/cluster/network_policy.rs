//! The chart's NetworkPolicies admit what the processes need and nothing else.
//!
//! Nothing in the cluster enforces NetworkPolicies, so a test does: it writes what they say as rules of the node's firewall,
//! for the pods' addresses as they are.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::aws;
use tokenscope_e2e::helm::{NAMESPACE, template};
use tokenscope_e2e::node::{Node, STARTED};
use tokenscope_e2e::probes::Sdk;

use crate::{asking, locked, pod, shared};

/// Where the webhook answers reviews, and both processes probes and metrics.
const REVIEWS: u64 = 8443;
const OBSERVED: u64 = 8080;

fn policies(values: &Value) -> Result<Vec<Value>> {
    let mut objects = template("tokenscope", values)?;
    objects.retain(|object| object["kind"] == "NetworkPolicy");
    Ok(objects)
}

#[test]
fn they_say_what_is_needed_and_nothing_else() -> Result<()> {
    let issuer = json!({"enabled": true, "url": "https://tokens.example.com"});
    let off = policies(&json!({"networkPolicy": {"enabled": false}, "issuer": issuer}))?;
    assert!(off.is_empty(), "{off:?}");
    assert_eq!(policies(&json!({}))?.len(), 2, "without an issuer it has none");
    let monitoring = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]);
    for (metrics, egress) in [
        (json!([]), false),
        (monitoring.clone(), false),
        (json!([]), true),
        (monitoring, true),
    ] {
        let values = json!({"networkPolicy": {"restrictEgress": egress, "metricsFrom": metrics}, "issuer": issuer});
        let found = policies(&values)?;
        assert_eq!(found.len(), 3, "they are there unless somebody turns them off");
        for policy in found {
            let component = policy["metadata"]["labels"]["app.kubernetes.io/component"].as_str();
            let spec = &policy["spec"];
            assert_eq!(
                spec["podSelector"]["matchLabels"]["app.kubernetes.io/component"].as_str(),
                component,
                "it selects the pods that it is named after"
            );
            let types = if egress {
                json!(["Ingress", "Egress"])
            } else {
                json!(["Ingress"])
            };
            assert_eq!(spec["policyTypes"], types);
            let expected = if egress { outward(component) } else { Value::Null };
            assert_eq!(spec["egress"], expected, "{component:?}");
            let mut ingress = Vec::new();
            // No `from`: API servers come from addresses of nodes, or from outside, and pods of every namespace exchange tokens.
            if let Some(port @ ("webhook" | "issuer")) = component {
                ingress.push(json!({"ports": [{"port": port, "protocol": "TCP"}]}));
            }
            if metrics != json!([]) {
                ingress.push(json!({"from": metrics, "ports": [{"port": "metrics", "protocol": "TCP"}]}));
            }
            assert_eq!(spec["ingress"], Value::from(ingress), "{component:?}");
        }
    }
    Ok(())
}

/// The API server and DNS, and for the operator the webhook, which it asks whether it works.
fn outward(component: Option<&str>) -> Value {
    let mut rules = vec![
        json!({"ports": [{"port": 443, "protocol": "TCP"}, {"port": 6443, "protocol": "TCP"}]}),
        json!({"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}),
    ];
    if component == Some("operator") {
        let labels = json!({
            "app.kubernetes.io/name": "tokenscope", "app.kubernetes.io/instance": "tokenscope", "app.kubernetes.io/component": "webhook",
        });
        rules.push(json!({"to": [{"podSelector": {"matchLabels": labels}}], "ports": [{"port": "webhook", "protocol": "TCP"}]}));
    }
    rules.into()
}

#[test]
fn with_no_more_than_they_admit_pods_are_granted_and_policies_become_ready() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let node = &shared.node;
    node.install(&locked(&json!({"networkPolicy": {"restrictEgress": true}})))?;
    let rules = rules(node)?;
    node.run("nft", &["--file", "-"], &rules)?;
    let result = (|| {
        // What has a connection to the API server could live on it.
        for program in ["tokenscope-operator", "tokenscope-webhook"] {
            ensure!(node.kill(program)? == 2, "two of {program} ran");
        }
        for deployment in ["deployment/tokenscope-operator", "deployment/tokenscope-webhook"] {
            node.kubectl_in(
                NAMESPACE,
                &["wait", deployment, "--for=condition=Available", "--timeout=300s"],
            )?;
        }
        let role = shared.workloads("behind-rules")?;
        let done = asking(
            &role,
            &json!({"containers": [Sdk::Go.container("app", "behind-rules", "any")]}),
        );
        shared.create(&pod("behind-rules", "asking", &done))?;
        let pods = ["test", "tokenscope", "--namespace", NAMESPACE, "--timeout=240s"];
        node.helm(&pods, &Value::Null).context("helm test")?;

        // And they do hold back: another server that listens, and the port for metrics from another pod's network.
        for program in ["tokenscope-operator", "tokenscope-webhook"] {
            let from = *node.processes(program)?.first().context("it runs")?;
            reaches(node, from, "10.96.0.1", 443).with_context(|| format!("{program} and the API server"))?;
            assert!(!connects(from, aws::ADDRESS, 7077)?, "{program} reaches S3");
        }
        let outsider = *node.processes("coredns")?.first().context("a DNS server runs")?;
        let path = "--output=jsonpath={.items[0].status.podIP}";
        for (component, reviews) in [("webhook", true), ("operator", false)] {
            let selector = format!("--selector=app.kubernetes.io/component={component}");
            let address = node.kubectl_in(NAMESPACE, &["get", "pods", &selector, path])?;
            if reviews {
                reaches(node, outsider, &address, REVIEWS).context(component)?;
            } else {
                assert!(!connects(outsider, &address, REVIEWS)?, "{component}: reviews");
            }
            assert!(!connects(outsider, &address, OBSERVED)?, "{component}: metrics");
        }
        node.kubectl(&["delete", "namespace", "behind-rules", "--wait=false"])?;
        Ok(())
    })();
    node.run("nft", &["delete", "table", "inet", "policies"], "")?;
    result
}

/// The ports that a policy admits in a direction, as rules.
fn admitted(policy: &Value, direction: &str) -> Result<Vec<String>> {
    let rules = policy["spec"][direction].as_array();
    let ports = rules
        .into_iter()
        .flatten()
        .filter_map(|rule| rule["ports"].as_array())
        .flatten();
    ports
        .map(|port| {
            let protocol = port["protocol"]
                .as_str()
                .context("a port has a protocol")?
                .to_lowercase();
            let number = match port["port"].as_str() {
                Some("webhook") => Some(REVIEWS),
                Some(_) => None,
                None => port["port"].as_u64(),
            };
            Ok(format!(
                "{protocol} dport {}",
                number.with_context(|| port.to_string())?
            ))
        })
        .collect()
}

/// The installed policies as rules: for packets from the pods once a Service's address is replaced by a server's, and for
/// packets to them. The node may always probe its pods.
fn rules(node: &Node) -> Result<String> {
    use std::fmt::Write as _;
    let policies = node.get(&["networkpolicies", "--namespace", NAMESPACE])?;
    let policies = policies["items"].as_array().context("a list has items")?;
    ensure!(policies.len() == 2, "there are {}", policies.len());
    let (mut outward, mut inward) = (String::new(), String::new());
    for policy in policies {
        let labels = policy["spec"]["podSelector"]["matchLabels"]
            .as_object()
            .context("it selects")?;
        let selector: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
            .collect();
        let pods = node.get(&["pods", "--namespace", NAMESPACE, "--selector", &selector.join(",")])?;
        for pod in pods["items"].as_array().into_iter().flatten() {
            let address = pod["status"]["podIP"].as_str().context("the pod runs")?;
            for admitted in admitted(policy, "egress")? {
                writeln!(outward, "ip saddr {address} {admitted} accept")?;
            }
            for admitted in admitted(policy, "ingress")? {
                writeln!(inward, "ip daddr {address} {admitted} accept")?;
            }
            writeln!(outward, "ip saddr {address} drop")?;
            writeln!(
                inward,
                "ip daddr {address} fib saddr type local tcp dport {OBSERVED} accept"
            )?;
            writeln!(inward, "ip daddr {address} drop")?;
        }
    }
    ensure!(outward.matches("drop").count() >= 4, "every pod has rules:\n{outward}");
    Ok(format!(
        "table inet policies {{
chain outward {{ type filter hook prerouting priority -50; ct state established,related accept; {outward} }}
chain inward {{ type filter hook postrouting priority 0; ct state established,related accept; {inward} }}
}}
"
    ))
}

/// A connection comes about, also on a busy machine, and where the server has just been killed and starts again.
fn reaches(node: &Node, process: u32, address: &str, port: u64) -> Result<()> {
    node.eventually(STARTED, &format!("{address}:{port} is reached"), || {
        ensure!(connects(process, address, port)?, "it is not");
        Ok(())
    })
}

/// Whether a connection can be made from the network of a process. One whose packets are dropped would be tried for minutes.
fn connects(process: u32, address: &str, port: u64) -> Result<bool> {
    let status = Command::new("nsenter")
        .args(["--target", &process.to_string(), "--net", "timeout", "5", "bash", "-c"])
        .arg(format!("exec 3<>/dev/tcp/{address}/{port}"))
        .stderr(Stdio::null())
        .status()?;
    Ok(status.success())
}
