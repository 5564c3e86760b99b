//! A small cluster in memory, and pods that are reviewed in it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of it")]
#![allow(
    clippy::expect_used,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this is test code, only not inside a test, and literals are passed on"
)]

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokenscope_core::pod::SIDECAR;
use tokenscope_core::{
    Algorithm, Audiences, AwsSettings, ContainerFilter, Pairs, Policy, PolicyName, PolicySet, Roles, Selector,
    Settings, Spiffe, Subject, SubjectFormat, TokenExpiration, TokenSettings, TokenSource,
};
use tokenscope_webhook::csi_drivers::SharedCsiDrivers;
use tokenscope_webhook::facts::ReviewContext;
use tokenscope_webhook::metrics::Outcome;
use tokenscope_webhook::review::{self, Answer, Asked, Refusal};

pub const ROLE: &str = "arn:aws:iam::111122223333:role/shop/orders";
pub const OTHER_ROLE: &str = "arn:aws:iam::111122223333:role/shop/other";
pub const VOLUME: &str = "tokenscope-aws-token";
pub const SOCKET_VOLUME: &str = "tokenscope-spiffe-workload-api";
pub const MOUNT: &str = "/var/run/secrets/tokenscope.io/aws";
pub const EKS_VOLUME: &str = "aws-iam-token";
pub const EKS_MOUNT: &str = "/var/run/secrets/eks.amazonaws.com/serviceaccount";

/// What is around a pod.
#[derive(Clone, Debug)]
pub struct World {
    pub csi_drivers: Arc<SharedCsiDrivers>,
    pub policies: PolicySet,
    pub settings: Settings,
    pub namespace_labels: Vec<(&'static str, String)>,
    pub service_account: Vec<(&'static str, String)>,
    pub dry_run: bool,
}

/// A pod after its review.
pub struct Reviewed {
    answer: Option<Answer>,
    /// The answer's `response`.
    pub response: Value,
    /// The patch's operations; none where there is no patch.
    pub patch: Vec<Value>,
    /// The pod as the API server stores it.
    pub pod: Value,
}

impl World {
    /// One policy, `TokenScopePolicy shop/orders`, which allows every role of the account to everybody in the namespace.
    pub fn new() -> Self {
        Self {
            csi_drivers: Arc::default(),
            policies: [policy("orders")].into_iter().collect(),
            settings: Settings::default(),
            namespace_labels: Vec::new(),
            service_account: Vec::new(),
            dry_run: false,
        }
    }

    pub fn with_policy(change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = policy("orders");
        change(&mut policy);
        Self {
            policies: [policy].into_iter().collect(),
            ..Self::new()
        }
    }

    /// Reviews a pod. Whatever the test is about, nothing that is not ours may change, and a second review finds nothing to do.
    pub fn review(&self, pod: &Value) -> Reviewed {
        let reviewed = self.review_once(pod);
        assert_eq!(
            without_ours(&reviewed.pod),
            without_ours(pod),
            "something changed that is not ours"
        );
        if reviewed.outcome() != Outcome::Denied {
            let again = self.review_once(&reviewed.pod);
            assert_eq!(
                again.patch,
                Vec::<Value>::new(),
                "a second review finds something to do"
            );
            assert_eq!(
                again.outcome(),
                reviewed.outcome(),
                "a second review comes to something else"
            );
        }
        reviewed
    }

    fn review_once(&self, pod: &Value) -> Reviewed {
        let body = self.request(pod).to_string();
        let Asked::Pod(asked) = review::read(body.as_bytes()).expect("a review that can be read") else {
            panic!("no pod");
        };
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let driver_tokens = self.csi_drivers.tokens_of(asked.csi_drivers());
        let surroundings = ReviewContext {
            driver_tokens: Some(&driver_tokens),
            ..self.surroundings()
        };
        let answer = asked.answer(surroundings, &self.policies, &self.settings, now);
        Reviewed::new(&answer, pod)
    }

    pub fn request(&self, pod: &Value) -> Value {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop", "operation": "CREATE", "dryRun": self.dry_run, "object": pod, "oldObject": null,
        }})
    }

    pub fn surroundings(&self) -> ReviewContext<'_> {
        ReviewContext {
            namespace_labels: borrowed(&self.namespace_labels),
            service_account_annotations: Some(borrowed(&self.service_account)),
            driver_tokens: None,
            refused: None,
            stale: false,
        }
    }
}

fn borrowed<'a>(pairs: &'a [(&'static str, String)]) -> Pairs<&'a str> {
    pairs.iter().map(|(key, value)| (*key, value.as_str())).collect()
}

impl Reviewed {
    pub fn new(answer: &Answer, pod: &Value) -> Self {
        Self {
            answer: Some(answer.clone()),
            ..Self::of_body(&answer.body, pod)
        }
    }

    pub fn of_body(body: &str, pod: &Value) -> Self {
        let review: Value = serde_json::from_str(body).expect("the answer is JSON");
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(review["kind"], "AdmissionReview");
        let response = review["response"].clone();
        assert_eq!(response.get("patch").is_some(), response.get("patchType").is_some());
        let mut after = pod.clone();
        let patch = response["patch"].as_str().map(decoded).unwrap_or_default();
        let operations: json_patch::Patch = serde_json::from_value(Value::Array(patch.clone())).expect("a JSON Patch");
        json_patch::patch(&mut after, &operations).expect("the patch fits the pod");
        for warning in response["warnings"].as_array().into_iter().flatten() {
            assert!(warning.as_str().unwrap().len() <= 256, "{warning}");
        }
        Self {
            answer: None,
            response,
            patch,
            pod: after,
        }
    }

    pub fn outcome(&self) -> Outcome {
        self.answer.as_ref().expect("the answer").outcome
    }

    pub fn refusal(&self) -> Option<&Refusal> {
        self.answer.as_ref()?.refusal.as_ref()
    }

    pub fn message(&self) -> &str {
        self.response["status"]["message"].as_str().unwrap_or_default()
    }

    pub fn warnings(&self) -> String {
        let texts = self.response["warnings"].as_array().into_iter().flatten();
        texts.map(|text| text.as_str().unwrap()).collect::<Vec<_>>().join("\n")
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.pod["metadata"]["annotations"][key].as_str()
    }

    pub fn mark(&self) -> Option<&str> {
        self.pod["metadata"]["labels"]["tokenscope.io/reviewed"].as_str()
    }

    pub fn record(&self) -> Value {
        serde_json::from_str(self.annotation("tokenscope.io/grant").expect("a record")).expect("JSON")
    }

    /// A container's variables, in order, as `NAME=value`.
    pub fn env(&self, container: &str) -> Vec<String> {
        let env = self.container(container)["env"].as_array().cloned().unwrap_or_default();
        env.iter()
            .map(|variable| {
                let value = match &variable["value"] {
                    Value::String(text) => text.clone(),
                    _ => variable["valueFrom"]["fieldRef"]["fieldPath"].to_string(),
                };
                format!("{}={value}", variable["name"].as_str().unwrap())
            })
            .collect()
    }

    pub fn value(&self, container: &str, variable: &str) -> Option<String> {
        let prefix = format!("{variable}=");
        self.env(container)
            .iter()
            .find_map(|text| text.strip_prefix(&prefix).map(ToOwned::to_owned))
    }

    pub fn mounts(&self, container: &str) -> Vec<String> {
        let mounts = self.container(container)["volumeMounts"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        mounts
            .iter()
            .map(|mount| {
                format!(
                    "{}:{}",
                    mount["name"].as_str().unwrap(),
                    mount["mountPath"].as_str().unwrap()
                )
            })
            .collect()
    }

    /// The tokens in our first volume, as `file audience seconds`.
    pub fn tokens(&self) -> Vec<String> {
        self.tokens_in(VOLUME)
    }

    /// The tokens in a volume, as `file audience seconds`.
    pub fn tokens_in(&self, name: &str) -> Vec<String> {
        let volumes = self.pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        let volume = volumes.iter().find(|volume| volume["name"] == name);
        let sources = volume.and_then(|volume| volume["projected"]["sources"].as_array().cloned());
        sources
            .iter()
            .flatten()
            .map(|source| {
                let token = &source["serviceAccountToken"];
                let text = |key: &str| token[key].as_str().unwrap().to_owned();
                format!("{} {} {}", text("path"), text("audience"), token["expirationSeconds"])
            })
            .collect()
    }

    fn container(&self, name: &str) -> &Value {
        ["initContainers", "containers"]
            .iter()
            .flat_map(|list| self.pod["spec"][*list].as_array().into_iter().flatten())
            .find(|container| container["name"] == name)
            .expect("the container")
    }
}

/// The variables that the webhook may add.
pub const OURS: &[&str] = &[
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_SESSION_NAME",
    "AWS_EC2_METADATA_DISABLED",
];

/// Whether a volume has a name of ours, in either mode.
pub fn is_our_volume(name: &str) -> bool {
    name == SOCKET_VOLUME || name.starts_with(VOLUME) || name.starts_with(EKS_VOLUME)
}

/// The pod without anything that tokenscope may add.
pub fn without_ours(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let drop_named = |list: &mut Value, is_ours: &dyn Fn(&str) -> bool| {
        if let Some(items) = list.as_array_mut() {
            items.retain(|item| !is_ours(item["name"].as_str().unwrap()));
        }
        if list.as_array().is_some_and(Vec::is_empty) {
            *list = Value::Null;
        }
    };
    drop_named(&mut pod["spec"]["volumes"], &is_our_volume);
    drop_named(&mut pod["spec"]["initContainers"], &|name| name == SIDECAR);
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            drop_named(&mut container["env"], &|name| OURS.contains(&name));
            drop_named(&mut container["volumeMounts"], &is_our_volume);
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

fn decoded(patch: &str) -> Vec<Value> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(patch).expect("base64");
    serde_json::from_slice(&bytes).expect("a list")
}

pub fn policy(name: &str) -> Policy {
    Policy {
        name: PolicyName::namespaced("shop", name),
        uid: None,
        namespace_selector: Selector::default(),
        subjects: vec![Subject::default()],
        roles: Roles {
            allowed: vec!["arn:aws:iam::111122223333:role/*".parse().unwrap()],
            default: None,
        },
        audiences: Audiences::default(),
        token: TokenSettings {
            source: TokenSource::ServiceAccount,
            subject_format: SubjectFormat::ServiceAccount,
            expiration: TokenExpiration::HOUR,
            algorithm: Algorithm::RS256,
            spiffe: Spiffe::default(),
        },
        claims: Arc::default(),
        aws: AwsSettings::default(),
        containers: ContainerFilter::default(),
        disabled: false,
        fallback: false,
        expires_at: None,
        active_schedule: None,
        on_expiry: tokenscope_core::OnExpiry::Keep,
    }
}

/// A world in which tokens come from SPIFFE.
pub fn spiffe() -> World {
    World::with_policy(|policy| policy.token.source = TokenSource::Spiffe)
}

/// What the author of a pod that is refused, and left as it is, is told.
pub fn refusal(world: &World, pod: &Value) -> String {
    let reviewed = world.review(pod);
    assert_eq!(reviewed.outcome(), Outcome::Denied);
    assert_eq!(reviewed.patch, Vec::<Value>::new());
    reviewed.message().to_owned()
}

pub fn region(policy: &mut Policy) {
    policy.aws.region = Some("eu-central-1".parse().unwrap());
}

/// A world in which two containers of a pod get tokens for two audiences: `other` by its annotation, all others by the pod's.
pub fn two_audiences(source: TokenSource, audience: &str) -> World {
    let with_role = |name: &str, role: &str| {
        let mut policy = policy(name);
        policy.roles.allowed = vec![role.parse().unwrap()];
        policy.token.source = source;
        policy
    };
    let mut other = with_role("other", OTHER_ROLE);
    other.audiences.default = Some(audience.parse().unwrap());
    World {
        policies: [with_role("orders", ROLE), other].into_iter().collect(),
        ..World::new()
    }
}

/// A pod with the containers `app` and `other`, which asks for a role for each.
pub fn asking_for_two() -> Value {
    let mut pod = asking(json!([{"name": "app"}, {"name": "other"}]));
    pod["metadata"]["annotations"]["tokenscope.io/role-arn.other"] = json!(OTHER_ROLE);
    pod
}

/// A pod of service account `orders` that asks for [`ROLE`], with these containers.
pub fn asking(containers: Value) -> Value {
    let mut pod = plain(containers);
    pod["metadata"]["annotations"] = json!({"tokenscope.io/role-arn": ROLE});
    pod
}

/// A pod of service account `orders` that asks for nothing.
pub fn plain(containers: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "orders-0", "namespace": "shop"},
        "spec": {"serviceAccountName": "orders", "containers": containers}})
}

/// One container named `app`, without anything.
pub fn app() -> Value {
    json!([{"name": "app", "image": "app"}])
}
