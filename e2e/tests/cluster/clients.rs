//! Client certificates: API servers, the operator and `helm test` are answered by the webhook, and nobody else is.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::apply::documents;
use tokenscope_e2e::helm::{NAMESPACE, chart, helm};
use tokenscope_e2e::node::{NOTICED, Node};
use tokenscope_e2e::node_servers::NodeServer;
use tokenscope_e2e::pki::CertificateAuthority;
use tokenscope_e2e::probes::Sdk;

use crate::{Shared, asking, locked, pod, scale_webhook, set, shared, without_node};

/// The names in the certificates.
const API_SERVERS: &str = "kube-apiserver-webhooks";
const PROBE: &str = "tokenscope-probe";

/// What an operator may take to ask the webhook, to evict a pod, and a node to run the next one.
const EVICTED: Duration = Duration::from_secs(300);

#[test]
fn with_client_certificates_api_servers_operator_and_helm_test_are_answered_and_nobody_else() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let node = &shared.node;
    let authority = CertificateAuthority::new("tokenscope-clients")?;
    let file = admission_configuration(node, &authority)?;
    let as_before = node.server("kube-apiserver")?;
    let showing = as_before.with_argument(&format!("--admission-control-config-file={}", file.display()));
    restart(node, &showing)?;
    let result = only_known_callers_are_answered(&shared, &authority);
    // For the next test, in the order of docs/client-certificates.md.
    node.install(&locked(&Value::Null))?;
    restart(node, &as_before)?;
    result
}

/// The two files of docs/client-certificates.md beside the certificate; gives the first one's path.
fn admission_configuration(node: &Node, authority: &CertificateAuthority) -> Result<PathBuf> {
    let folder = node.cluster().folder().join("admission");
    fs::create_dir_all(&folder)?;
    let identity = authority.client(API_SERVERS, "api-servers")?;
    fs::write(folder.join("webhooks.crt"), identity.certificate)?;
    fs::write(folder.join("webhooks.key"), identity.key)?;
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config",
        "users": [{"name": format!("tokenscope-webhook.{NAMESPACE}.svc"), "user": {
            "client-certificate": folder.join("webhooks.crt"), "client-key": folder.join("webhooks.key"),
        }}],
    });
    fs::write(folder.join("webhooks.kubeconfig"), kubeconfig.to_string())?;
    let configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
        "plugins": [{"name": "MutatingAdmissionWebhook", "configuration": {
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration",
            "kubeConfigFile": folder.join("webhooks.kubeconfig"),
        }}],
    });
    let file = folder.join("admission.yaml");
    fs::write(&file, configuration.to_string())?;
    Ok(file)
}

fn restart(node: &Node, apiserver: &NodeServer) -> Result<()> {
    node.kill("kube-apiserver")?;
    node.serves_again(std::slice::from_ref(apiserver))
}

fn only_known_callers_are_answered(shared: &Shared, authority: &CertificateAuthority) -> Result<()> {
    let node = &shared.node;
    let role = shared.workloads("clients")?;
    let probe = authority.client(PROBE, "probes")?;
    node.apply(&[
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tokenscope-clients", "namespace": NAMESPACE},
            "data": {"ca.crt": authority.certificate()},
        }),
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": PROBE, "namespace": NAMESPACE},
            "type": "kubernetes.io/tls", "stringData": {"tls.crt": probe.certificate, "tls.key": probe.key},
        }),
    ])?;
    let values = json!({
        "webhook": {"clientCertificates": {
            "enabled": true, "caConfigMap": "tokenscope-clients", "names": [API_SERVERS, PROBE], "probeSecret": PROBE,
        }},
        // No other webhook holds pods up, and the policy is younger than the default of this.
        "operator": {"evictMissed": true, "extraArgs": ["--review-margin=0"]},
    });
    node.install(&locked(&values))?;

    // The API server is answered.
    shared.create(&pod("clients", "asking", &without_node(Some(&role))))?;
    let mark = r"--output=jsonpath={.metadata.labels.tokenscope\.io/reviewed}";
    let reviewed = node.kubectl_in("clients", &["get", "pod", "asking", mark])?;
    ensure!(reviewed == "granted", "the pod is {reviewed:?}");

    // So is helm test, and a pod that is the same but for the certificate is not.
    let test = [
        "test",
        "tokenscope",
        "--namespace",
        NAMESPACE,
        "--logs",
        "--timeout=240s",
    ];
    let said = node.helm(&test, &Value::Null)?;
    ensure!(said.contains("the webhook answers"), "{said}");
    node.apply(&[check_without_certificate()?])?;
    let (ended_well, said) = node.ended(NAMESPACE, "no-certificate")?;
    node.kubectl_in(NAMESPACE, &["delete", "pod", "no-certificate"])?;
    ensure!(!ended_well && said.contains("CertificateRequired"), "it said: {said}");

    // So is the operator: before it evicts a pod, the webhook has to answer it.
    a_missed_pod_is_replaced(shared, &role)
}

/// The pod of `helm test` as it is where the webhook asks nobody for a certificate.
fn check_without_certificate() -> Result<Value> {
    let folder = chart("tokenscope").display().to_string();
    let rendered = helm(
        &["template", "tokenscope", &folder, "--namespace", NAMESPACE],
        &Value::Null,
    )?;
    let mut objects = documents(&rendered)?.into_iter();
    let mut pod = objects
        .find(|object| object["kind"] == "Pod")
        .context("the chart has a pod for helm test")?;
    pod["metadata"]["name"] = json!("no-certificate");
    pod["metadata"]["annotations"] = json!({});
    Ok(pod)
}

fn a_missed_pod_is_replaced(shared: &Shared, role: &str) -> Result<()> {
    let (node, namespace) = (&shared.node, "clients-missed");
    node.namespace(namespace, "app")?;
    node.apply(&[json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
        "metadata": {"name": "app", "namespace": namespace},
        "spec": {"subjects": [{"serviceAccounts": ["app"]}], "roles": {"default": role}},
    })])?;
    let ready = [
        "wait",
        "--for=condition=Ready",
        "--timeout=180s",
        "tokenscopepolicy/app",
    ];
    node.kubectl_in(namespace, &ready)?;
    // What a label of the namespace keeps away is not missed; what nobody reviewed is.
    scale_webhook_and_wait(node, 0)?;
    let mut template = asking(
        role,
        &json!({"containers": [Sdk::Go.staying("app", namespace, "missed", 2)]}),
    );
    template["metadata"]["annotations"] = json!({});
    node.apply(&[set("Deployment", namespace, "missed", &template)])?;
    let available = [
        "wait",
        "--for=condition=Available",
        "--timeout=240s",
        "deployment/missed",
    ];
    node.kubectl_in(namespace, &available)?;
    let granted = || -> Result<usize> {
        let selector = "--selector=tokenscope.io/reviewed=granted";
        let pods = node.kubectl_in(namespace, &["get", "pods", selector, "--output=name"])?;
        Ok(pods.lines().count())
    };
    ensure!(granted()? == 0, "the pod was reviewed, so it will not be missed");
    scale_webhook_and_wait(node, 2)?;
    node.eventually(EVICTED, "the missed pod is evicted and another one is granted", || {
        let count = granted()?;
        ensure!(count == 1, "there are {count}");
        Ok(())
    })
}

/// Sets the number of webhooks, and waits until they are ready, or until none runs.
fn scale_webhook_and_wait(node: &Node, replicas: usize) -> Result<()> {
    scale_webhook(node, replicas)?;
    if replicas > 0 {
        let ready = ["rollout", "status", "deployment/tokenscope-webhook", "--timeout=240s"];
        node.kubectl_in(NAMESPACE, &ready)?;
        return Ok(());
    }
    // Those that end answer until they have.
    node.eventually(NOTICED, "no webhook runs", || {
        ensure!(node.processes("tokenscope-webhook")?.is_empty(), "one runs");
        Ok(())
    })
}
