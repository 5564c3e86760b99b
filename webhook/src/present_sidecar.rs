//! The init containers of a pod that bear the sidecar's name, whole, and whether one is what the webhook would write.
//!
//! The sidecar speaks for the pod at the SPIFFE agent, so each of its fields counts: another argument or security context makes
//! it another program. The ordinary decode of a pod keeps only what decisions read; this one is made when the name occurs at all.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokenscope_core::pod::SIDECAR;

/// The init containers named as the sidecar: the index of each among all init containers, and its JSON.
#[derive(Clone, Debug, Default)]
pub struct PresentSidecars(Vec<(usize, Value)>);

#[derive(Deserialize)]
struct Review<'a> {
    #[serde(borrow)]
    request: Request<'a>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    object: Pod<'a>,
}

#[derive(Deserialize)]
struct Pod<'a> {
    #[serde(borrow)]
    spec: Spec<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow, default)]
    init_containers: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// How many init containers of the sidecar's name are looked at. A pod may have one: names of containers are unique, and the API
/// server checks that after admission.
const MOST: usize = 8;

impl PresentSidecars {
    /// Reads them from an AdmissionReview's JSON. A text that can't be read has none: then nothing in it passes for ours.
    pub fn read(review: &str) -> Self {
        let Ok(review) = serde_json::from_str::<Review<'_>>(review) else {
            return Self::default();
        };
        let init_containers = review.request.object.spec.init_containers.unwrap_or_default();
        let named = init_containers.into_iter().enumerate().filter(|(_, container)| {
            serde_json::from_str::<Named>(container.get()).is_ok_and(|container| container.name == SIDECAR)
        });
        let read = named.filter_map(|(index, container)| Some((index, serde_json::from_str(container.get()).ok()?)));
        Self(read.take(MOST).collect())
    }

    /// The index of the only one, where it is equal to `wanted`, the JSON of the container that the webhook would write.
    pub fn only_one_equal_to(&self, wanted: &str) -> Option<usize> {
        let [(index, present)] = self.0.as_slice() else {
            return None;
        };
        let wanted: Value = serde_json::from_str(wanted).ok()?;
        (without_defaults(present.clone()) == without_defaults(wanted)).then_some(*index)
    }
}

/// The container without what the API server itself adds between two reviews: the defaults of core/v1 and the volume of the
/// service account's own token, which the ServiceAccount admission plugin mounts.
fn without_defaults(mut container: Value) -> Value {
    const DEFAULTS: [(&str, &str); 2] = [
        ("terminationMessagePath", "/dev/termination-log"),
        ("terminationMessagePolicy", "File"),
    ];
    let Some(members) = container.as_object_mut() else {
        return container;
    };
    for (name, default) in DEFAULTS {
        if members.get(name).and_then(Value::as_str) == Some(default) {
            members.remove(name);
        }
    }
    if let Some(probe) = members.get_mut("startupProbe").and_then(Value::as_object_mut)
        && probe.get("successThreshold").and_then(Value::as_u64) == Some(1)
    {
        probe.remove("successThreshold");
    }
    if let Some(mounts) = members.get_mut("volumeMounts").and_then(Value::as_array_mut) {
        mounts.retain(|mount| !is_service_account_mount(mount));
    }
    if let Some(resources) = members.get_mut("resources").and_then(Value::as_object_mut) {
        request_what_is_limited(resources);
    }
    container
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
    use super::*;
    use serde_json::json;

    fn read(init_containers: &Value) -> PresentSidecars {
        let review = json!({"request": {"object": {"spec": {"initContainers": init_containers}}}});
        PresentSidecars::read(&review.to_string())
    }

    fn wanted() -> Value {
        json!({"name": SIDECAR, "image": "a", "startupProbe": {"periodSeconds": 1}, "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "resources": {"limits": {"cpu": "1"}}})
    }

    #[test]
    fn what_the_api_server_adds_between_two_reviews_makes_no_difference() {
        let present = json!({"name": SIDECAR, "image": "a", "startupProbe": {"periodSeconds": 1, "successThreshold": 1},
            "volumeMounts": [{"name": "v", "mountPath": "/v"},
                {"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}],
            "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"});
        let found = read(&json!([{"name": "first"}, present]));
        assert_eq!(found.only_one_equal_to(&wanted().to_string()), Some(1));
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
            let mut present = wanted();
            present[member] = value;
            assert_eq!(
                read(&json!([present])).only_one_equal_to(&wanted().to_string()),
                None,
                "{member}"
            );
        }
        let mut present = wanted();
        present["volumeMounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "mine", "mountPath": "/x"}));
        assert_eq!(read(&json!([present])).only_one_equal_to(&wanted().to_string()), None);
    }

    #[test]
    fn of_two_with_the_name_none_is_ours() {
        assert_eq!(
            read(&json!([wanted(), wanted()])).only_one_equal_to(&wanted().to_string()),
            None
        );
    }
}
