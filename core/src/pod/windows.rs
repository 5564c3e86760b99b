//! Pods that can only run on Windows nodes. Nothing of the rules about nodes is kept but the answer.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::text::Text;

const OS_LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];
/// The label that kubelets put on Windows nodes alone.
const BUILD_LABEL: &str = "node.kubernetes.io/windows-build";

/// True if `spec.nodeSelector` demands Windows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NodeLabels(pub(super) bool);

impl<'de> Deserialize<'de> for NodeLabels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = NodeLabels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut windows = false;
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    if OS_LABELS.contains(&&*key) {
                        windows |= is_windows(&map.next_value::<Text<'de>>()?);
                    } else if *key == *BUILD_LABEL {
                        map.next_value::<IgnoredAny>()?;
                        windows = true;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(NodeLabels(windows))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(NodeLabels(false))
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// `spec.affinity`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Affinity {
    #[serde(default)]
    node_affinity: Option<NodeAffinity>,
}

#[derive(Clone, Debug, Deserialize)]
struct NodeAffinity {
    #[serde(default, rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Option<NodeSelector>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeSelector {
    #[serde(default)]
    node_selector_terms: Option<ItemCount<Term>>,
}

/// A term of a node selector: every expression must hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Term {
    #[serde(default)]
    match_expressions: Option<ItemCount<Expression>>,
}

/// An expression about a node's label.
#[derive(Clone, Copy, Debug)]
struct Expression;

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct NodeSelectorRequirement<'a> {
    key: Text<'a>,
    operator: Text<'a>,
    #[serde(default)]
    values: Option<OperatingSystems>,
}

impl NodeSelectorRequirement<'_> {
    /// True if only Windows nodes fulfil it.
    fn needs_windows(&self) -> bool {
        let values = self.values.unwrap_or_default();
        match &*self.operator {
            "In" if OS_LABELS.contains(&&*self.key) => values.count > 0 && values.windows == values.count,
            // There are no other systems.
            "NotIn" if OS_LABELS.contains(&&*self.key) => values.linux > 0 && values.windows == 0,
            "In" | "Exists" => *self.key == *BUILD_LABEL,
            _ => false,
        }
    }
}

/// `securityContext` of a pod or a container.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SecurityContext {
    #[serde(default)]
    windows_options: Option<WindowsOptions>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WindowsOptions {
    #[serde(default)]
    host_process: Option<bool>,
}

impl SecurityContext {
    /// True if it makes a container a HostProcess container, which only Windows has.
    pub(super) fn needs_windows(self) -> bool {
        self.windows_options
            .is_some_and(|options| options.host_process == Some(true))
    }
}

/// The number of values of an expression, and the number of these systems among them.
#[derive(Clone, Copy, Debug, Default)]
struct OperatingSystems {
    count: usize,
    windows: usize,
    linux: usize,
}

impl<'de> Deserialize<'de> for OperatingSystems {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = OperatingSystems;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut systems = OperatingSystems::default();
                while let Some(value) = list.next_element::<Text<'de>>()? {
                    systems.count += 1;
                    systems.windows += usize::from(is_windows(&value));
                    systems.linux += usize::from(*value == *"linux");
                }
                Ok(systems)
            }
        }
        deserializer.deserialize_seq(Read)
    }
}

impl Affinity {
    /// True if the rules that must hold demand Windows.
    pub(super) fn needs_windows(&self) -> bool {
        let required = self
            .node_affinity
            .as_ref()
            .and_then(|affinity| affinity.required.as_ref());
        // Terms are alternatives: only if each of them says Windows, the pod needs it.
        required
            .and_then(|selector| selector.node_selector_terms.as_ref())
            .is_some_and(ItemCount::all)
    }
}

/// An item of a list that may demand Windows.
trait Item {
    /// Reads the list's next item and says whether it demands Windows.
    fn next<'de, A: SeqAccess<'de>>(list: &mut A) -> Result<Option<bool>, A::Error>;
}

impl Item for Term {
    fn next<'de, A: SeqAccess<'de>>(list: &mut A) -> Result<Option<bool>, A::Error> {
        let term = list.next_element::<Self>()?;
        Ok(term.map(|term| {
            term.match_expressions
                .is_some_and(|expressions| expressions.windows > 0)
        }))
    }
}

impl Item for Expression {
    fn next<'de, A: SeqAccess<'de>>(list: &mut A) -> Result<Option<bool>, A::Error> {
        let requirement = list.next_element::<NodeSelectorRequirement<'de>>()?;
        Ok(requirement.map(|requirement| requirement.needs_windows()))
    }
}

/// The number of items of a list, and the number of those that demand Windows.
#[derive(Clone, Copy, Debug)]
struct ItemCount<T> {
    count: usize,
    windows: usize,
    of: PhantomData<T>,
}

impl<T> ItemCount<T> {
    /// True if there are items and all of them demand Windows.
    fn all(&self) -> bool {
        self.count > 0 && self.windows == self.count
    }
}

impl<'de, T: Item> Deserialize<'de> for ItemCount<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<T>(PhantomData<T>);
        impl<'de, T: Item> Visitor<'de> for Read<T> {
            type Value = ItemCount<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let (mut count, mut windows) = (0, 0);
                while let Some(is_windows) = T::next(&mut list)? {
                    count += 1;
                    windows += usize::from(is_windows);
                }
                let of = PhantomData;
                Ok(ItemCount { count, windows, of })
            }
        }
        deserializer.deserialize_seq(Read(PhantomData))
    }
}

fn is_windows(text: &str) -> bool {
    text == "windows"
}
