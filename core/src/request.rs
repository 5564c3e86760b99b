//! The facts about a workload that a decision looks at.

use crate::Pairs;

/// A pod, its service account and its namespace, as far as they matter.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The namespace's name.
    pub namespace: &'a str,
    /// The namespace's labels.
    pub namespace_labels: Pairs<&'a str>,
    /// The service account's name.
    pub service_account: &'a str,
    /// The service account's annotations, at least those that [`crate::annotations::is_relevant`] names.
    pub service_account_annotations: Pairs<&'a str>,
    /// The pod.
    pub pod: PodFacts<'a>,
}

/// The pod's part of a [`Request`]: what its user wrote, without what an earlier review of ours added.
#[derive(Clone, Debug, Default)]
pub struct PodFacts<'a> {
    /// Labels.
    pub labels: Pairs<&'a str>,
    /// Annotations.
    pub annotations: Pairs<&'a str>,
    /// Init containers (native sidecars among them), then containers.
    pub containers: Vec<Container<'a>>,
}

/// One container.
#[derive(Clone, Copy, Debug)]
pub struct Container<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its own `AWS_ROLE_ARN`.
    pub own_role: OwnRole<'a>,
    /// Whether it brings its own `AWS_WEB_IDENTITY_TOKEN_FILE`.
    pub own_token_file: bool,
}

/// A container's own `AWS_ROLE_ARN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnRole<'a> {
    /// It has none.
    Absent,
    /// It has one, written out.
    Literal(&'a str),
    /// It has one that comes from elsewhere (`valueFrom`, or with `$(…)` in it), so nobody can judge it here.
    Indirect,
}
