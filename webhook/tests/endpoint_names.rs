//! What bears the names of a sidecar that serves credentials, and what a container brings itself.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod fixtures;

use fixtures::{
    MOUNT, ROLE, ReviewFixture, VOLUME, app, asking, authorization_of, copy_of, refusal, served, serving, told, volume,
};
use serde_json::{Value, json};
use tokenscope_core::credentials_endpoint::{AUTHORIZATION_FOLDER, FULL_URI_VARIABLE};
use tokenscope_core::delivery::Delivery;
use tokenscope_core::pod::{CONFIG_WRITER, SIDECAR, SOURCE_TOKEN_VOLUME};
use tokenscope_webhook::metrics::ReviewOutcome;

#[test]
fn what_bears_our_names_and_is_not_ours_is_refused() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut pod = asking(json!([{"name": "app"}, {"name": "other"}]));
        change(&mut pod["spec"]);
        refusal(&serving(), &pod)
    };
    let message = with(&|spec| spec["volumes"] = json!([{"name": SOURCE_TOKEN_VOLUME, "emptyDir": {}}]));
    assert!(
        message.contains("brings a volume tokenscope-source-token of its own"),
        "{message}"
    );
    let message = with(&|spec| spec["volumes"] = json!([{"name": authorization_of("app"), "hostPath": {"path": "/"}}]));
    assert!(
        message.contains("brings a volume tokenscope-authorization-"),
        "{message}"
    );
    for name in [authorization_of("app"), SOURCE_TOKEN_VOLUME.to_owned()] {
        let message = with(&|spec| {
            spec["containers"][1]["volumeMounts"] = json!([{"name": name, "mountPath": "/x", "readOnly": true}]);
        });
        assert!(
            message.contains(&format!("container other mounts volume {name} itself")),
            "{message}"
        );
    }
    let message = with(&|spec| {
        spec["volumes"] = json!([{"name": "mine", "emptyDir": {}}]);
        spec["containers"][0]["volumeMounts"] = json!([{"name": "mine", "mountPath": AUTHORIZATION_FOLDER}]);
    });
    assert!(
        message.contains("where tokenscope puts the authorization token"),
        "{message}"
    );
}

#[test]
fn a_copy_comes_out_the_same_and_one_of_another_port_is_refused() {
    let good = serving().review(&asking(app())).pod;
    let mut copy = good.clone();
    copy["metadata"]["annotations"] = json!({"tokenscope.io/role-arn": ROLE});
    let reviewed = serving().review(&copy);
    assert_eq!(reviewed.outcome(), ReviewOutcome::Granted);
    assert_eq!(reviewed.pod["spec"], good["spec"]);

    let mut pod = asking(app());
    pod["spec"]["containers"][0]["env"] =
        json!([{"name": FULL_URI_VARIABLE, "value": "http://127.0.0.1:1/v1/credentials/app"}]);
    let message = refusal(&serving(), &pod);
    assert!(
        message.contains("to another port than that of the pod's sidecar"),
        "{message}"
    );
}

#[test]
fn f08_a_copy_without_its_record_keeps_a_serving_sidecar_that_is_exactly_ours_unless_it_has_to_serve_more() {
    let mut fixture = serving();
    fixture.service_account = vec![("tokenscope.io/role-arn", ROLE.to_owned())];
    let original = fixture.review(&asking(app())).pod;
    // With nothing to do for the container that was added, all is as before.
    let mut copy = copy_of(&original);
    copy["metadata"]["annotations"] = json!({"tokenscope.io/skip-containers": "debugger"});
    let reviewed = fixture.review(&copy);
    assert_eq!(reviewed.outcome(), ReviewOutcome::Granted, "{}", reviewed.message());
    for part in ["volumes", "initContainers"] {
        assert_eq!(reviewed.pod["spec"][part], original["spec"][part], "{part}");
    }
    assert_eq!(reviewed.pod["spec"]["containers"][0], original["spec"]["containers"][0]);
    assert_eq!(reviewed.env("debugger"), Vec::<String>::new());

    // The sidecar is told each container that it serves, so one that is to serve the new one too is another one.
    let message = refusal(&fixture, &copy_of(&original));
    assert!(
        message.contains(SIDECAR) && message.contains("--keep-annotations"),
        "{message}"
    );
    // With its annotations it is made what it should be.
    let mut kept = copy_of(&original);
    kept["metadata"]["annotations"] = original["metadata"]["annotations"].clone();
    kept["metadata"]["labels"] = original["metadata"]["labels"].clone();
    let reviewed = fixture.review(&kept);
    assert_eq!(reviewed.outcome(), ReviewOutcome::Granted, "{}", reviewed.message());
    assert_eq!(told(&reviewed).containers.len(), 2);
}

#[test]
fn a_sidecar_that_is_not_as_it_should_be_is_made_anew_and_a_mount_of_anothers_token_goes() {
    let fixture = serving();
    let mut good = asking(json!([{"name": "app"}, {"name": "other"}]));
    good = fixture.review(&good).pod;
    let other = authorization_of("other");
    let changes: [&dyn Fn(&mut Value); 5] = [
        &|spec| spec["initContainers"][0]["image"] = json!("evil"),
        &|spec| spec["initContainers"][0]["env"][0]["valueFrom"]["fieldRef"]["fieldPath"] = json!("metadata.uid"),
        &|spec| {
            let env = spec["initContainers"][0]["env"].as_array_mut().unwrap();
            env.last_mut().unwrap()["value"] = json!("{}");
        },
        &|spec| spec["containers"][0]["volumeMounts"][0]["name"] = json!(other),
        &|spec| spec["initContainers"][0]["volumeMounts"] = json!([]),
    ];
    for change in changes {
        let mut pod = good.clone();
        change(&mut pod["spec"]);
        assert_ne!(pod, good);
        assert_eq!(fixture.review(&pod).pod, good);
    }
    // As the API server stores it, with another webhook's container before it.
    let mut pod = good;
    pod["spec"]["initContainers"][0]["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] = json!("v1");
    pod["spec"]["initContainers"]
        .as_array_mut()
        .unwrap()
        .insert(0, json!({"name": "mesh", "image": "i"}));
    assert_eq!(fixture.review(&pod).init_containers(), [SIDECAR, "mesh"]);
}

#[test]
fn from_one_delivery_to_another_nothing_stays_behind() {
    let pod = asking(app());
    let first = serving().review(&pod);
    let by_variables = ReviewFixture::new().review(&first.pod);
    assert!(by_variables.init_containers().is_empty());
    assert_eq!(by_variables.mounts("app"), [format!("{VOLUME}:{MOUNT}")]);
    assert_eq!(by_variables.value("app", FULL_URI_VARIABLE), None);
    assert!(volume(&by_variables, SOURCE_TOKEN_VOLUME).is_none());
    let by_file = ReviewFixture::with_policy(|policy| {
        served(policy);
        policy.delivery = Delivery::Profile(Vec::new());
    });
    assert_eq!(by_file.review(&first.pod).init_containers(), [CONFIG_WRITER]);
    let again = serving().review(&by_variables.pod);
    assert_eq!(told(&again), told(&first));
    assert_eq!(again.mounts("app"), first.mounts("app"));
    assert_ne!(by_variables.record()["hash"], first.record()["hash"]);
}

#[test]
fn a_containers_own_agent_is_left_alone_and_the_author_is_told() {
    for name in [
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    ] {
        let own = json!({"name": "app", "env": [{"name": name, "value": "/mine"}]});
        let reviewed = serving().review(&asking(json!([own, {"name": "other"}])));
        assert_eq!(reviewed.env("app"), [format!("{name}=/mine")]);
        assert_eq!(reviewed.mounts("app"), Vec::<String>::new());
        assert_eq!(reviewed.mounts("other").len(), 1);
        let warnings = reviewed.warnings();
        assert!(warnings.contains("container app gets no credentials"), "{warnings}");
    }
}
