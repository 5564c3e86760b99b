//! What is around a pod: from the cache, or asked for once where no watch has told of it yet.
//!
//! A service account and its pod are often created in the same instant, and the pod's review may overtake the watch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, Shared};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::core::ObjectMeta;
use kube::{Api, Client};
use tokenscope_platform::telemetry::chain;

use crate::cache::{Annotations, Cache, Labels, labels_of};
use crate::metrics::{Lookup, Metrics};

/// How long the API server has for an answer: the review itself has 5 seconds, and more than one thing may be missing.
const DEADLINE: Duration = Duration::from_secs(1);

/// What is around a pod.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its namespace's labels.
    pub labels: Labels,
    /// Its service account's annotations; `None` where there is no such service account.
    pub annotations: Option<Annotations>,
}

/// Why what is around a pod is not known.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what} is not in the cache, and the API server could not be asked for it: {why}")]
pub struct Unknown {
    what: String,
    why: Arc<str>,
}

/// The way to what is around pods.
pub struct Lookups {
    cache: Arc<Cache>,
    client: Client,
    metrics: Metrics,
    running: Mutex<HashMap<Wanted, Running>>,
}

type Running = Shared<BoxFuture<'static, Result<Option<Arc<ObjectMeta>>, Unknown>>>;

/// An object that a review needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Wanted {
    Namespace(Box<str>),
    ServiceAccount { namespace: Box<str>, name: Box<str> },
}

impl Lookups {
    /// Looks into `cache` first and asks with `client` then.
    pub fn new(cache: Arc<Cache>, client: Client, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            cache,
            client,
            metrics,
            running: Mutex::default(),
        })
    }

    /// What is around a pod of this namespace and service account.
    pub async fn around(self: &Arc<Self>, namespace: &str, service_account: &str) -> Result<Known, Unknown> {
        let labels = self.cache.labels(namespace);
        let annotations = self.cache.annotations(namespace, service_account);
        if let (Some(labels), Some(annotations)) = (&labels, &annotations) {
            return Ok(Known {
                labels: labels.clone(),
                annotations: Some(annotations.clone()),
            });
        }
        let labels = async {
            if let Some(labels) = labels {
                return Ok(labels);
            }
            let metadata = self.ask(Wanted::Namespace(namespace.into())).await?;
            Ok(metadata.as_deref().map(labels_of).unwrap_or_default())
        };
        let annotations = async {
            if annotations.is_some() {
                return Ok(annotations);
            }
            let wanted = Wanted::ServiceAccount {
                namespace: namespace.into(),
                name: service_account.into(),
            };
            Ok(self.ask(wanted).await?.as_deref().map(Annotations::of))
        };
        let (labels, annotations) = futures::future::try_join(labels, annotations).await?;
        Ok(Known { labels, annotations })
    }

    /// All that want the same at the same time share one request.
    async fn ask(self: &Arc<Self>, wanted: Wanted) -> Result<Option<Arc<ObjectMeta>>, Unknown> {
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(wanted)
            .or_insert_with_key(|wanted| self.start(wanted.clone()))
            .clone();
        running.await
    }

    /// A task of its own: it ends, and makes room for the next one, also when nobody waits any longer.
    fn start(self: &Arc<Self>, wanted: Wanted) -> Running {
        let this = self.clone();
        let what = wanted.to_string();
        let task = tokio::spawn(async move {
            let asked = tokio::time::timeout(DEADLINE, wanted.get(&this.client)).await;
            this.running
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&wanted);
            let why = match asked {
                Ok(Ok(metadata)) => {
                    let found = metadata.is_some();
                    this.metrics
                        .looked_up(if found { Lookup::Found } else { Lookup::Missing });
                    return Ok(metadata.map(Arc::new));
                }
                Ok(Err(error)) => chain(&error),
                Err(_) => format!("no answer within {} s", DEADLINE.as_secs()),
            };
            this.metrics.looked_up(Lookup::Failed);
            Err(why)
        });
        async move {
            let why = match task.await {
                Ok(Ok(metadata)) => return Ok(metadata),
                Ok(Err(why)) => why,
                Err(error) => error.to_string(),
            };
            Err(Unknown { what, why: why.into() })
        }
        .boxed()
        .shared()
    }
}

impl Wanted {
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
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::ServiceAccount { namespace, name } => write!(f, "service account {namespace}/{name}"),
        }
    }
}
