//! How far each watch's present list is.

/// One for each kind of object.
#[derive(Default)]
pub(super) struct Lists {
    pub(super) pods: List,
    pub(super) namespaces: List,
    pub(super) service_accounts: List,
    pub(super) policies: List,
    pub(super) cluster_policies: List,
    pub(super) csi_drivers: List,
}

/// A list that a watch began with, or begins again with.
#[derive(Clone, Copy, Default)]
pub(super) struct List {
    /// Which one it is: an object that has another number was not in it.
    pub(super) number: u32,
    /// Whether one was whole once.
    pub(super) whole: bool,
}

impl List {
    pub(super) fn begin(&mut self) {
        self.number = self.number.wrapping_add(1);
    }

    pub(super) fn end(&mut self) -> u32 {
        self.whole = true;
        self.number
    }
}
