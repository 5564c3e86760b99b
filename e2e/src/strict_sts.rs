//! Our strict stand-in for AWS STS in a cluster's network, reached by pods over TLS, and the issuers whose tokens it verifies.
//!
//! It is a process for each set of roles: what it knows of identity providers, roles and permissions is in the file that it starts with.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::aws::{ADDRESS, cluster_issuer};
use crate::install::own_programs;
use crate::issuer_site::{IssuerSite, folder};
use crate::node::{NOTICED, Node};
use crate::pki::CertificateAuthority;

/// Starts strict stand-ins for STS in a cluster's network, with certificates of one authority. They end with the cluster.
#[derive(Debug)]
pub struct StrictSts<'a> {
    node: &'a Node,
    authority: CertificateAuthority,
}

impl<'a> StrictSts<'a> {
    /// Publishes the cluster's own issuer; no STS runs yet.
    pub fn prepare(node: &'a Node) -> Result<Self> {
        let authority = CertificateAuthority::new("tokenscope strict sts")?;
        let sts = Self { node, authority };
        fs::create_dir_all(folder(node))?;
        fs::write(sts.authority_file(), sts.authority.certificate())?;
        sts.authority.server(&[ADDRESS])?.write(&folder(node), "sts")?;
        sts.publish(&cluster_issuer())?;
        Ok(sts)
    }

    /// Publishes a further issuer.
    pub fn publish(&self, issuer: &IssuerSite<'_>) -> Result<()> {
        issuer.publish(self.node, &self.authority)
    }

    /// The authority of the certificates of STS and issuers, PEM.
    pub fn authority(&self) -> String {
        self.authority.certificate()
    }

    /// The file of the same.
    pub fn authority_file(&self) -> PathBuf {
        folder(self.node).join("ca.crt")
    }

    /// The URL of the STS of a port, for pods.
    pub fn url(port: u16) -> String {
        format!("https://{ADDRESS}:{port}")
    }

    /// Starts an STS with a configuration, and waits until it answers. `name` is that of its log.
    pub fn start(&self, name: &str, port: u16, config: &Value) -> Result<()> {
        let (node, folder) = (self.node, folder(self.node));
        let path = |name: &str| folder.join(name).display().to_string();
        let file = format!("{name}.json");
        fs::write(folder.join(&file), config.to_string())?;
        let loopback = format!("127.0.0.1:{port}");
        node.serve(
            name,
            &own_programs()?.join("tokenscope-sts"),
            &[
                &format!("--listen={loopback}"),
                &format!("--config={}", path(&file)),
                &format!("--issuer-trust={}", path("ca.crt")),
                &format!("--tls-certificate={}", path("sts.crt")),
                &format!("--tls-key={}", path("sts.key")),
                "--log-level=info",
            ],
            &[],
        )?;
        // It hands out credentials, and so listens on loopback addresses only.
        let forward = format!("{name}-forward");
        let (listen, to) = (format!("--listen={ADDRESS}:{port}"), format!("--to={loopback}"));
        node.serve(&forward, node.helper(), &["forward", &listen, &to], &[])?;
        node.eventually(NOTICED, &format!("{name} listens"), || {
            for (log, address) in [
                (name, loopback.as_str()),
                (forward.as_str(), &listen["--listen=".len()..]),
            ] {
                let text = self.log(log)?;
                ensure!(text.contains(address), "its log: {text}");
            }
            Ok(())
        })
    }

    /// What the STS of this name decided, one a line: the roles that were taken, with tags and session policies, and the refusals.
    pub fn decisions(&self, name: &str) -> Result<String> {
        let log = self.log(name)?;
        let lines = log.lines().filter_map(|line| {
            let (_, message) = line.split_once(" tokenscope_sts::")?.1.split_once(": ")?;
            (message.starts_with("role assumed") || message.starts_with("refused")).then_some(message)
        });
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }

    fn log(&self, name: &str) -> Result<String> {
        let file = self.node.cluster().folder().join(format!("log/{name}.log"));
        fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))
    }

    /// Runs a program in the cluster's network that trusts the authority of the issuers (`SSL_CERT_FILE`): whether it ended well,
    /// and what it printed or, if it failed, wrote to standard error.
    pub fn run_trusting(&self, program: &str, arguments: &[&str], input: &str) -> Result<(bool, String)> {
        let trusts = format!("SSL_CERT_FILE={}", self.authority_file().display());
        let all = [&[trusts.as_str(), "no_proxy=*", program], arguments].concat();
        let output = self.node.try_run("env", &all, input)?;
        let well = output.status.success();
        let said = if well { output.stdout } else { output.stderr };
        Ok((well, String::from_utf8_lossy(&said).trim().to_owned()))
    }
}
