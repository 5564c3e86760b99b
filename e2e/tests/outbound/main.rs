//! Tokens for third parties on a real API server: what pods get, and who takes their tokens.
//!
//! - [`verifiers`]: the programs in `examples/verify`, which say what a receiver has to look at;
//! - [`shown`]: the tokens that they are shown;
//! - [`aws`]: tokens that AWS signs for the role of a container;
//! - [`azure`]: the SDK of Azure, and the tokens for which it gets nothing;
//! - [`parties`]: the SDKs of Snowflake, OpenAI, Google Cloud and Vault.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod aws;
mod azure;
mod parties;
mod shown;
mod verifiers;

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use tokenscope_e2e::container::ContainerView;
use tokenscope_e2e::fixtures::{ORDERS, PROPAGATION, Shop, mounted_at, orders_may, variable};
use tokenscope_e2e::{Environment, Shared, eventually, get_json, install, merge};
use tokenscope_xtask::run_with_input;
use tokenscope_xtask::tools::{Tool, resolve};

/// The issuer of the tests. AWS allows no port in an issuer, so the name stands for an address on 127.0.0.1.
const URL: &str = "https://tokens.tokenscope.test/cluster-1";
const HOST: &str = "tokens.tokenscope.test";

static SHARED: Shared = Shared::new(options);

fn options() -> install::Options {
    install::Options {
        values: json!({"issuer": {"enabled": true, "url": URL}}),
        issuers: 1,
        ..install::Options::default()
    }
}

const CLAUDE: &str = "https://api.anthropic.com";
const FOLDER: &str = "/var/run/secrets/tokenscope.io/outbound";

async fn shop(namespace: &str) -> Shop<'static> {
    let Environment { control_plane, .. } = SHARED.environment().await;
    Shop::open(control_plane, namespace, &[]).await.unwrap()
}

/// ServiceAccount `orders` may have a role, and gets these tokens with it.
fn giving(tokens: &Value) -> Value {
    let mut spec = orders_may(&[ORDERS]);
    spec["outboundTokens"] = tokens.clone();
    spec
}

fn claude() -> Value {
    json!([{
        "name": "claude", "audience": CLAUDE, "preset": "Anthropic", "expirationSeconds": 900,
        "env": [
            {"name": "ANTHROPIC_FEDERATION_RULE_ID", "value": "fdrl_1"},
            {"name": "ANTHROPIC_ORGANIZATION_ID", "value": "00000000-0000-0000-0000-000000000000"},
            {"name": "ANTHROPIC_SERVICE_ACCOUNT_ID", "value": "svac_1"},
        ],
    }])
}

/// The projected token in the volume that a container has at a folder.
fn token_at(pod: &Value, folder: &str) -> Value {
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let name = |volume: &Value| volume["name"].as_str().unwrap_or_default().to_owned();
    let found = volumes
        .iter()
        .find(|volume| mounted_at(pod, "app", &name(volume)) == Some(folder));
    found.unwrap()["projected"]["sources"][0]["serviceAccountToken"].clone()
}

#[tokio::test]
async fn a_pod_gets_the_token_and_the_variables_beside_its_role_and_one_without_the_role_gets_neither() {
    let shop = shop("given").await;
    shop.policy("orders", giving(&claude())).await.unwrap();
    let answer = shop.granted(&shop.asking("orders-1", ORDERS)).await.unwrap();
    assert_eq!(answer.warnings, [""; 0]);
    let pod = answer.body;
    let folder = format!("{FOLDER}/claude");
    assert_eq!(
        token_at(&pod, &folder),
        json!({"audience": CLAUDE, "expirationSeconds": 900, "path": "token"})
    );
    let value = |name| variable(&pod, "app", name);
    assert_eq!(value("ANTHROPIC_IDENTITY_TOKEN_FILE"), Some(format!("{folder}/token")));
    assert_eq!(value("ANTHROPIC_FEDERATION_RULE_ID").as_deref(), Some("fdrl_1"));
    assert_eq!(value("AWS_ROLE_ARN").as_deref(), Some(ORDERS));

    let untouched = shop.untouched(&shop.pod("orders-2")).await.unwrap().body;
    assert_eq!(variable(&untouched, "app", "ANTHROPIC_IDENTITY_TOKEN_FILE"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unmodified_sdk_of_the_claude_api_shows_the_pods_token_and_takes_what_it_gets_for_it() {
    let shop = shop("claude").await;
    shop.policy("orders", giving(&claude())).await.unwrap();
    shop.granted(&shop.asking("orders-1", ORDERS)).await.unwrap();
    let container = shop.control_plane.container("claude", "orders-1", "app").await.unwrap();
    let token = std::fs::read_to_string(container.file(&format!("{FOLDER}/claude/token"))).unwrap();
    let said = said_by_the_claude_api(&container);
    assert!(token.starts_with("eyJ"));
    assert_eq!(
        said,
        json!({
            "text": "hello", "path": "/v1/oauth/token", "rule": "fdrl_1", "assertion": token,
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "authorization": "Bearer short-lived",
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unmodified_sdk_of_databricks_shows_the_pods_token_and_takes_what_it_gets_for_it() {
    let shop = shop("databricks").await;
    let tokens = json!([{
        "name": "data", "audience": "https://dbc.example", "preset": "Databricks",
        "env": [
            {"name": "DATABRICKS_HOST", "value": "https://dbc.example"},
            {"name": "DATABRICKS_CLIENT_ID", "value": "client-1"},
        ],
    }]);
    shop.policy("orders", giving(&tokens)).await.unwrap();
    shop.granted(&shop.asking("orders-1", ORDERS)).await.unwrap();
    let container = shop.control_plane.container("databricks", "orders-1", "app").await;
    let container = container.unwrap();
    let token = std::fs::read_to_string(container.file(&format!("{FOLDER}/data/token"))).unwrap();
    assert_eq!(
        said(&container, Tool::Databricks, include_str!("workspace.py")),
        json!({
            "user": "orders", "path": "/api/2.0/preview/scim/v2/Me", "authorization": "Bearer short-lived",
            "form": {
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": token,
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "client_id": "client-1", "scope": "all-apis",
            },
        })
    );
}

/// What a local server in the place of the Claude API is shown by the unmodified SDK as it runs in a container, and what the SDK gets.
fn said_by_the_claude_api(container: &ContainerView) -> Value {
    said(container, Tool::Anthropic, include_str!("claude.py"))
}

/// What a program prints in a container, as JSON.
fn said(container: &ContainerView, python: Tool, program: &str) -> Value {
    said_to(container, python, program, &[], "")
}

/// The same for a program that has further variables and this standard input. It can `import verify`, the verifier in Python.
fn said_to(container: &ContainerView, python: Tool, program: &str, variables: &[(&str, &Path)], input: &str) -> Value {
    tokio::task::block_in_place(|| {
        let mut command = container.command(resolve(python).unwrap());
        command
            .env("HOME", &container.root)
            .env("PYTHONPATH", verifiers::examples().join("python"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(variables.iter().copied())
            .args(["-c", &[include_str!("serving.py"), program].join("\n")]);
        let output = run_with_input(&mut command, input).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    })
}

#[tokio::test]
async fn an_ephemeral_container_may_not_mount_the_token_of_a_third_party() {
    let shop = shop("ephemeral").await;
    shop.policy("orders", giving(&claude())).await.unwrap();
    let pod = shop.granted(&shop.asking("orders-1", ORDERS)).await.unwrap().body;
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let mut names = volumes.iter().filter_map(|volume| volume["name"].as_str());
    let token = names.find(|name| name.starts_with("tokenscope-outbound-")).unwrap();
    let user = shop.patcher().await.unwrap();
    let path = shop.path("pods/orders-1/ephemeralcontainers");
    let debugging = |name: &str, mounts: Value| json!({"spec": {"ephemeralContainers": [{"name": name, "image": "i", "volumeMounts": mounts}]}});

    let mount = json!([{"name": token, "mountPath": "/stolen", "readOnly": true}]);
    let refused = merge(&user, &path, &debugging("thief", mount)).await.unwrap_err();
    let refused = refused.to_string();
    assert!(
        refused.contains("may not mount a volume with a token") && refused.contains("for a third party"),
        "{refused}"
    );
    merge(&user, &path, &debugging("debug", json!([]))).await.unwrap();
}

#[tokio::test]
async fn an_audience_of_the_api_server_or_of_aws_is_refused_to_the_policy_and_to_the_pod() {
    let shop = shop("refused").await;
    let own = own_audience(&shop).await.unwrap();
    for (name, audience) in [("own", &*own), ("aws", "sts.amazonaws.com")] {
        let token = json!([{"name": "a", "audience": audience}]);
        shop.policy("orders", giving(&token)).await.unwrap();
        let sentence = shop
            .refused(
                &shop.asking(name, ORDERS),
                &format!("spec.outboundTokens[0].audience: {audience} is"),
            )
            .await
            .unwrap();
        let path = "/apis/tokenscope.io/v1alpha1/namespaces/refused/tokenscopepolicies/orders";
        eventually(PROPAGATION, "the status says so", async || {
            let policy = get_json(&shop.client, path).await?;
            let conditions = policy["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let accepted = conditions.iter().find(|condition| condition["type"] == "Accepted");
            let message = accepted
                .map(|accepted| accepted["message"].to_string())
                .unwrap_or_default();
            anyhow::ensure!(
                message.contains(audience) && accepted.is_some_and(|found| found["status"] == "False"),
                "{message}"
            );
            anyhow::ensure!(sentence.contains("name another party"), "{sentence}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

/// What the API server itself takes tokens for: that of a token that names no audience.
async fn own_audience(shop: &Shop<'_>) -> Result<String> {
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let path = shop.path("serviceaccounts/orders/token");
    let answer = tokenscope_e2e::post(&shop.client, &path, &request).await?;
    let token = answer["status"]["token"].as_str().unwrap_or_default();
    let audiences = tokenscope_index::audiences::audiences_of(token);
    Ok(audiences.into_iter().next().unwrap_or_default())
}
