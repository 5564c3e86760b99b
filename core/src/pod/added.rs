//! The variables that an earlier review added, by container.

use std::collections::HashMap;

use super::container::VARIABLES;
use crate::GrantRecord;

/// The variables that a record says the webhook added, made for many questions: a record and a pod are both sized by users.
#[derive(Debug, Default)]
pub struct AddedVariables<'a> {
    /// The index in `variables` by container.
    by_container: HashMap<&'a str, usize>,
    /// The variables of each of the record's grants.
    variables: Vec<Vec<&'static str>>,
}

impl<'a> AddedVariables<'a> {
    /// The variables that `record` names. A record that names any variable but [`VARIABLES`] does not make that one ours.
    pub fn of(record: Option<&'a GrantRecord<'_>>) -> Self {
        let mut added = Self::default();
        for (index, grant) in record.iter().flat_map(|record| &record.grants).enumerate() {
            let is_named = |known: &&'static str| grant.env.iter().any(|name| name == known);
            added.variables.push(VARIABLES.into_iter().filter(is_named).collect());
            for container in &grant.containers {
                added.by_container.entry(container).or_insert(index);
            }
        }
        added
    }

    /// True if this variable of this container was added.
    pub fn has(&self, container: &str, variable: &str) -> bool {
        let index = self.by_container.get(container);
        let variables = index.and_then(|index| self.variables.get(*index));
        variables.is_some_and(|variables| variables.contains(&variable))
    }
}
