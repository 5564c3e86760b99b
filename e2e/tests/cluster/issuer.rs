//! Tokens of tokenscope's own issuer, as users have them: the sidecar in a pod exchanges the pod's own token, and AWS SDKs beside it
//! use S3 with what somebody else's STS gives for the new one.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::aws::{ACCOUNT, REGION};
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::issuer_site::{IssuerSite, own_document};
use tokenscope_e2e::node::{NOTICED, STARTED};
use tokenscope_e2e::probes::Sdk;

use crate::{Shared, asking, locked, pod, shared};

const HOST: &str = "tokens.tokenscope.test";
const URL: &str = "https://tokens.tokenscope.test";
/// Where its public documents are; RFC 5737, as the stand-in's.
const ADDRESS: &str = "198.51.100.30";
const NAME: &str = "issued";
/// A user's command after the chart's CronJob: each file on a line.
const COPY: &str = "\
for path in '.well-known/openid-configuration', 'keys':
    print(open('/published/' + path).read().replace('\\n', ''))
";
/// The documents that AWS reads, below the URL.
const DOCUMENTS: [&str; 2] = [".well-known/openid-configuration", "keys"];

#[test]
fn sdks_use_s3_with_tokens_that_the_sidecar_exchanged_at_the_issuer() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    // It runs when the test says so, and never by itself.
    let publish = json!({
        "enabled": true, "schedule": "0 0 1 1 *", "image": Sdk::Python.image(), "command": ["/python/bin/python3", "-c", COPY],
    });
    let values = json!({"issuer": {"enabled": true, "url": URL, "publish": publish}});
    shared.node.install(&locked(&values))?;
    let result = sdks_use_s3(&shared);
    shared.node.install(&locked(&Value::Null))?;
    result
}

fn sdks_use_s3(shared: &Shared) -> Result<()> {
    let node = &shared.node;
    publish(shared)?;
    the_cron_job_hands_over_what_is_served(shared)?;
    let role = format!("arn:aws:iam::{ACCOUNT}:role/tests/{NAME}");
    node.namespace(NAME, "app")?;
    node.apply(&[json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
        "metadata": {"name": "app", "namespace": NAME},
        "spec": {
            "subjects": [{"serviceAccounts": ["app"]}], "roles": {"allowed": [role]},
            "audiences": {"allowed": ["sts.amazonaws.com"]},
            "token": {"source": "Issuer"}, "aws": {"region": REGION},
        },
    })])?;
    let trust_policy = node.trust_policy(NAME, "app", &role)?;
    ensure!(trust_policy.contains(HOST), "{trust_policy}");
    shared.aws.role(node, NAME, "/tests/", &trust_policy, NAME)?;
    for sdk in [Sdk::Go, Sdk::Python] {
        let name = sdk.name();
        let template = asking(&role, &json!({"containers": [sdk.container("app", NAME, name)]}));
        shared.create(&pod(NAME, name, &template))?;
        let (well, log) = node.ended(NAME, name).with_context(|| {
            let arguments = ["logs", name, "--container", "tokenscope-sidecar", "--tail=30"];
            format!("the sidecar's log: {:?}", node.kubectl_in(NAME, &arguments))
        })?;
        let expected = format!("caller: arn:aws:sts::{ACCOUNT}:assumed-role/{NAME}/");
        ensure!(well && log.contains(&expected), "{name}: {log}");
        let stored = shared.aws.object(node, NAME, name)?;
        ensure!(log.contains(&format!("object: {stored}")), "{name}: {log}");
    }
    pods_of_jobs_use_s3(shared, &role)
}

/// A pod that a CronJob's job makes ends although a sidecar runs in it, after it has taken the role with its issuer's token.
fn pods_of_jobs_use_s3(shared: &Shared, role: &str) -> Result<()> {
    let node = &shared.node;
    let once = |key: &str| {
        let spec = json!({"restartPolicy": "Never", "containers": [Sdk::Go.container("app", NAME, key)]});
        json!({"template": asking(role, &spec), "backoffLimit": 0})
    };
    node.apply(&[
        json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job", "namespace": NAME}, "spec": once("job"),
        }),
        json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "cronjob", "namespace": NAME},
            "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": once("cronjob")}},
        }),
    ])?;
    for key in ["job", "cronjob"] {
        let text = node.eventually(STARTED, &format!("the bucket has {key}"), || {
            shared.aws.object(node, NAME, key).map_err(|error| {
                let events = node.kubectl_in(NAME, &["get", "pods,events"]).unwrap_or_default();
                error.context(events)
            })
        })?;
        ensure!(text.contains(&format!(":assumed-role/{NAME}/")), "{key}: {text}");
    }
    node.eventually(STARTED, "the job of the CronJob is complete", || {
        let jobs = node.get(&["jobs", "--namespace", NAME])?;
        let mut jobs = jobs["items"].as_array().into_iter().flatten();
        let complete =
            |job: &Value| job["metadata"]["ownerReferences"][0]["kind"] == "CronJob" && job["status"]["succeeded"] == 1;
        ensure!(jobs.any(complete), "no job of it is");
        Ok(())
    })?;
    node.kubectl_in(NAME, &["delete", "cronjob", "cronjob"])?;
    Ok(())
}

/// The chart's CronJob writes what the issuer serves, with the rights and restrictions that the chart gives it, and the command finds it.
fn the_cron_job_hands_over_what_is_served(shared: &Shared) -> Result<()> {
    let node = &shared.node;
    let cron_job = "--from=cronjob/tokenscope-issuer-publish";
    node.kubectl_in(NAMESPACE, &["create", "job", "publication", cron_job])?;
    let log = node.eventually(STARTED, "the files are handed over", || {
        let succeeded = "--output=jsonpath={.status.succeeded}";
        let succeeded = node.kubectl_in(NAMESPACE, &["get", "job", "publication", succeeded])?;
        if succeeded != "1" {
            let events = node.kubectl_in(NAMESPACE, &["get", "events", "--sort-by=.lastTimestamp"])?;
            bail!("the job has not succeeded; events:\n{events}");
        }
        node.kubectl_in(NAMESPACE, &["logs", "job/publication", "--container=copy"])
    })?;
    ensure!(log.lines().count() == DOCUMENTS.len(), "{log}");
    for (line, path) in log.lines().zip(DOCUMENTS) {
        let served: Value = serde_json::from_str(&node.kubectl(&["get", "--raw", &own_document(path)])?)?;
        ensure!(
            serde_json::from_str::<Value>(line)? == served,
            "{path}: {line} and {served}"
        );
    }
    node.kubectl_in(NAMESPACE, &["delete", "job", "publication"])?;
    Ok(())
}

/// Publishes the issuer's two documents at its URL, and makes it known to the stand-in as docs/issuer.md says.
fn publish(shared: &Shared) -> Result<()> {
    let (node, aws) = (&shared.node, &shared.aws);
    let site = IssuerSite {
        url: URL,
        address: ADDRESS,
        documents: DOCUMENTS.map(|path| (path, own_document(path))),
    };
    site.publish(node, aws.authority())?;
    let provider = json!({"Url": URL, "ClientIDList": ["sts.amazonaws.com"]});
    node.eventually(NOTICED, "the stand-in knows the issuer", || {
        aws.call(
            node,
            &[json!({"service": "iam", "call": "create_open_id_connect_provider", "with": provider})],
        )
    })?;
    Ok(())
}
