//! A control plane that starts from cold, with nothing of ours and no DNS server.

use std::time::Instant;

use anyhow::{Result, ensure};
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::node::{NOTICED, Node, STARTED};
use tokenscope_e2e::node_servers::NodeServer;
use tokenscope_xtask::progress::say;

use crate::scale_webhook;

/// From cold, and without us: a control plane that starts, nothing of ours and no DNS server, and a webhook configuration
/// which says that pods need the webhook. Nothing makes pods meanwhile.
pub(crate) fn start_from_cold(node: &Node) -> Result<()> {
    let servers = ["etcd", "kube-apiserver", "kube-scheduler", "kube-controller-manager"];
    let servers = servers.map(|name| node.server(name));
    let servers = servers.into_iter().collect::<Result<Vec<_>>>()?;
    let stopped = stop_all(node);
    let started = Instant::now();
    // Whatever came of it, the next test finds a control plane.
    bring_back(node, &servers)?;
    stopped?;
    for (namespace, deployment) in [
        ("kube-system", "deployment/coredns"),
        (NAMESPACE, "deployment/tokenscope-operator"),
        (NAMESPACE, "deployment/tokenscope-webhook"),
    ] {
        node.kubectl_in(namespace, &["rollout", "status", deployment, "--timeout=300s"])?;
    }
    say(&format!(
        "  from cold until all is ready: {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Ends every pod, and then the API server.
fn stop_all(node: &Node) -> Result<()> {
    for makes_pods in ["kube-controller-manager", "kube-scheduler"] {
        node.kill(makes_pods)?;
    }
    scale_webhook(node, 2)?;
    for namespace in [NAMESPACE, "kube-system"] {
        let all = ["delete", "pods", "--all", "--grace-period=1", "--timeout=240s"];
        node.kubectl_in(namespace, &all)?;
    }
    for name in ["kube-apiserver", "etcd"] {
        node.kill(name)?;
    }
    // The kubelet, which goes on, may be a moment behind.
    node.eventually(NOTICED, "none of the pods' programs runs", || {
        for program in ["coredns", "tokenscope-operator", "tokenscope-webhook"] {
            ensure!(node.processes(program)?.is_empty(), "{program} runs");
        }
        Ok(())
    })
}

/// Starts the control plane: first what serves, then what works with it. One that ends meanwhile is started again.
fn bring_back(node: &Node, servers: &[NodeServer]) -> Result<()> {
    node.serves_again(&servers[..2])?;
    // These end at once while the API server doesn't know of their rights yet.
    node.eventually(STARTED, "the controllers work", || {
        node.keep_running(servers)?;
        let status = ["rollout", "status", "deployment/coredns", "--timeout=10s"];
        node.kubectl_in("kube-system", &status)
    })?;
    Ok(())
}
