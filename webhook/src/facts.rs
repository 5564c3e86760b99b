//! From a pod and what is known around it to the request that the rule judges.

use tokenscope_core::pod::Pod;
use tokenscope_core::{GrantRecord, Pairs, Request};
pub use tokenscope_index::service_account;
use tokenscope_index::{DriverTokens, PodContext};

/// The facts about a pod's namespace and service account.
#[derive(Clone, Debug, Default)]
pub struct ReviewContext<'a> {
    /// The namespace's labels.
    pub namespace_labels: Pairs<&'a str>,
    /// The service account's annotations, at least those that can change a decision; `None` where there is none of that name.
    pub service_account_annotations: Option<Pairs<&'a str>>,
    /// True if a watch has been silent for so long that all this may no longer be true.
    pub stale: bool,
    /// The reason why nothing can be granted here, if nothing can: the namespace needs more than is kept of one.
    pub refused: Option<String>,
    /// True if that is because policies, boundaries or the namespace's labels are not all known: no token can be judged by them either.
    pub lacks_policies: bool,
    /// The tokens of the CSI drivers that the pod's inline volumes are of.
    pub driver_tokens: Option<&'a DriverTokens>,
}

/// The facts about a pod, without what `record` says that an earlier review added.
pub fn request<'a, S: AsRef<str>>(
    pod: &'a Pod<S>,
    record: Option<&'a GrantRecord<'_>>,
    namespace: &'a str,
    surroundings: ReviewContext<'a>,
) -> Request<'a> {
    let context = PodContext {
        namespace,
        namespace_labels: surroundings.namespace_labels,
        service_account: service_account(pod),
        service_account_annotations: surroundings.service_account_annotations.unwrap_or_default(),
    };
    let mut pod = pod.facts(record);
    match surroundings.driver_tokens {
        Some(drivers) => drivers.fill(&mut pod.token_volumes),
        None => pod.token_volumes.retain(|volume| !volume.tokens.is_empty()),
    }
    context.request(pod)
}
