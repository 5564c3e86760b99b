//! The parts of namespaces and service accounts that decisions read, bounded in length.

use std::sync::{Arc, RwLock};

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::runtime::watcher::Event;
use tokenscope_core::known_keys::{KeyRoom, MOST_KEY_BYTES};
use tokenscope_core::pod::Text;
use tokenscope_core::text::beyond;
use tokenscope_core::{Pairs, annotations};

use crate::share::Share;
use crate::store::{Store, apply_locked};

/// The most labels of a namespace that are looked at. Kubernetes bounds them only together with the annotations, by 256 KiB.
pub const MOST_LABELS: Share = Share {
    objects: 256,
    bytes: 16 << 10,
};

/// The labels that change how a namespace's pods are treated, whatever the policies.
const OWN_LABELS: [&str; 5] = [
    annotations::INJECT,
    annotations::REQUIRED,
    annotations::ENFORCE,
    annotations::WARN,
    annotations::AUDIT,
];

/// A namespace's labels.
pub type LabelPairs = Arc<Pairs<Box<str>>>;

/// The part of a namespace that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceLabels {
    /// All labels, for policies may select by any; or our own alone, where there are too many.
    pub labels: LabelPairs,
    /// True if there are more than [`MOST_LABELS`].
    pub too_many: bool,
}

impl NamespaceLabels {
    /// Keeps a namespace's labels.
    pub fn of(metadata: &ObjectMeta) -> Self {
        let labels = metadata.labels.iter().flatten();
        let bytes: usize = labels.clone().map(|(key, value)| key.len() + value.len()).sum();
        let too_many = labels.clone().count() > MOST_LABELS.objects || bytes > MOST_LABELS.bytes;
        let kept = labels.filter(|(key, _)| !too_many || OWN_LABELS.contains(&key.as_str()));
        let pairs = kept.map(|(key, value)| (key.as_str().into(), value.as_str().into()));
        Self {
            labels: Arc::new(pairs.collect()),
            too_many,
        }
    }

    /// The memory that they take, about.
    pub fn bytes(&self) -> usize {
        /// Two texts' pointers and lengths, and the allocator's share of both.
        const PAIR_BYTES: usize = 56;
        let pairs = self.labels.iter();
        pairs.map(|(key, value)| PAIR_BYTES + key.len() + value.len()).sum()
    }
}

/// A service account's annotations, as far as they can change a decision, and the keys of a few that look so.
///
/// Kept as compact JSON, which takes little more than half of what a map would: clusters have 50,000 of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptAnnotations(Arc<str>);

impl KeptAnnotations {
    /// Keeps what decisions read. Of a value that is too long so much is kept that a decision sees that it is.
    pub fn of(metadata: &ObjectMeta) -> Self {
        let Some(all) = &metadata.annotations else {
            return Self::default();
        };
        let relevant = annotations::OF_SERVICE_ACCOUNTS
            .iter()
            .filter_map(|&key| Some((key.to_owned(), bounded(key, all.get(key)?).into())));
        // Of keys that somebody may have meant for one of these no value is kept: they are only warned of.
        let mut room = KeyRoom::default();
        let is_meant = |key: &&String| {
            let key = key.as_str();
            key.len() <= MOST_KEY_BYTES && !annotations::OF_SERVICE_ACCOUNTS.contains(&key) && room.take(key)
        };
        let meant = all.keys().filter(is_meant);
        let relevant: serde_json::Map<_, _> = relevant.chain(meant.map(|key| (key.clone(), "".into()))).collect();
        if relevant.is_empty() {
            return Self::default();
        }
        // Strings always serialise.
        Self(serde_json::to_string(&relevant).unwrap_or_default().into())
    }

    /// The annotations.
    pub fn pairs(&self) -> Pairs<Text<'_>> {
        if self.is_empty() {
            return Pairs::default();
        }
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// True if none can change a decision, and none looks so.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The memory that they take, about.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// Takes in what a watch tells of namespaces, as [`apply_locked`].
pub fn apply_namespace(store: &RwLock<Store<NamespaceLabels>>, event: Event<PartialObjectMeta<Namespace>>) -> bool {
    apply_locked(store, event, |namespace| {
        let labels = NamespaceLabels::of(&namespace.metadata);
        let bytes = labels.bytes();
        Some((labels, bytes))
    })
}

/// Takes in what a watch tells of service accounts, as [`apply_locked`].
pub fn apply_service_account(
    store: &RwLock<Store<KeptAnnotations>>,
    event: Event<PartialObjectMeta<ServiceAccount>>,
) -> bool {
    apply_locked(store, event, |account| {
        let annotations = KeptAnnotations::of(&account.metadata);
        let bytes = annotations.bytes();
        Some((annotations, bytes))
    })
}

/// A value; or, of one that is longer than [`annotations::most_bytes`], its start, which still is.
fn bounded<'a>(key: &str, value: &'a str) -> &'a str {
    let most = annotations::most_bytes(key).unwrap_or_default();
    beyond(value, most)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata(value: serde_json::Value) -> ObjectMeta {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn annotations_that_can_change_a_decision_are_kept_exactly_and_of_those_that_look_so_the_key() {
        let kept = KeptAnnotations::of(&metadata(json!({"annotations": {
            "tokenscope.io/role-arn": "a\"\u{0}ä", "eks.amazonaws.com/audience": "b", "note": "x",
            "tokenscope.io/x": "x", "eks.amazonaws.com/x": "x", "other.io/x": "x"}})));
        let mut pairs: Vec<_> = kept.pairs().iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        pairs.sort();
        let expected = [
            ("eks.amazonaws.com/audience", "b"),
            ("eks.amazonaws.com/x", ""),
            ("tokenscope.io/role-arn", "a\"\u{0}ä"),
            ("tokenscope.io/x", ""),
        ];
        assert_eq!(pairs, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(KeptAnnotations::of(&ObjectMeta::default()), KeptAnnotations::default());
        assert!(KeptAnnotations::default().pairs().is_empty());
    }

    #[test]
    fn of_a_value_that_is_too_long_just_so_much_is_kept_that_it_still_is() {
        for (key, most) in [
            ("tokenscope.io/role-arn", 2048),
            ("tokenscope.io/audience", 2048),
            ("tokenscope.io/skip-containers", 16_640),
        ] {
            for (value, kept_bytes) in [
                ("a".repeat(most), most),
                ("a".repeat(most + 1), most + 1),
                ("a".repeat(200_000), most + 1),
                ("ä".repeat(100_000), most + 2),
            ] {
                let kept = KeptAnnotations::of(&metadata(json!({"annotations": {key: value}})));
                assert_eq!(kept.pairs().value(key).unwrap().len(), kept_bytes, "{key}");
            }
        }
    }

    #[test]
    fn of_too_many_labels_only_our_own_are_kept() {
        let mut labels: serde_json::Map<_, _> = (0..255).map(|n| (format!("l{n}"), json!("v"))).collect();
        labels.insert("tokenscope.io/required".to_owned(), json!("true"));
        let kept = NamespaceLabels::of(&metadata(json!({"labels": labels})));
        assert!(!kept.too_many && kept.labels.iter().count() == 256);

        labels.insert("one-more".to_owned(), json!("v"));
        let kept = NamespaceLabels::of(&metadata(json!({"labels": labels})));
        assert!(kept.too_many);
        let pairs: Vec<_> = kept.labels.iter().collect();
        assert_eq!(pairs, [("tokenscope.io/required", "true")]);

        let long = json!({"labels": {"a": "a".repeat(9 << 10), "b": "b".repeat(9 << 10)}});
        assert!(NamespaceLabels::of(&metadata(long)).too_many);
    }
}
