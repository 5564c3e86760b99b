//! The times when a kind is listed anew, since what was left out of it may fit now.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The time until a new list is made after one was asked for: short enough for somebody who has deleted something and looks again.
const LEAST_PAUSE: Duration = Duration::from_secs(10);
/// The time between two lists where one after another is asked for: somebody may keep a namespace at the edge of its share, and a list
/// is of all namespaces.
pub(crate) const MOST_PAUSE: Duration = Duration::from_secs(600);

/// The time of the next list. The pause before it doubles from the least to the most, and is the least again after a rest.
#[derive(Clone, Copy, Debug)]
pub struct RelistTimer {
    least: Duration,
    most: Duration,
    pause: Duration,
    at: Option<Instant>,
    last: Option<Instant>,
}

impl Default for RelistTimer {
    fn default() -> Self {
        Self::new(LEAST_PAUSE, MOST_PAUSE)
    }
}

impl RelistTimer {
    /// No list is asked for yet.
    pub fn new(least: Duration, most: Duration) -> Self {
        Self {
            least,
            most,
            pause: least,
            at: None,
            last: None,
        }
    }

    /// Notes whether a list is wanted.
    pub(crate) fn note(&mut self, wanted: bool, now: Instant) {
        if !wanted {
            self.at = None;
        } else if self.at.is_none() {
            if self.last.is_none_or(|last| now - last > self.most) {
                self.pause = self.least;
            }
            self.at = Some(now + self.pause);
        }
    }

    /// Waits until a list is due, for ever if none is.
    pub(crate) async fn due(&self) {
        match self.at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// A list begins.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.at = None;
        self.last = Some(now);
        self.pause = (self.pause * 2).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_stays_over_its_share_makes_new_lists_rarer_and_rarer() {
        let began = Instant::now();
        let (mut relist, mut now, mut lists) = (RelistTimer::default(), began, Vec::new());
        while now - began < Duration::from_secs(7200) {
            relist.note(true, now);
            now = relist.at.unwrap();
            relist.begin(now);
            lists.push((now - began).as_secs());
        }
        assert_eq!(lists[..4], [10, 30, 70, 150]);
        assert!(lists.len() <= 18, "{lists:?}");

        now += MOST_PAUSE + Duration::from_secs(1);
        relist.note(true, now);
        assert_eq!(relist.at, Some(now + LEAST_PAUSE), "after a rest the first comes soon");
    }
}
