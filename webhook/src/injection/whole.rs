//! Volumes and init containers as they are written, to compare them whole with what the webhook would write.
//!
//! Each member counts: another argument or security context makes the sidecar another program, and another mode or driver a token
//! volume another volume. The ordinary decode of a pod keeps only what decisions read; this one is made when one of our names
//! occurs at all.

use serde::Deserialize;
use serde_json::{Map, Value};
use tokenscope_core::bounds::{MOST_CONTAINERS, MOST_VOLUMES};
use tokenscope_core::pod::BoundedList;

use super::pieces::DesiredVolume;
use super::review_spec;
use crate::json::Raw;
use crate::patch::Json;

/// The volumes and init containers of a pod.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
pub(super) struct Whole<'a> {
    #[serde(default = "Option::default")]
    volumes: Option<BoundedList<Raw<'a>, MOST_VOLUMES>>,
    #[serde(default = "Option::default")]
    init_containers: Option<BoundedList<Raw<'a>, MOST_CONTAINERS>>,
}

impl<'a> Whole<'a> {
    /// Reads them from an AdmissionReview's JSON. A text that can't be read has none: then nothing in it passes for ours.
    pub(super) fn read(review: &'a str) -> Self {
        review_spec::read(review).unwrap_or_default()
    }

    /// True if the volume with this index is exactly `wanted`.
    pub(super) fn is_volume(&self, index: usize, wanted: &DesiredVolume<'_>) -> bool {
        let present = self.volumes.as_ref().and_then(|volumes| volumes.get(index));
        present.is_some_and(|present| is_equal(*present, wanted, volume_without_defaults))
    }

    /// True if the init container with this index is exactly `wanted`.
    pub(super) fn is_init_container(&self, index: usize, wanted: &WantedInitContainer) -> bool {
        let present = self
            .init_containers
            .as_ref()
            .and_then(|containers| containers.get(index));
        let present = present.and_then(|present| members(present.0, container_without_defaults));
        present.is_some() && present == wanted.0
    }
}

/// An init container that should be there, to be compared with many that are. It may have tens of kilobytes, so it is written and read
/// once.
#[derive(Debug)]
pub(super) struct WantedInitContainer(Option<Map<String, Value>>);

impl WantedInitContainer {
    pub(super) fn of(wanted: &dyn Json) -> Self {
        Self(members(&written(wanted), container_without_defaults))
    }
}

/// True if what is written is `wanted`, but for what the API server itself adds between two reviews.
fn is_equal(present: Raw<'_>, wanted: &dyn Json, without_defaults: fn(&mut Map<String, Value>)) -> bool {
    let present = members(present.0, without_defaults);
    present.is_some() && present == members(&written(wanted), without_defaults)
}

fn written(wanted: &dyn Json) -> String {
    let mut text = String::with_capacity(2048);
    wanted.write(&mut text);
    text
}

fn members(text: &str, without_defaults: fn(&mut Map<String, Value>)) -> Option<Map<String, Value>> {
    let mut members = serde_json::from_str(text).ok()?;
    without_defaults(&mut members);
    Some(members)
}

/// Takes the defaults of core/v1 away.
fn volume_without_defaults(volume: &mut Map<String, Value>) {
    const MODE: u64 = 0o644;
    if let Some(projected) = volume.get_mut("projected").and_then(Value::as_object_mut)
        && projected.get("defaultMode").and_then(Value::as_u64) == Some(MODE)
    {
        projected.remove("defaultMode");
    }
}

/// Takes the defaults of core/v1 away, and the volume of the service account's own token, which the ServiceAccount admission
/// plugin mounts.
fn container_without_defaults(container: &mut Map<String, Value>) {
    const DEFAULTS: [(&str, &str); 2] = [
        ("terminationMessagePath", "/dev/termination-log"),
        ("terminationMessagePolicy", "File"),
    ];
    for (name, default) in DEFAULTS {
        if container.get(name).and_then(Value::as_str) == Some(default) {
            container.remove(name);
        }
    }
    for probe in ["startupProbe", "readinessProbe"] {
        if let Some(probe) = container.get_mut(probe).and_then(Value::as_object_mut)
            && probe.get("successThreshold").and_then(Value::as_u64) == Some(1)
        {
            probe.remove("successThreshold");
        }
    }
    for variable in container
        .get_mut("env")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let field = variable
            .pointer_mut("/valueFrom/fieldRef")
            .and_then(Value::as_object_mut);
        if let Some(field) = field
            && field.get("apiVersion").and_then(Value::as_str) == Some("v1")
        {
            field.remove("apiVersion");
        }
    }
    if let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
        mounts.retain(|mount| !is_service_account_mount(mount));
    }
    if let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) {
        request_what_is_limited(resources);
    }
}

fn is_service_account_mount(mount: &Value) -> bool {
    let text = |member: &str| mount.get(member).and_then(Value::as_str).unwrap_or_default();
    let members = mount.as_object().map_or(0, Map::len);
    members == 3
        && text("mountPath") == "/var/run/secrets/kubernetes.io/serviceaccount"
        && text("name").starts_with("kube-api-access-")
        && mount.get("readOnly").and_then(Value::as_bool) == Some(true)
}

/// A limit without a request is the request too.
fn request_what_is_limited(resources: &mut Map<String, Value>) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    let requests = resources.entry("requests").or_insert_with(|| Value::Object(Map::new()));
    if let Some(requests) = requests.as_object_mut() {
        for (name, quantity) in limits {
            requests.entry(name).or_insert(quantity);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokenscope_core::pod::SIDECAR;

    use super::*;

    struct TestJson(Value);

    impl Json for TestJson {
        fn write(&self, text: &mut String) {
            text.push_str(&self.0.to_string());
        }
    }

    fn container() -> Value {
        json!({"name": SIDECAR, "image": "a", "startupProbe": {"periodSeconds": 1}, "readinessProbe": {"periodSeconds": 30}, "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "resources": {"limits": {"cpu": "1"}}})
    }

    fn is_container(present: &Value) -> bool {
        let review =
            json!({"request": {"object": {"spec": {"initContainers": [{"name": "first"}, present]}}}}).to_string();
        let whole = Whole::read(&review);
        whole.is_init_container(1, &WantedInitContainer::of(&TestJson(container())))
    }

    #[test]
    fn what_the_api_server_adds_between_two_reviews_makes_no_difference() {
        assert!(is_container(
            &json!({"name": SIDECAR, "image": "a", "startupProbe": {"periodSeconds": 1, "successThreshold": 1},
            "readinessProbe": {"periodSeconds": 30, "successThreshold": 1},
            "volumeMounts": [{"name": "v", "mountPath": "/v"},
                {"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}],
            "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"})
        ));
    }

    #[test]
    fn any_other_member_makes_it_another_container() {
        for (member, value) in [
            ("args", json!(["--once"])),
            ("command", json!(["/bin/sh"])),
            ("securityContext", json!({"privileged": true})),
            ("envFrom", json!([{"secretRef": {"name": "x"}}])),
            ("lifecycle", json!({"postStart": {"exec": {"command": ["x"]}}})),
            ("stdin", json!(true)),
        ] {
            let mut present = container();
            present[member] = value;
            assert!(!is_container(&present), "{member}");
        }
        let mut present = container();
        let mounts = present["volumeMounts"].as_array_mut().unwrap();
        mounts.push(json!({"name": "mine", "mountPath": "/x"}));
        assert!(!is_container(&present));
    }

    #[test]
    fn a_volume_of_another_mode_is_another_volume() {
        let volume = |members: &Value| {
            let text = members.to_string();
            let wanted = TestJson(json!({"name": "v", "projected": {"sources": []}}));
            is_equal(Raw(&text), &wanted, volume_without_defaults)
        };
        assert!(volume(
            &json!({"name": "v", "projected": {"sources": [], "defaultMode": 420}})
        ));
        assert!(!volume(
            &json!({"name": "v", "projected": {"sources": [], "defaultMode": 511}})
        ));
        assert!(!volume(
            &json!({"name": "v", "projected": {"sources": []}, "emptyDir": {}})
        ));
    }
}
