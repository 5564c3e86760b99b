//! What the chart's values change: where the socket is, and the sidecar's image and resources.

use anyhow::ensure;
use serde_json::json;
use tokenscope_e2e::admission::try_pod;
use tokenscope_e2e::control_plane::{self, ControlPlane};
use tokenscope_e2e::eventually;
use tokenscope_e2e::fixtures::{ORDERS, PROPAGATION, Shop, container_of, variable, volume};
use tokenscope_e2e::install::{Options, install};

use crate::status::{ready, status};
use crate::{RESTRICTED, SIDECAR, SOCKET_VOLUME, SPIFFE_ID, from_spiffe, restricted};

#[tokio::test]
async fn a_socket_from_a_folder_of_the_node_is_refused_by_restricted_pod_security_and_admitted_elsewhere() {
    let control_plane = ControlPlane::start(control_plane::Options::default()).await.unwrap();
    let values = json!({
        "spiffe": {"workloadApi": {"source": "hostPath", "socketFile": "api.sock"}},
        "sidecar": {
            "image": {"digest": format!("sha256:{}", "0".repeat(64))}, "logLevel": "debug",
            "resources": {"requests": {"cpu": "20m", "memory": "16Mi"}, "limits": {"cpu": "20m", "memory": "16Mi"}},
        },
    });
    let options = Options {
        values,
        ..Options::default()
    };
    let _installed = install(&control_plane, options).await.unwrap();
    let privileged = Shop::open(&control_plane, "privileged", &[]).await.unwrap();
    let spec = from_spiffe(&[ORDERS], &json!({"spiffeId": SPIFFE_ID}));
    privileged.policy("orders", spec.clone()).await.unwrap();
    let pod = privileged
        .granted(&privileged.asking("orders", ORDERS))
        .await
        .unwrap()
        .body;
    assert_eq!(
        volume(&pod, SOCKET_VOLUME).unwrap()["hostPath"],
        json!({"path": "/run/spire/agent-sockets", "type": "Directory"})
    );
    let sidecar = container_of(&pod, SIDECAR);
    assert_eq!(
        sidecar["image"],
        format!("localhost/tokenscope-sidecar@sha256:{}", "0".repeat(64))
    );
    assert_eq!(sidecar["resources"]["limits"], json!({"cpu": "20m", "memory": "16Mi"}));
    assert_eq!(
        variable(&pod, SIDECAR, "TOKENSCOPE_LOG_LEVEL").as_deref(),
        Some("debug")
    );
    assert_eq!(
        variable(&pod, SIDECAR, "SPIFFE_ENDPOINT_SOCKET").as_deref(),
        Some("unix:///spiffe-workload-api/api.sock")
    );

    let strict = Shop::open(&control_plane, "strict", RESTRICTED).await.unwrap();
    strict.policy("orders", spec).await.unwrap();
    let pod = restricted(strict.asking("orders", ORDERS));
    eventually(PROPAGATION, "Pod Security refuses the folder of the node", async || {
        let answer = try_pod(&strict.client, &pod).await?;
        ensure!(
            answer.message().contains("violates PodSecurity") && answer.message().contains("hostPath"),
            "{} {}",
            answer.status,
            answer.body
        );
        Ok(())
    })
    .await
    .unwrap();

    // This installation does not say whose tokens SPIFFE's are.
    let status = status(&privileged, |status| ready(status).is_some()).await.unwrap();
    let message = ready(&status).unwrap()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("the chart's value spiffe.issuer says it"), "{message}");
}
