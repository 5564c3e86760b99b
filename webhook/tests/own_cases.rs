//! Reports of other projects that `e2e/tests/cases/own.md` lists, reviewed here. Each stands for its class.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod fixtures;

use fixtures::{EKS_MOUNT, EKS_VOLUME, MOUNT, OTHER_ROLE, ROLE, ReviewFixture, VOLUME, app, asking, plain, refusal};
use serde_json::{Value, json};
use tokenscope_core::lock::LockMode;
use tokenscope_core::{PolicySet, Settings};
use tokenscope_webhook::metrics::ReviewOutcome;

/// Every pod of the namespace gets [`ROLE`] without asking.
fn by_default() -> ReviewFixture {
    ReviewFixture::with_policy(|policy| policy.roles.default = Some(ROLE.parse().unwrap()))
}

/// A pod as a kubelet shows one that it runs from a file: it has no service account.
fn mirror(containers: Value) -> Value {
    let mut pod = plain(containers);
    pod["spec"].as_object_mut().unwrap().remove("serviceAccountName");
    pod["spec"]["nodeName"] = json!("node-1");
    pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "0123456789abcdef"});
    pod
}

#[test]
fn o01_a_mirror_pod_is_shown_and_never_changed_or_kept_out() {
    let reviewed = by_default().review(&mirror(app()));
    assert_eq!(reviewed.outcome(), ReviewOutcome::Untouched);
    assert_eq!(reviewed.patch, Vec::<Value>::new());

    let no_policy = ReviewFixture {
        policies: PolicySet::default(),
        ..ReviewFixture::new()
    };
    let mut asks = mirror(app());
    for role in [ROLE, "no role"] {
        asks["metadata"]["annotations"]["tokenscope.io/role-arn"] = json!(role);
        for fixture in [&by_default(), &no_policy] {
            let reviewed = fixture.review(&asks);
            assert_eq!(reviewed.outcome(), ReviewOutcome::Untouched, "{role}");
            assert!(reviewed.env("app").is_empty() && reviewed.pod["spec"].get("volumes").is_none());
        }
    }

    // It opts out of credentials, and of nothing else.
    let mut required = by_default();
    required.namespace_labels = vec![("tokenscope.io/required", "true".into())];
    assert_eq!(required.review(&mirror(app())).mark(), Some("asks-nothing"));
    let mut locked = no_policy;
    locked.settings.lock.mode = LockMode::Deny;
    let mut holds = mirror(app());
    holds["spec"]["volumes"] = json!([{"name": "t", "projected": {"sources": [{"serviceAccountToken":
        {"audience": "sts.amazonaws.com", "path": "token"}}]}}]);
    assert_eq!(locked.review(&holds).outcome(), ReviewOutcome::Denied);
}

#[test]
fn o02_a_mount_around_the_tokens_folder_that_cannot_be_written_is_warned_of() {
    let warnings = |volumes: Value, mounts: Value| {
        let mut pod = asking(json!([{"name": "app", "volumeMounts": mounts}]));
        pod["spec"]["volumes"] = volumes;
        let reviewed = ReviewFixture::new().review(&pod);
        assert_eq!(reviewed.outcome(), ReviewOutcome::Granted);
        assert_eq!(
            ReviewFixture::new().review(&reviewed.pod).warnings(),
            reviewed.warnings()
        );
        reviewed.warnings()
    };
    let at = |path: &str| json!([{"name": "own", "mountPath": path}]);
    for kind in [
        json!({"secret": {"secretName": "s"}}),
        json!({"configMap": {"name": "c"}}),
        json!({"downwardAPI": {"items": []}}),
        json!({"projected": {"sources": [{"configMap": {"name": "c"}}]}}),
        json!({"csi": {"driver": "d", "readOnly": true}}),
    ] {
        let mut volume = kind;
        volume["name"] = json!("own");
        for path in [
            "/var/run/secrets",
            "/run/secrets/",
            "/var/run",
            "/run/secrets/tokenscope.io",
        ] {
            let warnings = warnings(json!([volume]), at(path));
            let expected = format!("container app mounts volume own read-only at {path}");
            assert!(warnings.contains(&expected), "{volume} at {path}: {warnings:?}");
        }
        assert_eq!(warnings(json!([volume]), at("/etc/secrets")), "");
    }
    let empty = json!({"name": "own", "emptyDir": {}, "secret": null});
    assert_eq!(warnings(json!([empty]), at("/var/run/secrets")), "");
    let read_only = json!([{"name": "own", "mountPath": "/var/run", "readOnly": true}]);
    assert!(warnings(json!([empty]), read_only).contains("read-only at /var/run:"));
    // The folder is made in the innermost mount.
    let within = json!([
        {"name": "conf", "mountPath": "/var/run"}, {"name": "own", "mountPath": "/var/run/secrets"},
    ]);
    let volumes = json!([empty, {"name": "conf", "configMap": {"name": "c"}}]);
    assert_eq!(warnings(volumes, within), "");
}

#[test]
fn o03_another_webhook_that_names_the_pod_meanwhile_changes_no_path_and_doubles_no_mount() {
    let fixture = ReviewFixture::with_policy(|policy| {
        policy.aws.role_session_name = Some("${pod.name}".parse().unwrap());
    });
    let mut pod = asking(app());
    pod["metadata"] = json!({"generateName": "orders-", "annotations": pod["metadata"]["annotations"]});
    let first = fixture.review(&pod).pod;
    let named = |name: String| {
        let mut named = first.clone();
        named["metadata"]["name"] = json!(name);
        fixture.review(&named)
    };
    let short = named("orders-x7k2p".to_owned());
    assert_eq!(short.patch, Vec::<Value>::new());
    assert_eq!(short.mounts("app"), [format!("{VOLUME}:{MOUNT}")]);
    // A name that is too long for STS takes the session name back.
    let long = named("n".repeat(70));
    assert_eq!(long.value("app", "AWS_ROLE_SESSION_NAME"), None);
    assert!(
        long.warnings().contains("STS takes 2 to 64 characters"),
        "{}",
        long.warnings()
    );
    assert_eq!(long.mounts("app"), [format!("{VOLUME}:{MOUNT}")]);
    assert_eq!(long.tokens().len(), 1);
}

#[test]
fn o04_containers_that_another_webhook_moves_or_writes_anew_have_one_mount_each() {
    for fixture in [ReviewFixture::new(), eks()] {
        let mut pod = asking(json!([{"name": "app"}, {"name": "job"}]));
        pod["spec"]["initContainers"] = json!([{"name": "init"}]);
        let mut moved = fixture.review(&pod).pod;
        // As a mesh does that holds the application until its proxy runs.
        let containers = moved["spec"]["containers"].as_array_mut().unwrap();
        containers.reverse();
        containers.insert(0, json!({"name": "proxy", "image": "proxy"}));
        let reviewed = fixture.review(&moved);
        for container in ["proxy", "app", "job", "init"] {
            assert_eq!(reviewed.mounts(container).len(), 1, "{container}");
            assert_eq!(reviewed.value(container, "AWS_ROLE_ARN").as_deref(), Some(ROLE));
        }
        // A copy of an equipped container under another name brings our edits, and gets none twice.
        let mut copied = reviewed.pod.clone();
        let mut copy = copied["spec"]["containers"][1].clone();
        copy["name"] = json!("copy");
        copied["spec"]["containers"].as_array_mut().unwrap().push(copy);
        let reviewed = fixture.review(&copied);
        assert_eq!(reviewed.outcome(), ReviewOutcome::Granted, "{}", reviewed.message());
        assert_eq!(reviewed.mounts("copy").len(), 1);
        let roles = reviewed
            .env("copy")
            .into_iter()
            .filter(|text| text.starts_with("AWS_ROLE_ARN="));
        assert_eq!(roles.count(), 1);
    }
}

/// EKS-compatible mode.
fn eks() -> ReviewFixture {
    ReviewFixture {
        settings: Settings::eks_compatible(),
        ..ReviewFixture::new()
    }
}

#[test]
fn o05_a_role_with_white_space_around_it_is_refused_and_the_white_space_is_shown() {
    for role in [
        format!("{ROLE}\n"),
        format!(" {ROLE}"),
        format!("{ROLE} "),
        format!("{ROLE}\t"),
        format!("{ROLE}\u{a0}"),
    ] {
        let mut pod = plain(app());
        pod["metadata"]["annotations"]["tokenscope.io/role-arn"] = json!(role);
        let message = refusal(&ReviewFixture::new(), &pod);
        assert!(message.contains("annotation tokenscope.io/role-arn"), "{message}");
        assert!(message.contains(&format!("{role:?}")), "{role:?}: {message}");
        let mut by_account = eks();
        by_account.service_account = vec![("eks.amazonaws.com/role-arn", role.clone())];
        let message = refusal(&by_account, &plain(app()));
        assert!(message.contains("eks.amazonaws.com/role-arn"), "{message}");
        assert!(message.contains(&format!("{role:?}")), "{role:?}: {message}");
    }
}

#[test]
fn o06_arns_of_other_things_are_refused_with_what_they_are() {
    for (arn, part) in [
        ("arn:aws:iam::111122223333:instance-profile/orders", "instance-profile"),
        ("arn:aws:sts::111122223333:assumed-role/orders/session", "assumed-role"),
        ("arn:aws:iam::111122223333:policy/orders", "policy"),
        ("arn:aws:iam::111122223333:user/orders", "user"),
        ("arn:aws:iam::111122223333:oidc-provider/example.com", "oidc-provider"),
        ("orders", "orders"),
    ] {
        let mut pod = plain(app());
        pod["metadata"]["annotations"]["tokenscope.io/role-arn"] = json!(arn);
        let message = refusal(&ReviewFixture::new(), &pod);
        assert!(message.contains(part), "{arn}: {message}");
    }
}

#[test]
fn o07_a_pod_of_a_controller_names_neither_itself_nor_its_namespace_and_is_decided_by_the_requests() {
    let mut pod = asking(app());
    pod["metadata"] = json!({"generateName": "orders-5d9f8c7b6-", "annotations": pod["metadata"]["annotations"]});
    let reviewed = ReviewFixture::new().review(&pod);
    assert_eq!(reviewed.outcome(), ReviewOutcome::Granted);
    assert_eq!(reviewed.record()["grants"][0]["policy"], "TokenScopePolicy shop/orders");
    pod["metadata"]["namespace"] = json!("");
    pod["metadata"]["name"] = json!("");
    assert_eq!(ReviewFixture::new().review(&pod).outcome(), ReviewOutcome::Granted);
}

#[test]
fn o08_a_container_that_brings_its_own_role_and_its_token_elsewhere_is_left_alone_and_the_others_are_equipped() {
    // As an operator writes it that wants the token in its own folder, where a security manager lets it read.
    let own = "/usr/share/app/config/token";
    let container = json!({"name": "app",
        "env": [
            {"name": "AWS_ROLE_ARN", "value": OTHER_ROLE}, {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": own},
        ],
        "volumeMounts": [{"name": "token", "mountPath": "/usr/share/app/config"}]});
    let mut fixture = eks();
    fixture.service_account = vec![("eks.amazonaws.com/role-arn", ROLE.to_owned())];
    let mut pod = plain(json!([container, {"name": "proxy"}]));
    let volume = |name: &str| {
        json!({"name": name, "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken":
            {"audience": "sts.amazonaws.com", "expirationSeconds": 86_400, "path": "token"}}]}})
    };
    pod["spec"]["volumes"] = json!([volume("token")]);
    let reviewed = fixture.review(&pod);
    assert_eq!(reviewed.outcome(), ReviewOutcome::Granted, "{}", reviewed.message());
    assert_eq!(reviewed.pod["spec"]["containers"][0], container);
    assert_eq!(reviewed.mounts("proxy"), [format!("{EKS_VOLUME}:{EKS_MOUNT}")]);

    // Under the name of the webhook's volume it is one that nobody can tell from it, and the refusal says so.
    pod["spec"]["volumes"] = json!([volume(EKS_VOLUME)]);
    pod["spec"]["containers"][0]["volumeMounts"][0]["name"] = json!(EKS_VOLUME);
    let message = refusal(&fixture, &pod);
    assert!(message.contains("volume aws-iam-token"), "{message}");
}

#[test]
fn o09_skipped_containers_that_come_later_are_skipped_too() {
    let mut fixture = eks();
    fixture.service_account = vec![("eks.amazonaws.com/role-arn", ROLE.to_owned())];
    let mut pod = plain(app());
    pod["metadata"]["annotations"] = json!({"eks.amazonaws.com/skip-containers": "jaeger-agent,istio-proxy"});
    let mut later = fixture.review(&pod).pod;
    let proxies = [json!({"name": "istio-proxy"}), json!({"name": "jaeger-agent"})];
    later["spec"]["containers"].as_array_mut().unwrap().extend(proxies);
    let reviewed = fixture.review(&later);
    assert_eq!(reviewed.mounts("app").len(), 1);
    for proxy in ["istio-proxy", "jaeger-agent"] {
        assert!(reviewed.env(proxy).is_empty() && reviewed.mounts(proxy).is_empty());
    }
}

#[test]
fn o10_a_list_with_what_can_be_no_containers_name_is_refused() {
    for key in ["tokenscope.io/skip-containers", "tokenscope.io/containers"] {
        for list in ["app;proxy", "proxy|app", "[app]", "\"proxy\"", "app:proxy"] {
            let mut pod = asking(json!([{"name": "app"}, {"name": "proxy"}]));
            pod["metadata"]["annotations"][key] = json!(list);
            let message = refusal(&ReviewFixture::new(), &pod);
            assert!(
                message.contains(key) && message.contains("separated by commas"),
                "{list}: {message}"
            );
        }
    }
}
