//! Another container of the pod that takes the sidecar's port while the sidecar starts again.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use tokenscope_e2e::eventually;
use tokenscope_e2e::fixtures::PROPAGATION;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::served_sdk::{ROLE_SESSION, ServedPod};

type Heard = Arc<Mutex<Vec<String>>>;

/// A server that has the port, and writes down the authorizations that it is shown.
struct Neighbour {
    heard: Heard,
    server: JoinHandle<()>,
}

impl Neighbour {
    async fn take(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let heard = Heard::default();
        let app = Router::new().fallback(hear).with_state(Arc::clone(&heard));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { heard, server }
    }

    /// Gives the port back.
    async fn leave(self) -> Vec<String> {
        self.server.abort();
        assert!(self.server.await.unwrap_err().is_cancelled());
        self.heard.lock().unwrap().clone()
    }
}

async fn hear(State(heard): State<Heard>, request: Request) -> StatusCode {
    let shown = request.headers().get(AUTHORIZATION);
    let shown = shown.map_or("", |value| value.to_str().unwrap());
    heard.lock().unwrap().push(shown.to_owned());
    StatusCode::FORBIDDEN
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_names_the_port_that_a_neighbour_took_and_what_the_neighbour_heard_opens_nothing_later() {
    let pod = ServedPod::create("neighbour").await;
    let port = pod.told.port;
    let sidecar = pod.start_sidecar();
    assert_eq!(pod.who_in_the_end().await.trim(), ROLE_SESSION);
    let of_first_start = fs::read_to_string(&pod.authorization).unwrap();

    sidecar.kill().unwrap();
    let neighbour = Neighbour::take(port).await;
    pod.who().unwrap_err(); // the SDK doesn't know whom it asks
    sidecar.restart().unwrap();
    let status = eventually(PROPAGATION, "the start fails", async || {
        sidecar.exit_status()?.context("it runs")
    });
    assert!(!status.await.unwrap().success());
    let log = sidecar.log();
    let named = format!("the port {port} is taken at 127.0.0.1:{port}: another container of this pod listens there");
    assert!(log.contains(&named), "{log}");
    pod.who().unwrap_err();

    let heard = neighbour.leave().await;
    assert!(heard.contains(&of_first_start), "the SDK showed what it had");
    sidecar.restart().unwrap();
    assert_eq!(pod.who_in_the_end().await.trim(), ROLE_SESSION);
    let heard_file = pod.authorization.with_extension("heard");
    for authorization in heard {
        fs::write(&heard_file, authorization).unwrap();
        let refused = pod.who_with(&heard_file).unwrap_err().to_string();
        assert!(refused.contains("InvalidAuthorization"), "{refused}");
    }
    assert_eq!(pod.who().unwrap().trim(), ROLE_SESSION);
}
