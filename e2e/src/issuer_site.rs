//! An issuer on a web server in a cluster's network: its two documents and a certificate, as docs/self-hosted.md says.
//!
//! A judge of tokens takes no issuer at a loopback or private address, so each has one of the addresses for documentation
//! (RFC 5737), which only the cluster's network namespace knows. Names are in a hosts file that is mounted over the one of the
//! cluster's mount namespace.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::helm::NAMESPACE;
use crate::node::Node;
use crate::pki::CertificateAuthority;

/// How long whoever has the documents may take to give them.
const DOCUMENTS_DEADLINE: Duration = Duration::from_secs(180);

/// How long the web server may take to listen, on a busy machine.
const LISTENS: Duration = Duration::from_secs(60);

/// The path at which the API server has a document of tokenscope's own issuer.
pub fn own_document(path: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/services/https:tokenscope-issuer:issuer/proxy/{path}")
}

/// An issuer that is to be published.
#[derive(Clone, Debug)]
pub struct IssuerSite<'a> {
    /// The issuer: an https URL without a path.
    pub url: &'a str,
    /// The address that its name stands for, which the cluster's network gets.
    pub address: &'a str,
    /// The documents: of each the path below the URL, and the path at which the API server has it.
    pub documents: [(&'a str, String); 2],
}

impl IssuerSite<'_> {
    /// Publishes the documents as they are now, with a certificate of `authority`. The web server ends with the cluster.
    pub fn publish(&self, node: &Node, authority: &CertificateAuthority) -> Result<()> {
        let host = self.host();
        let folder = folder(node);
        let site = folder.join(host);
        for (path, at) in &self.documents {
            let file = site.join(path);
            fs::create_dir_all(file.parent().context("a document is in a folder")?)?;
            let text = node.eventually(DOCUMENTS_DEADLINE, &format!("{at} is there"), || {
                node.kubectl(&["get", "--raw", at])
            })?;
            fs::write(file, text)?;
        }
        authority.server(&[host])?.write(&folder, host)?;
        name(node, host, self.address)?;
        node.serve(
            host,
            node.helper(),
            &[
                "publish",
                &format!("--listen={}:443", self.address),
                &format!("--folder={}", site.display()),
                &format!("--certificate={}", folder.join(format!("{host}.crt")).display()),
                &format!("--key={}", folder.join(format!("{host}.key")).display()),
            ],
            &[],
        )?;
        // Whoever asks for the documents next doesn't ask twice.
        let connect = format!("exec 3<>/dev/tcp/{}/443", self.address);
        node.eventually(LISTENS, &format!("{host} listens"), || {
            node.run("bash", &["-c", &connect], "")
        })?;
        Ok(())
    }

    fn host(&self) -> &str {
        self.url.trim_start_matches("https://")
    }
}

/// The folder of what stands for AWS and the internet beside a cluster.
pub(crate) fn folder(node: &Node) -> PathBuf {
    node.cluster().folder().join("aws") // has no spaces: Cluster gives it its name
}

/// Gives the cluster's network an address, and lets a name stand for it.
fn name(node: &Node, host: &str, address: &str) -> Result<()> {
    node.run("ip", &["address", "replace", &format!("{address}/32"), "dev", "lo"], "")?;
    let file = folder(node).join("hosts");
    if !file.exists() {
        fs::write(&file, fs::read_to_string("/etc/hosts").unwrap_or_default() + "\n")?;
        node.run("mount", &["--bind", &file.display().to_string(), "/etc/hosts"], "")?;
    }
    writeln!(OpenOptions::new().append(true).open(&file)?, "{address} {host}")?;
    Ok(())
}
