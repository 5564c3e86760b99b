//! The documents as files, for where AWS can't reach the issuer: of this issuer and of the cluster's own, by the same command.

use std::path::{Path, PathBuf};

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
    let folder = folder(environment, "published");
    let kubeconfig = environment.control_plane.kubeconfig().display().to_string();
    let whose = ["--issuer-url", URL, "--x5c=true", "--kubeconfig", &kubeconfig];
    publish(&folder, &whose).unwrap();
    let (_, port) = environment.installed.issuer(0);
    let authorities = authority(&environment.control_plane.client().await.unwrap())
        .await
        .unwrap();
    for path in [DISCOVERY_PATH, KEYS_PATH] {
        let (status, served) = document(port, &authorities, &format!("/cluster-1{path}"))
            .await
            .unwrap();
        assert_eq!((status, &published::document(&folder, path).unwrap()), (200, &served));
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_ones_own_are_published_from_a_file_that_is_encrypted_with_age() {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../issuer/tests/age");
    let text = |name: &str| keys.join(name).display().to_string();
    let folder = folder(SHARED.environment().await, "published-file");
    let (file, identity) = (text("keys.pem.age"), text("identity.txt"));
    let error = publish(&folder, &["--issuer-url", URL, "--keys-file", &file]).unwrap_err();
    assert!(
        error.to_string().contains("--keys-identity names no identity"),
        "{error}"
    );
    let other = text("other-identity.txt");
    let whose = ["--issuer-url", URL, "--keys-file", &file, "--keys-identity", &other];
    let error = publish(&folder, &whose).unwrap_err();
    assert!(error.to_string().contains("for none of the identities"), "{error}");
    assert!(!folder.exists(), "nothing is published");

    let whose = ["--issuer-url", URL, "--keys-file", &file, "--keys-identity", &identity];
    publish(&folder, &whose).unwrap();
    let published = published::document(&folder, KEYS_PATH).unwrap();
    assert_eq!(published["keys"][0]["alg"], "ES256", "{published}");
    assert!(published["keys"][0].get("d").is_none(), "{published}");
}
