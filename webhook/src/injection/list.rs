//! The difference between what a list of the pod has of ours and what it should have.

use crate::patch::{Json, JsonList, Operation, Patch, Pointer};

/// An item that a list should have.
pub(super) trait DesiredItem: Json {
    /// The type as which an item of the list is read.
    type Present;

    /// True if the item stands where this one must stand: it has the same name, for instance.
    fn is_in_place_of(&self, present: &Self::Present) -> bool;

    /// True if the item is exactly this one.
    fn is(&self, present: &Self::Present) -> bool;
}

/// The place where missing items are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Before all others, in the order of the wanted ones, and there they must stay.
    AlwaysFirst,
    /// Before all others.
    First,
    /// Behind all others.
    Last,
}

/// The writer of the difference of one list of the pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListDifference<'p> {
    /// Its place in the pod.
    pub(super) path: Pointer<'p>,
    /// True if the pod has it: a list that is null is none.
    pub(super) exists: bool,
    /// The place where items are added.
    pub(super) order: Order,
}

impl ListDifference<'_> {
    /// Writes what makes the list have what is `wanted` of ours. `ours` are the items that may change or go, with their indices;
    /// no other item is touched.
    ///
    /// What stays is replaced where it stands, then surplus items are removed from behind, so that the indices of those that are
    /// still to go stay true, and then missing ones are added.
    pub(super) fn write<W: DesiredItem>(&self, ours: &[(usize, &W::Present)], wanted: &[W], patch: &mut Patch) {
        let mut taken = vec![false; ours.len()];
        let mut places: Vec<Option<usize>> = Vec::with_capacity(wanted.len());
        for item in wanted {
            let mut free = ours
                .iter()
                .zip(&taken)
                .map(|(&(_, present), taken)| (!taken).then_some(present));
            let equal = free
                .clone()
                .position(|present| present.is_some_and(|present| item.is(present)));
            let found =
                equal.or_else(|| free.position(|present| present.is_some_and(|present| item.is_in_place_of(present))));
            let found = found.and_then(|at| Some((taken.get_mut(at)?, ours.get(at)?)));
            places.push(found.as_ref().map(|(_, (index, _))| *index));
            if let Some((slot, (index, _))) = found {
                *slot = true;
                if equal.is_none() {
                    patch.push(&Operation::Replace {
                        path: self.path.index(*index),
                        value: item,
                    });
                }
            }
        }
        let surplus = ours.iter().zip(&taken).filter(|(_, taken)| !**taken);
        let mut surplus: Vec<usize> = surplus.map(|((index, _), _)| *index).collect();
        surplus.sort_unstable_by(|a, b| b.cmp(a));
        for index in &surplus {
            patch.push(&Operation::Remove {
                path: self.path.index(*index),
            });
        }
        if self.order == Order::AlwaysFirst && self.exists {
            for place in places.iter_mut().flatten() {
                *place -= surplus.iter().filter(|index| **index < *place).count();
            }
            return self.put_first(wanted, places, patch);
        }
        let missing = wanted.iter().zip(&places).filter(|(_, place)| place.is_none());
        let missing: Vec<&W> = missing.map(|(item, _)| item).collect();
        self.add(&missing, patch);
    }

    /// Brings the wanted items to the front, in their order. `places` says where each stands now, if it does.
    fn put_first<W: DesiredItem>(&self, wanted: &[W], mut places: Vec<Option<usize>>, patch: &mut Patch) {
        for (at, item) in wanted.iter().enumerate() {
            let from = places.get(at).copied().flatten();
            match from {
                Some(from) if from == at => {}
                Some(from) => patch.push(&Operation::Move {
                    from: self.path.index(from),
                    path: self.path.index(at),
                }),
                None => patch.push(&Operation::Add {
                    path: self.path.index(at),
                    value: item,
                }),
            }
            // What stood between the two places, or behind a new item, stands one further back.
            for place in places.iter_mut().skip(at + 1).flatten() {
                *place += usize::from(from.is_none_or(|from| *place < from));
            }
        }
    }

    fn add<W: DesiredItem>(&self, missing: &[&W], patch: &mut Patch) {
        if missing.is_empty() {
            return;
        }
        if !self.exists {
            patch.push(&Operation::Add {
                path: self.path,
                value: &JsonList(missing),
            });
            return;
        }
        match self.order {
            Order::Last => patch.add_each(self.path.end(), missing.iter().map(|item| *item as &dyn Json)),
            // The last one that is added comes first in the end.
            Order::First | Order::AlwaysFirst => {
                patch.add_each(self.path.index(0), missing.iter().rev().map(|item| *item as &dyn Json));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// A name and a value.
    #[derive(Clone, Debug, PartialEq)]
    struct TestItem(u8, u8);

    impl Json for TestItem {
        fn write(&self, text: &mut String) {
            text.push_str(&json!([self.0, self.1]).to_string());
        }
    }

    impl DesiredItem for TestItem {
        type Present = Self;

        fn is_in_place_of(&self, present: &Self) -> bool {
            present.0 == self.0
        }

        fn is(&self, present: &Self) -> bool {
            self == present
        }
    }

    /// The list after its difference was written and applied. Names below 100 are ours.
    fn changed(before: Option<&[TestItem]>, wanted: &[TestItem], order: Order) -> Vec<TestItem> {
        let value = |pairs: &[TestItem]| -> Value { pairs.iter().map(|pair| json!([pair.0, pair.1])).collect() };
        let path = Pointer::ROOT.member("list");
        let list = ListDifference {
            path,
            exists: before.is_some(),
            order,
        };
        let present = before.into_iter().flatten().enumerate();
        let ours: Vec<_> = present.filter(|(_, pair)| pair.0 < 100).collect();
        let mut patch = Patch::default();
        list.write(&ours, wanted, &mut patch);
        let mut document = json!({"list": before.map(value)});
        let patch = patch.finish().unwrap_or_else(|| "[]".to_owned());
        json_patch::patch(
            &mut document,
            &serde_json::from_str::<json_patch::Patch>(&patch).unwrap(),
        )
        .unwrap();
        let after: Option<Vec<(u8, u8)>> = serde_json::from_value(document["list"].clone()).unwrap();
        after
            .unwrap_or_default()
            .into_iter()
            .map(|(name, value)| TestItem(name, value))
            .collect()
    }

    #[test]
    fn missing_items_are_added_where_they_belong() {
        let others = [TestItem(100, 0)];
        let wanted = [TestItem(1, 1), TestItem(2, 2)];
        let after = |order| changed(Some(&others), &wanted, order);
        assert_eq!(after(Order::First), [TestItem(1, 1), TestItem(2, 2), TestItem(100, 0)]);
        assert_eq!(after(Order::Last), [TestItem(100, 0), TestItem(1, 1), TestItem(2, 2)]);
        assert_eq!(changed(None, &wanted, Order::First), wanted);
        assert_eq!(changed(None, &[], Order::Last), []);
    }

    #[test]
    fn an_item_that_must_be_first_is_moved_and_its_doubles_go() {
        let before = [TestItem(100, 0), TestItem(1, 7), TestItem(101, 0), TestItem(1, 1)];
        let after = changed(Some(&before), &[TestItem(1, 1)], Order::AlwaysFirst);
        assert_eq!(after, [TestItem(1, 1), TestItem(100, 0), TestItem(101, 0)]);
        let wanted = [TestItem(1, 1), TestItem(2, 2), TestItem(3, 3)];
        for before in [
            vec![],
            vec![TestItem(100, 0), TestItem(2, 2), TestItem(101, 0)],
            vec![
                TestItem(3, 3),
                TestItem(2, 2),
                TestItem(1, 1),
                TestItem(100, 0),
                TestItem(101, 0),
            ],
            vec![
                TestItem(3, 0),
                TestItem(100, 0),
                TestItem(3, 3),
                TestItem(4, 4),
                TestItem(101, 0),
                TestItem(1, 2),
            ],
        ] {
            let after = changed(Some(&before), &wanted, Order::AlwaysFirst);
            assert_eq!(after[..3], wanted, "{before:?}");
            let others = before.into_iter().filter(|item| item.0 >= 100);
            assert_eq!(after[3..], others.collect::<Vec<_>>());
        }
    }

    proptest! {
        #[test]
        fn a_list_has_what_is_wanted_of_ours_and_all_others_in_their_order(
            before in prop::option::of(prop::collection::vec((prop_oneof![0..4_u8, 100..104_u8], 0..3_u8), 0..8)),
            wanted in prop::collection::vec((0..4_u8, 0..3_u8), 0..4),
            order in prop_oneof![Just(Order::First), Just(Order::Last), Just(Order::AlwaysFirst)],
        ) {
            let pairs = |list: Vec<(u8, u8)>| list.into_iter().map(|(name, value)| TestItem(name, value)).collect::<Vec<_>>();
            let before = before.map(pairs);
            let mut names = HashSet::new();
            let wanted: Vec<TestItem> = pairs(wanted).into_iter().filter(|pair| names.insert(pair.0)).collect();
            let after = changed(before.as_deref(), &wanted, order);
            let foreign = |list: &[TestItem]| list.iter().filter(|pair| pair.0 >= 100).cloned().collect::<Vec<_>>();
            prop_assert_eq!(foreign(&after), foreign(before.as_deref().unwrap_or_default()));
            let mut ours: Vec<_> = after.iter().filter(|pair| pair.0 < 100).map(|pair| (pair.0, pair.1)).collect();
            let mut expected: Vec<_> = wanted.iter().map(|pair| (pair.0, pair.1)).collect();
            if order == Order::AlwaysFirst {
                prop_assert!(after.starts_with(&wanted));
            }
            ours.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(ours, expected);
            prop_assert_eq!(changed(Some(&after), &wanted, order), after);
        }
    }
}
