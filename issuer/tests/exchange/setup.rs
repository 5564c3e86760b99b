//! A cluster of values behind the issuer's router: pods, policies, the API server's keys.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use kube::Client;
use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokenscope_core::{Algorithm, ClusterName, Settings};
use tokenscope_issuer::audit::AuditLog;
use tokenscope_issuer::bodies::Bodies;
use tokenscope_issuer::buckets::Buckets;
use tokenscope_issuer::cluster_index::ClusterIndex;
use tokenscope_issuer::cluster_keys::ClusterKeys;
use tokenscope_issuer::deadlines::ExchangeDeadlines;
use tokenscope_issuer::events::events;
use tokenscope_issuer::exchange::Exchange;
use tokenscope_issuer::exchange_request::GRANT_TYPE;
use tokenscope_issuer::keys::{self, SigningKey};
use tokenscope_issuer::metrics::IssuerMetrics;
use tokenscope_issuer::oauth::TOKEN_TYPE;
use tokenscope_issuer::rotation::KeyRing;
use tokenscope_issuer::router::{IssuerService, router};
use tokenscope_issuer::signers::{CurrentSigners, Signers};
use tokenscope_issuer::token_review::TokenReviews;
use tokenscope_issuer::work::SignatureThreads;
use tokenscope_platform::events::EventWriter;
use tokenscope_platform::freshness::Freshness;
use tokenscope_platform::metrics::Registry;
use tower::ServiceExt as _;

use crate::fixtures::{CLUSTER, Cluster, EXCHANGE, NOW, claims};

pub(crate) const URL: &str = "https://issuer.example.com/a";
/// Longer than a decision takes without optimisation and beside other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
pub(crate) const ROLE: &str = "arn:aws:iam::111122223333:role/shop/orders";
pub(crate) const POD_UID: &str = "5f2c9a10-2c9f-4f57-8d1c-63c4c2f8f8d1";

/// An API server that publishes these keys; it counts how often it was asked.
fn api_server(published: &Arc<Mutex<String>>, asked: &Arc<AtomicUsize>) -> Client {
    let (published, asked) = (published.clone(), asked.clone());
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        asked.fetch_add(1, Ordering::Relaxed);
        let text = match request.uri().path() {
            "/openid/v1/jwks" => published.lock().unwrap().clone(),
            _ => json!({"issuer": CLUSTER, "jwks_uri": "https://evil.example/keys"}).to_string(),
        };
        let body = kube::client::Body::from(text.into_bytes());
        async move { Ok::<_, Infallible>(Response::new(body)) }
    });
    Client::new(service, "default")
}

/// A pod with a record of admission: `team` is its label then, and `now` the label that it bears now.
pub(crate) fn pod(team: &str, now: &str) -> Value {
    let record = json!({
        "grants": [{"policy": "TokenScopePolicy shop/orders", "role": ROLE, "containers": ["app"], "env": []}],
        "hash": "0011223344556677", "labels": {"team": team}, "annotations": {"tokenscope.io/role-arn": ROLE},
        "service_account_annotations": {},
    });
    json!({
        "metadata": {
            "name": "orders-1", "namespace": "shop", "uid": POD_UID,
            "labels": {"team": now, "tokenscope.io/reviewed": "granted"},
            "annotations": {"tokenscope.io/grant": record.to_string(), "tokenscope.io/role-arn": ROLE},
        },
        "spec": {"serviceAccountName": "orders", "containers": [{"name": "app"}]},
        "status": {"phase": "Running"},
    })
}

/// The same pod with a member of its record changed, or taken away by `null`.
pub(crate) fn recorded(mut pod: Value, member: &str, value: &Value) -> Value {
    let grant = &mut pod["metadata"]["annotations"]["tokenscope.io/grant"];
    let mut record: Value = serde_json::from_str(grant.as_str().unwrap()).unwrap();
    record[member] = value.clone();
    record.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    *grant = json!(record.to_string());
    pod
}

/// The same pod as versions admitted it that did not record the annotations of service accounts.
pub(crate) fn earlier(pod: Value) -> Value {
    recorded(pod, "service_account_annotations", &Value::Null)
}

/// A policy for pods of a team.
pub(crate) fn policy(team: &str) -> Value {
    policy_with(team, &json!({}))
}

/// The same with further members of its spec, or others.
pub(crate) fn policy_with(team: &str, members: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
        "metadata": {"name": "orders", "namespace": "shop", "uid": "policy-uid"},
        "spec": {
            "subjects": [{"serviceAccounts": ["orders"], "podSelector": {"matchLabels": {"team": team}}}],
            "roles": {"allowed": [ROLE]},
            "audiences": {"allowed": ["sts.amazonaws.com"]},
            "token": {"source": "Issuer", "algorithm": "ES256"},
        },
    });
    let spec = object["spec"].as_object_mut().unwrap();
    spec.extend(members.as_object().unwrap().clone());
    object
}

/// All of it.
pub(crate) struct Setup {
    pub(crate) cluster: Cluster,
    /// The key set of the API server.
    published: Arc<Mutex<String>>,
    pub(crate) index: Arc<ClusterIndex>,
    pub(crate) signers: CurrentSigners,
    pub(crate) registry: Registry,
    pub(crate) asked: Arc<AtomicUsize>,
    /// What would be written of refusals.
    pub(crate) told: EventWriter,
    pub(crate) app: Router,
}

/// An index that knows that there are no policies.
fn without_policies() -> Arc<ClusterIndex> {
    let index = Arc::new(ClusterIndex::default());
    for cluster in [false, true] {
        index.apply_policy(cluster, Event::Init);
        index.apply_policy(cluster, Event::InitDone);
    }
    index
}

impl Setup {
    /// One pod of team a, and its policy.
    pub(crate) async fn new() -> Self {
        Self::of_cluster(None).await
    }

    /// The same in a cluster with a name.
    pub(crate) async fn of_cluster(name: Option<ClusterName>) -> Self {
        Self::asking(name, None).await
    }

    /// The same where the API server is asked about each token too.
    pub(crate) async fn with_reviews(reviews: TokenReviews) -> Self {
        Self::asking(None, Some(reviews)).await
    }

    /// The same before pods and service accounts were listed: what is known of them is what was told since.
    pub(crate) async fn just_started() -> Self {
        Self::before_lists(None, None).await
    }

    async fn asking(name: Option<ClusterName>, reviews: Option<TokenReviews>) -> Self {
        let this = Self::before_lists(name, reviews).await;
        this.list_service_accounts();
        this.list_pods(vec![pod("a", "a")]);
        this
    }

    async fn before_lists(cluster_name: Option<ClusterName>, reviews: Option<TokenReviews>) -> Self {
        let deadlines = ExchangeDeadlines {
            exchange: PATIENCE,
            ..ExchangeDeadlines::default()
        };
        Self::within(deadlines, cluster_name, reviews).await
    }

    /// The same as usual where an exchange has only the time that it has in an installation.
    pub(crate) async fn with_the_usual_deadlines() -> Self {
        let this = Self::within(ExchangeDeadlines::default(), None, None).await;
        this.list_service_accounts();
        this.list_pods(vec![pod("a", "a")]);
        this
    }

    async fn within(
        deadlines: ExchangeDeadlines,
        cluster_name: Option<ClusterName>,
        reviews: Option<TokenReviews>,
    ) -> Self {
        let cluster = Cluster::new(Algorithm::ES256);
        let published = Arc::new(Mutex::new(keys::document([cluster.key.public()])));
        let asked = Arc::new(AtomicUsize::new(0));
        let keys = ClusterKeys::new(api_server(&published, &asked), None, Some(EXCHANGE.into()));
        keys.refresh(Duration::ZERO).await.unwrap();
        let index = without_policies();
        let (issuer, signers) = (URL.parse().unwrap(), signers());
        let registry = Registry::new();
        let now = Instant::now();
        let exchange = Exchange {
            issuer,
            most_lifetime: 3600,
            settings: settings(),
            cluster_name,
            index: index.clone(),
            freshness: Freshness::new(Duration::from_secs(300)),
            signers: signers.clone(),
            algorithms: vec![Algorithm::ES256],
            pods: Buckets::for_pods(20, 1, now),
            namespaces: Buckets::new(60, 1, now),
        };
        let metrics = IssuerMetrics::new(&registry);
        let (events, told) = events(
            api_server(&published, &asked),
            "issuer-0",
            Timestamp::now,
            metrics.clone(),
        );
        let app = router(IssuerService {
            exchange: Arc::new(exchange),
            audience: EXCHANGE.into(),
            cluster: Arc::new(keys),
            signers: signers.clone(),
            sources: Buckets::new(50, 1, now),
            bodies: Bodies::default(),
            threads: SignatureThreads::new(2),
            audit: AuditLog::new(metrics.audit_suppressed.clone(), now),
            deadlines,
            reviews,
            events,
            metrics,
            clock: || Timestamp::from_second(NOW).unwrap(),
        });
        let this = Self {
            cluster,
            published,
            index,
            signers,
            registry,
            asked,
            told,
            app,
        };
        this.put_namespace(&json!({}));
        this.put_pod(pod("a", "a"));
        this.put_policy(policy("a"));
        this.list_boundaries(&[]);
        this
    }

    /// From now on the API server publishes the key of this cluster too.
    pub(crate) fn publish_key_of(&self, other: &Cluster) {
        *self.published.lock().unwrap() = keys::document([self.cluster.key.public(), other.key.public()]);
    }

    /// These are all pods there are.
    pub(crate) fn list_pods(&self, pods: Vec<Value>) {
        self.index.apply_pod(Event::Init);
        for pod in pods {
            self.index
                .apply_pod(Event::InitApply(serde_json::from_value(pod).unwrap()));
        }
        self.index.apply_pod(Event::InitDone);
    }

    /// There is no service account with annotations.
    pub(crate) fn list_service_accounts(&self) {
        self.index.apply_service_account(Event::Init);
        self.index.apply_service_account(Event::InitDone);
    }

    /// The pods' service account has these annotations now.
    pub(crate) fn put_service_account(&self, annotations: &Value) {
        self.put_service_account_in("shop", "orders", annotations);
    }

    pub(crate) fn put_service_account_in(&self, namespace: &str, name: &str, annotations: &Value) {
        let account = json!({"metadata": {"name": name, "namespace": namespace, "annotations": annotations}});
        let event = Event::Apply(serde_json::from_value(account).unwrap());
        self.index.apply_service_account(event);
    }

    pub(crate) fn put_pod(&self, pod: Value) {
        self.index.apply_pod(Event::Apply(serde_json::from_value(pod).unwrap()));
    }

    pub(crate) fn put_namespace(&self, labels: &Value) {
        self.put_namespace_named("shop", labels);
    }

    pub(crate) fn put_namespace_named(&self, name: &str, labels: &Value) {
        let namespace = json!({"metadata": {"name": name, "labels": labels}});
        let event = Event::Apply(serde_json::from_value(namespace).unwrap());
        self.index.apply_namespace(event);
    }

    pub(crate) fn put_policy(&self, policy: Value) {
        let event = Event::Apply(serde_json::from_value(policy).unwrap());
        self.index.apply_policy(false, event);
    }

    /// These are all boundaries there are, by their specs.
    pub(crate) fn list_boundaries(&self, specs: &[Value]) {
        self.index.apply_boundary(Event::Init);
        for (at, spec) in specs.iter().enumerate() {
            let boundary: DynamicObject = serde_json::from_value(json!({
                "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopeBoundary",
                "metadata": {"name": format!("b{at}")}, "spec": spec,
            }))
            .unwrap();
            self.index.apply_boundary(Event::InitApply(boundary));
        }
        self.index.apply_boundary(Event::InitDone);
    }

    /// The honest pod's token.
    pub(crate) fn subject(&self) -> String {
        self.cluster.token(&claims(&json!({})))
    }

    pub(crate) async fn exchange(&self, subject: &str, audience: &str) -> (StatusCode, Value) {
        self.post(&form(subject, audience)).await
    }

    pub(crate) async fn post(&self, body: &str) -> (StatusCode, Value) {
        let request = Request::post("/token").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// The error and its description of an exchange for STS.
    pub(crate) async fn refused(&self) -> (String, String) {
        self.refused_for(&self.subject(), "sts.amazonaws.com").await
    }

    pub(crate) async fn refused_for(&self, subject: &str, audience: &str) -> (String, String) {
        let (status, body) = self.exchange(subject, audience).await;
        assert_ne!(status, StatusCode::OK, "{body}");
        assert!(body.get("access_token").is_none());
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        (text("error"), text("error_description"))
    }
}

/// One key that signs.
fn signers() -> CurrentSigners {
    let key = SigningKey::generate(Algorithm::ES256).unwrap();
    let ring = KeyRing::of_signing_keys([key], Timestamp::UNIX_EPOCH).unwrap();
    let signers = CurrentSigners::default();
    signers.store(Some(Arc::new(Signers::new(ring, &URL.parse().unwrap()))));
    signers
}

fn settings() -> Settings {
    Settings {
        issuer: Some(URL.into()),
        ..Settings::default()
    }
}

pub(crate) fn form(subject: &str, audience: &str) -> String {
    let parameters = [
        ("grant_type", GRANT_TYPE),
        ("subject_token", subject),
        ("subject_token_type", TOKEN_TYPE),
        ("audience", audience),
    ];
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .finish()
}
