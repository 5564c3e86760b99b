//! The injection of a review into a pod: what the pod should carry, what it carries, and the difference as a patch.
//!
//! [`desired`] says what a decision gives the pod. [`actual`] finds what bears our names, and says what of it is ours.
//! [`conflicts`] are what is not, where ours must go. [`difference`] writes the patch from one to the other, with [`record`] for the
//! metadata. So a review of our own output gives no patch, whether the pod still has its record or not.

mod actual;
mod config_writer;
mod conflicts;
mod context;
mod desired;
mod difference;
mod list;
mod paths;
mod pieces;
mod place;
mod pull_secrets;
mod record;
mod sidecar;
mod warnings;
mod whole;

use std::borrow::Cow;

use tokenscope_core::annotations::Mark;
use tokenscope_core::bounds::MOST_RECORD_BYTES;
use tokenscope_core::{Decision, Enforcement, Granted, Untouched};

use crate::patch::Patch;
use actual::Actual;
use context::Context;
use desired::Desired;

pub use context::Reviewed;

/// The result of a review, and the changes of the pod.
#[derive(Debug)]
pub struct Injection {
    /// The verdict about the pod.
    pub verdict: Verdict,
    /// The patch's text; `None` where nothing changes.
    pub patch: Option<String>,
    /// Warnings for whoever creates the pod.
    pub warnings: Vec<String>,
    /// The names of token volumes that hold only what was decided just now, or go: the lock has no business with them.
    pub settled_volumes: Vec<Cow<'static, str>>,
}

/// The verdict about a pod, once its own volumes and mounts were looked at too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets no credentials, and nobody asked for any.
    Untouched(Untouched),
    /// It gets credentials.
    Granted,
    /// It may not have what it asks for.
    Refused {
        /// One sentence each; never empty.
        reasons: Vec<String>,
        /// Whether it is kept out, or admitted without credentials.
        enforcement: Enforcement,
    },
}

/// Says how a pod changes so that it carries what was decided about it.
///
/// `refused` says why nothing can be granted in the pod's namespace, if nothing can.
///
/// A pod whose own volume, mount or container stands where ours must go is refused although its role was granted: what we did not
/// put there is trusted only if it is exactly what we would write.
pub fn inject(reviewed: &Reviewed<'_>, decision: &Decision, refused: Option<String>) -> Injection {
    let context = Context::new(reviewed);
    // What nobody could look at may be what the pod asks by. A pod that opts out asks for nothing.
    if let Some(reason) = refused
        && !matches!(
            decision,
            Decision::Untouched(Untouched::OptedOut | Untouched::SkippedByLabel | Untouched::MirrorPod)
        )
    {
        return refuse(&context, vec![reason]);
    }
    match decision {
        Decision::Untouched(why) => leave_untouched(&context, why),
        Decision::Denied(denied) => refuse(&context, denied.sentences()),
        Decision::Granted(granted) => grant(&context, granted),
    }
}

fn grant<'a>(context: &Context<'a>, granted: &'a Granted) -> Injection {
    let desired = Desired::of(granted, context);
    let actual = Actual::of(context, &desired);
    let conflicts = conflicts::of_grant(context, &desired, &actual);
    if !conflicts.is_empty() {
        return refuse(context, conflicts);
    }
    let record = record::text(context, granted, &desired);
    if record.len() > MOST_RECORD_BYTES {
        return refuse(
            context,
            vec![format!(
                "the record of the grant would have {} bytes, and at most {MOST_RECORD_BYTES} are kept: use fewer labels or fewer annotations tokenscope.io/role-arn.<container>",
                record.len()
            )],
        );
    }
    let mut warnings = granted.warnings.clone();
    desired.warn(context, &mut warnings);
    // Variables are most of a patch: a container's five have 700 bytes with their mount, and the volume and the record as much.
    let mut patch = Patch::with_capacity(1024 * (desired.containers.len() + 1));
    difference::write(context, &desired, &actual, &mut patch);
    pull_secrets::write(context, &desired, &mut warnings, &mut patch);
    record::write(context, Some(record), Some(Mark::Granted), &mut patch);
    Injection {
        verdict: Verdict::Granted,
        patch: patch.finish(),
        warnings,
        settled_volumes: actual.settled(&desired),
    }
}

fn leave_untouched(context: &Context<'_>, why: &Untouched) -> Injection {
    if context.needs_mark() {
        let conflicts = conflicts::of_names(context, &Actual::of(context, &Desired::default()));
        if !conflicts.is_empty() {
            return refuse(context, conflicts);
        }
    }
    let mut injection = leave(context, Verdict::Untouched(why.clone()));
    match why {
        Untouched::NoContainer { warnings } => injection.warnings.clone_from(warnings),
        Untouched::SkippedByLabel => injection.warnings.extend(warnings::of_skipping_label(context.request)),
        Untouched::OptedOut | Untouched::MirrorPod | Untouched::NothingAsked => {}
    }
    injection
}

fn refuse(context: &Context<'_>, reasons: Vec<String>) -> Injection {
    let (settings, request) = (context.settings, context.request);
    let enforcement = if settings.never_denies(request.namespace) {
        Enforcement::Warn
    } else {
        settings.enforcement_in(&request.namespace_labels)
    };
    let verdict = Verdict::Refused { reasons, enforcement };
    if enforcement == Enforcement::Enforce {
        return Injection {
            verdict,
            patch: None,
            warnings: Vec::new(),
            settled_volumes: Vec::new(),
        };
    }
    leave(context, verdict)
}

/// Takes away what an earlier review added, and marks the pod where it needs the mark.
fn leave(context: &Context<'_>, verdict: Verdict) -> Injection {
    let mut patch = Patch::default();
    let mut settled_volumes = Vec::new();
    if context.record.is_some() {
        let nothing = Desired::default();
        let actual = Actual::of(context, &nothing);
        difference::write(context, &nothing, &actual, &mut patch);
        settled_volumes = actual.settled(&nothing);
    }
    let mark = match &verdict {
        // The guard does not look at these namespaces, so a pod that bears no mark needs no change.
        Verdict::Refused { .. }
            if !context.settings.never_denies(context.request.namespace) || record::is_marked(context) =>
        {
            Some(Mark::Refused)
        }
        Verdict::Refused { .. } => None,
        // A mark that the user brought must not stand there if it is not true.
        _ if context.needs_mark() || record::is_marked(context) => Some(Mark::Untouched),
        _ => None,
    };
    record::write(context, None, mark, &mut patch);
    Injection {
        verdict,
        patch: patch.finish(),
        warnings: Vec::new(),
        settled_volumes,
    }
}
