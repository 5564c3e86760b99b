//! The configuration, made of all values together.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::given::{Given, from_str};
#[cfg(not(feature = "endpoint"))]
use super::options::ENDPOINT;
use super::options::{
    DIRECTORY, HINT, JWT_BUNDLE, JWT_SVID, LOG_LEVEL, OBSERVE, OF_ISSUER, OF_SPIFFE, ONCE, SOCKET, SPIFFE_ID,
    TRUST_DOMAIN, X509_SVID,
};
use super::{Config, ConfigError, SourceSettings, TokenFile, WorkloadApiSettings};
use crate::log::{self, Log};
use crate::selection::SvidSelection;

/// The longest path of a UNIX domain socket, in bytes.
const LONGEST_SOCKET: usize = 107;

/// Checks all values together.
pub(super) fn config<E: Fn(&str) -> Option<String>>(given: &Given<E>) -> Result<Config, ConfigError> {
    #[cfg(not(feature = "endpoint"))]
    if let Some(endpoint) = given.first_of(&[&ENDPOINT]) {
        return Err(ConfigError::NoEndpoint(endpoint));
    }
    #[cfg(feature = "endpoint")]
    let endpoint = super::endpoint::endpoint(given)?;
    #[cfg(feature = "endpoint")]
    if let Some(endpoint) = &endpoint
        && given.first_of(&OF_SPIFFE).is_none()
        && given.first_of(&OF_ISSUER).is_none()
    {
        return Ok(Config {
            directory: endpoint.folders.clone(),
            tokens: Vec::new(),
            source: SourceSettings::Kubelet,
            endpoint: Some(endpoint.clone()),
            once: false,
            observe: None,
            log: log(given)?,
            injected: false,
        });
    }
    let directory = given.text(&DIRECTORY);
    let directory = directory
        .map(|(_, value)| PathBuf::from(value))
        .ok_or(ConfigError::Missing(
            "there is no folder for the files: give --directory or TOKENSCOPE_DIRECTORY",
        ))?;
    let (source, tokens) = source(given)?;
    let config = Config {
        directory,
        tokens,
        source,
        #[cfg(feature = "endpoint")]
        endpoint,
        once: given.switch(&ONCE)?,
        observe: given.parsed(&OBSERVE, observe)?,
        log: log(given)?,
        injected: false,
    };
    if config.kept().is_empty() {
        return Err(ConfigError::Missing(
            "there is nothing to write: give --jwt-svid token=sts.amazonaws.com or TOKENSCOPE_JWT_SVIDS, or --x509-svid, or --jwt-bundle",
        ));
    }
    Ok(config)
}

fn log<E: Fn(&str) -> Option<String>>(given: &Given<E>) -> Result<Log, ConfigError> {
    Ok(Log {
        level: given.parsed(&LOG_LEVEL, level)?.unwrap_or(log::Level::Info),
    })
}

/// The source of the tokens, and their files.
fn source<E: Fn(&str) -> Option<String>>(given: &Given<E>) -> Result<(SourceSettings, Vec<TokenFile>), ConfigError> {
    match (given.first_of(&OF_SPIFFE), given.first_of(&OF_ISSUER)) {
        (Some(spiffe), Some(issuer)) => Err(ConfigError::TwoSources { spiffe, issuer }),
        #[cfg(feature = "issuer")]
        (None, Some(_)) => super::issuer::source(given),
        #[cfg(not(feature = "issuer"))]
        (None, Some(issuer)) => Err(ConfigError::NoIssuer(issuer)),
        (_, None) => workload_api(given),
    }
}

fn workload_api<E: Fn(&str) -> Option<String>>(
    given: &Given<E>,
) -> Result<(SourceSettings, Vec<TokenFile>), ConfigError> {
    let socket = given.parsed(&SOCKET, socket)?.ok_or(ConfigError::Missing(
        "there is no address of the SPIFFE Workload API: give --socket or SPIFFE_ENDPOINT_SOCKET, such as unix:///spiffe-workload-api/spire-agent.sock",
    ))?;
    let agent = WorkloadApiSettings {
        socket,
        wanted: SvidSelection {
            spiffe_id: given.parsed(&SPIFFE_ID, from_str)?,
            hint: given.parsed(&HINT, from_str)?,
            trust_domain: given.parsed(&TRUST_DOMAIN, from_str)?,
        },
        x509_svid: given.switch(&X509_SVID)?,
        jwt_bundle: given.switch(&JWT_BUNDLE)?,
    };
    Ok((SourceSettings::WorkloadApi(agent), given.files(&JWT_SVID)?))
}

fn socket(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:"));
    let path = path.filter(|path| path.starts_with('/'));
    let path = path.ok_or_else(|| {
        format!("{text:?} should be unix:// and an absolute path; other ways to reach an agent are not supported")
    })?;
    if path.len() > LONGEST_SOCKET {
        return Err(format!(
            "{path} has {} bytes, and the path of a socket has at most {LONGEST_SOCKET}",
            path.len()
        ));
    }
    Ok(path.into())
}

fn observe(text: &str) -> Result<SocketAddr, String> {
    if cfg!(not(feature = "observe")) {
        return Err("this build has no HTTP server".to_owned());
    }
    text.parse()
        .map_err(|_| format!("{text:?} should be an address and a port, such as 127.0.0.1:9102"))
}

fn level(text: &str) -> Result<log::Level, String> {
    log::level(text).ok_or_else(|| format!("{text:?} should be off, error, warn, info or debug"))
}
