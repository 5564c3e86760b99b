//! Variables of containers whose names a policy chooses, as the pod has them.
//!
//! The ordinary decode of a pod keeps the variables of fixed names. These are read once more from the review, only where a grant
//! or a record names some, and of a container's variables only those are kept.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use tokenscope_core::bounds::MOST_CONTAINERS;
use tokenscope_core::pod::{BoundedList, IsThere, Text};
use tokenscope_core::{Decision, GrantRecord, VariableName};

use super::review_spec;
use super::slot::Slot;
use crate::json::{self, Raw};

/// The variables that a policy's author named, by container.
#[derive(Debug, Default)]
pub(super) struct OtherVariables<'a> {
    /// Those that the pod has, by the container's index among the request's.
    present: Vec<Vec<OtherVariable<'a>>>,
    /// Those that the record says an earlier review added.
    added: OtherAdded<'a>,
}

/// What a record says was added, as far as a policy can have named it: a record that names any other variable does not make that
/// one ours. It is as large as the record, which is sized by users.
#[derive(Debug, Default)]
struct OtherAdded<'a> {
    /// The index in `variables` by container.
    by_container: HashMap<&'a str, usize>,
    /// The variables of each of the record's grants.
    variables: Vec<HashSet<&'a str>>,
}

/// A variable as the pod has it.
#[derive(Debug)]
pub(super) struct OtherVariable<'a> {
    pub(super) name: Box<str>,
    /// Its index in the container's list.
    pub(super) index: usize,
    pub(super) value: Option<Text<'a>>,
    pub(super) value_from: IsThere,
}

impl OtherVariable<'_> {
    /// True if it has neither a value nor a source of one.
    pub(super) fn is_empty(&self) -> bool {
        !self.value_from.is_there() && self.value.as_ref().is_none_or(|value| value.is_empty())
    }
}

impl<'a> OtherVariables<'a> {
    /// Those that the decision or the record of a pod name. The cost is linear in the review where there are some, and nothing
    /// otherwise.
    pub(super) fn of(
        text: &'a str,
        containers: &[Slot<'a>],
        decision: &Decision,
        record: Option<&'a GrantRecord<'_>>,
    ) -> Self {
        let added = OtherAdded::of(record);
        let mut names: HashSet<&str> = added.variables.iter().flatten().copied().collect();
        if let Decision::Granted(granted) = decision {
            let outbound = granted
                .containers
                .iter()
                .flat_map(|granted| granted.grant.outbound.iter());
            names.extend(outbound.flat_map(|token| token.variables.iter().map(|variable| variable.name.as_str())));
        }
        if names.is_empty() {
            return Self::default();
        }
        let spec = review_spec::read::<ReviewSpec<'_>>(text);
        let spec = spec.unwrap_or_default();
        let of_container = |slot: &Slot<'_>| {
            let list = match slot.list {
                "initContainers" => &spec.init_containers,
                _ => &spec.containers,
            };
            let container = list.as_ref().and_then(|list| list.get(slot.index));
            container.map_or_else(Vec::new, |container| variables(*container, &names))
        };
        Self {
            present: containers.iter().map(of_container).collect(),
            added,
        }
    }

    /// Those of the container with this index.
    pub(super) fn of_container(&self, index: usize) -> &[OtherVariable<'a>] {
        self.present.get(index).map_or(&[], Vec::as_slice)
    }

    /// True if the record says that an earlier review added this variable to the container of this name.
    pub(super) fn has_added(&self, container: &str, variable: &str) -> bool {
        self.added.has(container, variable)
    }

    /// True if the container with this index and name has this variable of its own.
    pub(super) fn has_own(&self, index: usize, container: &str, variable: &str) -> bool {
        let mut present = self.of_container(index).iter();
        present.any(|present| *present.name == *variable && !present.is_empty()) && !self.has_added(container, variable)
    }
}

impl<'a> OtherAdded<'a> {
    fn of(record: Option<&'a GrantRecord<'_>>) -> Self {
        let mut added = Self::default();
        for (index, grant) in record.iter().flat_map(|record| &record.grants).enumerate() {
            let names = grant.env.iter().map(AsRef::as_ref);
            let names = names.filter(|name: &&str| name.parse::<VariableName>().is_ok());
            added.variables.push(names.collect());
            for container in &grant.containers {
                added.by_container.entry(container).or_insert(index);
            }
        }
        added
    }

    fn has(&self, container: &str, variable: &str) -> bool {
        let index = self.by_container.get(container);
        let variables = index.and_then(|index| self.variables.get(*index));
        variables.is_some_and(|variables| variables.contains(variable))
    }
}

/// The variables of these names in a container, of several of one name the last, as it counts for the kubelet.
fn variables<'a>(container: Raw<'a>, names: &HashSet<&str>) -> Vec<OtherVariable<'a>> {
    let environment = json::from_str::<Environment<'_>>(container.0).ok();
    let list = environment.and_then(|environment| environment.env);
    // A text that can't be read has none: it was read once already.
    list.and_then(|list| json::from_str_with(list.0, Named(names)).ok())
        .unwrap_or_default()
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct ReviewSpec<'a> {
    #[serde(default = "Option::default")]
    init_containers: Option<BoundedList<Raw<'a>, MOST_CONTAINERS>>,
    #[serde(default = "Option::default")]
    containers: Option<BoundedList<Raw<'a>, MOST_CONTAINERS>>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Environment<'a> {
    #[serde(default = "Option::default")]
    env: Option<Raw<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct ReadVariable<'a> {
    name: Text<'a>,
    #[serde(default = "Option::default")]
    value: Option<Text<'a>>,
    #[serde(default)]
    value_from: IsThere,
}

/// The reader of a list of variables that keeps those of these names.
struct Named<'n>(&'n HashSet<&'n str>);

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = Vec<OtherVariable<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Named<'_> {
    type Value = Vec<OtherVariable<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut kept: Vec<OtherVariable<'de>> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut count = 0;
        while let Some(written) = list.next_element::<ReadVariable<'de>>()? {
            let index = count;
            count += 1;
            let Some(name) = self.0.get(&*written.name) else {
                continue;
            };
            let variable = OtherVariable {
                name: (*name).into(),
                index,
                value: written.value,
                value_from: written.value_from,
            };
            // As many are kept as there are names.
            let place = *places.entry(name).or_insert(kept.len());
            match kept.get_mut(place) {
                Some(earlier) => *earlier = variable,
                None => kept.push(variable),
            }
        }
        Ok(kept)
    }
}
