//! Policies whose default roles contradict each other.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tokenscope_core::{DefaultConflicts, PolicyName};

use super::Index;

impl Index {
    /// Finds anew what these policies are in conflict with.
    pub(super) fn update_conflicts(&mut self, names: &BTreeSet<PolicyName>, now: Timestamp) {
        let mut conflicts = DefaultConflicts::new(self.policies.set(), now);
        let found: Vec<_> = names
            .iter()
            .map(|name| {
                let found = self.policy(name).map(|policy| conflicts.of(policy));
                let complete = found.as_ref().is_none_or(|found| found.complete);
                let with = found.into_iter().flat_map(|found| found.with);
                (name, with.map(|other| other.name.clone()).collect(), complete)
            })
            .collect();
        for (name, with, complete) in found {
            self.note_conflicts(name, &with, complete);
        }
    }

    /// Both sides of a conflict know of it.
    fn note_conflicts(&mut self, name: &PolicyName, found: &BTreeSet<PolicyName>, complete: bool) {
        let Some(object) = self.objects.get_mut(name) else {
            return;
        };
        object.compared = complete;
        let before = std::mem::replace(&mut object.conflicts, found.clone());
        for other in before.union(found) {
            if let Some(object) = self.objects.get_mut(other) {
                if found.contains(other) {
                    object.conflicts.insert(name.clone());
                } else if complete {
                    object.conflicts.remove(name);
                }
                // Also where they stay in conflict: its message names this one's role.
                self.dirty.statuses.insert(other.clone());
            }
        }
    }

    /// Takes a policy that is gone out of the conflicts of these.
    pub(super) fn forget_conflicts(&mut self, name: &PolicyName, with: &BTreeSet<PolicyName>) {
        for other in with {
            if let Some(object) = self.objects.get_mut(other) {
                object.conflicts.remove(name);
                self.dirty.statuses.insert(other.clone());
            }
        }
    }
}
