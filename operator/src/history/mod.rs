//! The past of the facts that grants rest on: how old they are, and which ones were removed.
//!
//! A running pod is called missed only where the process has seen all of that itself since the pod was created. The times that objects
//! carry themselves ([`managed_fields`]) are only hints that a pod may be missed, since whoever writes an object may
//! write them too, and a removed object leaves none.

mod ages;
mod managed_fields;
mod past;
mod times;

pub(crate) use ages::{Ages, FirstSeen, Keys};
pub(crate) use managed_fields::{FieldWriter, late_keys};
pub(crate) use past::{Past, Removed, Watched};
pub(crate) use times::{created, latest_write};
