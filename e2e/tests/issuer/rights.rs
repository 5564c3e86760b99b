//! What the issuer and its neighbours may and may not do.

use tokenscope_e2e::helm::{NAMESPACE, template};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_issuer_was_forbidden_nothing_and_its_neighbours_do_not_read_the_keys() {
    let environment = SHARED.environment().await;
    let tenant = Tenant::open(environment, "rights").await;
    let (_, port) = environment.installed.issuer(0);
    exchanged(port, &tenant.shop.client, &tenant.pod("orders-1").await.unwrap())
        .await
        .unwrap();
    let keys = format!("/api/v1/namespaces/{NAMESPACE}/secrets/tokenscope-issuer-keys");
    assert!(get_json(&tenant.shop.client, &keys).await.is_ok());
    for other in ["tokenscope-webhook", "tokenscope-operator"] {
        let client = environment.control_plane.client_as(NAMESPACE, other).await.unwrap();
        assert!(get_json(&client, &keys).await.is_err(), "{other} reads the keys");
    }
    let mut forbidden = environment.control_plane.forbidden().unwrap();
    forbidden.retain(|line| line.contains(":tokenscope-issuer "));
    assert_eq!(forbidden, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuer_can_write_no_secret_but_that_of_its_keys_and_no_token_of_an_account() {
    let environment = SHARED.environment().await;
    let control_plane = &environment.control_plane;
    let client = control_plane.client_as(NAMESPACE, "tokenscope-issuer").await.unwrap();
    let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    let annotations = json!({"kubernetes.io/service-account.name": "tokenscope-operator"});
    for secret in [
        json!({"metadata": {"name": "mine"}, "type": "Opaque"}),
        json!({"metadata": {"name": "tokenscope-ca"}, "type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}}),
        json!({"metadata": {"name": "t", "annotations": annotations}, "type": "kubernetes.io/service-account-token"}),
    ] {
        let error = post(&client, &path, &secret).await.unwrap_err().to_string();
        assert!(
            error.contains("may write the Secret tokenscope-issuer-keys only"),
            "{error}"
        );
    }
}

#[test]
fn the_account_that_publishes_has_no_right_and_no_token_and_mounts_nothing_private() {
    const NAME: &str = "tokenscope-issuer-publish";
    let values = |file: &Value| {
        json!({"issuer": {
            "enabled": true, "url": URL, "keys": {"file": file},
            "publish": {"enabled": true, "image": "copy", "command": ["copy"]},
        }})
    };
    let file = json!({"name": "keys.pem", "volume": {"secret": {"secretName": "mine"}}});
    for file in [json!({}), file] {
        let objects = template("tokenscope", &values(&file)).unwrap();
        let of_kind = |end: &'static str| {
            let is_it = move |object: &&Value| object["kind"].as_str().is_some_and(|kind| kind.ends_with(end));
            objects.iter().filter(is_it)
        };
        assert!(of_kind("Binding").all(|binding| !binding.to_string().contains(NAME)));
        assert!(of_kind("Role").all(|role| role["metadata"]["name"] != NAME));
        let named = |kind: &'static str| of_kind(kind).find(|object| object["metadata"]["name"] == NAME).unwrap();
        assert_eq!(named("ServiceAccount")["automountServiceAccountToken"], false);
        let pod = &named("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        let public = json!({"secretName": "tokenscope-issuer-tls", "items": [{"key": "ca.crt", "path": "ca.crt"}]});
        for volume in pod["volumes"].as_array().unwrap() {
            let is_harmless = volume["emptyDir"].is_object() || volume["secret"] == public;
            assert!(is_harmless, "{volume}");
        }
        let mounts = |container: &Value| {
            let mounts = container["volumeMounts"].as_array().unwrap().iter();
            mounts
                .map(|mount| mount["name"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(pod["initContainers"].as_array().unwrap().len(), 1);
        assert_eq!(mounts(&pod["initContainers"][0]), ["published", "issuer-ca"]);
        assert_eq!(pod["containers"].as_array().unwrap().len(), 1);
        assert_eq!(mounts(&pod["containers"][0]), ["published", "tmp"]);
    }
}

/// The rights are those of the API server, and not what the chart's objects look like.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_token_of_the_account_that_publishes_no_secret_can_be_read() {
    let environment = SHARED.environment().await;
    let account = environment
        .control_plane
        .client_as(NAMESPACE, "tokenscope-issuer-publish");
    let client = account.await.unwrap();
    let namespaced = format!("/api/v1/namespaces/{NAMESPACE}");
    for object in [
        "secrets/tokenscope-issuer-keys",
        "secrets/tokenscope-issuer-tls",
        "secrets",
        "configmaps/tokenscope-issuer-context",
    ] {
        let error = get_json(&client, &format!("{namespaced}/{object}")).await.unwrap_err();
        assert!(format!("{error:#}").contains("forbidden"), "{object}: {error:#}");
    }
}
