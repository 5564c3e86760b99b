//! One Secret: its data and its annotations.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// A Secret to be created, or to be replaced if it carries a resource version.
pub(crate) enum Write {
    /// The authority's.
    Authority(Secret),
    /// The authority that was deleted or replaced by a distrusted one, as it was.
    RestoredAuthority(Secret),
    /// The serving certificate's.
    Serving(Secret),
}

/// True if the annotation `wish` has a value that `done` doesn't repeat.
pub(super) fn requested(secret: Option<&Secret>, wish: &str, done: &str) -> bool {
    let wanted = annotation(secret, wish).filter(|value| !value.is_empty());
    wanted.is_some() && wanted != annotation(secret, done)
}

/// Notes that the wish was obeyed.
pub(super) fn obey(secret: &mut Secret, wish: &str, done: &str) {
    let annotations = annotations(secret);
    if let Some(wanted) = annotations.get(wish).cloned() {
        annotations.insert(done.into(), wanted);
    }
}

/// The Secret, or a new one of this name.
pub(super) fn present(secret: Option<&Secret>, name: &str) -> Secret {
    secret.cloned().unwrap_or_else(|| Secret {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: Some(BTreeMap::from([
                ("app.kubernetes.io/part-of".into(), "tokenscope".into()),
                ("app.kubernetes.io/managed-by".into(), "tokenscope-operator".into()),
            ])),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".into()),
        ..Secret::default()
    })
}

/// The value of a key; empty where there is none.
pub(super) fn data<'a>(secret: Option<&'a Secret>, key: &str) -> &'a [u8] {
    secret
        .and_then(|secret| secret.data.as_ref()?.get(key))
        .map_or(&[], |value| &value.0)
}

/// Sets the value of a key.
pub(super) fn set(secret: &mut Secret, key: &str, value: impl Into<Vec<u8>>) {
    let data = secret.data.get_or_insert_default();
    data.insert(key.into(), ByteString(value.into()));
}

/// The value of an annotation.
pub(super) fn annotation<'a>(secret: Option<&'a Secret>, key: &str) -> Option<&'a str> {
    secret?.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// All annotations.
pub(super) fn annotations(secret: &mut Secret) -> &mut BTreeMap<String, String> {
    secret.metadata.annotations.get_or_insert_default()
}
