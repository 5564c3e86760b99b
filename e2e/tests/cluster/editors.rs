//! What the role `edit` gets of tokens while the lock denies, and what remains possible: whoever may run commands in a granted pod has what
//! the pod has.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::node::Node;
use tokenscope_e2e::probes::Sdk;

use crate::{as_it_is, asking, pod, shared};

/// Prints the pod's token, by what its environment says.
const READ: &str = "import os; print(open(os.environ['AWS_WEB_IDENTITY_TOKEN_FILE']).read())";

/// The audience that is locked by default.
pub(crate) const LOCKED: &str = "sts.amazonaws.com";

/// Gives the user `editor` the role `edit` in a namespace.
pub(crate) fn make_editor(node: &Node, namespace: &str) -> Result<()> {
    node.apply(&[json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "editor", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "editor"}],
    })])
}

#[test]
fn an_editor_reads_the_token_of_a_granted_pod_by_running_a_command_in_it() -> Result<()> {
    let Some(shared) = as_it_is()? else { return Ok(()) };
    make_editor(&shared.node, "refreshed")?;
    let pod = Sdk::Python.name();
    let arguments = [
        "exec",
        "--as=editor",
        pod,
        "--container=app",
        "--",
        "/python/bin/python3",
        "-c",
        READ,
    ];
    let token = shared.node.kubectl_in("refreshed", &arguments)?;
    ensure!(
        token.trim().split('.').count() == 3,
        "that is no token: {} bytes",
        token.len()
    );
    Ok(())
}

#[test]
fn a_kubelet_gets_the_token_of_a_granted_pod_and_an_editor_gets_none_by_hand() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let (node, namespace) = (&shared.node, "locked");
    let binding = node.get(&["validatingadmissionpolicybinding", "tokenscope-lock-tokens"])?;
    ensure!(
        binding["spec"]["validationActions"] == json!(["Deny"]),
        "the lock doesn't deny: {}",
        binding["spec"]
    );
    let role = shared.workloads(namespace)?;
    make_editor(node, namespace)?;

    // The kubelet asks for the token of a pod that a policy grants it to, and somebody else's STS takes it.
    let granted = asking(
        &role,
        &json!({"containers": [Sdk::Go.container("app", namespace, "granted")]}),
    );
    shared.create(&pod(namespace, "granted", &granted))?;
    let (well, log) = node.ended(namespace, "granted")?;
    ensure!(well && log.contains(":assumed-role/locked/"), "{log}");

    // No policy is about the ServiceAccount `default`.
    let by_hand = pod(namespace, "by-hand", &mounting_a_token());
    let as_editor = ["--as=editor", "create", "--filename=-"];
    let refused = node.run("kubectl", &as_editor, &by_hand.to_string()).err();
    let refused = format!("{:#}", refused.context("a token that is mounted by hand is admitted")?);
    ensure!(refused.contains("Forbidden") && refused.contains(LOCKED), "{refused}");

    // With the pod that was granted as well, which is still there.
    let audience = format!("--audience={LOCKED}");
    let bound = ["--bound-object-kind=Pod", "--bound-object-name=granted"];
    for (account, bound) in [("default", &[][..]), ("app", &[]), ("app", &bound)] {
        let mut request = vec!["--as=editor", "create", "token", account, &audience];
        request.extend(bound);
        let refused = node.kubectl_in(namespace, &request).err();
        let refused = refused.with_context(|| format!("{account} {bound:?}: a token is given to an editor"))?;
        let refused = format!("{refused:#}");
        ensure!(refused.contains("tokenscope-lock-tokens"), "{refused}");
    }
    node.kubectl(&["delete", "namespace", namespace, "--wait=false"])?;
    Ok(())
}

/// A template of pods that ask tokenscope for nothing and mount a token of the locked audience.
fn mounting_a_token() -> Value {
    let mut container = Sdk::Go.container("app", "none", "none");
    container["volumeMounts"] = json!([{"name": "own-token", "mountPath": "/own"}]);
    let token = json!({"serviceAccountToken": {"audience": LOCKED, "path": "token"}});
    json!({
        "metadata": {},
        "spec": {
            "containers": [container], "serviceAccountName": "default",
            "volumes": [{"name": "own-token", "projected": {"sources": [token]}}],
        },
    })
}
