//! Tokens that AWS signs for the role of a container: what admission writes, the sidecar that it wrote, a strict STS with the permission that
//! the policy's status has, and who takes the token.

use std::fs;

use anyhow::Context as _;
use tokenscope_core::credentials_endpoint::{CredentialsEndpoint, ENDPOINT_VARIABLE};
use tokenscope_e2e::fixtures::{ACCOUNT, container_of, init_containers, sts};
use tokenscope_e2e::sidecar::{endpoint_here, start_endpoint};
use tokenscope_sts::{OutboundFederation, Permissions, Server};

use super::shown::{OF_AWS, Shown, keys_at};
use super::verifiers::judge_in_all;
use super::*;

const SIDECAR: &str = "tokenscope-sidecar";
const FILE: &str = "/var/run/secrets/tokenscope.io/outbound/claude/token";

fn signed_by_aws() -> Value {
    let mut tokens = claude();
    tokens[0]["source"] = json!("AWS");
    tokens[0]["aws"] = json!({"algorithm": "ES384"});
    let mut spec = giving(&tokens);
    spec["aws"] = json!({"region": "eu-central-1", "roleSessionName": "${pod.name}"});
    spec["delivery"] = json!({"type": "Endpoint"});
    spec
}

/// The volume that a container has at a folder, as the pod says.
fn volume_at(pod: &Value, container: &str, folder: &str) -> Option<String> {
    let mounts = container_of(pod, container)["volumeMounts"].as_array()?;
    let found = mounts.iter().find(|mount| mount["mountPath"] == folder)?;
    Some(found["name"].as_str()?.to_owned())
}

/// A strict STS in which the role trusts the cluster and may do what the policy's status says, and no more.
async fn strict_sts(shop: &Shop<'_>) -> Result<Server> {
    let trust = shop.trust_policy("orders", ORDERS).await?;
    let path = format!(
        "/apis/tokenscope.io/v1alpha1/namespaces/{}/tokenscopepolicies/orders",
        shop.namespace
    );
    let status = get_json(&shop.client, &path).await?["status"].clone();
    let permission = &status["outboundTokenPolicies"][0];
    assert_eq!(permission["roleArn"], ORDERS, "{status}");
    let document = permission["permissionPolicy"].as_str().context("a document")?;
    let sts = sts(shop.control_plane, &["sts.amazonaws.com"], &[(ORDERS, &trust)]).await?;
    sts.set_permissions(Permissions {
        principal: ORDERS.to_owned(),
        policies: vec![serde_json::from_str(document)?],
        ..Permissions::default()
    })?;
    sts.enable_outbound_federation(OutboundFederation {
        account: ACCOUNT.to_owned(),
        issuer: OF_AWS.to_owned(),
    })?;
    Ok(sts)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_that_admission_wrote_has_aws_sign_a_token_that_verifiers_and_the_sdk_of_the_claude_api_take() {
    let shop = shop("by-aws").await;
    shop.policy("orders", signed_by_aws()).await.unwrap();
    let pod = shop.granted(&shop.asking("orders-1", ORDERS)).await.unwrap().body;
    assert_eq!(init_containers(&pod), [SIDECAR]);
    let container = async |name| shop.control_plane.container("by-aws", "orders-1", name).await.unwrap();
    let (sidecar, app) = (container(SIDECAR).await, container("app").await);

    let told: CredentialsEndpoint = serde_json::from_str(&sidecar.environment[ENDPOINT_VARIABLE]).unwrap();
    let file = told.containers[0].outbound[0].file.clone();
    let folder = file.strip_suffix("/token").unwrap();
    let volume = volume_at(&pod, SIDECAR, folder).unwrap();
    assert_eq!(
        volume_at(&pod, "app", FILE.strip_suffix("/token").unwrap()),
        Some(volume),
        "what the sidecar writes is what the container reads"
    );

    let sts = strict_sts(&shop).await.unwrap();
    let mut here = endpoint_here(&sidecar, &sts.url()).unwrap();
    here.containers[0].outbound[0].file = app.file(FILE).display().to_string().into();
    fs::create_dir_all(app.file(FILE).parent().unwrap()).unwrap();
    let _running = start_endpoint(&sidecar, &here, shop.control_plane.watchdog()).unwrap();
    let token = eventually(PROPAGATION, "the token is in the container's file", async || {
        Ok(fs::read_to_string(app.file(FILE))?)
    });
    let token = token.await.unwrap();

    judge_in_all(&Shown {
        token: token.clone(),
        issuer: OF_AWS.to_owned(),
        subject: ORDERS.to_owned(),
        lifetime: 900,
        keys: keys_at(&sts.url()),
        folder: app.root.clone(),
    });
    let said = said_by_the_claude_api(&app);
    assert_eq!((&said["text"], &said["assertion"]), (&json!("hello"), &json!(token)));
}

#[tokio::test]
async fn a_token_that_aws_is_to_sign_for_a_container_that_has_no_sidecar_is_refused_by_the_api_server() {
    let shop = shop("by-aws-refused").await;
    let mut spec = signed_by_aws();
    spec["delivery"] = json!({"type": "File"});
    let refused = shop.policy("orders", spec).await.unwrap_err();
    let refused = format!("{refused:#}");
    assert!(
        refused.contains("spec.outboundTokens") && refused.contains("unless delivery.type is Endpoint"),
        "{refused}"
    );
}
