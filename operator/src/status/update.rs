//! Writing a policy's status, and nothing else of it.
//!
//! The status is put in place as a whole, by a JSON patch: what is not in it is gone, whoever wrote it. Server-side apply would
//! say the same, but the API server applies nothing to an object that does not fit its schema, and just such a policy must be
//! told that it is malformed (docs/adr/0017).

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, TestOperation};
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Api, Client};
use serde_json::json;
use tokenscope_core::PolicyName;
use tokenscope_crds::read;
use tokenscope_crds::v1alpha1::PolicyStatus;

use crate::FIELD_MANAGER;

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
    let params = PatchParams::apply(FIELD_MANAGER);
    let patch = patch(uid, status).map_err(kube::Error::SerdeError)?;
    api.patch_status(name.name(), &params, &Patch::<()>::Json(patch)).await
}

fn patch(uid: Option<&str>, status: &PolicyStatus) -> Result<json_patch::Patch, serde_json::Error> {
    let same_object = uid.map(|uid| {
        PatchOperation::Test(TestOperation {
            path: PointerBuf::from_tokens(["metadata", "uid"]),
            value: json!(uid),
        })
    });
    // It replaces what is there (RFC 6902, 4.1).
    let status = PatchOperation::Add(AddOperation {
        path: PointerBuf::from_tokens(["status"]),
        value: serde_json::to_value(status)?,
    });
    Ok(json_patch::Patch(same_object.into_iter().chain([status]).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_replaced_as_a_whole_and_on_this_object_only() {
        let status = PolicyStatus {
            matched_pods: Some(1),
            ..PolicyStatus::default()
        };
        let patch = patch(Some("u"), &status).unwrap();
        let mut object = json!({"metadata": {"uid": "u"}, "spec": "any", "status": {"missedPods": 7, "unknown": [1]}});

        json_patch::patch(&mut object, &patch).unwrap();
        assert_eq!(
            object,
            json!({"metadata": {"uid": "u"}, "spec": "any", "status": {"matchedPods": 1}})
        );

        for mut other in [
            json!({"metadata": {"uid": "u"}, "status": "malformed"}),
            json!({"metadata": {"uid": "u"}}),
        ] {
            json_patch::patch(&mut other, &patch).unwrap();
            assert_eq!(other["status"], json!({"matchedPods": 1}));
        }
        let mut other = json!({"metadata": {"uid": "another"}, "status": {}});
        assert!(json_patch::patch(&mut other, &patch).is_err());
    }
}
