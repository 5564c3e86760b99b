//! An API server that has one Secret, with its versions.
#![allow(dead_code, reason = "each test file uses its part")]

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokenscope_issuer::key_source::SecretKeys;

/// The one Secret of an API server.
pub(crate) type Stored = Arc<Mutex<Option<Value>>>;

pub(crate) fn api_server(stored: &Stored) -> Client {
    let stored = stored.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let stored = stored.clone();
        async move {
            let method = request.method().clone();
            let bytes = request.into_body().collect().await.unwrap().to_bytes();
            let (status, body) = answer(&mut stored.lock().unwrap(), &method, &bytes);
            let body = Body::from(body.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
        }
    });
    Client::new(service, "default")
}

fn answer(stored: &mut Option<Value>, method: &Method, bytes: &[u8]) -> (u16, Value) {
    let failed = |code: u16, reason: &str| {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason});
        (code, status)
    };
    let version = |secret: &Value| secret["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    match (method, &*stored) {
        (&Method::GET, None) => failed(404, "NotFound"),
        (&Method::GET, Some(secret)) => (200, secret.clone()),
        (&Method::POST, Some(_)) => failed(409, "AlreadyExists"),
        (_, before) => {
            let mut secret: Value = serde_json::from_slice(bytes).unwrap();
            let current = before.as_ref().and_then(version);
            if method == Method::PUT && version(&secret) != current {
                return failed(409, "Conflict");
            }
            let next: u64 = current.map_or(0, |current| current.parse().unwrap());
            secret["metadata"]["resourceVersion"] = json!((next + 1).to_string());
            *stored = Some(secret.clone());
            (200, secret)
        }
    }
}

pub(crate) fn secret(stored: &Stored) -> SecretKeys {
    SecretKeys {
        secrets: Api::namespaced(api_server(stored), "tokenscope-system"),
        name: "keys".to_owned(),
    }
}
