//! What is around the sidecar that serves credentials: a token of SPIRE, the stand-in for STS, and the container that asks.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokenscope_core::credentials_endpoint::{
    AUTHORIZATION_FILE, CREDENTIALS_PATH, CredentialsEndpoint, ENDPOINT_VARIABLE, ServedContainer, ServedRole,
};
use tokenscope_core::sidecar::variables;
use tokenscope_e2e::eventually;
use tokenscope_e2e::process::{ServerProcess, Start};
use tokenscope_e2e::spire::{Spire, TRUST_DOMAIN};
use tokenscope_fixtures::free_port;
use tokenscope_sidecar::workload_api::{Client, DEADLINE};
use tokenscope_sts::Server;

use super::super::ground::{AUDIENCE, PATIENCE};
use super::asks;
use super::relay::Relay;

const ROLE: &str = "arn:aws:iam::111122223333:role/shop/orders";
/// The container that asks.
const CONTAINER: &str = "app";
/// The path of the SPIFFE ID of the token that the role is taken with.
const PATH: &str = "bench-endpoint";

/// The servers around the sidecar, and how it is started.
pub(super) struct Bench<'a> {
    spire: &'a Spire,
    pub(super) program: PathBuf,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) address: SocketAddr,
    /// The file with the container's authorization token.
    authorization: PathBuf,
    pub(super) relay: Relay,
    _sts: Server,
}

impl<'a> Bench<'a> {
    /// Starts them, for the program at this path.
    pub(super) async fn prepare(spire: &'a Spire, program: &Path) -> Result<Self> {
        let folder = spire.folder().join("bench-endpoint");
        let authorization = folder.join("authorization").join(CONTAINER);
        fs::create_dir_all(&authorization)?;
        let token_file = folder.join("web-identity-token");
        fs::write(&token_file, token(spire).await?)?;
        let subject = format!("spiffe://{TRUST_DOMAIN}/{PATH}");
        let sts = spire.strict_sts(ROLE, &subject).await?;
        let relay = Relay::start(&sts.url()).await?;
        let endpoint = CredentialsEndpoint {
            port: free_port()?,
            containers: vec![ServedContainer {
                name: CONTAINER.into(),
                token_file: token_file.display().to_string().into(),
                role: ServedRole {
                    role: ROLE.parse()?,
                    external_id: None,
                    session_name: None,
                },
                chain: Vec::new(),
                duration_seconds: None,
                session_policy: None,
                regions: vec!["eu-central-1".into()],
                outbound: Vec::new(),
                tokens: Vec::new(),
            }],
            has_all_containers: false,
            sts_url: Some(relay.url().into()),
            sts_authorities: None,
        };
        let folders = folder.join("authorization").display().to_string();
        let environment = [
            (ENDPOINT_VARIABLE, serde_json::to_string(&endpoint)?),
            (variables::AUTHORIZATION_FOLDERS, folders),
            (variables::POD_NAME, "orders-7d9f-x2x9p".to_owned()),
            (variables::LOG_LEVEL, "info".to_owned()),
            (variables::INJECTED, "true".to_owned()),
        ];
        Ok(Self {
            spire,
            program: fs::canonicalize(program).with_context(|| format!("no {}", program.display()))?,
            environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, endpoint.port)),
            authorization: authorization.join(AUTHORIZATION_FILE),
            relay,
            _sts: sts,
        })
    }

    /// Starts the sidecar; its log has this name.
    pub(super) fn start(&self, name: &str) -> Result<ServerProcess> {
        let _ = fs::remove_file(&self.authorization);
        let start = Start {
            name: name.to_owned(),
            program: self.program.clone(),
            arguments: Vec::new(),
            environment: self.environment.clone(),
            logs: self.spire.folder().join("logs"),
            observe_port: None,
        };
        ServerProcess::start(start, self.spire.watchdog())
    }

    /// A request as an SDK sends it, with the authorization token of now.
    pub(super) fn request(&self) -> Result<Vec<u8>> {
        let token = fs::read_to_string(&self.authorization)?;
        Ok(format!(
            "GET {CREDENTIALS_PATH}{CONTAINER} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nAuthorization: {token}\r\n\r\n",
            self.address
        )
        .into_bytes())
    }

    /// Waits for the first credentials.
    pub(super) fn first_credentials(&self, running: &ServerProcess) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let asked = || {
            let request = self.request()?;
            asks::answer(self.address, &request)
        };
        tokio::task::block_in_place(|| {
            loop {
                match asked() {
                    Ok(_) => return Ok(()),
                    Err(error) if Instant::now() > deadline => return Err(error.context(running.log_tail(10))),
                    Err(_) => std::thread::sleep(Duration::from_micros(200)),
                }
            }
        })
    }
}

/// A token of an hour that a role trusts. No entry for it is left behind.
async fn token(spire: &Spire) -> Result<String> {
    let entry = spire.register(PATH, "", 3600)?;
    let client = Client::new(spire.socket(), DEADLINE);
    let token = eventually(PATIENCE, "the agent knows the entry", async || {
        let svids = client.jwt_svids(AUDIENCE, "").await?;
        svids.into_iter().next().map(|svid| svid.svid).context("no SVID")
    })
    .await?;
    spire.deregister(&entry)?;
    eventually(PATIENCE, "the agent has forgotten the entry", async || {
        match client.jwt_svids(AUDIENCE, "").await {
            Ok(svids) if !svids.is_empty() => bail!("it still has one"),
            _ => Ok(()),
        }
    })
    .await?;
    Ok(token)
}
