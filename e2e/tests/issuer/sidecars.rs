//! The sidecar as admission wrote it into the pod, which exchanges by itself.

use std::fs;
use std::path::{Path, PathBuf};

use tokenscope_core::pod::SUBJECT_TOKEN_VOLUME;
use tokenscope_e2e::fixtures::PROPAGATION;
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::sidecar::{FILE, Sidecar};
use tokenscope_e2e::token_maker::claims_of;

use super::*;

/// A granted pod of a tenant, whose kubelet has brought its volumes.
async fn volumes(environment: &Environment, tenant: &Tenant<'_>, pod: &str) -> (Value, PathBuf) {
    let subject = tenant.pod(pod).await.unwrap();
    let object = get_json(&tenant.shop.client, &tenant.shop.path(&format!("pods/{pod}")))
        .await
        .unwrap();
    let folder = environment.control_plane.folder().join(&tenant.shop.namespace);
    fs::create_dir_all(folder.join(SUBJECT_TOKEN_VOLUME)).unwrap();
    fs::write(folder.join(SUBJECT_TOKEN_VOLUME).join("token"), subject).unwrap();
    (object, folder)
}

fn start(environment: &Environment, pod: &Value, folder: &Path) -> Sidecar {
    let (_, port) = environment.installed.issuer(0);
    let service = format!("https://tokenscope-issuer.{NAMESPACE}.svc");
    let address = format!("https://127.0.0.1:{port}");
    let watchdog = environment.control_plane.watchdog();
    Sidecar::of_pod(pod, folder, "sidecar", (&service, &address), watchdog).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_that_admission_wrote_keeps_a_token_that_a_strict_sts_takes() {
    let environment = SHARED.environment().await;
    let tenant = Tenant::open(environment, "kept").await;
    let (pod, folder) = volumes(environment, &tenant, "orders-1").await;
    let sidecar = start(environment, &pod, &folder);
    sidecar
        .wait_for(PROPAGATION, "the issued token is in its file", |_| true)
        .await
        .unwrap();

    assert_eq!(sidecar.probe().unwrap(), Ok(()));
    let token = fs::read_to_string(sidecar.directory().join(FILE)).unwrap();
    let claims = claims_of(&token).unwrap();
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(URL), &json!(STS)));
    let trusted = trust_policy("system:serviceaccount:kept:orders", "blue");
    let (_, port) = environment.installed.issuer(0);
    let sts = sts(authority(&tenant.shop.client).await.unwrap(), port, trusted)
        .await
        .unwrap();
    let (status, answer) = assume(&sts, &token).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    let log = sidecar.process.log();
    assert!(
        log.contains("written for the first time") && !log.contains("eyJ"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_of_a_pod_whose_policy_was_disabled_says_so_in_the_policys_words() {
    let environment = SHARED.environment().await;
    let tenant = Tenant::open(environment, "disabled").await;
    let (pod, folder) = volumes(environment, &tenant, "orders-1").await;
    let mut disabled = policy();
    disabled["disabled"] = json!(true);
    tenant.shop.policy("orders", disabled).await.unwrap();
    let (_, port) = environment.installed.issuer(0);
    let subject = fs::read_to_string(folder.join(SUBJECT_TOKEN_VOLUME).join("token")).unwrap();
    let authorities = authority(&tenant.shop.client).await.unwrap();
    let refusal = eventually(PROPAGATION, "the issuer knows of it", async || {
        let (status, answer) = exchange(port, &authorities, &subject, STS).await?;
        anyhow::ensure!(status == 400, "{status}");
        Ok(answer["error_description"].as_str().context("a sentence")?.to_owned())
    })
    .await
    .unwrap();

    let sidecar = start(environment, &pod, &folder);
    let why = eventually(PROPAGATION, "the probe says why", async || {
        let why = sidecar.probe()?.err().context("it is ready")?;
        anyhow::ensure!(why.contains("the issuer refuses"), "{why}");
        Ok(why)
    })
    .await
    .unwrap();
    assert!(why.contains(&refusal) && why.contains("disabled"), "{why}");
    let log = sidecar.process.log();
    assert!(log.contains(&refusal) && !log.contains("eyJ"), "{log}");
    assert!(sidecar.token(FILE).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_keeps_a_token_for_a_third_party_beside_that_of_the_role() {
    const PARTY: &str = "https://api.example.com";
    let environment = SHARED.environment().await;
    let tenant = Tenant::open(environment, "outbound").await;
    let mut giving = policy();
    giving["outboundTokens"] = json!([{"name": "party", "audience": PARTY, "source": "Issuer", "env": [{"name": "PARTY_TOKEN_FILE", "valueFrom": "File"}]}]);
    tenant.shop.policy("orders", giving).await.unwrap();
    let mut pod = tenant.shop.asking("orders-1", ORDERS);
    pod["metadata"]["labels"] = json!({"app": "orders"});
    let pod = tenant.shop.granted(&pod).await.unwrap().body;
    let shop = &tenant.shop;
    let subject = shop
        .control_plane
        .pod_token(&shop.namespace, "orders-1", URL, 3600)
        .await
        .unwrap();
    let folder = environment.control_plane.folder().join(&shop.namespace);
    fs::create_dir_all(folder.join(SUBJECT_TOKEN_VOLUME)).unwrap();
    fs::write(folder.join(SUBJECT_TOKEN_VOLUME).join("token"), subject).unwrap();

    let sidecar = start(environment, &pod, &folder);
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let mut names = volumes.iter().filter_map(|volume| volume["name"].as_str());
    let volume = names.find(|name| name.starts_with("tokenscope-outbound-")).unwrap();
    let file = folder.join(volume).join(FILE);
    let token = eventually(
        PROPAGATION,
        "the token for the third party is in its file",
        async || Ok(fs::read_to_string(&file)?),
    )
    .await
    .unwrap();
    sidecar
        .wait_for(PROPAGATION, "the role's token is there too", |_| true)
        .await
        .unwrap();
    assert_eq!(sidecar.probe().unwrap(), Ok(()));
    let claims = claims_of(&token).unwrap();
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(URL), &json!(PARTY)));
    assert_eq!(claims["sub"], "system:serviceaccount:outbound:orders");
    let names: Vec<&String> = claims.as_object().unwrap().keys().collect();
    assert!(names.iter().all(|name| !name.contains("aws.amazon.com")), "{names:?}");
    let path = format!("/var/run/secrets/tokenscope.io/outbound/party/{FILE}");
    let variable = tokenscope_e2e::fixtures::variable(&pod, "app", "PARTY_TOKEN_FILE");
    assert_eq!(variable.as_deref(), Some(&*path));
}
