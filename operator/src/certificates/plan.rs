//! Which step the certificates need next: a state machine over public facts, without keys, clock or network.
//!
//! A rotation of the certificate authority goes: a new one signs from now on and is trusted beside the old one → the API
//! servers' configuration shows that they trust it, and they get time to notice → the serving certificate is signed by it
//! → webhooks get time to take that up → the old one is no longer trusted. At no moment does a webhook show a certificate
//! that an API server doesn't trust; only where somebody asks that the old one be distrusted at once, there is such a moment.

use jiff::{SignedDuration, Timestamp};
use std::{fmt, time::Duration};

/// Certificates begin this long before they are made, for machines whose clocks are behind.
pub(crate) const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// How long nothing is looked at without an event: a machine may have slept, or its clock been set.
const POLL: SignedDuration = SignedDuration::from_mins(1);

/// How long certificates live, and how long others get to notice a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    authority_lifetime: SignedDuration,
    serving_lifetime: SignedDuration,
    overlap: SignedDuration,
}

impl Settings {
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
        Validity::of(now, now + self.authority_lifetime)
    }

    /// The life of a serving certificate made at `now`, which does not outlive its authority.
    pub(crate) fn serving_validity(&self, now: Timestamp, authority: Validity) -> Validity {
        Validity::of(now, (now + self.serving_lifetime).min(authority.not_after))
    }
}

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    /// [`CLOCK_SKEW`] before it was made.
    pub(crate) not_before: Timestamp,
    /// Its end.
    pub(crate) not_after: Timestamp,
}

impl Validity {
    fn of(made: Timestamp, not_after: Timestamp) -> Self {
        Self {
            not_before: made - CLOCK_SKEW,
            not_after,
        }
    }

    /// When it was made.
    pub(crate) fn made(self) -> Timestamp {
        self.not_before + CLOCK_SKEW
    }

    /// When it is to be replaced: after two thirds of its life.
    pub(crate) fn due(self) -> Timestamp {
        self.made() + self.made().duration_until(self.not_after) * 2 / 3
    }

    /// Whether it is valid at `now`.
    pub(crate) fn covers(self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// The certificate authority that signs, or why none can.
    pub(crate) authority: Result<Validity, Reason>,
    /// The names that it may sign for.
    pub(crate) constraint: Constraint,
    /// Whether somebody asked for a new one.
    pub(crate) authority_requested: bool,
    /// Whether somebody asked that no older one be trusted any more, at once.
    pub(crate) distrust_requested: bool,
    /// The certificates in the trust bundle.
    pub(crate) bundle: Bundle,
    /// The serving certificate, or why it can't be used.
    pub(crate) serving: Result<Serving, Reason>,
    /// Whether somebody asked for a new one.
    pub(crate) serving_requested: bool,
    /// Whether the serving Secret has the same trust bundle.
    pub(crate) bundle_is_copied: bool,
    /// Since when the API servers have been known to trust the authority; noted during a rotation only.
    pub(crate) trusted_since: Option<Timestamp>,
    /// Whether the API servers trust the authority now.
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
        /// How many.
        others: usize,
    },
}

/// A serving certificate that the bundle's authorities vouch for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Serving {
    /// Its life.
    pub(crate) validity: Validity,
    /// Whether the present authority signed it, not an older one.
    pub(crate) by_authority: bool,
    /// Whether it names exactly what it should.
    pub(crate) names_fit: bool,
}

/// What the API servers are told to trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// They are not told to call any webhook, so there is nobody to wait for.
    NoConfiguration,
    /// Not (only) the authority yet.
    NotYet,
    /// Every webhook's configuration has it.
    Confirmed,
}

/// Why a certificate is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
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
    /// It is for other names than it should be.
    OtherNames,
    /// An older authority signed it.
    NewAuthority,
}

impl Reason {
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
            Self::OtherNames => "it was for other names than it should be",
            Self::NewAuthority => "an older authority had signed it",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make a certificate authority, which signs from now on, and trust it beside those that were trusted.
    CreateAuthority(Reason),
    /// Take out of the bundle what can't be read or has expired, and put the authority in.
    RepairBundle,
    /// Sign a serving certificate.
    SignServing(Reason),
    /// Note that the API servers trust the authority.
    NoteTrust,
    /// Trust the authority only.
    DropOthers,
    /// Write the bundle into the serving Secret.
    CopyBundle,
    /// Nothing until then, or until something changes.
    Wait(Timestamp),
}

impl Step {
    /// Its name in metrics; none for one that changes nothing.
    pub(super) fn label(self) -> Option<&'static str> {
        match self {
            Self::CreateAuthority(_) => Some("create_ca"),
            Self::RepairBundle => Some("repair_bundle"),
            Self::SignServing(_) => Some("sign_serving"),
            Self::NoteTrust => Some("note_trust"),
            Self::DropOthers => Some("drop_old_ca"),
            Self::CopyBundle => Some("copy_bundle"),
            Self::Wait(_) => None,
        }
    }
}

/// The next step. Doing it and asking again ends in [`Step::Wait`].
pub(crate) fn next_step(state: &State, now: Timestamp, settings: &Settings) -> Step {
    // A leaked key can't wait for an overlap: until webhooks have their new certificate, asking pods are refused.
    if state.distrust_requested {
        return Step::CreateAuthority(Reason::Distrusted);
    }
    let authority = match state.authority {
        Ok(authority) => authority,
        Err(reason) => return Step::CreateAuthority(reason),
    };
    let Bundle::Sound { others } = state.bundle else {
        return Step::RepairBundle;
    };
    let serving = match state.serving {
        Ok(serving) => serving,
        // Nobody can be served with it as it is, so nothing is gained by waiting.
        Err(_) if state.constraint == Constraint::TooNarrow => return Step::CreateAuthority(Reason::OtherNames),
        Err(reason) => return Step::SignServing(reason),
    };
    if !state.bundle_is_copied {
        return Step::CopyBundle;
    }
    let poll = now + POLL;

    if !serving.by_authority {
        return take_up(state, now, settings);
    }
    if state.serving_requested {
        return Step::SignServing(Reason::Requested);
    }
    if !serving.names_fit && state.constraint != Constraint::TooNarrow {
        return Step::SignServing(Reason::OtherNames);
    }
    // One that ends with its authority is no better when made anew.
    let serving_due = (serving.validity.not_after < authority.not_after).then(|| serving.validity.due());
    if serving_due.is_some_and(|due| now >= due) {
        return Step::SignServing(Reason::Due);
    }
    if others > 0 {
        let taken_up = serving.validity.made() + settings.overlap;
        return if now >= taken_up {
            Step::DropOthers
        } else {
            Step::Wait(poll.min(taken_up))
        };
    }
    // A rotation begins only after the one before has ended.
    if state.authority_requested {
        return Step::CreateAuthority(Reason::Requested);
    }
    if state.constraint != Constraint::Exact {
        return Step::CreateAuthority(Reason::OtherNames);
    }
    if now >= authority.due() {
        return Step::CreateAuthority(Reason::Due);
    }
    Step::Wait(poll.min(authority.due()).min(serving_due.unwrap_or(Timestamp::MAX)))
}

/// A new authority signs once everybody has trusted it for the overlap.
fn take_up(state: &State, now: Timestamp, settings: &Settings) -> Step {
    let poll = now + POLL;
    match (state.trust, state.trusted_since) {
        (Trust::NotYet, _) => Step::Wait(poll),
        (_, None) => Step::NoteTrust,
        (_, Some(since)) if now >= since + settings.overlap => Step::SignServing(Reason::NewAuthority),
        (_, Some(since)) => Step::Wait(poll.min(since + settings.overlap)),
    }
}
