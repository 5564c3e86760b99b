//! Webhooks that are away, a control plane that starts from cold, certificates that are replaced, leaders that die.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::helm::{NAMESPACE, chart};
use tokenscope_e2e::node::{NOTICED, Node, STARTED};
use tokenscope_e2e::probes::Sdk;
use tokenscope_xtask::progress::say;

use crate::cold::start_from_cold;
use crate::{Shared, asking, locked, scale_webhook, set, shared, without_node};

/// A rotation while pods are created and deleted. That of the authority has several steps.
const ROTATED: Duration = Duration::from_secs(480);

#[test]
fn without_any_webhook_pods_that_ask_wait_and_start_by_themselves_and_all_others_run() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let node = &shared.node;
    let role = shared.workloads("waiting")?;
    scale_webhook(node, 0)?;
    node.eventually(NOTICED, "no webhook is left", || {
        let left = node.memory_of("tokenscope-webhook")?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;

    let check = [
        "test",
        "tokenscope",
        "--namespace",
        NAMESPACE,
        "--logs",
        "--timeout=240s",
    ];
    let failed = node
        .helm(&check, &Value::Null)
        .err()
        .context("helm test finds nothing wrong")?;
    assert!(format!("{failed:#}").contains("can't be reached"), "{failed:#}");

    shared.deploy_two("waiting", &role)?;
    shared.others_run("waiting")?;
    shared.asking_says_why("waiting")?;

    start_from_cold(node)?;
    shared.asking_starts("waiting")
}

#[test]
fn while_every_webhook_is_killed_pods_that_ask_wait_and_all_others_run() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let node = &shared.node;
    let role = shared.workloads("killed")?;
    // The kubelet starts it again at once, after the second time ten seconds later.
    for _ in 0..2 {
        node.eventually(STARTED, "two webhooks run", || {
            let found = node.processes("tokenscope-webhook")?;
            ensure!(found.len() == 2, "{found:?}");
            Ok(())
        })?;
        node.kill("tokenscope-webhook")?;
    }
    shared.deploy_two("killed", &role)?;
    shared.others_run("killed")?;
    shared.asking_starts("killed")?;
    // For the next test, pods that the kubelet doesn't hold back.
    let deployment = "deployment/tokenscope-webhook";
    node.kubectl_in(NAMESPACE, &["rollout", "restart", deployment])?;
    node.kubectl_in(NAMESPACE, &["rollout", "status", deployment, "--timeout=300s"])?;
    Ok(())
}

#[test]
fn while_no_packet_reaches_a_webhook_pods_that_ask_wait_and_all_others_run() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let node = &shared.node;
    let role = shared.workloads("unreachable")?;
    let rules = "table inet unreachable { chain output { type filter hook output priority 0; tcp dport 8443 drop; }; }";
    node.run("nft", &["--file", "-"], rules)?;
    let waited = shared.deploy_two("unreachable", &role).and_then(|()| {
        shared.others_run("unreachable")?;
        shared.asking_says_why("unreachable")
    });
    node.run("nft", &["delete", "table", "inet", "unreachable"], "")?;
    waited?;
    shared.asking_starts("unreachable")
}

impl Shared {
    /// Two Deployments: `asking` asks for the role, `plain` for nothing.
    fn deploy_two(&self, namespace: &str, role: &str) -> Result<()> {
        let stays = asking(
            role,
            &json!({"containers": [Sdk::Go.staying("app", namespace, "asking", 2)]}),
        );
        let mut plain = stays.clone();
        plain["metadata"]["annotations"] = json!({});
        self.node.apply(&[
            set("Deployment", namespace, "asking", &stays),
            set("Deployment", namespace, "plain", &plain),
        ])
    }

    fn others_run(&self, namespace: &str) -> Result<()> {
        let started = Instant::now();
        self.node
            .kubectl_in(
                namespace,
                &[
                    "wait",
                    "--for=condition=Available",
                    "--timeout=240s",
                    "deployment/plain",
                ],
            )
            .context("a pod that doesn't ask was held up")?;
        say(&format!(
            "  {namespace}: a pod that doesn't ask runs after {:.1} s",
            started.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    fn asking_says_why(&self, namespace: &str) -> Result<()> {
        let what = "the asking Deployment says why it waits";
        self.node.eventually(NOTICED, what, || {
            let path = "--output=jsonpath={.status.conditions[?(@.type==\"ReplicaFailure\")].message}";
            let reason = self
                .node
                .kubectl_in(namespace, &["get", "deployment", "asking", path])?;
            ensure!(reason.contains("tokenscope"), "{reason:?}");
            Ok(())
        })
    }

    fn asking_starts(&self, namespace: &str) -> Result<()> {
        let started = Instant::now();
        // Controllers try again ever more rarely.
        self.node.kubectl_in(
            namespace,
            &[
                "wait",
                "--for=condition=Available",
                "--timeout=480s",
                "deployment/asking",
            ],
        )?;
        say(&format!(
            "  {namespace}: the pod that waited started after {:.1} s more",
            started.elapsed().as_secs_f64()
        ));
        let text = self.node.eventually(STARTED, "it has used S3", || {
            self.aws.object(&self.node, namespace, "asking")
        })?;
        assert!(text.contains(&format!(":assumed-role/{namespace}/")), "{text}");
        self.node.kubectl(&["delete", "namespace", namespace, "--wait=false"])?;
        Ok(())
    }
}

#[test]
fn no_create_fails_while_certificate_and_authority_are_rotated() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let result = shared.rotate();
    // Whatever came of it, the next test finds the chart's own Deployment.
    let folder = chart("tokenscope").display().to_string();
    let restore = [
        "upgrade",
        "tokenscope",
        &folder,
        "--namespace",
        NAMESPACE,
        "--force-conflicts",
        "--reset-values",
        "--wait",
    ];
    shared.node.helm(&restore, &locked(&Value::Null))?;
    result
}

impl Shared {
    fn rotate(&self) -> Result<()> {
        let node = &self.node;
        // It is about certificates: on a busy machine a slow answer is none that failed.
        node.install(&locked(&json!({"webhook": {"timeoutSeconds": 10}})))?;
        let role = self.workloads("rotating")?;
        shorten_overlap(node)?;

        node.apply(&[set("Deployment", "rotating", "many", &without_node(Some(&role)))])?;
        let leaf = certificate(node, "tokenscope-webhook-tls", "tls.crt")?;
        let authority = certificate(node, "tokenscope-ca", "ca.crt")?;
        let (reviewed, rejected) = reviews(node)?;
        let rotate = |secret: &str| {
            node.kubectl_in(
                NAMESPACE,
                &["annotate", "secret", secret, "tokenscope.io/rotate=now", "--overwrite"],
            )
        };
        rotate("tokenscope-webhook-tls")?;
        node.eventually(ROTATED, "the serving certificate is another one", || {
            up_and_down(node)?;
            ensure!(certificate(node, "tokenscope-webhook-tls", "tls.crt")? != leaf);
            Ok(())
        })?;
        let started = Instant::now();
        rotate("tokenscope-ca")?;
        node.eventually(ROTATED, "one authority is trusted, another one than before", || {
            up_and_down(node)?;
            let now = certificate(node, "tokenscope-ca", "ca.crt")?;
            ensure!(
                now != authority && now.len() < authority.len() * 3 / 2,
                "still the old one, or both"
            );
            Ok(())
        })?;
        for _ in 0..5 {
            up_and_down(node)?;
        }
        let (reviewed_then, rejected_then) = reviews(node)?;
        say(&format!(
            "  the authority was rotated in {:.1} s; {} creates were reviewed meanwhile, {} failed",
            started.elapsed().as_secs_f64(),
            reviewed_then - reviewed,
            rejected_then - rejected
        ));
        assert!(reviewed_then - reviewed > 100, "from {reviewed} to {reviewed_then}");
        assert_eq!(rejected_then, rejected, "creates failed");
        node.kubectl(&["delete", "namespace", "rotating", "--wait=false"])?;
        Ok(())
    }
}

/// The chart's shortest overlap is a minute, twice; a cluster of one API server needs less.
fn shorten_overlap(node: &Node) -> Result<()> {
    let operator = node.get(&["deployment", "tokenscope-operator", "--namespace", NAMESPACE])?;
    let arguments = operator["spec"]["template"]["spec"]["containers"][0]["args"].as_array();
    let mut arguments = arguments.context("the operator has arguments")?.clone();
    for argument in &mut arguments {
        if argument
            .as_str()
            .is_some_and(|text| text.starts_with("--rotation-overlap="))
        {
            *argument = "--rotation-overlap=8".into();
        }
    }
    let change = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": arguments}]);
    let operator = "deployment/tokenscope-operator";
    node.kubectl_in(
        NAMESPACE,
        &["patch", operator, "--type=json", "--patch", &change.to_string()],
    )?;
    node.kubectl_in(NAMESPACE, &["rollout", "status", operator, "--timeout=240s"])?;
    Ok(())
}

/// A file of a Secret, in base64.
fn certificate(node: &Node, secret: &str, file: &str) -> Result<String> {
    let path = format!("--output=jsonpath={{.data.{}}}", file.replace('.', "\\."));
    node.kubectl_in(NAMESPACE, &["get", "secret", secret, &path])
}

/// Scales the Deployment up and down, so that its pods are created anew.
fn up_and_down(node: &Node) -> Result<()> {
    for wanted in ["15", "0"] {
        node.kubectl_in(
            "rotating",
            &["scale", "deployment/many", &format!("--replicas={wanted}")],
        )?;
        node.eventually(NOTICED, &format!("there are {wanted} pods"), || {
            let path = "--output=jsonpath={.status.replicas}";
            let count = node.kubectl_in("rotating", &["get", "deployment", "many", path])?;
            ensure!(
                count == wanted || (count.is_empty() && wanted == "0"),
                "there are {count}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

/// How many creates the API server has asked our webhook about, and how many it refused, for whatever reason.
fn reviews(node: &Node) -> Result<(u64, u64)> {
    let metrics = node.kubectl(&["get", "--raw", "/metrics"])?;
    let sum = |metric: &str| -> u64 {
        metrics
            .lines()
            .filter(|line| line.starts_with(metric) && line.contains("name=\"pods.tokenscope.io\""))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .map(|value| value as u64)
            .sum()
    };
    let reviewed = sum("apiserver_admission_webhook_admission_duration_seconds_count");
    Ok((reviewed, sum("apiserver_admission_webhook_rejection_count")))
}

#[test]
fn another_operator_takes_over_when_the_leaders_pod_is_deleted() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let node = &shared.node;
    let leader = || -> Result<String> {
        let path = "--output=jsonpath={.spec.holderIdentity}";
        let holder = node.kubectl_in(NAMESPACE, &["get", "lease", "tokenscope-operator", path])?;
        ensure!(!holder.is_empty(), "nobody holds the lease");
        Ok(holder)
    };
    for force in [false, true] {
        let (before, pod) = node.eventually(STARTED, "somebody leads who is there", || {
            let leader = leader()?;
            let pods = node.kubectl_in(NAMESPACE, &["get", "pods", "--output=name"])?;
            let mut pods = pods.lines().filter_map(|line| line.strip_prefix("pod/"));
            let pod = pods.find(|pod| leader.starts_with(pod)).map(str::to_owned);
            Ok((leader.clone(), pod.with_context(|| format!("{leader} is gone"))?))
        })?;
        let mut delete = vec!["delete", "pod", &pod, "--wait=false"];
        if force {
            delete.extend(["--force", "--grace-period=0"]);
        }
        let started = Instant::now();
        node.kubectl_in(NAMESPACE, &delete)?;
        node.eventually(STARTED, "another one leads", || {
            let now = leader()?;
            ensure!(now != before, "{now}");
            Ok(())
        })?;
        say(&format!(
            "  a new leader after {:.1} s{}",
            started.elapsed().as_secs_f64(),
            if force { ", with the old one killed" } else { "" }
        ));
        let namespace = if force { "after-a-kill" } else { "after-a-delete" };
        node.namespace(namespace, "app")?;
        shared.policy(namespace, &["arn:aws:iam::000000000000:role/any"])?;
    }
    Ok(())
}
