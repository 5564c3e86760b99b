//! A listener that asks its clients for a certificate.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "this is test code, also outside the tests themselves"
)]

mod support;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{DnType, ExtendedKeyUsagePurpose};
use support::{Ca, Server, patient, receive, serving_with, try_send};
use tokenscope_fixtures::unique_name;
use tokenscope_platform::telemetry::chain;
use tokenscope_platform::tls::{Clients, server_config};

const API_SERVER: &str = "kube-apiserver";

/// A certificate for a client, with its key.
fn client(ca: &Ca, name: &str) -> (String, String) {
    ca.leaf(|leaf| {
        leaf.subject_alt_names.clear();
        leaf.distinguished_name.push(DnType::CommonName, name);
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    })
}

struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(unique_name(name)).with_extension("pem");
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn asking(server: &Ca, clients: &Arc<Clients>) -> Server {
    let config = server_config(server.certificate(), Some(clients.clone())).unwrap();
    serving_with(config, patient()).await
}

/// With TLS 1.3 a client learns only with the first answer that its certificate was refused.
async fn is_served(server: &Ca, address: SocketAddr, client: Option<&(String, String)>) -> bool {
    let Ok(mut stream) = server.connect_as(address, b"http/1.1", client).await else {
        return false;
    };
    // Whoever was refused by then can send nothing more.
    try_send(&mut stream, "/now").await.is_ok() && receive(&mut stream).await.ends_with("now")
}

#[tokio::test]
async fn only_a_client_with_a_certificate_of_the_authority_and_a_name_of_the_list_is_served() {
    let (server, ca, other) = (Ca::new(), Ca::new(), Ca::new());
    let file = File::new("names", &ca.pem());
    let clients = Clients::from_file(&file.0, vec![API_SERVER.to_owned(), "spare".to_owned()]).unwrap();
    let listener = asking(&server, &clients).await;
    let served = async |client: Option<&(String, String)>| is_served(&server, listener.address, client).await;
    assert!(served(Some(&client(&ca, API_SERVER))).await);
    let by_alternative_name = ca.leaf(|leaf| {
        leaf.subject_alt_names = vec![rcgen::SanType::DnsName("spare".try_into().unwrap())];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    assert!(served(Some(&by_alternative_name)).await);
    assert!(!served(None).await, "no certificate");
    assert!(!served(Some(&client(&other, API_SERVER))).await, "another authority");
    assert!(!served(Some(&client(&ca, "somebody"))).await, "another name");
    assert!(
        !served(Some(&ca.leaf(|leaf| {
            leaf.distinguished_name.push(DnType::CommonName, API_SERVER);
            leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })))
        .await,
        "a certificate for servers"
    );
}

#[tokio::test]
async fn without_names_every_client_of_the_authority_is_served() {
    let (server, ca) = (Ca::new(), Ca::new());
    let file = File::new("any", &ca.pem());
    let clients = Clients::from_file(&file.0, Vec::new()).unwrap();
    let listener = asking(&server, &clients).await;
    assert!(is_served(&server, listener.address, Some(&client(&ca, "anybody"))).await);
    assert!(!is_served(&server, listener.address, None).await);
}

#[tokio::test]
async fn a_changed_file_counts_from_the_next_handshake_and_a_broken_one_does_not() {
    let (server, before, after) = (Ca::new(), Ca::new(), Ca::new());
    let file = File::new("changed", &before.pem());
    let clients = Clients::from_file(&file.0, Vec::new()).unwrap();
    let listener = asking(&server, &clients).await;
    let (old, new) = (client(&before, "a"), client(&after, "a"));
    assert!(!is_served(&server, listener.address, Some(&new)).await);

    std::fs::write(&file.0, after.pem()).unwrap();
    clients.reload().unwrap();
    assert!(is_served(&server, listener.address, Some(&new)).await);
    assert!(!is_served(&server, listener.address, Some(&old)).await);

    std::fs::write(&file.0, "").unwrap();
    let error = chain(&clients.reload().unwrap_err());
    assert!(error.contains("there is no client authority in "), "{error}");
    assert!(is_served(&server, listener.address, Some(&new)).await);
}

#[test]
fn authorities_that_can_not_be_used_are_told_with_their_file() {
    let missing = Clients::from_file("/nowhere/ca.pem".as_ref(), Vec::new()).unwrap_err();
    assert!(chain(&missing).contains("/nowhere/ca.pem"), "{missing}");
    let file = File::new("large", &"#".repeat((1 << 20) + 1));
    let large = Clients::from_file(&file.0, Vec::new()).unwrap_err().to_string();
    assert!(large.contains("more than 1 MiB"), "{large}");
}
