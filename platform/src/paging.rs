//! Pages of lists bounded in bytes: the API counts only objects, and an object may have 100 bytes or 3 MiB.
//!
//! A page that turns out too large is not read to its end, but asked for again with a smaller limit. A continue token names
//! where the list goes on and not how far, so the answer to a smaller page fits into the same list.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Bytes, HttpBody};
use futures::future::BoxFuture;
use http::uri::{Parts, PathAndQuery, Uri};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Either, Full};
use kube::client::Body;
use tower::{BoxError, Service, ServiceExt as _};

/// The largest page that is read, so that a list never takes much more memory than this and what is kept of it.
const MOST_PAGE_BYTES: usize = 4 << 20;
/// The largest page of a single object. etcd takes 1.5 MiB, which JSON can make some times as large.
const MOST_OBJECT_BYTES: usize = 16 << 20;
/// By how much a limit shrinks after a page that was too large.
const SHRINK: u32 = 4;
/// A page of less than this leaves room for a larger one.
const SMALL_PAGE_BYTES: usize = MOST_PAGE_BYTES / 4;
/// The most lists' limits that are remembered. A process has a few; beyond it all begin anew.
const MOST_LISTS: usize = 64;

/// The reason why a page was not read.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("a single object of the list {path} has more than {} MiB", MOST_OBJECT_BYTES >> 20)]
    Object { path: String },
    #[error("the list's address can't be changed")]
    Address(#[from] http::Error),
}

/// Bounds the pages of the lists that are asked for with a limit; all other requests pass.
#[derive(Debug)]
pub(crate) struct Paged<S> {
    /// A page may take several requests, and the service can't be cloned. Only locked until it has taken a request.
    inner: Arc<tokio::sync::Mutex<S>>,
    limits: PageLimits,
}

/// By path, the limit that is asked for in place of a higher one.
#[derive(Clone, Debug, Default)]
struct PageLimits(Arc<Mutex<HashMap<String, u32>>>);

/// A page's body, if it was read whole, or the answer's own.
type PageBody<B> = Either<Full<Bytes>, B>;

impl<S> Paged<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner: Arc::new(tokio::sync::Mutex::new(inner)),
            limits: PageLimits::default(),
        }
    }
}

impl<S, B> Service<Request<Body>> for Paged<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError, Future: Send> + Send + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin + Send + 'static,
{
    type Response = Response<PageBody<B>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (inner, limits) = (self.inner.clone(), self.limits.clone());
        Box::pin(async move {
            match limit(&request) {
                Some(limit) => page(&inner, request, limit, &limits).await,
                None => Ok(send(&inner, request).await?.map(Either::Right)),
            }
        })
    }
}

async fn send<S>(inner: &tokio::sync::Mutex<S>, request: Request<Body>) -> Result<S::Response, BoxError>
where
    S: Service<Request<Body>, Error = BoxError>,
{
    let answer = inner.lock().await.ready().await?.call(request);
    answer.await
}

async fn page<S, B>(
    inner: &tokio::sync::Mutex<S>,
    request: Request<Body>,
    wanted: u32,
    limits: &PageLimits,
) -> Result<Response<PageBody<B>>, BoxError>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let (request, _) = request.into_parts();
    let path = request.uri.path().to_owned();
    let mut limit = limits.of(&path, wanted);
    loop {
        let asked = with_limit(&request.uri, &request.headers, limit).map_err(Error::Address)?;
        let answer = send(inner, asked).await?;
        if !answer.status().is_success() {
            return Ok(answer.map(Either::Right));
        }
        let most = if limit > 1 { MOST_PAGE_BYTES } else { MOST_OBJECT_BYTES };
        let (head, body) = answer.into_parts();
        if let Some(bytes) = read(body, most).await? {
            if bytes.len() < SMALL_PAGE_BYTES {
                limits.set(&path, wanted, limit + limit.div_ceil(4));
            }
            return Ok(Response::from_parts(head, Either::Left(Full::new(bytes))));
        }
        if limit <= 1 {
            return Err(Error::Object { path }.into());
        }
        limit = (limit / SHRINK).max(1);
        limits.set(&path, wanted, limit);
        tracing::info!(
            path,
            limit,
            "a page of the list was too large, so a smaller one is read"
        );
    }
}

/// The whole body; none if it has more than `most` bytes.
async fn read<B>(mut body: B, most: usize) -> Result<Option<Bytes>, BoxError>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    if body.size_hint().lower() > most as u64 {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(Into::into)?.into_data() {
            if bytes.len() + data.len() > most {
                return Ok(None);
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(Some(bytes.into()))
}

/// The limit of a request for a list, if it has one.
fn limit(request: &Request<Body>) -> Option<u32> {
    if request.method() != Method::GET {
        return None;
    }
    let mut pairs = request.uri().query()?.split('&');
    if pairs.clone().any(|pair| pair == "watch=true") {
        return None;
    }
    pairs.find_map(|pair| pair.strip_prefix("limit="))?.parse().ok()
}

fn with_limit(uri: &Uri, headers: &HeaderMap, limit: u32) -> Result<Request<Body>, http::Error> {
    let others = uri.query().unwrap_or_default().split('&');
    let others: Vec<&str> = others.filter(|pair| !pair.starts_with("limit=")).collect();
    let mut query = format!("{}?limit={limit}", uri.path());
    for pair in others.into_iter().filter(|pair| !pair.is_empty()) {
        query.push('&');
        query.push_str(pair);
    }
    let mut parts: Parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(query)?);
    let mut request = Request::get(Uri::from_parts(parts)?).body(Body::empty())?;
    request.headers_mut().clone_from(headers);
    Ok(request)
}

impl PageLimits {
    fn of(&self, path: &str, wanted: u32) -> u32 {
        self.locked().get(path).copied().unwrap_or(wanted).min(wanted)
    }

    fn set(&self, path: &str, wanted: u32, limit: u32) {
        let mut limits = self.locked();
        if limit >= wanted {
            limits.remove(path);
            return;
        }
        if limits.len() >= MOST_LISTS && !limits.contains_key(path) {
            limits.clear();
        }
        limits.insert(path.to_owned(), limit);
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ListParams;
    use kube::{Api, Client};
    use serde_json::json;

    use super::*;

    /// An API server with objects of these sizes, and the limits that it was asked for.
    fn api_server(sizes: Vec<usize>) -> (Api<ConfigMap>, Arc<Mutex<Vec<usize>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let limits = asked.clone();
        let server = tower::service_fn(move |request: Request<Body>| {
            let query: HashMap<String, String> = request
                .uri()
                .query()
                .unwrap()
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
            let limit: usize = query["limit"].parse().unwrap();
            limits.lock().unwrap().push(limit);
            let from: usize = query.get("continue").map_or(0, |token| token.parse().unwrap());
            let to = (from + limit).min(sizes.len());
            let items: Vec<_> = (from..to)
                .map(|index| json!({"metadata": {"name": index.to_string()}, "data": {"x": "x".repeat(sizes[index])}}))
                .collect();
            let mut metadata = json!({"resourceVersion": "1"});
            if to < sizes.len() {
                metadata["continue"] = json!(to.to_string());
            }
            let list = json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": items});
            let body = Body::from(list.to_string().into_bytes());
            async move { Ok::<_, BoxError>(Response::new(body)) }
        });
        (Api::all(Client::new(Paged::new(server), "default")), asked)
    }

    /// The names of all objects, and the most that one page had.
    async fn all(api: &Api<ConfigMap>) -> kube::Result<(Vec<String>, usize)> {
        let (mut names, mut most) = (Vec::new(), 0);
        let mut parameters = ListParams::default().limit(200);
        loop {
            let page = api.list(&parameters).await?;
            most = most.max(
                page.items
                    .iter()
                    .flat_map(|item| &item.data)
                    .map(|data| data["x"].len())
                    .sum(),
            );
            names.extend(page.items.into_iter().filter_map(|item| item.metadata.name));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok((names, most)),
            }
        }
    }

    #[tokio::test]
    async fn a_list_of_large_objects_is_read_whole_in_pages_of_few_bytes() {
        let (api, _) = api_server(vec![1_400_000; 12]);
        let (names, most) = all(&api).await.unwrap();
        assert_eq!(names, (0..12).map(|index| index.to_string()).collect::<Vec<_>>());
        assert!(most <= MOST_PAGE_BYTES, "{most}");
    }

    #[tokio::test]
    async fn small_objects_come_in_pages_as_large_as_was_asked_for() {
        let (api, asked) = api_server(vec![100; 500]);
        assert_eq!(all(&api).await.unwrap().0.len(), 500);
        assert_eq!(*asked.lock().unwrap(), [200, 200, 200]);
    }

    #[tokio::test]
    async fn after_a_few_large_objects_pages_grow_again() {
        let sizes = [vec![1_000_000; 10], vec![100; 2000]].concat();
        let (api, asked) = api_server(sizes);
        assert_eq!(all(&api).await.unwrap().0.len(), 2010);
        let asked = asked.lock().unwrap();
        assert!(asked.iter().min() < Some(&5) && asked.last() > Some(&100), "{asked:?}");
        assert!(asked.len() < 60, "{asked:?}");
    }

    #[tokio::test]
    async fn a_single_object_beyond_the_page_is_read_and_one_beyond_any_bound_is_an_error() {
        let (api, _) = api_server(vec![MOST_PAGE_BYTES + 1, 10]);
        assert_eq!(all(&api).await.unwrap().0.len(), 2);
        let (api, _) = api_server(vec![MOST_OBJECT_BYTES, 10]);
        let error = all(&api).await.unwrap_err();
        assert!(
            crate::telemetry::chain(&error)
                .contains("a single object of the list /api/v1/configmaps has more than 16 MiB"),
            "{error}"
        );
    }
}
