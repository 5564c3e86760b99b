//! The differences on purpose, and their reasons.

use serde_json::Value;

use super::case::Case;
use super::causes::{
    brings_a_foreign_volume, mounts_at_our_path, names_an_invalid_expiration, names_an_invalid_flag,
    names_an_invalid_role,
};
use super::changes::{
    complete_half_pairs, drop_unused_volume, keep_fields, leave_indirect_roles_alone, leave_own_credentials_alone,
    move_to_our_path, skip_trimmed_names,
};

/// A difference on purpose.
#[derive(Debug)]
pub struct Deviation {
    /// A word for it.
    pub name: &'static str,
    /// The reason why it is so.
    pub reason: &'static str,
    pub(super) effect: Effect,
}

#[derive(Debug)]
pub(super) enum Effect {
    /// The pod is refused. The function says whether the case gives the cause; one of the texts is in the refusal.
    Refused(fn(&Case) -> bool, &'static [&'static str]),
    /// Another pod comes out: the function makes it of the expected one.
    Changed(fn(&Case, &mut Value)),
}

/// In the order in which they are applied to an expected pod.
pub(super) static DEVIATIONS: &[Deviation] = &[
    Deviation {
        name: "invalid role",
        reason: "a role that is no ARN of an IAM role is refused with the reason, not injected: STS would refuse it in every call",
        effect: Effect::Refused(names_an_invalid_role, &["is not an IAM role ARN"]),
    },
    Deviation {
        name: "token lifetime",
        reason: "a token-expiration that is no number from 600 to 86400 is refused with the reason; it is neither raised nor ignored in silence",
        effect: Effect::Refused(names_an_invalid_expiration, &["is not a token expiration"]),
    },
    Deviation {
        name: "flag",
        reason: "an sts-regional-endpoints that is neither true nor false is refused with the reason; it is not ignored in silence",
        effect: Effect::Refused(names_an_invalid_flag, &["sts-regional-endpoints"]),
    },
    Deviation {
        name: "foreign volume",
        reason: "a volume of our name that is not exactly what would be added, and a mount of it, is refused, never trusted: whoever \
                 makes it could hand the container a token of their own",
        effect: Effect::Refused(
            brings_a_foreign_volume,
            &[
                "which tokenscope adds",
                "which is the name of the volume that tokenscope adds",
            ],
        ),
    },
    Deviation {
        name: "foreign mount",
        reason: "another volume that is mounted where the token goes is refused with the reason: the API server would refuse two mounts at one path",
        effect: Effect::Refused(mounts_at_our_path, &["where tokenscope puts the token"]),
    },
    Deviation {
        name: "skip list",
        reason: "names in skip-containers may have spaces around them: \"a, b\" skips both",
        effect: Effect::Changed(skip_trimmed_names),
    },
    Deviation {
        name: "kept fields",
        reason: "containers are changed in place and never replaced as a whole, so a field that the other webhook does not know is kept",
        effect: Effect::Changed(keep_fields),
    },
    Deviation {
        name: "own credentials",
        reason: "a container that brings both AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE is left alone altogether",
        effect: Effect::Changed(leave_own_credentials_alone),
    },
    Deviation {
        name: "half pair",
        reason: "a container that sets only one of AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE gets the other one and the token, and is not left broken",
        effect: Effect::Changed(complete_half_pairs),
    },
    Deviation {
        name: "role from elsewhere",
        reason: "a container whose AWS_ROLE_ARN comes by valueFrom is left alone with a warning, for nobody can judge that role",
        effect: Effect::Changed(leave_indirect_roles_alone),
    },
    Deviation {
        name: "unused volume",
        reason: "a pod none of whose containers mounts the token gets no volume for it",
        effect: Effect::Changed(drop_unused_volume),
    },
    Deviation {
        name: "mount path",
        reason: "the path of the token is fixed: EKS's own in EKS-compatible mode",
        effect: Effect::Changed(move_to_our_path),
    },
];
