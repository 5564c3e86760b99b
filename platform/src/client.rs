//! The Kubernetes client: no request of it can hang, and none is repeated without the caller's knowledge.

use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use futures::future::BoxFuture;
use http::header::{HeaderValue, InvalidHeaderValue, USER_AGENT};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use kube::client::{Body, ClientBuilder};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tower::{BoxError, Service};
use tower_http::timeout::TimeoutBody;

use crate::args::CommonArgs;
use crate::freshness::{Freshness, Noting};
use crate::metrics::process_name;
use crate::paging::Paged;

/// The time that the API server may take to begin an answer, and to go on with one that is not a watch.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A watch without any event, not even a bookmark, for so long is dead: API servers send one about each minute.
const WATCH_SILENCE: Duration = Duration::from_secs(180);

/// The reason why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig can't be read or used.
    #[error("the kubeconfig can't be used")]
    Kubeconfig(#[from] KubeconfigError),
    /// There is no kubeconfig, and the process doesn't run in a pod with a service account.
    #[error("neither --kubeconfig nor KUBECONFIG is given, and the pod's service account can't be used")]
    InCluster(#[from] InClusterError),
    /// The process's name can't be sent as a header.
    #[error("the process's name is no user agent")]
    UserAgent(#[from] InvalidHeaderValue),
    /// The configuration can't be turned into a client: a certificate or an address in it is wrong.
    #[error("the Kubernetes client can't be built")]
    Build(#[source] Box<kube::Error>),
}

/// The address of the API server and the process's identity there: by `--kubeconfig`, else `KUBECONFIG`, else the pod's own
/// service account.
pub async fn configuration(common: &CommonArgs) -> Result<Config, Error> {
    let file = match &common.kubeconfig {
        Some(path) => Some(Kubeconfig::read_from(path)?),
        None => Kubeconfig::from_env()?,
    };
    Ok(match file {
        Some(file) => Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?,
        None => Config::incluster()?,
    })
}

/// A client. Nothing is sent yet. `freshness` is told of every word of the watches that it makes.
pub fn connect(config: Config, freshness: &Freshness) -> Result<Client, Error> {
    client_with(config, DEADLINE, freshness)
}

/// A client with this configuration, deadline, and notes of its watches.
pub(crate) fn client_with(mut config: Config, deadline: Duration, freshness: &Freshness) -> Result<Client, Error> {
    // Silent repetition with growing pauses is wrong for a lease and for a review: who asks decides.
    config.default_retry = false;
    config.connect_timeout = Some(deadline);
    let user_agent = format!("{}/{}", process_name(), env!("CARGO_PKG_VERSION"));
    config.headers.push((USER_AGENT, HeaderValue::try_from(user_agent)?));
    let builder = ClientBuilder::try_from(config).map_err(|error| Error::Build(Box::new(error)))?;
    Ok(builder
        .with_layer(&tower::layer::layer_fn(|inner| DeadlineService { inner, deadline }))
        .with_layer(&tower::layer::layer_fn(Paged::new))
        .with_layer(&tower::layer::layer_fn(|inner| Noting::new(inner, freshness.clone())))
        .build())
}

/// The API server kept us waiting.
#[derive(Debug, thiserror::Error)]
#[error("the API server has not begun to answer within {} s", .0.as_secs_f32())]
struct Late(Duration);

/// Bounds the time to the response's headers, and between two pieces of its body.
#[derive(Clone, Debug)]
struct DeadlineService<S> {
    inner: S,
    deadline: Duration,
}

impl<S, B> Service<Request<Body>> for DeadlineService<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError, Future: Send + 'static>,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<UnsyncBoxBody<Bytes, BoxError>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let deadline = self.deadline;
        let is_watch = request
            .uri()
            .query()
            .is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
        let silence = if is_watch { WATCH_SILENCE } else { deadline };
        let response = tokio::time::timeout(deadline, self.inner.call(request));
        Box::pin(async move {
            let response = response.await.map_err(|_| Late(deadline))??;
            Ok(response.map(|body| TimeoutBody::new(silence, body).map_err(Into::into).boxed_unsync()))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;

    use axum::Router;
    use axum::extract::Query;
    use futures::{StreamExt as _, TryStreamExt as _, pin_mut};
    use http::{HeaderMap, StatusCode};
    use k8s_openapi::api::core::v1::Namespace;
    use kube::Api;
    use kube::api::{ListParams, WatchParams};
    use tokenscope_fixtures::retry_while;
    use tokio::net::TcpListener;

    use super::*;

    const SHORT: Duration = Duration::from_millis(300);

    /// Longer than a machine stalls.
    const LONG: Duration = Duration::from_secs(60);

    async fn namespaces_from(app: Router, deadline: Duration) -> Api<Namespace> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        namespaces_at(address, deadline)
    }

    fn namespaces_at(address: std::net::SocketAddr, deadline: Duration) -> Api<Namespace> {
        let config = Config::new(format!("http://{address}").parse().unwrap());
        Api::all(client_with(config, deadline, &Freshness::default()).unwrap())
    }

    fn is_late(error: &kube::Error) -> bool {
        error.to_string().contains("has not begun to answer within")
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_costs_no_more_than_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let namespaces = namespaces_at(listener.local_addr().unwrap(), SHORT);
        let began = Instant::now();
        let error = namespaces.get("shop").await.unwrap_err();
        assert!(
            began.elapsed() >= SHORT && began.elapsed() < LONG,
            "{:?}",
            began.elapsed()
        );
        assert!(
            error.to_string().contains("has not begun to answer within 0.3 s"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_watch_may_be_silent_for_longer_and_a_list_may_not() {
        let app = Router::new().fallback(async |Query(query): Query<HashMap<String, String>>| {
            let is_watch = query.contains_key("watch");
            let pieces = futures::stream::iter(["a", "b"]).then(move |name| async move {
                if name == "b" {
                    tokio::time::sleep(SHORT * 3).await;
                }
                let object = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
                let event = serde_json::json!({"type": "ADDED", "object": object});
                Ok::<_, std::convert::Infallible>(if is_watch { format!("{event}\n") } else { " ".to_owned() })
            });
            axum::body::Body::from_stream(pieces)
        });
        let namespaces = namespaces_from(app, SHORT).await;

        // A machine that stalls may do so before the answer has begun, which then is too late.
        let was_late = |watched: &Result<_, kube::Error>| watched.as_ref().is_err_and(is_late);
        let watch = async || namespaces.watch(&WatchParams::default(), "0").await;
        let events = retry_while(was_late, 20, watch).await.unwrap();
        pin_mut!(events);
        let mut seen = 0;
        while events.try_next().await.unwrap().is_some() {
            seen += 1;
        }
        assert_eq!(seen, 2);
        // A list whose rest comes after the silence is no JSON, which is another error.
        let error = namespaces.list(&ListParams::default()).await.unwrap_err();
        assert!(!matches!(error, kube::Error::SerdeError(_)), "{error:?}");
    }

    #[tokio::test]
    async fn an_overloaded_server_is_asked_once_and_told_who_asks() {
        let requests = Arc::new(AtomicU32::new(0));
        let counted = requests.clone();
        let app = Router::new().fallback(async move |headers: HeaderMap| {
            counted.fetch_add(1, Ordering::Relaxed);
            let user_agent = headers[USER_AGENT].to_str().unwrap().to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, user_agent)
        });
        let namespaces = namespaces_from(app, LONG).await;
        let error = namespaces.get("shop").await.unwrap_err().to_string();
        assert!(
            error.contains("tokenscope_platform") && error.contains(concat!("/", env!("CARGO_PKG_VERSION"))),
            "{error}"
        );
        assert_eq!(requests.load(Ordering::Relaxed), 1);
    }
}
