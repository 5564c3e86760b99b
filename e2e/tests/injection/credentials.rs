//! From the pod's own token to credentials: verified as AWS verifies it, used by the unmodified SDK.

use serde_json::{Value, json};
use tokenscope_e2e::fixtures::{
    ACCOUNT, CARTS, ORDERS, Shop, container_of, environment, mounted_at, orders_may, sts, variable, volume, who_is,
    with_annotations,
};
use tokenscope_e2e::{get_json, post};

use crate::{MOUNT, SHARED, VOLUME};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_annotated_pod_that_a_policy_allows_gets_credentials_for_its_own_token() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "credentials", &[]).await.unwrap();
    let mut spec = orders_may(&[ORDERS]);
    spec["aws"] = json!({"region": "eu-central-1", "roleSessionName": "${pod.name}"});
    shop.policy("orders", spec).await.unwrap();

    let pod = shop.granted(&shop.asking("orders-1", ORDERS)).await.unwrap();
    assert!(pod.warnings.is_empty(), "{:?}", pod.warnings);
    assert_eq!(
        volume(&pod.body, VOLUME).unwrap()["projected"]["sources"],
        json!([{"serviceAccountToken": {"audience": "sts.amazonaws.com", "expirationSeconds": 3600, "path": "token"}}])
    );
    assert_eq!(mounted_at(&pod.body, "app", VOLUME), Some(MOUNT));
    let mut variables: Vec<_> = environment(&pod.body, "app");
    variables.sort();
    let expected = [
        ("AWS_DEFAULT_REGION", "eu-central-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ROLE_ARN", ORDERS),
        (
            "AWS_ROLE_SESSION_NAME",
            r#"{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"}}"#,
        ),
        ("AWS_STS_REGIONAL_ENDPOINTS", "regional"),
        (
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "/var/run/secrets/tokenscope.io/aws/token",
        ),
    ];
    assert_eq!(
        variables,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );

    // What the operator says is pasted into IAM as it is.
    let trust = shop.trust_policy("orders", ORDERS).await.unwrap();
    let sts = sts(control_plane, &["sts.amazonaws.com"], &[(ORDERS, &trust)])
        .await
        .unwrap();
    assert_eq!(
        who_is(control_plane, &sts, "credentials", "orders-1", "app")
            .await
            .unwrap(),
        format!("arn:aws:sts::{ACCOUNT}:assumed-role/orders/orders-1")
    );
    sts.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trust_policy_of_one_service_account_keeps_out_another() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "wrong-account", &[]).await.unwrap();
    shop.policy("orders", orders_may(&[ORDERS])).await.unwrap();
    let trust = shop.trust_policy("orders", ORDERS).await.unwrap();
    // A careless policy gives the role to more workloads than its trust policy was made for.
    let everybody = json!({"subjects": [{}], "roles": {"allowed": [ORDERS]}});
    shop.policy("everybody", everybody).await.unwrap();
    let mut pod = shop.asking("stranger", ORDERS);
    pod["spec"]["serviceAccountName"] = json!("default");
    shop.granted(&pod).await.unwrap();

    let sts = sts(control_plane, &["sts.amazonaws.com"], &[(ORDERS, &trust)])
        .await
        .unwrap();
    let error = who_is(control_plane, &sts, "wrong-account", "stranger", "app")
        .await
        .unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("AccessDenied"), "{error}");
    assert!(
        error.contains("Not authorized to perform sts:AssumeRoleWithWebIdentity"),
        "{error}"
    );
    sts.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_an_audience_that_the_provider_does_not_list_is_refused() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "wrong-audience", &[]).await.unwrap();
    shop.policy("orders", orders_may(&[ORDERS])).await.unwrap();
    let trust = shop.trust_policy("orders", ORDERS).await.unwrap();
    let pod = with_annotations(
        shop.asking("elsewhere", ORDERS),
        &[
            ("tokenscope.io/audience", "https://elsewhere.example.com"),
            ("tokenscope.io/token-expiration", "600"),
        ],
    );
    let pod = shop.granted(&pod).await.unwrap().body;
    assert_eq!(
        volume(&pod, VOLUME).unwrap()["projected"]["sources"][0]["serviceAccountToken"],
        json!({"audience": "https://elsewhere.example.com", "expirationSeconds": 600, "path": "token"})
    );

    let sts = sts(control_plane, &["sts.amazonaws.com"], &[(ORDERS, &trust)])
        .await
        .unwrap();
    let error = who_is(control_plane, &sts, "wrong-audience", "elsewhere", "app")
        .await
        .unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("InvalidIdentityToken"), "{error}");
    assert!(error.contains("Incorrect token audience"), "{error}");
    sts.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_with_roles_and_audiences_of_their_own_have_a_token_file_each() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "two-roles", &[]).await.unwrap();
    let mut orders = orders_may(&[ORDERS]);
    orders["audiences"] = json!({"allowed": ["sts.amazonaws.com"], "default": "sts.amazonaws.com"});
    shop.policy("orders", orders).await.unwrap();
    let mut carts = orders_may(&[CARTS]);
    carts["audiences"] = json!({"allowed": ["carts.example.com"], "default": "carts.example.com"});
    shop.policy("carts", carts).await.unwrap();

    let mut pod = with_annotations(
        shop.pod("both"),
        &[
            ("tokenscope.io/role-arn.orders", ORDERS),
            ("tokenscope.io/role-arn.carts", CARTS),
        ],
    );
    pod["spec"]["containers"] = json!([
        {"name": "orders", "image": "app"}, {"name": "carts", "image": "app"}, {"name": "neither", "image": "app"},
    ]);
    let pod = shop.granted(&pod).await.unwrap().body;
    assert_eq!(variable(&pod, "orders", "AWS_ROLE_ARN").as_deref(), Some(ORDERS));
    assert_eq!(variable(&pod, "carts", "AWS_ROLE_ARN").as_deref(), Some(CARTS));
    assert_eq!(environment(&pod, "neither"), []);
    assert_eq!(mounted_at(&pod, "neither", VOLUME), None);
    has_a_volume_each(&pod, [("orders", "sts.amazonaws.com"), ("carts", "carts.example.com")]);

    // Each file has the token that its role's trust policy wants; the other's would be refused.
    let (trust_orders, trust_carts) = (
        shop.trust_policy("orders", ORDERS).await.unwrap(),
        shop.trust_policy("carts", CARTS).await.unwrap(),
    );
    let audiences = ["sts.amazonaws.com", "carts.example.com"];
    let sts = sts(
        control_plane,
        &audiences,
        &[(ORDERS, &trust_orders), (CARTS, &trust_carts)],
    )
    .await
    .unwrap();
    for (container, role) in [("orders", "orders"), ("carts", "carts")] {
        let arn = who_is(control_plane, &sts, "two-roles", "both", container)
            .await
            .unwrap();
        assert!(
            arn.starts_with(&format!("arn:aws:sts::{ACCOUNT}:assumed-role/{role}/")),
            "{arn}"
        );
    }
    sts.stop().await;
}

/// Each of the containers has a volume of its own with a token for its audience, and no other's.
fn has_a_volume_each(pod: &Value, containers: [(&str, &str); 2]) {
    let volumes_of = |container| {
        let mounts = container_of(pod, container)["volumeMounts"].as_array().unwrap();
        let names = mounts
            .iter()
            .filter(|mount| mount["mountPath"] == MOUNT || mount["name"].as_str().unwrap().starts_with(VOLUME));
        names
            .map(|mount| mount["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let [one, other] = containers.map(|(container, _)| volumes_of(container));
    assert_eq!((one.len(), other.len()), (1, 1));
    assert_ne!(one, other);
    for (volumes, (_, audience)) in [one, other].iter().zip(containers) {
        let sources = volume(pod, &volumes[0]).unwrap()["projected"]["sources"]
            .as_array()
            .unwrap();
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0]["serviceAccountToken"]["audience"], audience);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_with_roles_of_their_own_and_one_audience_share_a_token_file() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "one-audience", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    let mut pod = with_annotations(shop.asking("both", ORDERS), &[("tokenscope.io/role-arn.carts", CARTS)]);
    pod["spec"]["containers"] = json!([{"name": "orders", "image": "app"}, {"name": "carts", "image": "app"}]);
    let pod = shop.granted(&pod).await.unwrap().body;

    assert_eq!(variable(&pod, "orders", "AWS_ROLE_ARN").as_deref(), Some(ORDERS));
    assert_eq!(variable(&pod, "carts", "AWS_ROLE_ARN").as_deref(), Some(CARTS));
    let file = |container| variable(&pod, container, "AWS_WEB_IDENTITY_TOKEN_FILE").unwrap();
    assert_eq!(file("orders"), file("carts"));
    assert_eq!(
        volume(&pod, VOLUME).unwrap()["projected"]["sources"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_is_named_after_a_pod_whose_name_is_generated() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "generated", &[]).await.unwrap();
    let mut spec = orders_may(&[ORDERS]);
    spec["aws"] = json!({"roleSessionName": "${pod.name}"});
    shop.policy("orders", spec).await.unwrap();
    // As a ReplicaSet creates them; the longest prefix still gives a name that STS takes.
    for prefix in ["orders-7d4b9c-", &format!("{}-", "o".repeat(120))] {
        let mut pod = shop.asking("unused", ORDERS);
        pod["metadata"]["name"].take();
        pod["metadata"]["generateName"] = json!(prefix);
        pod["metadata"]["ownerReferences"] = json!([owner("orders-7d4b9c")]);
        let answer = shop.granted(&pod).await.unwrap();
        assert!(answer.warnings.is_empty(), "{:?}", answer.warnings);
        let name = answer.body["metadata"]["name"].as_str().unwrap();

        let trust = shop.trust_policy("orders", ORDERS).await.unwrap();
        let sts = sts(control_plane, &["sts.amazonaws.com"], &[(ORDERS, &trust)])
            .await
            .unwrap();
        let arn = who_is(control_plane, &sts, "generated", name, "app").await.unwrap();
        assert_eq!(arn, format!("arn:aws:sts::{ACCOUNT}:assumed-role/orders/{name}"));
        sts.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_name_that_is_too_long_for_a_session_is_left_out_with_a_warning_and_works() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "long-name", &[]).await.unwrap();
    let mut spec = orders_may(&[ORDERS]);
    spec["aws"] = json!({"roleSessionName": "${pod.name}"});
    shop.policy("orders", spec).await.unwrap();
    let name = format!("{}.{}", "o".repeat(50), "p".repeat(14));
    assert_eq!(name.len(), 65);
    let answer = shop.granted(&shop.asking(&name, ORDERS)).await.unwrap();

    assert_eq!(variable(&answer.body, "app", "AWS_ROLE_SESSION_NAME"), None);
    // The API server has its own opinion of such a name.
    let expected =
        "tokenscope: AWS_ROLE_SESSION_NAME is left out: STS takes 2 to 64 characters, and the pod's name has 65";
    assert!(
        answer.warnings.iter().any(|warning| warning == expected),
        "{:?}",
        answer.warnings
    );
    let trust = shop.trust_policy("orders", ORDERS).await.unwrap();
    let sts = sts(control_plane, &["sts.amazonaws.com"], &[(ORDERS, &trust)])
        .await
        .unwrap();
    let arn = who_is(control_plane, &sts, "long-name", &name, "app").await.unwrap();
    assert!(
        arn.starts_with(&format!("arn:aws:sts::{ACCOUNT}:assumed-role/orders/")),
        "{arn}"
    );
    sts.stop().await;
}

/// Somebody saves a pod with `kubectl get -o json`, takes out what the server wrote, and creates it anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_an_injected_pod_is_changed_no_further_and_works() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "copies", &[]).await.unwrap();
    let mut spec = orders_may(&[ORDERS]);
    spec["aws"] = json!({"region": "eu-central-1", "roleSessionName": "${pod.name}"});
    shop.policy("orders", spec).await.unwrap();
    let mut pod = shop.asking("original", ORDERS);
    pod["spec"]["initContainers"] = json!([{"name": "migrate", "image": "app"}]);
    shop.granted(&pod).await.unwrap();

    let saved = control_plane
        .kubectl(&["get", "pod", "original", "--namespace=copies", "--output=json"], "")
        .unwrap();
    let original: serde_json::Value = serde_json::from_str(&saved).unwrap();
    let mut copy = original.clone();
    for server_made in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "managedFields",
        "generation",
    ] {
        copy["metadata"].as_object_mut().unwrap().remove(server_made);
    }
    copy.as_object_mut().unwrap().remove("status");
    copy["metadata"]["name"] = json!("copy");
    let copy = shop.granted(&copy).await.unwrap();
    assert!(copy.warnings.is_empty(), "{:?}", copy.warnings);
    assert_eq!(copy.body["spec"], original["spec"]);
    assert_eq!(
        copy.body["metadata"]["annotations"],
        original["metadata"]["annotations"]
    );

    let trust = shop.trust_policy("orders", ORDERS).await.unwrap();
    let sts = sts(control_plane, &["sts.amazonaws.com"], &[(ORDERS, &trust)])
        .await
        .unwrap();
    for container in ["migrate", "app"] {
        let arn = who_is(control_plane, &sts, "copies", "copy", container).await.unwrap();
        assert_eq!(arn, format!("arn:aws:sts::{ACCOUNT}:assumed-role/orders/copy"));
    }
    sts.stop().await;
}

#[tokio::test]
async fn a_copy_of_an_injected_pod_that_asks_for_something_else_gets_that() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "changed-copies", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    let mut pod = shop.granted(&shop.asking("original", ORDERS)).await.unwrap().body;
    pod["metadata"] = json!({
        "name": "copy", "namespace": "changed-copies", "annotations": pod["metadata"]["annotations"],
    });
    let pod = with_annotations(
        pod,
        &[
            ("tokenscope.io/role-arn", CARTS),
            ("tokenscope.io/audience", "carts.example.com"),
        ],
    );
    let copy = shop.granted(&pod).await.unwrap().body;

    assert_eq!(variable(&copy, "app", "AWS_ROLE_ARN").as_deref(), Some(CARTS));
    assert_eq!(
        volume(&copy, VOLUME).unwrap()["projected"]["sources"],
        json!([{"serviceAccountToken": {"audience": "carts.example.com", "expirationSeconds": 3600, "path": "token"}}])
    );
    assert_eq!(mounted_at(&copy, "app", VOLUME), Some(MOUNT));

    // Without the request nothing of ours stays in it.
    let mut plain = copy.clone();
    plain["metadata"] = json!({
        "name": "plain", "namespace": "changed-copies",
        "annotations": {"tokenscope.io/grant": copy["metadata"]["annotations"]["tokenscope.io/grant"]},
    });
    let plain = shop.untouched(&plain).await.unwrap().body;
    assert_eq!(environment(&plain, "app"), []);
    let stored = get_json(&shop.client, &shop.path("pods/plain")).await.unwrap();
    assert!(volume(&stored, VOLUME).is_none(), "{stored}");
}

#[tokio::test]
async fn a_token_of_an_injected_pod_is_worth_nothing_at_the_api_server() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "not-for-kubernetes", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("orders-1", ORDERS)).await.unwrap();
    let token = control_plane
        .pod_token("not-for-kubernetes", "orders-1", "sts.amazonaws.com", 3600)
        .await
        .unwrap();
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let review = post(&shop.client, "/apis/authentication.k8s.io/v1/tokenreviews", &review)
        .await
        .unwrap();

    assert_ne!(review["status"]["authenticated"], true, "{review}");
}

fn owner(name: &str) -> serde_json::Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": "3b0b5f0e-8ad1-4a2f-9d57-5a5f0c7c1b11", "controller": true})
}
