//! What a pod gets, and what is refused.

use serde_json::{Value, json};
use tokenscope_e2e::admission::{accepts, rejects};
use tokenscope_e2e::fixtures::{
    CARTS, ORDERS, container_of, init_containers, mounted_at, orders_may, variable, volume, with_annotations,
};

use crate::{
    MOUNT, RESTRICTED, SIDECAR, SOCKET_VOLUME, SPIFFE_ID, VOLUME, copied, from_spiffe, restricted, shop, within_rights,
};

#[tokio::test]
async fn a_pod_under_restricted_pod_security_gets_the_sidecar_first_and_its_volumes() {
    let shop = shop("shop", RESTRICTED).await;
    let spiffe = json!({"spiffeId": SPIFFE_ID, "hint": "aws", "trustDomain": "example.org"});
    shop.policy("orders", from_spiffe(&[ORDERS], &spiffe)).await.unwrap();
    let mut pod = restricted(shop.asking("orders", ORDERS));
    pod["spec"]["initContainers"] = json!([pod["spec"]["containers"][0]]);
    pod["spec"]["initContainers"][0]["name"] = json!("migrate");
    let answer = shop.granted(&pod).await.unwrap();
    assert_eq!(answer.warnings, [""; 0]);
    let pod = answer.body;

    assert_eq!(init_containers(&pod), [SIDECAR, "migrate"]);
    has_sidecar(&pod);
    for container in ["migrate", "app"] {
        assert_eq!(variable(&pod, container, "AWS_ROLE_ARN").as_deref(), Some(ORDERS));
        assert_eq!(mounted_at(&pod, container, VOLUME), Some(MOUNT));
        assert_eq!(
            mounted_at(&pod, container, SOCKET_VOLUME),
            None,
            "the socket is the sidecar's"
        );
    }

    // A copy of the stored pod comes out the same.
    let copy = accepts(&shop.client, &copied(&pod, "copy")).await.unwrap();
    for part in ["initContainers", "containers", "volumes"] {
        assert_eq!(copy["spec"][part], pod["spec"][part], "{part}");
    }

    trusts_spiffe(&shop.trust_policy("orders", ORDERS).await.unwrap());
    within_rights(&shop);
}

/// The sidecar runs as the policy says, and has its two volumes.
fn has_sidecar(pod: &Value) {
    let sidecar = container_of(pod, SIDECAR);
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert_eq!(
        sidecar["image"],
        concat!("localhost/tokenscope-sidecar:", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(
        sidecar["startupProbe"]["exec"]["command"],
        json!(["/tokenscope-sidecar", "ready"])
    );
    let expected = [
        ("TOKENSCOPE_DIRECTORY", MOUNT),
        ("TOKENSCOPE_JWT_SVIDS", "token=sts.amazonaws.com"),
        ("SPIFFE_ENDPOINT_SOCKET", "unix:///spiffe-workload-api/spire-agent.sock"),
        ("TOKENSCOPE_SPIFFE_ID", SPIFFE_ID),
        ("TOKENSCOPE_HINT", "aws"),
        ("TOKENSCOPE_TRUST_DOMAIN", "example.org"),
    ];
    for (name, value) in expected {
        assert_eq!(variable(pod, SIDECAR, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(mounted_at(pod, SIDECAR, SOCKET_VOLUME), Some("/spiffe-workload-api"));
    assert_eq!(
        volume(pod, VOLUME).unwrap()["emptyDir"],
        json!({"medium": "Memory", "sizeLimit": "1Mi"})
    );
    assert_eq!(
        volume(pod, SOCKET_VOLUME).unwrap()["csi"],
        json!({"driver": "csi.spiffe.io", "readOnly": true})
    );
}

/// The trust policy is about the identity and the audience of the token.
fn trusts_spiffe(trust: &Value) {
    let statement = &trust["Statement"][0];
    assert_eq!(
        statement["Principal"]["Federated"],
        "arn:aws:iam::111122223333:oidc-provider/oidc-discovery.example.org"
    );
    assert_eq!(
        statement["Condition"],
        json!({"StringEquals": {
            "oidc-discovery.example.org:aud": "sts.amazonaws.com",
            "oidc-discovery.example.org:sub": SPIFFE_ID,
        }})
    );
}

#[tokio::test]
async fn several_audiences_are_several_volumes_of_one_sidecar() {
    let shop = shop("audiences", &[]).await;
    let mut china = from_spiffe(&[CARTS], &json!({}));
    china["audiences"] = json!({"default": "sts.amazonaws.com.cn"});
    shop.policy("china", china).await.unwrap();
    shop.policy("orders", from_spiffe(&[ORDERS], &json!({}))).await.unwrap();
    let mut pod = with_annotations(shop.asking("both", ORDERS), &[("tokenscope.io/role-arn.second", CARTS)]);
    pod["spec"]["containers"] = json!([{"name": "app", "image": "app"}, {"name": "second", "image": "app"}]);
    let pod = shop.granted(&pod).await.unwrap().body;

    let first = variable(&pod, "app", "AWS_WEB_IDENTITY_TOKEN_FILE").unwrap();
    let second = variable(&pod, "second", "AWS_WEB_IDENTITY_TOKEN_FILE").unwrap();
    assert_eq!((first, second), (format!("{MOUNT}/token"), format!("{MOUNT}/token")));
    let further: Vec<&str> = pod["spec"]["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|volume| volume["name"].as_str()?.strip_prefix(VOLUME)?.strip_prefix('-'))
        .collect();
    let [hash] = further.as_slice() else {
        panic!("{further:?}")
    };
    let volume_of_second = format!("{VOLUME}-{hash}");
    assert_eq!(
        variable(&pod, SIDECAR, "TOKENSCOPE_JWT_SVIDS").unwrap(),
        format!("token=sts.amazonaws.com {MOUNT}-{hash}/token=sts.amazonaws.com.cn")
    );
    assert_eq!(mounted_at(&pod, SIDECAR, VOLUME), Some(MOUNT));
    assert_eq!(
        mounted_at(&pod, SIDECAR, &volume_of_second),
        Some(&*format!("{MOUNT}-{hash}"))
    );
    assert_eq!(mounted_at(&pod, "app", VOLUME), Some(MOUNT));
    assert_eq!(mounted_at(&pod, "app", &volume_of_second), None);
    assert_eq!(mounted_at(&pod, "second", VOLUME), None);
    assert_eq!(mounted_at(&pod, "second", &volume_of_second), Some(MOUNT));
    assert_eq!(init_containers(&pod), [SIDECAR]);
}

#[tokio::test]
async fn a_csi_volume_that_the_pod_brings_is_used() {
    let shop = shop("reused", RESTRICTED).await;
    shop.policy("orders", from_spiffe(&[ORDERS], &json!({}))).await.unwrap();
    let mut pod = restricted(shop.asking("istio", ORDERS));
    pod["spec"]["volumes"] = json!([{"name": "workload-socket", "csi": {"driver": "csi.spiffe.io", "readOnly": true}}]);
    pod["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "workload-socket", "mountPath": "/run/secrets/workload-spiffe-uds", "readOnly": true}]);
    let pod = shop.granted(&pod).await.unwrap().body;
    assert!(volume(&pod, SOCKET_VOLUME).is_none());
    assert_eq!(
        mounted_at(&pod, SIDECAR, "workload-socket"),
        Some("/spiffe-workload-api")
    );
    assert_eq!(
        mounted_at(&pod, "app", "workload-socket"),
        Some("/run/secrets/workload-spiffe-uds")
    );
}

#[tokio::test]
async fn what_has_our_names_and_what_can_not_run_the_sidecar_is_refused_with_the_remedy() {
    let shop = shop("refused", &[]).await;
    shop.policy("orders", from_spiffe(&[ORDERS], &json!({}))).await.unwrap();
    shop.granted(&shop.asking("good", ORDERS)).await.unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut pod = shop.asking("bad", ORDERS);
        change(&mut pod["spec"]);
        pod
    };
    let cases: [(Value, &str); 5] = [
        (
            changed(&|spec| {
                spec["initContainers"] = json!([{"name": SIDECAR, "image": "i", "restartPolicy": "Always"}]);
            }),
            "brings a container tokenscope-sidecar of its own",
        ),
        (
            changed(&|spec| {
                spec["containers"] = json!([{"name": "app", "image": "i"}, {"name": SIDECAR, "image": "i"}]);
            }),
            "brings a container tokenscope-sidecar of its own",
        ),
        (
            changed(&|spec| spec["volumes"] = json!([{"name": SOCKET_VOLUME, "emptyDir": {}}])),
            "brings a volume tokenscope-spiffe-workload-api of its own",
        ),
        (
            changed(&|spec| spec["volumes"] = json!([{"name": VOLUME, "emptyDir": {"medium": "Memory"}}])),
            "brings a volume tokenscope-aws-token of its own",
        ),
        (
            changed(&|spec| spec["os"] = json!({"name": "windows"})),
            "runs on Linux only, and the pod needs Windows",
        ),
    ];
    for (pod, part) in cases {
        let message = rejects(&shop.client, &pod).await.unwrap();
        assert!(message.contains(part), "{message}");
    }
    // A mount without a volume would be nothing of Kubernetes' without us.
    let pod =
        changed(&|spec| spec["containers"][0]["volumeMounts"] = json!([{"name": SOCKET_VOLUME, "mountPath": "/s"}]));
    let message = rejects(&shop.client, &pod).await.unwrap();
    assert!(
        message.contains("itself, which tokenscope adds for its sidecar alone"),
        "{message}"
    );

    // One pod, one source.
    let mut by_cluster = orders_may(&[CARTS]);
    by_cluster["containers"] = json!({"include": ["second"]});
    shop.policy("by-cluster", by_cluster).await.unwrap();
    let mut pod = with_annotations(
        shop.asking("mixed", ORDERS),
        &[("tokenscope.io/role-arn.second", CARTS)],
    );
    pod["spec"]["containers"] = json!([{"name": "app", "image": "app"}, {"name": "second", "image": "app"}]);
    shop.refused(
        &pod,
        "container app would get its token from SPIFFE and container second from ServiceAccount",
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_lifetime_that_a_pod_asks_for_is_warned_of() {
    let shop = shop("lifetime", &[]).await;
    shop.policy("orders", from_spiffe(&[ORDERS], &json!({}))).await.unwrap();
    let pod = with_annotations(
        shop.asking("asking", ORDERS),
        &[("tokenscope.io/token-expiration", "900")],
    );
    let answer = shop.granted(&pod).await.unwrap();
    assert!(
        answer
            .warnings
            .iter()
            .any(|warning| warning.contains("the SPIFFE provider decides")),
        "{:?}",
        answer.warnings
    );
}
