//! Pods whose credentials come by an AWS config file.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod fixtures;

use std::time::Duration;

use fixtures::{
    MOUNT, OTHER_ROLE, PULL_SECRET, ROLE, ReviewFixture, VOLUME, app, asking, asking_for_two, plain, refusal,
    run_issuer,
};
use serde_json::{Value, json};
use tokenscope_core::config_file::{CONFIG_FILE, CONFIG_FOLDER};
use tokenscope_core::delivery::{Delivery, NamedProfile, RoleHop};
use tokenscope_core::pod::{CONFIG_VOLUME, CONFIG_WRITER, SIDECAR};
use tokenscope_core::{Policy, TokenSource};
use tokenscope_fixtures::ProcessorTime;
use tokenscope_webhook::metrics::ReviewOutcome;

fn by_file(policy: &mut Policy) {
    policy.delivery = Delivery::Profile(Vec::new());
    policy.aws.region = Some("eu-central-1".parse().unwrap());
    policy.aws.role_session_name = Some("${pod.name}".parse().unwrap());
    policy.aws.role_chain = vec![RoleHop {
        role: "arn:aws:iam::444455556666:role/target".parse().unwrap(),
        external_id: Some("e2".parse().unwrap()),
        session_name: Some("orders".parse().unwrap()),
    }];
}

fn fixture() -> ReviewFixture {
    ReviewFixture::with_policy(by_file)
}

#[test]
fn a_granted_pod_gets_the_writer_first_with_the_files_text_in_its_arguments() {
    let mut pod = asking(app());
    pod["spec"]["initContainers"] = json!([{"name": "migrate", "image": "m"}]);
    let reviewed = fixture().review(&pod);

    let text = "\
[profile tokenscope-1]
role_arn = arn:aws:iam::111122223333:role/shop/orders
web_identity_token_file = /var/run/secrets/tokenscope.io/aws/token
role_session_name = $(TOKENSCOPE_POD_NAME)
region = eu-central-1
[default]
role_arn = arn:aws:iam::444455556666:role/target
source_profile = tokenscope-1
external_id = e2
role_session_name = orders
region = eu-central-1
";
    assert_eq!(reviewed.init_containers(), [CONFIG_WRITER, "migrate"]);
    assert_eq!(
        reviewed.pod["spec"]["initContainers"][0],
        json!({
            "name": CONFIG_WRITER,
            "image": concat!("localhost/tokenscope-sidecar:", env!("CARGO_PKG_VERSION")),
            "imagePullPolicy": "IfNotPresent",
            "args": ["write", CONFIG_FILE, text],
            "env": [{"name": "TOKENSCOPE_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "volumeMounts": [{"name": CONFIG_VOLUME, "mountPath": CONFIG_FOLDER}],
            "resources": {"requests": {"cpu": "5m", "memory": "8Mi"}, "limits": {"cpu": "100m", "memory": "32Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
                "runAsGroup": 65532, "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
            },
        })
    );
    assert_eq!(
        reviewed.pod["spec"]["volumes"][1],
        json!({"name": CONFIG_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    );
    for container in ["migrate", "app"] {
        assert_eq!(
            reviewed.env(container),
            [
                "AWS_STS_REGIONAL_ENDPOINTS=regional".to_owned(),
                "AWS_EC2_METADATA_DISABLED=true".into(),
                format!("AWS_CONFIG_FILE={CONFIG_FILE}"),
            ],
            "no web identity, which some SDKs prefer, and no region, which each profile has"
        );
        assert_eq!(
            reviewed.mounts(container),
            [format!("{VOLUME}:{MOUNT}"), format!("{CONFIG_VOLUME}:{CONFIG_FOLDER}")]
        );
    }
    assert_eq!(
        reviewed.pod["spec"]["containers"][0]["volumeMounts"][1]["readOnly"],
        true
    );
    assert!(reviewed.record()["config_writer"].is_string());
    assert_eq!(reviewed.warnings(), "");
}

#[test]
fn each_role_has_a_file_of_its_own_that_no_other_container_sees() {
    let reviewed = fixture().review(&asking_for_two());
    let arguments = reviewed.pod["spec"]["initContainers"][0]["args"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(arguments.len(), 5);
    assert!(arguments[2].as_str().unwrap().contains(ROLE) && arguments[4].as_str().unwrap().contains(OTHER_ROLE));
    let second = reviewed.mounts("other").pop().unwrap();
    let (volume, folder) = second.split_once(':').unwrap();
    assert_eq!(folder, CONFIG_FOLDER);
    assert_ne!(volume, CONFIG_VOLUME);
    let suffix = volume.strip_prefix(CONFIG_VOLUME).unwrap();
    assert_eq!(arguments[3], format!("{CONFIG_FOLDER}{suffix}/config"));
    assert_eq!(
        reviewed.mounts("app")[1..],
        [format!("{CONFIG_VOLUME}:{CONFIG_FOLDER}")]
    );
}

#[test]
fn beside_a_sidecar_the_writer_comes_first_and_ends_before_it_starts() {
    let mut fixture = ReviewFixture::with_policy(|policy| {
        by_file(policy);
        policy.token.source = TokenSource::Issuer;
    });
    run_issuer(&mut fixture);
    let mut reviewed = fixture.review(&asking(app()));
    assert_eq!(reviewed.init_containers(), [CONFIG_WRITER, SIDECAR]);
    let image = |at: usize| reviewed.pod["spec"]["initContainers"][at]["image"].clone();
    assert_eq!(image(0), image(1), "one image to pull");

    // Another webhook puts its own before them, and mixes them up.
    let first = reviewed.pod.clone();
    let init_containers = reviewed.pod["spec"]["initContainers"].as_array_mut().unwrap();
    init_containers.swap(0, 1);
    init_containers.insert(0, json!({"name": "mesh", "image": "i"}));
    let again = fixture.review(&reviewed.pod);
    assert_eq!(again.init_containers(), [CONFIG_WRITER, SIDECAR, "mesh"]);
    assert_eq!(
        again.pod["spec"]["initContainers"][0],
        first["spec"]["initContainers"][0]
    );
}

#[test]
fn a_writer_that_is_not_as_it_should_be_is_made_anew_and_one_as_the_api_server_left_it_stays() {
    let good = fixture().review(&asking(app())).pod;
    let changes: [fn(&mut Value); 5] = [
        |writer| writer["args"][2] = json!("[default]\ncredential_process = evil\n"),
        |writer| writer["image"] = json!("evil"),
        |writer| writer["command"] = json!(["/bin/sh"]),
        |writer| writer["env"][0] = json!({"name": "TOKENSCOPE_POD_NAME", "value": "x\ncredential_process = evil"}),
        |writer| writer["volumeMounts"] = json!([]),
    ];
    for change in changes {
        let mut pod = good.clone();
        change(&mut pod["spec"]["initContainers"][0]);
        assert_eq!(fixture().review(&pod).pod, good);
    }
    let mut pod = good;
    let writer = &mut pod["spec"]["initContainers"][0];
    writer["terminationMessagePolicy"] = json!("File");
    writer["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] = json!("v1");
    assert_eq!(fixture().review(&pod).patch, Vec::<Value>::new());
    // The same without its record, as a copy has it.
    pod["metadata"]["annotations"] = json!({"tokenscope.io/role-arn": ROLE});
    let copy = fixture().review(&pod);
    assert_eq!(copy.outcome(), ReviewOutcome::Granted);
    assert_eq!(copy.pod["spec"], pod["spec"]);
}

#[test]
fn what_bears_the_writers_names_and_is_not_ours_is_refused() {
    let with = |change: fn(&mut Value)| {
        let mut pod = asking(app());
        change(&mut pod["spec"]);
        refusal(&fixture(), &pod)
    };
    let message = with(|spec| spec["initContainers"] = json!([{"name": CONFIG_WRITER, "image": "evil"}]));
    assert!(
        message.contains("brings a container tokenscope-aws-config of its own"),
        "{message}"
    );
    let message = with(|spec| spec["volumes"] = json!([{"name": CONFIG_VOLUME, "hostPath": {"path": "/"}}]));
    assert!(
        message.contains("brings a volume tokenscope-aws-config of its own"),
        "{message}"
    );
    let message = with(|spec| {
        spec["containers"][0]["volumeMounts"] = json!([{"name": CONFIG_VOLUME, "mountPath": "/x"}]);
    });
    assert!(
        message.contains("mounts volume tokenscope-aws-config itself"),
        "{message}"
    );
    let message = with(|spec| {
        spec["volumes"] = json!([{"name": "mine", "emptyDir": {}}]);
        spec["containers"][0]["volumeMounts"] =
            json!([{"name": "mine", "mountPath": "/run/secrets/tokenscope.io/aws-config"}]);
    });
    assert!(
        message.contains("where tokenscope puts the AWS config file"),
        "{message}"
    );
    let message = with(|spec| spec["os"] = json!({"name": "windows"}));
    assert!(message.contains("delivery.type File"), "{message}");
}

#[test]
fn a_containers_own_configuration_is_left_alone_and_the_author_is_told() {
    let app = |name: &str, value: &str| json!({"name": "app", "env": [{"name": name, "value": value}]});
    let own = |name: &str, value: &str| asking(json!([app(name, value), {"name": "other"}]));
    let long = "mine".repeat(1000);
    let configured = [
        ("AWS_CONFIG_FILE", "/etc/aws"),
        ("AWS_PROFILE", "mine"),
        ("AWS_PROFILE", &long),
        ("AWS_DEFAULT_PROFILE", "mine"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/mine"),
    ];
    let last = |name: &str, value: &str| asking(json!([{"name": "other"}, app(name, value)]));
    let pods = configured.map(|(name, value)| [(name, value, own(name, value)), (name, value, last(name, value))]);
    for (name, value, pod) in pods.into_iter().flatten() {
        let reviewed = fixture().review(&pod);
        assert_eq!(reviewed.env("app"), [format!("{name}={value}")]);
        assert_eq!(reviewed.mounts("app"), Vec::<String>::new());
        assert_eq!(reviewed.mounts("other").len(), 2);
        assert!(
            reviewed.warnings().contains("container app gets no credentials"),
            "{}",
            reviewed.warnings()
        );
    }
    let reviewed = fixture().review(&own("AWS_PROFILE", "default"));
    assert_eq!(reviewed.value("app", "AWS_CONFIG_FILE").as_deref(), Some(CONFIG_FILE));
    assert_eq!(reviewed.warnings(), "");
    let reviewed = fixture().review(&own("AWS_REGION", "us-east-1"));
    assert_eq!(reviewed.value("app", "AWS_CONFIG_FILE").as_deref(), Some(CONFIG_FILE));
}

#[test]
fn a_volume_around_the_files_folder_that_others_can_write_is_warned_of() {
    for path in ["/run", "/var/run", "/var/run/secrets/"] {
        let mut pod = asking(json!([{"name": "app", "volumeMounts": [{"name": "scratch", "mountPath": path}]}]));
        pod["spec"]["volumes"] = json!([{"name": "scratch", "emptyDir": {}}]);
        let reviewed = fixture().review(&pod);
        assert!(reviewed.warnings().contains("can replace the file"), "{path}");
        pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] = json!("/tmp");
        assert_eq!(fixture().review(&pod).warnings(), "");
    }
}

#[test]
fn the_writer_has_what_containers_of_its_image_need_in_the_namespace() {
    let mut fixture = fixture();
    fixture.settings.sidecar.pull_secrets = vec![PULL_SECRET.into()];
    let resources = "{\"limits\":{\"memory\":\"64Mi\"}}";
    let of_namespaces = &mut fixture.settings.sidecar.namespace_resources;
    of_namespaces.insert("shop".into(), resources.into());
    let reviewed = fixture.review(&asking(app()));
    assert_eq!(reviewed.pod["spec"]["imagePullSecrets"], json!([{"name": PULL_SECRET}]));
    let writer = &reviewed.pod["spec"]["initContainers"][0];
    assert_eq!(writer["resources"], json!({"limits": {"memory": "64Mi"}}));
}

#[test]
fn a_pod_that_may_not_have_it_any_more_loses_all_of_it() {
    let granted = fixture().review(&asking(app()));
    let mut by_variables = fixture();
    by_variables.policies = ReviewFixture::new().policies;
    let reviewed = by_variables.review(&granted.pod);
    assert!(reviewed.init_containers().is_empty());
    assert_eq!(reviewed.value("app", "AWS_CONFIG_FILE"), None);
    assert_eq!(reviewed.value("app", "AWS_ROLE_ARN").as_deref(), Some(ROLE));
    assert_eq!(reviewed.mounts("app"), [format!("{VOLUME}:{MOUNT}")]);
    assert_eq!(reviewed.record()["config_writer"], Value::Null);
    assert_eq!(fixture().review(&reviewed.pod).init_containers(), [CONFIG_WRITER]);

    let mut pod = granted.pod;
    pod["metadata"]["annotations"]
        .as_object_mut()
        .unwrap()
        .remove("tokenscope.io/role-arn");
    let reviewed = fixture().review(&pod);
    assert_eq!(reviewed.pod["spec"]["volumes"], json!([]));
    assert_eq!(
        reviewed.pod["spec"]["containers"],
        json!([{"name": "app", "image": "app", "env": [], "volumeMounts": []}])
    );
}

#[test]
fn more_text_than_the_bound_is_refused_with_the_bound() {
    let big = ReviewFixture::with_policy(|policy| {
        by_file(policy);
        let profile = |number: usize| NamedProfile {
            name: format!("p{number}").parse().unwrap(),
            region: "eu-central-1".parse().unwrap(),
            role: None,
            chain: policy.aws.role_chain.iter().cycle().take(4).cloned().collect(),
        };
        policy.delivery = Delivery::Profile((0..8).map(profile).collect());
    });
    assert_eq!(big.review(&asking(app())).outcome(), ReviewOutcome::Granted);
    let message = refusal(&big, &asking_for_many(20));
    assert!(message.contains("at most 32768 are written"), "{message}");
}

/// A pod whose containers each want a role of their own.
fn asking_for_many(containers: usize) -> Value {
    let names: Vec<String> = (0..containers).map(|number| format!("c{number}")).collect();
    let mut pod = plain(names.iter().map(|name| json!({"name": name})).collect());
    let role = |name: &String| {
        let role = json!(format!("arn:aws:iam::111122223333:role/{name}"));
        (format!("tokenscope.io/role-arn.{name}"), role)
    };
    pod["metadata"]["annotations"] = names.iter().map(role).collect();
    pod
}

#[test]
fn as_many_files_as_are_written_are_granted_and_one_more_is_refused_with_the_bound() {
    assert_eq!(fixture().review(&asking_for_many(31)).outcome(), ReviewOutcome::Granted);
    for containers in [32, 200] {
        let message = refusal(&fixture(), &asking_for_many(containers));
        assert!(message.contains("at most 31 are written"), "{message}");
        assert_eq!(message.matches("are written").count(), 1, "{message}");
    }
}

/// The shortest of a few reviews.
fn time(fixture: &ReviewFixture, pod: &Value) -> Duration {
    let review = || {
        let began = ProcessorTime::now();
        fixture.review(pod);
        began.elapsed()
    };
    (0..5).map(|_| review()).min().unwrap()
}

#[test]
fn of_many_containers_of_the_writers_name_the_equal_one_stays_and_each_more_costs_as_much() {
    let granted = fixture().review(&asking_for_many(31)).pod;
    let with_more = |more: usize| {
        let mut pod = granted.clone();
        let init_containers = pod["spec"]["initContainers"].as_array_mut().unwrap();
        init_containers.extend((0..more).map(|_| json!({"name": CONFIG_WRITER, "image": "evil"})));
        pod
    };
    let reviewed = fixture().review(&with_more(128));
    assert_eq!(reviewed.pod, granted);
    let removed: Vec<String> = (1..=128).rev().map(|at| format!("/spec/initContainers/{at}")).collect();
    let paths: Vec<&str> = reviewed
        .patch
        .iter()
        .map(|operation| operation["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, removed);

    // A second one that is equal is one too many as well.
    let mut twice = granted.clone();
    let init_containers = twice["spec"]["initContainers"].as_array_mut().unwrap();
    init_containers.push(init_containers[0].clone());
    assert_eq!(fixture().review(&twice).pod, granted);

    let fixture = fixture();
    let pods = [0, 64, 128].map(with_more);
    let mut measured = Vec::new();
    // The writer is not written for each. A busy machine disturbs some of the measurements.
    let is_linear = (0..10).any(|_| {
        let [none, half, all] = pods.each_ref().map(|pod| time(&fixture, pod));
        measured.push([none, half, all]);
        all < half * 3 && all < none * 4
    });
    assert!(is_linear, "with none, 64 and 128 more: {measured:?}");
}

#[test]
fn a_pods_name_that_no_session_can_have_is_left_out() {
    let mut pod = asking(app());
    pod["metadata"]["name"] = json!("n".repeat(65));
    let reviewed = fixture().review(&pod);
    let text = reviewed.pod["spec"]["initContainers"][0]["args"][2]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(!text.contains("TOKENSCOPE_POD_NAME") && text.contains("role_session_name = orders"));
    assert!(
        reviewed.warnings().contains("the pod's name has 65"),
        "{}",
        reviewed.warnings()
    );
}
