//! The sidecar as admission wrote it, running, and the unmodified SDKs that ask it for credentials.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;
use tokenscope_core::credentials_endpoint::{
    AUTHORIZATION_FILE, AUTHORIZATION_FILE_VARIABLE, AUTHORIZATION_FOLDERS, CredentialsEndpoint, FULL_URI_VARIABLE,
};
use tokenscope_e2e::container::ContainerView;
use tokenscope_e2e::eventually;
use tokenscope_e2e::fixtures::{ORDERS, PROPAGATION, Shop, WHO_AM_I, sts};
use tokenscope_e2e::local_probe::LocalProbe;
use tokenscope_e2e::probes::Sdk;
use tokenscope_e2e::process::ServerProcess;
use tokenscope_e2e::sidecar::{endpoint_here, start_endpoint};
use tokenscope_sts::Server;

use super::endpoint::{SIDECAR, served};
use super::recorder::Recorder;
use super::shop;

/// A stored pod whose credentials a sidecar serves, and what runs around it.
pub(super) struct ServedPod {
    shop: Shop<'static>,
    sts: Server,
    sidecar: ContainerView,
    app: ContainerView,
    /// What the sidecar is told here.
    pub(super) told: CredentialsEndpoint,
    /// The URL of the container's credentials, and the file of its authorization token.
    url: String,
    pub(super) authorization: PathBuf,
}

impl ServedPod {
    pub(super) async fn create(namespace: &str) -> Self {
        let shop = shop(namespace).await;
        let mut spec = served();
        spec["aws"] = json!({"region": "eu-central-1", "roleSessionName": "${pod.name}"});
        shop.policy("orders", spec).await.unwrap();
        shop.granted(&shop.asking("orders-1", ORDERS)).await.unwrap();
        let trust = shop.trust_policy("orders", ORDERS).await.unwrap();
        let sts = sts(shop.control_plane, &["sts.amazonaws.com"], &[(ORDERS, &trust)])
            .await
            .unwrap();
        let container = async |name| {
            let control_plane = shop.control_plane;
            control_plane.container(namespace, "orders-1", name).await.unwrap()
        };
        let (sidecar, app) = (container(SIDECAR).await, container("app").await);
        let told = endpoint_here(&sidecar, &sts.url()).unwrap();
        Self {
            shop,
            sts,
            app,
            url: told.url_of("app"),
            authorization: sidecar.file(AUTHORIZATION_FOLDERS).join("app").join(AUTHORIZATION_FILE),
            sidecar,
            told,
        }
    }

    pub(super) fn start_sidecar(&self) -> ServerProcess {
        start_endpoint(&self.sidecar, &self.told, self.shop.control_plane.watchdog()).unwrap()
    }

    /// Who boto3 is in the container.
    pub(super) fn who(&self) -> Result<String> {
        self.who_with(&self.authorization)
    }

    /// The same with the authorization of another file.
    pub(super) fn who_with(&self, authorization: &Path) -> Result<String> {
        let more = [
            (FULL_URI_VARIABLE, &*self.url),
            (AUTHORIZATION_FILE_VARIABLE, &*authorization.display().to_string()),
            ("AWS_ENDPOINT_URL_STS", &*self.sts.url()),
        ];
        tokio::task::block_in_place(|| self.app.python(WHO_AM_I, &more))
    }

    /// Waits until the sidecar serves credentials.
    pub(super) async fn who_in_the_end(&self) -> String {
        eventually(PROPAGATION, "the SDK gets credentials", async || self.who())
            .await
            .unwrap()
    }
}

pub(super) const ROLE_SESSION: &str = "arn:aws:sts::111122223333:assumed-role/orders/orders-1";

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_gets_its_credentials_from_the_sidecar_that_admission_wrote_and_each_start_makes_new_authorizations() {
    let pod = ServedPod::create("served-sdk").await;
    let running = pod.start_sidecar();
    assert_eq!(pod.who_in_the_end().await.trim(), ROLE_SESSION);
    let authorization = &pod.authorization;
    let first = fs::read_to_string(authorization).unwrap();
    drop(running);

    let _running = pod.start_sidecar();
    eventually(PROPAGATION, "there is another authorization", async || {
        let now = fs::read_to_string(authorization)?;
        (now != first).then_some(()).context("it is the first one")
    })
    .await
    .unwrap();
    // It is written before the sidecar serves credentials.
    assert_eq!(pod.who_in_the_end().await.trim(), ROLE_SESSION);
    fs::write(authorization, first).unwrap();
    pod.who().unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sdk_gets_the_roles_credentials_from_the_sidecar_that_admission_wrote() {
    let pod = ServedPod::create("served-sdks").await;
    let _running = pod.start_sidecar();
    pod.who_in_the_end().await;
    let s3 = Recorder::start().await; // what the probes do after they have asked STS who they are
    let authorization = fs::read_to_string(&pod.authorization).unwrap();

    let mut failures = Vec::new();
    for sdk in Sdk::ALL {
        let Some(probe) = tokio::task::block_in_place(|| LocalProbe::of(sdk)).unwrap() else {
            continue;
        };
        let file = probe.write("authorization", &authorization).unwrap();
        let (sts_url, s3_url) = (pod.sts.url(), s3.url());
        let variables = pod.app.environment.iter().map(|(name, value)| (&**name, &**value));
        let environment: Vec<(&str, &str)> = variables
            .chain([
                (FULL_URI_VARIABLE, &*pod.url),
                (AUTHORIZATION_FILE_VARIABLE, &*file),
                ("AWS_ENDPOINT_URL_STS", &*sts_url),
                ("AWS_ENDPOINT_URL_S3", &*s3_url),
            ])
            .collect();
        let ran = tokio::task::block_in_place(|| probe.run(&environment)).unwrap();
        if !ran.well || !ran.output.contains(&format!("caller: {ROLE_SESSION}\n")) {
            failures.push(format!("{}: {}", sdk.name(), ran.output));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(s3.asked().len(), 0, "nobody else was asked for credentials");
}
