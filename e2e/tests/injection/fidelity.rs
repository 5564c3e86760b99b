//! Nothing that a user wrote gets lost, however large or new it is.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tokenscope_e2e::admission::{create_pod, try_pod};
use tokenscope_e2e::control_plane::client_of;
use tokenscope_e2e::fixtures::{ORDERS, Shop, annotation, orders_may, reviewed, variable, with_annotations};
use tokenscope_e2e::get_json;

use crate::{SHARED, VOLUME};

/// Fields of later versions of Kubernetes than any type of this project knows are among them.
fn full_pod(shop: &Shop<'_>) -> Value {
    let mut pod = shop.asking("full", ORDERS);
    pod["metadata"]["labels"] = json!({"app.kubernetes.io/name": "orders", "a": ""});
    pod["metadata"]["finalizers"] = json!(["example.com/keep"]);
    pod["spec"] = json!({
        "serviceAccountName": "orders",
        "automountServiceAccountToken": false, // or a volume with a random name
        "hostnameOverride": "orders.example.com",
        "hostUsers": false,
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "2Gi"}},
        "securityContext": {
            "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}, "supplementalGroupsPolicy": "Strict",
            "seLinuxChangePolicy": "Recursive", "fsGroupChangePolicy": "OnRootMismatch",
        },
        "terminationGracePeriodSeconds": 7,
        "readinessGates": [{"conditionType": "example.com/ready"}],
        "schedulingGates": [{"name": "example.com/wait"}],
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"a": ""}}, "matchLabelKeys": ["pod-template-hash"], "nodeTaintsPolicy": "Honor",
        }],
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
        "dnsConfig": {"options": [{"name": "ndots", "value": "2"}, {"name": "use-vc"}]},
        "hostAliases": [{"ip": "127.0.0.1", "hostnames": ["a", "b"]}],
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "gpu"}],
        "initContainers": [{
            "name": "sidecar", "image": "app", "restartPolicy": "Always", "env": [],
            "startupProbe": {"grpc": {"port": 8080, "service": "x"}, "periodSeconds": 1},
        }],
        "containers": [{
            "name": "app", "image": "app", "command": ["/bin/sh", "-c", "echo \"a\tb\"; exit 0"],
            "args": ["", "ä", "\u{1F600}"],
            "restartPolicy": "Never",
            "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}],
            "env": [
                {"name": "EMPTY"}, {"name": "EMPTY_TOO", "value": ""}, {"name": "A", "value": "1"}, {"name": "A", "value": "2"},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "FILE", "valueFrom": {"fileKeyRef": {"volumeName": "config", "path": "a.env", "key": "A"}}},
            ],
            "volumeMounts": [
                {"name": "config", "mountPath": "/config", "subPathExpr": "$(A)", "recursiveReadOnly": "Disabled", "readOnly": true},
                {"name": "image", "mountPath": "/image"},
            ],
            "resources": {"claims": [{"name": "gpu", "request": "one"}], "limits": {"example.com/thing": "3"}},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
            "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
            "securityContext": {"procMount": "Default", "appArmorProfile": {"type": "RuntimeDefault"}},
            "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "SCTP"}],
        }],
        "volumes": [
            {"name": "config", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "image", "image": {"reference": "registry.example.com/models:1", "pullPolicy": "IfNotPresent"}},
            {"name": "projected", "projected": {"defaultMode": 288, "sources": [
                {"serviceAccountToken": {"audience": "elsewhere", "path": "own"}},
            ]}},
        ],
    });
    pod["metadata"]["annotations"] = json!({
        "tokenscope.io/role-arn": ORDERS, "example.com/signs": "~1~0\"\\\n€ 𝄞 </script> ${a} $(b)",
    });
    pod
}

#[tokio::test]
async fn every_field_of_the_user_stays_also_those_that_no_type_of_ours_knows() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "fields", &[]).await.unwrap();
    let mut spec = orders_may(&[ORDERS]);
    spec["aws"] = json!({"region": "eu-central-1", "roleSessionName": "${pod.name}"});
    shop.policy("orders", spec).await.unwrap();
    shop.granted(&shop.asking("known", ORDERS)).await.unwrap();

    let pod = full_pod(&shop);
    let bypassed = with_annotations(pod.clone(), &[("tokenscope.io/inject", "false")]);
    let before = try_pod(&shop.client, &bypassed).await.unwrap();
    assert!(before.accepted(), "{}", before.message());
    assert_eq!(reviewed(&before.body), Some("holds-nothing"));
    let after = try_pod(&shop.client, &pod).await.unwrap();
    assert!(after.accepted(), "{}", after.message());
    assert_eq!(reviewed(&after.body), Some("granted"));

    // k8s-openapi is built for an older version, so these would be gone if the pod were read and written as its type.
    let text = serde_json::to_string(&after.body).unwrap();
    for newer in ["hostnameOverride", "restartPolicyRules", "fileKeyRef"] {
        assert!(
            text.contains(newer),
            "the API server took {newer} away: choose another new field"
        );
    }
    assert_eq!(without_ours(after.body), without_ours(before.body));
}

#[tokio::test]
async fn a_dry_run_gives_the_same_pod() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "dry-run", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("known", ORDERS)).await.unwrap();
    let mut pod = shop.asking("twice", ORDERS);
    pod["spec"]["automountServiceAccountToken"] = json!(false);
    let tried = try_pod(&shop.client, &pod).await.unwrap();
    assert!(
        get_json(&shop.client, &shop.path("pods/twice")).await.is_err(),
        "nothing was stored"
    );
    let created = create_pod(&shop.client, &pod).await.unwrap();

    assert_eq!(tried.body["spec"], created.body["spec"]);
    assert_eq!(
        tried.body["metadata"]["annotations"],
        created.body["metadata"]["annotations"]
    );
    assert_eq!(tried.warnings, created.warnings);
}

#[tokio::test]
async fn a_pod_can_be_applied_again_and_again() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "applied", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("known", ORDERS)).await.unwrap();
    for (name, how) in [
        ("by-client", "--server-side=false"),
        ("by-server", "--server-side=true"),
    ] {
        let mut pod = shop.asking(name, ORDERS);
        pod["spec"]["containers"][0]["env"] = json!([{"name": "A", "value": "1"}]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "own", "mountPath": "/own"}]);
        pod["spec"]["volumes"] = json!([{"name": "own", "emptyDir": {}}]);
        let apply = || control_plane.kubectl(&["apply", how, "--filename=-"], &pod.to_string());
        apply().unwrap();
        let path = shop.path(&format!("pods/{name}"));
        let first = get_json(&shop.client, &path).await.unwrap();
        apply().unwrap();
        let second = get_json(&shop.client, &path).await.unwrap();

        assert_eq!(reviewed(&first), Some("granted"));
        assert_eq!(second["spec"], first["spec"]);
        assert_eq!(second["metadata"]["annotations"], first["metadata"]["annotations"]);
    }
}

/// The API server takes 3 MiB in a request, and etcd stores less: a dry run is all that such a pod ever sees.
#[tokio::test]
async fn a_pod_of_more_than_two_mebibytes_is_injected() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "large", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("small", ORDERS)).await.unwrap();
    let mut pod = shop.asking("large", ORDERS);
    let text = "0123456 ".repeat(2 << 17);
    let variables: Vec<_> = (0..1000)
        .map(|number| json!({"name": format!("V{number}"), "value": "x".repeat(300)}))
        .collect();
    pod["spec"]["containers"][0]["args"] = json!([text]);
    pod["spec"]["containers"][0]["env"] = json!(variables);
    assert!(pod.to_string().len() > 2 << 20, "{}", pod.to_string().len());
    let answer = try_pod(&shop.client, &pod).await.unwrap();

    assert!(answer.accepted(), "{}", answer.message());
    assert_eq!(reviewed(&answer.body), Some("granted"));
    assert_eq!(
        answer.body["spec"]["containers"][0]["args"],
        pod["spec"]["containers"][0]["args"]
    );
    assert_eq!(
        answer.body["spec"]["containers"][0]["env"].as_array().unwrap()[..1000],
        variables
    );
    assert_eq!(variable(&answer.body, "app", "AWS_ROLE_ARN").as_deref(), Some(ORDERS));
}

/// A little less than the webhook gives a request; `webhook/src/deadlines.rs`. On a busy machine a body may take longer, whose sender is owed no clear
/// answer: it is sent again.
const IN_TIME: Duration = Duration::from_millis(1500);
const ATTEMPTS: usize = 30;

/// No API server sends such a body, but whoever can reach the port can.
#[tokio::test]
async fn a_body_of_more_than_eight_mebibytes_is_answered_in_plain_words() {
    let environment = SHARED.environment().await;
    let control_plane = &environment.control_plane;
    let configuration = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tokenscope";
    let admin = control_plane.client().await.unwrap();
    let configuration = get_json(&admin, configuration).await.unwrap();
    let file = control_plane.folder().join("webhook.kubeconfig");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "webhook",
        "clusters": [{"name": "webhook", "cluster": {
            "server": format!("https://127.0.0.1:{}", environment.installed.port()),
            "certificate-authority-data": configuration["webhooks"][0]["clientConfig"]["caBundle"],
        }}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "webhook", "context": {"cluster": "webhook", "user": "nobody"}}],
    });
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    let webhook = client_of(&file).await.unwrap();
    let send_once = async |size: usize| -> Result<(u16, String)> {
        let request = http::Request::post("/mutate")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(kube::client::Body::from(vec![b' '; size]))?;
        let answer = webhook.send(request).await?;
        let status = answer.status().as_u16();
        let bytes = http_body_util::BodyExt::collect(answer.into_body()).await?.to_bytes();
        Ok((status, String::from_utf8(bytes.to_vec())?))
    };
    let send = async |size: usize| -> Result<(u16, String)> {
        for _ in 0..ATTEMPTS {
            let began = Instant::now();
            let answer = send_once(size).await;
            if began.elapsed() < IN_TIME {
                return answer;
            }
        }
        bail!("{size} bytes took longer than {IN_TIME:?} in each of {ATTEMPTS} attempts")
    };

    // Also whoever sends far more than is read gets to read the answer.
    for size in [(8 << 20) + 1, 15 << 20] {
        let (status, text) = send(size).await.unwrap();
        assert_eq!(status, 413, "{text}");
        assert!(text.contains("8 MiB"), "{text}");
    }
    // One byte less is read, and found to be no review.
    let (status, text) = send(8 << 20).await.unwrap();
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("AdmissionReview"), "{text}");
}

#[tokio::test]
async fn a_pod_with_many_containers_is_injected_in_each() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "many", &[]).await.unwrap();
    shop.allow_orders().await.unwrap();
    let mut pod = shop.asking("many", ORDERS);
    let containers: Vec<_> = (0..100)
        .map(|number| json!({"name": format!("c{number}"), "image": "app"}))
        .collect();
    pod["spec"]["containers"] = json!(containers);
    let pod = shop.granted(&pod).await.unwrap().body;

    for number in 0..100 {
        assert_eq!(
            variable(&pod, &format!("c{number}"), "AWS_ROLE_ARN").as_deref(),
            Some(ORDERS)
        );
    }
    assert!(annotation(&pod, "tokenscope.io/grant").is_some());
}

/// The pod without what only we or the server write.
fn without_ours(mut pod: Value) -> Value {
    let record = annotation(&pod, "tokenscope.io/grant")
        .unwrap_or("{\"grants\": []}")
        .to_owned();
    let record: Value = serde_json::from_str(&record).unwrap();
    let added: Vec<Value> = record["grants"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|grant| grant["env"].as_array().unwrap())
        .cloned()
        .collect();
    for key in ["uid", "creationTimestamp", "managedFields"] {
        pod["metadata"].as_object_mut().unwrap().remove(key);
    }
    for condition in pod["status"]["conditions"].as_array_mut().into_iter().flatten() {
        condition.as_object_mut().unwrap().remove("lastTransitionTime");
    }
    let annotations = pod["metadata"]["annotations"].as_object_mut().unwrap();
    for key in ["grant", "reviewed", "inject"] {
        annotations.remove(&format!("tokenscope.io/{key}"));
    }
    if let Some(labels) = pod["metadata"]["labels"].as_object_mut() {
        labels.remove("tokenscope.io/reviewed");
    }
    let retain = |list: &mut Value, unwanted: &dyn Fn(&Value) -> bool| {
        if let Some(list) = list.as_array_mut() {
            list.retain(|entry| !unwanted(entry));
        }
    };
    retain(&mut pod["spec"]["volumes"], &|volume| volume["name"] == VOLUME);
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().unwrap() {
            retain(&mut container["volumeMounts"], &|mount| mount["name"] == VOLUME);
            retain(&mut container["env"], &|variable| added.contains(&variable["name"]));
            for key in ["volumeMounts", "env"] {
                if container[key].as_array().is_none_or(Vec::is_empty) {
                    container.as_object_mut().unwrap().remove(key);
                }
            }
        }
    }
    pod
}
