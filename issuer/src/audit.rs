//! One line in the log for each token that was issued or refused, with the target `audit`.
//!
//! Every issued token has its line, because the number of tokens of a pod is bounded. Lines about refusals are bounded for each
//! pod and each address, because a refused caller can repeat its request at will. Lines that are left out are counted in a metric, and reported in one line
//! from time to time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use tokenscope_core::{Audience, PolicyName};
use tokenscope_platform::tls::Peer;

use crate::buckets::Buckets;
use crate::exchange::Issued;
use crate::metrics::ExchangeOutcome;
use crate::subject_token::Caller;

/// The refusals of one source that are written at once, and a second for long.
const LINES: (u16, u16) = (20, 1);
/// The time between two lines about what was not written.
const SUMMARY: Duration = Duration::from_secs(60);

/// The facts about the request that a line has.
#[derive(Default)]
pub struct AuditRecord {
    /// The audience that was asked for, as soon as it was read.
    pub audience: Option<Audience>,
    /// The pod, as soon as it was proven.
    pub caller: Option<Caller>,
    /// The policy that grants the token, as soon as one was decided on.
    pub policy: Option<PolicyName>,
    /// True if pod and namespace kept within their limits.
    pub within_limits: bool,
}

/// Writes the lines.
#[derive(Debug)]
pub struct AuditLog {
    refusals: Buckets,
    left_out: Mutex<SuppressedLines>,
    /// All refusals that were not written.
    suppressed: Counter,
}

#[derive(Debug)]
struct SuppressedLines {
    lines: u64,
    told: Instant,
}

impl AuditLog {
    /// A log in which nothing was written yet. What is left out is counted in `suppressed`.
    pub fn new(suppressed: Counter, now: Instant) -> Self {
        Self {
            refusals: Buckets::new(LINES.0, LINES.1, now),
            left_out: Mutex::new(SuppressedLines { lines: 0, told: now }),
            suppressed,
        }
    }

    /// A token was issued.
    pub fn issued(&self, record: &AuditRecord, issued: &Issued, peer: Option<Peer>) {
        self.tell_left_out(0, Instant::now());
        let token = (issued.id.as_str(), &*issued.subject, Some(&issued.policy));
        write(record, ExchangeOutcome::Issued, token, peer, "");
    }

    /// None was. The subject is that of the pod's own token, which proved it; what proves nothing names nobody. The policy is the one
    /// that was decided on. Where none grants the token, the line names none, and the reason says which policies stood against it.
    pub fn refused(
        &self,
        record: &AuditRecord,
        outcome: ExchangeOutcome,
        peer: Option<Peer>,
        reason: impl FnOnce() -> String,
    ) {
        let now = Instant::now();
        let taken = match &record.caller {
            Some(caller) => self.refusals.take(&caller.pod_uid, now),
            None => self.refusals.take(&peer, now),
        };
        let is_written = taken.is_some();
        self.tell_left_out(u64::from(!is_written), now);
        if is_written {
            let subject = record.caller.as_ref().map(Caller::user_name).unwrap_or_default();
            let token = ("", subject.as_str(), record.policy.as_ref());
            write(record, outcome, token, peer, &reason());
        } else {
            self.suppressed.inc();
        }
    }

    fn tell_left_out(&self, more: u64, now: Instant) {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        left_out.lines += more;
        if left_out.lines == 0 || now.saturating_duration_since(left_out.told) < SUMMARY {
            return;
        }
        tracing::warn!(
            target: "audit",
            refusals = left_out.lines,
            "refused exchanges have no line here, since their sources had too many: see the metric issuer_audit_suppressed"
        );
        *left_out = SuppressedLines { lines: 0, told: now };
    }
}

fn write(
    record: &AuditRecord,
    outcome: ExchangeOutcome,
    (jti, subject, policy): (&str, &str, Option<&PolicyName>),
    peer: Option<Peer>,
    reason: &str,
) {
    let caller = record.caller.as_ref();
    let text = |field: fn(&Caller) -> &str| caller.map(field).unwrap_or_default();
    let audience = record.audience.as_ref().map_or("", Audience::as_str);
    let peer = peer.map(|Peer(address)| address.to_string()).unwrap_or_default();
    let policy = policy.map(ToString::to_string).unwrap_or_default();
    tracing::info!(
        target: "audit",
        outcome = outcome.as_str(),
        jti,
        subject,
        policy,
        audience,
        namespace = text(|caller| &caller.namespace),
        service_account = text(|caller| &caller.service_account),
        pod = text(|caller| &caller.pod),
        pod_uid = text(|caller| &caller.pod_uid),
        peer,
        reason,
        "exchange"
    );
}
