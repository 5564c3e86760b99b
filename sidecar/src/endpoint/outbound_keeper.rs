//! The task that keeps one token for a third party, which AWS signs for the role of a container.
//!
//! It asks with the credentials that the container's keeper has, writes the token to a file that this container alone mounts, and leaves the
//! old one where it is while no new one can be had. A definite refusal is remembered for 60 to 90 s.

use std::future::pending;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokenscope_aws::{AssumedRole, RegionChoice};
use tokio::sync::watch;

use super::error::NotTaken;
use super::kept::RenewalError;
use super::outbound_schedule::{Due, lifetime, next, wider};
use super::outbound_settings::OutboundSettings;
use super::settings::ContainerSettings;
use super::state_file;
use super::sts_client::StsClient;
use crate::clock::{Clock, SETTLING, Woken, later};
use crate::directory::{Directory, Readers};
use crate::log::{Level, Log};
use crate::random::random;
use crate::retry;
use crate::token::Token;

/// The session of a container's last role; `None` while there is none.
pub(super) type Session = Option<Arc<AssumedRole>>;

/// The keeper of one token for a third party.
pub(super) struct OutboundKeeper<C> {
    pub(super) container: ContainerSettings,
    pub(super) token: OutboundSettings,
    /// The container's folder, where the state is left for the probe.
    pub(super) folder: Directory,
    pub(super) client: Arc<StsClient>,
    pub(super) clock: Arc<C>,
    pub(super) log: Log,
    pub(super) session: watch::Receiver<Session>,
}

/// The state of the token.
#[derive(Default)]
struct KnownToken {
    end: Option<Timestamp>,
    trouble: Option<RenewalError>,
    /// How much earlier than usual a token is to end before its session. It grows whenever AWS finds a token too long, as it does where the clock
    /// of this node is slow.
    margin: SignedDuration,
}

impl<C: Clock> OutboundKeeper<C> {
    /// Asks as soon as there is a session, and then whenever it is time. It doesn't end.
    pub(super) async fn keep(mut self) {
        let mut regions = RegionChoice::new(self.container.endpoints.len());
        let mut held = KnownToken::default();
        let mut failures = 0;
        loop {
            let session = self.session().await;
            let now = self.clock.now();
            let wanted = self.token.duration_seconds;
            // Only a session from thousands of years ago has no such time.
            let ends = session.expires_at.checked_sub(held.margin).unwrap_or(now);
            let due = match lifetime(wanted, ends, held.end, now) {
                None => Due::WithNextSession,
                Some(seconds) => match self.renew(&session, seconds, &mut regions).await {
                    Ok(end) => {
                        failures = 0;
                        self.renewed(&mut held, end, session.expires_at)
                    }
                    Err(error) => {
                        failures += 1;
                        if error.is_too_long_for_session() {
                            held.margin = wider(held.margin);
                        }
                        self.failed(&mut held, &error, failures)
                    }
                },
            };
            self.wait_until(due).await;
        }
    }

    /// The session of now, waited for where there is none.
    async fn session(&mut self) -> Arc<AssumedRole> {
        loop {
            let session = self.session.borrow_and_update().clone();
            match session {
                Some(session) => return session,
                None => another(&mut self.session).await,
            }
        }
    }

    /// Asks for a token and puts it in its file, which is touched only by one that is valid now, for its audience alone and no longer than the
    /// session; gives its end.
    async fn renew(
        &self,
        session: &AssumedRole,
        seconds: u32,
        regions: &mut RegionChoice,
    ) -> Result<Timestamp, NotTaken> {
        let now = || self.clock.now();
        let asking = self.client.web_identity_token(
            &self.container,
            (&self.token, seconds),
            &session.credentials,
            regions,
            &now,
        );
        let given = asking.await?;
        let unfit = |reason: &str| NotTaken::Unfit {
            token: self.token.name.as_str().into(),
            reason: reason.into(),
        };
        let token = Token::parse(given.token.expose()).map_err(|error| unfit(&error.to_string()))?;
        let is_for_it_alone = match &*token.audiences {
            [audience] => **audience == *self.token.audience.as_str(),
            _ => false,
        };
        if !is_for_it_alone {
            return Err(unfit("it is not for its audience alone"));
        }
        let now = self.clock.now();
        if token.expires_at <= now {
            return Err(unfit("it has ended already: is the clock of this node wrong?"));
        }
        // Both times are by the clock of AWS.
        if token.expires_at > session.expires_at {
            return Err(unfit("it would outlast the role's session"));
        }
        if self.session.borrow().is_none() {
            return Err(unfit("the grant was withdrawn meanwhile"));
        }
        let file = self.token.file.to_string_lossy();
        let written = self.folder.replace(&file, token.secret().as_bytes(), Readers::All);
        written.map_err(|error| NotTaken::NotWritten {
            token: self.token.name.as_str().into(),
            reason: format!("{file}: {error}").into(),
        })?;
        Ok(token.expires_at)
    }

    fn renewed(&self, held: &mut KnownToken, end: Timestamp, session_ends: Timestamp) -> Due {
        let (first, after_trouble) = (held.end.is_none(), held.trouble.is_some());
        held.end = Some(end);
        held.trouble = None;
        self.tell(held);
        let (level, message) = match (first, after_trouble) {
            (true, _) => (Level::Info, "the token for a third party is there"),
            (false, true) => (Level::Info, "the token for a third party was renewed after trouble"),
            (false, false) => (Level::Debug, "the token for a third party was renewed"),
        };
        self.event(level, message, &[("until", &format!("{end:.0}"))]);
        next(self.clock.now(), end, session_ends, random())
    }

    fn failed(&self, held: &mut KnownToken, error: &NotTaken, failures: u32) -> Due {
        let mut trouble = error.trouble();
        if let Some(remedy) = error.remedy() {
            trouble.message = [&*trouble.message, ": ", remedy].concat().into();
        }
        let message = trouble.message.clone();
        let is_news = trouble.is_news_after(held.trouble.as_ref());
        held.trouble = Some(trouble);
        if is_news {
            self.tell(held);
        }
        let level = if is_news { Level::Warn } else { Level::Debug };
        self.event(level, &message, &[]);
        let now = self.clock.now();
        let left = held.end.map(|end| end.duration_since(now));
        let left = left.filter(SignedDuration::is_positive);
        let wait = retry::wait(error.kind(), failures, left, random());
        Due::AtOrWithNextSession(later(now, wait))
    }

    async fn wait_until(&mut self, due: Due) {
        let woken = match due {
            Due::At(time) => self.clock.wait_until(time).await,
            Due::WithNextSession => return another(&mut self.session).await,
            Due::AtOrWithNextSession(time) => tokio::select! {
                woken = self.clock.wait_until(time) => woken,
                () = another(&mut self.session) => return,
            },
        };
        if woken == Woken::ClockWasSet {
            tokio::time::sleep(SETTLING).await;
        }
    }

    /// Leaves the state where the probe finds it.
    fn tell(&self, held: &KnownToken) {
        let text = state_file::text(held.end, held.trouble.as_ref());
        let file = state_file::of_token(&self.token.name);
        if let Err(error) = self.folder.replace(&file, text.as_bytes(), Readers::Owner) {
            let message = format!("can't write the state for the probe: {error}");
            self.event(Level::Warn, &message, &[]);
        }
    }

    fn event(&self, level: Level, message: &str, more: &[(&str, &str)]) {
        let mut fields = vec![
            ("container", &*self.container.name),
            ("token", self.token.name.as_str()),
            ("role", self.container.last_role().as_str()),
        ];
        fields.extend_from_slice(more);
        self.log.event(self.clock.now(), level, message, &fields);
    }
}

/// Waits until there is another session, or none any more.
async fn another(session: &mut watch::Receiver<Session>) {
    if session.changed().await.is_err() {
        // The keeper of the credentials has ended, and so does the process.
        pending::<()>().await;
    }
}
