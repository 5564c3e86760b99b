//! What remains possible for the role `edit`: whoever may run commands in a granted pod has what the pod has.

use anyhow::{Result, ensure};
use serde_json::json;
use tokenscope_e2e::probes::Sdk;

use crate::as_it_is;

/// Prints the pod's token, by what its environment says.
const READ: &str = "import os; print(open(os.environ['AWS_WEB_IDENTITY_TOKEN_FILE']).read())";

#[test]
fn an_editor_reads_the_token_of_a_granted_pod_by_running_a_command_in_it() -> Result<()> {
    let Some(shared) = as_it_is()? else { return Ok(()) };
    shared.node.apply(&[json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "editor", "namespace": "refreshed"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "editor"}],
    })])?;
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
