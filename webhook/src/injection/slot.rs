//! A container of the pod, and where it stands there.

use tokenscope_core::pod::{Container, Text};

/// A container, and where it stands in the pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot<'a> {
    /// `initContainers` or `containers`.
    pub(super) list: &'static str,
    /// Its index there.
    pub(super) index: usize,
    pub(super) container: &'a Container<Text<'a>>,
}
