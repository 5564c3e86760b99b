//! The things that all tasks share: the source of tokens, the files, their health, and the time of the next try.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, watch};

use super::Error;
use super::source::TokenClient;
use crate::bundle::JwtBundles;
use crate::clock::{Clock, later};
use crate::config::Config;
use crate::directory::{Directory, Readers};
use crate::fetch_error::FetchError;
use crate::health::Health;
use crate::log::Level;
use crate::random::random;
use crate::retry::{self, Kind};

/// After which time without an answer the probe is told that it is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// The things that all tasks share.
pub(super) struct Sidecar<C> {
    pub(super) config: Config,
    pub(super) directory: Directory,
    pub(super) source: TokenClient,
    pub(super) health: Arc<Health>,
    pub(super) clock: Arc<C>,
    /// The keys as the agent has last stated them.
    pub(super) bundles: watch::Sender<JwtBundles>,
    /// There is a token whose key can be looked for.
    pub(super) first_token: Notify,
}

impl<C: Clock> Sidecar<C> {
    /// Waits for an answer; lets the probe know if that takes long.
    pub(super) async fn with_progress<T>(
        &self,
        files: &[String],
        asking: impl Future<Output = Result<T, FetchError>>,
    ) -> Result<T, FetchError> {
        let mut asking = std::pin::pin!(asking);
        if let Ok(answer) = tokio::time::timeout(PATIENCE, &mut asking).await {
            return answer;
        }
        self.failed(files, &FetchError::Waiting(self.source.provider()));
        asking.await
    }

    /// Writes a file beside every token: no container sees the folder of another one's token.
    pub(super) fn write_everywhere(&self, file: &str, content: &[u8], readers: Readers) -> Result<(), FetchError> {
        for folder in self.config.folders() {
            self.write(&folder.join(file).to_string_lossy(), content, readers)?;
        }
        Ok(())
    }

    pub(super) fn write(&self, file: &str, content: &[u8], readers: Readers) -> Result<(), FetchError> {
        let written = self.directory.replace(file, content, readers);
        written.map_err(|error| FetchError::Write {
            file: file.to_owned(),
            reason: error.to_string(),
        })
    }

    pub(super) fn renewed(&self, file: &str, expires_at: Option<Timestamp>, now: Timestamp) {
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

    /// Files could not be renewed, all for one reason.
    pub(super) fn failed(&self, files: &[String], trouble: &FetchError) {
        let now = self.clock.now();
        let mut news = false;
        for file in files {
            news |= self.health.failed(file, trouble, now);
        }
        let level = if news { Level::Warn } else { Level::Debug };
        let fields = [("file", &*files.join(" ")), ("reason", trouble.label())];
        self.log(level, &trouble.to_string(), &fields);
    }

    /// The time of the next try. Fails only with `once`, if trying again can't help.
    pub(super) fn after_failure(
        &self,
        files: &[String],
        trouble: FetchError,
        failures: u32,
        expires_at: Option<Timestamp>,
    ) -> Result<Timestamp, Error> {
        self.failed(files, &trouble);
        let kind = trouble.kind();
        if self.config.once && kind == Kind::Rejected {
            return Err(Error::Rejected(trouble));
        }
        let now = self.clock.now();
        let left = expires_at.map(|end| end.duration_since(now));
        let left = left.filter(SignedDuration::is_positive);
        let wait = retry::wait(kind, failures, left, random());
        Ok(later(now, retry::after(trouble.retry_after(), wait)))
    }

    pub(super) fn log(&self, level: Level, message: &str, fields: &[(&str, &str)]) {
        self.config.log.event(self.clock.now(), level, message, fields);
    }
}
