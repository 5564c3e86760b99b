//! What pods get: AWS SDKs of five languages and both versions of the AWS CLI, the STS's refusals, and every kind of workload.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;
use tokenscope_e2e::aws::ACCOUNT;
use tokenscope_e2e::node::STARTED;
use tokenscope_e2e::probes::Sdk;
use tokenscope_xtask::progress::say;

use crate::{asking, pod, set, shared};

#[test]
fn unmodified_sdks_in_pods_use_s3_with_what_an_sts_gave_them_for_the_injected_token() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let (node, aws) = (&shared.node, &shared.aws);
    let role = shared.workloads("sdks")?;
    let mut loaded = Vec::new();
    for sdk in Sdk::ALL {
        if sdk.load_if_possible(node)? {
            loaded.push(sdk);
        }
    }
    let mut failures = Vec::new();
    for sdk in loaded {
        let name = sdk.name();
        let started = Instant::now();
        let template = asking(&role, &json!({"containers": [sdk.container("app", "sdks", name)]}));
        shared.create(&pod("sdks", name, &template))?;
        let (well, log) = node.ended("sdks", name)?;
        say(&format!(
            "  {name:<12} {} ({:.1} s)",
            log.lines()
                .find(|line| line.starts_with("caller: "))
                .unwrap_or("refused"),
            started.elapsed().as_secs_f64()
        ));
        if !well || !log.contains(&format!("caller: arn:aws:sts::{ACCOUNT}:assumed-role/sdks/")) {
            failures.push(format!("{name}: {log}"));
            continue;
        }
        let stored = aws.object(node, "sdks", name)?;
        assert!(log.contains(&format!("object: {stored}")), "{name}: {log}");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

#[test]
fn the_sts_refuses_a_wrong_subject_a_wrong_audience_and_a_role_that_is_not_there() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let node = &shared.node;
    let role = shared.workloads("trusted")?;
    let unlisted = format!("arn:aws:iam::{ACCOUNT}:role/tests/nobody-made-it");
    let refused = |namespace: &str, name: &str, role: &str, audience: &str| -> Result<String> {
        let mut template = asking(
            role,
            &json!({"containers": [Sdk::Go.container("app", "trusted", "never")]}),
        );
        template["metadata"]["annotations"]["tokenscope.io/audience"] = audience.into();
        shared.create(&pod(namespace, name, &template))?;
        let (well, log) = node.ended(namespace, name)?;
        ensure!(!well && log.contains("refused: "), "it wasn't refused: {log}");
        say(&format!(
            "  {name}: {}",
            log.rsplit_once("RequestID: ")
                .and_then(|(_, rest)| rest.split_once(", "))
                .map_or(log.as_str(), |(_, said)| said)
                .trim_start_matches("api error ")
                .trim()
        ));
        Ok(log)
    };

    shared.policy("trusted", &[&role, &unlisted])?;
    // Our policies allow this namespace the role, too; the role's trust policy doesn't know of it.
    node.namespace("untrusted", "app")?;
    shared.policy("untrusted", &[&role])?;
    let subject = refused("untrusted", "wrong-subject", &role, "sts.amazonaws.com")?;
    assert!(
        subject.contains("AccessDenied") || subject.contains("InvalidIdentityToken"),
        "{subject}"
    );
    let audience = refused("trusted", "wrong-audience", &role, "somebody.else")?;
    assert!(
        audience.contains("InvalidIdentityToken") || audience.contains("AccessDenied"),
        "{audience}"
    );
    let unlisted = refused("trusted", "unlisted-role", &unlisted, "sts.amazonaws.com")?;
    assert!(unlisted.contains("AccessDenied"), "{unlisted}");
    Ok(())
}

#[test]
fn every_kind_of_workload_and_container_gets_its_token_under_restricted_pod_security() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let (node, aws) = (&shared.node, &shared.aws);
    let role = shared.workloads("kinds")?;

    let mut sidecar = Sdk::Go.staying("sidecar", "kinds", "sidecar", 2);
    sidecar["restartPolicy"] = "Always".into();
    let containers = asking(
        &role,
        &json!({
            "initContainers": [Sdk::Go.container("init", "kinds", "init"), sidecar],
            "containers": [Sdk::Go.container("app", "kinds", "container")],
        }),
    );
    let once = |key: &str| {
        let spec = json!({"restartPolicy": "Never", "containers": [Sdk::Go.container("app", "kinds", key)]});
        json!({"template": asking(&role, &spec), "backoffLimit": 0})
    };
    let stays = |key: &str| asking(&role, &json!({"containers": [Sdk::Go.staying("app", "kinds", key, 2)]}));
    shared.create(&pod("kinds", "containers", &containers))?;
    node.apply(&[
        json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job", "namespace": "kinds"}, "spec": once("job"),
        }),
        json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "cronjob", "namespace": "kinds"},
            "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": once("cronjob")}},
        }),
        set("Deployment", "kinds", "deployment", &stays("deployment")),
        set("StatefulSet", "kinds", "statefulset", &stays("statefulset")),
        set("DaemonSet", "kinds", "daemonset", &stays("daemonset")),
    ])?;
    for key in [
        "init",
        "sidecar",
        "container",
        "job",
        "deployment",
        "statefulset",
        "daemonset",
        "cronjob",
    ] {
        let text = node.eventually(STARTED, &format!("the bucket has {key}"), || {
            aws.object(node, "kinds", key).map_err(|error| {
                let events = node.kubectl_in("kinds", &["get", "pods,events"]).unwrap_or_default();
                error.context(events)
            })
        })?;
        assert!(text.contains(":assumed-role/kinds/"), "{key}: {text}");
    }
    node.kubectl(&["delete", "namespace", "kinds", "--wait=false"])?;
    Ok(())
}
