//! Keycloak as a relying party: it judges tokens of a foreign issuer that clients show it.
//!
//! A client of the realm has no secret of its own. It shows a token of a trusted issuer as its assertion (RFC 7523 §2.2) in
//! the grant `client_credentials`, and Keycloak verifies the signature by the issuer's JWKS, `iss`, `sub`, `aud` (exactly
//! one, the realm), `exp`, `nbf`, `iat`, and that `jti` was not used before. This feature, `client-auth-federated`, is a
//! preview one in 26.5. Where a signature, key, issuer or subject is wrong, it says no more than that the client is invalid,
//! so a test of those has to show that the same token is accepted without the fault.
//!
//! Taken more mildly than AWS does: `aud` as a list of one, a lifetime of an hour, and a token without `kid` if it verifies.
//!
//! Measured on two cores beside other builds: all nine tests with one Keycloak take a minute, most of which is its start
//! (25 to 35 s); it takes 500 to 550 MB.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokenscope_fixtures::free_port;
use tokenscope_xtask::packaged::{Packaged, java, resolve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::eventually;
use crate::process::{ServerProcess, Start, Watchdog};
use crate::token_maker::claims_of;

/// How long starting may take on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(480);

/// How long one answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(120);

/// The realm that is made.
const REALM: &str = "tokenscope";

/// The administrator, of this server only.
const ADMINISTRATOR: (&str, &str) = ("administrator", "of-a-test-only");

/// What Java is told: what Keycloak's own script does, but directly, so that the process is the server itself.
const JAVA: [&str; 8] = [
    "-Xms64m",
    "-Xmx512m",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--add-opens=java.base/java.security=ALL-UNNAMED",
    "-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
    "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
    "-Dpicocli.disable.closures=true",
];

/// A running Keycloak with an empty realm. It ends when it is dropped.
#[derive(Debug)]
pub struct Keycloak {
    /// The process, for its log and what it takes.
    pub process: ServerProcess,
    port: u16,
    _watchdog: Arc<Watchdog>, // last: it removes the folder
}

/// The reason why a token was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The HTTP status.
    pub status: u16,
    /// `error` of RFC 6749 §5.2.
    pub error: String,
    /// `error_description`.
    pub description: String,
}

impl Keycloak {
    /// Starts one that trusts this authority (PEM) where it fetches keys, and makes the realm.
    pub async fn start(authority: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let (java, installed) = (java()?, resolve(Packaged::Keycloak)?);
        let name = format!(
            "tokenscope-keycloak-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let folder = std::env::temp_dir().join(name);
        // It writes into its home, so each process has one, with links to what it only reads.
        let home = folder.join("home");
        for part in ["home/data", "temporary", "logs"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let watchdog = Watchdog::start(&folder)?;
        fs::write(folder.join("authority.pem"), authority)?;
        for part in ["lib", "conf", "providers", "themes"] {
            symlink(installed.join(part), home.join(part))?;
        }
        let port = free_port()?;
        let process = ServerProcess::start(
            Start {
                name: "keycloak".to_owned(),
                program: java,
                arguments: arguments(&folder, &installed, port),
                environment: BTreeMap::from([
                    ("KC_BOOTSTRAP_ADMIN_USERNAME".to_owned(), ADMINISTRATOR.0.to_owned()),
                    ("KC_BOOTSTRAP_ADMIN_PASSWORD".to_owned(), ADMINISTRATOR.1.to_owned()),
                ]),
                logs: folder.join("logs"),
                observe_port: None,
            },
            &watchdog,
        )?;
        let keycloak = Self {
            process,
            port,
            _watchdog: watchdog,
        };
        keycloak.wait_ready().await?;
        keycloak
            .make("", &json!({"realm": REALM, "enabled": true}))
            .await
            .context("making the realm")?;
        Ok(keycloak)
    }

    /// The realm's URL: the one audience that it takes.
    pub fn audience(&self) -> String {
        format!("http://127.0.0.1:{}/realms/{REALM}", self.port)
    }

    /// Trusts an issuer with the keys at a URL, which Keycloak must reach. Returns its name in the realm.
    pub async fn trust_issuer(&self, issuer: &str, jwks_url: &str) -> Result<String> {
        let alias = "issuer";
        let provider = json!({
            "alias": alias, "providerId": "oidc", "enabled": true,
            "config": {
                "issuer": issuer, "jwksUrl": jwks_url, "useJwksUrl": "true", "validateSignature": "true",
                "supportsClientAssertions": "true",
                // For people who log in, which nobody does here.
                "authorizationUrl": issuer, "tokenUrl": issuer, "clientId": "unused", "clientSecret": "unused",
            },
        });
        self.make(&format!("/{REALM}/identity-provider/instances"), &provider)
            .await
            .context("trusting the issuer")?;
        Ok(alias.to_owned())
    }

    /// Makes a client that authenticates itself by the issuer's tokens for one subject.
    pub async fn add_client(&self, id: &str, issuer_alias: &str, subject: &str) -> Result<()> {
        let client = json!({
            "clientId": id, "clientAuthenticatorType": "federated-jwt", "publicClient": false,
            "serviceAccountsEnabled": true, "standardFlowEnabled": false,
            "attributes": {"jwt.credential.issuer": issuer_alias, "jwt.credential.sub": subject},
        });
        self.make(&format!("/{REALM}/clients"), &client)
            .await
            .with_context(|| format!("adding the client {id}"))
    }

    /// Shows a token as a client's assertion. Returns the claims of the access token that the client gets for it.
    pub async fn judge(&self, token: &str) -> Result<Result<Value, Rejection>> {
        let form = [
            ("grant_type", "client_credentials"),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            ("client_assertion", token),
        ];
        let (status, answer) = self.post_form(REALM, &form).await?;
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        match (status, answer["access_token"].as_str()) {
            (200, Some(token)) => Ok(Ok(claims_of(token)?)),
            (400 | 401, None) => Ok(Err(Rejection {
                status,
                error: text("error"),
                description: text("error_description"),
            })),
            _ => bail!("Keycloak answered {status}: {answer}\n{}", self.process.log_tail(30)),
        }
    }

    async fn wait_ready(&self) -> Result<()> {
        let ready = eventually(START_DEADLINE, "Keycloak is ready", async || {
            if let Some(status) = self.process.exit_status()? {
                return Ok(Err(status));
            }
            let (status, _) = crate::get(self.port, "/realms/master").await?;
            ensure!(status == 200, "it answers {status}");
            Ok(Ok(()))
        });
        match ready.await.with_context(|| self.process.log_tail(30))? {
            Ok(()) => Ok(()),
            Err(status) => bail!("Keycloak ended with {status}:\n{}", self.process.log_tail(30)),
        }
    }

    /// Makes an object of the administrator's API.
    async fn make(&self, path: &str, object: &Value) -> Result<()> {
        let form = [
            ("grant_type", "password"),
            ("client_id", "admin-cli"),
            ("username", ADMINISTRATOR.0),
            ("password", ADMINISTRATOR.1),
        ];
        // It lives for a minute only.
        let (status, answer) = self.post_form("master", &form).await?;
        let token = answer["access_token"].as_str();
        let token = token.with_context(|| format!("the administrator can't log in: {status} {answer}"))?;
        let authorization = format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n");
        let (status, answer) = self
            .post(&format!("/admin/realms{path}"), &authorization, &object.to_string())
            .await?;
        ensure!(status == 201, "Keycloak answered {status}: {answer}");
        Ok(())
    }

    async fn post_form(&self, realm: &str, fields: &[(&str, &str)]) -> Result<(u16, Value)> {
        let fields: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", form_encoded(value)))
            .collect();
        let path = format!("/realms/{realm}/protocol/openid-connect/token");
        let head = "Content-Type: application/x-www-form-urlencoded\r\n";
        let (status, text) = self.post(&path, head, &fields.join("&")).await?;
        let answer = serde_json::from_str(&text).with_context(|| format!("{status}, and no JSON: {text}"))?;
        Ok((status, answer))
    }

    /// HTTP/1.0, so that the answer has no parts and ends with the connection.
    async fn post(&self, path: &str, headers: &str, body: &str) -> Result<(u16, String)> {
        let port = self.port;
        let request = format!(
            "POST {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = async {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await?;
            anyhow::Ok(String::from_utf8(bytes)?)
        };
        let text = tokio::time::timeout(ANSWER_DEADLINE, answer)
            .await
            .context("Keycloak gave no answer in time")??;
        let (head, body) = text.split_once("\r\n\r\n").context("an HTTP answer has a head")?;
        let status = head.split_whitespace().nth(1).context("an HTTP answer has a status")?;
        Ok((status.parse()?, body.to_owned()))
    }
}

fn arguments(folder: &std::path::Path, installed: &std::path::Path, port: u16) -> Vec<String> {
    let jar: PathBuf = installed.join("lib/quarkus-run.jar");
    let (folder, jar) = (folder.display(), jar.display());
    let java = JAVA.map(str::to_owned).into_iter().chain([
        format!("-Dkc.home.dir={folder}/home"),
        format!("-Djboss.server.config.dir={folder}/home/conf"),
        format!("-Djava.io.tmpdir={folder}/temporary"),
        "-cp".to_owned(),
        jar.to_string(),
    ]);
    let server = [
        "io.quarkus.bootstrap.runner.QuarkusEntryPoint",
        "start",
        "--optimized",
        "--http-enabled=true",
        "--hostname-strict=false",
        "--http-host=127.0.0.1",
    ];
    java.chain(server.map(str::to_owned))
        .chain([
            format!("--http-port={port}"),
            format!("--truststore-paths={folder}/authority.pem"),
        ])
        .collect()
}

/// A value in a form (`application/x-www-form-urlencoded`): whatever could mean something else there is escaped.
fn form_encoded(value: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    value.bytes().map(byte).collect()
}
