//! Policies with tokens from SPIFFE on a real API server: what pods get, what is refused, and what their status says.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokenscope_tests::admission::{accepts, create_pod, rejects, try_pod};
use tokenscope_tests::control_plane::{self, ControlPlane};
use tokenscope_tests::fixtures::{
    CARTS, ORDERS, PROPAGATION, Shop, container_of, mounted_at, orders_may, reviewed, variable, volume,
    with_annotations,
};
use tokenscope_tests::install::{Options, install};
use tokenscope_tests::second_webhook::{Order, SecondWebhook};
use tokenscope_tests::{Environment, Shared, delete, eventually, get_json};

static SHARED: Shared = Shared::new(with_an_issuer);

const SIDECAR: &str = "tokenscope-sidecar";
const VOLUME: &str = "tokenscope-aws-token";
const MOUNT: &str = "/var/run/secrets/tokenscope.io/aws";
const SOCKET_VOLUME: &str = "tokenscope-spiffe-workload-api";
const SPIFFE_ID: &str = "spiffe://example.org/ns/shop/sa/orders";
const RESTRICTED: &[(&str, &str)] = &[("pod-security.kubernetes.io/enforce", "restricted")];

fn with_an_issuer() -> Options {
    Options {
        values: json!({"spiffe": {"issuer": "https://oidc-discovery.example.org"}}),
        ..Options::default()
    }
}

async fn shop(namespace: &str, labels: &[(&str, &str)]) -> Shop<'static> {
    let Environment { control_plane, .. } = SHARED.environment().await;
    Shop::open(control_plane, namespace, labels).await.unwrap()
}

/// ServiceAccount `orders` may have these roles with tokens from SPIFFE.
fn from_spiffe(roles: &[&str], spiffe: &Value) -> Value {
    let mut spec = orders_may(roles);
    spec["token"] = json!({"source": "SPIFFE", "spiffe": spiffe});
    spec
}

/// A pod that Pod Security "restricted" admits.
fn restricted(mut pod: Value) -> Value {
    pod["spec"]["securityContext"] = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten() {
        container["securityContext"] = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    }
    pod
}

fn init_containers(pod: &Value) -> Vec<&str> {
    let list = pod["spec"]["initContainers"].as_array();
    let names = list.into_iter().flatten().map(|container| container["name"].as_str());
    names.map(Option::unwrap_or_default).collect()
}

/// The same pod under another name, as somebody makes one from `kubectl get pod -o yaml`.
fn copied(pod: &Value, name: &str) -> Value {
    let mut copy = json!({"apiVersion": "v1", "kind": "Pod", "spec": pod["spec"]});
    copy["metadata"] = json!({
        "name": name, "namespace": pod["metadata"]["namespace"], "labels": pod["metadata"]["labels"],
        "annotations": pod["metadata"]["annotations"],
    });
    copy
}

fn within_rights(shop: &Shop<'_>) {
    let nothing: [String; 0] = [];
    assert_eq!(shop.control_plane.forbidden().unwrap(), nothing);
}

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
    let sidecar = container_of(&pod, SIDECAR);
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
        assert_eq!(variable(&pod, SIDECAR, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(mounted_at(&pod, SIDECAR, SOCKET_VOLUME), Some("/spiffe-workload-api"));
    assert_eq!(
        volume(&pod, VOLUME).unwrap()["emptyDir"],
        json!({"medium": "Memory", "sizeLimit": "1Mi"})
    );
    assert_eq!(
        volume(&pod, SOCKET_VOLUME).unwrap()["csi"],
        json!({"driver": "csi.spiffe.io", "readOnly": true})
    );
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

    let trust = shop.trust_policy("orders", ORDERS).await.unwrap();
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
    within_rights(&shop);
}

#[tokio::test]
async fn the_status_says_why_there_is_no_trust_policy_where_no_identity_is_pinned() {
    let shop = shop("open", &[]).await;
    let spec = from_spiffe(&[ORDERS], &json!({"trustDomain": "example.org"}));
    shop.policy("orders", spec).await.unwrap();
    let status = status(&shop, |status| ready(status).is_some()).await.unwrap();
    let ready = ready(&status).unwrap();
    assert_eq!(ready["reason"], "UpToDate");
    let message = ready["message"].as_str().unwrap();
    assert!(message.contains("spec.token.spiffe.spiffeId is left out"), "{message}");
    assert_eq!(status["trustPolicies"], Value::Null);
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

#[tokio::test]
async fn the_sidecar_stays_first_whatever_another_webhook_puts_before_it() {
    let shop = shop("pushed", &[]).await;
    shop.policy("orders", from_spiffe(&[ORDERS], &json!({}))).await.unwrap();
    shop.granted(&shop.asking("alone", ORDERS)).await.unwrap();
    for order in [Order::After, Order::Before] {
        let second = SecondWebhook::start(shop.control_plane, order, "pushed", put_first)
            .await
            .unwrap();
        let name = format!("pod-{order:?}").to_lowercase();
        let pod = accepts(&shop.client, &shop.asking(&name, ORDERS)).await.unwrap();
        assert_eq!(init_containers(&pod), [SIDECAR, "mesh-init"], "{order:?}");
        assert_eq!(variable(&pod, "mesh-init", "AWS_ROLE_ARN").as_deref(), Some(ORDERS));
        assert_eq!(mounted_at(&pod, "mesh-init", VOLUME), Some(MOUNT));
        assert_eq!(mounted_at(&pod, "mesh-init", SOCKET_VOLUME), None);
        second.remove(shop.control_plane).await.unwrap();
    }
    within_rights(&shop);
}

fn put_first(pod: &Value) -> Vec<Value> {
    if init_containers(pod).contains(&"mesh-init") {
        return Vec::new();
    }
    let container = json!({"name": "mesh-init", "image": "mesh"});
    if pod["spec"]["initContainers"].is_array() {
        return vec![json!({"op": "add", "path": "/spec/initContainers/0", "value": container})];
    }
    vec![json!({"op": "add", "path": "/spec/initContainers", "value": [container]})]
}

#[tokio::test]
async fn what_was_added_for_a_service_account_is_redone_for_the_one_that_another_webhook_sets() {
    let shop = shop("accounts", &[]).await;
    for (account, role, spiffe) in [
        ("old", ORDERS, Some(json!({"spiffeId": "spiffe://example.org/old"}))),
        ("new", CARTS, Some(json!({"spiffeId": "spiffe://example.org/new"}))),
        ("by-cluster", CARTS, None),
    ] {
        let annotations = [("tokenscope.io/role-arn", role)];
        shop.control_plane
            .create_service_account("accounts", account, &annotations)
            .await
            .unwrap();
        let mut spec = json!({"subjects": [{"serviceAccounts": [account]}], "roles": {"allowed": [role]}});
        if let Some(spiffe) = spiffe {
            spec["token"] = json!({"source": "SPIFFE", "spiffe": spiffe});
        }
        shop.policy(account, spec).await.unwrap();
    }
    let of = |name: &str, account: &str| {
        let mut pod = shop.pod(name);
        pod["spec"]["serviceAccountName"] = json!(account);
        pod
    };
    for account in ["old", "new", "by-cluster"] {
        shop.granted(&of(account, account)).await.unwrap();
    }
    for to in ["new", "by-cluster"] {
        let second = SecondWebhook::start(shop.control_plane, Order::After, "accounts", move |pod| {
            let path = "/spec/serviceAccountName";
            let is_old = pod["spec"]["serviceAccountName"] == "old";
            is_old
                .then(|| json!({"op": "replace", "path": path, "value": to}))
                .into_iter()
                .chain(is_old.then(|| json!({"op": "add", "path": "/spec/serviceAccount", "value": to})))
                .collect()
        })
        .await
        .unwrap();
        let pod = accepts(&shop.client, &of(&format!("changed-{to}"), "old"))
            .await
            .unwrap();
        assert_eq!(variable(&pod, "app", "AWS_ROLE_ARN").as_deref(), Some(CARTS));
        if to == "new" {
            let id = variable(&pod, SIDECAR, "TOKENSCOPE_SPIFFE_ID");
            assert_eq!(id.as_deref(), Some("spiffe://example.org/new"));
        } else {
            assert!(init_containers(&pod).is_empty());
            assert!(volume(&pod, SOCKET_VOLUME).is_none());
            assert!(volume(&pod, VOLUME).unwrap()["projected"].is_object());
        }
        second.remove(shop.control_plane).await.unwrap();
    }
    within_rights(&shop);
}

#[tokio::test]
async fn a_socket_from_a_folder_of_the_node_is_refused_by_restricted_pod_security_and_admitted_elsewhere() {
    let control_plane = ControlPlane::start(control_plane::Options::default()).await.unwrap();
    let values = json!({
        "spiffe": {"workloadApi": {"source": "hostPath", "socketFile": "api.sock"}},
        "sidecar": {
            "image": {"digest": format!("sha256:{}", "0".repeat(64))}, "logLevel": "debug",
            "resources": {"requests": {"cpu": "20m", "memory": "16Mi"}, "limits": {"cpu": "20m", "memory": "16Mi"}},
        },
    });
    let options = Options {
        values,
        ..Options::default()
    };
    let _installed = install(&control_plane, options).await.unwrap();
    let privileged = Shop::open(&control_plane, "privileged", &[]).await.unwrap();
    let spec = from_spiffe(&[ORDERS], &json!({"spiffeId": SPIFFE_ID}));
    privileged.policy("orders", spec.clone()).await.unwrap();
    let pod = privileged
        .granted(&privileged.asking("orders", ORDERS))
        .await
        .unwrap()
        .body;
    assert_eq!(
        volume(&pod, SOCKET_VOLUME).unwrap()["hostPath"],
        json!({"path": "/run/spire/agent-sockets", "type": "Directory"})
    );
    let sidecar = container_of(&pod, SIDECAR);
    assert_eq!(
        sidecar["image"],
        format!("localhost/tokenscope-sidecar@sha256:{}", "0".repeat(64))
    );
    assert_eq!(sidecar["resources"]["limits"], json!({"cpu": "20m", "memory": "16Mi"}));
    assert_eq!(
        variable(&pod, SIDECAR, "TOKENSCOPE_LOG_LEVEL").as_deref(),
        Some("debug")
    );
    assert_eq!(
        variable(&pod, SIDECAR, "SPIFFE_ENDPOINT_SOCKET").as_deref(),
        Some("unix:///spiffe-workload-api/api.sock")
    );

    let strict = Shop::open(&control_plane, "strict", RESTRICTED).await.unwrap();
    strict.policy("orders", spec).await.unwrap();
    let pod = restricted(strict.asking("orders", ORDERS));
    eventually(PROPAGATION, "Pod Security refuses the folder of the node", async || {
        let answer = try_pod(&strict.client, &pod).await?;
        ensure!(
            answer.message().contains("violates PodSecurity") && answer.message().contains("hostPath"),
            "{} {}",
            answer.status,
            answer.body
        );
        Ok(())
    })
    .await
    .unwrap();

    // This installation does not say whose tokens SPIFFE's are.
    let status = status(&privileged, |status| ready(status).is_some()).await.unwrap();
    let message = ready(&status).unwrap()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("the chart's value spiffe.issuer says it"), "{message}");
}

/// As spire-controller-manager defines it, as far as it matters here.
fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "clusterspiffeids.spire.spiffe.io"},
        "spec": {
            "group": "spire.spiffe.io", "scope": "Cluster",
            "names": {"kind": "ClusterSPIFFEID", "listKind": "ClusterSPIFFEIDList", "plural": "clusterspiffeids", "singular": "clusterspiffeid"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }}}],
        },
    })
}

fn cluster_spiffe_id(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID", "metadata": {"name": name}, "spec": spec,
    })
}

#[tokio::test]
async fn pods_that_match_no_cluster_spiffe_id_show_in_the_policys_status_while_there_are_any() {
    let control_plane = ControlPlane::start(control_plane::Options::default()).await.unwrap();
    let options = Options {
        values: json!({"spiffe": {"controllerManager": {"className": "ours"}}}),
        ..Options::default()
    };
    let _installed = install(&control_plane, options).await.unwrap();
    let shop = Shop::open(&control_plane, "shop", &[("team", "shop")]).await.unwrap();
    shop.policy("orders", from_spiffe(&[ORDERS], &json!({"spiffeId": SPIFFE_ID})))
        .await
        .unwrap();
    let mut pod = shop.asking("orders", ORDERS);
    pod["metadata"]["labels"] = json!({"app": "orders"});
    shop.granted(&pod).await.unwrap();
    reason(&shop, "UpToDate").await.unwrap();

    control_plane.apply(&[definition()], "shop").await.unwrap();
    let status = reason(&shop, "NoSpiffeIdentity").await.unwrap();
    let condition = ready(&status).unwrap();
    assert_eq!(condition["status"], "False");
    let message = condition["message"].as_str().unwrap();
    assert!(message.starts_with("1 of 1 pods match no ClusterSPIFFEID"), "{message}");

    let template = "spiffe://example.org/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}";
    let matching = json!({
        "spiffeIDTemplate": template, "className": "ours",
        "namespaceSelector": {"matchLabels": {"team": "shop"}}, "podSelector": {"matchLabels": {"app": "orders"}},
    });
    let mut of_others = matching.clone();
    of_others["className"] = json!("theirs");
    let mut of_another_team = matching.clone();
    of_another_team["namespaceSelector"] = json!({"matchLabels": {"team": "bank"}});
    let other = [
        cluster_spiffe_id("theirs", &of_others),
        cluster_spiffe_id("bank", &of_another_team),
    ];
    // The API server serves a new definition a moment later.
    eventually(PROPAGATION, "ClusterSPIFFEIDs can be made", async || {
        control_plane.apply(&other, "shop").await.map(drop)
    })
    .await
    .unwrap();
    control_plane
        .apply(&[cluster_spiffe_id("shop", &matching)], "shop")
        .await
        .unwrap();
    reason(&shop, "UpToDate").await.unwrap();
    let path = "/apis/spire.spiffe.io/v1alpha1/clusterspiffeids";
    delete(&shop.client, &format!("{path}/shop")).await.unwrap();
    reason(&shop, "NoSpiffeIdentity").await.unwrap();
    let everything = json!({"spiffeIDTemplate": template, "className": "ours", "fallback": true});
    control_plane
        .apply(&[cluster_spiffe_id("everything", &everything)], "shop")
        .await
        .unwrap();
    reason(&shop, "UpToDate").await.unwrap();
    delete(&shop.client, &format!("{path}/everything")).await.unwrap();
    reason(&shop, "NoSpiffeIdentity").await.unwrap();

    // Without spire-controller-manager there is nothing to say.
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    delete(&shop.client, &format!("{definitions}/clusterspiffeids.spire.spiffe.io"))
        .await
        .unwrap();
    reason(&shop, "UpToDate").await.unwrap();
    within_rights(&shop);
}

#[tokio::test]
async fn a_pod_that_lost_its_sidecar_on_the_way_is_missed() {
    let shop = shop("lost", &[]).await;
    shop.policy("orders", from_spiffe(&[ORDERS], &json!({}))).await.unwrap();
    let good = shop.granted(&shop.asking("good", ORDERS)).await.unwrap().body;
    // Nobody is asked in a namespace that is left out, and without this binding nobody refuses the mark there; so the pod is there
    // as if another webhook had taken the sidecar.
    let binding =
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/tokenscope-record-forged-opted-out";
    delete(&shop.client, binding).await.unwrap();
    let label = json!({"metadata": {"labels": {"tokenscope.io/inject": "false"}}});
    tokenscope_tests::merge(&shop.client, "/api/v1/namespaces/lost", &label)
        .await
        .unwrap();
    let mut without = copied(&good, "without");
    without["spec"]["initContainers"] = json!([]);
    let mut with_another = copied(&good, "with-another");
    with_another["spec"]["initContainers"][0]["image"] = json!("localhost/tokenscope-sidecar:0.0.9");
    for pod in [&without, &with_another] {
        let what = "the label is known, and the pod left as it is";
        eventually(PROPAGATION, what, async || {
            let tried = try_pod(&shop.client, pod).await?;
            ensure!(
                tried.accepted()
                    && tried.body["spec"]["initContainers"][0]["image"] == pod["spec"]["initContainers"][0]["image"],
                "{}",
                tried.body
            );
            Ok(())
        })
        .await
        .unwrap();
        let created = create_pod(&shop.client, pod).await.unwrap();
        assert!(created.accepted(), "{}", created.message());
        assert_eq!(reviewed(&created.body), Some("granted"), "{}", created.body);
    }
    let label = json!({"metadata": {"labels": {"tokenscope.io/inject": null}}});
    tokenscope_tests::merge(&shop.client, "/api/v1/namespaces/lost", &label)
        .await
        .unwrap();
    let counted =
        |status: &Value| status["missedPods"] == 1 && status["outdatedPods"] == 1 && status["injectedPods"] == 1;
    let status = status(&shop, counted).await.unwrap();
    assert_eq!(ready(&status).unwrap()["reason"], "MissedPods");
}

fn ready(status: &Value) -> Option<&Value> {
    let mut conditions = status["conditions"].as_array()?.iter();
    conditions.find(|condition| condition["type"] == "Ready")
}

/// The status of the policy `orders` once it is as wanted.
async fn status(shop: &Shop<'_>, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let path = format!(
        "/apis/tokenscope.io/v1alpha1/namespaces/{}/tokenscopepolicies/orders",
        shop.namespace
    );
    eventually(PROPAGATION * 2, "the status is as wanted", async || {
        let status = get_json(&shop.client, &path).await?["status"].take();
        ensure!(wanted(&status), "{status}");
        Ok(status)
    })
    .await
}

/// The status once the policy is or isn't ready for this reason.
async fn reason(shop: &Shop<'_>, reason: &str) -> Result<Value> {
    status(shop, |status| {
        ready(status).is_some_and(|ready| ready["reason"] == reason)
    })
    .await
    .with_context(|| format!("waiting for {reason}"))
}
