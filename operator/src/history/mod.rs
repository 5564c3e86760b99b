//! The past of what grants rest on: since when facts are as they are, and what is gone that was there.
//!
//! A running pod is called missed only where the process has seen all of that itself since the pod was created. The times that objects
//! tell of themselves ([`managed_fields`]) are hints: by them a pod may be missed, and no more, since whoever writes an object may
//! write them too, and what was removed leaves none.

mod ages;
mod managed_fields;
mod past;
mod times;

pub(crate) use ages::{Ages, FirstSeen, Keys};
pub(crate) use managed_fields::{FieldWriter, late_keys};
pub(crate) use past::{Past, Removed, Watched};
pub(crate) use times::{created, latest_write};
