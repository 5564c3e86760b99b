//! Bounds on what a review looks at of one pod, so that no pod makes a review expensive.
//!
//! Users size every list of a pod, and the API server takes 3 MiB of it. What is beyond a bound is passed over while the pod is
//! read. A pod that asks for a role, or that a policy gives one, is then refused with a message that names the bound, since a
//! decision about a part of a pod would be a wrong one.
//!
//! Variables have no bound: only the few names that decisions read are kept, each container once, so a pod with 60,000 of them costs
//! what its bytes cost (`cargo xtask bench webhook`, hostile shapes), and a refusal would keep honest pods away for nothing.

use std::fmt;

use crate::config_file::MOST_CONFIG_FILES;

/// The most containers and init containers of a pod. The kubelet runs at most a few hundred pods on a node, and pods of more
/// than a few dozen containers are not known.
pub const MOST_CONTAINERS: usize = 256;
/// The most volumes of a pod.
pub const MOST_VOLUMES: usize = 256;
/// The most sources of one projected volume.
pub const MOST_SOURCES: usize = 32;
/// The most volume mounts of one container.
pub const MOST_MOUNTS: usize = 256;
/// The most arguments of one container that are kept: as many as the writer of config files has at most. More make no pod a
/// refused one.
pub const MOST_ARGUMENTS: usize = 1 + 2 * MOST_CONFIG_FILES;
/// The most labels of a pod.
pub const MOST_LABELS: usize = 128;
/// The most annotations of a pod that decisions read, and the most annotations at all of a pod that may pass without the
/// review's mark. The same number stands in the guard's CEL.
pub const MOST_ANNOTATIONS: usize = 256;
/// The most bytes of an annotation's value. The longest that has a meaning is a role's ARN of 2048 characters (STS).
pub const MOST_VALUE_BYTES: usize = 2048;
/// The most names in an annotation that lists containers: as many as a pod may have.
pub const MOST_LIST_ENTRIES: usize = MOST_CONTAINERS;
/// The most bytes of an annotation that lists containers: names of 63 characters, a comma and a space after each.
pub const MOST_LIST_BYTES: usize = MOST_LIST_ENTRIES * 65;
/// The most bytes of policies' patterns with which the roles, the containers and the tokens of one pod are compared: each role and each
/// container counts all patterns anew. Patterns that are half stars cost about 23 nanoseconds a byte, so this is a tenth of a second; usual
/// ones cost a tenth of it. A thousand policies with two roles of 60 characters each, and a pod with 30 roles, are within it.
pub const MOST_COMPARED_BYTES: usize = 4 << 20;
/// The most bytes of `tokenscope.io/grant`, which names every container, variable and label of a pod.
pub const MOST_RECORD_BYTES: usize = 64 * 1024;
/// The most variables of one grant in it. The webhook adds a dozen of its own to a container, and up to 64 that a policy names for third
/// parties. Each that a record names is taken away from the containers that have it, an operation of the patch each, for which the API server
/// copies the whole list.
pub const MOST_RECORDED_VARIABLES: usize = 128;

/// A bound that a pod exceeds. `Display` is the sentence that users read: it names the bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// It has too many containers.
    Containers,
    /// It has too many volumes.
    Volumes,
    /// A projected volume has too many sources.
    Sources {
        /// The first such volume's name.
        volume: Box<str>,
    },
    /// A container has too many mounts.
    Mounts {
        /// The first such container's name.
        container: Box<str>,
    },
    /// It has too many labels.
    Labels,
    /// It has too many annotations that decisions read.
    Annotations,
    /// An annotation's value is too long.
    Value {
        /// The annotation's key, shortened.
        key: Box<str>,
        /// The most bytes that it may have.
        most: usize,
    },
    /// An annotation lists too many containers.
    ListEntries {
        /// The annotation's key.
        key: &'static str,
    },
    /// It names too many roles, or has too many containers, for the patterns of the policies about it.
    Comparisons,
}

impl Beyond {
    /// True if it is about the pod's spec, which nobody can change once the pod is there; labels and annotations can be
    /// changed.
    pub fn is_of_spec(&self) -> bool {
        match self {
            Self::Containers | Self::Volumes | Self::Sources { .. } | Self::Mounts { .. } => true,
            Self::Labels | Self::Annotations | Self::Value { .. } | Self::ListEntries { .. } | Self::Comparisons => {
                false
            }
        }
    }
}

impl fmt::Display for Beyond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Containers => write!(
                f,
                "the pod has more than {MOST_CONTAINERS} containers and init containers: use fewer"
            ),
            Self::Volumes => write!(f, "the pod has more than {MOST_VOLUMES} volumes: use fewer"),
            Self::Sources { volume } => write!(
                f,
                "projected volume {volume} has more than {MOST_SOURCES} sources: divide it into several volumes"
            ),
            Self::Mounts { container } => {
                write!(
                    f,
                    "container {container} has more than {MOST_MOUNTS} volume mounts: use fewer"
                )
            }
            Self::Labels => write!(f, "the pod has more than {MOST_LABELS} labels: use fewer"),
            Self::Annotations => write!(
                f,
                "the pod has more than {MOST_ANNOTATIONS} annotations that name roles: use fewer"
            ),
            Self::Value { key, most } => write!(
                f,
                "the value of annotation {key} has more than {most} bytes: shorten it"
            ),
            Self::ListEntries { key } => write!(
                f,
                "annotation {key} lists more than {MOST_LIST_ENTRIES} containers: list fewer"
            ),
            Self::Comparisons => write!(
                f,
                "the pod's roles and containers would be compared with more than {} MiB of patterns in the policies about it: name fewer roles, use fewer containers, or have fewer policies select the pod",
                MOST_COMPARED_BYTES >> 20
            ),
        }
    }
}
