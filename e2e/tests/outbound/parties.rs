//! What the unmodified SDKs of further parties show a server of their own process: by the variables of a preset, or as docs/outbound.md says
//! for a party without one.

use std::fs;

use tokenscope_e2e::apply::documents;
use tokenscope_e2e::control_plane;

use super::*;

const GOOGLE_CLOUD: &str = include_str!("../../../examples/outbound-google-cloud.yaml");

/// The container of a pod in a namespace of its own that gets one token, and the token.
async fn container_with(namespace: &str, token: &Value) -> (ContainerView, String) {
    let shop = shop(namespace).await;
    shop.policy("orders", giving(&json!([token]))).await.unwrap();
    shop.granted(&shop.asking("orders-1", ORDERS)).await.unwrap();
    let container = shop.control_plane.container(namespace, "orders-1", "app").await;
    let container = container.unwrap();
    let name = token["name"].as_str().unwrap();
    let text = fs::read_to_string(container.file(&format!("{FOLDER}/{name}/token"))).unwrap();
    (container, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unmodified_client_of_snowflake_shows_the_pods_token_and_takes_what_it_gets_for_it() {
    let rows = json!({
        "name": "rows", "audience": "snowflakecomputing.com", "preset": "Snowflake",
        "env": [{"name": "SNOWFLAKE_ACCOUNT", "value": "acme"}],
    });
    let (container, token) = container_with("snowflake", &rows).await;
    assert_eq!(
        said(&container, Tool::Snowflake, include_str!("rows.py")),
        json!({
            "rows": [{"A": "7"}], "query": "select 7 as a", "authorization": "Snowflake Token=\"short-lived\"",
            "url": "http://acme.snowflakecomputing.com:80/session/v1/login-request",
            "login": {
                "ACCOUNT_NAME": "acme", "AUTHENTICATOR": "WORKLOAD_IDENTITY",
                "PROVIDER": "OIDC", "TOKEN": token,
            },
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unmodified_sdk_of_openai_shows_the_pods_token_where_the_code_takes_its_path_from_a_variable() {
    let models = json!({
        "name": "models", "audience": "https://api.openai.com/v1",
        "env": [
            {"name": "OPENAI_TOKEN_FILE", "valueFrom": "File"},
            {"name": "OPENAI_IDENTITY_PROVIDER_ID", "value": "idp_1"},
            {"name": "OPENAI_SERVICE_ACCOUNT_ID", "value": "svc_1"},
        ],
    });
    let (container, token) = container_with("openai", &models).await;
    assert_eq!(
        said(&container, Tool::OpenAi, include_str!("models.py")),
        json!({
            "models": ["m"], "call": {"path": "/models", "authorization": "Bearer short-lived"},
            "exchange": {"path": "/oauth/token", "body": {
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": token,
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "identity_provider_id": "idp_1",
                "service_account_id": "svc_1",
            }},
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unmodified_sdk_of_google_cloud_shows_the_pods_token_by_the_configuration_of_the_example() {
    let shop = shop("shop").await;
    let objects = documents(GOOGLE_CLOUD).unwrap();
    let [policy, account, configuration, pod] = <[Value; 4]>::try_from(objects).unwrap();
    let first = [policy, account, configuration.clone()];
    shop.control_plane.apply(&first, "shop").await.unwrap();
    shop.granted(&pod).await.unwrap();
    let container = shop.control_plane.container("shop", "archive", "app").await.unwrap();
    let token = fs::read_to_string(container.file(&format!("{FOLDER}/google/token"))).unwrap();

    // The kubelet would write the ConfigMap's file there.
    let text = configuration["data"]["credentials.json"].as_str().unwrap();
    let mut credentials: Value = serde_json::from_str(text).unwrap();
    let file = container.file(credentials["credential_source"]["file"].as_str().unwrap());
    credentials["credential_source"]["file"] = json!(file);
    let folder = container.file("/etc/google");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("credentials.json"), credentials.to_string()).unwrap();

    assert_eq!(
        said(&container, Tool::Databricks, include_str!("google_cloud.py")),
        json!({
            "project": "shop-archive", "call": {"path": "/storage/v1/b", "authorization": "Bearer short-lived"},
            "exchange": {"path": "/v1/token", "form": {
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": token,
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "audience": credentials["audience"],
                "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "scope": "https://www.googleapis.com/auth/cloud-platform",
            }},
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unmodified_client_of_vault_shows_the_pods_token_where_the_code_takes_its_path_from_a_variable() {
    let shop = shop("vault").await;
    let tokens = json!([
        {"name": "vault", "audience": "https://vault.example", "preset": "Vault"},
        {"name": "other", "audience": "https://other.example", "env": [{"name": "OTHER_TOKEN_FILE", "valueFrom": "File"}]},
    ]);
    shop.policy("orders", giving(&tokens)).await.unwrap();
    shop.granted(&shop.asking("orders-1", ORDERS)).await.unwrap();
    let container = shop.control_plane.container("vault", "orders-1", "app").await.unwrap();
    let token = fs::read_to_string(container.file(&format!("{FOLDER}/vault/token"))).unwrap();
    let role = |account: &str| {
        let subject = format!("system:serviceaccount:vault:{account}");
        json!({"bound_audiences": ["https://vault.example"], "bound_subject": subject})
    };
    let input = json!({
        "issuer": control_plane::ISSUER, "keys": get_json(&shop.client, "/openid/v1/jwks").await.unwrap(),
        "roles": {"orders": role("orders"), "admins": role("admins")},
    });
    let program = include_str!("secret.py");
    let said = said_to(&container, Tool::Hvac, program, &[], &input.to_string());
    assert_eq!(said["secret"], json!({"password": "7"}));
    assert_eq!(
        said["login"],
        json!({"path": "/v1/auth/jwt/login", "body": {"role": "orders", "jwt": token}})
    );
    assert_eq!(
        said["call"],
        json!({"path": "/v1/secret/data/orders", "token": "short-lived"})
    );
    let refused = |what: &str| said["refused"][what].as_str().unwrap_or_default().to_owned();
    let (role, token) = (refused("role"), refused("token"));
    assert!(role.contains("the subject is not the bound one"), "{said}");
    assert!(token.contains("Audience doesn't match"), "{said}");
}
