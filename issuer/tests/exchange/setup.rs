//! A cluster of values behind the issuer's router: pods, policies, the API server's keys.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
use tokenscope_core::{Algorithm, Decision, Policy, PolicySet, Request as Facts, Settings, TokenSource, decide};
use tokenscope_issuer::bodies::Bodies;
use tokenscope_issuer::buckets::Buckets;
use tokenscope_issuer::cluster_index::{ClusterIndex, KnownPolicies};
use tokenscope_issuer::cluster_keys::ClusterKeys;
use tokenscope_issuer::decision::Rule;
use tokenscope_issuer::exchange::Exchange;
use tokenscope_issuer::exchange_request::{GRANT_TYPE, TOKEN_TYPE};
use tokenscope_issuer::keys::{self, SigningKey};
use tokenscope_issuer::metrics::Metrics;
use tokenscope_issuer::rotation::KeyRing;
use tokenscope_issuer::router::{IssuerService, router};
use tokenscope_issuer::signers::{CurrentSigners, Signers};
use tokenscope_issuer::work::SignatureThreads;
use tokenscope_platform::freshness::Freshness;
use tokenscope_platform::metrics::Registry;
use tower::ServiceExt as _;

use crate::world::{CLUSTER, Cluster, EXCHANGE, NOW, claims};

pub(crate) const URL: &str = "https://issuer.example.com/a";
pub(crate) const ROLE: &str = "arn:aws:iam::111122223333:role/shop/orders";
pub(crate) const POD_UID: &str = "5f2c9a10-2c9f-4f57-8d1c-63c4c2f8f8d1";

/// An API server that publishes the cluster's keys; it counts how often it was asked.
pub(crate) fn api_server(cluster: &Cluster, asked: &Arc<AtomicUsize>) -> Client {
    let published = keys::document([cluster.key.public()]);
    let asked = asked.clone();
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        asked.fetch_add(1, Ordering::Relaxed);
        let text = match request.uri().path() {
            "/openid/v1/jwks" => published.clone(),
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

/// The rule, as it will be once policies may have the source Issuer: whatever is granted is granted from there.
fn from_issuer(facts: &Facts<'_>, policies: &PolicySet, settings: &Settings, now: Timestamp) -> Decision {
    let mut decision = decide(facts, policies, settings, now);
    if let Decision::Granted(granted) = &mut decision {
        for container in &mut granted.containers {
            container.grant.source = TokenSource::Issuer;
        }
    }
    decision
}

/// A policy for pods of a team.
pub(crate) fn policy(team: &str) -> Policy {
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
        "metadata": {"name": "orders", "namespace": "shop", "uid": "policy-uid"},
        "spec": {
            "subjects": [{"serviceAccounts": ["orders"], "podSelector": {"matchLabels": {"team": team}}}],
            "roles": {"allowed": [ROLE]},
            "audiences": {"allowed": ["sts.amazonaws.com"]},
        },
    }))
    .unwrap();
    let (_, policy) = tokenscope_crds::read::read(&object);
    let mut policy = policy.unwrap();
    policy.token.algorithm = Algorithm::ES256;
    policy
}

/// All of it.
pub(crate) struct Setup {
    pub(crate) cluster: Cluster,
    pub(crate) index: Arc<ClusterIndex>,
    pub(crate) signers: CurrentSigners,
    pub(crate) registry: Registry,
    pub(crate) asked: Arc<AtomicUsize>,
    pub(crate) app: Router,
}

impl Setup {
    /// One pod of team a, and its policy.
    pub(crate) async fn new() -> Self {
        Self::deciding(from_issuer).await
    }

    pub(crate) async fn deciding(rule: Rule) -> Self {
        let cluster = Cluster::new(Algorithm::ES256);
        let asked = Arc::new(AtomicUsize::new(0));
        let keys = ClusterKeys::new(api_server(&cluster, &asked), None);
        keys.refresh(Duration::ZERO).await.unwrap();
        Self::with(cluster, asked, keys, rule)
    }

    fn with(cluster: Cluster, asked: Arc<AtomicUsize>, keys: ClusterKeys, rule: Rule) -> Self {
        let index = Arc::new(ClusterIndex::default());
        let namespace = json!({"metadata": {"name": "shop"}});
        index.apply_namespace(Event::Apply(serde_json::from_value(namespace).unwrap()));
        let ring = KeyRing::of_signing_keys([SigningKey::generate(Algorithm::ES256).unwrap()], Timestamp::UNIX_EPOCH);
        let issuer = URL.parse().unwrap();
        let signers = CurrentSigners::default();
        signers.store(Some(Arc::new(Signers::new(ring.unwrap(), &issuer))));
        let registry = Registry::new();
        let now = Instant::now();
        let exchange = Exchange {
            issuer,
            most_lifetime: 3600,
            rule,
            settings: Settings::default(),
            index: index.clone(),
            freshness: Freshness::new(Duration::from_secs(300)),
            signers: signers.clone(),
            pods: Buckets::new(20, 1, now),
        };
        let app = router(IssuerService {
            exchange: Arc::new(exchange),
            audience: EXCHANGE.into(),
            cluster: Arc::new(keys),
            signers: signers.clone(),
            sources: Buckets::new(50, 1, now),
            bodies: Bodies::default(),
            threads: SignatureThreads::new(2),
            metrics: Metrics::new(&registry),
            clock: || Timestamp::from_second(NOW).unwrap(),
        });
        let this = Self {
            cluster,
            index,
            signers,
            registry,
            asked,
            app,
        };
        this.put_pod(pod("a", "a"));
        this.put_policy(policy("a"));
        this
    }

    pub(crate) fn put_pod(&self, pod: Value) {
        self.index.apply_pod(Event::Apply(serde_json::from_value(pod).unwrap()));
    }

    pub(crate) fn put_policy(&self, policy: Policy) {
        let mut set = PolicySet::default();
        let uids = [(policy.name.clone(), "policy-uid".into())].into();
        set.insert(Arc::new(policy));
        self.index.publish(KnownPolicies {
            set,
            uids,
            ..KnownPolicies::default()
        });
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
