//! The task that follows the keys that tokens are signed with.

use std::sync::Arc;

use jiff::SignedDuration;
use tokenscope_core::sidecar::JWT_BUNDLE_FILE;

use super::Error;
use super::shared::Sidecar;
use super::source::SpiffeAgent;
use crate::bundle::JwtBundles;
use crate::clock::{Clock, later};
use crate::directory::Readers;
use crate::fetch_error::FetchError;
use crate::log::Level;
use crate::random::random;
use crate::retry;

/// Follows the keys that tokens are signed with, and writes them if wanted. It ends only with `once`.
pub(super) async fn keep_bundles<C: Clock>(sidecar: Arc<Sidecar<C>>, agent: Arc<SpiffeAgent>) -> Result<(), Error> {
    if !agent.settings.jwt_bundle {
        sidecar.first_token.notified().await; // before it, the agent would only say no once more
    }
    let mut failures = 0;
    loop {
        let Err(trouble) = sidecar.follow_bundles(&agent, &mut failures).await else {
            return Ok(());
        };
        failures += 1;
        let next = if agent.settings.jwt_bundle {
            sidecar.after_failure(&[JWT_BUNDLE_FILE.to_owned()], trouble, failures, None)?
        } else {
            sidecar.log(Level::Debug, &trouble.to_string(), &[]);
            let wait = retry::wait(trouble.kind(), failures, Some(SignedDuration::MAX), random());
            later(sidecar.clock.now(), wait)
        };
        sidecar.clock.wait_until(next).await;
    }
}

impl<C: Clock> Sidecar<C> {
    /// Follows the stream of keys. Ends well only with `once`.
    async fn follow_bundles(&self, agent: &SpiffeAgent, failures: &mut u32) -> Result<(), FetchError> {
        let mut stream = agent.client.jwt_bundles().await?;
        let mut first = true;
        loop {
            let message = stream.next(first).await?;
            let bundles = JwtBundles::read(&message.bundles)?;
            first = false;
            *failures = 0;
            if agent.settings.jwt_bundle {
                self.write_everywhere(JWT_BUNDLE_FILE, bundles.file(), Readers::All)?;
                self.renewed(JWT_BUNDLE_FILE, None, self.clock.now());
                if self.config.once {
                    return Ok(());
                }
            }
            self.bundles.send_replace(bundles);
        }
    }
}
