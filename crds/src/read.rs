//! From what a watch delivers to a policy, so that one malformed object stops nobody.
//!
//! Both kinds are watched as [`DynamicObject`]: it takes an object of any shape, so a list or a watch never fails because
//! of one of them, whatever schema it was written under. [`read`] then gives a [`Policy`], or the reason for this object
//! alone:
//!
//! ```no_run
//! # use futures::TryStreamExt;
//! # use kube::{Api, Client, core::DynamicObject, runtime::{watcher, WatchStreamExt}};
//! # use std::sync::Arc;
//! # use tokenscope_core::PolicySet;
//! # async fn watch(client: Client, mut policies: PolicySet) -> Result<(), watcher::Error> {
//! for resource in tokenscope_crds::read::resources() {
//!     let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
//!     let mut objects = std::pin::pin!(watcher(api, watcher::Config::default()).applied_objects());
//!     while let Some(object) = objects.try_next().await? {
//!         match tokenscope_crds::read::read(&object) {
//!             (_, Ok(policy)) => policies.insert(Arc::new(policy)),
//!             (name, Err(why)) => policies.insert_unusable(name, &why),
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use std::io;
use std::sync::Arc;

use kube::core::{ApiResource, DynamicObject};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenscope_core::{Boundary, InvalidPolicy, Policy, PolicyName, PolicyScope, Schedule, Selector};

use crate::messages;
use crate::parse::{self, selector};
use crate::shape::{BOUNDARY, POLICY, Shape};
use crate::v1alpha1::{
    ActiveSchedule, BoundarySpec, ClusterTokenScopePolicy, LabelSelector, PolicySpec, PolicyStatus, SubjectSpec,
    TokenScopeBoundary, TokenScopePolicy,
};

/// The kinds of policies to watch: the namespaced one and the cluster's.
pub fn resources() -> [ApiResource; 2] {
    [
        ApiResource::erase::<TokenScopePolicy>(&()),
        ApiResource::erase::<ClusterTokenScopePolicy>(&()),
    ]
}

/// The kind of boundaries to watch.
pub fn boundaries() -> ApiResource {
    ApiResource::erase::<TokenScopeBoundary>(&())
}

/// The most bytes of a policy's specification as compact JSON. The schema allows less; an object that was stored under an
/// older schema may have more, and grants nothing then.
pub const MOST_SPEC_BYTES: usize = 32 * 1024;

/// The bytes of a value as compact JSON, which is not made.
fn size(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        // Values always serialise.
        Err(_) => usize::MAX,
    }
}

/// The policy that an object is, and its statement. The error names the first field that is wrong.
pub fn read(object: &DynamicObject) -> (PolicyName, Result<Policy, InvalidPolicy>) {
    let name = name(object);
    let policy = policy(object, &name);
    (name, policy)
}

/// The name of the policy that an object is: a namespaced one has a namespace, a cluster one has none.
pub fn name(object: &DynamicObject) -> PolicyName {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    match &object.metadata.namespace {
        Some(namespace) => PolicyName::namespaced(namespace, name),
        None => PolicyName::cluster(name),
    }
}

/// An object's status; an unreadable one is an empty one, which the operator writes anew.
pub fn status(object: &DynamicObject) -> PolicyStatus {
    object
        .data
        .get("status")
        .and_then(|status| serde::Deserialize::deserialize(status).ok())
        .unwrap_or_default()
}

/// The selector that a field states, here or in an object of another API.
pub fn selector(value: &Value, field: &str) -> Result<Selector, InvalidPolicy> {
    selector::selector(&typed::<LabelSelector>(value, field)?, field)
}

/// The boundary that an object is, and its statement. The error names the first field that is wrong.
///
/// A field that is not known here is wrong too: each limits what policies may grant, and a limit that is passed over is none.
pub fn boundary(object: &DynamicObject) -> (Box<str>, Result<Boundary, InvalidPolicy>) {
    let name: Box<str> = object.metadata.name.as_deref().unwrap_or_default().into();
    let boundary = checked_spec(object, &BOUNDARY)
        .and_then(|spec| match BOUNDARY.unknown_field(spec, "spec") {
            Some(field) => Err(InvalidPolicy::new(field, messages::UNKNOWN_IN_BOUNDARY)),
            None => typed::<BoundarySpec>(spec, "spec"),
        })
        .and_then(|spec| spec.boundary(&name));
    (name, boundary)
}

/// An object's specification, if it is not too large and has objects where there should be objects.
fn checked_spec<'a>(object: &'a DynamicObject, shape: &Shape) -> Result<&'a Value, InvalidPolicy> {
    let spec = object.data.get("spec").unwrap_or(&Value::Null);
    let size = size(spec);
    if size > MOST_SPEC_BYTES {
        let reason = format!("should have at most {MOST_SPEC_BYTES} bytes of JSON, not {size}: write several policies");
        return Err(InvalidPolicy::new("spec", reason));
    }
    match shape.list_for_an_object(spec, "spec") {
        Some(field) => Err(InvalidPolicy::new(field, "should be an object, not a list")),
        None => Ok(spec),
    }
}

fn policy(object: &DynamicObject, name: &PolicyName) -> Result<Policy, InvalidPolicy> {
    let spec = checked_spec(object, &POLICY)?;
    whole_policy(object, spec, name).map_err(|why| InvalidPolicy {
        scope: scope(spec, name).map(Arc::new),
        ..why
    })
}

/// The pods and the time that a policy is about which can't be used; none where its selectors can't be read. What can't be read of
/// its time counts as if it were always in force, so that it grants nothing all the same.
fn scope(spec: &Value, name: &PolicyName) -> Option<PolicyScope> {
    let part = |part: &str| spec.get(part).unwrap_or(&Value::Null);
    let schedule = || {
        let schedule: ActiveSchedule = typed(part("activeSchedule"), "spec.activeSchedule").ok()?;
        Schedule::parse(&schedule.cron, &schedule.duration, &schedule.time_zone).ok()
    };
    let subjects = match spec.get("subjects") {
        None => Vec::new(),
        Some(subjects) => typed::<Vec<SubjectSpec>>(subjects, "spec.subjects").ok()?,
    };
    Some(PolicyScope {
        namespace_selector: namespace_selector(spec, name).ok()?,
        subjects: parse::subjects(&subjects).ok()?,
        assigns_role: spec.get("roles").is_some_and(|roles| !roles["default"].is_null()),
        disabled: part("disabled") == true,
        fallback: part("fallback") == true,
        expires_at: part("expiresAt").as_str().and_then(|text| text.parse().ok()),
        active_schedule: schedule(),
    })
}

fn namespace_selector(spec: &Value, name: &PolicyName) -> Result<Selector, InvalidPolicy> {
    match spec.get("namespaceSelector") {
        Some(selector) if name.is_cluster() => {
            const FIELD: &str = "spec.namespaceSelector";
            self::selector(selector, FIELD)
        }
        _ => Ok(Selector::default()),
    }
}

fn whole_policy(object: &DynamicObject, spec: &Value, name: &PolicyName) -> Result<Policy, InvalidPolicy> {
    let namespace_selector = namespace_selector(spec, name)?;
    typed::<PolicySpec>(spec, "spec")?.policy(name.clone(), &object.metadata, namespace_selector)
}

fn typed<T: DeserializeOwned>(value: &Value, field: &str) -> Result<T, InvalidPolicy> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let field = match path.as_str() {
            "." => field.to_owned(),
            path => format!("{field}.{path}"),
        };
        InvalidPolicy::new(field, error.inner())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ROLE: &str = "arn:aws:iam::111122223333:role/orders";

    fn cluster_policy(spec: &Value) -> DynamicObject {
        let object = json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "ClusterTokenScopePolicy", "metadata": {"name": "all"}, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn of_a_policy_that_can_not_be_used_the_pods_that_it_is_about_are_read_where_that_can_be() {
        let spec = json!({
            "namespaceSelector": {"matchLabels": {"team": "a"}}, "subjects": [{"serviceAccounts": ["orders"]}],
            "roles": {"default": ROLE}, "aws": {"region": "eu-central-1a"}, "fallback": true, "disabled": true,
            "expiresAt": "2030-01-01T00:00:00Z", "activeSchedule": {"cron": "0 22 * * *", "duration": "8h", "timeZone": "UTC"},
        });
        let scope = |spec: &Value| read(&cluster_policy(spec)).1.unwrap_err().scope;
        let found = scope(&spec).unwrap();
        assert!(found.assigns_role && found.fallback && found.disabled);
        assert_eq!(found.namespace_selector.0.len(), 1);
        assert!(found.subjects[0].matches_service_account("orders") && !found.subjects[0].matches_service_account("x"));
        assert!(found.expires_at.is_some() && found.active_schedule.is_some());

        for (part, value) in [
            ("namespaceSelector", json!("all")),
            (
                "namespaceSelector",
                json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            ),
            ("subjects", json!({})),
            ("subjects", json!([{"serviceAccounts": ["a?"]}])),
            ("subjects", json!([{"podSelector": {"matchLabels": {"a": 1}}}])),
            ("description", json!("x".repeat(40_000))),
        ] {
            let mut unreadable = spec.clone();
            unreadable[part] = value;
            assert_eq!(scope(&unreadable), None, "{part}");
        }
        // What can't be read of its time counts as always.
        let mut odd = spec;
        for (part, value) in [
            ("expiresAt", json!(7)),
            ("activeSchedule", json!({"cron": "x"})),
            ("disabled", json!("true")),
        ] {
            odd[part] = value;
        }
        let found = scope(&odd).unwrap();
        assert!(!found.disabled && found.expires_at.is_none() && found.active_schedule.is_none());
        odd["roles"] = json!({"allowed": ["nonsense"]});
        assert!(!scope(&odd).unwrap().assigns_role);
    }
}
