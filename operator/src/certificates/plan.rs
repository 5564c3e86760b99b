//! The next step of the certificates: a state machine over public facts, without keys, clock or network.
//!
//! The steps of a rotation of the certificate authority: a new one signs from now on and is trusted beside the old one → the API
//! servers' configuration shows that they trust it, and they get time to notice → the serving certificate is signed by it
//! → webhooks get time to take that up → the old one is no longer trusted. At no moment does a webhook show a certificate
//! that an API server doesn't trust; only where somebody asks that the old one be distrusted at once, there is such a moment.
//!
//! The issuer's authority takes the same steps, with pods in place of API servers. They can't be told of a new one, so no step waits
//! for them: the old one signs a certificate for the new one, and the serving certificate comes with that one (ADR 19).

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokenscope_platform::certificate::{UnusablePair, Validity};

/// Certificates begin this long before they are made, for machines whose clocks are behind.
pub(crate) const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// The longest time without a look where no event comes: a machine may have slept, or its clock been set.
const POLL: SignedDuration = SignedDuration::from_mins(1);

/// The lifetimes of certificates, and the time that others get to notice a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RotationSettings {
    authority_lifetime: SignedDuration,
    serving_lifetime: SignedDuration,
    overlap: SignedDuration,
}

impl RotationSettings {
    /// The overlap is cut so that both waits of a rotation fit between its beginning, at two thirds of the authority's life,
    /// and the authority's end.
    pub(crate) fn new(authority_lifetime: Duration, serving_lifetime: Duration, overlap: Duration) -> Self {
        // A hundred years: what X.509 can still write, and sums can't overflow.
        const MOST: SignedDuration = SignedDuration::from_hours(100 * 365 * 24);
        // Shorter ones would end before anybody has taken them up.
        const LEAST: SignedDuration = SignedDuration::from_secs(10);
        let whole = |duration: Duration| SignedDuration::try_from(duration).unwrap_or(MOST).min(MOST);
        let authority_lifetime = whole(authority_lifetime).max(LEAST);
        Self {
            authority_lifetime,
            serving_lifetime: whole(serving_lifetime).max(LEAST),
            overlap: whole(overlap).min(authority_lifetime / 9),
        }
    }

    /// The life of a certificate authority made at `now`.
    pub(crate) fn authority_validity(&self, now: Timestamp) -> Validity {
        validity(now, now + self.authority_lifetime)
    }

    /// The life of a serving certificate made at `now`, which does not outlive its authority.
    pub(crate) fn serving_validity(&self, now: Timestamp, authority: Validity) -> Validity {
        validity(now, (now + self.serving_lifetime).min(authority.not_after))
    }
}

fn validity(made: Timestamp, not_after: Timestamp) -> Validity {
    Validity {
        not_before: made - CLOCK_SKEW,
        not_after,
    }
}

/// The time when a certificate of ours was made: [`CLOCK_SKEW`] after its life begins.
pub(crate) fn made(validity: Validity) -> Timestamp {
    validity.not_before + CLOCK_SKEW
}

/// The time when a certificate of ours is to be replaced: after two thirds of its life.
fn due(validity: Validity) -> Timestamp {
    let made = made(validity);
    made + made.duration_until(validity.not_after) * 2 / 3
}

/// The state of the certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateState {
    /// The certificate authority that signs, or why none can.
    pub(crate) authority: Result<Validity, IssueReason>,
    /// The names that it may sign for.
    pub(crate) constraint: Constraint,
    /// True if somebody asked for a new one.
    pub(crate) authority_requested: bool,
    /// True if somebody asked that no older one be trusted any more, at once.
    pub(crate) distrust_requested: bool,
    /// The certificates in the trust bundle.
    pub(crate) bundle: Bundle,
    /// The serving certificate, or why it can't be used.
    pub(crate) serving: Result<ServingState, IssueReason>,
    /// True if somebody asked for a new one.
    pub(crate) serving_requested: bool,
    /// True if the serving Secret has the same trust bundle.
    pub(crate) bundle_is_copied: bool,
    /// True if the serving certificate comes with those by which older authorities vouch for the present one.
    pub(crate) chain_is_whole: bool,
    /// True if both Secrets say which certificates are distrusted.
    pub(crate) distrust_is_noted: bool,
    /// The time since which the API servers have been known to trust the authority; noted during a rotation only.
    pub(crate) trusted_since: Option<Timestamp>,
    /// The API servers' trust in the authority now.
    pub(crate) trust: Trust,
}

/// The names that an authority may sign for, beside those that the serving certificate should have (RFC 5280, 4.2.1.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Constraint {
    /// Just these.
    Exact,
    /// Others too: it is of a version before 0.2, or there are fewer names now.
    TooWide,
    /// Not all of these, so that a certificate of it would not be trusted.
    TooNarrow,
}

/// The trust bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bundle {
    /// The authority is missing, or something is in it that can't be read or has expired.
    Damaged,
    /// The authority, and this many older ones.
    Sound {
        /// The number of them.
        others: usize,
    },
}

/// A serving certificate that the bundle's authorities vouch for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServingState {
    /// Its life.
    pub(crate) validity: Validity,
    /// True if the present authority signed it, not an older one.
    pub(crate) by_authority: bool,
    /// True if it names exactly what it should.
    pub(crate) names_fit: bool,
}

/// The authority that the API servers are told to trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// They are not told to call any webhook, so there is nobody to wait for.
    NoConfiguration,
    /// Not (only) the authority yet.
    NotYet,
    /// Every webhook's configuration has it.
    Confirmed,
}

/// The reason why a certificate is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IssueReason {
    /// There is none.
    Missing,
    /// It or its key can't be read.
    Unreadable,
    /// Its key belongs to another certificate.
    KeyMismatch,
    /// Its time is over, or not yet come.
    NotValidNow,
    /// No authority in the bundle vouches for it.
    NotTrusted,
    /// Two thirds of its life are over.
    Due,
    /// Somebody asked for it by annotation.
    Requested,
    /// Somebody asked by annotation that nothing older be trusted, since a key has leaked.
    Distrusted,
    /// It was distrusted before, and came back.
    CameBack,
    /// It is for other names than it should be.
    OtherNames,
    /// An older authority signed it.
    NewAuthority,
    /// It came without those by which older authorities vouch for the present one.
    ChainBroken,
}

impl IssueReason {
    /// A sentence's end: "a new certificate was made since …".
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "there was none",
            Self::Unreadable => "it or its key could not be read",
            Self::KeyMismatch => "its key belonged to another certificate",
            Self::NotValidNow => "its time was over, or not yet come",
            Self::NotTrusted => "no trusted authority had signed it",
            Self::Due => "two thirds of its life were over",
            Self::Requested => "the annotation tokenscope.io/rotate asked for it",
            Self::Distrusted => "the annotation tokenscope.io/distrust asked that no older one be trusted",
            Self::CameBack => "it had been distrusted and came back, as from a backup",
            Self::OtherNames => "it was for other names than it should be",
            Self::NewAuthority => "an older authority had signed it",
            Self::ChainBroken => "the certificates by which older authorities vouch for the present one were missing",
        }
    }
}

impl From<UnusablePair> for IssueReason {
    fn from(unusable: UnusablePair) -> Self {
        match unusable {
            UnusablePair::Mismatch(_) => Self::KeyMismatch,
            UnusablePair::NotValidNow { .. } => Self::NotValidNow,
            UnusablePair::Chain(_) | UnusablePair::NoCertificate | UnusablePair::Certificate(_) | UnusablePair::Key => {
                Self::Unreadable
            }
        }
    }
}

impl fmt::Display for IssueReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertificateStep {
    /// Make a certificate authority, which signs from now on, and trust it beside those that were trusted.
    CreateAuthority(IssueReason),
    /// Take out of the bundle what can't be read or has expired, and put the authority in.
    RepairBundle,
    /// Sign a serving certificate.
    SignServing(IssueReason),
    /// Note that the API servers trust the authority.
    NoteTrust,
    /// Trust the authority only.
    DropOthers,
    /// Write the bundle into the serving Secret.
    CopyBundle,
    /// Write into a Secret which certificates are distrusted.
    NoteDistrust,
    /// Nothing until then, or until something changes.
    Wait(Timestamp),
}

impl CertificateStep {
    /// Its name in metrics; none for one that changes nothing.
    pub(super) fn label(self) -> Option<&'static str> {
        match self {
            Self::CreateAuthority(_) => Some("create_ca"),
            Self::RepairBundle => Some("repair_bundle"),
            Self::SignServing(_) => Some("sign_serving"),
            Self::NoteTrust => Some("note_trust"),
            Self::DropOthers => Some("drop_old_ca"),
            Self::CopyBundle => Some("copy_bundle"),
            Self::NoteDistrust => Some("note_distrust"),
            Self::Wait(_) => None,
        }
    }
}

/// The next step. Doing it and asking again ends in [`CertificateStep::Wait`].
pub(crate) fn next_step(state: &CertificateState, now: Timestamp, settings: &RotationSettings) -> CertificateStep {
    // A leaked key can't wait for an overlap: until webhooks have their new certificate, asking pods are refused.
    if state.distrust_requested {
        return CertificateStep::CreateAuthority(IssueReason::Distrusted);
    }
    let authority = match state.authority {
        Ok(authority) => authority,
        Err(reason) => return CertificateStep::CreateAuthority(reason),
    };
    let Bundle::Sound { others } = state.bundle else {
        return CertificateStep::RepairBundle;
    };
    let serving = match state.serving {
        Ok(serving) => serving,
        // Nobody can be served with it as it is, so nothing is gained by waiting.
        Err(_) if state.constraint == Constraint::TooNarrow => {
            return CertificateStep::CreateAuthority(IssueReason::OtherNames);
        }
        Err(reason) => return CertificateStep::SignServing(reason),
    };
    if !state.bundle_is_copied {
        return CertificateStep::CopyBundle;
    }
    if !state.distrust_is_noted {
        return CertificateStep::NoteDistrust;
    }
    let poll = now + POLL;

    if !serving.by_authority {
        return take_up(state, now, settings);
    }
    if state.serving_requested {
        return CertificateStep::SignServing(IssueReason::Requested);
    }
    if !state.chain_is_whole {
        return CertificateStep::SignServing(IssueReason::ChainBroken);
    }
    if !serving.names_fit && state.constraint != Constraint::TooNarrow {
        return CertificateStep::SignServing(IssueReason::OtherNames);
    }
    // One that ends with its authority is no better when made anew.
    let serving_due = (serving.validity.not_after < authority.not_after).then(|| due(serving.validity));
    if serving_due.is_some_and(|due| now >= due) {
        return CertificateStep::SignServing(IssueReason::Due);
    }
    if others > 0 {
        let taken_up = made(serving.validity) + settings.overlap;
        return if now >= taken_up {
            CertificateStep::DropOthers
        } else {
            CertificateStep::Wait(poll.min(taken_up))
        };
    }
    let next = poll.min(due(authority)).min(serving_due.unwrap_or(Timestamp::MAX));
    rotation_step(state, authority, now).unwrap_or(CertificateStep::Wait(next))
}

/// The beginning of the authority's rotation, if it is time for it. It begins only after the one before has ended.
fn rotation_step(state: &CertificateState, authority: Validity, now: Timestamp) -> Option<CertificateStep> {
    let reason = if state.authority_requested {
        IssueReason::Requested
    } else if state.constraint != Constraint::Exact {
        IssueReason::OtherNames
    } else if now >= due(authority) {
        IssueReason::Due
    } else {
        return None;
    };
    Some(CertificateStep::CreateAuthority(reason))
}

/// A new authority signs once everybody has trusted it for the overlap.
fn take_up(state: &CertificateState, now: Timestamp, settings: &RotationSettings) -> CertificateStep {
    let poll = now + POLL;
    match (state.trust, state.trusted_since) {
        (Trust::NotYet, _) => CertificateStep::Wait(poll),
        (_, None) => CertificateStep::NoteTrust,
        (_, Some(since)) if now >= since + settings.overlap => CertificateStep::SignServing(IssueReason::NewAuthority),
        (_, Some(since)) => CertificateStep::Wait(poll.min(since + settings.overlap)),
    }
}
