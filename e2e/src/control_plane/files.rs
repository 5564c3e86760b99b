//! The files that a control plane reads: certificates, kubeconfigs, and the API server's arguments.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{ISSUER, NODE, Options};
use crate::pki::{CertificateAuthority, write_signing_key};

pub(super) fn write_pki(folder: &Path, port: u16) -> Result<()> {
    let pki = folder.join("pki");
    let authority = CertificateAuthority::new("tokenscope-e2e-ca")?;
    fs::write(pki.join("ca.crt"), authority.certificate())?;
    let names = [
        "127.0.0.1",
        "localhost",
        "oidc.tokenscope.test",
        "kubernetes.default.svc",
    ];
    authority.server(&names)?.write(&pki, "apiserver")?;
    write_signing_key(&pki, "service-account")?;
    for (file, user, group) in [
        ("admin", "admin", "system:masters"),
        ("node", &format!("system:node:{NODE}"), "system:nodes"),
    ] {
        authority.client(user, group)?.write(&pki, file)?;
        let user = json!({
            "client-certificate": pki.join(format!("{file}.crt")), "client-key": pki.join(format!("{file}.key")),
        });
        write_kubeconfig(&folder.join(format!("{file}.kubeconfig")), folder, port, &user)?;
    }
    Ok(())
}

/// A kubeconfig of one cluster and one user. It is written as JSON, which is YAML.
pub(super) fn write_kubeconfig(file: &Path, folder: &Path, port: u16, user: &Value) -> Result<()> {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "tokenscope",
        "clusters": [{"name": "tokenscope", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority": folder.join("pki/ca.crt"),
        }}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "tokenscope", "context": {"cluster": "tokenscope", "user": "user"}}],
    });
    fs::write(file, config.to_string()).with_context(|| format!("can't write {}", file.display()))
}

pub(super) fn etcd_arguments(folder: &Path, port: u16, peer_port: u16) -> Vec<String> {
    vec![
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls=http://127.0.0.1:{port}"),
        format!("--advertise-client-urls=http://127.0.0.1:{port}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peer_port}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}"),
        format!("--initial-cluster=default=http://127.0.0.1:{peer_port}"),
        "--unsafe-no-fsync".to_owned(),
        "--quota-backend-bytes=8589934592".to_owned(), // 50,000 ServiceAccounts and pods fit
        "--log-level=warn".to_owned(),
    ]
}

pub(super) fn apiserver_arguments(folder: &Path, port: u16, etcd_port: u16, options: &Options) -> Result<Vec<String>> {
    let pki = folder.join("pki").display().to_string();
    let mut arguments = vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1".to_owned(),
        // Nobody looks for the endpoints of the Service "kubernetes", and a loopback address couldn't be one.
        "--advertise-address=127.0.0.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--secure-port={port}"),
        format!("--cert-dir={pki}"),
        format!("--tls-cert-file={pki}/apiserver.crt"),
        format!("--tls-private-key-file={pki}/apiserver.key"),
        format!("--client-ca-file={pki}/ca.crt"),
        format!("--service-account-key-file={pki}/service-account.pub"),
        format!("--service-account-signing-key-file={pki}/service-account.key"),
        format!("--service-account-issuer={ISSUER}"),
        format!("--service-account-jwks-uri={ISSUER}/openid/v1/jwks"),
        format!("--api-audiences={ISSUER},https://kubernetes.default.svc"),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--profiling=false".to_owned(),
    ];
    if options.audit {
        let policy = folder.join("audit-policy.json");
        let content = json!({
            "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived", "ResponseStarted"],
            "rules": [{"level": "None", "nonResourceURLs": ["/readyz*", "/livez*"]}, {"level": "Metadata"}],
        });
        fs::write(&policy, content.to_string())?;
        arguments.push(format!("--audit-policy-file={}", policy.display()));
        arguments.push(format!("--audit-log-path={}", folder.join("logs/audit.log").display()));
    }
    arguments.extend(options.arguments.iter().cloned());
    Ok(arguments)
}
