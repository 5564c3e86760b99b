//! The running sidecar: one task for each token, one for the keys, one for the X.509-SVID.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinSet};

use crate::bundle::Bundles;
use crate::clock::{Clock, SystemClock, Woken};
use crate::config::{BUNDLE_FILE, Config, JwtFile, X509_FILES};
use crate::directory::{Directory, Lock, Readers};
use crate::fetch_error::FetchError;
use crate::health::Health;
use crate::log::Level;
use crate::refresh::CachedToken;
use crate::retry::{self, Kind};
use crate::token::Token;
use crate::workload_api::{Client, DEADLINE, X509SvidResponse};
use crate::x509;

/// After which time without an answer the probe is told that the agent is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// A clock that is set is often set again right after.
const SETTLING: Duration = Duration::from_secs(1);

/// Why the sidecar can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory for the files.
    #[error("can't write into the directory {path}: {source}; mount a volume there that this user may write to")]
    Directory {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody else runs the program of the container.
    #[error("the sidecar of this pod runs already, and only its container's own start may run it")]
    Locked,
    /// The observing address.
    #[error("can't listen on {address}: {source}")]
    Observe {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Signals and timers.
    #[error("the system gives no signals or timers")]
    System(#[source] io::Error),
    /// With `--once`, an answer that will always be the same.
    #[error("{0}")]
    Rejected(FetchError),
    /// A mistake in this program.
    #[error("a task has ended")]
    Task(#[source] JoinError),
}

/// Runs until SIGTERM or SIGINT. For `main`.
pub fn process(config: Config) -> ExitCode {
    let log = config.log;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(Error::System).and_then(|runtime| {
        runtime.block_on(async {
            // Set up before anything else: the first process of a container ignores the signals that it has no handler for.
            let mut terminate = signal(SignalKind::terminate()).map_err(Error::System)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::System)?;
            let stop = async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            run(config, SystemClock, stop).await
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.event(Timestamp::now(), Level::Error, &error.to_string(), &[]);
            ExitCode::FAILURE
        }
    }
}

/// Keeps the files fresh until `stop` is ready; with `once`, until each is written. The files stay.
pub async fn run<C: Clock>(config: Config, clock: C, stop: impl Future<Output = ()>) -> Result<(), Error> {
    let _lock = if config.injected {
        Some(keep_to_itself(&config)?)
    } else {
        None
    };
    let directory = Directory::open(&config.directory).map_err(|source| Error::Directory {
        path: config.directory.clone(),
        source,
    })?;
    let sidecar = Arc::new(Sidecar {
        client: Client::new(config.socket.clone(), DEADLINE),
        health: Arc::new(Health::new(directory.clone(), config.kept())),
        clock: Arc::new(clock),
        bundles: watch::Sender::new(Bundles::default()),
        first_token: Notify::new(),
        directory,
        config,
    });
    #[cfg(feature = "observe")]
    let mut server = JoinSet::new(); // dropped, and so ended, with this function
    #[cfg(feature = "observe")]
    if let Some(address) = sidecar.config.observe {
        let listener = crate::observe::listen(address)
            .await
            .map_err(|source| Error::Observe { address, source })?;
        let (health, clock) = (Arc::clone(&sidecar.health), Arc::clone(&sidecar.clock));
        server.spawn(crate::observe::serve(listener, health, clock));
    }

    let mut tasks = JoinSet::new();
    for file in sidecar.config.jwt_svids.clone() {
        tasks.spawn(keep_token(Arc::clone(&sidecar), file));
    }
    if sidecar.config.x509_svid {
        tasks.spawn(keep_x509(Arc::clone(&sidecar)));
    }
    if sidecar.config.jwt_bundle || !sidecar.config.once {
        tasks.spawn(keep_bundles(Arc::clone(&sidecar)));
    }
    sidecar.log(Level::Info, "started", &[("version", env!("CARGO_PKG_VERSION"))]);
    let all_ended = async {
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(Error::Task)??;
        }
        Ok(())
    };
    let result = tokio::select! {
        result = all_ended => result,
        () = stop => Ok(()),
    };
    sidecar.log(Level::Info, "stopped", &[]);
    result
}

/// Sees to it that nobody else reaches the agent as this sidecar: no second process of the program, and no debugger of another
/// container of the pod (`PR_SET_DUMPABLE`, see prctl(2)).
fn keep_to_itself(config: &Config) -> Result<Lock, Error> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| Error::System(error.into()))?;
    Lock::take(&config.directory).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => Error::Locked,
        _ => Error::Directory {
            path: config.directory.clone(),
            source,
        },
    })
}

/// What all tasks share.
struct Sidecar<C> {
    config: Config,
    directory: Directory,
    client: Client,
    health: Arc<Health>,
    clock: Arc<C>,
    /// The keys as the agent has last stated them.
    bundles: watch::Sender<Bundles>,
    /// There is a token whose key can be looked for.
    first_token: Notify,
}

/// Keeps one token fresh. It ends only with `once`.
async fn keep_token<C: Clock>(sidecar: Arc<Sidecar<C>>, file: JwtFile) -> Result<(), Error> {
    let mut bundles = sidecar.bundles.subscribe();
    let mut held: Option<CachedToken> = None;
    // A key that was never among the published ones has not left them: the agent may learn of a new key later.
    let mut key_was_published = false;
    let mut withdrawn = false;
    let mut failures = 0;
    loop {
        let answer = sidecar.renew_token(&file).await;
        let now = sidecar.clock.now();
        let next = match answer {
            Ok(token) => {
                if sidecar.config.once {
                    return Ok(());
                }
                failures = 0;
                if held.as_ref().is_none_or(|held| held.token != token) {
                    (key_was_published, withdrawn) = (false, false);
                }
                let answered = match held.take() {
                    None => CachedToken::new(token, now, random()),
                    Some(held) => held.answered(token, now, random()),
                };
                sidecar.first_token.notify_one();
                let next = answered.next(now, withdrawn);
                sidecar.log(
                    Level::Debug,
                    "token written",
                    &[("file", &file.name), ("next", &format!("{next:.0}"))],
                );
                held = Some(answered);
                next
            }
            Err(trouble) => {
                failures += 1;
                let expires_at = held.as_ref().map(|held| held.token.expires_at);
                sidecar.after_failure(&file.name, trouble, failures, expires_at)?
            }
        };
        loop {
            if let Some(held) = &held {
                let published = bundles.borrow_and_update().have_key_of(&held.token);
                if published == Some(false) && key_was_published && !withdrawn {
                    withdrawn = true;
                    let message = "the key of the token was withdrawn: asking for another one";
                    sidecar.log(Level::Warn, message, &[("file", &file.name)]);
                    break;
                }
                key_was_published |= published == Some(true);
            }
            tokio::select! {
                woken = sidecar.clock.wait_until(next) => {
                    if woken == Woken::ClockWasSet {
                        let message = "the clock was set: asking for a token by the new time";
                        sidecar.log(Level::Warn, message, &[("file", &file.name)]);
                        tokio::time::sleep(SETTLING).await;
                    }
                    break;
                }
                // The sender is in what all tasks share.
                _ = bundles.changed() => {}
            }
        }
    }
}

/// Follows the keys that tokens are signed with, and writes them if wanted. It ends only with `once`.
async fn keep_bundles<C: Clock>(sidecar: Arc<Sidecar<C>>) -> Result<(), Error> {
    if !sidecar.config.jwt_bundle {
        sidecar.first_token.notified().await; // before it, the agent would only say no once more
    }
    let mut failures = 0;
    loop {
        let Err(trouble) = sidecar.follow_bundles(&mut failures).await else {
            return Ok(());
        };
        failures += 1;
        let next = if sidecar.config.jwt_bundle {
            sidecar.after_failure(BUNDLE_FILE, trouble, failures, None)?
        } else {
            sidecar.log(Level::Debug, &trouble.to_string(), &[]);
            let wait = retry::wait(trouble.kind(), failures, Some(SignedDuration::MAX), random());
            later(sidecar.clock.now(), wait)
        };
        sidecar.clock.wait_until(next).await;
    }
}

/// Keeps the X.509-SVID fresh. It ends only with `once`.
async fn keep_x509<C: Clock>(sidecar: Arc<Sidecar<C>>) -> Result<(), Error> {
    let mut expires_at = None;
    let mut failures = 0;
    loop {
        let Err(trouble) = sidecar.follow_x509(&mut expires_at, &mut failures).await else {
            return Ok(());
        };
        failures += 1;
        let next = sidecar.after_failure(X509_FILES.certificate, trouble, failures, expires_at)?;
        sidecar.clock.wait_until(next).await;
    }
}

impl<C: Clock> Sidecar<C> {
    /// Asks for a token and puts it in its file. The file is touched only by a token that is valid now.
    async fn renew_token(&self, file: &JwtFile) -> Result<Token, FetchError> {
        let id = self.config.wanted.spiffe_id.as_ref().map_or("", |id| id.as_str());
        let asking = self.client.jwt_svids(file.audience.as_str(), id);
        let svids = self.with_progress(&file.name, asking).await?;
        let svid = self.config.wanted.choose(&svids)?;
        let token = Token::parse(&svid.svid).map_err(FetchError::InvalidToken)?;
        if *token.subject != *svid.spiffe_id {
            return Err(FetchError::Malformed(
                "the token is of another identity than the answer says",
            ));
        }
        if !token
            .audiences
            .iter()
            .any(|audience| **audience == *file.audience.as_str())
        {
            return Err(FetchError::Malformed(
                "the token is for another audience than was asked for",
            ));
        }
        let now = self.clock.now();
        if token.expires_at <= now {
            let seconds = now.duration_since(token.expires_at).as_secs();
            return Err(FetchError::Expired { seconds });
        }
        self.write(&file.name, token.secret().as_bytes(), Readers::All)?;
        self.renewed(&file.name, Some(token.expires_at), now);
        Ok(token)
    }

    /// Follows the stream of keys. Ends well only with `once`.
    async fn follow_bundles(&self, failures: &mut u32) -> Result<(), FetchError> {
        let mut stream = self.client.jwt_bundles().await?;
        let mut first = true;
        loop {
            let message = stream.next(first).await?;
            let bundles = Bundles::read(&message.bundles)?;
            first = false;
            *failures = 0;
            if self.config.jwt_bundle {
                self.write_everywhere(BUNDLE_FILE, bundles.file(), Readers::All)?;
                self.renewed(BUNDLE_FILE, None, self.clock.now());
                if self.config.once {
                    return Ok(());
                }
            }
            self.bundles.send_replace(bundles);
        }
    }

    /// Follows the stream of X.509-SVIDs. Ends well only with `once`.
    async fn follow_x509(&self, expires_at: &mut Option<Timestamp>, failures: &mut u32) -> Result<(), FetchError> {
        let opening = async {
            let mut stream = self.client.x509_svids().await?;
            let message = stream.next(true).await?;
            Ok((stream, message))
        };
        let (mut stream, mut message) = self.with_progress(X509_FILES.certificate, opening).await?;
        loop {
            *expires_at = Some(self.write_x509(&message)?);
            *failures = 0;
            if self.config.once {
                return Ok(());
            }
            message = stream.next(false).await?;
        }
    }

    /// Writes the wanted X.509-SVID; returns until when it is valid.
    fn write_x509(&self, message: &X509SvidResponse) -> Result<Timestamp, FetchError> {
        let svid = self.config.wanted.choose(&message.svids)?;
        let certificate = x509::certificates_to_pem(&svid.x509_svid);
        let certificate = certificate.ok_or(FetchError::Malformed("an X.509-SVID has no certificate"))?;
        let key = x509::key_to_pem(&svid.x509_svid_key);
        let key = key.ok_or(FetchError::Malformed("an X.509-SVID has no private key"))?;
        let bundle = x509::certificates_to_pem(&svid.bundle);
        let bundle = bundle.ok_or(FetchError::Malformed("an X.509-SVID has no bundle of authorities"))?;
        let end = x509::valid_until(&svid.x509_svid);
        let end = end.ok_or(FetchError::Malformed("the end of an X.509-SVID can't be read"))?;
        let now = self.clock.now();
        if end <= now {
            let seconds = now.duration_since(end).as_secs();
            return Err(FetchError::Expired { seconds });
        }
        // The certificate last: who waits for it to change finds the key and the authorities that belong to it.
        self.write_everywhere(X509_FILES.key, key.as_bytes(), Readers::Owner)?;
        self.write_everywhere(X509_FILES.bundle, bundle.as_bytes(), Readers::All)?;
        self.write_everywhere(X509_FILES.certificate, certificate.as_bytes(), Readers::All)?;
        self.renewed(X509_FILES.certificate, Some(end), now);
        Ok(end)
    }

    /// Waits for an answer; lets the probe know if that takes long.
    async fn with_progress<T>(
        &self,
        file: &str,
        asking: impl Future<Output = Result<T, FetchError>>,
    ) -> Result<T, FetchError> {
        let mut asking = std::pin::pin!(asking);
        if let Ok(answer) = tokio::time::timeout(PATIENCE, &mut asking).await {
            return answer;
        }
        self.failed(file, &FetchError::Waiting);
        asking.await
    }

    /// Writes a file beside every token: no container sees the folder of another one's token.
    fn write_everywhere(&self, file: &str, content: &[u8], readers: Readers) -> Result<(), FetchError> {
        for folder in self.config.folders() {
            self.write(&folder.join(file).to_string_lossy(), content, readers)?;
        }
        Ok(())
    }

    fn write(&self, file: &str, content: &[u8], readers: Readers) -> Result<(), FetchError> {
        let written = self.directory.replace(file, content, readers);
        written.map_err(|error| FetchError::Write {
            file: file.to_owned(),
            reason: error.to_string(),
        })
    }

    fn renewed(&self, file: &str, expires_at: Option<Timestamp>, now: Timestamp) {
        let first = !self.health.was_written(file);
        let since = self.health.renewed(file, expires_at, now);
        if first {
            self.log(Level::Info, "written for the first time", &[("file", file)]);
        } else if let Some(since) = since {
            let since = format!("{since:.0}");
            self.log(
                Level::Info,
                "renewed after trouble",
                &[("file", file), ("since", &since)],
            );
        }
    }

    fn failed(&self, file: &str, trouble: &FetchError) {
        let news = self.health.failed(file, trouble, self.clock.now());
        let level = if news { Level::Warn } else { Level::Debug };
        let fields = [("file", file), ("reason", trouble.label())];
        self.log(level, &trouble.to_string(), &fields);
    }

    /// When to try again. Fails only with `once`, if trying again can't help.
    fn after_failure(
        &self,
        file: &str,
        trouble: FetchError,
        failures: u32,
        expires_at: Option<Timestamp>,
    ) -> Result<Timestamp, Error> {
        self.failed(file, &trouble);
        let kind = trouble.kind();
        if self.config.once && kind == Kind::Rejected {
            return Err(Error::Rejected(trouble));
        }
        let now = self.clock.now();
        let left = expires_at.map(|end| end.duration_since(now));
        let left = left.filter(SignedDuration::is_positive);
        Ok(later(now, retry::wait(kind, failures, left, random())))
    }

    fn log(&self, level: Level, message: &str, fields: &[(&str, &str)]) {
        self.config.log.event(self.clock.now(), level, message, fields);
    }
}

fn later(now: Timestamp, wait: Duration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX) // only thousands of years from now
}

/// From 0 to 1. The hasher's keys are random and another pair each time; nothing here is worth guessing.
fn random() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}
