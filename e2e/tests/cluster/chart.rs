//! What Helm does with the chart, and what the chart promises.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::helm::{NAMESPACE, chart, template};
use tokenscope_e2e::node::{NOTICED, Node};
use tokenscope_xtask::progress::say;

use crate::{locked, shared};

#[test]
fn helm_installs_upgrades_rolls_back_and_leaves_policies_when_it_uninstalls() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let node = &shared.node;
    remove_everything(node)?;
    the_demo_leaves_nothing(node)?;

    let started = Instant::now();
    node.install(&locked(&Value::Null))?;
    say(&format!(
        "  helm install --wait of both charts: {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    assert_eq!(replicas(node)?, "2");
    let said = helm_test(node)?;
    assert!(said.contains("the webhook answers"), "{said}");
    node.namespace("kept", "app")?;
    shared.policy("kept", &["arn:aws:iam::000000000000:role/kept"])?;

    values_are_changed_and_rolled_back(node)?;
    a_second_release_is_refused(node)?;
    uninstalling_leaves_policies(node)?;

    let refused = demo(node).err().context("the demo removes what it didn't make")?;
    assert!(format!("{refused:#}").contains("already"), "{refused:#}");

    node.install(&locked(&Value::Null))
        .context("it doesn't adopt what was left")?;
    node.kubectl_in(
        "kept",
        &[
            "wait",
            "--for=condition=Ready",
            "--timeout=180s",
            "tokenscopepolicy/app",
        ],
    )?;
    Ok(())
}

fn remove_everything(node: &Node) -> Result<()> {
    node.helm(&["uninstall", "tokenscope", "--namespace", NAMESPACE], &Value::Null)?;
    node.helm(
        &["uninstall", "tokenscope-crds", "--namespace", NAMESPACE],
        &Value::Null,
    )?;
    for plural in [
        "tokenscopepolicies",
        "clustertokenscopepolicies",
        "tokenscopeboundaries",
    ] {
        node.kubectl(&["delete", "crd", &format!("{plural}.tokenscope.io")])?;
    }
    node.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=240s"])?;
    Ok(())
}

/// The demo in somebody's own cluster.
fn demo(node: &Node) -> Result<String> {
    let kubeconfig = format!("--kubeconfig={}", node.cluster().kubeconfig().display());
    node.run(env!("CARGO_BIN_EXE_demo_cluster"), &[&kubeconfig], "")
}

/// As in somebody's own cluster, in which nothing of ours is.
fn the_demo_leaves_nothing(node: &Node) -> Result<()> {
    let shown = demo(node)?;
    assert!(
        shown.contains("AWS_WEB_IDENTITY_TOKEN_FILE") && shown.contains("refused, with the reason"),
        "{shown}"
    );
    let all = node.kubectl(&[
        "get",
        "namespaces,customresourcedefinitions,clusterroles",
        "--output=name",
    ])?;
    let left =
        |line: &&str| line.contains("shop") || (line.contains("tokenscope") && !line.ends_with("/tokenscope-test"));
    assert_eq!(all.lines().find(left), None, "the demo left something");
    Ok(())
}

fn replicas(node: &Node) -> Result<String> {
    let path = "--output=jsonpath={.status.readyReplicas}";
    node.kubectl_in(NAMESPACE, &["get", "deployment", "tokenscope-webhook", path])
}

fn helm_test(node: &Node) -> Result<String> {
    let arguments = [
        "test",
        "tokenscope",
        "--namespace",
        NAMESPACE,
        "--logs",
        "--timeout=240s",
    ];
    node.helm(&arguments, &Value::Null)
}

fn values_are_changed_and_rolled_back(node: &Node) -> Result<()> {
    node.install(&locked(
        &json!({"webhook": {"replicas": 3}, "enforcement": "warn", "logging": {"level": "debug"}}),
    ))?;
    assert_eq!(replicas(node)?, "3", "changed values are in force");
    helm_test(node)?;
    let arguments = "--output=jsonpath={.spec.template.spec.containers[0].args}";
    let deployment = ["get", "deployment", "tokenscope-webhook", arguments];
    assert!(node.kubectl_in(NAMESPACE, &deployment)?.contains("--enforcement=warn"));
    let history = node.helm(
        &["rollback", "tokenscope", "1", "--namespace", NAMESPACE, "--wait"],
        &Value::Null,
    )?;
    assert!(history.contains("Rollback was a success"), "{history}");
    assert!(
        node.kubectl_in(NAMESPACE, &deployment)?
            .contains("--enforcement=enforce")
    );
    node.eventually(NOTICED, "there are two again", || {
        let replicas = replicas(node)?;
        ensure!(replicas == "2", "{replicas}");
        Ok(())
    })
}

fn a_second_release_is_refused(node: &Node) -> Result<()> {
    let other = chart("tokenscope").display().to_string();
    let second = node.try_run(
        "helm",
        &[
            "install",
            "second",
            &other,
            "--namespace",
            "elsewhere",
            "--create-namespace",
        ],
        "",
    )?;
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success(), "a second release was installed");
    assert!(
        message.contains("tokenscope is already installed in this cluster, as release \"tokenscope\""),
        "{message}"
    );
    Ok(())
}

fn uninstalling_leaves_policies(node: &Node) -> Result<()> {
    node.helm(
        &["uninstall", "tokenscope", "--namespace", NAMESPACE, "--wait"],
        &Value::Null,
    )?;
    node.helm(
        &["uninstall", "tokenscope-crds", "--namespace", NAMESPACE],
        &Value::Null,
    )?;
    node.kubectl_in("kept", &["get", "tokenscopepolicy", "app"])
        .context("the policy is gone")?;
    let left = node.kubectl(&[
        "get",
        "mutatingwebhookconfigurations,validatingadmissionpolicies,clusterroles",
        "--output=name",
    ])?;
    assert!(!left.contains("tokenscope"), "left behind: {left}");
    Ok(())
}

#[test]
fn no_drain_takes_all_pods_of_a_process_and_their_limits_are_in_force() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let node = &shared.node;
    for name in ["tokenscope-webhook", "tokenscope-operator"] {
        let objects = template("tokenscope", &Value::Null)?;
        let deployment = objects
            .iter()
            .find(|object| object["kind"] == "Deployment" && object["metadata"]["name"] == name)
            .with_context(|| format!("the chart has {name}"))?;
        let limits = &deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"];
        let memory = limits["memory"].as_str().and_then(|text| text.strip_suffix("Mi"));
        let memory = memory.context("memory is limited")?.parse::<u64>()? << 20;
        let processors = limits["cpu"]
            .as_str()
            .context("the processor is limited")?
            .parse::<u64>()?;
        for process in node.processes(name)? {
            let limit = node.limit(process, "memory.max", ("memory", "memory.limit_in_bytes"))?;
            assert_eq!(limit, memory.to_string(), "{name}: memory");
            let limit = node.limit(process, "cpu.max", ("cpu", "cpu.cfs_quota_us"))?;
            let quota = limit.split(' ').next().unwrap_or_default();
            assert_eq!(quota, (processors * 100_000).to_string(), "{name}: of each 100 ms");
        }
    }

    // As a drain does: no new pods here, and then one eviction after another.
    node.kubectl(&["cordon", "node-1"])?;
    let result = evictions(node);
    node.kubectl(&["uncordon", "node-1"])?;
    for deployment in ["deployment/tokenscope-operator", "deployment/tokenscope-webhook"] {
        node.kubectl_in(NAMESPACE, &["rollout", "status", deployment, "--timeout=240s"])?;
    }
    result
}

fn evictions(node: &Node) -> Result<()> {
    for component in ["webhook", "operator"] {
        let selector = format!("--selector=app.kubernetes.io/component={component}");
        let pods = node.kubectl_in(NAMESPACE, &["get", "pods", &selector, "--output=name"])?;
        let pods: Vec<&str> = pods.lines().filter_map(|line| line.strip_prefix("pod/")).collect();
        ensure!(pods.len() == 2, "{pods:?}");
        let evict = |pod: &str| {
            let eviction = json!({
                "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE},
            });
            let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction");
            let arguments = ["create", "--raw", &path, "--filename=-"];
            node.run("kubectl", &arguments, &eviction.to_string())
        };
        // The budget counts pods a moment after they are ready.
        node.eventually(NOTICED, "the first pod may go", || evict(pods[0]))?;
        let refused = evict(pods[1])
            .err()
            .with_context(|| format!("both pods of {component} were evicted"))?;
        assert!(format!("{refused:#}").contains("disruption budget"), "{refused:#}");
        say(&format!(
            "  the second {component} stays: {}",
            refused.to_string().trim().rsplit("): ").next().unwrap_or_default()
        ));
    }
    Ok(())
}
