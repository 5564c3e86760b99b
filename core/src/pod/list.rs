//! Lists and maps of which no more is kept than decisions read.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::text::Text;
use crate::bounds::{MOST_ANNOTATIONS, MOST_LABELS};
use crate::known_keys::{KeyRoom, MOST_KEY_BYTES};
use crate::{Pairs, annotations};

/// The part of an item that is read although the item is passed over.
pub trait PassedOver: for<'de> Deserialize<'de> {
    /// True if the list must tell that there is such a one.
    fn is_told(&self) -> bool;
}

/// Nothing is read of them.
impl PassedOver for IgnoredAny {
    fn is_told(&self) -> bool {
        false
    }
}

/// A list of which the first `MOST` items are kept. The others are passed over and counted; `P` is what is read of them.
#[derive(Clone, Debug)]
pub struct BoundedList<T, const MOST: usize, P = IgnoredAny> {
    items: Vec<T>,
    count: usize,
    is_told: bool,
    passed_over: PhantomData<fn() -> P>,
}

impl<T, const MOST: usize, P> BoundedList<T, MOST, P> {
    /// The number of items, those that were passed over too.
    pub fn count(&self) -> usize {
        self.count
    }

    /// True if some were passed over.
    pub fn is_beyond(&self) -> bool {
        self.count > self.items.len()
    }

    /// True if one was passed over that must be told ([`PassedOver::is_told`]).
    pub fn has_passed_over_told(&self) -> bool {
        self.is_told
    }

    /// The items that are kept.
    pub(super) fn into_items(self) -> impl Iterator<Item = T> {
        self.items.into_iter()
    }
}

impl<T, const MOST: usize, P> Deref for BoundedList<T, MOST, P> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items
    }
}

impl<'a, T, const MOST: usize, P> IntoIterator for &'a BoundedList<T, MOST, P> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize, P: PassedOver> Deserialize<'de> for BoundedList<T, MOST, P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read<T, const MOST: usize, P>(PhantomData<fn() -> (T, P)>);
        impl<'de, T: Deserialize<'de>, const MOST: usize, P: PassedOver> Visitor<'de> for Read<T, MOST, P> {
            type Value = BoundedList<T, MOST, P>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while items.len() < MOST {
                    match list.next_element()? {
                        Some(item) => items.push(item),
                        None => break,
                    }
                }
                let mut count = items.len();
                let mut is_told = false;
                while count >= MOST {
                    let Some(passed) = list.next_element::<P>()? else {
                        break;
                    };
                    count += 1;
                    is_told |= passed.is_told();
                }
                Ok(BoundedList {
                    items,
                    count,
                    is_told,
                    passed_over: PhantomData,
                })
            }
        }
        deserializer.deserialize_seq(Read(PhantomData))
    }
}

/// Labels: the first [`MOST_LABELS`] of them.
#[derive(Clone, Debug)]
pub struct PodLabels<S> {
    pairs: Pairs<S>,
    count: usize,
}

impl<S> Default for PodLabels<S> {
    fn default() -> Self {
        Self {
            pairs: Pairs::default(),
            count: 0,
        }
    }
}

impl<S> PodLabels<S> {
    /// Those that are kept.
    pub fn pairs(&self) -> &Pairs<S> {
        &self.pairs
    }

    /// Those that are kept.
    pub fn into_pairs(self) -> Pairs<S> {
        self.pairs
    }

    /// True if the pod has none at all.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// True if some were passed over.
    pub fn is_beyond(&self) -> bool {
        self.count > MOST_LABELS
    }
}

impl<'de, S: Deserialize<'de>> Deserialize<'de> for PodLabels<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Read {
            most: MOST_LABELS,
            kept_bytes: |_| Some(usize::MAX - 1),
            what: PhantomData,
        };
        let (pairs, count, _, _) = deserializer.deserialize_any(read)?;
        Ok(Self { pairs, count })
    }
}

/// Annotations that decisions read: the first [`MOST_ANNOTATIONS`] of them. A value that is longer than
/// [`annotations::most_bytes`] allows is cut, but is still longer than that.
#[derive(Clone, Debug)]
pub struct PodAnnotations<S> {
    pairs: Pairs<S>,
    count: usize,
    relevant: usize,
    without_effect: Vec<S>,
}

impl<S> Default for PodAnnotations<S> {
    fn default() -> Self {
        Self {
            pairs: Pairs::default(),
            count: 0,
            relevant: 0,
            without_effect: Vec::new(),
        }
    }
}

impl<S> PodAnnotations<S> {
    /// Those that are kept.
    pub fn pairs(&self) -> &Pairs<S> {
        &self.pairs
    }

    /// Those that are kept.
    pub fn into_pairs(self) -> Pairs<S> {
        self.pairs
    }

    /// The number of the pod's annotations, whatever their keys.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The first few keys that look like ours and that no decision reads, to warn of.
    pub fn without_effect(&self) -> &[S] {
        &self.without_effect
    }

    /// True if some that decisions read were passed over.
    pub fn is_beyond(&self) -> bool {
        self.relevant > MOST_ANNOTATIONS
    }
}

impl<'de, S: Deserialize<'de>> Deserialize<'de> for PodAnnotations<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Read {
            most: MOST_ANNOTATIONS,
            kept_bytes: annotations::most_bytes,
            what: PhantomData,
        };
        let (pairs, count, relevant, without_effect) = deserializer.deserialize_any(read)?;
        Ok(Self {
            pairs,
            count,
            relevant,
            without_effect,
        })
    }
}

/// Reads a map of texts: the pairs that are kept, how many there are, how many of them are wanted, and keys that look like ours.
struct Read<S> {
    /// The number that is kept.
    most: usize,
    /// The number of bytes that are kept of this key's value; `None` where the key is not wanted.
    kept_bytes: fn(&str) -> Option<usize>,
    what: PhantomData<S>,
}

impl<'de, S: Deserialize<'de>> Visitor<'de> for Read<S> {
    type Value = (Pairs<S>, usize, usize, Vec<S>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        let (mut count, mut wanted) = (0, 0);
        let (mut without_effect, mut room) = (Vec::new(), KeyRoom::default());
        while let Some(key) = map.next_key::<Text<'de>>()? {
            count += 1;
            let kept_bytes = (self.kept_bytes)(&key);
            wanted += usize::from(kept_bytes.is_some());
            // What the webhook writes is never passed over, or a forged one could hide behind others.
            let is_ours = matches!(&*key, annotations::REVIEWED | annotations::GRANT);
            match kept_bytes.filter(|_| wanted <= self.most || is_ours) {
                None => {
                    map.next_value::<IgnoredAny>()?;
                    if kept_bytes.is_none() && room.take(&key) {
                        without_effect.push(key.keep(MOST_KEY_BYTES)?);
                    }
                }
                Some(most) => {
                    let value = map.next_value::<Text<'de>>()?;
                    pairs.push((key.keep(usize::MAX - 1)?, value.keep(most)?));
                }
            }
        }
        Ok((pairs.into_iter().collect(), count, wanted, without_effect))
    }

    // A null map is an empty one, as everywhere in Kubernetes.
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok((Pairs::default(), 0, 0, Vec::new()))
    }
}
