//! What becomes of pods whose tokens come from SPIFFE.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod fixtures;

use fixtures::{
    MOUNT, ROLE, ReviewFixture, ReviewedPod, SOCKET_VOLUME, VOLUME, app, asking, asking_for_two, refusal, spiffe,
    two_audiences,
};
use serde_json::{Value, json};
use tokenscope_core::pod::SIDECAR;
use tokenscope_core::sidecar::WorkloadApi;
use tokenscope_core::{PolicyName, TokenSource};
use tokenscope_webhook::metrics::ReviewOutcome;

fn volume<'a>(reviewed: &'a ReviewedPod, name: &str) -> Option<&'a Value> {
    let mut volumes = reviewed.pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.find(|volume| volume["name"] == name)
}

/// The sidecar of a policy that asks for all that there is.
fn full_sidecar() -> Value {
    json!({
        "name": SIDECAR,
        "image": concat!("localhost/tokenscope-sidecar:", env!("CARGO_PKG_VERSION")),
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "env": [
            {"name": "TOKENSCOPE_DIRECTORY", "value": MOUNT},
            {"name": "TOKENSCOPE_JWT_SVIDS", "value": "token=sts.amazonaws.com"},
            {"name": "SPIFFE_ENDPOINT_SOCKET", "value": "unix:///spiffe-workload-api/spire-agent.sock"},
            {"name": "TOKENSCOPE_SPIFFE_ID", "value": "spiffe://example.org/ns/shop/sa/orders"},
            {"name": "TOKENSCOPE_HINT", "value": "for $$(AWS)"},
            {"name": "TOKENSCOPE_TRUST_DOMAIN", "value": "example.org"},
            {"name": "TOKENSCOPE_X509_SVID", "value": "true"},
            {"name": "TOKENSCOPE_JWT_BUNDLE", "value": "true"},
            {"name": "TOKENSCOPE_LOG_LEVEL", "value": "info"},
            {"name": "TOKENSCOPE_INJECTED", "value": "true"},
        ],
        "startupProbe": {
            "exec": {"command": ["/tokenscope-sidecar", "ready"]},
            "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 900,
        },
        "readinessProbe": {
            "exec": {"command": ["/tokenscope-sidecar", "ready"]},
            "periodSeconds": 30, "timeoutSeconds": 5, "failureThreshold": 3,
        },
        "volumeMounts": [
            {"name": VOLUME, "mountPath": MOUNT},
            {"name": SOCKET_VOLUME, "mountPath": "/spiffe-workload-api", "readOnly": true},
        ],
        "resources": {"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"cpu": "100m", "memory": "32Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
            "runAsGroup": 65532, "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}

#[test]
fn a_granted_pod_gets_the_sidecar_its_volumes_and_what_every_grant_gives() {
    let fixture = ReviewFixture::with_policy(|policy| {
        policy.token.source = TokenSource::Spiffe;
        policy.token.spiffe.id = Some("spiffe://example.org/ns/shop/sa/orders".parse().unwrap());
        policy.token.spiffe.hint = Some("for $(AWS)".parse().unwrap());
        policy.token.spiffe.trust_domain = Some("example.org".parse().unwrap());
        policy.token.spiffe.x509_svid = true;
        policy.token.spiffe.jwt_bundle = true;
    });
    let reviewed = fixture.review(&asking(app()));

    assert_eq!(reviewed.pod["spec"]["initContainers"], json!([full_sidecar()]));
    assert_eq!(
        reviewed.pod["spec"]["volumes"],
        json!([
            {"name": VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": SOCKET_VOLUME, "csi": {"driver": "csi.spiffe.io", "readOnly": true}},
        ])
    );
    assert_eq!(reviewed.value("app", "AWS_ROLE_ARN").as_deref(), Some(ROLE));
    assert_eq!(
        reviewed.value("app", "AWS_WEB_IDENTITY_TOKEN_FILE"),
        Some(format!("{MOUNT}/token"))
    );
    assert_eq!(
        reviewed.pod["spec"]["containers"][0]["volumeMounts"],
        json!([{"name": VOLUME, "mountPath": MOUNT, "readOnly": true}])
    );
    assert_eq!(reviewed.record()["sidecar"], true);
    assert_eq!(reviewed.record()["endpoint"], Value::Null, "it serves nothing");
}

#[test]
fn the_sidecar_comes_before_all_other_init_containers_which_get_the_token_too() {
    let mut pod = asking(app());
    pod["spec"]["initContainers"] =
        json!([{"name": "migrate", "image": "m"}, {"name": "proxy", "image": "p", "restartPolicy": "Always"}]);
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    let reviewed = spiffe().review(&pod);

    assert_eq!(reviewed.init_containers(), [SIDECAR, "migrate", "proxy"]);
    for container in ["migrate", "proxy", "app"] {
        assert_eq!(reviewed.mounts(container), [format!("{VOLUME}:{MOUNT}")]);
        assert_eq!(reviewed.value(container, "AWS_ROLE_ARN").as_deref(), Some(ROLE));
    }
    assert!(spiffe().review(&reviewed.pod).patch.is_empty());
}

#[test]
fn each_audience_has_a_volume_of_its_own_that_the_one_sidecar_writes_to() {
    let audience = "sts.amazonaws.com.cn/$(x)=";
    let hash = audience.parse::<tokenscope_core::Audience>().unwrap().short_hash();
    let reviewed = two_audiences(TokenSource::Spiffe, audience).review(&asking_for_two());

    let (second, folder) = (format!("{VOLUME}-{hash}"), format!("{MOUNT}-{hash}"));
    assert_eq!(
        reviewed.value(SIDECAR, "TOKENSCOPE_JWT_SVIDS").unwrap(),
        format!("token=sts.amazonaws.com {folder}/token=sts.amazonaws.com.cn/$$(x)=")
    );
    let memory = json!({"medium": "Memory", "sizeLimit": "1Mi"});
    assert_eq!(volume(&reviewed, VOLUME).unwrap()["emptyDir"], memory);
    assert_eq!(volume(&reviewed, &second).unwrap()["emptyDir"], memory);
    assert_eq!(
        reviewed.mounts(SIDECAR),
        [
            format!("{VOLUME}:{MOUNT}"),
            format!("{second}:{folder}"),
            format!("{SOCKET_VOLUME}:/spiffe-workload-api"),
        ]
    );
    for (container, volume) in [("app", VOLUME), ("other", &second)] {
        assert_eq!(
            reviewed.value(container, "AWS_WEB_IDENTITY_TOKEN_FILE"),
            Some(format!("{MOUNT}/token"))
        );
        assert_eq!(
            reviewed.mounts(container),
            [format!("{volume}:{MOUNT}")],
            "its own and no other"
        );
    }
}

#[test]
fn a_volume_of_the_driver_that_the_pod_brings_is_used_and_no_other_is_added() {
    let with = |csi: Value| {
        let mut pod = asking(app());
        pod["spec"]["volumes"] = json!([{"name": "workload-socket", "csi": csi}]);
        pod
    };
    let reviewed = spiffe().review(&with(json!({"driver": "csi.spiffe.io", "readOnly": true})));
    assert!(volume(&reviewed, SOCKET_VOLUME).is_none());
    assert_eq!(
        reviewed.mounts(SIDECAR),
        [
            format!("{VOLUME}:{MOUNT}"),
            "workload-socket:/spiffe-workload-api".into()
        ]
    );
    assert!(spiffe().review(&reviewed.pod).patch.is_empty());

    for unfit in [
        json!({"driver": "csi.spiffe.io"}),
        json!({"driver": "other.spiffe.io", "readOnly": true}),
    ] {
        let reviewed = spiffe().review(&with(unfit));
        assert!(volume(&reviewed, SOCKET_VOLUME).is_some());
        assert!(volume(&reviewed, "workload-socket").is_some());
    }
}

#[test]
fn the_socket_may_come_from_a_folder_of_the_node() {
    let mut fixture = spiffe();
    fixture.settings.sidecar.workload_api = WorkloadApi::HostPath {
        path: "/run/spire/agent-sockets".into(),
    };
    fixture.settings.sidecar.socket_file = "api.sock".into();
    let reviewed = fixture.review(&asking(app()));
    assert_eq!(
        volume(&reviewed, SOCKET_VOLUME).unwrap(),
        &json!({"name": SOCKET_VOLUME, "hostPath": {"path": "/run/spire/agent-sockets", "type": "Directory"}})
    );
    assert_eq!(
        reviewed.value(SIDECAR, "SPIFFE_ENDPOINT_SOCKET").as_deref(),
        Some("unix:///spiffe-workload-api/api.sock")
    );
    assert!(fixture.review(&reviewed.pod).patch.is_empty());
}

#[test]
fn a_sidecar_that_another_webhook_pushed_back_comes_first_again_as_the_api_server_left_it() {
    let fixture = spiffe();
    let mut pod = fixture.review(&asking(app())).pod;
    let init_containers = pod["spec"]["initContainers"].as_array_mut().unwrap();
    init_containers[0]["volumeMounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}));
    init_containers[0]["terminationMessagePath"] = json!("/dev/termination-log");
    let as_it_was = init_containers[0].clone();
    init_containers.insert(0, json!({"name": "istio-validation", "image": "i"}));
    let reviewed = fixture.review(&pod);

    assert_eq!(reviewed.init_containers(), [SIDECAR, "istio-validation"]);
    assert_eq!(
        reviewed.pod["spec"]["initContainers"][0], as_it_was,
        "moved, not made anew"
    );
    assert_eq!(
        reviewed.value("istio-validation", "AWS_ROLE_ARN").as_deref(),
        Some(ROLE)
    );
    assert!(fixture.review(&reviewed.pod).patch.is_empty());
}

#[test]
fn a_sidecar_that_is_not_as_it_should_be_is_made_anew() {
    let fixture = spiffe();
    let good = fixture.review(&asking(app())).pod;
    let changes: [fn(&mut Value); 5] = [
        |sidecar| sidecar["image"] = json!("registry.example.com/other"),
        |sidecar| sidecar["restartPolicy"] = Value::Null,
        |sidecar| sidecar["env"][1]["value"] = json!("token=elsewhere"),
        |sidecar| sidecar["volumeMounts"] = json!([]),
        |sidecar| sidecar["volumeMounts"][1]["name"] = json!("data"),
    ];
    for change in changes {
        let mut pod = good.clone();
        change(&mut pod["spec"]["initContainers"][0]);
        assert_eq!(fixture.review(&pod).pod, good);
    }
    let mut pod = good;
    for volume in pod["spec"]["volumes"].as_array_mut().unwrap() {
        *volume = json!({"name": volume["name"], "emptyDir": {"medium": "Memory"}});
    }
    let reviewed = fixture.review(&pod);
    assert_eq!(
        volume(&reviewed, SOCKET_VOLUME).unwrap()["csi"]["driver"],
        "csi.spiffe.io"
    );
}

#[test]
fn the_installation_and_the_policy_may_be_others_by_the_second_review() {
    let with_id = |id: &str| {
        ReviewFixture::with_policy(|policy| {
            policy.token.source = TokenSource::Spiffe;
            policy.token.spiffe.id = Some(id.parse().unwrap());
        })
    };
    let first = with_id("spiffe://example.org/a").review(&asking(app()));
    let second = with_id("spiffe://example.org/b").review(&first.pod);
    assert_eq!(second.init_containers(), [SIDECAR]);
    assert_eq!(
        second.value(SIDECAR, "TOKENSCOPE_SPIFFE_ID").as_deref(),
        Some("spiffe://example.org/b")
    );
    assert_ne!(first.record()["hash"], second.record()["hash"]);

    // From SPIFFE to the cluster's own tokens and back.
    let third = ReviewFixture::new().review(&second.pod);
    assert!(third.init_containers().is_empty());
    assert!(volume(&third, SOCKET_VOLUME).is_none());
    assert_eq!(third.tokens(), ["token sts.amazonaws.com 3600"]);
    assert_eq!(third.record()["sidecar"], Value::Null);
    let fourth = spiffe().review(&third.pod);
    assert_eq!(fourth.init_containers(), [SIDECAR]);
    assert_eq!(volume(&fourth, VOLUME).unwrap()["emptyDir"]["medium"], "Memory");
}

#[test]
fn what_is_no_longer_granted_leaves_no_sidecar_behind() {
    let mut pod = asking(app());
    pod["spec"]["initContainers"] = json!([{"name": "migrate", "image": "m"}]);
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    let granted = spiffe().review(&pod);
    let mut nothing = spiffe();
    nothing.policies.remove(&PolicyName::namespaced("shop", "orders"));
    nothing.namespace_labels = vec![("tokenscope.io/warn", "true".into())];
    let reviewed = nothing.review(&granted.pod);

    assert_eq!(reviewed.init_containers(), ["migrate"]);
    assert_eq!(reviewed.pod["spec"]["volumes"], pod["spec"]["volumes"]);
    assert!(reviewed.env("app").is_empty() && reviewed.env("migrate").is_empty());
}

#[test]
fn a_forged_record_does_not_make_a_foreign_sidecar_run() {
    let mut pod = asking(app());
    let record = json!({"grants": [], "hash": "", "sidecar": true}).to_string();
    pod["metadata"]["annotations"]["tokenscope.io/grant"] = json!(record);
    pod["spec"]["initContainers"] = json!([{"name": SIDECAR, "image": "evil", "restartPolicy": "Always"}]);
    let reviewed = spiffe().review(&pod);

    assert_eq!(reviewed.init_containers(), [SIDECAR]);
    assert!(!reviewed.pod.to_string().contains("evil"));
}

#[test]
fn windows_pods_and_old_clusters_are_refused_in_plain_words() {
    let mut pod = asking(app());
    pod["spec"]["os"] = json!({"name": "windows"});
    let message = refusal(&spiffe(), &pod);
    assert!(
        message.contains("runs on Linux only, and the pod needs Windows"),
        "{message}"
    );

    let mut fixture = spiffe();
    fixture.settings.sidecar.unsupported = Some("tokens from SPIFFE need Kubernetes 1.29 or newer".into());
    assert!(refusal(&fixture, &asking(app())).contains("need Kubernetes 1.29 or newer"));
    // Tokens of the cluster need no sidecar.
    let mut fixture = ReviewFixture::new();
    fixture.settings.sidecar.unsupported = Some("too old".into());
    assert_eq!(fixture.review(&asking(app())).outcome(), ReviewOutcome::Granted);
}

#[test]
fn a_pod_whose_containers_bring_their_own_files_needs_no_sidecar() {
    let reviewed = spiffe().review(&asking(json!([
        {"name": "app", "env": [{"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/own/token"}]},
    ])));
    assert!(reviewed.init_containers().is_empty());
    assert!(reviewed.pod["spec"]["volumes"].is_null());
}

#[test]
fn a_lifetime_that_a_pod_asks_for_is_warned_of() {
    let mut pod = asking(app());
    pod["metadata"]["annotations"]["tokenscope.io/token-expiration"] = json!("900");
    let reviewed = spiffe().review(&pod);
    assert_eq!(reviewed.outcome(), ReviewOutcome::Granted);
    assert!(
        reviewed.warnings().contains("the SPIFFE provider decides"),
        "{}",
        reviewed.warnings()
    );
}

#[test]
fn eks_compatible_mode_has_the_sidecar_write_where_eks_has_it() {
    let mut fixture = spiffe();
    fixture.settings.eks_compatible = true;
    let reviewed = fixture.review(&asking(app()));
    assert_eq!(
        reviewed.value(SIDECAR, "TOKENSCOPE_DIRECTORY").as_deref(),
        Some("/var/run/secrets/eks.amazonaws.com/serviceaccount")
    );
    assert!(volume(&reviewed, "aws-iam-token").is_some());
    assert!(fixture.review(&reviewed.pod).patch.is_empty());
}
