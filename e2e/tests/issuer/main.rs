//! The issuer as its chart says, on a real API server and with its own rights: pods exchange their tokens, and a strict STS
//! takes what they get.
//!
//! - [`exchanges`]: who gets a token, and what AWS would say of it;
//! - [`sidecars`]: the sidecar as admission wrote it into the pod, which exchanges by itself;
//! - [`rights`]: what the issuer and its neighbours may and may not do;
//! - [`rotation`]: keys that rotate under three replicas while the leader is killed at each step;
//! - [`callers`]: pods that exchange all the time, each token verified;
//! - [`workload`]: a pod with the sidecar and the AWS SDK, which call all the time;
//! - [`keys`]: keys that are taken out of the Secret by hand, and those that are revoked;
//! - [`publishing`]: the documents as files, of this issuer and of the cluster's own, by the same command;
//! - [`demo`]: the demo ends well;
//! - [`certificate`]: a new authority of the issuer's certificate, which running pods don't know, and one that is distrusted.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod callers;
mod certificate;
mod demo;
mod exchanges;
mod keys;
mod publishing;
mod rights;
mod rotation;
mod sidecars;
mod workload;

use anyhow::{Context, Result};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_e2e::fixtures::{ACCOUNT, ORDERS, Shop};
use tokenscope_e2e::install::Options;
use tokenscope_e2e::issuer::{authority, document, exchange};
use tokenscope_e2e::{Environment, Shared, eventually, get_json, post};
use tokenscope_sts::Server;

/// The issuer of the tests. AWS allows no port in an issuer, so the name stands for an address on 127.0.0.1.
const URL: &str = "https://tokens.tokenscope.test/cluster-1";
const HOST: &str = "tokens.tokenscope.test";
const STS: &str = "sts.amazonaws.com";

static SHARED: Shared = Shared::new(options);

fn options() -> Options {
    Options {
        values: json!({"issuer": {
            "enabled": true, "url": URL, "tokenReview": true, "keys": {"x5c": true},
            "publish": {"enabled": true, "image": "copy", "command": ["copy"]},
        }}),
        issuers: 1,
        operator_arguments: vec![
            format!("--issuer-extra-serving-name={HOST}"),
            "--rotation-overlap=2".to_owned(),
        ],
        ..Options::default()
    }
}

/// A namespace of team blue. The tests exchange in the place of its pods' sidecars.
struct Tenant<'a> {
    shop: Shop<'a>,
}

impl<'a> Tenant<'a> {
    async fn open(environment: &'a Environment, namespace: &str) -> Self {
        let shop = Shop::open(&environment.control_plane, namespace, &[("team", "blue")]).await;
        Self { shop: shop.unwrap() }
    }

    /// A pod that admission granted its role, and the token that its kubelet brings its sidecar.
    async fn pod(&self, name: &str) -> Result<String> {
        self.shop.policy("orders", policy()).await?;
        let mut pod = self.shop.asking(name, ORDERS);
        pod["metadata"]["labels"] = json!({"app": "orders"});
        self.shop.granted(&pod).await?;
        let shop = &self.shop;
        shop.control_plane.pod_token(&shop.namespace, name, URL, 3600).await
    }
}

/// A token of ServiceAccount `orders` that an administrator asks for, bound to an object or to none.
async fn requested_token(shop: &Shop<'_>, audience: &str, bound: &Value) -> Result<String> {
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [audience], "expirationSeconds": 3600, "boundObjectRef": bound},
    });
    let answer = post(&shop.client, &shop.path("serviceaccounts/orders/token"), &request).await?;
    Ok(answer["status"]["token"]
        .as_str()
        .context("a TokenRequest is answered with a token")?
        .to_owned())
}

/// A policy of source Issuer with all that its tokens can say.
fn policy() -> Value {
    json!({
        "subjects": [{"serviceAccounts": ["orders"]}],
        "roles": {"allowed": [ORDERS]},
        "audiences": {"allowed": [STS]},
        "token": {"source": "Issuer"},
        "claims": {
            "principalTags": {"team": "${namespace.labels['team']}", "app": "${pod.labels['app']}"},
            "transitiveTagKeys": ["team"],
            "sourceIdentity": "${namespace}.${serviceAccount}",
        },
    })
}

/// Exchanges until the issuer knows all that it needs.
async fn exchanged(port: u16, client: &Client, subject: &str) -> Result<String> {
    let authority = authority(client).await?;
    eventually(
        tokenscope_e2e::fixtures::PROPAGATION,
        "the pod gets its token",
        async || {
            let (status, answer) = exchange(port, &authority, subject, STS).await?;
            anyhow::ensure!(status == 200, "{status} {answer}");
            Ok(answer["access_token"].as_str().context("a token")?.to_owned())
        },
    )
    .await
}

/// The stand-in for AWS STS with our issuer as an identity provider, and one role that allows tags and a source identity.
async fn sts(authorities: String, issuer: u16, trust_policy: Value) -> Result<Server> {
    tokenscope_e2e::issuer::sts(URL, &authorities, issuer, (ORDERS, &trust_policy)).await
}

/// Who may take the role: this subject with these tags.
fn trust_policy(subject: &str, team: &str) -> Value {
    let name = URL.trim_start_matches("https://");
    let actions = [
        "sts:AssumeRoleWithWebIdentity",
        "sts:TagSession",
        "sts:SetSourceIdentity",
    ];
    json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": actions,
        "Principal": {"Federated": format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{name}")},
        "Condition": {"StringEquals": {
            format!("{name}:aud"): STS, format!("{name}:sub"): subject, "aws:RequestTag/team": team,
        }},
    }]})
}

/// Assumes the role with a token, as an SDK does: the status and the answer.
async fn assume(sts: &Server, token: &str) -> Result<(u16, String)> {
    tokenscope_e2e::issuer::assume(sts, ORDERS, token).await
}
