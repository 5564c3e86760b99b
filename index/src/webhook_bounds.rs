//! Bounds on what the webhook keeps of the cluster. They stand here because the operator tells in the status of policies where they are exceeded.

use std::time::Duration;

use crate::relist::MOST_PAUSE;
use crate::share::Share;

/// The age of a watch's last word beyond which a process is not ready and is asked for nothing: the default of `--watch-age-limit`.
const WATCH_AGE_LIMIT: Duration = Duration::from_secs(300);

/// The bounds of what the webhook keeps.
#[derive(Clone, Copy, Debug)]
pub struct WebhookBounds {
    /// All namespaces' labels together.
    pub namespaces: Share,
    /// The service accounts of one namespace.
    pub service_accounts: Share,
    /// The policies of one namespace.
    pub policies: Share,
    /// The policies of the cluster.
    pub cluster_policies: Share,
    /// All boundaries.
    pub boundaries: Share,
    /// The service accounts of all namespaces together, in bytes.
    pub service_account_room: usize,
    /// The policies of all namespaces together, in bytes: nobody's service accounts take their room.
    pub policy_room: usize,
}

impl WebhookBounds {
    /// The time for which a replica may still refuse pods after all fits again: it lists anew what it left out, after a pause that grows to
    /// ten minutes where one list follows another, and may hear of everything five minutes late.
    pub const REREAD: Duration = MOST_PAUSE.saturating_add(WATCH_AGE_LIMIT);
}

impl Default for WebhookBounds {
    /// All that is kept takes at most 68 MiB, little more than half of what the chart allows the process; one namespace takes at most 15 MiB.
    ///
    /// Measured as resident memory: 50,000 annotated service accounts take 11.3 MiB, a share full of annotations of 2 KiB takes
    /// 12.0 MiB, and a share full of policies at most 2.5 MiB.
    fn default() -> Self {
        Self {
            // 10,000 namespaces, Kubernetes' own limit, with a kilobyte of labels each.
            namespaces: Share {
                objects: usize::MAX,
                bytes: 12 << 20,
            },
            // 50,000 annotated service accounts, each with an ARN of 66 bytes.
            service_accounts: Share {
                objects: usize::MAX,
                bytes: 12 << 20,
            },
            // A thousand policies of ordinary size.
            policies: Share {
                objects: 1000,
                bytes: 3 << 20,
            },
            cluster_policies: Share {
                objects: 1000,
                bytes: 4 << 20,
            },
            boundaries: Share {
                objects: 1000,
                bytes: 4 << 20,
            },
            service_account_room: 36 << 20,
            policy_room: 12 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relist::RelistTimer;

    #[test]
    fn the_longest_pause_before_a_list_is_that_of_the_timer_that_the_webhook_follows_its_watches_with() {
        let timer = format!("{:?}", RelistTimer::default());
        assert!(timer.contains(&format!("most: {MOST_PAUSE:?},")), "{timer}");
    }
}
