//! What the watches have told of namespaces, service accounts and policies.
//!
//! Reviews only read it. No lock is held across an await, and nothing is ever listed because of a review.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::core::{DynamicObject, ObjectMeta, PartialObjectMeta};
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokenscope_core::pod::Text;
use tokenscope_core::{Pairs, PolicyName, PolicySet, annotations};
use tokenscope_crds::read;
use tokenscope_platform::Process;
use tokenscope_platform::health::Gate;
use tokenscope_platform::telemetry::chain;
use tokenscope_platform::watch::watch;
use tokio_util::sync::CancellationToken;

/// A namespace's labels.
pub type Labels = Arc<Pairs<Box<str>>>;

/// What the watches have told so far.
#[derive(Debug)]
pub struct Cache {
    namespaces: Store<Labels>,
    service_accounts: Store<Annotations>,
    policies: ArcSwap<PolicySet>,
    /// The policies while they change; readers see them once they are whole.
    drafted: Mutex<Drafted>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            namespaces: Store::new(labels_of),
            service_accounts: Store::new(Annotations::of),
            policies: ArcSwap::default(),
            drafted: Mutex::default(),
        }
    }
}

impl Cache {
    /// A namespace's labels; `None` if no watch has told of it.
    pub fn labels(&self, namespace: &str) -> Option<Labels> {
        self.namespaces.value("", namespace)
    }

    /// A service account's annotations; `None` if no watch has told of it.
    pub fn annotations(&self, namespace: &str, service_account: &str) -> Option<Annotations> {
        self.service_accounts.value(namespace, service_account)
    }

    /// The policies.
    pub fn policies(&self) -> arc_swap::Guard<Arc<PolicySet>> {
        self.policies.load()
    }

    /// Takes in what a watch tells of namespaces.
    pub fn namespace(&self, event: Event<PartialObjectMeta<Namespace>>) {
        self.namespaces.take_in(event);
    }

    /// Takes in what a watch tells of service accounts.
    pub fn service_account(&self, event: Event<PartialObjectMeta<ServiceAccount>>) {
        self.service_accounts.take_in(event);
    }

    /// Takes in what a watch tells of policies; `cluster` says of which kind.
    ///
    /// An object that is no policy can't stop the others: it is kept as one that grants nothing, with the reason.
    pub fn policy(&self, cluster: bool, event: Event<DynamicObject>) {
        let mut drafted = self.drafted.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = drafted.take_in(cluster, event);
        if whole {
            self.policies.store(Arc::new(drafted.policies.clone()));
        }
    }

    /// How many things of each kind there are.
    pub fn sizes(&self) -> [(&'static str, usize); 3] {
        [
            ("namespaces", self.namespaces.len()),
            ("serviceaccounts", self.service_accounts.len()),
            ("policies", self.policies.load().len()),
        ]
    }

    /// Starts the watches; a gate for each opens with its first whole list.
    pub fn watch(self: &Arc<Self>, client: &Client, process: &Process) {
        let (cache, api) = (self.clone(), Api::all(client.clone()));
        follow(api, "namespaces", process, move |event| cache.namespace(event));
        let (cache, api) = (self.clone(), Api::all(client.clone()));
        follow(api, "serviceaccounts", process, move |told| cache.service_account(told));
        for resource in read::resources() {
            let cache = self.clone();
            let cluster = resource.kind.starts_with("Cluster");
            let what = if cluster {
                "clustertokenscopepolicies"
            } else {
                "tokenscopepolicies"
            };
            let api = Api::all_with(client.clone(), &resource);
            follow(api, what, process, move |event| cache.policy(cluster, event));
        }
    }
}

/// The labels of a namespace, all of them: policies may select by any.
pub(crate) fn labels_of(metadata: &ObjectMeta) -> Labels {
    let labels = metadata.labels.iter().flatten();
    Arc::new(
        labels
            .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
            .collect(),
    )
}

/// A service account's annotations, as far as they can change a decision.
///
/// Kept as compact JSON, which takes little more than half of what a map would: clusters have 50,000 of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations(Option<Arc<str>>);

impl Annotations {
    /// Keeps what is relevant.
    pub fn of(metadata: &ObjectMeta) -> Self {
        let relevant: serde_json::Map<_, _> = metadata
            .annotations
            .iter()
            .flatten()
            .filter(|(key, _)| annotations::is_relevant(key))
            .map(|(key, value)| (key.clone(), value.as_str().into()))
            .collect();
        if relevant.is_empty() {
            return Self(None);
        }
        // Strings always serialise.
        Self(serde_json::to_string(&relevant).ok().map(Arc::from))
    }

    /// The annotations.
    pub fn pairs(&self) -> Pairs<Text<'_>> {
        let json = self.0.as_deref().unwrap_or("{}");
        serde_json::from_str(json).unwrap_or_default()
    }
}

/// What is kept of objects, by namespace and name.
///
/// A new list marks what it names and takes the rest away when it ends: what was known stays known meanwhile, and there are
/// never two maps in memory.
#[derive(Debug)]
struct Store<V> {
    objects: RwLock<Objects<V>>,
    keep: fn(&ObjectMeta) -> V,
}

type Objects<V> = HashMap<Box<str>, HashMap<Box<str>, Kept<V>>>;

#[derive(Debug)]
struct Kept<V> {
    value: V,
    /// Whether the list that runs, if one does, has named it.
    named: bool,
}

impl<V: Clone> Store<V> {
    fn new(keep: fn(&ObjectMeta) -> V) -> Self {
        Self {
            objects: RwLock::default(),
            keep,
        }
    }

    fn value(&self, namespace: &str, name: &str) -> Option<V> {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        Some(objects.get(namespace)?.get(name)?.value.clone())
    }

    fn len(&self) -> usize {
        let objects = self.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.values().map(HashMap::len).sum()
    }

    fn take_in<K: Resource>(&self, event: Event<K>) {
        match event {
            Event::Init => self.write(|objects| {
                for kept in objects.values_mut().flat_map(HashMap::values_mut) {
                    kept.named = false;
                }
            }),
            Event::InitApply(object) | Event::Apply(object) => {
                let metadata = object.meta();
                let value = (self.keep)(metadata);
                let (namespace, name) = names(metadata);
                self.write(|objects| {
                    let objects = match objects.get_mut(namespace) {
                        Some(objects) => objects,
                        None => objects.entry(namespace.into()).or_default(),
                    };
                    match objects.get_mut(name) {
                        Some(kept) => *kept = Kept { value, named: true },
                        None => drop(objects.insert(name.into(), Kept { value, named: true })),
                    }
                });
            }
            Event::InitDone => self.write(|objects| {
                objects.retain(|_, objects| {
                    objects.retain(|_, kept| kept.named);
                    !objects.is_empty()
                });
            }),
            Event::Delete(object) => {
                let (namespace, name) = names(object.meta());
                self.write(|objects| {
                    let Some(others) = objects.get_mut(namespace) else {
                        return;
                    };
                    others.remove(name);
                    if others.is_empty() {
                        objects.remove(namespace);
                    }
                });
            }
        }
    }

    fn write(&self, change: impl FnOnce(&mut Objects<V>)) {
        change(&mut self.objects.write().unwrap_or_else(PoisonError::into_inner));
    }
}

fn names(metadata: &ObjectMeta) -> (&str, &str) {
    (
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

/// The policies while they change.
#[derive(Debug, Default)]
struct Drafted {
    policies: PolicySet,
    /// Each policy, and whether the list that runs, if one does, has named it.
    names: HashMap<PolicyName, bool>,
    /// Of which kinds a list runs: then they are not whole.
    lists: HashSet<bool>,
}

impl Drafted {
    /// Whether readers may see the policies now.
    fn take_in(&mut self, cluster: bool, event: Event<DynamicObject>) -> bool {
        match event {
            Event::Init => {
                self.lists.insert(cluster);
                let of_kind = self.names.iter_mut().filter(|(name, _)| name.is_cluster() == cluster);
                of_kind.for_each(|(_, named)| *named = false);
            }
            Event::InitApply(object) | Event::Apply(object) => {
                let (name, policy) = read::read(&object);
                match policy {
                    Ok(policy) => self.policies.insert(Arc::new(policy)),
                    Err(why) => {
                        tracing::warn!(policy = %name, %why, "a policy can't be used");
                        self.policies.insert_invalid(name.clone(), &why.to_string());
                    }
                }
                self.names.insert(name, true);
            }
            Event::InitDone => {
                self.lists.remove(&cluster);
                let policies = &mut self.policies;
                self.names.retain(|name, named| {
                    let gone = name.is_cluster() == cluster && !*named;
                    if gone {
                        policies.remove(name);
                    }
                    !gone
                });
            }
            Event::Delete(object) => {
                let name = read::name(&object);
                self.policies.remove(&name);
                self.names.remove(&name);
            }
        }
        !self.lists.contains(&cluster)
    }
}

/// Watches for ever, and calls `take_in` with all that is told.
pub(crate) fn follow<K>(
    api: Api<K>,
    what: &'static str,
    process: &Process,
    take_in: impl FnMut(Event<K>) + Send + 'static,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let gate = process.gates.gate(what);
    process.spawn(what, watching(api, what, gate, process.stop.clone(), take_in));
}

async fn watching<K>(
    api: Api<K>,
    what: &'static str,
    gate: Gate,
    stop: CancellationToken,
    mut take_in: impl FnMut(Event<K>),
) -> Result<(), Infallible>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut told = pin!(watch(api, what));
    let mut synced = false;
    while let Some(Some(told)) = stop.run_until_cancelled(told.next()).await {
        match told {
            Ok(event) => {
                let whole = matches!(event, Event::InitDone);
                take_in(event);
                if whole {
                    synced = true;
                    gate.open();
                }
            }
            Err(error) if synced => tracing::warn!(what, error = chain(&error), "a watch was interrupted"),
            Err(error) => gate.close(chain(&error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::client::Body;
    use serde_json::json;
    use std::time::Duration;
    use tokenscope_platform::health::Gates;

    type Answer = (u16, serde_json::Value);

    /// Watches service accounts at an API server that answers queries so, until the first whole list.
    async fn first_list(answers: fn(&str) -> Answer) -> (Arc<Cache>, Gates) {
        let api_server = tower::service_fn(move |request: http::Request<Body>| async move {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let (status, body) = answers(&query);
            // A text stands for itself, such as the lines of a watch.
            let body = body.as_str().map_or_else(|| body.to_string(), ToOwned::to_owned);
            let body = Body::from(format!("{body}\n").into_bytes());
            Ok::<_, Infallible>(http::Response::builder().status(status).body(body).unwrap())
        });
        let api = Api::all(Client::new(api_server, "default"));
        let (cache, gates, stop) = (Arc::new(Cache::default()), Gates::default(), CancellationToken::new());
        let gate = gates.gate("serviceaccounts");
        let (told, ended) = (cache.clone(), stop.clone());
        let watching = watching(api, "serviceaccounts", gate, stop, move |event| {
            let whole = matches!(event, Event::InitDone);
            told.service_account(event);
            if whole {
                ended.cancel();
            }
        });
        tokio::time::timeout(Duration::from_secs(5), watching)
            .await
            .unwrap()
            .unwrap();
        (cache, gates)
    }

    fn account() -> serde_json::Value {
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": {"name": "orders", "namespace": "shop", "resourceVersion": "7"}})
    }

    #[tokio::test]
    async fn a_streamed_list_is_asked_for_and_its_end_opens_the_gate() {
        let (cache, gates) = first_list(|query| {
            assert!(query.contains("sendInitialEvents=true"), "{query}");
            let end = json!({"type": "BOOKMARK", "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": "7", "annotations": {"k8s.io/initial-events-end": "true"}}}});
            let added = json!({"type": "ADDED", "object": account()});
            (200, serde_json::Value::String(format!("{added}\n{end}")))
        })
        .await;
        assert!(cache.annotations("shop", "orders").is_some());
        assert_eq!(gates.waiting(), None);
    }

    #[tokio::test]
    async fn where_lists_can_not_be_streamed_they_are_read_in_pages() {
        let (cache, gates) = first_list(|query| {
            if query.contains("sendInitialEvents=true") {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 422, "reason": "Invalid",
                    "message": "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"});
                return (422, status);
            }
            assert!(query.contains("limit="), "{query}");
            let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": "7"}, "items": [account()]});
            (200, list)
        })
        .await;
        assert!(cache.annotations("shop", "orders").is_some());
        assert_eq!(gates.waiting(), None);
    }

    #[test]
    fn only_annotations_that_can_change_a_decision_are_kept_and_kept_exactly() {
        let metadata: ObjectMeta = serde_json::from_value(json!({"annotations": {
            "tokenscope.io/role-arn": "a\"\u{0}ä", "eks.amazonaws.com/audience": "b", "note": "x"}}))
        .unwrap();
        let kept = Annotations::of(&metadata);
        let mut pairs: Vec<_> = kept.pairs().iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        pairs.sort();
        let expected = [
            ("eks.amazonaws.com/audience", "b"),
            ("tokenscope.io/role-arn", "a\"\u{0}ä"),
        ];
        assert_eq!(pairs, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(Annotations::of(&ObjectMeta::default()), Annotations(None));
        assert!(Annotations::default().pairs().is_empty());
    }
}
