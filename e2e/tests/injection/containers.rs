//! Which containers get what, and what they bring themselves.

use serde_json::{Value, json};
use tokenscope_e2e::fixtures::{
    ADMIN, CARTS, ORDERS, Shop, environment, mounted_at, orders_may, reviewed, variable, volume, with_annotations,
};

use crate::{MOUNT, SHARED, VOLUME};

const ROLE: &str = "AWS_ROLE_ARN";
const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";

#[tokio::test]
async fn include_and_skip_lists_of_a_pod_and_of_a_policy_are_kept() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "lists", &[]).await.unwrap();
    let mut spec = orders_may(&[ORDERS]);
    spec["containers"] = json!({"exclude": ["istio-*"]});
    shop.policy("orders", spec).await.unwrap();
    let three = |name, annotations: &[(&str, &str)]| {
        let mut pod = with_annotations(shop.asking(name, ORDERS), annotations);
        pod["spec"]["containers"] = json!([
            {"name": "a", "image": "app"}, {"name": "b", "image": "app"}, {"name": "istio-proxy", "image": "app"},
        ]);
        pod
    };
    let equipped = |pod: &Value| {
        let names = ["a", "b", "istio-proxy"];
        let has = |name: &&str| {
            let equipped = variable(pod, name, ROLE).is_some();
            assert_eq!(
                equipped,
                mounted_at(pod, name, VOLUME).is_some(),
                "half equipped: {pod}"
            );
            assert_eq!(equipped, !environment(pod, name).is_empty(), "half equipped: {pod}");
            equipped
        };
        names.into_iter().filter(has).collect::<Vec<_>>()
    };

    let pod = shop.granted(&three("by-policy", &[])).await.unwrap().body;
    assert_eq!(equipped(&pod), ["a", "b"]);
    let pod = shop
        .granted(&three("included", &[("tokenscope.io/containers", " b ,istio-proxy")]))
        .await
        .unwrap()
        .body;
    assert_eq!(equipped(&pod), ["b"]);
    let pod = shop
        .granted(&three("skipped", &[("tokenscope.io/skip-containers", "c, b")]))
        .await
        .unwrap();
    assert_eq!(equipped(&pod.body), ["a"]);
    let [warning] = pod.warnings.as_slice() else {
        panic!("{:?}", pod.warnings)
    };
    assert!(
        warning.contains("names container c, which this pod does not have"),
        "{warning}"
    );
    shop.untouched(&three(
        "all-skipped",
        &[("tokenscope.io/skip-containers", "a,b,istio-proxy")],
    ))
    .await
    .unwrap();
    let by_name = three("by-name", &[("tokenscope.io/role-arn.istio-proxy", ORDERS)]);
    shop.refused(&by_name, "does not cover container istio-proxy")
        .await
        .unwrap();
}

#[tokio::test]
async fn variables_that_a_container_sets_itself_stay_as_they_are() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "own-variables", &[]).await.unwrap();
    let mut spec = orders_may(&[ORDERS]);
    spec["aws"] = json!({"region": "eu-central-1", "roleSessionName": "orders"});
    shop.policy("orders", spec).await.unwrap();
    let own = json!([
        {"name": "A", "value": "1"},
        {"name": "AWS_DEFAULT_REGION", "value": "us-west-2"},
        {"name": "AWS_STS_REGIONAL_ENDPOINTS", "value": "legacy"},
        {"name": "AWS_ROLE_SESSION_NAME", "value": "mine"},
        {"name": "B", "value": "$(A)"},
    ]);
    let mut pod = shop.asking("orders-1", ORDERS);
    pod["spec"]["containers"][0]["env"] = own.clone();
    let pod = shop.granted(&pod).await.unwrap().body;

    let variables = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    assert_eq!(json!(variables[..5]), own);
    let mut added: Vec<_> = variables[5..]
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    added.sort_unstable();
    assert_eq!(
        added,
        ["AWS_EC2_METADATA_DISABLED", ROLE, TOKEN_FILE],
        "one region alone is the container's choice"
    );
}

#[tokio::test]
async fn half_a_pair_is_completed_and_a_whole_pair_is_left_alone() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "halves", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    let role_only = json!({"name": "role-only", "image": "app", "env": [{"name": ROLE, "value": CARTS}]});
    let ours_only = json!({
        "name": "file-only", "image": "app", "env": [{"name": TOKEN_FILE, "value": format!("{MOUNT}/token")}],
    });
    let elsewhere = json!({
        "name": "own-file", "image": "app", "env": [{"name": TOKEN_FILE, "value": "/var/run/own/token"}],
    });
    let both = json!({
        "name": "both", "image": "app",
        "env": [{"name": ROLE, "value": ADMIN}, {"name": TOKEN_FILE, "value": "/var/run/own/token"}],
    });
    let mut pod = shop.asking("halves", ORDERS);
    pod["spec"]["containers"] = json!([role_only, ours_only, elsewhere, both]);
    let pod = shop.granted(&pod).await.unwrap().body;

    let pair = |container| {
        (
            variable(&pod, container, ROLE).unwrap(),
            variable(&pod, container, TOKEN_FILE).unwrap(),
        )
    };
    assert_eq!(pair("role-only"), (CARTS.to_owned(), format!("{MOUNT}/token")));
    assert_eq!(mounted_at(&pod, "role-only", VOLUME), Some(MOUNT));
    assert_eq!(pair("file-only"), (ORDERS.to_owned(), format!("{MOUNT}/token")));
    assert_eq!(mounted_at(&pod, "file-only", VOLUME), Some(MOUNT));
    assert_eq!(pair("own-file"), (ORDERS.to_owned(), "/var/run/own/token".to_owned()));
    assert_eq!(environment(&pod, "both").len(), 2);
    assert_eq!(pair("both"), (ADMIN.to_owned(), "/var/run/own/token".to_owned()));
    assert_eq!(mounted_at(&pod, "both", VOLUME), None);

    // A role that the container names itself must be allowed like any other.
    let own_role = |name, role| {
        let mut pod = shop.asking(name, ORDERS);
        pod["spec"]["containers"][0]["env"] = json!([{"name": ROLE, "value": role}]);
        pod
    };
    shop.refused(&own_role("too-much", ADMIN), &format!("does not allow {ADMIN}"))
        .await
        .unwrap();
    shop.refused(
        &own_role("nonsense", "x"),
        "AWS_ROLE_ARN of container app: \"x\" is not an IAM role ARN",
    )
    .await
    .unwrap();
    let two = with_annotations(own_role("two", CARTS), &[("tokenscope.io/role-arn.app", ORDERS)]);
    shop.refused(&two, "remove one of them").await.unwrap();
}

#[tokio::test]
async fn a_role_that_comes_from_elsewhere_can_not_be_judged_and_is_left_alone_with_a_warning() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "indirect", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    let mut pod = shop.asking("indirect", ORDERS);
    pod["spec"]["containers"] = json!([
        {"name": "from", "image": "app", "env": [{"name": ROLE, "valueFrom": {"configMapKeyRef": {"name": "aws", "key": "role"}}}]},
        {"name": "composed", "image": "app", "env": [
            {"name": "ACCOUNT", "value": "111122223333"}, {"name": ROLE, "value": "arn:aws:iam::$(ACCOUNT):role/admin"},
        ]},
        {"name": "app", "image": "app"},
    ]);
    let answer = shop.granted(&pod).await.unwrap();

    for container in ["from", "composed"] {
        assert_eq!(variable(&answer.body, container, TOKEN_FILE), None);
        assert_eq!(mounted_at(&answer.body, container, VOLUME), None);
        let expected = format!("container {container} takes AWS_ROLE_ARN from elsewhere, which can't be judged");
        assert!(
            answer.warnings.iter().any(|warning| warning.contains(&expected)),
            "{:?}",
            answer.warnings
        );
    }
    assert_eq!(
        answer.body["spec"]["containers"][0]["env"],
        pod["spec"]["containers"][0]["env"]
    );
    assert_eq!(
        answer.body["spec"]["containers"][1]["env"],
        pod["spec"]["containers"][1]["env"]
    );
    assert_eq!(variable(&answer.body, "app", ROLE).as_deref(), Some(ORDERS));
}

#[tokio::test]
async fn access_keys_that_the_sdk_would_prefer_give_a_warning() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "access-keys", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    let mut pod = shop.asking("keys", ORDERS);
    pod["spec"]["containers"] = json!([
        {"name": "static", "image": "app", "env": [{"name": "AWS_ACCESS_KEY_ID", "value": "AKIAIOSFODNN7EXAMPLE"}]},
        {"name": "maybe", "image": "app", "envFrom": [{"secretRef": {"name": "aws"}}]},
        {"name": "clean", "image": "app"},
    ]);
    let answer = shop.granted(&pod).await.unwrap();

    let [keys, maybe] = answer.warnings.as_slice() else {
        panic!("{:?}", answer.warnings)
    };
    assert!(
        keys.contains("container static sets AWS_ACCESS_KEY_ID, which SDKs prefer"),
        "{keys}"
    );
    assert!(
        !keys.contains("AKIA"),
        "a warning has no business with the key itself: {keys}"
    );
    assert!(maybe.contains("container maybe has envFrom"), "{maybe}");
}

#[tokio::test]
async fn a_volume_or_a_mount_where_ours_must_go_is_refused_and_not_trusted() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "foreign", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    let token_of = |seconds: u32| json!({"serviceAccountToken": {"audience": "sts.amazonaws.com", "expirationSeconds": seconds, "path": "token"}});
    let (token, other) = (token_of(3600), token_of(7200));
    for (name, volume) in [
        ("empty-dir", json!({"name": VOLUME, "emptyDir": {}})),
        ("secret", json!({"name": VOLUME, "secret": {"secretName": "token"}})),
        // It looks like ours, but is not what would be added.
        ("look-alike", json!({"name": VOLUME, "projected": {"sources": [other]}})),
    ] {
        let mut pod = shop.asking(name, ORDERS);
        pod["spec"]["volumes"] = json!([volume]);
        let refusal = shop.refused(&pod, VOLUME).await.unwrap();
        assert_eq!(
            refusal,
            "tokenscope: the pod brings a volume tokenscope-aws-token of its own, which is the name of the volume that tokenscope adds: \
             remove or rename it; if the pod is a copy of another one, keep that one's annotations (kubectl debug --keep-annotations)"
        );
    }
    // One that is exactly what would be added is taken for it, whoever wrote it.
    let mut pod = shop.asking("equal", ORDERS);
    pod["spec"]["volumes"] = json!([{"name": VOLUME, "projected": {"sources": [token]}}]);
    shop.granted(&pod).await.unwrap();
    for (name, path) in [
        ("same", MOUNT.to_owned()),
        ("slashes", format!("/{MOUNT}/")),
        ("inside", format!("{MOUNT}/token")),
        ("roundabout", "/var/run/secrets/./tokenscope.io/aws".to_owned()),
        ("back-and-forth", "/var/run/secrets/tokenscope.io/b/../aws".to_owned()),
        // In most images one is a link to the other.
        ("linked", "/run/secrets/tokenscope.io/aws".to_owned()),
    ] {
        let mut pod = shop.asking(name, ORDERS);
        pod["spec"]["volumes"] = json!([{"name": "mine", "emptyDir": {}}]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "mine", "mountPath": path}]);
        let refusal = shop.refused(&pod, "mounts volume mine at").await.unwrap();
        assert!(
            refusal.contains("container app") && refusal.contains(&path),
            "{refusal}"
        );
    }

    // Beside ours there is room.
    let mut pod = shop.asking("beside", ORDERS);
    pod["spec"]["volumes"] = json!([{"name": "mine", "emptyDir": {}}]);
    pod["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "mine", "mountPath": "/var/run/secrets/tokenscope.io/aws-other"}]);
    shop.granted(&pod).await.unwrap();

    // A pod that asks for nothing may have such a volume.
    let mut pod = shop.pod("plain");
    pod["spec"]["volumes"] = json!([{"name": VOLUME, "emptyDir": {}}]);
    let answer = tokenscope_e2e::admission::create_pod(&shop.client, &pod).await.unwrap();
    assert!(answer.accepted(), "{}", answer.message());
    assert!(volume(&answer.body, VOLUME).unwrap()["emptyDir"].is_object());
}

#[tokio::test]
async fn init_containers_and_native_sidecars_are_equipped_too() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "init", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    let mut pod = with_annotations(
        shop.asking("init", ORDERS),
        &[("tokenscope.io/role-arn.migrate", CARTS)],
    );
    pod["spec"]["initContainers"] = json!([
        {"name": "proxy", "image": "app", "restartPolicy": "Always"}, {"name": "migrate", "image": "app"},
    ]);
    let pod = shop.granted(&pod).await.unwrap().body;

    for (container, role) in [("proxy", ORDERS), ("migrate", CARTS), ("app", ORDERS)] {
        assert_eq!(variable(&pod, container, ROLE).as_deref(), Some(role));
        assert_eq!(variable(&pod, container, TOKEN_FILE), Some(format!("{MOUNT}/token")));
        assert_eq!(mounted_at(&pod, container, VOLUME), Some(MOUNT));
    }
    assert_eq!(pod["spec"]["initContainers"][0]["restartPolicy"], "Always");
}

#[tokio::test]
async fn a_windows_pod_finds_its_token_under_a_windows_path() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "windows", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    let term = json!({"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["windows"]}]});
    let required = json!({"nodeSelectorTerms": [term]});
    for (name, field, value) in [
        ("os", "os", json!({"name": "windows"})),
        ("selector", "nodeSelector", json!({"kubernetes.io/os": "windows"})),
        (
            "affinity",
            "affinity",
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}),
        ),
    ] {
        let mut pod = shop.asking(name, ORDERS);
        pod["spec"][field] = value;
        let pod = shop.granted(&pod).await.unwrap().body;
        assert_eq!(
            variable(&pod, "app", TOKEN_FILE).as_deref(),
            Some(r"C:\var\run\secrets\tokenscope.io\aws\token"),
            "{name}"
        );
        assert_eq!(
            mounted_at(&pod, "app", VOLUME),
            Some(MOUNT),
            "the kubelet puts the drive before it"
        );
    }
    let mut pod = shop.asking("linux", ORDERS);
    pod["spec"]["os"] = json!({"name": "linux"});
    let pod = shop.granted(&pod).await.unwrap().body;
    assert_eq!(variable(&pod, "app", TOKEN_FILE), Some(format!("{MOUNT}/token")));
}

#[tokio::test]
async fn a_pod_that_asks_and_in_the_end_gets_nothing_hears_why() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "nothing", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("known", ORDERS)).await.unwrap();
    let mut indirect = shop.asking("indirect", ORDERS);
    let elsewhere = json!({"configMapKeyRef": {"name": "aws", "key": "role"}});
    indirect["spec"]["containers"][0]["env"] = json!([{"name": ROLE, "valueFrom": elsewhere}]);
    let typo = with_annotations(shop.pod("typo"), &[("tokenscope.io/role-arn.aap", ORDERS)]);
    let answer = shop.untouched(&indirect).await.unwrap();
    assert_eq!(reviewed(&answer.body), Some("holds-nothing"));
    let [warning] = answer.warnings.as_slice() else {
        panic!("{:?}", answer.warnings)
    };
    assert!(
        warning.contains("container app takes AWS_ROLE_ARN from elsewhere"),
        "{warning}"
    );
    shop.refused(&typo, "annotations name the containers aap, of which this pod has none")
        .await
        .unwrap();
}
