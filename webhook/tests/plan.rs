//! What becomes of pods: the patch is applied by a library of its own, and the pods are compared.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod world;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenscope_core::pod::SIDECAR;
use tokenscope_core::{AwsSettings, ContainerFilter, Glob, Settings, Template, TokenSource, WorkloadApi};
use tokenscope_webhook::metrics::Outcome;
use world::{MOUNT, OTHER_ROLE, ROLE, SOCKET_VOLUME, VOLUME, World, app, asking, plain, policy};

fn token_file() -> String {
    format!("{MOUNT}/token")
}

fn region(policy: &mut tokenscope_core::Policy) {
    policy.aws.region = Some("eu-central-1".parse().unwrap());
}

#[test]
fn a_granted_pod_gets_volume_mount_variables_record_and_mark() {
    let world = World::with_policy(region);
    let reviewed = world.review(&asking(app()));

    assert_eq!(
        reviewed.env("app"),
        [
            "AWS_STS_REGIONAL_ENDPOINTS=regional",
            "AWS_DEFAULT_REGION=eu-central-1",
            "AWS_REGION=eu-central-1",
            &format!("AWS_ROLE_ARN={ROLE}"),
            &format!("AWS_WEB_IDENTITY_TOKEN_FILE={}", token_file()),
            "AWS_EC2_METADATA_DISABLED=true",
        ]
    );
    assert_eq!(
        reviewed.pod["spec"]["containers"][0]["volumeMounts"],
        json!([{"name": VOLUME, "mountPath": MOUNT, "readOnly": true}])
    );
    assert_eq!(
        reviewed.pod["spec"]["volumes"],
        json!([{"name": VOLUME, "projected": {"sources": [{"serviceAccountToken":
            {"audience": "sts.amazonaws.com", "expirationSeconds": 3600, "path": "token"}}]}}])
    );
    assert_eq!(reviewed.mark(), Some("granted"));
    assert_eq!(reviewed.annotation("tokenscope.io/reviewed"), Some("granted"));
    let record = reviewed.record();
    assert_eq!(record["grants"][0]["policy"], "TokenScopePolicy shop/orders");
    assert_eq!(record["grants"][0]["role"], ROLE);
    assert_eq!(record["grants"][0]["containers"], json!(["app"]));
    assert_eq!(reviewed.outcome(), Outcome::Granted);
    assert_eq!(reviewed.response["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
    assert_eq!(reviewed.response["auditAnnotations"]["decision"], "granted");
    assert_eq!(
        reviewed.response["auditAnnotations"]["policy"],
        "TokenScopePolicy shop/orders"
    );
    assert_eq!(reviewed.response["auditAnnotations"]["role"], ROLE);
}

#[test]
fn the_volume_comes_first_and_everything_else_last() {
    let mut pod = asking(
        json!([{"name": "app", "env": [{"name": "A", "value": "1"}], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]),
    );
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    pod["metadata"]["annotations"]["note"] = json!("kept");
    let reviewed = World::new().review(&pod);

    assert_eq!(reviewed.pod["spec"]["volumes"][0]["name"], VOLUME);
    assert_eq!(
        reviewed.pod["spec"]["volumes"][1],
        json!({"name": "data", "emptyDir": {}})
    );
    assert_eq!(reviewed.env("app")[0], "A=1");
    assert_eq!(reviewed.mounts("app"), ["data:/data", &format!("{VOLUME}:{MOUNT}")]);
    assert_eq!(reviewed.annotation("note"), Some("kept"));
}

#[test]
fn nulls_are_lists_that_are_not_there() {
    let mut pod = plain(json!([{"name": "app", "env": null, "volumeMounts": null}]));
    pod["spec"]["volumes"] = Value::Null;
    pod["spec"]["initContainers"] = Value::Null;
    pod["metadata"]["annotations"] = Value::Null;
    let mut world = World::new();
    world.service_account = vec![("tokenscope.io/role-arn", ROLE.to_owned())];
    let reviewed = world.review(&pod);

    assert_eq!(reviewed.value("app", "AWS_ROLE_ARN").as_deref(), Some(ROLE));
    assert_eq!(reviewed.tokens().len(), 1);
    assert!(reviewed.annotation("tokenscope.io/grant").is_some());
}

#[test]
fn the_patch_for_one_container_is_small() {
    let mut world = World::with_policy(region);
    world.settings.sts_regional_endpoints = true;
    let pod = asking(
        json!([{"name": "app", "env": [{"name": "A", "value": "1"}], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]),
    );
    let reviewed = world.review(&pod);
    let bytes = Value::Array(reviewed.patch).to_string().len();
    // The record and the mark, each of which a later decision reads, are 600 of them.
    assert!(bytes < 1800, "{bytes} bytes");
}

#[test]
fn a_pod_that_asks_for_nothing_is_left_exactly_as_it_is() {
    let reviewed = World::new().review(&plain(app()));
    assert_eq!(reviewed.outcome(), Outcome::Untouched);
    assert_eq!(
        reviewed.response,
        json!({"uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "allowed": true})
    );
}

#[test]
fn a_pod_that_must_be_reviewed_is_marked_even_if_nothing_becomes_of_it() {
    let mut world = World::new();
    world.namespace_labels = vec![("tokenscope.io/required", "true".into())];
    let reviewed = world.review(&plain(app()));
    assert_eq!(reviewed.mark(), Some("untouched"));
    assert_eq!(reviewed.patch.len(), 2);
}

#[test]
fn marks_and_records_that_the_user_brought_are_set_right() {
    let mut pod = plain(app());
    pod["metadata"]["annotations"] =
        json!({"tokenscope.io/reviewed": "granted", "tokenscope.io/grant": "{\"grants\":[],\"hash\":\"\"}"});
    let reviewed = World::new().review(&pod);
    assert_eq!(reviewed.annotation("tokenscope.io/reviewed"), Some("untouched"));
    assert_eq!(reviewed.annotation("tokenscope.io/grant"), None);

    let mut pod = asking(app());
    pod["metadata"]["annotations"]["tokenscope.io/grant"] = json!("nonsense");
    pod["metadata"]["annotations"]["tokenscope.io/reviewed"] = json!("untouched");
    let reviewed = World::new().review(&pod);
    assert_eq!(reviewed.annotation("tokenscope.io/reviewed"), Some("granted"));
    assert_eq!(reviewed.record()["grants"][0]["role"], ROLE);
}

#[test]
fn half_a_pair_is_completed_and_a_whole_one_left_alone() {
    let reviewed = World::new().review(&asking(json!([
        {"name": "role", "env": [{"name": "AWS_ROLE_ARN", "value": OTHER_ROLE}]},
        {"name": "file", "env": [{"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/own/token"}]},
        {"name": "ours", "env": [{"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": token_file()}]},
        {"name": "both", "env": [{"name": "AWS_ROLE_ARN", "value": "x"}, {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "y"}]},
    ])));

    assert_eq!(reviewed.value("role", "AWS_ROLE_ARN").as_deref(), Some(OTHER_ROLE));
    assert_eq!(
        reviewed.value("role", "AWS_WEB_IDENTITY_TOKEN_FILE"),
        Some(token_file())
    );
    assert_eq!(reviewed.value("file", "AWS_ROLE_ARN").as_deref(), Some(ROLE));
    assert_eq!(
        reviewed.value("file", "AWS_WEB_IDENTITY_TOKEN_FILE").as_deref(),
        Some("/own/token")
    );
    assert!(reviewed.mounts("file").is_empty(), "its file is elsewhere");
    assert_eq!(reviewed.mounts("ours").len(), 1);
    assert_eq!(
        reviewed.env("both"),
        ["AWS_ROLE_ARN=x", "AWS_WEB_IDENTITY_TOKEN_FILE=y"]
    );
    assert!(reviewed.mounts("both").is_empty());
}

#[test]
fn both_region_variables_or_neither() {
    let world = World::with_policy(region);
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        let reviewed = world.review(&asking(
            json!([{"name": "app", "env": [{"name": name, "value": "us-east-1"}]}]),
        ));
        let regions: Vec<_> = reviewed
            .env("app")
            .into_iter()
            .filter(|text| text.contains("REGION="))
            .collect();
        assert_eq!(regions, [format!("{name}=us-east-1")]);
    }
}

#[test]
fn a_session_name_is_given_only_where_it_fits() {
    let named = |name: &str| {
        let world = World::with_policy(|policy| {
            policy.aws = AwsSettings {
                role_session_name: Some("${pod.name}".parse::<Template>().unwrap()),
                ..AwsSettings::default()
            };
        });
        let mut pod = asking(app());
        pod["metadata"]["name"] = json!(name);
        if name.is_empty() {
            pod["metadata"] = json!({"generateName": "g".repeat(200), "annotations": pod["metadata"]["annotations"]});
        }
        world.review(&pod)
    };
    for fits in ["ab", &"n".repeat(64), ""] {
        let reviewed = named(fits);
        assert_eq!(
            reviewed.value("app", "AWS_ROLE_SESSION_NAME").as_deref(),
            Some("\"metadata.name\""),
            "{fits}"
        );
        assert_eq!(reviewed.warnings(), "");
    }
    for too_long in ["a", &"n".repeat(65)] {
        let reviewed = named(too_long);
        assert_eq!(reviewed.value("app", "AWS_ROLE_SESSION_NAME"), None);
        assert!(
            reviewed.warnings().contains("STS takes 2 to 64 characters"),
            "{}",
            reviewed.warnings()
        );
    }
}

#[test]
fn init_containers_and_native_sidecars_are_equipped_too() {
    let mut pod = asking(app());
    pod["spec"]["initContainers"] = json!([{"name": "init"}, {"name": "sidecar", "restartPolicy": "Always"}]);
    let reviewed = World::new().review(&pod);
    for container in ["init", "sidecar", "app"] {
        assert_eq!(reviewed.value(container, "AWS_ROLE_ARN").as_deref(), Some(ROLE));
        assert_eq!(reviewed.mounts(container).len(), 1);
    }
    assert_eq!(
        reviewed.record()["grants"][0]["containers"],
        json!(["init", "sidecar", "app"])
    );
}

#[test]
fn skipped_containers_stay_as_they_are() {
    let mut pod = asking(json!([{"name": "app"}, {"name": "proxy"}]));
    pod["metadata"]["annotations"]["tokenscope.io/skip-containers"] = json!(" proxy , gone ");
    let reviewed = World::new().review(&pod);
    assert_eq!(reviewed.pod["spec"]["containers"][1], json!({"name": "proxy"}));
    assert!(
        reviewed.warnings().contains("names container gone"),
        "{}",
        reviewed.warnings()
    );
}

#[test]
fn each_container_can_have_a_role_of_its_own() {
    let mut pod = asking(json!([{"name": "app"}, {"name": "other"}]));
    pod["metadata"]["annotations"]["tokenscope.io/role-arn.other"] = json!(OTHER_ROLE);
    let reviewed = World::new().review(&pod);
    assert_eq!(reviewed.value("app", "AWS_ROLE_ARN").as_deref(), Some(ROLE));
    assert_eq!(reviewed.value("other", "AWS_ROLE_ARN").as_deref(), Some(OTHER_ROLE));
    assert_eq!(reviewed.record()["grants"].as_array().unwrap().len(), 2);
    assert_eq!(reviewed.tokens().len(), 1, "one audience, one file");
}

#[test]
fn windows_pods_get_a_windows_path_in_the_variable_only() {
    let mut pod = asking(app());
    pod["spec"]["os"] = json!({"name": "windows"});
    let reviewed = World::new().review(&pod);
    assert_eq!(
        reviewed.value("app", "AWS_WEB_IDENTITY_TOKEN_FILE").as_deref(),
        Some("C:\\var\\run\\secrets\\tokenscope.io\\aws\\token")
    );
    assert_eq!(reviewed.mounts("app"), [format!("{VOLUME}:{MOUNT}")]);

    pod["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "own", "mountPath": "c:\\VAR\\run\\secrets\\tokenscope.io\\aws\\"}]);
    assert!(
        World::new()
            .review(&pod)
            .message()
            .contains("where tokenscope puts the token")
    );
}

#[test]
fn two_audiences_are_two_files_and_those_that_share_one_get_the_shortest_life() {
    let audience = |name: &str, audience: &str, seconds: i64, only: &str| {
        let mut policy = policy(name);
        policy.audiences.default = Some(audience.parse().unwrap());
        policy.token.expiration = tokenscope_core::TokenExpiration::from_seconds(seconds).unwrap();
        policy.containers = ContainerFilter {
            include: vec![Glob::new(only)],
            exclude: Vec::new(),
        };
        policy
    };
    let world = World {
        policies: [
            audience("a", "first", 7200, "one"),
            audience("b", "second", 3600, "two"),
            audience("c", "first", 900, "three"),
        ]
        .into_iter()
        .collect(),
        ..World::new()
    };
    let reviewed = world.review(&asking(json!([{"name": "one"}, {"name": "two"}, {"name": "three"}])));
    let file = "second".parse::<tokenscope_core::Audience>().unwrap().file_name();
    assert_eq!(reviewed.tokens(), ["token first 900", &format!("{file} second 3600")]);
    assert_eq!(reviewed.value("one", "AWS_WEB_IDENTITY_TOKEN_FILE"), Some(token_file()));
    assert_eq!(
        reviewed.value("two", "AWS_WEB_IDENTITY_TOKEN_FILE"),
        Some(format!("{MOUNT}/{file}"))
    );
    assert_eq!(
        reviewed.value("three", "AWS_WEB_IDENTITY_TOKEN_FILE"),
        Some(token_file())
    );
    assert!(world.review(&reviewed.pod).patch.is_empty());
}

#[test]
fn eks_compatible_mode_uses_the_names_of_eks() {
    let mut world = World::new();
    world.settings = Settings::eks_compatible();
    world.service_account = vec![("eks.amazonaws.com/role-arn", ROLE.to_owned())];
    let reviewed = world.review(&plain(app()));
    assert_eq!(
        reviewed.mounts("app"),
        ["aws-iam-token:/var/run/secrets/eks.amazonaws.com/serviceaccount"]
    );
    assert_eq!(
        reviewed.env("app"),
        [
            format!("AWS_ROLE_ARN={ROLE}"),
            "AWS_WEB_IDENTITY_TOKEN_FILE=/var/run/secrets/eks.amazonaws.com/serviceaccount/token".to_owned()
        ]
    );
}

#[test]
fn a_foreign_volume_of_our_name_is_refused_with_the_remedy() {
    let foreign = [
        json!({"name": VOLUME, "emptyDir": {}}),
        json!({"name": VOLUME, "projected": {"sources": [{"serviceAccountToken": {"audience": "sts.amazonaws.com", "path": "token"}}]}}),
    ];
    for volume in foreign {
        let mut pod = asking(app());
        pod["spec"]["volumes"] = json!([volume]);
        let reviewed = World::new().review(&pod);
        assert_eq!(reviewed.outcome(), Outcome::Denied);
        assert!(reviewed.message().starts_with("tokenscope: "), "{}", reviewed.message());
        assert!(reviewed.message().contains(VOLUME) && reviewed.message().contains("remove or rename it"));
        assert_eq!(reviewed.response["status"]["code"], 403);
        assert_eq!(reviewed.response["status"]["reason"], "Forbidden");

        let mut pod = plain(app());
        pod["spec"]["volumes"] = json!([volume]);
        assert!(
            World::new().review(&pod).patch.is_empty(),
            "a pod that asks for nothing may have it"
        );
    }
}

#[test]
fn a_volume_that_is_just_what_the_eks_webhook_adds_is_taken_for_ours_where_its_names_are_used() {
    let volume = |seconds: u32| {
        json!({"name": "aws-iam-token", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken":
            {"audience": "sts.amazonaws.com", "expirationSeconds": seconds, "path": "token"}}]}})
    };
    let mount = |path: &str| json!([{"name": "aws-iam-token", "mountPath": path, "readOnly": true}]);
    let path = "/var/run/secrets/eks.amazonaws.com/serviceaccount";
    let world = World {
        settings: Settings {
            eks_compatible: true,
            ..Settings::default()
        },
        ..World::new()
    };
    let pod = |volume: Value, mounts: Value| {
        let mut pod = asking(json!([{"name": "app", "volumeMounts": mounts}]));
        pod["spec"]["volumes"] = json!([volume]);
        pod
    };
    for mounts in [json!([]), mount(path)] {
        let reviewed = world.review(&pod(volume(3600), mounts));
        assert_eq!(reviewed.outcome(), Outcome::Granted);
        assert_eq!(reviewed.pod["spec"]["volumes"], json!([volume(3600)]));
        assert_eq!(reviewed.mounts("app"), [format!("aws-iam-token:{path}")]);
        assert_eq!(
            reviewed.value("app", "AWS_WEB_IDENTITY_TOKEN_FILE"),
            Some(format!("{path}/token"))
        );
        assert!(world.review(&reviewed.pod).patch.is_empty());
    }
    let refused = |pod: &Value| assert_eq!(world.review(pod).outcome(), Outcome::Denied, "{pod}");
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
    let mut pod = World::new().review(&asking(app())).pod;
    pod["spec"]["volumes"][0] = json!({"name": VOLUME, "hostPath": {"path": "/"}});
    let reviewed = World::new().review(&pod);
    assert_eq!(reviewed.outcome(), Outcome::Denied);
    assert!(reviewed.message().contains("volume"), "{}", reviewed.message());
}

#[test]
fn a_foreign_mount_at_our_path_or_below_it_is_refused_and_one_beside_it_is_not() {
    let mounted = |path: &str| {
        let mut pod = asking(json!([{"name": "app", "volumeMounts": [{"name": "own", "mountPath": path}]}]));
        pod["spec"]["volumes"] = json!([{"name": "own", "emptyDir": {}}]);
        World::new().review(&pod)
    };
    for path in [
        MOUNT.to_owned(),
        format!("{MOUNT}/"),
        format!("{MOUNT}//deeper"),
        MOUNT.replace('/', "//"),
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
    let reviewed = World::new().review(&pod);
    assert!(
        reviewed.message().contains("remove that mount"),
        "{}",
        reviewed.message()
    );
}

#[test]
fn reviewing_our_own_output_changes_nothing() {
    let world = World::with_policy(|policy| {
        region(policy);
        policy.aws.role_session_name = Some("${pod.name}".parse().unwrap());
    });
    let mut after = world
        .review(&asking(
            json!([{"name": "app"}, {"name": "half", "env": [{"name": "AWS_ROLE_ARN", "value": ROLE}]}]),
        ))
        .pod;
    // What the API server fills in before it calls again.
    after["spec"]["volumes"][0]["projected"]["defaultMode"] = json!(420);
    for variable in after["spec"]["containers"][0]["env"].as_array_mut().unwrap() {
        if variable.get("valueFrom").is_some() {
            variable["valueFrom"]["fieldRef"]["apiVersion"] = json!("v1");
        }
    }
    assert!(world.review(&after).patch.is_empty());
}

#[test]
fn a_sidecar_that_came_later_is_equipped_and_the_others_stay() {
    let world = World::new();
    let mut pod = world.review(&asking(app())).pod;
    let before = pod["spec"]["containers"][0].clone();
    pod["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "late"}));
    pod["spec"]["volumes"]
        .as_array_mut()
        .unwrap()
        .insert(0, json!({"name": "late", "emptyDir": {}}));
    let reviewed = world.review(&pod);

    assert_eq!(reviewed.pod["spec"]["containers"][0], before);
    assert_eq!(reviewed.value("late", "AWS_ROLE_ARN").as_deref(), Some(ROLE));
    assert_eq!(reviewed.mounts("late").len(), 1);
    assert_eq!(reviewed.record()["grants"][0]["containers"], json!(["app", "late"]));
    assert!(world.review(&reviewed.pod).patch.is_empty());
}

#[test]
fn another_service_account_redoes_our_edits() {
    let mut world = World::with_policy(region);
    world.service_account = vec![("tokenscope.io/role-arn", ROLE.to_owned())];
    let mut pod = world
        .review(&plain(json!([{"name": "app", "env": [{"name": "A", "value": "1"}]}])))
        .pod;
    pod["spec"]["containers"][0]["env"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "Z", "value": "1"}));

    let mut other = World::with_policy(|policy| policy.token.expiration = tokenscope_core::TokenExpiration::DAY);
    other.settings.sts_regional_endpoints = false;
    other.service_account = vec![
        ("tokenscope.io/role-arn", OTHER_ROLE.to_owned()),
        ("tokenscope.io/audience", "elsewhere".to_owned()),
    ];
    let reviewed = other.review(&pod);

    assert_eq!(
        reviewed.env("app"),
        [
            "A=1",
            &format!("AWS_ROLE_ARN={OTHER_ROLE}"),
            &format!("AWS_WEB_IDENTITY_TOKEN_FILE={}", token_file()),
            "Z=1"
        ]
    );
    assert_eq!(reviewed.tokens(), ["token elsewhere 86400"]);
    assert_eq!(reviewed.record()["grants"][0]["role"], OTHER_ROLE);
    assert!(other.review(&reviewed.pod).patch.is_empty());
}

#[test]
fn what_is_no_longer_granted_is_taken_back_and_nothing_else() {
    let mut world = World::with_policy(region);
    world.service_account = vec![("tokenscope.io/role-arn", ROLE.to_owned())];
    let mut pod = plain(
        json!([{"name": "app", "env": [{"name": "A", "value": "1"}], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]),
    );
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    pod["metadata"]["annotations"] = json!({"note": "kept"});
    let granted = world.review(&pod).pod;
    assert_ne!(granted, pod);

    world.service_account.clear();
    let mut expected = pod.clone();
    let mark = |pod: &mut Value, mark: &str| {
        pod["metadata"]["annotations"]["tokenscope.io/reviewed"] = json!(mark);
        pod["metadata"]["labels"]["tokenscope.io/reviewed"] = json!(mark);
    };
    mark(&mut expected, "untouched");
    assert_eq!(world.review(&granted).pod, expected);

    world.service_account = vec![("tokenscope.io/role-arn", "nonsense".to_owned())];
    world.settings.enforcement = tokenscope_core::Enforcement::Warn;
    mark(&mut expected, "refused");
    assert_eq!(world.review(&granted).pod, expected);
}

#[test]
fn a_container_that_is_skipped_by_now_loses_what_we_gave_it() {
    let world = World::new();
    let mut pod = world.review(&asking(json!([{"name": "app"}, {"name": "other"}]))).pod;
    pod["metadata"]["annotations"]["tokenscope.io/skip-containers"] = json!("other");
    let reviewed = world.review(&pod);
    assert!(reviewed.env("other").is_empty() && reviewed.mounts("other").is_empty());
    assert_eq!(reviewed.mounts("app").len(), 1);
}

#[test]
fn a_forged_record_gives_no_role() {
    let mut pod = plain(json!([{"name": "app", "env": [{"name": "AWS_ROLE_ARN", "value": OTHER_ROLE}]}]));
    let record = json!({"grants": [{"role": OTHER_ROLE, "containers": ["app"], "env": ["AWS_ROLE_ARN"]}], "hash": "0"});
    pod["metadata"]["annotations"] = json!({"tokenscope.io/grant": record.to_string(), "tokenscope.io/role-arn": ROLE});
    let reviewed = World::new().review(&pod);
    assert_eq!(reviewed.value("app", "AWS_ROLE_ARN").as_deref(), Some(ROLE));
}

#[test]
fn a_forged_record_takes_no_other_variable_away() {
    let mut pod = plain(json!([{"name": "app", "env": [{"name": "PATH", "value": "/bin"}]}]));
    let record =
        json!({"grants": [{"role": ROLE, "containers": ["app"], "env": ["PATH", "AWS_ROLE_ARN"]}], "hash": "0"});
    pod["metadata"]["annotations"] = json!({"tokenscope.io/grant": record.to_string()});
    assert_eq!(World::new().review(&pod).env("app"), ["PATH=/bin"]);
}

#[test]
fn a_refusal_is_an_answer_a_warning_or_a_note_as_the_namespace_says() {
    let mut pod = asking(app());
    pod["metadata"]["annotations"]["tokenscope.io/role-arn"] = json!("arn:aws:iam::999999999999:role/root");
    pod["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-1", "uid": "u", "controller": true}]);
    let in_namespace = |label: &'static str| {
        let mut world = World::new();
        world.namespace_labels = vec![(label, "true".into())];
        world.review(&pod)
    };

    let enforced = in_namespace("tokenscope.io/enforce");
    assert_eq!(enforced.response["allowed"], false);
    assert!(
        enforced
            .message()
            .contains("does not allow arn:aws:iam::999999999999:role/root"),
        "{}",
        enforced.message()
    );
    assert_eq!(enforced.outcome(), Outcome::Denied);
    assert_eq!(enforced.response["auditAnnotations"]["decision"], "denied");
    assert!(enforced.patch.is_empty());
    let refusal = enforced.refusal().unwrap();
    assert_eq!(&*refusal.owner.name, "orders-1");
    assert!(refusal.message.starts_with("A pod was refused: "));

    let warned = in_namespace("tokenscope.io/warn");
    assert_eq!(warned.response["allowed"], true);
    assert!(
        warned
            .warnings()
            .contains("tokenscope: the pod gets no AWS credentials"),
        "{}",
        warned.warnings()
    );
    assert!(warned.warnings().contains("does not allow"), "{}", warned.warnings());
    assert_eq!(warned.annotation("tokenscope.io/reviewed"), Some("refused"));
    assert!(warned.refusal().is_some());

    let audited = in_namespace("tokenscope.io/audit");
    assert_eq!(audited.response["allowed"], true);
    assert_eq!(audited.warnings(), "");
    assert_eq!(audited.response["auditAnnotations"]["decision"], "audited");
    assert!(
        audited.response["auditAnnotations"]["reasons"]
            .as_str()
            .unwrap()
            .contains("does not allow")
    );
    assert!(audited.refusal().is_none());
}

#[test]
fn a_dry_run_is_answered_the_same_and_leaves_no_event() {
    let mut pod = asking(app());
    pod["metadata"]["annotations"]["tokenscope.io/role-arn"] = json!("nonsense");
    pod["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-1", "uid": "u", "controller": true}]);
    let real = World::new().review(&pod);
    let dry = World {
        dry_run: true,
        ..World::new()
    }
    .review(&pod);
    assert_eq!(real.response, dry.response);
    assert!(real.refusal().is_some() && dry.refusal().is_none());
}

#[test]
fn credentials_that_sdks_prefer_are_warned_of() {
    let reviewed = World::new().review(&asking(json!([
        {"name": "keys", "env": [{"name": "AWS_ACCESS_KEY_ID", "value": "AKIAEXAMPLE"}]},
        {"name": "from", "envFrom": [{"secretRef": {"name": "s"}}]},
        {"name": "clean", "envFrom": []},
    ])));
    assert!(reviewed.warnings().contains("container keys sets AWS_ACCESS_KEY_ID"));
    assert!(reviewed.warnings().contains("container from has envFrom"));
    assert!(!reviewed.warnings().contains("clean") && !reviewed.response.to_string().contains("AKIAEXAMPLE"));
}

#[test]
fn a_service_account_that_is_nowhere_is_warned_of() {
    let world = World::new();
    let body = world.request(&plain(app())).to_string();
    let tokenscope_webhook::review::Asked::Pod(asked) = tokenscope_webhook::review::read(body.as_bytes()).unwrap()
    else {
        panic!("no pod");
    };
    let surroundings = tokenscope_webhook::facts::Surroundings::default();
    let answer = asked.answer(
        surroundings,
        &world.policies,
        &world.settings,
        jiff::Timestamp::UNIX_EPOCH,
    );
    assert!(
        answer.body.contains("service account orders was not found"),
        "{}",
        answer.body
    );
}

#[test]
fn a_dollar_sign_in_a_role_is_not_expanded_by_the_kubelet() {
    let role = "arn:aws:iam::111122223333:role/$(HOME)/orders";
    let mut pod = asking(app());
    pod["metadata"]["annotations"]["tokenscope.io/role-arn"] = json!(role);
    let reviewed = World::new().review(&pod);
    assert_eq!(
        reviewed.value("app", "AWS_ROLE_ARN").as_deref(),
        Some("arn:aws:iam::111122223333:role/$$(HOME)/orders")
    );
    assert!(World::new().review(&reviewed.pod).patch.is_empty());
}

#[test]
fn many_and_long_reasons_stay_within_what_the_api_server_shows() {
    let mut world = World {
        policies: (0..40)
            .map(|number| {
                let mut policy = policy(&format!("policy-with-quite-a-long-name-number-{number}"));
                policy.roles.allowed = vec![
                    "arn:aws:iam::111122223333:role/somewhere/else/entirely/*"
                        .parse()
                        .unwrap(),
                ];
                policy
            })
            .collect(),
        ..World::new()
    };
    world.settings.enforcement = tokenscope_core::Enforcement::Warn;
    let reviewed = world.review(&asking(app()));
    let warnings = reviewed.response["warnings"].as_array().unwrap();
    assert!(warnings.len() <= 14);
    assert!(reviewed.warnings().len() <= 4096);
    assert!(reviewed.response["auditAnnotations"]["reasons"].as_str().unwrap().len() <= 2048);
}

/// Any JSON that may stand in a field which nobody here knows.
fn unknown() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~äß\"\\\\]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z/~]{1,6}", inner, 0..3)
                .prop_map(|map| Value::from(serde_json::Map::from_iter(map))),
        ]
    })
}

fn variable() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("AWS_ROLE_ARN"),
        Just("AWS_WEB_IDENTITY_TOKEN_FILE"),
        Just("AWS_REGION"),
        Just("AWS_DEFAULT_REGION"),
        Just("AWS_STS_REGIONAL_ENDPOINTS"),
        Just("AWS_ROLE_SESSION_NAME"),
        Just("OTHER"),
    ];
    (
        name,
        prop_oneof![
            Just(ROLE.to_owned()),
            Just(OTHER_ROLE.to_owned()),
            Just(format!("{MOUNT}/token")),
            Just("x".to_owned())
        ],
    )
        .prop_map(|(name, value)| json!({"name": name, "value": value}))
}

fn container() -> impl Strategy<Value = Value> {
    let env = prop::option::of(prop::collection::vec(variable(), 0..4));
    let mounts = prop::option::of(prop::collection::vec("/[a-c]{1,3}", 0..3));
    (env, mounts, unknown()).prop_map(|(env, mounts, unknown)| {
        let mut container = json!({"image": "i", "unknownField": unknown});
        if let Some(env) = env {
            container["env"] = env.into();
        }
        if let Some(mounts) = mounts {
            container["volumeMounts"] = mounts
                .into_iter()
                .map(|path| json!({"name": "data", "mountPath": path, "new": 1}))
                .collect();
        }
        container
    })
}

fn any_pod() -> impl Strategy<Value = Value> {
    let containers = prop::collection::vec(container(), 1..4);
    let init = prop::option::of(prop::collection::vec(container(), 0..3));
    let annotations = prop::option::of(prop::collection::vec(
        prop_oneof![
            Just(("tokenscope.io/role-arn".to_owned(), ROLE.to_owned())),
            Just(("tokenscope.io/role-arn.app-1".to_owned(), OTHER_ROLE.to_owned())),
            Just(("tokenscope.io/skip-containers".to_owned(), "app-0".to_owned())),
            Just(("tokenscope.io/audience".to_owned(), "elsewhere".to_owned())),
            Just(("tokenscope.io/reviewed".to_owned(), "granted".to_owned())),
            Just(("a~b/c".to_owned(), "\u{1}\"".to_owned())),
        ],
        0..5,
    ));
    let volumes = prop_oneof![
        Just(None),
        Just(Some(json!([]))),
        Just(Some(json!([{"name": "data", "emptyDir": {}, "x": [1]}]))),
        Just(Some(
            json!([{"name": "data", "csi": {"driver": "csi.spiffe.io", "readOnly": true}}])
        )),
    ];
    (containers, init, annotations, volumes, unknown(), any::<bool>()).prop_map(
        |(mut containers, init, annotations, volumes, unknown, windows)| {
            for (index, container) in containers.iter_mut().enumerate() {
                container["name"] = format!("app-{index}").into();
            }
            let mut pod = plain(containers.into());
            if let Some(mut init) = init {
                for (index, container) in init.iter_mut().enumerate() {
                    container["name"] = format!("init-{index}").into();
                }
                pod["spec"]["initContainers"] = init.into();
            }
            if let Some(annotations) = annotations {
                pod["metadata"]["annotations"] = annotations
                    .into_iter()
                    .map(|(key, value)| (key, Value::from(value)))
                    .collect::<serde_json::Map<_, _>>()
                    .into();
            }
            if let Some(volumes) = volumes {
                pod["spec"]["volumes"] = volumes;
            }
            if windows {
                pod["spec"]["nodeSelector"] = json!({"kubernetes.io/os": "windows"});
            }
            pod["spec"]["unknownField"] = unknown.clone();
            pod["unknownField"] = unknown;
            pod
        },
    )
}

fn any_world() -> impl Strategy<Value = World> {
    (any::<[bool; 5]>(), 0..3u8, 0..4u8).prop_map(
        |([with_region, account, regional, by_default, session], enforcement, source)| {
            let mut world = World::with_policy(|policy| {
                if with_region {
                    region(policy);
                }
                if by_default {
                    policy.roles.default = Some(OTHER_ROLE.parse().unwrap());
                }
                if session {
                    policy.aws.role_session_name = Some("${pod.name}".parse().unwrap());
                }
                if source > 0 {
                    policy.token.source = TokenSource::Spiffe;
                }
            });
            if source == 2 {
                world.settings.sidecar.workload_api = WorkloadApi::HostPath {
                    path: "/run/spire/agent-sockets".into(),
                };
                world.settings.sidecar.image = "another".into();
            }
            world.settings.sts_regional_endpoints = regional;
            world.settings.enforcement = [
                tokenscope_core::Enforcement::Enforce,
                tokenscope_core::Enforcement::Warn,
                tokenscope_core::Enforcement::Audit,
            ][usize::from(enforcement)];
            if account {
                world.service_account = vec![("tokenscope.io/role-arn", ROLE.to_owned())];
            }
            world
        },
    )
}

/// The pod without anything that tokenscope may add.
fn without_ours(pod: &Value, names: &[&str]) -> Value {
    let mut pod = pod.clone();
    let drop_named = |list: &mut Value, names: &[&str]| {
        if let Some(items) = list.as_array_mut() {
            items.retain(|item| !names.contains(&item["name"].as_str().unwrap()));
        }
        if list.as_array().is_some_and(Vec::is_empty) {
            *list = Value::Null;
        }
    };
    drop_named(&mut pod["spec"]["volumes"], &[VOLUME, SOCKET_VOLUME]);
    drop_named(&mut pod["spec"]["initContainers"], &[SIDECAR]);
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            drop_named(&mut container["env"], names);
            drop_named(&mut container["volumeMounts"], &[VOLUME]);
        }
    }
    for map in ["annotations", "labels"] {
        let entries = &mut pod["metadata"][map];
        if let Some(entries) = entries.as_object_mut() {
            entries.retain(|key, _| key != "tokenscope.io/grant" && key != "tokenscope.io/reviewed");
        }
        if entries.as_object().is_none_or(serde_json::Map::is_empty) {
            *entries = Value::Null;
        }
    }
    pod
}

/// The pod without what may differ: where our variables stand among others, lists that are empty and lists that are not
/// there, and the mark, which a second review sets right but does not remove.
fn comparable(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let tidy = |list: &mut Value| match list.as_array_mut() {
        Some(items) if !items.is_empty() => items.sort_by_key(ToString::to_string),
        _ => *list = Value::Null,
    };
    tidy(&mut pod["spec"]["volumes"]);
    if pod["spec"]["initContainers"].as_array().is_some_and(Vec::is_empty) {
        pod["spec"]["initContainers"] = Value::Null;
    }
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            tidy(&mut container["env"]);
            tidy(&mut container["volumeMounts"]);
        }
    }
    for map in ["annotations", "labels"] {
        let entries = &mut pod["metadata"][map];
        if let Some(entries) = entries.as_object_mut() {
            entries.remove("tokenscope.io/reviewed");
        }
        if entries.as_object().is_none_or(serde_json::Map::is_empty) {
            *entries = Value::Null;
        }
    }
    pod
}

const OURS: &[&str] = &[
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_SESSION_NAME",
    "AWS_EC2_METADATA_DISABLED",
];

proptest! {
    #[test]
    fn nothing_that_is_not_ours_changes(pod in any_pod(), world in any_world()) {
        let reviewed = world.review(&pod);
        prop_assert_eq!(without_ours(&reviewed.pod, OURS), without_ours(&pod, OURS));
        // Variables that were there are there still, as they were and in their order.
        for list in ["containers", "initContainers"] {
            let (before, after) = (pod["spec"][list].as_array(), reviewed.pod["spec"][list].as_array());
            let after = after.into_iter().flatten().filter(|container| container["name"] != SIDECAR);
            for (before, after) in before.into_iter().flatten().zip(after) {
                let before = before["env"].as_array().cloned().unwrap_or_default();
                let after = after["env"].as_array().cloned().unwrap_or_default();
                prop_assert_eq!(&after[..before.len()], &before[..]);
            }
        }
    }

    #[test]
    fn a_second_review_finds_nothing_to_do(pod in any_pod(), world in any_world()) {
        let once = world.review(&pod);
        let twice = world.review(&once.pod);
        prop_assert_eq!(&twice.patch, &Vec::<Value>::new());
        prop_assert_eq!(twice.outcome(), once.outcome());
    }

    #[test]
    fn after_a_change_the_pod_is_as_if_it_had_been_reviewed_only_then(pod in any_pod(), before in any_world(), after in any_world()) {
        let first = before.review(&pod);
        let redone = after.review(&first.pod);
        let direct = after.review(&pod);
        prop_assert_eq!(redone.outcome(), direct.outcome());
        if redone.outcome() != Outcome::Denied {
            prop_assert_eq!(comparable(&redone.pod), comparable(&direct.pod));
        }
    }
}
