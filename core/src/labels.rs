//! Labels and annotations, and the selectors over them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// A small map of texts, such as labels: a list, since there are few and each is looked at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs<S>(Vec<(S, S)>);

impl<S: AsRef<str>> Pairs<S> {
    /// The value of `key`; of several the last, as in every reader of JSON that makes a map of it.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().rfind(|(k, _)| k.as_ref() == key).map(|(_, v)| v.as_ref())
    }

    /// Keys and values in the order in which they were read.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_ref(), v.as_ref()))
    }

    /// The same pairs, borrowed.
    pub fn borrowed(&self) -> Pairs<&str> {
        self.iter().collect()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Drops what is not needed.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.0.retain(|(k, _)| keep(k.as_ref()));
        self.0.shrink_to_fit();
    }
}

impl<S> Default for Pairs<S> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<S> FromIterator<(S, S)> for Pairs<S> {
    fn from_iter<I: IntoIterator<Item = (S, S)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl<S: AsRef<str>> Serialize for Pairs<S> {
    fn serialize<T: Serializer>(&self, serializer: T) -> Result<T::Ok, T::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, S: Deserialize<'de>> Deserialize<'de> for Pairs<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<S>(PhantomData<S>);
        impl<'de, S: Deserialize<'de>> Visitor<'de> for Read<S> {
            type Value = Pairs<S>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::with_capacity(map.size_hint().unwrap_or(4).min(64));
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }

            // A null map is an empty one, as everywhere in Kubernetes.
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Pairs::default())
            }
        }
        deserializer.deserialize_any(Read(PhantomData))
    }
}

/// A label selector: every requirement holds. One without requirements selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(pub Vec<Requirement>);

/// One requirement on one label, after `metav1.LabelSelectorRequirement`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: Box<str>,
    /// The condition on its value.
    pub operator: SelectorOperator,
}

/// A condition on a label's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectorOperator {
    /// It is one of these.
    In(Vec<Box<str>>),
    /// It is absent, or none of these.
    NotIn(Vec<Box<str>>),
    /// It is present.
    Exists,
    /// It is absent.
    DoesNotExist,
}

impl Selector {
    /// True if the labels fulfil every requirement.
    pub fn matches<S: AsRef<str>>(&self, labels: &Pairs<S>) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.value(&requirement.key);
            match &requirement.operator {
                SelectorOperator::In(values) => value.is_some_and(|v| values.iter().any(|x| **x == *v)),
                SelectorOperator::NotIn(values) => value.is_none_or(|v| values.iter().all(|x| **x != *v)),
                SelectorOperator::Exists => value.is_some(),
                SelectorOperator::DoesNotExist => value.is_none(),
            }
        })
    }
}

impl Selector {
    /// True if some set of labels fulfils both selectors.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().all(|a| {
            let same_key = other.0.iter().filter(|b| b.key == a.key);
            same_key.map(|b| &b.operator).all(|b| a.operator.overlaps(b))
        })
    }

    /// True if no set of labels can fulfil every requirement. It takes time in proportion to the requirements, but for their sorting.
    pub(crate) fn contradicts_itself(&self) -> bool {
        let mut keys: BTreeMap<&str, Vec<&SelectorOperator>> = BTreeMap::new();
        for requirement in &self.0 {
            keys.entry(&requirement.key).or_default().push(&requirement.operator);
        }
        !keys.values().all(|operators| can_hold(operators))
    }

    /// The bytes with which labels are compared. Each requirement is looked for among all labels, and counts as 48 bytes more.
    pub(crate) fn compared_bytes(&self) -> usize {
        let values = |requirement: &Requirement| match &requirement.operator {
            SelectorOperator::In(values) | SelectorOperator::NotIn(values) => {
                values.iter().map(|value| value.len()).sum::<usize>()
            }
            SelectorOperator::Exists | SelectorOperator::DoesNotExist => 0,
        };
        let requirements = self.0.iter();
        requirements
            .map(|requirement| 48 + requirement.key.len() + values(requirement))
            .sum()
    }

    /// The most comparisons that [`Self::overlaps`] makes.
    pub(crate) fn overlap_cost(&self, other: &Self) -> usize {
        let values = |requirement: &Requirement| match &requirement.operator {
            SelectorOperator::In(values) | SelectorOperator::NotIn(values) => values.len(),
            SelectorOperator::Exists | SelectorOperator::DoesNotExist => 1,
        };
        let all = |selector: &Self| selector.0.iter().map(values).sum::<usize>();
        all(self) * all(other)
    }
}

impl SelectorOperator {
    /// True if some value, or its absence, fulfils both.
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::In(x), Self::In(y)) => x.iter().any(|value| y.contains(value)),
            (Self::In(x), Self::NotIn(y)) | (Self::NotIn(y), Self::In(x)) => x.iter().any(|value| !y.contains(value)),
            (Self::DoesNotExist, Self::In(_) | Self::Exists) | (Self::In(_) | Self::Exists, Self::DoesNotExist) => {
                false
            }
            _ => true,
        }
    }
}

/// True if some value of one label, or its absence, fulfils all of these.
fn can_hold(operators: &[&SelectorOperator]) -> bool {
    let mut takes_absence = true;
    let mut takes_presence = true;
    let mut listed: Option<BTreeSet<&str>> = None;
    for operator in operators {
        match operator {
            SelectorOperator::In(values) => {
                let values: BTreeSet<&str> = values.iter().map(|value| &**value).collect();
                let both = listed.as_ref().map(|before| before & &values);
                listed = Some(both.unwrap_or(values));
                takes_absence = false;
            }
            SelectorOperator::Exists => takes_absence = false,
            SelectorOperator::DoesNotExist => takes_presence = false,
            SelectorOperator::NotIn(_) => {}
        }
    }
    if takes_absence || !takes_presence {
        return takes_absence;
    }
    // Without a list there is always a value that nobody excludes.
    let Some(mut listed) = listed else { return true };
    for operator in operators {
        if let SelectorOperator::NotIn(values) = operator {
            for value in values {
                listed.remove(&**value);
            }
        }
    }
    !listed.is_empty()
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("anything");
        }
        for (index, Requirement { key, operator }) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            match operator {
                SelectorOperator::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                SelectorOperator::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                SelectorOperator::NotIn(values) => write!(f, "{key} not in ({})", values.join(","))?,
                SelectorOperator::Exists => write!(f, "{key}")?,
                SelectorOperator::DoesNotExist => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(key: &str, operator: SelectorOperator) -> Selector {
        Selector(vec![Requirement {
            key: key.into(),
            operator,
        }])
    }

    #[test]
    fn each_operator_means_what_kubernetes_says() {
        let labels: Pairs<&str> = [("app", "orders"), ("tier", "")].into_iter().collect();
        let values = || vec!["orders".into(), "carts".into()];

        assert!(selector("app", SelectorOperator::In(values())).matches(&labels));
        assert!(!selector("other", SelectorOperator::In(values())).matches(&labels));
        assert!(!selector("app", SelectorOperator::NotIn(values())).matches(&labels));
        assert!(selector("other", SelectorOperator::NotIn(values())).matches(&labels));
        assert!(selector("tier", SelectorOperator::Exists).matches(&labels));
        assert!(!selector("tier", SelectorOperator::DoesNotExist).matches(&labels));
        assert!(Selector::default().matches(&labels));
    }

    #[test]
    fn a_selector_that_no_labels_can_fulfil_contradicts_itself() {
        let values = |texts: &[&str]| texts.iter().map(|text| Box::from(*text)).collect::<Vec<Box<str>>>();
        let is_in = |texts: &[&str]| SelectorOperator::In(values(texts));
        let not_in = |texts: &[&str]| SelectorOperator::NotIn(values(texts));
        let exists = || SelectorOperator::Exists;
        let absent = || SelectorOperator::DoesNotExist;
        let contradicts = |operators: Vec<SelectorOperator>| {
            let requirements = operators.into_iter().map(|operator| Requirement {
                key: "app".into(),
                operator,
            });
            let other = Requirement {
                key: "tier".into(),
                operator: SelectorOperator::Exists,
            };
            Selector(requirements.chain([other]).collect()).contradicts_itself()
        };

        for never in [
            vec![is_in(&[])],
            vec![is_in(&["a"]), is_in(&["b"])],
            vec![is_in(&["a", "b"]), is_in(&["b", "c"]), is_in(&["c", "a"])],
            vec![is_in(&["a", "b"]), not_in(&["b"]), not_in(&["a"])],
            vec![is_in(&["a"]), absent()],
            vec![exists(), absent()],
        ] {
            assert!(contradicts(never.clone()), "{never:?}");
        }
        for possible in [
            vec![],
            vec![absent(), not_in(&["a"])],
            vec![exists(), not_in(&["a"])],
            vec![is_in(&["a", "b"]), is_in(&["b"]), exists()],
            vec![is_in(&["a", "b"]), not_in(&["a"])],
            vec![is_in(&[""])],
        ] {
            assert!(!contradicts(possible.clone()), "{possible:?}");
        }
    }

    #[test]
    fn a_null_map_is_empty_and_a_wrong_one_is_an_error() {
        assert!(serde_json::from_str::<Pairs<String>>("null").unwrap().is_empty());
        assert!(serde_json::from_str::<Pairs<String>>(r#"{"a":1}"#).is_err());
        assert_eq!(
            serde_json::from_str::<Pairs<String>>(r#"{"a":"b"}"#)
                .unwrap()
                .value("a"),
            Some("b")
        );
    }
}
