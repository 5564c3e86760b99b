//! The cluster as webhook, operator and issuer know it: watches, lists, and a bounded index of what they bring.
//!
//! Each process watches the same kinds and keeps of each object what decisions read:
//!
//! - [`watch`] follows one kind for ever, and lists it anew where that was asked for; [`follow()`] is the task around it.
//! - [`Store`] keeps the objects of one kind by namespace and name. It alone states that what a new list lacks is gone, and
//!   what happens to objects that do not fit.
//! - [`Shares`] count what each namespace takes of memory, so that a namespace that is too large harms only itself.
//! - [`WebhookBounds`] are the bounds of what the webhook keeps; with [`WebhookCount`] the operator finds out where they are exceeded.
//! - [`NamespaceLabels`], [`KeptAnnotations`] and [`PolicyIndex`] are what is kept of namespaces, service accounts and policies.
//! - [`PodObject`] is a pod of which a process keeps what it needs.
//! - [`CsiDrivers`] are the drivers that the kubelet gives tokens for.
//! - [`PodContext`] is the one place that makes a [`tokenscope_core::Request`].
//!
//! [`EventReason`] lists the reasons of all Events. [`settings`], [`eks_pod_identity`] and [`audiences`] hold the flags and the check at start that the processes
//! share.

pub mod audiences;
mod context;
mod csi_drivers;
pub mod eks_pod_identity;
mod event_reason;
mod follow;
mod kept;
mod pod_object;
mod policies;
mod relist;
pub mod settings;
mod share;
mod shared_policies;
mod shares;
mod store;
mod tally;
pub mod watch;
mod webhook_bounds;
mod webhook_count;

pub use context::{DEFAULT_SERVICE_ACCOUNT, PodContext, service_account};
pub use csi_drivers::{CsiDrivers, DriverTokens};
pub use event_reason::EventReason;
pub use follow::follow;
pub use kept::{KeptAnnotations, LabelPairs, MOST_LABELS, NamespaceLabels, apply_namespace, apply_service_account};
pub use pod_object::{FromPodJson, PodObject, pod_identity};
pub use policies::{Policies, PolicyIndex, PolicyUpdate, estimate};
pub use share::{Exceeded, Share, ShareExceeded};
pub use shared_policies::SharedPolicies;
pub use shares::{Room, Shares};
pub use store::{Store, Update, apply_locked};
pub use webhook_bounds::WebhookBounds;
pub use webhook_count::{KeptChange, NotKept, WebhookCount};
