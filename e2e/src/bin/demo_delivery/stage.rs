//! The cluster that all acts use, and what they ask of it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::issuer_site::{IssuerSite, own_document};
use tokenscope_e2e::node::Node;
use tokenscope_e2e::output::DemoOutput;
use tokenscope_e2e::probes::Sdk;
use tokenscope_e2e::strict_sts::StrictSts;

/// The namespace.
pub(super) const SHOP: &str = "shop";
/// The ServiceAccounts of the acts, after which their policies are named.
pub(super) const EXCHANGE: &str = "exchange";
pub(super) const REPORTS: &str = "reports";
pub(super) const ASSISTANT: &str = "assistant";
pub(super) const INVOICES: &str = "invoices";

/// tokenscope's own issuer, and the address of the web server that publishes its documents (RFC 5737).
pub(super) const OWN_ISSUER: &str = "https://tokens.tokenscope.test";
const OWN_ISSUER_ADDRESS: &str = "198.51.100.30";

/// The port of the STS that the sidecars of the endpoint ask.
pub(super) const ENDPOINT_PORT: u16 = 7082;

/// The interpreter in the image of the pods.
pub(super) const PYTHON: &str = "/python/bin/python3";

/// What all acts use.
pub(super) struct Stage<'a> {
    pub(super) tell: &'a DemoOutput,
    pub(super) node: &'a Node,
    pub(super) sts: StrictSts<'a>,
    /// A Python with what the verifier needs.
    pub(super) python: String,
    pub(super) verbose: bool,
}

impl Stage<'_> {
    pub(super) fn install(&self) -> Result<()> {
        self.tell
            .step("tokenscope with its issuer: helm install tokenscope-crds, helm install tokenscope --wait");
        let url = StrictSts::url(ENDPOINT_PORT);
        let mut values = json!({
            "issuer": {"enabled": true, "url": OWN_ISSUER},
            "sidecar": {"endpoint": {"stsUrl": url, "stsAuthorities": "PEM of this demo's own authority"}},
        });
        self.tell.quote(&format!("values: {values}"));
        values["sidecar"]["endpoint"]["stsAuthorities"] = self.sts.authority().into();
        self.node.install(&values)?;
        self.sts.publish(&IssuerSite {
            url: OWN_ISSUER,
            address: OWN_ISSUER_ADDRESS,
            documents: [".well-known/openid-configuration", "keys"].map(|path| (path, own_document(path))),
        })?;
        self.node.namespace(SHOP, EXCHANGE)?; // which admits only what Pod Security "restricted" does
        self.node.kubectl(&["label", "namespace", SHOP, "team=blue"])?;
        let account = |name: &str| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": SHOP}});
        self.node.apply(&[
            account(REPORTS),
            account(ASSISTANT),
            account(INVOICES),
            // Pods trust the STS of this demo as they would one inside a company.
            json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "authority", "namespace": SHOP},
                "data": {"ca.crt": self.sts.authority()},
            }),
        ])?;
        self.tell.done(
            "installed and ready; the documents of both issuers, the cluster's and tokenscope's, are on web servers",
        );
        Ok(())
    }

    pub(super) fn policy(&self, text: &str, name: &str) -> Result<()> {
        self.node.run("kubectl", &["apply", "--filename=-"], text)?;
        let policy = format!("tokenscopepolicy/{name}");
        let wait = ["wait", "--for=condition=Ready", "--timeout=180s", &policy];
        self.node.kubectl_in(SHOP, &wait)?;
        Ok(())
    }

    /// Creates a pod whose specification is to have `expected`. Each webhook learns of a policy by a watch of its own, a moment
    /// later; what it admitted before that goes away again.
    pub(super) fn create(&self, pod: &Value, expected: &str) -> Result<Value> {
        let name = pod["metadata"]["name"].as_str().context("a pod has a name")?;
        let stored = self
            .node
            .eventually(Duration::from_secs(180), "the policy is known", || {
                self.node.apply(std::slice::from_ref(pod))?;
                let stored = self.node.get(&["pod", name, "--namespace", SHOP])?;
                if stored["spec"].to_string().contains(expected) {
                    return Ok(stored);
                }
                self.node.kubectl_in(SHOP, &["delete", "pod", name, "--now"])?;
                bail!("the pod has no {expected}")
            })?;
        if self.verbose {
            self.tell.quote(&serde_json::to_string_pretty(&stored)?);
        }
        Ok(stored)
    }

    /// What a pod has said once it has ended well.
    pub(super) fn ended(&self, pod: &str) -> Result<String> {
        let (well, log) = self.node.ended(SHOP, pod).with_context(|| {
            self.node
                .kubectl_in(SHOP, &["describe", "pod", pod])
                .unwrap_or_default()
        })?;
        ensure!(well, "pod {pod} failed: {log}");
        Ok(log.trim().to_owned())
    }
}

/// A pod with boto3 that asks the STS of this port.
pub(super) fn pod(name: &str, service_account: &str, sts_port: u16, script: &str) -> Value {
    let mut container = Sdk::Python.container("app", "none", "none");
    container["command"] = json!([PYTHON, "-c", script]);
    container["env"] = json!([
        {"name": "AWS_ENDPOINT_URL_STS", "value": StrictSts::url(sts_port)},
        {"name": "AWS_CA_BUNDLE", "value": "/authority/ca.crt"},
    ]);
    container["volumeMounts"] = json!([{"name": "authority", "mountPath": "/authority", "readOnly": true}]);
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": SHOP},
        "spec": {
            "serviceAccountName": service_account, "automountServiceAccountToken": false, "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1, "containers": [container],
            "volumes": [{"name": "authority", "configMap": {"name": "authority"}}],
        },
    })
}

/// The variables of a pod's first container, one a line.
pub(super) fn variables(pod: &Value) -> String {
    let all = pod["spec"]["containers"][0]["env"].as_array().into_iter().flatten();
    let lines = all.map(|variable| {
        let name = variable["name"].as_str().unwrap_or_default();
        format!("{name}={}\n", variable["value"].as_str().unwrap_or("(from the pod)"))
    });
    lines.collect()
}

/// What follows `start` in the line that begins so.
pub(super) fn line(log: &str, start: &str) -> Result<String> {
    let found = log.lines().find_map(|line| line.strip_prefix(start));
    Ok(found.with_context(|| format!("no line {start:?}: {log}"))?.to_owned())
}
