//! The task that keeps the credentials of one container.
//!
//! There is one for each container and nothing else asks STS, so however many requests come, one call is made at a time.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokenscope_aws::{AssumedRole, RegionChoice};
use tokio::sync::watch;

use super::error::NotTaken;
use super::kept::{FailureKind, Kept, RenewalError, ServedCredentials};
use super::outbound_keeper::Session;
use super::schedule::renewal;
use super::settings::ContainerSettings;
use super::state_file::{self, STATE_FILE};
use super::sts_client::StsClient;
use crate::clock::{Clock, SETTLING, Woken, later};
use crate::directory::{Directory, Readers};
use crate::health::Health;
use crate::log::{Level, Log};
use crate::random::random;
use crate::retry;

/// The longest wait for a token that is not in its file yet: whoever writes it may be a moment behind.
const TOKEN_WAIT: Duration = Duration::from_secs(1);

/// The token's file as this sidecar itself keeps it, with tokens of an issuer that may withdraw its grant.
pub(super) struct KeptToken {
    pub(super) health: Arc<Health>,
    /// The file's name there.
    pub(super) file: String,
}

/// The keeper of one container's credentials.
pub(super) struct Keeper<C> {
    pub(super) container: ContainerSettings,
    pub(super) folder: Directory,
    pub(super) client: Arc<StsClient>,
    pub(super) clock: Arc<C>,
    pub(super) log: Log,
    pub(super) kept: watch::Sender<Kept>,
    /// `None` where nobody withdraws the grant of the token.
    pub(super) token: Option<KeptToken>,
    /// The task that asks for tokens with the credentials, if there is one.
    pub(super) session: Option<watch::Sender<Session>>,
}

/// The identity of a token's file, by which another file in its place is noticed; the default where there is none.
#[derive(Debug, Default, PartialEq, Eq)]
struct FileState {
    inode: u64,
    /// Seconds since 1970, and nanoseconds.
    modified: (i64, i64),
}

impl FileState {
    fn of(path: &Path) -> Self {
        let metadata = fs::metadata(path);
        metadata.map_or_else(
            |_| Self::default(),
            |metadata| Self {
                inode: metadata.ino(),
                modified: (metadata.mtime(), metadata.mtime_nsec()),
            },
        )
    }
}

/// The next step.
enum Next {
    /// Ask STS.
    Ask,
    /// The grant was withdrawn.
    Withdrawn(String),
}

impl<C: Clock> Keeper<C> {
    /// Asks at once, and then whenever it is time. It doesn't end.
    pub(super) async fn keep(self) {
        let mut regions = RegionChoice::new(self.container.endpoints.len());
        let mut failures = 0;
        loop {
            if let Some(why) = self.withdrawn() {
                self.drop_credentials(&why);
                self.until_granted().await;
                continue;
            }
            let shown = FileState::of(&self.container.token_file);
            let (next, refused) = match self.renew(&mut regions).await {
                Ok(taken) => {
                    failures = 0;
                    (self.renewed(taken), None)
                }
                Err(error) => {
                    failures += 1;
                    let next = self.failed(&error, failures);
                    (next, error.is_about_token().then_some(shown))
                }
            };
            match self.wait_until(next, refused).await {
                Next::Ask => {}
                Next::Withdrawn(why) => self.drop_credentials(&why),
            }
        }
    }

    async fn renew(&self, regions: &mut RegionChoice) -> Result<AssumedRole, NotTaken> {
        // A token that a process before has left may be of a grant that was withdrawn since.
        if let Some(token) = self
            .token
            .as_ref()
            .filter(|token| !token.health.was_written(&token.file))
        {
            return Err(NotTaken::Token {
                path: self.container.token_file.clone(),
                reason: token.health.reason(&token.file),
            });
        }
        let now = || self.clock.now();
        let taken = self.client.take(&self.container, regions, &now).await?;
        let now = self.clock.now();
        if taken.expires_at <= now {
            let seconds = now.duration_since(taken.expires_at).as_secs();
            return Err(NotTaken::Expired { seconds });
        }
        Ok(taken)
    }

    /// Takes new credentials; gives the time of their renewal.
    fn renewed(&self, taken: AssumedRole) -> Timestamp {
        let credentials = ServedCredentials::new(&taken, self.container.last_role());
        let now = self.clock.now();
        let next = renewal(now, credentials.expires_at, random());
        let (first, after_trouble) = {
            let kept = self.kept.borrow();
            (kept.expires_at().is_none(), kept.trouble().is_some())
        };
        self.kept.send_modify(|kept| kept.renewed(credentials));
        if let Some(session) = &self.session {
            session.send_replace(Some(Arc::new(taken)));
        }
        self.tell();
        let (level, message) = match (first, after_trouble) {
            (true, _) => (Level::Info, "credentials are there"),
            (false, true) => (Level::Info, "credentials were renewed after trouble"),
            (false, false) => (Level::Debug, "credentials were renewed"),
        };
        self.event(level, message, &[("next", &format!("{next:.0}"))]);
        next
    }

    /// Takes note of a failure; gives the time of the next try.
    fn failed(&self, error: &NotTaken, failures: u32) -> Timestamp {
        self.trouble(error.trouble());
        let now = self.clock.now();
        let left = self.kept.borrow().expires_at().map(|end| end.duration_since(now));
        let wait = retry::wait(
            error.kind(),
            failures,
            left.filter(SignedDuration::is_positive),
            random(),
        );
        let wait = if error.is_about_token_file() {
            wait.min(TOKEN_WAIT)
        } else {
            wait
        };
        later(now, wait)
    }

    fn trouble(&self, trouble: RenewalError) {
        let message = trouble.message.clone();
        let mut news = false;
        self.kept.send_modify(|kept| news = kept.failed(trouble));
        if news {
            self.tell();
        }
        let level = if news { Level::Warn } else { Level::Debug };
        self.event(level, &message, &[]);
    }

    /// The issuer's words, if it refused the exchange for the container's token.
    fn withdrawn(&self) -> Option<String> {
        let token = self.token.as_ref()?;
        token.health.withdrawn(&token.file)
    }

    fn drop_credentials(&self, why: &str) {
        if let Some(session) = &self.session {
            session.send_replace(None);
        }
        self.trouble(RenewalError {
            kind: FailureKind::Withdrawn,
            code: "GrantWithdrawn".into(),
            message: why.into(),
        });
    }

    /// Waits until the issuer grants the token again.
    async fn until_granted(&self) {
        let Some(token) = &self.token else {
            return;
        };
        let mut changes = token.health.changes();
        while token.health.withdrawn(&token.file).is_some() {
            // It can't fail: `token.health` holds the sender.
            let _ = changes.changed().await;
        }
    }

    /// Waits until another token is in the place of one that AWS refused.
    async fn until_replaced(&self, refused: Option<FileState>) {
        let Some(refused) = refused else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(TOKEN_WAIT).await;
            if FileState::of(&self.container.token_file) != refused {
                return;
            }
        }
    }

    /// Waits for a time, unless the clock is set, the grant withdrawn or the token that AWS refused replaced before it.
    async fn wait_until(&self, next: Timestamp, refused: Option<FileState>) -> Next {
        let withdrawn = async {
            let Some(token) = &self.token else {
                return std::future::pending().await;
            };
            let mut changes = token.health.changes();
            loop {
                if let Some(why) = token.health.withdrawn(&token.file) {
                    return why;
                }
                let _ = changes.changed().await; // as above
            }
        };
        tokio::select! {
            woken = self.clock.wait_until(next) => {
                if woken == Woken::ClockWasSet {
                    self.event(Level::Warn, "the clock was set: asking for credentials by the new time", &[]);
                    tokio::time::sleep(SETTLING).await;
                }
                Next::Ask
            }
            why = withdrawn => Next::Withdrawn(why),
            () = self.until_replaced(refused) => Next::Ask,
        }
    }

    /// Leaves the state where the probe finds it.
    fn tell(&self) {
        let text = {
            let kept = self.kept.borrow();
            state_file::text(kept.expires_at(), kept.trouble())
        };
        if let Err(error) = self.folder.replace(STATE_FILE, text.as_bytes(), Readers::Owner) {
            let message = format!("can't write the state for the probe: {error}");
            self.event(Level::Warn, &message, &[]);
        }
    }

    fn event(&self, level: Level, message: &str, more: &[(&str, &str)]) {
        let mut fields = vec![
            ("container", &*self.container.name),
            ("role", self.container.last_role().as_str()),
        ];
        fields.extend_from_slice(more);
        self.log.event(self.clock.now(), level, message, &fields);
    }
}
