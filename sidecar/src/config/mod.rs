//! Flags and environment, read once and checked. Nothing else configures the sidecar.
//!
//! lexopt reads the arguments. clap, which would read the environment too, would add 194 kB to a program of 1.96 MB (docs/adr/0010).

#[cfg(feature = "endpoint")]
mod endpoint;
mod given;
#[cfg(feature = "issuer")]
mod issuer;
mod options;
#[cfg(test)]
mod tests;
mod text_files;
mod whole;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
#[cfg(feature = "endpoint")]
use std::sync::Arc;

use given::{Given, injected};
use lexopt::{Arg, Parser};
use options::{ISSUED_TOKEN, JWT_SVID, OPTIONS, help};
use text_files::text_files;
use tokenscope_core::Audience;
use tokenscope_core::sidecar::{JWT_BUNDLE_FILE, READY, WRITE, X509_SVID_FILE};
use whole::config;

#[cfg(feature = "endpoint")]
use crate::endpoint::settings::EndpointSettings;
#[cfg(feature = "issuer")]
use crate::exchange::IssuerSettings;
use crate::log::Log;
use crate::selection::SvidSelection;
use crate::write::TextFile;

/// The task of the process.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Keep the files fresh.
    Run(Config),
    /// Say whether they are.
    Ready(Config),
    /// Write files, and end.
    Write(Vec<TextFile>),
    /// The help, or the version.
    Print(String),
}

/// Everything that can be configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of the files; where none is written, that of the authorization tokens' folders.
    pub directory: PathBuf,
    /// The tokens.
    pub tokens: Vec<TokenFile>,
    /// The source of the tokens.
    pub source: SourceSettings,
    /// The credentials that are served.
    #[cfg(feature = "endpoint")]
    pub endpoint: Option<Arc<EndpointSettings>>,
    /// Ends the process when all is written once.
    pub once: bool,
    /// The address of `/livez`, `/readyz` and `/metrics`.
    pub observe: Option<SocketAddr>,
    /// The log, with its level.
    pub log: Log,
    /// True if the webhook put the process into a pod: then nobody but the container's own start may run it.
    pub injected: bool,
}

/// The source of tokens.
#[derive(Clone, Debug)]
pub enum SourceSettings {
    /// A SPIFFE agent.
    WorkloadApi(WorkloadApiSettings),
    /// tokenscope's own issuer.
    #[cfg(feature = "issuer")]
    Issuer(IssuerSettings),
    /// None: no file is written. The credentials that are served are made of tokens that the kubelet writes.
    #[cfg(feature = "endpoint")]
    Kubelet,
}

/// The SPIFFE agent, and what it is asked for beside tokens.
#[derive(Clone, Debug)]
pub struct WorkloadApiSettings {
    /// The agent's socket.
    pub socket: PathBuf,
    /// The identity whose tokens are wanted.
    pub wanted: SvidSelection,
    /// True if an X.509-SVID is written, too.
    pub x509_svid: bool,
    /// True if the keys that JWT-SVIDs are signed with are written, too.
    pub jwt_bundle: bool,
}

/// A token and its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFile {
    /// The file's name in the directory, or its absolute path.
    pub name: String,
    /// The token's audience.
    pub audience: Audience,
}

/// A token and all files that it is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedToken {
    /// The token's audience.
    pub audience: Audience,
    /// The files, at least one, each as [`TokenFile::name`] has it.
    pub files: Vec<String>,
}

impl Config {
    /// The SPIFFE agent, if tokens come from there.
    pub fn workload_api(&self) -> Option<&WorkloadApiSettings> {
        match &self.source {
            SourceSettings::WorkloadApi(agent) => Some(agent),
            #[cfg(feature = "issuer")]
            SourceSettings::Issuer(_) => None,
            #[cfg(feature = "endpoint")]
            SourceSettings::Kubelet => None,
        }
    }

    /// True if credentials are served.
    pub fn serves_credentials(&self) -> bool {
        #[cfg(feature = "endpoint")]
        return self.endpoint.is_some();
        #[cfg(not(feature = "endpoint"))]
        false
    }

    /// The names by which health is kept: one for each token, one for the X.509-SVID, one for the keys.
    pub fn kept(&self) -> Vec<String> {
        let tokens = self.tokens.iter().map(|file| file.name.clone());
        let agent = self.workload_api();
        let certificate = agent.filter(|agent| agent.x509_svid).map(|_| X509_SVID_FILE.to_owned());
        let bundle = agent
            .filter(|agent| agent.jwt_bundle)
            .map(|_| JWT_BUNDLE_FILE.to_owned());
        tokens.chain(certificate).chain(bundle).collect()
    }

    /// One token for each audience, in the order of the files.
    pub fn shared_tokens(&self) -> Vec<SharedToken> {
        let mut shared: Vec<SharedToken> = Vec::new();
        for file in &self.tokens {
            match shared.iter_mut().find(|token| token.audience == file.audience) {
                Some(token) => token.files.push(file.name.clone()),
                None => shared.push(SharedToken {
                    audience: file.audience.clone(),
                    files: vec![file.name.clone()],
                }),
            }
        }
        shared
    }

    /// The folders that files are written to, the directory first. What is not a token is written to each of them.
    pub fn folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.directory.clone()];
        for file in &self.tokens {
            let path = self.directory.join(&file.name);
            if let Some(folder) = path
                .parent()
                .filter(|folder| folders.iter().all(|known| known != folder))
            {
                folders.push(folder.to_owned());
            }
        }
        folders
    }
}

/// A mistake in flags or environment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Something that is no option and no command.
    #[error("{0:?} is no option: see tokenscope-sidecar --help")]
    Unknown(String),
    /// An argument that is no UTF-8.
    #[error("{0:?} is not UTF-8")]
    NotUtf8(OsString),
    /// An option stands last and wants a value.
    #[error("--{0} needs a value")]
    NoValue(&'static str),
    /// A switch was given something else than true or false.
    #[error("{0} should be true or false, and is {1:?}")]
    NoSwitch(String, String),
    /// An option that takes one value was given two.
    #[error("--{0} is given twice")]
    Twice(&'static str),
    /// Something that must be given.
    #[error("{0}")]
    Missing(&'static str),
    /// Tokens come from one source.
    #[error("tokens come from SPIFFE or from tokenscope's issuer: {spiffe} and {issuer} can't be given together")]
    TwoSources {
        /// A flag or variable of the one.
        spiffe: String,
        /// A flag or variable of the other.
        issuer: String,
    },
    /// The program was built without the exchange.
    #[error(
        "{0}: this build exchanges no tokens at tokenscope's issuer; the image for that is tokenscope-sidecar-issuer"
    )]
    NoIssuer(String),
    /// The program was built without the endpoint.
    #[error("{0}: this build serves no credentials; the image for that is tokenscope-sidecar-endpoint")]
    NoEndpoint(String),
    /// Something that the endpoint goes without.
    #[error("{0} can't be given where credentials are served")]
    NotWithEndpoint(String),
    /// An option where the webhook has said all.
    #[error("this sidecar was put into its pod by tokenscope and takes no options: {0:?} is not looked at")]
    Injected(String),
    /// A value that can't be read.
    #[error("{source_name}: {why}")]
    Value {
        /// The flag or the variable.
        source_name: String,
        /// The value, its mistake and the remedy.
        why: String,
    },
}

/// The task of the process, by its arguments and its environment. An argument beats the variable; an empty variable is none.
pub fn invocation(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Invocation, ConfigError> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let injected = injected(&environment)?;
    if arguments.first().is_some_and(|first| *first == *WRITE) {
        // Where tokens are kept, whoever may run commands in the container could write over them.
        if injected {
            return Err(ConfigError::Injected(WRITE.to_owned()));
        }
        return text_files(arguments.drain(1..)).map(Invocation::Write);
    }
    let mut parser = Parser::from_args(arguments);
    let mut ready = false;
    let mut given: Vec<(&'static str, String)> = Vec::new();
    while let Some(argument) = parser.next().map_err(|error| ConfigError::Unknown(error.to_string()))? {
        let name = match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Invocation::Print(help())),
            Arg::Short('V') | Arg::Long("version") => {
                return Ok(Invocation::Print(env!("CARGO_PKG_VERSION").to_owned()));
            }
            Arg::Value(ref command) if *command == *READY && !ready => {
                ready = true;
                continue;
            }
            other => shown(&other),
        };
        // Whoever may run commands in the container would have a token for any audience.
        if injected {
            return Err(ConfigError::Injected(name));
        }
        let flag = name.strip_prefix("--");
        let known = flag.and_then(|flag| OPTIONS.into_iter().find(|option| option.flag == flag));
        let option = known.ok_or(ConfigError::Unknown(name))?;
        let is_list = [JWT_SVID.flag, ISSUED_TOKEN.flag].contains(&option.flag);
        if !is_list && given.iter().any(|(flag, _)| *flag == option.flag) {
            return Err(ConfigError::Twice(option.flag));
        }
        let value = match option.value {
            None => parser.optional_value().unwrap_or_else(|| "true".into()),
            Some(_) => parser.value().map_err(|_| ConfigError::NoValue(option.flag))?,
        };
        given.push((option.flag, value.into_string().map_err(ConfigError::NotUtf8)?));
    }
    let config = Config {
        injected,
        ..config(&Given { given, environment })?
    };
    Ok(if ready {
        Invocation::Ready(config)
    } else {
        Invocation::Run(config)
    })
}

/// An argument as it was written, without the value that is attached to it.
fn shown(argument: &Arg<'_>) -> String {
    match argument {
        Arg::Short(flag) => format!("-{flag}"),
        Arg::Long(flag) => format!("--{flag}"),
        Arg::Value(value) => value.to_string_lossy().into_owned(),
    }
}
