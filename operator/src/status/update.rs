//! Writing a policy's status, and nothing else of it.

use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::DynamicObject,
};
use serde_json::{Value, json};
use tokenscope_core::PolicyName;
use tokenscope_crds::{read, v1alpha1::PolicyStatus};

/// Writes it onto the object of this UID; if there is another one of that name meanwhile, the API server refuses.
pub(crate) async fn update_status(
    client: Client,
    name: &PolicyName,
    uid: Option<&str>,
    status: &PolicyStatus,
) -> Result<DynamicObject, kube::Error> {
    let [namespaced, cluster] = read::resources();
    let api: Api<DynamicObject> = match name.namespace() {
        Some(namespace) => Api::namespaced_with(client, namespace, &namespaced),
        None => Api::all_with(client, &cluster),
    };
    let patch = patch(uid, status).map_err(kube::Error::SerdeError)?;
    api.patch_status(name.name(), &PatchParams::default(), &Patch::Merge(patch))
        .await
}

/// A merge patch leaves alone what it does not mention (RFC 7386), so what is not there is mentioned as null.
fn patch(uid: Option<&str>, status: &PolicyStatus) -> Result<Value, serde_json::Error> {
    const FIELDS: [&str; 12] = [
        "observedGeneration",
        "generationObservedAt",
        "conditions",
        "roles",
        "matchedPods",
        "injectedPods",
        "missedPods",
        "outdatedPods",
        "ungrantedTokenPods",
        "ungrantedTokenPodNames",
        "lockedTokenCsiDrivers",
        "trustPolicies",
    ];
    let mut status = serde_json::to_value(status)?;
    if let Value::Object(fields) = &mut status {
        for field in FIELDS {
            fields.entry(field).or_insert(Value::Null);
        }
    }
    Ok(json!({"metadata": {"uid": uid}, "status": status}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use tokenscope_crds::{
        conditions::{Reason, condition},
        v1alpha1::TrustPolicyStatus,
    };

    #[test]
    fn what_is_gone_is_removed_and_nothing_is_forgotten() {
        let empty = patch(Some("u"), &PolicyStatus::default()).unwrap();
        let fields = empty["status"].as_object().unwrap();
        assert!(fields.values().all(Value::is_null));

        let full = PolicyStatus {
            observed_generation: Some(1),
            generation_observed_at: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                Timestamp::UNIX_EPOCH,
            )),
            conditions: vec![condition(Reason::Valid, "", None, Timestamp::UNIX_EPOCH)],
            roles: Some("r".into()),
            matched_pods: Some(1),
            injected_pods: Some(1),
            missed_pods: Some(0),
            outdated_pods: Some(0),
            ungranted_token_pods: Some(1),
            ungranted_token_pod_names: vec!["a".into()],
            locked_token_csi_drivers: vec!["b".into()],
            trust_policies: vec![TrustPolicyStatus::default()],
        };
        let full = serde_json::to_value(full).unwrap();
        let all: Vec<&String> = full.as_object().unwrap().keys().collect();
        assert_eq!(
            all,
            fields.keys().collect::<Vec<_>>(),
            "a new field belongs into the list"
        );
    }
}
