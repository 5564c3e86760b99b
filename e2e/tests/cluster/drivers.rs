//! Inline volumes of a CSI driver that runs, and for which a real kubelet asks for tokens of a locked audience.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::csi::start_token_driver;
use tokenscope_e2e::node::{NOTICED, Node};
use tokenscope_e2e::probes::Sdk;

use crate::editors::{LOCKED, make_editor};
use crate::{Shared, pod, shared};

const DRIVER: &str = "secrets.csi.example.com";
const NAMESPACE: &str = "driven";

/// Prints what the tokens of the volume say of themselves, never a token.
const CLAIMS: &str = "\
import base64, json
for audience, given in json.load(open('/given/tokens')).items():
    part = given['token'].split('.')[1]
    print('claims:', audience, base64.urlsafe_b64decode(part + '=' * (-len(part) % 4)).decode())
";

#[test]
fn a_csi_driver_gets_a_locked_token_from_the_kubelet_only_for_pods_that_a_policy_grants_it() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let node = &shared.node;
    shared.workloads(NAMESPACE)?;
    make_editor(node, NAMESPACE)?;
    start_token_driver(node, DRIVER, LOCKED)?;
    let result = judged(&shared);
    node.kubectl(&["delete", "csidriver", DRIVER])?;
    node.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"])?;
    result
}

fn judged(shared: &Shared) -> Result<()> {
    let node = &shared.node;
    // No policy is about the ServiceAccount `default`. Each webhook learns of a driver by a watch of its own, a moment later.
    node.eventually(NOTICED, "each webhook knows the driver", || {
        (0..5).try_for_each(|_| is_refused(node, "--dry-run=server"))
    })?;
    is_refused(node, "--dry-run=none")?;

    node.eventually(NOTICED, "the granted pod is admitted", || {
        create(node, "granted", "app", "--dry-run=none")
    })?;
    let (well, log) = node.ended(NAMESPACE, "granted").with_context(|| {
        let log = node.cluster().folder().join(format!("log/csi-driver-{DRIVER}.log"));
        format!("the driver's log: {:?}", std::fs::read_to_string(log))
    })?;
    ensure!(well, "{log}");
    let claims = log.trim().strip_prefix(&format!("claims: {LOCKED} "));
    let claims: Value = serde_json::from_str(claims.with_context(|| format!("one token of one audience: {log}"))?)?;
    ensure!(
        claims["aud"] == json!([LOCKED])
            && claims["sub"] == format!("system:serviceaccount:{NAMESPACE}:app")
            && claims["kubernetes.io"]["pod"]["name"] == "granted",
        "{claims}"
    );
    Ok(())
}

fn is_refused(node: &Node, dry_run: &str) -> Result<()> {
    let refused = create(node, "stolen", "default", dry_run).err();
    let refused = format!("{:#}", refused.context("a pod with the driver's volume is admitted")?);
    ensure!(refused.contains("Forbidden") && refused.contains(DRIVER), "{refused}");
    Ok(())
}

/// Creates a pod with a volume of the driver, as the editor.
fn create(node: &Node, name: &str, account: &str, dry_run: &str) -> Result<()> {
    let mut container = Sdk::Python.container("app", NAMESPACE, name);
    container["command"] = json!(["/python/bin/python3", "-c", CLAIMS]);
    container["volumeMounts"] = json!([{"name": "given", "mountPath": "/given", "readOnly": true}]);
    let template = json!({
        "metadata": {},
        "spec": {
            "serviceAccountName": account, "containers": [container],
            "volumes": [{"name": "given", "csi": {"driver": DRIVER, "readOnly": true}}],
        },
    });
    let arguments = ["--as=editor", "create", dry_run, "--filename=-"];
    node.run("kubectl", &arguments, &pod(NAMESPACE, name, &template).to_string())?;
    Ok(())
}
