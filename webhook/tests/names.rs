//! What bears our names or stands at our path: adopted if it is exactly ours, and refused otherwise.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod fixtures;

use fixtures::{
    EKS_MOUNT, EKS_VOLUME, MOUNT, ROLE, ReviewFixture, VOLUME, app, asking, asking_for_two, plain, two_audiences,
};
use serde_json::{Value, json};
use tokenscope_core::{LockMode, Settings, TokenSource};
use tokenscope_webhook::metrics::Outcome;

#[test]
fn a_foreign_volume_of_our_name_is_refused_with_the_remedy() {
    let foreign = [
        json!({"name": VOLUME, "emptyDir": {}}),
        json!({"name": VOLUME, "projected": {"sources": [{"serviceAccountToken": {"audience": "sts.amazonaws.com", "path": "token"}}]}}),
    ];
    for volume in foreign {
        let mut pod = asking(app());
        pod["spec"]["volumes"] = json!([volume]);
        let reviewed = ReviewFixture::new().review(&pod);
        assert_eq!(reviewed.outcome(), Outcome::Denied);
        assert!(reviewed.message().starts_with("tokenscope: "), "{}", reviewed.message());
        assert!(reviewed.message().contains(VOLUME) && reviewed.message().contains("remove or rename it"));
        assert_eq!(reviewed.response["status"]["code"], 403);
        assert_eq!(reviewed.response["status"]["reason"], "Forbidden");

        let mut pod = plain(app());
        pod["spec"]["volumes"] = json!([volume]);
        assert!(
            ReviewFixture::new().review(&pod).patch.is_empty(),
            "a pod that asks for nothing may have it"
        );
    }
}

#[test]
fn a_volume_that_is_just_what_the_eks_webhook_adds_is_taken_for_ours_where_its_names_are_used() {
    let volume = |seconds: u32| {
        json!({"name": EKS_VOLUME, "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken":
            {"audience": "sts.amazonaws.com", "expirationSeconds": seconds, "path": "token"}}]}})
    };
    let mount = |path: &str| json!([{"name": EKS_VOLUME, "mountPath": path, "readOnly": true}]);
    let path = EKS_MOUNT;
    let fixture = ReviewFixture {
        settings: Settings {
            eks_compatible: true,
            ..Settings::default()
        },
        ..ReviewFixture::new()
    };
    let pod = |volume: Value, mounts: Value| {
        let mut pod = asking(json!([{"name": "app", "volumeMounts": mounts}]));
        pod["spec"]["volumes"] = json!([volume]);
        pod
    };
    for mounts in [json!([]), mount(path)] {
        let reviewed = fixture.review(&pod(volume(3600), mounts));
        assert_eq!(reviewed.outcome(), Outcome::Granted);
        assert_eq!(reviewed.pod["spec"]["volumes"], json!([volume(3600)]));
        assert_eq!(reviewed.mounts("app"), [format!("{EKS_VOLUME}:{path}")]);
        assert_eq!(
            reviewed.value("app", "AWS_WEB_IDENTITY_TOKEN_FILE"),
            Some(format!("{path}/token"))
        );
        assert!(fixture.review(&reviewed.pod).patch.is_empty());
    }
    let refused = |pod: &Value| assert_eq!(fixture.review(pod).outcome(), Outcome::Denied, "{pod}");
    refused(&pod(volume(600), mount(path)));
    refused(&pod(volume(3600), mount("/elsewhere")));
    let mut skipped = pod(volume(3600), mount(path));
    skipped["metadata"]["annotations"]["tokenscope.io/containers"] = json!("other");
    skipped["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "other"}));
    refused(&skipped);
}

#[test]
fn a_record_does_not_make_a_foreign_volume_ours() {
    let mut pod = ReviewFixture::new().review(&asking(app())).pod;
    pod["spec"]["volumes"][0] = json!({"name": VOLUME, "hostPath": {"path": "/"}});
    let reviewed = ReviewFixture::new().review(&pod);
    assert_eq!(reviewed.outcome(), Outcome::Denied);
    assert!(reviewed.message().contains("volume"), "{}", reviewed.message());
}

#[test]
fn a_foreign_mount_at_our_path_or_below_it_is_refused_and_one_beside_it_is_not() {
    let mounted = |path: &str| {
        let mut pod = asking(json!([{"name": "app", "volumeMounts": [{"name": "own", "mountPath": path}]}]));
        pod["spec"]["volumes"] = json!([{"name": "own", "emptyDir": {}}]);
        ReviewFixture::new().review(&pod)
    };
    for path in [
        MOUNT.to_owned(),
        format!("{MOUNT}/"),
        format!("{MOUNT}//deeper"),
        MOUNT.replace('/', "//"),
        // In most images one is a link to the other.
        MOUNT.replace("/var/run", "/run"),
        MOUNT.replace("/var/run", "/var/run/../run"),
        MOUNT.trim_start_matches('/').to_owned(),
    ] {
        let reviewed = mounted(&path);
        assert_eq!(reviewed.outcome(), Outcome::Denied, "{path}");
        assert!(
            reviewed.message().contains("container app mounts volume own"),
            "{}",
            reviewed.message()
        );
    }
    for path in ["/var/run/secrets".to_owned(), format!("{MOUNT}-2"), "/data".to_owned()] {
        assert_eq!(mounted(&path).outcome(), Outcome::Granted, "{path}");
    }
}

#[test]
fn a_mount_of_our_volume_that_we_did_not_make_is_refused() {
    let pod = asking(json!([{"name": "app", "volumeMounts": [{"name": VOLUME, "mountPath": MOUNT}]}]));
    let reviewed = ReviewFixture::new().review(&pod);
    assert!(
        reviewed.message().contains("remove that mount"),
        "{}",
        reviewed.message()
    );
}

/// A container as the EKS webhook leaves it: the pair and the mount.
fn injected_by_eks(name: &str) -> Value {
    json!({"name": name,
        "env": [
            {"name": "AWS_ROLE_ARN", "value": ROLE},
            {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": format!("{EKS_MOUNT}/token")},
        ],
        "volumeMounts": [{"name": EKS_VOLUME, "mountPath": EKS_MOUNT, "readOnly": true}]})
}

fn eks_volume() -> Value {
    json!({"name": EKS_VOLUME, "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken":
        {"audience": "sts.amazonaws.com", "expirationSeconds": 86_400, "path": "token"}}]}})
}

/// EKS-compatible mode, with policies that grant the lifetime of EKS's tokens.
fn eks() -> ReviewFixture {
    let mut fixture =
        ReviewFixture::with_policy(|policy| policy.token.expiration = tokenscope_core::TokenExpiration::DAY);
    fixture.settings = Settings::eks_compatible();
    fixture.service_account = vec![("eks.amazonaws.com/role-arn", ROLE.to_owned())];
    fixture
}

#[test]
fn a_container_that_comes_after_the_eks_webhook_is_equipped_and_what_that_one_did_stays() {
    let mut pod = plain(json!([injected_by_eks("b"), {"name": "sidecar"}]));
    pod["spec"]["volumes"] = json!([eks_volume()]);
    let reviewed = eks().review(&pod);

    assert_eq!(reviewed.outcome(), Outcome::Granted, "{}", reviewed.message());
    assert_eq!(reviewed.pod["spec"]["volumes"], json!([eks_volume()]));
    assert_eq!(reviewed.pod["spec"]["containers"][0], injected_by_eks("b"));
    assert_eq!(reviewed.pod["spec"]["containers"][1], injected_by_eks("sidecar"));
    assert_eq!(reviewed.record()["grants"][0]["containers"], json!(["sidecar"]));

    // A volume of another lifetime is not what would be added.
    pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] = json!(3600);
    let refused = eks().review(&pod);
    assert_eq!(refused.outcome(), Outcome::Denied);
    assert!(
        refused.message().contains("--keep-annotations"),
        "{}",
        refused.message()
    );
}

#[test]
fn a_copy_without_its_record_keeps_the_volume_that_is_exactly_ours() {
    let mut fixture = ReviewFixture::new();
    fixture.service_account = vec![("tokenscope.io/role-arn", ROLE.to_owned())];
    let original = fixture.review(&plain(app())).pod;
    let mut copy = original.clone();
    copy["metadata"] = json!({"name": "copy", "namespace": "shop"});
    copy["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "debugger"}));
    let reviewed = fixture.review(&copy);

    assert_eq!(reviewed.outcome(), Outcome::Granted, "{}", reviewed.message());
    assert_eq!(reviewed.pod["spec"]["volumes"], original["spec"]["volumes"]);
    assert_eq!(reviewed.pod["spec"]["containers"][0], original["spec"]["containers"][0]);
    assert_eq!(reviewed.mounts("debugger"), [format!("{VOLUME}:{MOUNT}")]);
}

#[test]
fn a_container_with_a_pair_of_its_own_gets_no_granted_token_past_the_lock() {
    let mut fixture =
        ReviewFixture::with_policy(|policy| policy.containers.include = vec![tokenscope_core::Glob::new("app")]);
    fixture.settings.lock.mode = LockMode::Deny;
    let original = fixture.review(&asking(app())).pod;
    let mut thief = original["spec"]["containers"][0].clone();
    thief["name"] = json!("thief");
    let record = original["metadata"]["annotations"]["tokenscope.io/grant"].clone();
    for record in [Value::Null, record] {
        let mut pod = original.clone();
        pod["metadata"]["annotations"] = json!({"tokenscope.io/role-arn": ROLE});
        if record.is_string() {
            pod["metadata"]["annotations"]["tokenscope.io/grant"] = record;
        }
        pod["spec"]["containers"] = json!([{"name": "app"}, thief]);
        let reviewed = fixture.review(&pod);
        assert_eq!(reviewed.outcome(), Outcome::Denied);
        assert!(
            reviewed.message().contains("covers container thief"),
            "{}",
            reviewed.message()
        );
    }
    // A volume that is still to come is nobody's own.
    let mut pod = asking(json!([{"name": "app"}, thief]));
    pod["spec"]["volumes"] = json!([]);
    let reviewed = fixture.review(&pod);
    assert_eq!(reviewed.outcome(), Outcome::Denied);
    assert!(
        reviewed.message().contains("container thief mounts volume"),
        "{}",
        reviewed.message()
    );
}

#[test]
fn no_container_sees_the_token_of_another_ones_audience() {
    let fixture = two_audiences(TokenSource::ServiceAccount, "admin-only");
    let granted = fixture.review(&asking_for_two()).pod;
    let admin = granted["spec"]["volumes"][1]["name"].clone();
    assert!(admin.as_str().unwrap().starts_with(&format!("{VOLUME}-")));
    // Another webhook, or whoever forges a record, mounts it in the other container.
    for path in ["/mine", MOUNT] {
        let mut pod = granted.clone();
        let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array_mut().unwrap();
        mounts.insert(0, json!({"name": admin, "mountPath": path, "readOnly": true}));
        assert_eq!(fixture.review(&pod).pod, granted, "{path}");
    }
    // Without a record it is refused.
    let mut pod = asking_for_two();
    pod["spec"]["volumes"] = granted["spec"]["volumes"].clone();
    assert_eq!(fixture.review(&pod).outcome(), Outcome::Granted);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": admin, "mountPath": MOUNT, "readOnly": true}]);
    let refused = fixture.review(&pod);
    assert!(
        refused.message().contains("container app mounts volume"),
        "{}",
        refused.message()
    );
}

#[test]
fn a_pod_of_an_older_version_with_all_audiences_in_one_volume_gets_one_for_each() {
    let fixture = two_audiences(TokenSource::ServiceAccount, "admin-only");
    let granted = fixture.review(&asking_for_two()).pod;
    let hash = "admin-only".parse::<tokenscope_core::Audience>().unwrap().short_hash();
    let mut older = granted.clone();
    let mut volume = older["spec"]["volumes"][0].clone();
    let mut second = granted["spec"]["volumes"][1]["projected"]["sources"][0].clone();
    second["serviceAccountToken"]["path"] = json!(format!("token-{hash}"));
    volume["projected"]["sources"].as_array_mut().unwrap().push(second);
    older["spec"]["volumes"] = json!([volume]);
    older["spec"]["containers"][1]["volumeMounts"][0]["name"] = json!(VOLUME);
    for variable in older["spec"]["containers"][1]["env"].as_array_mut().unwrap() {
        if variable["name"] == "AWS_WEB_IDENTITY_TOKEN_FILE" {
            variable["value"] = json!(format!("{MOUNT}/token-{hash}"));
        }
    }
    let reviewed = fixture.review(&older).pod;
    assert_eq!(reviewed["spec"]["containers"], granted["spec"]["containers"]);
    let mut volumes = reviewed["spec"]["volumes"].as_array().unwrap().clone();
    volumes.reverse();
    assert_eq!(Value::from(volumes), granted["spec"]["volumes"]);
}

#[test]
fn a_mount_or_a_volume_that_differs_in_any_member_is_replaced() {
    let granted = ReviewFixture::new().review(&asking(app())).pod;
    for (pointer, value) in [
        ("/spec/containers/0/volumeMounts/0/subPath", json!("..data")),
        ("/spec/containers/0/volumeMounts/0/subPathExpr", json!("$(X)")),
        ("/spec/containers/0/volumeMounts/0/readOnly", json!(false)),
        (
            "/spec/containers/0/volumeMounts/0/mountPropagation",
            json!("Bidirectional"),
        ),
        ("/spec/containers/0/volumeMounts/0/recursiveReadOnly", json!("Enabled")),
        ("/spec/containers/0/volumeMounts/0/mountPath", json!("/mine")),
        ("/spec/volumes/0/projected/defaultMode", json!(0o777)),
        (
            "/spec/volumes/0/projected/sources/0/serviceAccountToken/path",
            json!("other"),
        ),
    ] {
        let mut pod = granted.clone();
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[member] = value;
        assert_eq!(ReviewFixture::new().review(&pod).pod, granted, "{pointer}");
    }
}
