//! The injection of a review into a pod: what the pod should carry, what it carries, and the difference as a patch.
//!
//! [`desired`] says what a decision gives the pod. [`actual`] finds what bears our names, and says what of it is ours.
//! [`conflicts`] are what is not, where ours must go. [`difference`] writes the patch from one to the other, with [`record`] for the
//! metadata. So a review of our own output gives no patch, whether the pod still has its record or not.

mod actual;
mod association;
mod config_writer;
mod conflicts;
mod context;
mod desired;
mod difference;
mod endpoint;
mod list;
mod network;
mod other_variables;
mod outbound;
mod paths;
mod pieces;
mod place;
mod pull_secrets;
mod record;
mod review_spec;
mod shared_tokens;
mod sidecar;
mod slot;
mod variables;
mod warnings;
mod whole;

use std::borrow::Cow;

use actual::Actual;
use context::Context;
pub use context::Reviewed;
use desired::Desired;
use tokenscope_core::annotations::Mark;
use tokenscope_core::bounds::MOST_RECORD_BYTES;
use tokenscope_core::{Associated, Decision, Enforcement, Granted, Untouched};

use crate::patch::Patch;

/// The result of a review, and the changes of the pod.
#[derive(Debug)]
pub struct Injection {
    /// The outcome for the pod.
    pub outcome: InjectionOutcome,
    /// The patch's text; `None` where nothing changes.
    pub patch: Option<String>,
    /// Warnings for whoever creates the pod.
    pub warnings: Vec<String>,
    /// The names of token volumes that hold only what was decided just now, or go: the lock has no business with them.
    pub settled_volumes: Vec<Cow<'static, str>>,
}

/// The outcome for a pod, once its own volumes and mounts were looked at too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InjectionOutcome {
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
    let context = Context::new(reviewed, decision);
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
        Decision::Associated(associated) => associate(&context, associated),
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
    if let Some(reason) = too_long(&record) {
        return refuse(context, vec![reason]);
    }
    let mut warnings = granted.warnings.clone();
    desired.warn(context, &mut warnings);
    // Variables are most of a patch: a container's five have 700 bytes with their mount, and the volume and the record as much.
    let mut patch = Patch::with_capacity(1024 * (desired.containers.len() + 1));
    difference::write(context, &desired, &actual, &mut patch);
    pull_secrets::write(context, &desired, &mut warnings, &mut patch);
    record::write(context, Some(record), Some(Mark::Granted), false, &mut patch);
    Injection {
        outcome: InjectionOutcome::Granted,
        patch: patch.finish(),
        warnings,
        settled_volumes: actual.settled(&desired),
    }
}

/// Gives a pod what the EKS webhook gives it.
fn associate<'a>(context: &Context<'a>, associated: &'a Associated) -> Injection {
    let mut desired = Desired::of_associated(associated, context);
    let actual = Actual::of(context, &desired);
    // A volume of this name that is the pod's own stays as it is, and is no volume of ours.
    let brings_volume = actual.is_foreign(&associated.agent.volume);
    if brings_volume {
        desired.volumes.clear();
    }
    let mut conflicts = conflicts::of_names(context, &actual);
    let mut warnings = associated.warnings.clone();
    let mut record = String::new();
    if let Some(association) = &desired.association {
        conflicts.extend(association.conflicts(context, brings_volume));
        association.warn(context, brings_volume, &mut warnings);
        record = association.record(context, associated, brings_volume);
    }
    conflicts.extend(too_long(&record));
    if !conflicts.is_empty() {
        return refuse(context, conflicts);
    }
    let mut patch = Patch::with_capacity(1024 * (associated.containers.len() + 1));
    difference::write(context, &desired, &actual, &mut patch);
    record::write(context, Some(record), Some(Mark::Granted), true, &mut patch);
    Injection {
        outcome: InjectionOutcome::Granted,
        patch: patch.finish(),
        warnings,
        settled_volumes: actual.settled(&desired),
    }
}

/// The refusal of a pod whose record would be larger than what is read back.
fn too_long(record: &str) -> Option<String> {
    (record.len() > MOST_RECORD_BYTES).then(|| {
        format!(
            "the record of the grant would have {} bytes, and at most {MOST_RECORD_BYTES} are kept: use fewer labels, fewer annotations tokenscope.io/role-arn.<container>, or shorter lists of containers in the annotations of the pod and its service account",
            record.len()
        )
    })
}

fn leave_untouched(context: &Context<'_>, why: &Untouched) -> Injection {
    // These names are ours also in a pod that gets nothing: SPIFFE providers may give an identity to a container of such a name.
    let actual = || Actual::of(context, &Desired::default());
    let conflicts = if context.needs_mark() {
        conflicts::of_names(context, &actual())
    } else if *why != Untouched::MirrorPod && context.bears_added_name() {
        conflicts::of_container_names(context, &actual()).into_iter().collect()
    } else {
        Vec::new()
    };
    if !conflicts.is_empty() {
        return refuse(context, conflicts);
    }
    let mut injection = leave(context, InjectionOutcome::Untouched(why.clone()));
    match why {
        Untouched::NoContainer { warnings } => injection.warnings.clone_from(warnings),
        Untouched::SkippedByLabel => injection.warnings.extend(warnings::of_skipping_label(context.request)),
        Untouched::NothingAsked => injection
            .warnings
            .extend(warnings::of_list_without_role(context.request)),
        Untouched::OptedOut | Untouched::MirrorPod => {}
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
    let outcome = InjectionOutcome::Refused { reasons, enforcement };
    if enforcement == Enforcement::Enforce {
        return Injection {
            outcome,
            patch: None,
            warnings: Vec::new(),
            settled_volumes: Vec::new(),
        };
    }
    leave(context, outcome)
}

/// Takes away what an earlier review added, and marks the pod where it needs the mark.
fn leave(context: &Context<'_>, outcome: InjectionOutcome) -> Injection {
    let mut patch = Patch::default();
    let mut settled_volumes = Vec::new();
    if context.record.is_some() {
        let nothing = Desired::default();
        let actual = Actual::of(context, &nothing);
        difference::write(context, &nothing, &actual, &mut patch);
        settled_volumes = actual.settled(&nothing);
    }
    let mark = match &outcome {
        // The guard does not look at these namespaces, so a pod that bears no mark needs no change.
        InjectionOutcome::Refused { .. }
            if !context.settings.never_denies(context.request.namespace) || record::is_marked(context) =>
        {
            Some(Mark::Refused)
        }
        InjectionOutcome::Refused { .. } => None,
        // A mark that the user brought must not stand there if it is not true.
        _ if context.needs_mark() || record::is_marked(context) => Some(context.mark_of_untouched(&settled_volumes)),
        _ => None,
    };
    record::write(context, None, mark, false, &mut patch);
    Injection {
        outcome,
        patch: patch.finish(),
        warnings: Vec::new(),
        settled_volumes,
    }
}
