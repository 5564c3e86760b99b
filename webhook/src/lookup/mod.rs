//! The surroundings of a pod: from the cache, or asked for once where the cache does not have it.
//!
//! A service account and its pod are often created in the same instant, and the pod's review may overtake the watch. And of a
//! namespace with too many service accounts the cache does not keep all.

mod limits;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, Shared};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::core::ObjectMeta;
use kube::{Api, Client};
use limits::{LookupSource, MOST_AT_A_TIME, MOST_OF_A_SOURCE, MissingObjects, PER_SECOND, Rates, leaves_enough};
use tokenscope_core::kubernetes_names::{is_label, is_subdomain};
use tokenscope_core::text::up_to;
use tokenscope_index::{KeptAnnotations, LabelPairs, NamespaceLabels, Policies, ShareExceeded};
use tokenscope_platform::telemetry::chain;
use tokio::time::Instant;

use crate::cache::{self, Cache};
use crate::metrics::{Lookup, WebhookMetrics};

/// The namespace of all questions of a peer that are not of one that the cache knows: whoever invents names has one for all.
const UNKNOWN_NAMESPACES: &str = "";

/// The surroundings of a pod.
#[derive(Clone, Debug)]
pub struct AdmissionContext {
    /// Its namespace's labels.
    pub labels: LabelPairs,
    /// Its service account's annotations; `None` where there is no such service account, or `over_share` says that it could
    /// not be looked at.
    pub annotations: Option<KeptAnnotations>,
    /// The policies.
    pub policies: Arc<Policies>,
    /// The reason why the pod can't be judged by all this, if it can't: its namespace needs more than is kept of one.
    pub over_share: Option<ShareExceeded>,
    /// True if that is because policies, boundaries or labels are missing, and not annotations.
    pub lacks_policies: bool,
}

/// The reason why the surroundings of a pod are not known.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what} is not in the cache, and {why}")]
pub struct LookupError {
    what: String,
    why: Why,
}

#[derive(Clone, Debug, thiserror::Error)]
enum Why {
    #[error("the API server could not be asked for it: {0}")]
    Failed(Arc<str>),
    #[error(
        "the API server is asked for at most {PER_SECOND} such things a second and {MOST_OF_A_SOURCE} at a time in one namespace: try again later"
    )]
    Limited,
    #[error("the API server has not sent one yet: try again later")]
    NotListed,
    #[error("the API server knows none of that name")]
    Missing,
}

/// The way to what is around pods.
pub struct LiveLookups {
    cache: Arc<Cache>,
    client: Client,
    metrics: WebhookMetrics,
    /// The time that the API server has for an answer.
    deadline: Duration,
    state: Mutex<LookupState>,
}

#[derive(Default)]
struct LookupState {
    /// At most [`MOST_AT_A_TIME`].
    running: HashMap<LookupKey, RunningLookup>,
    rates: Rates,
    missing: MissingObjects<LookupKey>,
}

struct RunningLookup {
    source: LookupSource,
    answer: SharedLookup,
}

type SharedLookup = Shared<BoxFuture<'static, Result<Option<Arc<ObjectMeta>>, LookupError>>>;

/// An object that a review needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum LookupKey {
    Namespace(Box<str>),
    ServiceAccount { namespace: Box<str>, name: Box<str> },
}

impl LiveLookups {
    /// Looks into `cache` first and asks with `client` then, which has so much time for an answer.
    pub fn new(cache: Arc<Cache>, client: Client, metrics: WebhookMetrics, deadline: Duration) -> Arc<Self> {
        Arc::new(Self {
            cache,
            client,
            metrics,
            deadline,
            state: Mutex::default(),
        })
    }

    /// The surroundings of a pod of this namespace and service account, of which this peer sent a review.
    pub async fn around(
        self: &Arc<Self>,
        peer: IpAddr,
        namespace: &str,
        service_account: &str,
    ) -> Result<AdmissionContext, LookupError> {
        let labels = match self.cache.kept_labels(namespace) {
            Some(labels) => labels,
            None => self.labels(peer, namespace).await?,
        };
        let annotations = match self.cache.annotations(namespace, service_account) {
            Some(annotations) => Ok(Some(annotations)),
            None => self.annotations(peer, namespace, service_account).await?,
        };
        let policies = self.cache.policies().ok_or_else(|| LookupError {
            what: "a whole list of policies and boundaries".to_owned(),
            why: Why::NotListed,
        })?;
        let over_share = cache::over_share(namespace, labels.too_many, &policies);
        Ok(AdmissionContext {
            labels: labels.labels,
            policies,
            lacks_policies: over_share.is_some(),
            over_share: over_share.or_else(|| annotations.as_ref().err().cloned()),
            annotations: annotations.unwrap_or_default(),
        })
    }

    /// The API server lets nobody create a pod in a namespace that does not exist.
    async fn labels(self: &Arc<Self>, peer: IpAddr, namespace: &str) -> Result<NamespaceLabels, LookupError> {
        let wanted = LookupKey::Namespace(namespace.into());
        match self.ask(peer, wanted.clone()).await? {
            Some(metadata) => Ok(NamespaceLabels::of(&metadata)),
            None => Err(wanted.unknown(Why::Missing)),
        }
    }

    /// Where too much is asked for because the cache does not keep all of the namespace's service accounts, that is the reason.
    async fn annotations(
        self: &Arc<Self>,
        peer: IpAddr,
        namespace: &str,
        name: &str,
    ) -> Result<Result<Option<KeptAnnotations>, ShareExceeded>, LookupError> {
        let wanted = LookupKey::ServiceAccount {
            namespace: namespace.into(),
            name: name.into(),
        };
        match self.ask(peer, wanted).await {
            Ok(metadata) => Ok(Ok(metadata.as_deref().map(KeptAnnotations::of))),
            Err(unknown) => match (&unknown.why, self.cache.service_accounts_over_share(namespace)) {
                (Why::Limited, Some(exceeded)) => Ok(Err(exceeded)),
                _ => Err(unknown),
            },
        }
    }

    /// All that want the same at the same time share one request.
    async fn ask(self: &Arc<Self>, peer: IpAddr, wanted: LookupKey) -> Result<Option<Arc<ObjectMeta>>, LookupError> {
        if !wanted.can_exist() {
            return Ok(None);
        }
        let answer = {
            let mut state = self.state();
            let now = Instant::now();
            if state.missing.contains(&wanted, now) {
                return Ok(None);
            }
            let running = state.running.get(&wanted).map(|running| running.answer.clone());
            match running {
                Some(answer) => answer,
                None => self.begin(&mut state, peer, wanted, now)?,
            }
        };
        answer.await
    }

    /// Begins a lookup, if its source may begin one more.
    fn begin(
        self: &Arc<Self>,
        state: &mut LookupState,
        peer: IpAddr,
        wanted: LookupKey,
        now: Instant,
    ) -> Result<SharedLookup, LookupError> {
        let source = LookupSource {
            peer,
            namespace: self.namespace_of(&wanted).into(),
        };
        if !state.admit(&source, now) {
            self.metrics.looked_up(Lookup::Limited);
            return Err(wanted.unknown(Why::Limited));
        }
        let answer = self.start(wanted.clone());
        let running = RunningLookup {
            source,
            answer: answer.clone(),
        };
        state.running.insert(wanted, running);
        Ok(answer)
    }

    fn namespace_of<'a>(&self, wanted: &'a LookupKey) -> &'a str {
        match wanted {
            LookupKey::ServiceAccount { namespace, .. } if self.cache.kept_labels(namespace).is_some() => namespace,
            _ => UNKNOWN_NAMESPACES,
        }
    }

    /// A task of its own: it ends, and makes room for the next one, also when nobody waits any longer.
    fn start(self: &Arc<Self>, wanted: LookupKey) -> SharedLookup {
        let this = self.clone();
        let asked = wanted.clone();
        let task = tokio::spawn(async move {
            let answer = tokio::time::timeout(this.deadline, asked.get(&this.client)).await;
            let answer = match answer {
                Ok(Ok(metadata)) => Ok(metadata.map(Arc::new)),
                Ok(Err(error)) => Err(chain(&error)),
                Err(_) => Err(format!("no answer within {} ms", this.deadline.as_millis())),
            };
            let result = match &answer {
                Ok(Some(_)) => Lookup::Found,
                Ok(None) => Lookup::Missing,
                Err(_) => Lookup::Failed,
            };
            this.metrics.looked_up(result);
            let mut state = this.state();
            state.running.remove(&asked);
            if result == Lookup::Missing {
                state.missing.insert(asked, Instant::now());
            }
            answer
        });
        async move {
            let why = match task.await {
                Ok(Ok(metadata)) => return Ok(metadata),
                Ok(Err(why)) => why,
                Err(error) => error.to_string(),
            };
            Err(wanted.unknown(Why::Failed(why.into())))
        }
        .boxed()
        .shared()
    }

    fn state(&self) -> MutexGuard<'_, LookupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LookupState {
    /// True if a lookup may begin now; if so, it counts.
    fn admit(&mut self, source: &LookupSource, now: Instant) -> bool {
        let running = || self.running.values().map(|running| &running.source);
        let of_source = running().filter(|running| *running == source).count();
        let of_peer = running().filter(|running| running.peer == source.peer).count();
        of_source < MOST_OF_A_SOURCE
            && leaves_enough(of_peer, self.running.len(), MOST_AT_A_TIME)
            && self.rates.admit(source, now)
    }
}

impl LookupKey {
    /// True if Kubernetes allows the name at all.
    fn can_exist(&self) -> bool {
        match self {
            Self::Namespace(name) => is_label(name),
            Self::ServiceAccount { namespace, name } => is_label(namespace) && is_subdomain(name),
        }
    }

    async fn get(&self, client: &Client) -> kube::Result<Option<ObjectMeta>> {
        Ok(match self {
            Self::Namespace(name) => {
                let found = Api::<Namespace>::all(client.clone()).get_metadata_opt(name).await?;
                found.map(|object| object.metadata)
            }
            Self::ServiceAccount { namespace, name } => {
                let api = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
                api.get_metadata_opt(name).await?.map(|object| object.metadata)
            }
        })
    }

    fn unknown(&self, why: Why) -> LookupError {
        /// A name may be as long as a review.
        const MOST_BYTES: usize = 512;
        let what = self.to_string();
        let what = up_to(&what, MOST_BYTES).to_owned();
        LookupError { what, why }
    }
}

impl std::fmt::Display for LookupKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::ServiceAccount { namespace, name } => write!(f, "service account {namespace}/{name}"),
        }
    }
}
