//! Cases of `e2e/tests/cases` of which a part is what the documentation says: it must be true of each delivery.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is test code, also outside the tests themselves"
)]

mod fixtures;

use std::collections::BTreeSet;

use fixtures::{
    EKS_MOUNT, ROLE, ReviewFixture, ReviewedPod, app, asking, delivery, issuer, plain, policy, region, served, serving,
    spiffe,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokenscope_core::pod::is_added_container;
use tokenscope_core::{Enforcement, InstanceMetadata, PolicyName, PolicySet, TokenSource};
use tokenscope_webhook::metrics::ReviewOutcome;
use tokenscope_webhook::review::{self, Asked};

/// An installation for each way in which something is added to a pod.
fn every_delivery() -> [ReviewFixture; 6] {
    let by_file = ReviewFixture::with_policy(|policy| {
        region(policy);
        policy.delivery = delivery(false);
    });
    let served_by_spiffe = ReviewFixture::with_policy(|policy| {
        served(policy);
        policy.token.source = TokenSource::Spiffe;
    });
    [
        ReviewFixture::new(),
        spiffe(),
        issuer(),
        serving(),
        served_by_spiffe,
        by_file,
    ]
}

fn document(name: &str) -> String {
    std::fs::read_to_string(format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A review of a pod in kube-system.
fn in_kube_system(fixture: &ReviewFixture, pod: &Value) -> ReviewedPod {
    let mut body = fixture.request(pod);
    body["request"]["namespace"] = "kube-system".into();
    let body = body.to_string();
    let Asked::Pod(asked) = review::read(body.as_bytes()).unwrap() else {
        panic!("no pod");
    };
    let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    let answer = asked.answer(fixture.surroundings(), &fixture.policies, &fixture.settings, now);
    ReviewedPod::new(&answer, pod)
}

fn policies_of_kube_system() -> PolicySet {
    let mut policy = policy("add-ons");
    policy.name = PolicyName::namespaced("kube-system", "add-ons");
    [policy].into_iter().collect()
}

#[test]
fn f01_a_pod_in_kube_system_gets_the_role_that_a_policy_grants_and_is_never_refused() {
    let mut fixture = ReviewFixture::new();
    let mut pod = asking(app());
    pod["metadata"]["namespace"] = "kube-system".into();
    fixture.policies = policies_of_kube_system();
    let reviewed = in_kube_system(&fixture, &pod);
    assert_eq!(reviewed.outcome(), ReviewOutcome::Granted, "{}", reviewed.warnings());
    assert_eq!(reviewed.mark(), Some("granted"));
    assert_eq!(reviewed.value("app", "AWS_ROLE_ARN").as_deref(), Some(ROLE));

    // The same by an annotation of its service account.
    let mut by_account = plain(app());
    by_account["metadata"]["namespace"] = "kube-system".into();
    fixture.service_account = vec![("tokenscope.io/role-arn", ROLE.to_owned())];
    let reviewed = in_kube_system(&fixture, &by_account);
    assert_eq!(reviewed.value("app", "AWS_ROLE_ARN").as_deref(), Some(ROLE));

    // A role that no policy grants is not given, and the pod is admitted with the reason.
    fixture.policies = PolicySet::default();
    assert_eq!(fixture.settings.enforcement, Enforcement::Enforce);
    let reviewed = in_kube_system(&fixture, &pod);
    assert_eq!(reviewed.response["allowed"], true);
    assert_eq!(reviewed.value("app", "AWS_ROLE_ARN"), None);
    assert!(reviewed.warnings().contains(ROLE), "{}", reviewed.warnings());
}

#[test]
fn f02_a_list_of_containers_without_a_role_is_told_to_have_no_effect() {
    let fixture = ReviewFixture::new();
    let mut pod = plain(app());
    pod["metadata"]["annotations"]["tokenscope.io/containers"] = "app".into();
    let reviewed = fixture.review(&pod);
    assert_eq!(reviewed.outcome(), ReviewOutcome::Untouched);
    assert_eq!(
        reviewed.warnings(),
        "tokenscope: annotation tokenscope.io/containers of the pod is \"app\" and has no effect: no annotation names a role for this pod, and no \
         policy assigns one. Name one by tokenscope.io/role-arn, or remove the list"
    );
}

#[test]
fn a09_every_container_that_is_added_has_the_resources_of_its_namespace_so_that_a_limit_range_can_be_met() {
    let wanted = json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}});
    let mut added = 0;
    for mut fixture in every_delivery() {
        let resources = &mut fixture.settings.sidecar.namespace_resources;
        resources.insert("shop".into(), wanted.to_string().into());
        let reviewed = fixture.review(&asking(app()));
        let containers = reviewed.pod["spec"]["initContainers"].as_array();
        for container in containers.into_iter().flatten() {
            assert!(is_added_container(container["name"].as_str().unwrap()));
            assert_eq!(container["resources"], wanted, "{}", container["name"]);
            added += 1;
        }
    }
    assert_eq!(added, 5, "each but that of plain files adds one");
    let text = document("spiffe.md");
    assert!(text.contains("LimitRange") && text.contains("sidecar.namespaceResources"));
}

#[test]
fn a10_the_documentation_names_every_volume_of_ours_that_a_drain_deletes() {
    let mut names = BTreeSet::new();
    for fixture in every_delivery() {
        let reviewed = fixture.review(&asking(app()));
        let volumes = reviewed.pod["spec"]["volumes"].as_array().unwrap();
        let in_memory = volumes.iter().filter(|volume| volume.get("emptyDir").is_some());
        for volume in in_memory {
            // Nothing of it is on the node's disk, and it can't fill the memory.
            assert_eq!(volume["emptyDir"], json!({"medium": "Memory", "sizeLimit": "1Mi"}));
            names.insert(volume["name"].as_str().unwrap().to_owned());
        }
    }
    let expected = [
        "tokenscope-aws-config",
        "tokenscope-aws-token",
        "tokenscope-source-token",
    ]
    .map(str::to_owned);
    let (of_containers, names): (BTreeSet<_>, BTreeSet<_>) = names
        .into_iter()
        .partition(|name| name.starts_with("tokenscope-authorization-"));
    assert_eq!((of_containers.len(), names), (1, expected.into()));

    let listed = |text: &str, name: &str| {
        let key = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
        text.contains(&format!("{key}: \"{name}\""))
    };
    let (spiffe, delivery) = (document("spiffe.md"), document("delivery.md"));
    assert!(listed(&spiffe, "tokenscope-aws-token") && listed(&delivery, "tokenscope-aws-config"));
    assert!(delivery.contains("`tokenscope-authorization-…`") && delivery.contains("`tokenscope-source-token`"));
    assert!(delivery.contains("cluster-autoscaler.kubernetes.io/safe-to-evict: \"true\""));
    for text in [&spiffe, &delivery] {
        assert!(text.contains("kubectl drain") && text.contains("--delete-emptydir-data"));
    }
}

#[test]
fn a17_another_prefix_or_mount_path_than_that_of_eks_is_listed_as_missing_and_gives_nothing() {
    let text = document("migrating-from-eks.md");
    for flag in ["--annotation-prefix", "--token-mount-path", "--compose-role-arn"] {
        assert!(text.contains(flag), "{flag}");
    }
    let mut fixture = ReviewFixture::new();
    fixture.settings.eks_compatible = true;
    fixture.service_account = vec![("iam.example.com/role-arn", ROLE.to_owned())];
    assert_eq!(fixture.review(&plain(app())).outcome(), ReviewOutcome::Untouched);
    // What the documentation says to do in their place.
    fixture.service_account = vec![("eks.amazonaws.com/role-arn", ROLE.to_owned())];
    let reviewed = fixture.review(&plain(app()));
    assert_eq!(reviewed.outcome(), ReviewOutcome::Granted);
    let file = reviewed.value("app", "AWS_WEB_IDENTITY_TOKEN_FILE").unwrap();
    assert_eq!(file, format!("{EKS_MOUNT}/token"));
}

#[test]
fn a18_an_ephemeral_container_stays_as_it_is_and_the_documentation_says_so() {
    for fixture in every_delivery() {
        let mut granted = fixture.review(&asking(app())).pod;
        // As `kubectl debug` leaves the pod.
        let debugger = json!([{"name": "debugger", "image": "busybox", "env": [{"name": "A", "value": "b"}]}]);
        granted["spec"]["ephemeralContainers"] = debugger.clone();
        let reviewed = fixture.review(&granted);
        assert_eq!(reviewed.outcome(), ReviewOutcome::Granted);
        assert_eq!(reviewed.patch, Vec::<Value>::new());
        assert_eq!(reviewed.pod["spec"]["ephemeralContainers"], debugger);
    }
    assert!(
        document("spiffe.md").contains("An ephemeral container (`kubectl debug`) gets nothing, from whatever source")
    );
}

/// What the chart's value `aws.disableInstanceMetadata` says.
#[test]
fn the_instance_metadata_service_is_out_of_reach_always_never_or_where_the_policy_sets_a_region() {
    let plain = || ReviewFixture::new();
    let with_region = || ReviewFixture::with_policy(region);
    let of_installation = || {
        let mut fixture = plain();
        fixture.settings.default_region = Some("eu-west-1".parse().unwrap());
        fixture
    };
    for (mode, expected) in [
        (InstanceMetadata::AlwaysDisabled, [true, true, true]),
        (InstanceMetadata::WithRegionDisabled, [false, true, false]),
        (InstanceMetadata::NeverDisabled, [false, false, false]),
    ] {
        let found = [plain(), with_region(), of_installation()].map(|mut fixture| {
            fixture.settings.instance_metadata = mode;
            let reviewed = fixture.review(&asking(app()));
            assert_eq!(reviewed.outcome(), ReviewOutcome::Granted);
            let variables = reviewed.env("app");
            variables
                .iter()
                .any(|variable| variable == "AWS_EC2_METADATA_DISABLED=true")
        });
        assert_eq!(found, expected, "{mode}");
    }
}
