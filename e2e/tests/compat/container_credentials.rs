//! Credentials of the agent of EKS Pod Identity: what the EKS webhook calls container credentials.

use serde_json::{Value, json};
use tokenscope_e2e::compat::{self, Case};

use super::{ROLE, case, equal, pod, recorded, skip};

/// The agent of EKS Pod Identity in cases of our own, with the flags of the EKS webhook as they are by default.
const AGENT: &str = "http://169.254.170.23/v1/credentials";
const AGENT_VOLUME: &str = "eks-pod-identity-token";
const AGENT_MOUNT: &str = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount";
const AGENT_TOKEN: &str = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token";

#[test]
fn the_recorded_cases_of_container_credentials_are_equal() {
    let Some(folder) = recorded() else { return };
    let suite = compat::read(&folder.join("eks-pod-identity-webhook.json")).unwrap();
    let of_agent = |case: &&Case| {
        case.webhook_state
            .keys()
            .any(|key| key.starts_with("containercredentials/"))
    };
    let mut replayed = 0;
    for case in suite.cases.iter().filter(of_agent) {
        equal(case);
        replayed += 1;
    }
    assert!(replayed > 0, "no case is about container credentials");
}

#[test]
fn container_credentials_are_those_of_the_eks_webhook() {
    let (app, init) = (
        json!({"name": "app", "image": "app:1"}),
        json!({"name": "init", "image": "app:1"}),
    );
    let mut case = agent_case(
        pod(std::slice::from_ref(&app), &[json!({"name": "data"})]),
        pod(&[with_agent(&app)], &[agent_volume(79_200), json!({"name": "data"})]),
    );
    // Container credentials go before the role of the annotation, which the case has.
    equal(&case);

    case.pod["spec"]["initContainers"] = json!([init]);
    case.expected_pod["spec"]["initContainers"] = json!([with_agent(&init)]);
    equal(&case);

    // A label of the pod's own stays beside the one that is added.
    case.pod["metadata"]["labels"] = json!({"app": "reports"});
    case.expected_pod["metadata"]["labels"]["app"] = json!("reports");
    equal(&case);

    for (annotation, seconds) in [("3600", 3600), ("86400", 79_200), ("86399", 86_399)] {
        let mut case = case.clone();
        for pod in [&mut case.pod, &mut case.expected_pod] {
            pod["metadata"]["annotations"] = json!({"eks.amazonaws.com/token-expiration": annotation});
        }
        case.expected_pod["spec"]["volumes"][0] = agent_volume(seconds);
        equal(&case);
    }
}

#[test]
fn container_credentials_on_windows_have_a_path_of_windows() {
    let app = json!({"name": "app"});
    let mut case = agent_case(
        pod(std::slice::from_ref(&app), &[]),
        pod(&[with_agent(&app)], &[agent_volume(79_200)]),
    );
    for pod in [&mut case.pod, &mut case.expected_pod] {
        pod["spec"]["nodeSelector"] = json!({"kubernetes.io/os": "windows"});
    }
    case.expected_pod["spec"]["containers"][0]["env"][1]["value"] =
        json!(format!("C:{}", AGENT_TOKEN.replace('/', "\\")));
    equal(&case);
}

#[test]
fn a_container_that_has_one_variable_of_the_agent_keeps_what_it_has() {
    for name in [
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    ] {
        let own = json!({"name": "app", "env": [{"name": name, "value": "http://127.0.0.1:9911/"}]});
        let mut expected = with_agent(&own);
        expected["env"] = json!([
            {"name": name, "value": "http://127.0.0.1:9911/"},
            {"name": "AWS_DEFAULT_REGION", "value": "eu-west-3"},
            {"name": "AWS_REGION", "value": "eu-west-3"},
        ]);
        let mut case = agent_case(pod(&[own], &[]), pod(&[expected], &[agent_volume(79_200)]));
        case.webhook_state
            .insert("handler/region".to_owned(), "eu-west-3".to_owned());
        equal(&case);
    }
    // So does one with web identity, which SDKs prefer.
    let own = json!({"name": "app", "env": [
        {"name": "AWS_ROLE_ARN", "value": ROLE}, {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/own/token"},
    ]});
    let mut expected = with_agent(&own);
    expected["env"] = json!([own["env"][0], own["env"][1], expected["env"][0], expected["env"][1]]);
    equal(&agent_case(pod(&[own], &[]), pod(&[expected], &[agent_volume(79_200)])));
}

#[test]
fn a_volume_and_a_mount_of_the_agents_name_stay_as_they_are() {
    let own_mount = json!({"name": AGENT_VOLUME, "mountPath": "/elsewhere"});
    let own = json!({"name": "app", "volumeMounts": [own_mount]});
    let mut mounting = with_agent(&own);
    mounting["volumeMounts"] = json!([own_mount]);
    let other = json!({"name": "other"});
    for volume in [
        json!({"name": AGENT_VOLUME, "hostPath": {"path": "/etc"}}),
        agent_volume(3600),
        agent_volume(79_200),
        agent_volume(86_400),
    ] {
        let before = pod(&[own.clone(), other.clone()], std::slice::from_ref(&volume));
        equal(&agent_case(
            before,
            pod(&[mounting.clone(), with_agent(&other)], &[volume]),
        ));
    }
}

#[test]
fn what_the_eks_webhook_wrote_for_the_agent_stays() {
    let app = json!({"name": "app"});
    let once = pod(&[with_agent(&app)], &[agent_volume(82_345)]);
    let mut case = agent_case(once.clone(), once);
    case.pod["metadata"]["labels"] = case.expected_pod["metadata"]["labels"].clone();
    equal(&case);
    // A container that came later gets the same.
    let late = json!({"name": "late"});
    for (pod, late) in [
        (&mut case.pod, late.clone()),
        (&mut case.expected_pod, with_agent(&late)),
    ] {
        pod["spec"]["containers"].as_array_mut().unwrap().push(late);
    }
    equal(&case);
}

#[test]
fn skipped_containers_get_nothing_of_the_agent() {
    let (app, proxy) = (json!({"name": "app"}), json!({"name": "proxy"}));
    let mut case = agent_case(
        pod(&[app.clone(), proxy.clone()], &[]),
        pod(&[with_agent(&app), proxy], &[agent_volume(79_200)]),
    );
    skip(&mut case, "proxy");
    equal(&case);
}

/// A case in which the pod's service account stands in the configuration of EKS Pod Identity.
fn agent_case(pod: Value, mut expected_pod: Value) -> Case {
    expected_pod["metadata"]["labels"]["eks.amazonaws.com/pod-identity"] = json!("enabled");
    let mut case = case(pod, expected_pod);
    case.webhook_state
        .insert("containercredentials/uri".to_owned(), AGENT.to_owned());
    case
}

/// A container as the EKS webhook leaves it for EKS Pod Identity.
fn with_agent(container: &Value) -> Value {
    let mut container = container.clone();
    container["env"] = json!([
        {"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI", "value": AGENT},
        {"name": "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "value": AGENT_TOKEN},
    ]);
    container["volumeMounts"] = json!([{"name": AGENT_VOLUME, "readOnly": true, "mountPath": AGENT_MOUNT}]);
    container["resources"] = json!({});
    container
}

fn agent_volume(seconds: u32) -> Value {
    json!({"name": AGENT_VOLUME, "projected": {"sources": [{"serviceAccountToken": {
        "audience": "pods.eks.amazonaws.com", "expirationSeconds": seconds, "path": "eks-pod-identity-token",
    }}]}})
}
