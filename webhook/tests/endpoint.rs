//! Pods whose sidecar serves credentials.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod fixtures;

use fixtures::{
    DOCUMENT, ISSUER, MOUNT, OTHER_ROLE, ROLE, ReviewFixture, SOCKET_VOLUME, SUBJECT_TOKEN_VOLUME, VOLUME, app, asking,
    asking_for_two, authorization_of, policy, refusal, run_issuer, served, serving, told, volume,
};
use serde_json::{Value, json};
use tokenscope_core::credentials_endpoint::{
    AUTHORIZATION_FOLDER, ENDPOINT_VARIABLE, FULL_URI_VARIABLE, MOST_ENDPOINT_BYTES,
};
use tokenscope_core::delivery::{Delivery, SessionPolicy};
use tokenscope_core::lock::LockMode;
use tokenscope_core::pod::{SIDECAR, SOURCE_TOKEN_VOLUME};
use tokenscope_core::{Policy, TokenSource, hash_of_texts};
use tokenscope_webhook::metrics::ReviewOutcome;

fn of_source(source: TokenSource) -> ReviewFixture {
    let mut fixture = ReviewFixture::with_policy(|policy| {
        served(policy);
        policy.token.source = source;
    });
    if source == TokenSource::Issuer {
        run_issuer(&mut fixture);
    }
    fixture
}

#[test]
fn a_granted_container_gets_a_url_and_a_file_and_no_token() {
    let mut pod = asking(app());
    pod["spec"]["initContainers"] = json!([{"name": "migrate", "image": "m"}]);
    let reviewed = serving().review(&pod);
    assert_eq!(reviewed.init_containers(), [SIDECAR, "migrate"]);
    for container in ["migrate", "app"] {
        assert_eq!(
            reviewed.env(container),
            [
                "AWS_STS_REGIONAL_ENDPOINTS=regional".to_owned(),
                "AWS_DEFAULT_REGION=eu-central-1".into(),
                "AWS_REGION=eu-central-1".into(),
                "AWS_EC2_METADATA_DISABLED=true".into(),
                format!("AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:9912/v1/credentials/{container}"),
                format!("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE={AUTHORIZATION_FOLDER}/token"),
            ]
        );
        assert_eq!(
            reviewed.mounts(container),
            [format!("{}:{AUTHORIZATION_FOLDER}", authorization_of(container))],
            "its own and no other"
        );
    }
    let mount = &reviewed.pod["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["readOnly"], true);
    assert_eq!(
        reviewed.pod["spec"]["volumes"],
        json!([
            {"name": authorization_of("migrate"), "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": authorization_of("app"), "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": SOURCE_TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken":
                {"audience": "sts.amazonaws.com", "expirationSeconds": 3600, "path": "token"}}]}},
        ])
    );
    assert_eq!(reviewed.record()["sidecar"], true);
    let told = reviewed.value(SIDECAR, ENDPOINT_VARIABLE).unwrap();
    assert_eq!(reviewed.record()["endpoint"], hash_of_texts([&*told]));
    assert_eq!(reviewed.warnings(), "");
}

#[test]
fn the_sidecar_is_told_what_it_serves_and_has_the_token_alone() {
    let reviewed = serving().review(&asking(app()));
    let sidecar = &reviewed.pod["spec"]["initContainers"][0];
    assert_eq!(
        sidecar["image"],
        concat!("localhost/tokenscope-sidecar-endpoint:", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(
        sidecar["env"][0],
        json!({"name": "TOKENSCOPE_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        "before the variable that names it"
    );
    assert_eq!(
        sidecar["volumeMounts"],
        json!([
            {"name": authorization_of("app"), "mountPath": "/tokenscope-authorization/app"},
            {"name": SOURCE_TOKEN_VOLUME, "mountPath": "/tokenscope-source-token", "readOnly": true},
        ])
    );
    let ready = json!({"exec": {"command": ["/tokenscope-sidecar", "ready"]}, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 900});
    assert_eq!(sidecar["startupProbe"], ready);
    assert_eq!(sidecar["readinessProbe"]["exec"], ready["exec"]);
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert_eq!(
        serde_json::to_value(told(&reviewed)).unwrap(),
        json!({"port": 9912, "containers": [{
            "name": "app",
            "tokenFile": "/tokenscope-source-token/token",
            "role": {"role": ROLE, "sessionName": "orders-0"},
            "chain": [{"role": "arn:aws:iam::444455556666:role/target", "externalId": "e2", "sessionName": "orders"}],
            "durationSeconds": 3600,
            "sessionPolicy": {"inline": DOCUMENT, "arns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"]},
            "regions": ["eu-central-1"],
        }]})
    );
}

#[test]
fn a_policy_that_narrows_sessions_grants_no_token_by_which_a_pod_takes_the_role_without_the_session_policy() {
    let mut pod = asking(app());
    pod["metadata"]["annotations"] = json!({});
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "mine", "mountPath": "/var/run/mine"}]);
    pod["spec"]["volumes"] = json!([{"name": "mine", "projected": {"sources": [
        {"serviceAccountToken": {"audience": "sts.amazonaws.com", "expirationSeconds": 3600, "path": "token"}}]}}]);
    for (narrows, expected) in [(true, ReviewOutcome::Denied), (false, ReviewOutcome::Untouched)] {
        let mut fixture = ReviewFixture::with_policy(|policy| {
            served(policy);
            if let Delivery::Endpoint(endpoint) = &mut policy.delivery
                && !narrows
            {
                endpoint.policy = SessionPolicy::default();
            }
        });
        fixture.settings.lock.mode = LockMode::Deny;
        let reviewed = fixture.review(&pod);
        assert_eq!(reviewed.outcome(), expected, "{}", reviewed.message());
        // What the review gives the sidecar is none of the pod's.
        let granted = fixture.review(&asking(app()));
        assert_eq!(fixture.review(&granted.pod).outcome(), ReviewOutcome::Granted);
    }
}

#[test]
fn each_container_has_a_path_and_a_role_and_each_audience_a_file() {
    let mut other = policy("other");
    served(&mut other);
    other.roles.allowed = vec![OTHER_ROLE.parse().unwrap()];
    other.audiences.default = Some("elsewhere".parse().unwrap());
    other.token.expiration = tokenscope_core::TokenExpiration::from_seconds(900).unwrap();
    let mut orders = policy("orders");
    served(&mut orders);
    orders.roles.allowed = vec![ROLE.parse().unwrap()];
    let fixture = ReviewFixture {
        policies: [orders, other].into_iter().collect(),
        ..ReviewFixture::new()
    };
    let reviewed = fixture.review(&asking_for_two());
    let told = told(&reviewed);
    let hash = "elsewhere".parse::<tokenscope_core::Audience>().unwrap().short_hash();
    let files: Vec<&str> = told.containers.iter().map(|served| &*served.token_file).collect();
    assert_eq!(
        files,
        [
            "/tokenscope-source-token/token".to_owned(),
            format!("/tokenscope-source-token/token-{hash}")
        ]
    );
    assert_eq!(told.containers[1].role.role.as_str(), OTHER_ROLE);
    assert_eq!(
        reviewed.tokens_in(SOURCE_TOKEN_VOLUME),
        [
            "token sts.amazonaws.com 3600".to_owned(),
            format!("token-{hash} elsewhere 900")
        ]
    );
    assert_ne!(reviewed.mounts("app"), reviewed.mounts("other"));
}

#[test]
fn a_token_that_the_sidecar_itself_keeps_is_on_a_tmpfs_that_no_container_mounts() {
    for (source, variable, own) in [
        (TokenSource::Spiffe, "TOKENSCOPE_JWT_SVIDS", SOCKET_VOLUME),
        (TokenSource::Issuer, "TOKENSCOPE_ISSUED_TOKENS", SUBJECT_TOKEN_VOLUME),
    ] {
        let reviewed = of_source(source).review(&asking(app()));
        assert_eq!(
            reviewed.value(SIDECAR, variable).as_deref(),
            Some("token=sts.amazonaws.com")
        );
        assert_eq!(
            reviewed.value(SIDECAR, "TOKENSCOPE_DIRECTORY").as_deref(),
            Some("/tokenscope-source-token")
        );
        let memory = json!({"medium": "Memory", "sizeLimit": "1Mi"});
        assert_eq!(volume(&reviewed, SOURCE_TOKEN_VOLUME).unwrap()["emptyDir"], memory);
        assert!(volume(&reviewed, own).is_some() && volume(&reviewed, VOLUME).is_none());
        let mounts = &reviewed.pod["spec"]["initContainers"][0]["volumeMounts"];
        assert_eq!(
            mounts[1],
            json!({"name": SOURCE_TOKEN_VOLUME, "mountPath": "/tokenscope-source-token"})
        );
        assert_eq!(reviewed.mounts("app").len(), 1);
        assert_eq!(
            &*told(&reviewed).containers[0].token_file,
            "/tokenscope-source-token/token"
        );
    }
    let reviewed = of_source(TokenSource::Issuer).review(&asking(app()));
    assert_eq!(reviewed.value(SIDECAR, "TOKENSCOPE_ISSUER_CA").unwrap().len(), 28);
    assert_eq!(
        reviewed.tokens_in(SUBJECT_TOKEN_VOLUME),
        [format!("token {ISSUER} 3600")]
    );
}

#[test]
fn beside_a_container_that_takes_its_role_itself_only_that_one_sees_a_token() {
    let mut by_file = policy("other");
    by_file.roles.allowed = vec![OTHER_ROLE.parse().unwrap()];
    let with = |source: TokenSource| {
        let mut orders = policy("orders");
        served(&mut orders);
        orders.roles.allowed = vec![ROLE.parse().unwrap()];
        orders.token.source = source;
        let other = Policy {
            token: orders.token.clone(),
            ..by_file.clone()
        };
        ReviewFixture {
            policies: [orders, other].into_iter().collect(),
            ..ReviewFixture::new()
        }
    };
    let reviewed = with(TokenSource::ServiceAccount).review(&asking_for_two());
    assert_eq!(reviewed.mounts("other"), [format!("{VOLUME}:{MOUNT}")]);
    assert_eq!(
        reviewed.mounts("app"),
        [format!("{}:{AUTHORIZATION_FOLDER}", authorization_of("app"))]
    );
    assert_eq!(
        reviewed.mounts(SIDECAR).len(),
        2,
        "the kubelet writes the other one's token"
    );
    assert_eq!(told(&reviewed).containers.len(), 1);

    let reviewed = with(TokenSource::Spiffe).review(&asking_for_two());
    assert_eq!(
        reviewed.value(SIDECAR, "TOKENSCOPE_JWT_SVIDS").as_deref(),
        Some("token=sts.amazonaws.com /tokenscope-source-token/token=sts.amazonaws.com")
    );
    assert_eq!(reviewed.value(SIDECAR, "TOKENSCOPE_DIRECTORY").as_deref(), Some(MOUNT));
}

#[test]
fn a_pod_that_has_the_nodes_network_or_windows_or_the_port_is_refused_in_words() {
    let with = |change: fn(&mut Value)| {
        let mut pod = asking(app());
        change(&mut pod["spec"]);
        pod
    };
    let message = refusal(&serving(), &with(|spec| spec["hostNetwork"] = json!(true)));
    assert!(message.contains("hostNetwork: true, so port 9912"), "{message}");
    let message = refusal(&serving(), &with(|spec| spec["os"] = json!({"name": "windows"})));
    assert!(
        message.contains("runs on Linux only") && message.contains("delivery.type File"),
        "{message}"
    );
    for list in ["containers", "initContainers"] {
        let mut pod = asking(app());
        pod["spec"][list] = json!([{"name": "taker", "ports": [{"containerPort": 80}, {"containerPort": 9912}]}]);
        let message = refusal(&serving(), &pod);
        assert!(message.contains("container taker declares port 9912"), "{message}");
        pod["spec"][list][0]["ports"][1]["protocol"] = json!("UDP");
        if list == "containers" {
            assert_eq!(serving().review(&pod).outcome(), ReviewOutcome::Granted);
        }
    }
    let mut elsewhere = serving();
    elsewhere.settings.sidecar.endpoint_port = 1912;
    let pod = with(|spec| spec["containers"][0]["ports"] = json!([{"containerPort": 9912}]));
    let reviewed = elsewhere.review(&pod);
    assert_eq!(told(&reviewed).port, 1912);
    assert!(
        reviewed
            .value("app", FULL_URI_VARIABLE)
            .unwrap()
            .starts_with("http://127.0.0.1:1912/")
    );
    // Where nobody is served the network doesn't matter.
    let pod = with(|spec| spec["hostNetwork"] = json!(true));
    assert_eq!(ReviewFixture::new().review(&pod).outcome(), ReviewOutcome::Granted);
}

#[test]
fn the_installation_says_where_sts_is() {
    let mut fixture = serving();
    fixture.settings.sidecar.sts_url = Some("https://vpce-1.example".into());
    fixture.settings.sidecar.sts_authorities = Some("-----BEGIN CERTIFICATE-----\n".into());
    let told = told(&fixture.review(&asking(app())));
    assert_eq!(told.sts_url.as_deref(), Some("https://vpce-1.example"));
    assert_eq!(told.sts_authorities.as_deref(), Some("-----BEGIN CERTIFICATE-----\n"));
}

#[test]
fn more_than_the_bound_is_refused_with_the_bound() {
    let many = |count: usize| {
        let containers = (0..count).map(|number| json!({"name": format!("c{number}")})).collect();
        asking(containers)
    };
    let big = ReviewFixture::with_policy(|policy| {
        served(policy);
        if let Delivery::Endpoint(endpoint) = &mut policy.delivery {
            let statement = "s".repeat(1000);
            endpoint.policy.inline = Some(format!("{{\"Sid\":\"{statement}\"}}").parse().unwrap());
        }
    });
    let reviewed = big.review(&many(40));
    assert_eq!(reviewed.outcome(), ReviewOutcome::Granted);
    assert!(reviewed.value(SIDECAR, ENDPOINT_VARIABLE).unwrap().len() <= MOST_ENDPOINT_BYTES);
    let message = refusal(&big, &many(60));
    assert!(
        message.contains(&format!("at most {MOST_ENDPOINT_BYTES} are written")),
        "{message}"
    );
}
