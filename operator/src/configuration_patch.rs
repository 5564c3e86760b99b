//! The authorities in the webhook configuration, and the patch that corrects them.

use jiff::Timestamp;
use json_patch::jsonptr::PointerBuf;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use serde_json::json;
use tokenscope_platform::certificate::Certificate;

use crate::certificates::{DISTRUSTED_CERTIFICATES, DistrustList, Trusting};

/// Annotation of the configuration: what is distrusted of the issuer's authorities. What is of the webhook's stands in
/// [`DISTRUSTED_CERTIFICATES`].
const DISTRUSTED_ISSUER_CERTIFICATES: &str = "tokenscope.io/distrusted-issuer-certificates";

/// The authorities of which the configuration says what is distrusted, and in which annotation.
pub(crate) const AUTHORITIES: [(&str, Trusting); 2] = [
    (DISTRUSTED_CERTIFICATES, Trusting::ApiServers),
    (DISTRUSTED_ISSUER_CERTIFICATES, Trusting::Pods),
];

/// The list in an annotation of the configuration.
pub(crate) fn noted(configuration: Option<&MutatingWebhookConfiguration>, key: &str) -> DistrustList {
    let annotations = configuration.and_then(|configuration| configuration.metadata.annotations.as_ref());
    DistrustList::read(
        annotations
            .and_then(|annotations| annotations.get(key))
            .map(String::as_str),
    )
}

/// The bundle without what is distrusted; none if nothing is left.
pub(crate) fn without_distrusted(bundle: Vec<u8>, distrusted: &DistrustList, now: Timestamp) -> Option<Vec<u8>> {
    let (mut certificates, _) = Certificate::all_in(&bundle);
    let all = certificates.len();
    certificates.retain(|certificate| !distrusted.has(certificate, now));
    match certificates.len() {
        0 => None,
        left if left == all => Some(bundle),
        _ => Some(certificates.iter().map(Certificate::pem).collect::<String>().into()),
    }
}

/// The caBundle of each webhook, empty where there is none.
pub(crate) fn bundles(configuration: &MutatingWebhookConfiguration) -> Vec<Vec<u8>> {
    let webhooks = configuration.webhooks.iter().flatten();
    webhooks
        .map(|webhook| {
            webhook
                .client_config
                .ca_bundle
                .as_ref()
                .map_or_else(Vec::new, |bundle| bundle.0.clone())
        })
        .collect()
}

/// The patch that gives every webhook this bundle, and notes what is distrusted; none if all is so. It holds for the version that was
/// looked at only.
pub(crate) fn patch(
    configuration: &MutatingWebhookConfiguration,
    bundle: Option<&[u8]>,
    distrusted: &[(&str, DistrustList)],
) -> Option<json_patch::Patch> {
    let add = |path: &[&str], value| {
        json_patch::PatchOperation::Add(json_patch::AddOperation {
            path: PointerBuf::from_tokens(path.iter().copied()),
            value,
        })
    };
    let mut operations = vec![json_patch::PatchOperation::Test(json_patch::TestOperation {
        path: PointerBuf::from_tokens(["metadata", "resourceVersion"]),
        value: json!(configuration.metadata.resource_version),
    })];
    for (index, found) in bundles(configuration).iter().enumerate() {
        if let Some(bundle) = bundle.filter(|bundle| found != bundle) {
            let path = ["webhooks", &index.to_string(), "clientConfig", "caBundle"];
            operations.push(add(&path, json!(ByteString(bundle.to_vec()))));
        }
    }
    let mut has_annotations = configuration.metadata.annotations.is_some();
    for (key, list) in distrusted {
        let noted = noted(Some(configuration), key);
        if !noted.lacks(list) {
            continue;
        }
        if !has_annotations {
            operations.push(add(&["metadata", "annotations"], json!({})));
            has_annotations = true;
        }
        operations.push(add(&["metadata", "annotations", key], json!(list.text())));
    }
    (operations.len() > 1).then_some(json_patch::Patch(operations))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(bundles: &[Option<&str>]) -> MutatingWebhookConfiguration {
        let webhooks: Vec<_> = bundles
            .iter()
            .enumerate()
            .map(|(index, bundle)| {
                let bundle = bundle.map(|text| ByteString(text.into()));
                json!({
                    "name": format!("w{index}.tokenscope.io"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
                    "clientConfig": {"service": {"name": "s", "namespace": "n"}, "caBundle": bundle},
                })
            })
            .collect();
        let object = json!({"metadata": {"name": "tokenscope", "resourceVersion": "7"}, "webhooks": webhooks});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn only_what_differs_is_patched_and_only_the_version_that_was_looked_at() {
        let patch = patch(
            &configuration(&[Some("right"), None, Some("wrong")]),
            Some(b"right"),
            &[],
        )
        .unwrap();

        let bundle = json!(ByteString(b"right".to_vec()));
        let expected = json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
            {"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": bundle},
            {"op": "add", "path": "/webhooks/2/clientConfig/caBundle", "value": bundle},
        ]);
        assert_eq!(serde_json::to_value(patch).unwrap(), expected);
    }

    #[test]
    fn nothing_is_written_where_nothing_differs() {
        assert_eq!(
            patch(&configuration(&[Some("right"), Some("right")]), Some(b"right"), &[]),
            None
        );
        assert_eq!(patch(&configuration(&[]), Some(b"right"), &[]), None);
    }

    fn authority() -> Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Certificate::all_in(pem.as_bytes()).0.remove(0)
    }

    #[test]
    fn a_distrusted_authority_gets_into_the_bundle_by_no_replica_that_heard_nothing_of_it() {
        let (leaked, present) = (authority(), authority());
        let now = Timestamp::now();
        let mut list = DistrustList::default();
        list.add([&leaked]);
        let believed = |bundle: String| without_distrusted(bundle.into_bytes(), &list, now);
        assert_eq!(believed(leaked.pem()), None);
        assert_eq!(
            believed(leaked.pem() + &present.pem()),
            Some(present.pem().into_bytes())
        );
        assert_eq!(believed(present.pem()), Some(present.pem().into_bytes()));
    }

    #[test]
    fn what_is_distrusted_is_noted_in_the_configuration_with_the_bundle() {
        let mut list = DistrustList::default();
        list.add([&authority()]);
        let distrusted = [(DISTRUSTED_CERTIFICATES, list.clone())];
        let mut configuration = configuration(&[Some("wrong")]);
        let operations = serde_json::to_value(patch(&configuration, Some(b"right"), &distrusted).unwrap()).unwrap();
        let expected = json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
            {"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": json!(ByteString(b"right".to_vec()))},
            {"op": "add", "path": "/metadata/annotations", "value": {}},
            {"op": "add", "path": "/metadata/annotations/tokenscope.io~1distrusted-certificates", "value": list.text()},
        ]);
        assert_eq!(operations, expected);
        let annotations = [(DISTRUSTED_CERTIFICATES.to_owned(), list.text())];
        configuration.metadata.annotations = Some(annotations.into());
        assert_eq!(noted(Some(&configuration), DISTRUSTED_CERTIFICATES), list);
        assert_eq!(patch(&configuration, None, &distrusted), None);
    }
}
