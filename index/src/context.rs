//! The namespace and the service account of a pod, and the request that a decision is made about.

use tokenscope_core::pod::Pod;
use tokenscope_core::{Pairs, PodFacts, Request, annotations};

/// The service account that the API server's own admission gives a pod that names none.
pub const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// The service account of a pod.
pub fn service_account<S: AsRef<str>>(pod: &Pod<S>) -> &str {
    let named = pod.spec.service_account_name.as_ref().map(AsRef::as_ref);
    named.filter(|name| !name.is_empty()).unwrap_or(DEFAULT_SERVICE_ACCOUNT)
}

/// The namespace and the service account of a pod.
#[derive(Clone, Debug)]
pub struct PodContext<'a> {
    /// The namespace's name.
    pub namespace: &'a str,
    /// The namespace's labels.
    pub namespace_labels: Pairs<&'a str>,
    /// The service account's name.
    pub service_account: &'a str,
    /// The service account's annotations, at least those that can change a decision.
    pub service_account_annotations: Pairs<&'a str>,
}

impl<'a> PodContext<'a> {
    /// True if the namespace's label keeps the webhook from reviewing its pods. The chart's `namespaceSelector` states the
    /// same.
    pub fn opts_out(&self) -> bool {
        self.namespace_labels.value(annotations::INJECT) == Some("false")
    }

    /// The request about a pod of these facts.
    pub fn request(self, pod: PodFacts<'a>) -> Request<'a> {
        Request {
            namespace: self.namespace,
            namespace_labels: self.namespace_labels,
            service_account: self.service_account,
            service_account_annotations: self.service_account_annotations,
            pod,
        }
    }
}
