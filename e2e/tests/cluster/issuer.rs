//! Tokens of tokenscope's own issuer, as users have them: the sidecar in a pod exchanges the pod's own token, and AWS SDKs beside it
//! use S3 with what somebody else's STS gives for the new one.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::aws::{ACCOUNT, REGION};
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::probes::Sdk;

use crate::{Shared, asking, pod, shared};

const HOST: &str = "tokens.tokenscope.test";
const URL: &str = "https://tokens.tokenscope.test";
/// Where its public documents are; RFC 5737, as the stand-in's.
const ADDRESS: &str = "198.51.100.30";
const NAME: &str = "issued";
/// The documents that AWS reads, below the URL.
const DOCUMENTS: [&str; 2] = [".well-known/openid-configuration", "keys"];

#[test]
fn sdks_use_s3_with_tokens_that_the_sidecar_exchanged_at_the_issuer() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let values = json!({"issuer": {"enabled": true, "url": URL}});
    shared.node.install(&values)?;
    let result = sdks_use_s3(&shared);
    shared.node.install(&Value::Null)?;
    result
}

fn sdks_use_s3(shared: &Shared) -> Result<()> {
    let node = &shared.node;
    publish(shared)?;
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
    Ok(())
}

/// Publishes the issuer's two documents at its URL, and makes it known to the stand-in as docs/issuer.md says.
fn publish(shared: &Shared) -> Result<()> {
    let (node, aws) = (&shared.node, &shared.aws);
    let folder = node.cluster().folder().join("aws");
    let documents = folder.join("tokens");
    fs::create_dir_all(documents.join(".well-known"))?;
    let proxied = format!("/api/v1/namespaces/{NAMESPACE}/services/https:tokenscope-issuer:issuer/proxy");
    for document in DOCUMENTS {
        let text = node.eventually(Duration::from_secs(60), "the issuer publishes its documents", || {
            node.kubectl(&["get", "--raw", &format!("{proxied}/{document}")])
        })?;
        fs::write(documents.join(document), text)?;
    }
    node.run("ip", &["address", "add", &format!("{ADDRESS}/32"), "dev", "lo"], "")?;
    // The stand-in's view of the world; the file is mounted over /etc/hosts there.
    writeln!(
        OpenOptions::new().append(true).open(folder.join("hosts"))?,
        "{ADDRESS} {HOST}"
    )?;
    let identity = aws.certificate_for(HOST)?;
    fs::write(folder.join("tokens.crt"), identity.certificate)?;
    fs::write(folder.join("tokens.key"), identity.key)?;
    let path = |name: &str| folder.join(name).display().to_string();
    node.serve(
        "tokens",
        node.helper(),
        &[
            "publish",
            &format!("--listen={ADDRESS}:443"),
            &format!("--folder={}", path("tokens")),
            &format!("--certificate={}", path("tokens.crt")),
            &format!("--key={}", path("tokens.key")),
        ],
        &[],
    )?;
    let provider = json!({"Url": URL, "ClientIDList": ["sts.amazonaws.com"]});
    node.eventually(Duration::from_secs(30), "the stand-in knows the issuer", || {
        aws.call(
            node,
            &[json!({"service": "iam", "call": "create_open_id_connect_provider", "with": provider})],
        )
    })?;
    Ok(())
}
