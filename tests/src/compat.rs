//! Recorded cases of the EKS webhook's suite, replayed through our webhook in EKS-compatible mode.
//!
//! What is compared are the pods that come out, not the patches. Where ours differs, the difference is a [`Deviation`] that
//! explains all of it, or the case is [`Outcome::Different`]. Deviations are told by what a case does and never by its name,
//! so that cases nobody has seen yet are judged as well.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokenscope_core::{Pairs, PolicySet, RoleArn, Settings, TokenExpiration};
use tokenscope_webhook::facts::ReviewContext;
use tokenscope_webhook::review::{self, Asked};

/// A file of cases.
#[derive(Clone, Debug, Deserialize)]
pub struct Suite {
    /// Where they come from.
    #[serde(default)]
    pub source: String,
    /// The cases.
    pub cases: Vec<Case>,
}

/// A pod, the circumstances that it is admitted under, and what must come out.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// What it is called.
    pub name: String,
    /// The service account's annotations (`serviceAccount/…`) and the other webhook's flags (`handler/…`).
    #[serde(default)]
    pub webhook_state: BTreeMap<String, String>,
    /// What is admitted.
    pub pod: Value,
    /// What the other webhook makes of it.
    pub expected_pod: Value,
}

/// What became of a case.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The same pod comes out.
    Equal,
    /// Another pod comes out, or none, and these reasons explain every difference.
    Deviation(Vec<&'static Deviation>),
    /// It is about something that tokenscope does not do yet.
    Later(&'static str),
    /// Another pod comes out, or none, and nobody said why.
    Different(String),
}

/// A difference on purpose.
#[derive(Debug)]
pub struct Deviation {
    /// A word for it.
    pub name: &'static str,
    /// Why it is so.
    pub reason: &'static str,
    effect: Effect,
}

#[derive(Debug)]
enum Effect {
    /// The pod is refused. The function says whether the case gives the cause; one of the texts is in the refusal.
    Refused(fn(&Case) -> bool, &'static [&'static str]),
    /// Another pod comes out: the function makes it of the expected one.
    Changed(fn(&Case, &mut Value)),
}

/// What is added to every pod that gets credentials, apart from what the cases compare.
pub const ON_EVERY_POD: &str = "each pod also carries the annotation tokenscope.io/grant and the label tokenscope.io/reviewed, which drift detection and the guard read";

const LATER: &str = "credentials of the EKS Pod Identity agent belong to a later version";

/// Where EKS's own webhook puts the token, and the name of the volume.
const MOUNT_PATH: &str = "/var/run/secrets/eks.amazonaws.com/serviceaccount";
const VOLUME: &str = "aws-iam-token";

const ROLE_ARN: &str = "AWS_ROLE_ARN";
const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";

/// In the order in which they are applied to an expected pod.
static DEVIATIONS: &[Deviation] = &[
    Deviation {
        name: "invalid role",
        reason: "a role that is no ARN of an IAM role is refused with the reason, not injected: STS would refuse it in every call",
        effect: Effect::Refused(names_an_invalid_role, &["is not an IAM role ARN"]),
    },
    Deviation {
        name: "token lifetime",
        reason: "a token-expiration that is no number from 600 to 86400 is refused with the reason; it is neither raised nor ignored in silence",
        effect: Effect::Refused(names_an_invalid_expiration, &["is not a token expiration"]),
    },
    Deviation {
        name: "flag",
        reason: "an sts-regional-endpoints that is neither true nor false is refused with the reason; it is not ignored in silence",
        effect: Effect::Refused(names_an_invalid_flag, &["sts-regional-endpoints"]),
    },
    Deviation {
        name: "foreign volume",
        reason: "a volume of our name that is not exactly what would be added, and a mount of it, is refused, never trusted: whoever \
                 makes it could hand the container a token of their own",
        effect: Effect::Refused(
            brings_a_foreign_volume,
            &[
                "which tokenscope adds",
                "which is the name of the volume that tokenscope adds",
            ],
        ),
    },
    Deviation {
        name: "foreign mount",
        reason: "another volume that is mounted where the token goes is refused with the reason: the API server would refuse two mounts at one path",
        effect: Effect::Refused(mounts_at_our_path, &["where tokenscope puts the token"]),
    },
    Deviation {
        name: "skip list",
        reason: "names in skip-containers may have spaces around them: \"a, b\" skips both",
        effect: Effect::Changed(skip_trimmed_names),
    },
    Deviation {
        name: "kept fields",
        reason: "containers are changed in place and never replaced as a whole, so a field that the other webhook does not know is kept",
        effect: Effect::Changed(keep_fields),
    },
    Deviation {
        name: "own credentials",
        reason: "a container that brings both AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE is left alone altogether",
        effect: Effect::Changed(leave_own_credentials_alone),
    },
    Deviation {
        name: "half pair",
        reason: "a container that sets only one of AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE gets the other one and the token, and is not left broken",
        effect: Effect::Changed(complete_half_pairs),
    },
    Deviation {
        name: "role from elsewhere",
        reason: "a container whose AWS_ROLE_ARN comes by valueFrom is left alone with a warning, for nobody can judge that role",
        effect: Effect::Changed(leave_indirect_roles_alone),
    },
    Deviation {
        name: "unused volume",
        reason: "a pod none of whose containers mounts the token gets no volume for it",
        effect: Effect::Changed(drop_unused_volume),
    },
    Deviation {
        name: "mount path",
        reason: "the path of the token is fixed: EKS's own in EKS-compatible mode",
        effect: Effect::Changed(move_to_our_path),
    },
];

/// Reads a file of cases.
pub fn read(file: &Path) -> Result<Suite> {
    let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    let suite: Suite =
        serde_json::from_str(&text).with_context(|| format!("{} is no file of cases", file.display()))?;
    ensure!(!suite.cases.is_empty(), "{} has no cases", file.display());
    Ok(suite)
}

impl Case {
    /// Admits the pod and compares.
    pub fn replay(&self) -> Outcome {
        if self
            .webhook_state
            .keys()
            .any(|key| key.starts_with("containercredentials/"))
        {
            return Outcome::Later(LATER);
        }
        let unknown = self.webhook_state.keys().find(|key| !KEYS.contains(&key.as_str()));
        if let Some(key) = unknown {
            return Outcome::Different(format!("webhook_state has {key:?}, which this replay does not know"));
        }
        match self.admit() {
            Ok(Admitted::As(pod)) => self.compare(pod),
            Ok(Admitted::Refused(message)) => self.explain(&message),
            Err(error) => Outcome::Different(format!("{error:#}")),
        }
    }

    fn compare(&self, pod: Value) -> Outcome {
        let pod = without_our_metadata(pod, &self.pod);
        let mut expected = normalised(self.expected_pod.clone());
        if pod == expected {
            return Outcome::Equal;
        }
        let mut reasons = Vec::new();
        for deviation in DEVIATIONS {
            let Effect::Changed(change) = deviation.effect else {
                continue;
            };
            let before = expected.clone();
            change(self, &mut expected);
            expected = normalised(expected);
            if expected != before {
                reasons.push(deviation);
            }
        }
        if pod == expected && !reasons.is_empty() {
            return Outcome::Deviation(reasons);
        }
        Outcome::Different(differences(&expected, &pod))
    }

    fn explain(&self, message: &str) -> Outcome {
        let reason = DEVIATIONS.iter().find(|deviation| {
            matches!(deviation.effect, Effect::Refused(cause, texts)
                if texts.iter().any(|text| message.contains(text)) && cause(self))
        });
        match reason {
            Some(deviation) => Outcome::Deviation(vec![deviation]),
            None => Outcome::Different(format!("refused: {message}")),
        }
    }

    /// Reviews the pod as the webhook does, with the settings of the case.
    fn admit(&self) -> Result<Admitted> {
        let settings = match self.settings() {
            Ok(settings) => settings,
            // A flag that the process would not start with.
            Err(message) => return Ok(Admitted::Refused(message)),
        };
        let mut pod = self.pod.clone();
        complete_mounts(&mut pod);
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
        let body = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "b9d6b9f2-9c1f-4d39-9b0e-2a5c5f4f0a11",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "operation": "CREATE", "namespace": namespace, "object": pod,
            },
        })
        .to_string();
        let Asked::Pod(review) = review::read(body.as_bytes())? else {
            return Ok(Admitted::As(pod));
        };
        let annotations = self.service_account_annotations();
        let annotations: Pairs<&str> = annotations
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let surroundings = ReviewContext {
            namespace_labels: Pairs::default(),
            service_account_annotations: Some(annotations),
            driver_tokens: None,
            refused: None,
            stale: false,
        };
        let answer = review.answer(surroundings, &PolicySet::default(), &settings, Timestamp::UNIX_EPOCH);
        let answer: Value = serde_json::from_str(&answer.body).context("the answer is not JSON")?;
        let response = &answer["response"];
        if response["allowed"] != true {
            let message = response["status"]["message"].as_str().unwrap_or_default();
            return Ok(Admitted::Refused(message.to_owned()));
        }
        if let Some(patch) = response["patch"].as_str() {
            let patch: json_patch::Patch = serde_json::from_slice(&STANDARD.decode(patch)?)?;
            json_patch::patch(&mut pod, &patch).context("the patch does not fit the pod")?;
        }
        Ok(Admitted::As(pod))
    }

    /// The service account's annotations.
    fn service_account_annotations(&self) -> Vec<(String, String)> {
        SERVICE_ACCOUNT_KEYS
            .iter()
            .filter_map(|(key, annotation)| {
                Some((
                    format!("eks.amazonaws.com/{annotation}"),
                    self.webhook_state.get(*key)?.clone(),
                ))
            })
            .collect()
    }

    /// The webhook's own settings, as its flags would give them.
    fn settings(&self) -> Result<Settings, String> {
        let flag = |key: &str| self.webhook_state.get(key).map(String::as_str);
        let mut settings = Settings {
            policy_required: false,
            ..Settings::eks_compatible()
        };
        if let Some(seconds) = flag(EXPIRATION_FLAG) {
            let expiration = seconds.parse::<TokenExpiration>();
            settings.default_token_expiration = expiration.map_err(|error| error.to_string())?;
        }
        if let Some(region) = flag("handler/region").filter(|region| !region.is_empty()) {
            settings.default_region = Some(region.parse().map_err(|error| format!("{error}"))?);
        }
        if let Some(regional) = flag("handler/injectSTS") {
            let regional = regional.parse();
            settings.sts_regional_endpoints = regional.map_err(|error| format!("handler/injectSTS: {error}"))?;
        }
        Ok(settings)
    }

    /// Values of an annotation of the pod, or else of the service account.
    fn annotation(&self, name: &str) -> Option<&str> {
        let key = format!("eks.amazonaws.com/{name}");
        let on_service_account = || {
            let (state, _) = SERVICE_ACCOUNT_KEYS
                .iter()
                .find(|(_, annotation)| *annotation == name)?;
            self.webhook_state.get(*state).map(String::as_str)
        };
        self.pod["metadata"]["annotations"][&key]
            .as_str()
            .or_else(on_service_account)
    }

    /// The containers that the pod does not skip, as they were admitted.
    fn unskipped(&self) -> impl Iterator<Item = &Value> {
        let list = self.annotation("skip-containers").unwrap_or_default();
        let skipped: Vec<&str> = list.split(',').map(str::trim).collect();
        containers(&self.pod).filter(move |container| !skipped.iter().any(|name| container["name"] == **name))
    }
}

enum Admitted {
    As(Value),
    Refused(String),
}

/// Where each annotation of the service account stands in a case.
const SERVICE_ACCOUNT_KEYS: [(&str, &str); 4] = [
    ("serviceAccount/roleArn", "role-arn"),
    ("serviceAccount/audience", "audience"),
    ("serviceAccount/sts-regional-endpoints", "sts-regional-endpoints"),
    ("serviceAccount/token-expiration", "token-expiration"),
];

const EXPIRATION_FLAG: &str = "handler/expiration";
const MOUNT_PATH_FLAG: &str = "handler/mountPath";

/// Every key that a case may have.
const KEYS: [&str; 9] = [
    SERVICE_ACCOUNT_KEYS[0].0,
    SERVICE_ACCOUNT_KEYS[1].0,
    SERVICE_ACCOUNT_KEYS[2].0,
    SERVICE_ACCOUNT_KEYS[3].0,
    EXPIRATION_FLAG,
    MOUNT_PATH_FLAG,
    "handler/region",
    "handler/injectSTS",
    // What a bare role name is completed with. Names are not completed here: they are invalid roles.
    "handler/baseArn",
];

// The causes of refusals.

fn names_an_invalid_role(case: &Case) -> bool {
    let invalid = |text: &str| text.parse::<RoleArn>().is_err();
    case.annotation("role-arn").is_some_and(invalid)
        || case.unskipped().any(|container| {
            variable(container, ROLE_ARN)
                .and_then(|own| own["value"].as_str())
                .is_some_and(invalid)
        })
}

fn names_an_invalid_expiration(case: &Case) -> bool {
    let flag = case.webhook_state.get(EXPIRATION_FLAG).map(String::as_str);
    let named = [case.annotation("token-expiration"), flag];
    named
        .into_iter()
        .flatten()
        .any(|text| text.parse::<TokenExpiration>().is_err())
}

fn names_an_invalid_flag(case: &Case) -> bool {
    // As Go reads one.
    const FLAGS: [&str; 12] = [
        "1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False",
    ];
    case.annotation("sts-regional-endpoints")
        .is_some_and(|text| !FLAGS.contains(&text))
}

fn brings_a_foreign_volume(case: &Case) -> bool {
    items(&case.pod["spec"]["volumes"]).any(|volume| volume["name"] == VOLUME)
        || case
            .unskipped()
            .any(|container| items(&container["volumeMounts"]).any(|mount| mount["name"] == VOLUME))
}

fn mounts_at_our_path(case: &Case) -> bool {
    let ours = |mount: &Value| {
        mount["mountPath"]
            .as_str()
            .is_some_and(|path| path.trim_end_matches('/').starts_with(MOUNT_PATH))
    };
    case.unskipped()
        .any(|container| items(&container["volumeMounts"]).any(ours))
}

// The changes of expected pods.

fn skip_trimmed_names(case: &Case, expected: &mut Value) {
    let Some(list) = case.annotation("skip-containers") else {
        return;
    };
    let names: Vec<&str> = list
        .split(',')
        .filter(|name| name.trim() != *name)
        .map(str::trim)
        .collect();
    for container in containers_mut(expected) {
        if names.iter().any(|name| container["name"] == *name) {
            restore(case, container);
        }
    }
}

fn keep_fields(case: &Case, expected: &mut Value) {
    for container in containers_mut(expected) {
        if let Some(admitted) = admitted(case, container) {
            put_back(admitted, container);
        }
    }
}

fn leave_own_credentials_alone(case: &Case, expected: &mut Value) {
    for container in containers_mut(expected) {
        let both =
            |admitted: &Value| variable(admitted, ROLE_ARN).is_some() && variable(admitted, TOKEN_FILE).is_some();
        if admitted(case, container).is_some_and(both) {
            restore(case, container);
        }
    }
}

fn leave_indirect_roles_alone(case: &Case, expected: &mut Value) {
    for container in containers_mut(expected) {
        let indirect = |admitted: &Value| {
            variable(admitted, ROLE_ARN)
                .is_some_and(|role| role["value"].as_str().is_none_or(|text| text.contains("$(")))
        };
        if admitted(case, container).is_some_and(indirect) {
            restore(case, container);
        }
    }
}

fn complete_half_pairs(case: &Case, expected: &mut Value) {
    let windows = [
        &case.pod["spec"]["os"]["name"],
        &case.pod["spec"]["nodeSelector"]["kubernetes.io/os"],
    ];
    let windows = windows.into_iter().any(|name| name == "windows");
    for container in containers_mut(expected) {
        let half = case
            .unskipped()
            .find(|admitted| admitted["name"] == container["name"])
            .and_then(
                |admitted| match (variable(admitted, ROLE_ARN), variable(admitted, TOKEN_FILE)) {
                    (Some(role), None) if role["value"].is_string() => Some(TOKEN_FILE),
                    (None, Some(_)) => Some(ROLE_ARN),
                    _ => None,
                },
            );
        let Some(missing) = half.filter(|missing| variable(container, missing).is_none()) else {
            continue;
        };
        let file = format!("{MOUNT_PATH}/token");
        let value = match missing {
            ROLE_ARN => case.annotation("role-arn").unwrap_or_default().to_owned(),
            _ if windows => format!("C:{}", file.replace('/', "\\")),
            _ => file,
        };
        push(container, "env", json!({"name": missing, "value": value}));
        let own_file = variable(container, TOKEN_FILE).and_then(|file| file["value"].as_str());
        let needs_token = own_file.is_some_and(|path| path.replace('\\', "/").contains(MOUNT_PATH));
        if !items(&container["volumeMounts"]).any(|mount| mount["name"] == VOLUME) && needs_token {
            push(
                container,
                "volumeMounts",
                json!({"name": VOLUME, "readOnly": true, "mountPath": MOUNT_PATH}),
            );
        }
    }
}

fn drop_unused_volume(case: &Case, expected: &mut Value) {
    let ours = |object: &Value| object["name"] == VOLUME;
    let mounted = containers(expected).any(|container| items(&container["volumeMounts"]).any(ours));
    let admitted = items(&case.pod["spec"]["volumes"]).any(ours);
    if let Some(volumes) = expected.pointer_mut("/spec/volumes").and_then(Value::as_array_mut)
        && !mounted
        && !admitted
    {
        volumes.retain(|volume| !ours(volume));
    }
}

fn move_to_our_path(case: &Case, expected: &mut Value) {
    let Some(path) = case.webhook_state.get(MOUNT_PATH_FLAG) else {
        return;
    };
    let theirs = path.trim_end_matches('/');
    for container in containers_mut(expected) {
        for mount in items_mut(container, "volumeMounts").filter(|mount| mount["name"] == VOLUME) {
            mount["mountPath"] = json!(MOUNT_PATH);
        }
        for variable in items_mut(container, "env").filter(|variable| variable["name"] == TOKEN_FILE) {
            let (unix, windows) = (
                format!("{theirs}/token"),
                format!("C:{}\\token", theirs.replace('/', "\\")),
            );
            if variable["value"] == unix {
                variable["value"] = json!(format!("{MOUNT_PATH}/token"));
            } else if variable["value"] == windows {
                variable["value"] = json!(format!("C:{}\\token", MOUNT_PATH.replace('/', "\\")));
            }
        }
    }
}

// Pods as JSON.

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn items_mut<'a>(container: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    container
        .get_mut(list)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    items(&pod["spec"]["initContainers"]).chain(items(&pod["spec"]["containers"]))
}

fn containers_mut(pod: &mut Value) -> impl Iterator<Item = &mut Value> {
    let lists = pod.get_mut("spec").and_then(Value::as_object_mut).into_iter().flatten();
    let lists = lists.filter(|(key, _)| *key == "initContainers" || *key == "containers");
    lists.filter_map(|(_, list)| list.as_array_mut()).flatten()
}

fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a Value> {
    items(&container["env"]).find(|variable| variable["name"] == name)
}

fn push(container: &mut Value, list: &str, item: Value) {
    match container.get_mut(list).and_then(Value::as_array_mut) {
        Some(items) => items.push(item),
        None => container[list] = json!([item]),
    }
}

/// A container as it was admitted, by its name: init containers and containers have no name twice.
fn admitted<'a>(case: &'a Case, container: &Value) -> Option<&'a Value> {
    containers(&case.pod).find(|admitted| admitted["name"] == container["name"])
}

fn restore(case: &Case, container: &mut Value) {
    if let Some(admitted) = admitted(case, container) {
        *container = normalised(admitted.clone());
    }
}

/// Puts members back that are gone.
fn put_back(from: &Value, into: &mut Value) {
    let (Some(from), Some(into)) = (from.as_object(), into.as_object_mut()) else {
        return;
    };
    for (key, value) in from {
        match into.get_mut(key) {
            Some(present) => put_back(value, present),
            None => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

/// The API server writes every mount with its path, also where that is empty.
fn complete_mounts(pod: &mut Value) {
    for container in containers_mut(pod) {
        for mount in items_mut(container, "volumeMounts").filter_map(Value::as_object_mut) {
            mount.entry("mountPath").or_insert_with(|| json!(""));
        }
    }
}

/// Our own labels and annotations are left out, unless the pod brought them.
fn without_our_metadata(mut pod: Value, admitted: &Value) -> Value {
    for map in ["labels", "annotations"] {
        if let Some(entries) = pod["metadata"][map].as_object_mut() {
            let brought = &admitted["metadata"][map];
            entries.retain(|key, _| !key.starts_with("tokenscope.io/") || brought.get(key).is_some());
        }
    }
    normalised(pod)
}

/// Without what is there or not without meaning anything: nulls, empty resources, annotations and lists.
fn normalised(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(key, value)| (key, normalised(value)));
            let meaningless = |key: &str, value: &Value| match key {
                "resources" | "annotations" | "labels" | "creationTimestamp" => {
                    value.as_object().is_some_and(Map::is_empty)
                }
                "env" | "volumeMounts" | "volumes" | "initContainers" => value.as_array().is_some_and(Vec::is_empty),
                _ => false,
            };
            Value::Object(
                members
                    .filter(|(key, value)| !value.is_null() && !meaningless(key, value))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(normalised).collect()),
        other => other,
    }
}

/// Where two pods differ, each place in a line.
fn differences(expected: &Value, got: &Value) -> String {
    const MOST: usize = 12;
    let mut lines = Vec::new();
    compare(expected, got, &mut String::new(), &mut lines);
    let more = lines.len().saturating_sub(MOST);
    lines.truncate(MOST);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

fn compare(expected: &Value, got: &Value, path: &mut String, lines: &mut Vec<String>) {
    let length = path.len();
    match (expected, got) {
        (Value::Object(one), Value::Object(other)) => {
            let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key)));
            for key in keys {
                let _ = write!(path, "/{key}");
                compare(&expected[key], &got[key], path, lines);
                path.truncate(length);
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            for index in 0..one.len().max(other.len()) {
                let _ = write!(path, "/{index}");
                let item = |items: &[Value]| items.get(index).cloned().unwrap_or_default();
                compare(&item(one), &item(other), path, lines);
                path.truncate(length);
            }
        }
        _ if expected == got => {}
        _ => lines.push(format!("{path}: expected {}, got {}", shown(expected), shown(got))),
    }
}

fn shown(value: &Value) -> String {
    if value.is_null() {
        "nothing".to_owned()
    } else {
        value.to_string()
    }
}

/// How many cases came out how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// The same pod.
    pub equal: usize,
    /// Another pod, with a reason.
    pub deviations: usize,
    /// Not yet done.
    pub later: usize,
    /// Another pod, without a reason.
    pub different: usize,
}

impl Total {
    /// Counts a case.
    pub fn add(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Equal => &mut self.equal,
            Outcome::Deviation(_) => &mut self.deviations,
            Outcome::Later(_) => &mut self.later,
            Outcome::Different(_) => &mut self.different,
        } += 1;
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            equal,
            deviations,
            later,
            different,
        } = self;
        let cases = equal + deviations + later + different;
        write!(
            f,
            "{cases} cases: {equal} equal, {deviations} deviations, {later} later, {different} different"
        )
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal => f.write_str("equal"),
            Self::Deviation(deviations) => {
                let reasons: Vec<String> = deviations
                    .iter()
                    .map(|Deviation { name, reason, .. }| format!("{name}: {reason}"))
                    .collect();
                write!(f, "deviation  {}", reasons.join("; "))
            }
            Self::Later(reason) => write!(f, "later      {reason}"),
            Self::Different(difference) => write!(f, "DIFFERENT  {}", difference.replace('\n', "\n    ")),
        }
    }
}
