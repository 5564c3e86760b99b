//! The task that keeps one token fresh.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::Error;
use super::shared::Sidecar;
use crate::bundle::JwtBundles;
use crate::clock::{Clock, SETTLING, Woken, later};
use crate::config::SharedToken;
use crate::directory::Readers;
use crate::fetch_error::FetchError;
use crate::log::Level;
use crate::random::random;
use crate::refresh::CachedToken;
use crate::token::Token;

/// The time between two questions whether the issuer's grant stands, where credentials are served that would outlast it; and how much later at most,
/// so that pods which started together don't ask together.
const GRANT_CHECK: (Duration, Duration) = (Duration::from_secs(55), Duration::from_secs(5));

/// Keeps one token fresh in all its files. It ends only with `once`.
pub(super) async fn keep_token<C: Clock>(sidecar: Arc<Sidecar<C>>, wanted: SharedToken) -> Result<(), Error> {
    let mut bundles = sidecar.bundles.subscribe();
    let mut held: Option<CachedToken> = None;
    let mut key = SigningKey::default();
    let mut failures = 0;
    loop {
        let answer = sidecar.renew_token(&wanted).await;
        let now = sidecar.clock.now();
        let next = match answer {
            Ok(token) => {
                if sidecar.config.once {
                    return Ok(());
                }
                failures = 0;
                if held.as_ref().is_none_or(|held| held.token != token) {
                    key = SigningKey::default();
                }
                let answered = match held.take() {
                    None => CachedToken::new(token, now, random()),
                    Some(held) => held.answered(token, now, random()),
                };
                sidecar.first_token.notify_one();
                let next = sidecar.no_later_than_check(answered.next(now, key.is_withdrawn), now);
                let fields = [("file", &*wanted.files.join(" ")), ("next", &format!("{next:.0}"))];
                sidecar.log(Level::Debug, "token written", &fields);
                held = Some(answered);
                next
            }
            Err(trouble) => {
                failures += 1;
                let expires_at = held.as_ref().map(|held| held.token.expires_at);
                sidecar.after_failure(&wanted.files, trouble, failures, expires_at)?
            }
        };
        let held = held.as_ref().map(|held| &held.token);
        sidecar.wait_until(next, &wanted, held, &mut key, &mut bundles).await;
    }
}

/// The state of the key that the present token is signed with.
#[derive(Default)]
struct SigningKey {
    was_published: bool,
    is_withdrawn: bool,
}

impl SigningKey {
    /// Takes in whether the key is among the published ones, as far as that is known. Returns whether it was withdrawn just now: a
    /// key that was never among them may be one that the agent learns of later.
    fn is_withdrawn_by(&mut self, is_published: Option<bool>) -> bool {
        let is_now = is_published == Some(false) && self.was_published && !self.is_withdrawn;
        self.is_withdrawn |= is_now;
        self.was_published |= is_published == Some(true);
        is_now
    }
}

impl<C: Clock> Sidecar<C> {
    /// The time of the next question: sooner, where credentials are served and the source is one that can withdraw its grant.
    fn no_later_than_check(&self, next: Timestamp, now: Timestamp) -> Timestamp {
        if self.config.serves_credentials() && self.source.can_withdraw() {
            let check = later(now, GRANT_CHECK.0 + GRANT_CHECK.1.mul_f64(random()));
            return next.min(check);
        }
        next
    }

    /// Waits until another token is to be asked for: at `next`, once the clock was set, or once the key of the present token is
    /// withdrawn.
    async fn wait_until(
        &self,
        next: Timestamp,
        wanted: &SharedToken,
        token: Option<&Token>,
        key: &mut SigningKey,
        bundles: &mut watch::Receiver<JwtBundles>,
    ) {
        let warn = |message| self.log(Level::Warn, message, &[("file", &wanted.files.join(" "))]);
        loop {
            let published = token.map(|token| bundles.borrow_and_update().have_key_of(token));
            if published.is_some_and(|published| key.is_withdrawn_by(published)) {
                return warn("the key of the token was withdrawn: asking for another one");
            }
            tokio::select! {
                woken = self.clock.wait_until(next) => {
                    if woken == Woken::ClockWasSet {
                        warn("the clock was set: asking for a token by the new time");
                        tokio::time::sleep(SETTLING).await;
                    }
                    return;
                }
                // The sender is in what all tasks share.
                _ = bundles.changed() => {}
            }
        }
    }

    /// Asks for a token and puts it in its files. They are touched only by a token that is valid now.
    async fn renew_token(&self, wanted: &SharedToken) -> Result<Token, FetchError> {
        let asking = self.source.token(&wanted.audience);
        let token = self.with_progress(&wanted.files, asking).await?;
        let provider = self.source.provider();
        let mut audiences = token.audiences.iter();
        if !audiences.any(|audience| **audience == *wanted.audience.as_str()) {
            return Err(FetchError::OtherAudience(provider));
        }
        let now = self.clock.now();
        if token.expires_at <= now {
            let seconds = now.duration_since(token.expires_at).as_secs();
            return Err(FetchError::Expired { provider, seconds });
        }
        for file in &wanted.files {
            self.write(file, token.secret().as_bytes(), Readers::All)?;
            self.renewed(file, Some(token.expires_at), now);
        }
        Ok(token)
    }
}
