//! What all watches need: the order of versions, and lists that stream where the API server can.

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

/// Whether a resource version comes before another of the same object.
///
/// They are comparable as numbers (KEP-5504); where one is none, nothing is older.
pub(crate) fn is_older(version: Option<&str>, other: Option<&str>) -> bool {
    let number = |version: Option<&str>| version?.parse::<u64>().ok();
    match (number(version), number(other)) {
        (Some(version), Some(other)) => version < other,
        _ => false,
    }
}
