//! Credentials that are served inside the pod, by the protocol of container credentials (AWS SDKs and Tools reference, "Container
//! credential provider"). What webhook and sidecar agree on stands in `tokenscope_core::credentials_endpoint`.
//!
//! Decided without I/O, with the time as an argument: [`settings`], [`outbound_settings`] and [`deadlines`] (what is served, and how long STS may take), `session_name`, `schedule` and
//! `outbound_schedule` (when to renew), `kept` (what is known), `request` and `answer` (what is asked and answered), `error` (why a role was
//! not taken). Of tokens that are given by audience: `given_tokens`, `token_request`, `validity` (who may have which), `token_memory` (what is
//! known, and how many more may be asked for).
//!
//! At the edges: `authorization` and `state_file` (files in a container's folder), `sts_client`, `keeper` (one task for each container),
//! `outbound_keeper` (one for each token for a third party that AWS signs), `giver`, `listen` and `serve`.
//!
//! A definite refusal of STS is remembered for 60 to 90 s ([`crate::retry`]) and answered from memory, one of the token itself at most until
//! another token is in its place; after other failures STS is asked again
//! within 30 s. Each call has a deadline for each region ([`deadlines::StsDeadlines`]).

mod answer;
mod authorization;
pub mod deadlines;
mod error;
pub mod given_tokens;
mod giver;
mod keeper;
mod kept;
mod listen;
mod outbound_keeper;
mod outbound_schedule;
pub mod outbound_settings;
mod request;
mod schedule;
mod serve;
mod session_name;
pub mod settings;
mod state_file;
mod sts_client;
mod token_memory;
mod token_request;
mod validity;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use authorization::Authorization;
use giver::TokenGiver;
use jiff::Timestamp;
use keeper::{Keeper, KeptToken};
use kept::Kept;
pub use listen::PortError;
use listen::{Listeners, listen};
use outbound_keeper::OutboundKeeper;
use serve::{Container, Server, serve};
use settings::{ContainerSettings, EndpointSettings};
use state_file::{About, STATE_FILE};
use sts_client::StsClient;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::directory::Directory;
use crate::exchange::IssuerSettings;
use crate::health::Health;
use crate::log::{Level, Log};

/// The reason why credentials can't be served.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The folder of a container's authorization token.
    #[error(
        "can't write the authorization token of container {container} into {path}: {source}; mount a volume there that this user may write to"
    )]
    Authorization {
        /// The container.
        container: Box<str>,
        /// The folder.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
}

/// The port, and new authorization tokens in their files. Nobody is answered yet.
pub(crate) struct Endpoint {
    settings: Arc<EndpointSettings>,
    listeners: Listeners,
    authorizations: Vec<(Directory, Authorization)>,
}

/// A task of the endpoint, which doesn't end.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Endpoint {
    /// Takes the port, and writes a new authorization token for each container.
    ///
    /// The port comes first: two processes of this program can't write tokens for one another, nor remove each other's state.
    pub(crate) async fn open(settings: &Arc<EndpointSettings>) -> Result<Self, EndpointError> {
        let listeners = listen(settings.port).await?;
        // What a process before has left says nothing of this one. While another one has the port, the file is that one's.
        for container in &settings.containers {
            let folder = settings.folder_of(container);
            let tokens = container.outbound.iter().map(|token| state_file::of_token(&token.name));
            for file in tokens.chain([STATE_FILE.to_owned()]) {
                let _ = std::fs::remove_file(folder.join(file));
            }
        }
        let authorizations = settings.containers.iter().map(|container| {
            let path = settings.folder_of(container);
            authorize(&path).map_err(|source| EndpointError::Authorization {
                container: container.name.clone(),
                path,
                source,
            })
        });
        Ok(Self {
            authorizations: authorizations.collect::<Result<_, _>>()?,
            settings: Arc::clone(settings),
            listeners,
        })
    }

    /// The tasks that ask STS and answer the containers. `issuer` is there if its tokens are what the roles are taken with.
    pub(crate) fn tasks<C: Clock>(self, issuer: Option<&IssuedTokens<'_>>, clock: &Arc<C>, log: Log) -> Vec<Task> {
        let client = Arc::new(StsClient::new(
            self.settings.authorities.clone(),
            self.settings.deadlines,
        ));
        let (mut tasks, mut containers): (Vec<Task>, _) = (Vec::new(), Vec::new());
        let giver = giver(&self.settings, issuer, clock, log);
        for (container, (folder, authorization)) in self.settings.containers.iter().zip(self.authorizations) {
            let (sender, receiver) = watch::channel(Kept::default());
            let session = (!container.outbound.is_empty()).then(|| watch::Sender::new(None));
            for token in &container.outbound {
                let Some(session) = &session else { break };
                let keeper = OutboundKeeper {
                    container: container.clone(),
                    token: token.clone(),
                    folder: folder.clone(),
                    client: Arc::clone(&client),
                    clock: Arc::clone(clock),
                    log,
                    session: session.subscribe(),
                };
                tasks.push(Box::pin(keeper.keep()));
            }
            let keeper = Keeper {
                container: container.clone(),
                folder,
                client: Arc::clone(&client),
                clock: Arc::clone(clock),
                log,
                kept: sender,
                token: issuer.and_then(|issuer| issuer.kept(container)),
                session,
            };
            tasks.push(Box::pin(keeper.keep()));
            let tokens = container.tokens.clone();
            containers.push(Container::new(container.name.clone(), authorization, receiver, tokens));
        }
        let server = Arc::new(Server {
            giver,
            common_tokens: self.settings.common_tokens.clone(),
            containers,
            clock: Arc::clone(clock),
        });
        let has_v6 = self.listeners.v6.is_some();
        log_start(log, clock.now(), self.settings.port, has_v6);
        tasks.extend(
            self.listeners
                .v6
                .map(|listener| -> Task { Box::pin(serve(listener, Arc::clone(&server))) }),
        );
        tasks.push(Box::pin(serve(self.listeners.v4, server)));
        tasks
    }
}

/// The giver of tokens by audience, where they are given. Only tokenscope's issuer signs them.
fn giver<C: Clock>(
    settings: &EndpointSettings,
    issuer: Option<&IssuedTokens<'_>>,
    clock: &Arc<C>,
    log: Log,
) -> Option<TokenGiver<C>> {
    let issuer = issuer?.settings;
    let count = settings.containers.len();
    let giver = || TokenGiver::new(issuer.clone(), count, Arc::clone(clock), log);
    settings.gives_tokens().then(giver)
}

fn log_start(log: Log, now: Timestamp, port: u16, has_v6: bool) {
    let message = if has_v6 {
        "credentials are served on 127.0.0.1 and ::1"
    } else {
        "credentials are served on 127.0.0.1 alone: this pod has no IPv6"
    };
    log.event(now, Level::Info, message, &[("port", &port.to_string())]);
}

fn authorize(folder: &Path) -> io::Result<(Directory, Authorization)> {
    let directory = Directory::open(folder)?;
    let authorization = Authorization::generate()?;
    authorization.write(&directory)?;
    Ok((directory, authorization))
}

/// The tokens of tokenscope's issuer that this sidecar keeps. The issuer alone withdraws what it granted.
pub(crate) struct IssuedTokens<'a> {
    pub(crate) settings: &'a IssuerSettings,
    /// The state of their files.
    pub(crate) health: &'a Arc<Health>,
    /// The folder of the files.
    pub(crate) directory: &'a Path,
    /// Their names.
    pub(crate) files: Vec<&'a str>,
}

impl IssuedTokens<'_> {
    /// The container's token, if it is one of them.
    fn kept(&self, container: &ContainerSettings) -> Option<KeptToken> {
        let is_it = |file: &&&str| self.directory.join(file) == container.token_file;
        Some(KeptToken {
            health: Arc::clone(self.health),
            file: (*self.files.iter().find(is_it)?).to_owned(),
        })
    }
}

/// Nothing if every container has credentials and tokens that are valid at `now`, else why not, in one line, for the first that has none.
pub(crate) fn ready(settings: &EndpointSettings, now: Timestamp) -> Result<(), String> {
    let mut containers = settings.containers.iter();
    containers.try_for_each(|container| {
        let tokens = container.outbound.iter().map(|token| About::Token(&token.name));
        let folder = settings.folder_of(container);
        let mut all = [About::Credentials].into_iter().chain(tokens);
        all.try_for_each(|about| state_file::ready(&container.name, about, &folder, now))
    })
}
