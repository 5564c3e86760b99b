//! The order of an object's versions.

use kube::{Resource, ResourceExt as _};

/// Takes what a watch brought, unless it is older than what is known already, such as the answer to an own write.
pub(crate) fn keep_newer<K: Resource>(known: &mut Option<K>, found: Option<K>) {
    if let (Some(known), Some(found)) = (&known, &found)
        && known.uid() == found.uid()
        && is_older(found.resource_version().as_deref(), known.resource_version().as_deref())
    {
        return;
    }
    *known = found;
}

/// True if a resource version comes before another of the same object.
///
/// They are comparable as numbers (KEP-5504); where one is none, nothing is older.
pub(crate) fn is_older(version: Option<&str>, other: Option<&str>) -> bool {
    let number = |version: Option<&str>| version?.parse::<u64>().ok();
    match (number(version), number(other)) {
        (Some(version), Some(other)) => version < other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;
    use kube::core::ObjectMeta;

    use super::*;

    fn secret(uid: &str, version: &str) -> Secret {
        Secret {
            metadata: ObjectMeta {
                uid: Some(uid.into()),
                resource_version: Some(version.into()),
                ..ObjectMeta::default()
            },
            ..Secret::default()
        }
    }

    #[test]
    fn what_is_older_than_an_own_write_is_not_believed() {
        let mut known = Some(secret("a", "10"));
        keep_newer(&mut known, Some(secret("a", "9")));
        assert_eq!(known, Some(secret("a", "10")));
        keep_newer(&mut known, Some(secret("a", "11")));
        assert_eq!(known, Some(secret("a", "11")));
        keep_newer(&mut known, Some(secret("b", "2")));
        assert_eq!(known, Some(secret("b", "2")), "another object of the same name");
        keep_newer(&mut known, None);
        assert_eq!(known, None);
    }
}
