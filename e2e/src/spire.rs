//! Real SPIRE on this machine: a server, an agent that attests processes by their user, and the OIDC discovery provider.
//!
//! All keys are kept on disk, so that each of them can be killed and started again.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Display, Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokenscope_fixtures::free_port;
use tokenscope_sts::{Role, Server};
use tokenscope_xtask::tools::{Tool, resolve};

use crate::eventually;
use crate::pki::CertificateAuthority;
use crate::process::{ServerProcess, Start, Watchdog};
use crate::published::TrustedIssuer;

/// The trust domain.
pub const TRUST_DOMAIN: &str = "example.test";

/// The issuer that tokens name; its host is reached at [`Spire::discovery_address`].
pub const ISSUER: &str = "https://spire.tokenscope.test";

/// What a process of SPIRE may take to be ready on a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(300);

/// The options of a start.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The type of key that JWT-SVIDs are signed with: `rsa-2048`, or `ec-p256` as SPIRE has it by default.
    pub jwt_key_type: &'static str,
    /// True with SPIRE's own limits, such as 500 JWT-SVIDs that its server signs a second.
    pub limits: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            jwt_key_type: "ec-p256",
            limits: true,
        }
    }
}

/// A running SPIRE. It ends when it is dropped.
#[derive(Debug)]
pub struct Spire {
    /// The agent, for faults.
    pub agent: ServerProcess,
    /// The discovery provider.
    pub discovery: ServerProcess,
    /// The server, for faults.
    pub server: ServerProcess,
    folder: PathBuf,
    program: PathBuf,
    discovery_address: SocketAddr,
    authority: String,
    watchdog: Arc<Watchdog>,
}

impl Spire {
    /// Starts all three; when it returns, the agent is attested and has no entry yet.
    pub async fn start(options: Options) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "tokenscope-spire-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let programs = SpirePrograms::resolve()?;
        let folder = std::env::temp_dir().join(name);
        for part in ["server", "agent", "discovery", "logs"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let watchdog = Watchdog::start(&folder)?;
        let starting = Starting {
            programs,
            folder: &folder,
            watchdog: &watchdog,
        };

        let port = free_port()?;
        let server = starting.server(port, options).await?;
        let agent = starting.agent(port).await?;
        let authority = CertificateAuthority::new("SPIRE's discovery provider")?;
        let discovery_address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let discovery = starting.discovery(&authority, discovery_address).await?;
        let program = starting.programs.server;
        Ok(Self {
            agent,
            discovery,
            server,
            program,
            discovery_address,
            authority: authority.certificate(),
            watchdog,
            folder,
        })
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("agent/api.sock")
    }

    /// A folder for what else belongs to the test; it goes away with SPIRE.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The watchdog that ends processes with the test.
    pub fn watchdog(&self) -> &Arc<Watchdog> {
        &self.watchdog
    }

    /// The address at which the issuer's host really is.
    pub fn discovery_address(&self) -> SocketAddr {
        self.discovery_address
    }

    /// The authority of the discovery provider's certificate, PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// A strict STS with one role, which this subject may take with the agent's tokens for `sts.amazonaws.com`.
    pub async fn strict_sts(&self, role: &str, subject: &str) -> Result<Server> {
        self.issuer().sts(role, "sts.amazonaws.com", subject).await
    }

    /// A further role for such an STS, which this subject may take in the same way.
    pub fn role(&self, role: &str, subject: &str) -> Role {
        self.issuer().role(role, "sts.amazonaws.com", subject)
    }

    fn issuer(&self) -> TrustedIssuer<'_> {
        TrustedIssuer {
            url: ISSUER,
            host: (ISSUER.trim_start_matches("https://"), self.discovery_address()),
            authority: self.authority(),
        }
    }

    /// Registers processes of this user as `spiffe://example.test/<path>`; returns the entry's ID.
    pub fn register(&self, path: &str, hint: &str, seconds: u32) -> Result<String> {
        let user = fs::metadata("/proc/self")?.uid();
        let answer = self.server(&[
            "entry",
            "create",
            "-parentID",
            &node(),
            "-spiffeID",
            &format!("spiffe://{TRUST_DOMAIN}/{path}"),
            "-selector",
            &format!("unix:uid:{user}"),
            "-jwtSVIDTTL",
            &seconds.to_string(),
            "-x509SVIDTTL",
            &seconds.to_string(),
            "-hint",
            hint,
        ])?;
        let id = answer["results"][0]["entry"]["id"].as_str();
        Ok(id.with_context(|| answer.to_string())?.to_owned())
    }

    /// Deletes an entry.
    pub fn deregister(&self, entry: &str) -> Result<()> {
        self.server(&["entry", "delete", "-entryID", entry]).map(|_| ())
    }

    /// The trust domain's keys in the SPIFFE format, as federation partners get them.
    pub fn bundle(&self) -> Result<String> {
        let socket = self.folder.join("server/api.sock").display().to_string();
        let arguments = ["bundle", "show", "-format", "spiffe", "-socketPath", &socket];
        command(&self.program, &arguments)
    }

    /// Has the server make and publish a new key for JWT-SVIDs, without using it yet. Returns its ID.
    pub fn prepare_key(&self) -> Result<String> {
        let answer = self.server(&["localauthority", "jwt", "prepare"])?;
        authority_id(&answer["prepared_authority"])
    }

    /// Has the server sign with a prepared key. Returns the ID of the one that it has used until now.
    pub fn activate_key(&self, id: &str) -> Result<String> {
        let before = self.server(&["localauthority", "jwt", "show"])?;
        self.server(&["localauthority", "jwt", "activate", "-authorityID", id])?;
        authority_id(&before["active"])
    }

    /// Declares an old key bad: agents throw away what they have of it.
    pub fn taint_key(&self, id: &str) -> Result<()> {
        self.server(&["localauthority", "jwt", "taint", "-authorityID", id])
            .map(|_| ())
    }

    /// Withdraws an old key: nobody takes its tokens any more.
    pub fn revoke_key(&self, id: &str) -> Result<()> {
        self.server(&["localauthority", "jwt", "revoke", "-authorityID", id])
            .map(|_| ())
    }

    /// A command of spire-server; its answer.
    fn server(&self, arguments: &[&str]) -> Result<Value> {
        let socket = self.folder.join("server/api.sock").display().to_string();
        let arguments = [arguments, &["-socketPath", &socket, "-output", "json"]].concat();
        let text = command(&self.program, &arguments)?;
        serde_json::from_str(&text).with_context(|| format!("{arguments:?} printed {text}"))
    }
}

/// The three programs.
struct SpirePrograms {
    server: PathBuf,
    agent: PathBuf,
    discovery: PathBuf,
}

impl SpirePrograms {
    fn resolve() -> Result<Self> {
        Ok(Self {
            server: resolve(Tool::SpireServer)?,
            agent: resolve(Tool::SpireAgent)?,
            discovery: resolve(Tool::SpireOidcDiscoveryProvider)?,
        })
    }
}

/// A SPIRE whose processes start one after another.
struct Starting<'a> {
    programs: SpirePrograms,
    folder: &'a Path,
    watchdog: &'a Arc<Watchdog>,
}

impl Starting<'_> {
    async fn server(&self, port: u16, options: Options) -> Result<ServerProcess> {
        let config = self.write("server.conf", server_config(&self.folder.display(), port, options))?;
        let program = &self.programs.server;
        let server = self.start("spire-server", program, &["run", "-config", &config])?;
        let socket = self.server_socket();
        eventually(READY_DEADLINE, "the SPIRE server is ready", async || {
            command(program, &["healthcheck", "-socketPath", &socket])
        })
        .await
        .with_context(|| server.log_tail(30))?;
        Ok(server)
    }

    async fn agent(&self, server_port: u16) -> Result<ServerProcess> {
        let socket = self.server_socket();
        let generate = ["token", "generate", "-socketPath", &socket, "-spiffeID", &node()];
        let text = command(&self.programs.server, &generate)?;
        let token = text.split_whitespace().nth(1).context("a join token was printed")?;
        let config = self.write("agent.conf", agent_config(&self.folder.display(), server_port))?;
        let program = &self.programs.agent;
        let agent = self.start(
            "spire-agent",
            program,
            &["run", "-config", &config, "-joinToken", token],
        )?;
        let socket = self.folder.join("agent/api.sock").display().to_string();
        eventually(READY_DEADLINE, "the SPIRE agent is ready", async || {
            command(program, &["healthcheck", "-socketPath", &socket])
        })
        .await
        .with_context(|| agent.log_tail(30))?;
        Ok(agent)
    }

    async fn discovery(&self, authority: &CertificateAuthority, address: SocketAddr) -> Result<ServerProcess> {
        let host = ISSUER.trim_start_matches("https://");
        let identity = authority.server(&[host])?;
        let certificate = self.write("discovery/tls.crt", identity.certificate)?;
        let key = self.write("discovery/tls.key", identity.key)?;
        let socket = self.server_socket();
        let config = self.write(
            "discovery.conf",
            format!(
                r#"domains = ["{host}"]
jwt_issuer = "{ISSUER}"
jwks_uri = "{ISSUER}/keys"
serving_cert_file {{ cert_file_path = "{certificate}" key_file_path = "{key}" addr = "{address}" }}
server_api {{ address = "unix://{socket}" poll_interval = "1s" }}
"#
            ),
        )?;
        let discovery = self.start("spire-discovery", &self.programs.discovery, &["-config", &config])?;
        eventually(READY_DEADLINE, "the discovery provider listens", async || {
            Ok(tokio::net::TcpStream::connect(address).await?)
        })
        .await
        .with_context(|| discovery.log_tail(30))?;
        Ok(discovery)
    }

    fn server_socket(&self) -> String {
        self.folder.join("server/api.sock").display().to_string()
    }

    fn start(&self, name: &str, program: &Path, arguments: &[&str]) -> Result<ServerProcess> {
        let start = Start {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            environment: BTreeMap::new(),
            logs: self.folder.join("logs"),
            observe_port: None,
        };
        ServerProcess::start(start, self.watchdog)
    }

    fn write(&self, name: &str, text: String) -> Result<String> {
        let path = self.folder.join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    }
}

fn server_config(folder: &Display<'_>, port: u16, options: Options) -> String {
    let Options { jwt_key_type, limits } = options;
    format!(
        r#"server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{folder}/server/api.sock"
  trust_domain = "{TRUST_DOMAIN}"
  data_dir = "{folder}/server"
  jwt_issuer = "{ISSUER}"
  jwt_key_type = "{jwt_key_type}"
  ratelimit {{ attestation = {limits} signing = {limits} }}
  ca_ttl = "24h"
}}
plugins {{
  DataStore "sql" {{ plugin_data {{ database_type = "sqlite3" connection_string = "{folder}/server/data.sqlite3" }} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "disk" {{ plugin_data {{ keys_path = "{folder}/server/keys.json" }} }}
}}
"#
    )
}

fn agent_config(folder: &Display<'_>, server_port: u16) -> String {
    format!(
        r#"agent {{
  data_dir = "{folder}/agent"
  server_address = "127.0.0.1"
  server_port = "{server_port}"
  socket_path = "{folder}/agent/api.sock"
  insecure_bootstrap = true
  trust_domain = "{TRUST_DOMAIN}"
  experimental {{ sync_interval = "1s" }}
}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "disk" {{ plugin_data {{ directory = "{folder}/agent" }} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"#
    )
}

fn node() -> String {
    format!("spiffe://{TRUST_DOMAIN}/node")
}

fn authority_id(state: &Value) -> Result<String> {
    let id = state["authority_id"].as_str();
    Ok(id.with_context(|| format!("{state} has no authority_id"))?.to_owned())
}

fn command(program: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    ensure!(
        output.status.success(),
        "{} {arguments:?}: {}{}",
        program.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
