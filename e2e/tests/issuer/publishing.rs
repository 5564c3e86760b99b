//! The documents as files, for where AWS can't reach the issuer: of this issuer and of the cluster's own, by the same command.

use std::path::PathBuf;

use tokenscope_e2e::fixtures::PROPAGATION;
use tokenscope_e2e::issuer::document;
use tokenscope_e2e::published::{self, PublishedFolder, publish};
use tokenscope_e2e::token_maker::claims_of;
use tokenscope_issuer::issuer_url::{DISCOVERY_PATH, KEYS_PATH};

use super::*;

fn folder(environment: &Environment, name: &str) -> PathBuf {
    environment.control_plane.folder().join(name)
}

/// The status and the answer of the STS for a token.
async fn assumed(published: &PublishedFolder, subject: &str, token: &str) -> (u16, String) {
    let sts = published.sts(ORDERS, STS, subject).await.unwrap();
    let answer = assume(&sts, token).await.unwrap();
    sts.stop().await;
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_of_this_issuer_is_what_it_serves() {
    let environment = SHARED.environment().await;
    let tenant = Tenant::open(environment, "published-as-served").await;
    let mut spec = policy();
    spec["claims"]["context"] = json!({"team": "${namespace.labels['team']}"});
    tenant.shop.policy("orders", spec).await.unwrap();
    let folder = folder(environment, "published");
    let (_, port) = environment.installed.issuer(0);
    let authorities = authority(&environment.control_plane.client().await.unwrap())
        .await
        .unwrap();
    let file = environment.control_plane.folder().join("published-authorities.crt");
    std::fs::write(&file, &authorities).unwrap();
    let (from, file) = (format!("https://127.0.0.1:{port}"), file.display().to_string());
    // As the CronJob does, which has no way to the API server.
    let whose = ["--issuer-url", URL, "--from", &from, "--from-authorities", &file];
    eventually(PROPAGATION, "the issuer knows the policy", async || {
        publish(&folder, &whose)?;
        for path in [DISCOVERY_PATH, KEYS_PATH] {
            let (status, served) = document(port, &authorities, &format!("/cluster-1{path}")).await?;
            let published = published::document(&folder, path)?;
            anyhow::ensure!((status, &published) == (200, &served), "{status} {published} {served}");
        }
        let discovery = published::document(&folder, DISCOVERY_PATH)?;
        let claims = discovery["claims_supported"].to_string();
        anyhow::ensure!(claims.contains("\"tokenscope_team\""), "{claims}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_of_the_clusters_own_issuer_lets_an_sts_verify_the_clusters_tokens() {
    let environment = SHARED.environment().await;
    let tenant = Tenant::open(environment, "published").await;
    let folder = folder(environment, "published-cluster");
    let kubeconfig = environment.control_plane.kubeconfig().display().to_string();
    publish(&folder, &["--of=cluster", "--kubeconfig", &kubeconfig]).unwrap();

    let token = requested_token(&tenant.shop, STS, &Value::Null).await.unwrap();
    let issuer = claims_of(&token).unwrap()["iss"].as_str().unwrap().to_owned();
    assert_eq!(published::document(&folder, DISCOVERY_PATH).unwrap()["issuer"], issuer);
    let published = PublishedFolder::serve(&folder, &issuer).unwrap();
    let subject = "system:serviceaccount:published:orders";
    let (status, answer) = assumed(&published, subject, &token).await;
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = assumed(&published, "system:serviceaccount:published:default", &token).await;
    assert_eq!(status, 403, "{answer}");
}
