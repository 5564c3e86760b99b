//! Who gets a token, and what AWS would say of it.

use tokenscope_e2e::fixtures::PROPAGATION;
use tokenscope_e2e::issuer::document;
use tokenscope_e2e::token_maker::claims_of;
use tokenscope_e2e::{delete, merge};

use super::*;

/// What refuses requests for tokens that the issuer takes.
const LOCK_OF_TOKEN_REQUESTS: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/tokenscope-exchange-tokens";

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_exchanges_its_token_for_one_that_a_strict_sts_takes_with_its_tags() {
    let environment = SHARED.environment().await;
    let tenant = Tenant::open(environment, "issued").await;
    let (_, port) = environment.installed.issuer(0);
    let subject = tenant.pod("orders-1").await.unwrap();
    let token = exchanged(port, &tenant.shop.client, &subject).await.unwrap();

    let claims = claims_of(&token).unwrap();
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(URL), &json!(STS)));
    assert_eq!(claims["https://aws.amazon.com/source_identity"], "issued.orders");
    let authorities = authority(&tenant.shop.client).await.unwrap();
    let path = "/cluster-1/.well-known/openid-configuration";
    let (status, discovery) = document(port, &authorities, path).await.unwrap();
    assert_eq!((status, &discovery["issuer"]), (200, &json!(URL)));

    let trusted = trust_policy("system:serviceaccount:issued:orders", "blue");
    let sts = sts(authorities, port, trusted).await.unwrap();
    let (status, answer) = assume(&sts, &token).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    assert!(
        answer.contains("<SourceIdentity>issued.orders</SourceIdentity>"),
        "{answer}"
    );
    let key = answer.split("<AccessKeyId>").nth(1).unwrap().split('<').next().unwrap();
    let tags = sts.session(key).unwrap().principal_tags;
    assert_eq!(
        tags,
        [
            ("app".to_owned(), "orders".to_owned()),
            ("team".to_owned(), "blue".to_owned())
        ]
        .into()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_teams_tag_is_not_to_be_had_by_a_patch_and_the_role_of_another_team_is_not_assumed() {
    let environment = SHARED.environment().await;
    let tenant = Tenant::open(environment, "patched").await;
    let (_, port) = environment.installed.issuer(0);
    let subject = tenant.pod("orders-1").await.unwrap();
    let path = tenant.shop.path("pods/orders-1");
    merge(
        &tenant.shop.client,
        &path,
        &json!({"metadata": {"labels": {"app": "bank"}}}),
    )
    .await
    .unwrap();
    let token = exchanged(port, &tenant.shop.client, &subject).await.unwrap();
    let tags = &claims_of(&token).unwrap()["https://aws.amazon.com/tags"]["principal_tags"];
    assert_eq!(tags["app"], json!(["orders"]), "{tags}");
    let trusted = trust_policy("system:serviceaccount:patched:orders", "red");
    let authorities = authority(&tenant.shop.client).await.unwrap();
    let sts = sts(authorities, port, trusted).await.unwrap();
    assert_eq!(assume(&sts, &token).await.unwrap().0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_refused_bears_an_event_that_says_why() {
    let environment = SHARED.environment().await;
    let tenant = Tenant::open(environment, "told").await;
    let client = &tenant.shop.client;
    let (_, port) = environment.installed.issuer(0);
    let subject = tenant.pod("orders-1").await.unwrap();
    exchanged(port, client, &subject).await.unwrap();
    let mut disabled = policy();
    disabled["disabled"] = json!(true);
    tenant.shop.policy("orders", disabled).await.unwrap();

    let authorities = authority(client).await.unwrap();
    eventually(
        PROPAGATION,
        "a disabled policy ends exchanges, and an Event says so",
        async || {
            let (status, answer) = exchange(port, &authorities, &subject, STS).await?;
            anyhow::ensure!(status == 400, "{status} {answer}");
            let events = get_json(client, &tenant.shop.path("events")).await?;
            let mut events = events["items"].as_array().context("a list")?.iter();
            let event = events
                .find(|event| event["reason"] == "TokenRefused")
                .context("no Event yet")?;
            anyhow::ensure!(event["involvedObject"]["name"] == "orders-1", "{event}");
            let message = event["message"].as_str().unwrap_or_default();
            anyhow::ensure!(
                message.contains("TokenScopePolicy told/orders is disabled"),
                "{message}"
            );
            Ok(())
        },
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_prove_no_running_pod_of_this_cluster_are_refused() {
    let environment = SHARED.environment().await;
    let tenant = Tenant::open(environment, "refused").await;
    let (_, port) = environment.installed.issuer(0);
    let client = &tenant.shop.client;
    let subject = tenant.pod("orders-1").await.unwrap();
    exchanged(port, client, &subject).await.unwrap();
    let authorities = authority(client).await.unwrap();

    let path = tenant.shop.path("pods/orders-1");
    let pod = get_json(client, &path).await.unwrap();
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "orders-1", "uid": pod["metadata"]["uid"]});
    let other_audience = requested_token(&tenant.shop, STS, &bound).await.unwrap();
    // Admission refuses this one; the issuer relies on no policy of the API server.
    delete(client, LOCK_OF_TOKEN_REQUESTS).await.unwrap();
    let no_pod = eventually(PROPAGATION, "a token is requested for no pod", async || {
        requested_token(&tenant.shop, URL, &Value::Null).await
    })
    .await
    .unwrap();
    for (what, token) in [("another audience", &other_audience), ("no pod", &no_pod)] {
        let (status, answer) = exchange(port, &authorities, token, STS).await.unwrap();
        assert_eq!(
            (status, &answer["error"]),
            (400, &json!("invalid_grant")),
            "{what}: {answer}"
        );
    }
    let (status, answer) = exchange(port, &authorities, &subject, "https://evil.example")
        .await
        .unwrap();
    assert_eq!((status, &answer["error"]), (400, &json!("invalid_target")), "{answer}");

    delete(client, &path).await.unwrap();
    eventually(PROPAGATION, "a pod that is gone is refused", async || {
        let (status, answer) = exchange(port, &authorities, &subject, STS).await?;
        anyhow::ensure!(status == 400 || status == 503, "{status} {answer}");
        anyhow::ensure!(answer.get("access_token").is_none(), "{answer}");
        Ok(())
    })
    .await
    .unwrap();
}
