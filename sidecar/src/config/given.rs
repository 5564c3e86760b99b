//! The values that were given, by flag or variable, and how each is read.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use tokenscope_core::sidecar::variables::INJECTED;
use tokenscope_core::sidecar::{JWT_BUNDLE_FILE, X509_BUNDLE_FILE, X509_KEY_FILE, X509_SVID_FILE};

use super::options::{
    DIRECTORY, HINT, JWT_BUNDLE, JWT_SVID, LOG_LEVEL, OBSERVE, OF_ISSUER, OF_SPIFFE, ONCE, OptionSpec, SOCKET,
    SPIFFE_ID, TRUST_DOMAIN, X509_SVID,
};
use super::{Config, ConfigError, SourceSettings, TokenFile, WorkloadApiSettings};
use crate::log::{self, Log};
use crate::selection::SvidSelection;

/// The longest file name, in bytes; what is put around it while it is written has room beside it.
const LONGEST_NAME: usize = 200;
/// The longest path of a UNIX domain socket, in bytes.
const LONGEST_SOCKET: usize = 107;

/// The flags and the environment.
pub(super) struct Given<E> {
    /// The flags and their values, in their order.
    pub(super) given: Vec<(&'static str, String)>,
    pub(super) environment: E,
}

impl<E: Fn(&str) -> Option<String>> Given<E> {
    /// An option's value, and where it stands.
    pub(super) fn text(&self, option: &OptionSpec) -> Option<(String, String)> {
        let flag = self.given.iter().find(|(flag, _)| *flag == option.flag);
        if let Some((flag, value)) = flag {
            return Some((format!("--{flag}"), value.clone()));
        }
        let value = (self.environment)(option.variable).filter(|value| !value.is_empty());
        value.map(|value| (option.variable.to_owned(), value))
    }

    pub(super) fn parsed<T>(
        &self,
        option: &OptionSpec,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((source_name, value)) = self.text(option) else {
            return Ok(None);
        };
        parse(&value)
            .map(Some)
            .map_err(|why| ConfigError::Value { source_name, why })
    }

    fn switch(&self, option: &OptionSpec) -> Result<bool, ConfigError> {
        match self.text(option) {
            None => Ok(false),
            Some((_, value)) if value == "true" => Ok(true),
            Some((_, value)) if value == "false" => Ok(false),
            Some((source_name, value)) => Err(ConfigError::NoSwitch(source_name, value)),
        }
    }

    /// The first of some options that is given, where it stands. A switch that is off says nothing.
    fn first_of(&self, options: &[&OptionSpec]) -> Option<String> {
        let mut given = options.iter().filter_map(|option| self.text(option));
        given
            .find(|(_, value)| value != "false")
            .map(|(source_name, _)| source_name)
    }

    /// The token files that an option lists.
    pub(super) fn files(&self, option: &OptionSpec) -> Result<Vec<TokenFile>, ConfigError> {
        let flags = self.given.iter().filter(|(flag, _)| *flag == option.flag);
        let flags: Vec<&str> = flags.map(|(_, value)| value.as_str()).collect();
        let variable = (self.environment)(option.variable).unwrap_or_default();
        let (source_name, values) = if flags.is_empty() {
            (option.variable.to_owned(), variable.split_ascii_whitespace().collect())
        } else {
            (format!("--{}", option.flag), flags)
        };
        let mut files: Vec<TokenFile> = Vec::new();
        for value in values {
            let file = token_file(value).and_then(|file| {
                let twice = files.iter().any(|other| other.name == file.name);
                if twice {
                    Err(format!("the file {} is named twice", file.name))
                } else {
                    Ok(file)
                }
            });
            files.push(file.map_err(|why| ConfigError::Value {
                source_name: source_name.clone(),
                why,
            })?);
        }
        Ok(files)
    }
}

/// Checks all values together.
pub(super) fn config<E: Fn(&str) -> Option<String>>(given: &Given<E>) -> Result<Config, ConfigError> {
    let directory = given.text(&DIRECTORY);
    let directory = directory
        .map(|(_, value)| PathBuf::from(value))
        .ok_or(ConfigError::Missing(
            "where should the files be written? Give --directory or TOKENSCOPE_DIRECTORY",
        ))?;
    let (source, tokens) = source(given)?;
    let config = Config {
        directory,
        tokens,
        source,
        once: given.switch(&ONCE)?,
        observe: given.parsed(&OBSERVE, observe)?,
        log: Log {
            level: given.parsed(&LOG_LEVEL, level)?.unwrap_or(log::Level::Info),
        },
        injected: false,
    };
    if config.kept().is_empty() {
        return Err(ConfigError::Missing(
            "what should be written? Give --jwt-svid token=sts.amazonaws.com or TOKENSCOPE_JWT_SVIDS, or --x509-svid, or --jwt-bundle",
        ));
    }
    Ok(config)
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
        "where is the SPIFFE Workload API? Give --socket or SPIFFE_ENDPOINT_SOCKET, such as unix:///spiffe-workload-api/spire-agent.sock",
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

/// True if the webhook wrote the environment.
pub(super) fn injected(environment: impl Fn(&str) -> Option<String>) -> Result<bool, ConfigError> {
    match environment(INJECTED).as_deref() {
        None | Some("" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(ConfigError::NoSwitch(INJECTED.to_owned(), other.to_owned())),
    }
}

fn token_file(text: &str) -> Result<TokenFile, String> {
    let (name, audience) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} should be FILE=AUDIENCE, such as token=sts.amazonaws.com"))?;
    let reserved = [X509_SVID_FILE, X509_KEY_FILE, X509_BUNDLE_FILE, JWT_BUNDLE_FILE];
    let byte_is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_plain = |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(byte_is_plain);
    // An absolute path is one of plain names.
    if name.len() > LONGEST_NAME
        || !name.strip_prefix('/').unwrap_or(name).split('/').all(is_plain)
        || name.find('/') > Some(0)
    {
        return Err(format!(
            "{name:?} should be a plain file name: at most {LONGEST_NAME} letters, digits, dots, hyphens and underscores, and no dot first; or an absolute path of such names"
        ));
    }
    if name.rsplit('/').next().is_some_and(|file| reserved.contains(&file)) {
        return Err(format!("{name} is the name of another file that the sidecar writes"));
    }
    let audience = from_str(audience)?;
    Ok(TokenFile {
        name: name.to_owned(),
        audience,
    })
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

pub(super) fn from_str<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}
