//! Webhooks that always say the same, on the same stack as ours: what a review costs before anything is reviewed, and what it costs
//! where its bytes are read as JSON and a patch is sent.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::de::IgnoredAny;
use tokenscope_platform::tls::{self, ConnectionMetrics, Limits, ServingCertificate};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The numbers of containers of the recorded reviews.
pub(crate) const RECORDED: [usize; 3] = [1, 3, 10];

/// The path of the constant answer.
pub(crate) const ANSWER: &str = "/constant";
/// The path of the constant answer with a constant patch: it shows what the API server takes to apply one.
pub(crate) const PATCH: &str = "/constant-patch";
/// The path of an answer as long as one with a token, to a request that is read and not understood.
pub(crate) const TOKEN: &str = "/constant-token";
/// The length of an answer with a token of the bench's policies.
const TOKEN_ANSWER: usize = 1400;

/// The options of its run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
    /// The certificate, PEM
    #[arg(long)]
    certificate: PathBuf,
    /// Its key, PEM
    #[arg(long)]
    key: PathBuf,
    /// A file with the patch of the answers that have one, in base64; those of recorded reviews are beside it
    #[arg(long)]
    patch: PathBuf,
    /// How many threads serve
    #[arg(long)]
    workers: usize,
}

/// Serves until it is killed.
pub(crate) fn serve(arguments: &Arguments) -> Result<()> {
    let certificate =
        ServingCertificate::from_pem(std::fs::read(&arguments.certificate)?, std::fs::read(&arguments.key)?)?;
    let patch = members(arguments.patch.clone());
    let mut router = Router::new()
        .route(ANSWER, post(async |body: Bytes| answer(&body, "")))
        .route(PATCH, post(async move |body: Bytes| answer(&body, &patch)))
        .route(TOKEN, post(async |_: Bytes| token_answer()));
    for containers in RECORDED {
        let patch = members(patch_of_recorded(&arguments.patch, containers));
        let handler = post(async move |body: Bytes| read_and_answer(&body, &patch));
        router = router.route(&read_path(containers), handler);
    }
    let router = router.layer(DefaultBodyLimit::max(8 << 20));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(arguments.workers)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(arguments.listen)
            .await
            .with_context(|| format!("can't listen on {}", arguments.listen))?;
        let config = tls::server_config(certificate, None)?;
        tls::serve(
            listener,
            config,
            router,
            Limits::default(),
            ConnectionMetrics::default(),
            CancellationToken::new(),
        )
        .await;
        Ok(())
    })
}

/// The file with the patch for the recorded review of so many containers, beside `patch`.
pub(crate) fn patch_of_recorded(patch: &Path, containers: usize) -> PathBuf {
    patch.with_extension(containers.to_string())
}

/// The path of the constant answer with the patch for the recorded review of so many containers, to a request that is read as JSON.
pub(crate) fn read_path(containers: usize) -> String {
    format!("/read-and-patch/{containers}")
}

/// Checks all of a request's JSON, and keeps nothing of it.
fn read_and_answer(body: &Bytes, patch: &str) -> Response {
    match serde_json::from_slice(body) {
        Ok(IgnoredAny) => answer(body, patch),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

fn token_answer() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], "x".repeat(TOKEN_ANSWER)).into_response()
}

/// The members of an answer with a patch.
fn members(file: PathBuf) -> Arc<LazyLock<String, impl FnOnce() -> String>> {
    // The file is written once the answer that it is taken from is known.
    Arc::new(LazyLock::new(move || {
        let patch = std::fs::read_to_string(file).unwrap_or_default();
        format!(r#","patchType":"JSONPatch","patch":"{patch}""#)
    }))
}

/// The API server takes an answer only with the ID of its question, which stands near the beginning.
fn answer(body: &Bytes, patch: &str) -> Response {
    const BEFORE: &[u8] = b"\"uid\":\"";
    const LENGTH: usize = 36;
    let from = body
        .windows(BEFORE.len())
        .position(|window| window == BEFORE)
        .map(|at| at + BEFORE.len());
    let uid = from.and_then(|from| std::str::from_utf8(body.get(from..from + LENGTH)?).ok());
    let Some(uid) = uid else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let answer = format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{{"uid":"{uid}","allowed":true{patch}}}}}"#
    );
    ([(header::CONTENT_TYPE, "application/json")], answer).into_response()
}
