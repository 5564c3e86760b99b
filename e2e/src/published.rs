//! A web server with the two documents of an issuer, and the command that writes them into a folder.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use serde_json::Value;
use tokenscope_issuer::issuer_url::{DISCOVERY_PATH, KEYS_PATH};
use tokenscope_sts::{Provider, Role, Server, StsConfig};
use tokio_util::sync::DropGuard;

use crate::fixtures::ACCOUNT;
use crate::install::own_programs;
use crate::pki::CertificateAuthority;
use crate::token_maker::spawn;

/// Runs `tokenscope-issuer publish --dir FOLDER` with further arguments. Its failure is the error's text.
pub fn publish(folder: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new(own_programs()?.join("tokenscope-issuer"))
        .arg("publish")
        .arg("--dir")
        .arg(folder)
        .args(arguments)
        .env_clear()
        .output()
        .context("can't run tokenscope-issuer")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// A document in a folder.
pub fn document(folder: &Path, path: &str) -> Result<Value> {
    let file = folder.join(path.trim_start_matches('/'));
    let text = std::fs::read(&file).with_context(|| format!("can't read {}", file.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

/// The web server. It ends when it is dropped, and at the latest with the test program.
#[derive(Debug)]
pub struct PublishedFolder {
    issuer: String,
    host: String,
    address: SocketAddr,
    authority: String,
    _server: DropGuard,
}

impl PublishedFolder {
    /// Serves a folder's documents as they are now, as the issuer of this URL.
    pub fn serve(folder: &Path, issuer: &str) -> Result<Self> {
        let (_, name) = issuer.split_once("://").context("an issuer is a URL")?;
        let (host, path) = name.find('/').map_or((name, ""), |at| name.split_at(at));
        let mut app = Router::new();
        for below in [DISCOVERY_PATH, KEYS_PATH] {
            let text = document(folder, below)?.to_string();
            let answer = ([(CONTENT_TYPE, "application/json")], text);
            app = app.route(&format!("{path}{below}"), get(answer));
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let authority = CertificateAuthority::new("published")?;
        let server = spawn(listener, app, &authority.server(&[host])?)?;
        Ok(Self {
            issuer: issuer.to_owned(),
            host: host.to_owned(),
            address,
            authority: authority.certificate(),
            _server: server,
        })
    }

    /// The stand-in for AWS STS with this issuer as an identity provider and one role, which trusts this subject of it.
    pub async fn sts(&self, role: &str, audience: &str, subject: &str) -> Result<Server> {
        let issuer = TrustedIssuer {
            url: &self.issuer,
            host: (&self.host, self.address),
            authority: &self.authority,
        };
        issuer.sts(role, audience, subject).await
    }
}

/// An issuer that a strict STS of this process can reach.
#[derive(Clone, Copy, Debug)]
pub struct TrustedIssuer<'a> {
    /// The issuer, as tokens name it.
    pub url: &'a str,
    /// The host in it, and the address at which it is reached.
    pub host: (&'a str, SocketAddr),
    /// The authorities of its certificate, as PEM.
    pub authority: &'a str,
}

impl TrustedIssuer<'_> {
    /// A role that this subject may take with this issuer's tokens.
    pub fn role(&self, arn: &str, audience: &str, subject: &str) -> Role {
        let name = self.url.trim_start_matches("https://");
        let trust_policy = serde_json::json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
            "Principal": {"Federated": format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{name}")},
            "Condition": {"StringEquals": {format!("{name}:sub"): subject, format!("{name}:aud"): audience}},
        }]});
        Role {
            arn: arn.to_owned(),
            trust_policy,
            max_session_duration: 3600,
        }
    }

    /// A strict STS with one role, which this subject may take with this issuer's tokens.
    pub async fn sts(&self, role: &str, audience: &str, subject: &str) -> Result<Server> {
        let config = StsConfig {
            providers: vec![Provider {
                url: self.url.to_owned(),
                client_ids: vec![audience.to_owned()],
                account: ACCOUNT.to_owned(),
                partition: "aws".to_owned(),
                context_provider: None,
            }],
            roles: vec![self.role(role, audience, subject)],
            issuer_trust_pem: self.authority.to_owned(),
            connect_to: [(self.host.0.to_owned(), self.host.1)].into(),
            ..StsConfig::default()
        };
        Ok(Server::start(config, SocketAddr::from(([127, 0, 0, 1], 0)), None).await?)
    }
}
