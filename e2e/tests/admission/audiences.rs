//! An API server one of whose own audiences is to be locked.

use anyhow::ensure;
use serde_json::json;
use tokenscope_e2e::admission::{accepts, create};
use tokenscope_e2e::control_plane::{ControlPlane, Options};
use tokenscope_e2e::eventually;
use tokenscope_e2e::fixtures::{ORDERS, Shop, reviewed};
use tokenscope_e2e::install::{self, install};
use tokenscope_index::audiences::audiences_of;

use crate::{SOON, with_token};

const OWN: &str = "sts.amazonaws.com";
const PROGRAMS: [&str; 2] = ["tokenscope-operator-0", "tokenscope-webhook-0"];

async fn control_plane() -> ControlPlane {
    control_plane_of(OWN).await
}

/// An API server with this audience of its own.
async fn control_plane_of(audience: &str) -> ControlPlane {
    let arguments = vec![format!("--api-audiences={audience}")];
    ControlPlane::start(Options {
        arguments,
        ..Options::default()
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn an_audience_of_the_api_server_can_not_be_locked_and_both_programs_say_so_and_end() {
    for mode in ["warn", "deny"] {
        let control_plane = control_plane().await;
        let options = install::Options {
            values: json!({"lock": {"mode": mode}}),
            ..install::Options::default()
        };
        // The harness gives up at the first program that ends; both were started.
        let error = format!("{:#}", install(&control_plane, options).await.unwrap_err());
        assert!(error.contains("has ended with exit status: 1"), "{error}");
        for program in PROGRAMS {
            let log = control_plane.folder().join(format!("logs/{program}.log"));
            let said = std::fs::read_to_string(&log).unwrap();
            assert!(
                said.contains(&format!(
                    "--lock-audience: {OWN} is an audience of the API server itself"
                )),
                "{mode}, {program}: {said}"
            );
        }
    }
}

#[tokio::test]
async fn an_issuer_whose_url_is_an_audience_of_the_api_server_is_refused_by_both_programs() {
    const URL: &str = "https://tokens.example.com";
    let control_plane = control_plane_of(URL).await;
    let options = install::Options {
        values: json!({"issuer": {"enabled": true, "url": URL}}),
        ..install::Options::default()
    };
    install(&control_plane, options).await.unwrap_err();
    for program in PROGRAMS {
        let log = control_plane.folder().join(format!("logs/{program}.log"));
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(
            said.contains(&format!("--issuer-url: {URL} is an audience of the API server itself")),
            "{program}: {said}"
        );
    }
}

#[tokio::test]
async fn with_audit_or_another_locked_audience_all_works_and_no_pod_is_refused_its_token_for_the_api_server() {
    for lock in [
        json!({"mode": "audit"}),
        json!({"mode": "deny", "audiences": ["vault"]}),
    ] {
        let control_plane = control_plane().await;
        let options = install::Options {
            values: json!({"lock": lock}),
            ..install::Options::default()
        };
        let _installed = install(&control_plane, options).await.unwrap();
        let shop = Shop::open(&control_plane, "shop", &[]).await.unwrap();
        shop.allow_orders().await.unwrap();
        shop.granted(&shop.asking("asking", ORDERS)).await.unwrap();

        // Each pod has a token without an audience: one for the API server.
        let pod = accepts(&shop.client, &shop.pod("plain")).await.unwrap();
        let volumes = pod["spec"]["volumes"].to_string();
        assert!(
            volumes.contains("serviceAccountToken") && !volumes.contains("audience"),
            "{volumes}"
        );
        assert_eq!(reviewed(&pod), None);
        // Such a token is worth the role: why this audience can't be locked, and must not be one of the API server.
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let answer = create(&shop.client, &shop.path("serviceaccounts/orders/token"), &request)
            .await
            .unwrap();
        let audiences = audiences_of(answer.body["status"]["token"].as_str().unwrap());
        assert!(audiences.iter().any(|audience| audience == OWN), "{audiences:?}");

        let locked = with_token(shop.pod("vault"), "vault");
        eventually(SOON, "the other audience is locked as the mode says", async || {
            let answer = tokenscope_e2e::admission::try_pod(&shop.client, &locked).await?;
            ensure!(answer.accepted() == (lock["mode"] == "audit"), "{}", answer.body);
            Ok(())
        })
        .await
        .unwrap();
    }
}
