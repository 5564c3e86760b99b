//! The sidecar's name is ours: whatever bears it and is not exactly what we would write is replaced or refused.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod fixtures;

use fixtures::{MOUNT, ROLE, ReviewFixture, ReviewedPod, SOCKET_VOLUME, VOLUME, app, asking, copy_of, refusal, spiffe};
use serde_json::{Value, json};
use tokenscope_core::pod::SIDECAR;
use tokenscope_webhook::metrics::ReviewOutcome;

#[test]
fn foreign_things_of_our_names_are_refused_with_the_remedy() {
    let sidecar = json!({"name": SIDECAR, "image": "i"});
    let mut in_init = asking(app());
    in_init["spec"]["initContainers"] = json!([sidecar]);
    let mut in_containers = asking(json!([{"name": "app"}, sidecar]));
    for pod in [&in_init, &in_containers] {
        let message = refusal(&spiffe(), pod);
        assert!(
            message.contains("brings a container tokenscope-sidecar of its own"),
            "{message}"
        );
        // Also where no sidecar is added: a SPIFFE provider may know an identity by this name.
        assert!(refusal(&ReviewFixture::new(), pod).contains("brings a container tokenscope-sidecar"));
    }
    // A record makes only the init container ours.
    let record = json!({"grants": [], "hash": "", "sidecar": true}).to_string();
    in_containers["metadata"]["annotations"]["tokenscope.io/grant"] = json!(record);
    assert!(refusal(&spiffe(), &in_containers).contains("brings a container tokenscope-sidecar"));

    let mut pod = asking(app());
    pod["spec"]["volumes"] = json!([{"name": SOCKET_VOLUME, "emptyDir": {}}]);
    let message = refusal(&spiffe(), &pod);
    assert!(
        message.contains("brings a volume tokenscope-spiffe-workload-api of its own"),
        "{message}"
    );

    let mut pod = asking(app());
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": SOCKET_VOLUME, "mountPath": "/socket"}]);
    let message = refusal(&spiffe(), &pod);
    assert!(
        message.contains("container app mounts volume tokenscope-spiffe-workload-api itself"),
        "{message}"
    );

    let mut pod = asking(app());
    pod["spec"]["volumes"] = json!([{"name": VOLUME, "emptyDir": {"medium": "Memory"}}]);
    let message = refusal(&spiffe(), &pod);
    assert!(
        message.contains("brings a volume tokenscope-aws-token of its own"),
        "{message}"
    );
}

/// A pod that this webhook granted, with a change of its sidecar by somebody else.
fn tampered(change: impl FnOnce(&mut Value)) -> (Value, ReviewedPod) {
    let granted = spiffe().review(&asking(app())).pod;
    let mut pod = granted.clone();
    change(&mut pod["spec"]["initContainers"][0]);
    (granted, spiffe().review(&pod))
}

#[test]
fn a_sidecar_that_differs_in_any_member_is_replaced() {
    for (member, value) in [
        ("args", json!(["--once", "--jwt-svid=token=other"])),
        ("command", json!(["/tokenscope-sidecar", "--once"])),
        ("securityContext", json!({"privileged": true})),
        ("envFrom", json!([{"configMapRef": {"name": "mine"}}])),
        ("livenessProbe", json!({"exec": {"command": ["sh"]}})),
        ("workingDir", json!("/mine")),
    ] {
        let (granted, reviewed) = tampered(|sidecar| sidecar[member] = value);
        assert_eq!(reviewed.pod, granted, "{member}");
    }
    let (granted, reviewed) = tampered(|sidecar| {
        let mounts = sidecar["volumeMounts"].as_array_mut().unwrap();
        mounts.push(json!({"name": "mine", "mountPath": "/mine"}));
    });
    assert_eq!(reviewed.pod, granted);
}

#[test]
fn two_containers_of_the_sidecars_name_become_one() {
    let granted = spiffe().review(&asking(app())).pod;
    let mut pod = granted.clone();
    let twin = pod["spec"]["initContainers"][0].clone();
    pod["spec"]["initContainers"].as_array_mut().unwrap().push(twin);
    assert_eq!(spiffe().review(&pod).pod, granted);
}

#[test]
fn the_sidecars_names_are_taken_in_every_reviewed_pod() {
    let mut required = ReviewFixture::new();
    required.namespace_labels = vec![("tokenscope.io/required", "true".into())];
    let look_alike = json!([{"name": SIDECAR, "image": "evil"}]);
    let mut plain = asking(look_alike.clone());
    plain["metadata"]["annotations"] = json!({});
    assert!(refusal(&required, &plain).contains("tokenscope-sidecar"));
    // Granted from the cluster's own tokens, which need no sidecar.
    assert!(refusal(&ReviewFixture::new(), &asking(look_alike)).contains("tokenscope-sidecar"));
    // So it is in a pod that asks for nothing, and in one that opts out: an entry of SPIRE may select by the name alone.
    assert!(refusal(&ReviewFixture::new(), &plain).contains("tokenscope-sidecar"));
    let mut opted_out = plain.clone();
    opted_out["metadata"]["annotations"] = json!({"tokenscope.io/inject": "false"});
    assert!(refusal(&ReviewFixture::new(), &opted_out).contains("tokenscope-sidecar"));
    let mut as_init = asking(app());
    as_init["metadata"]["annotations"] = json!({});
    as_init["spec"]["initContainers"] = json!([{"name": "tokenscope-aws-config", "image": "evil"}]);
    assert!(refusal(&ReviewFixture::new(), &as_init).contains("tokenscope-aws-config"));
    // A mirror pod only shows what a kubelet runs already.
    let mut mirror = plain;
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    assert_eq!(ReviewFixture::new().review(&mirror).outcome(), ReviewOutcome::Untouched);
}

#[test]
fn the_sidecars_names_are_taken_behind_the_bound_of_each_list_too() {
    let mut required = ReviewFixture::new();
    required.namespace_labels = vec![("tokenscope.io/required", "true".into())];
    for list in ["initContainers", "containers"] {
        for name in [SIDECAR, "tokenscope-aws-config", "tokenscope-sidecars"] {
            let mut pod = asking(app());
            pod["metadata"]["annotations"] = json!({});
            let many = (0..256).map(|number| json!({"name": format!("c{number}")}));
            let last = json!({"image": "evil", "name": name});
            pod["spec"][list] = Value::Array(many.chain([last]).collect());
            for fixture in [&required, &ReviewFixture::new()] {
                if name == "tokenscope-sidecars" {
                    assert_eq!(fixture.review(&pod).outcome(), ReviewOutcome::Untouched, "{list}");
                } else {
                    let message = refusal(fixture, &pod);
                    assert!(message.contains("behind the first 256"), "{list} {name}: {message}");
                }
            }
        }
    }
}

#[test]
fn volumes_that_differ_in_any_member_are_replaced() {
    let granted = spiffe().review(&asking(app())).pod;
    let index = |name: &str| {
        let volumes = granted["spec"]["volumes"].as_array().unwrap();
        volumes.iter().position(|volume| volume["name"] == name).unwrap()
    };
    for (name, pointer, value) in [
        (VOLUME, "/emptyDir/sizeLimit", json!("1Gi")),
        (SOCKET_VOLUME, "/csi/volumeAttributes", json!({"mine": "yes"})),
        (SOCKET_VOLUME, "/csi/nodePublishSecretRef", json!({"name": "mine"})),
        (SOCKET_VOLUME, "/csi/fsType", json!("ext4")),
    ] {
        let mut pod = granted.clone();
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        pod["spec"]["volumes"][index(name)].pointer_mut(parent).unwrap()[member] = value;
        assert_eq!(spiffe().review(&pod).pod, granted, "{pointer}");
    }
}

#[test]
fn a_copy_without_its_record_keeps_the_sidecar_that_is_exactly_ours() {
    let mut fixture = spiffe();
    fixture.service_account = vec![("tokenscope.io/role-arn", ROLE.to_owned())];
    let original = fixture.review(&asking(app())).pod;
    let copy = copy_of(&original);
    let reviewed = fixture.review(&copy);

    assert_eq!(reviewed.outcome(), ReviewOutcome::Granted, "{}", reviewed.message());
    for part in ["volumes", "initContainers"] {
        assert_eq!(reviewed.pod["spec"][part], original["spec"][part], "{part}");
    }
    assert_eq!(reviewed.pod["spec"]["containers"][0], original["spec"]["containers"][0]);
    assert_eq!(reviewed.value("debugger", "AWS_ROLE_ARN").as_deref(), Some(ROLE));
    assert_eq!(reviewed.mounts("debugger"), [format!("{VOLUME}:{MOUNT}")]);
}

#[test]
fn a_copy_whose_sidecar_is_another_one_by_now_is_told_to_keep_its_annotations() {
    let mut fixture = spiffe();
    fixture.service_account = vec![("tokenscope.io/role-arn", ROLE.to_owned())];
    let copy = copy_of(&fixture.review(&asking(app())).pod);
    fixture.settings.sidecar.image = "registry.example.com/newer".into();

    let message = refusal(&fixture, &copy);
    assert!(
        message.contains(SIDECAR) && message.contains("--keep-annotations"),
        "{message}"
    );
}
