//! The facts about a workload that a decision looks at.

use crate::annotations;
use crate::bounds::{Beyond, MOST_ANNOTATIONS};
use crate::labels::Pairs;

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
    /// Annotations, at least those that [`crate::annotations::is_relevant`] names.
    pub annotations: Pairs<&'a str>,
    /// The number of its annotations, whatever their keys.
    pub annotation_count: usize,
    /// Init containers (native sidecars among them), then containers.
    pub containers: Vec<ContainerFacts<&'a str>>,
    /// Volumes that hold service account tokens, without the one that tokenscope's own review added.
    pub token_volumes: Vec<TokenVolume<'a>>,
    /// The bounds of a review that it exceeds: it has more than what stands here.
    pub beyond: Vec<Beyond>,
}

impl PodFacts<'_> {
    /// True if the pod has too many annotations for the guard's CEL to look at them, so that it must bear the mark of a
    /// review.
    pub fn has_too_many_annotations_for_cel(&self) -> bool {
        self.annotation_count > MOST_ANNOTATIONS
    }

    /// The bounds that keep the lock, here and in the API server's own policies, from looking at all of the pod's tokens.
    pub fn volumes_beyond(&self) -> impl Iterator<Item = &Beyond> {
        let of_volumes = |beyond: &&Beyond| matches!(beyond, Beyond::Volumes | Beyond::Sources { .. });
        self.beyond.iter().filter(of_volumes)
    }
}

/// A volume of the pod that holds service account tokens, or whose CSI driver gets them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenVolume<'a> {
    /// Its name.
    pub name: &'a str,
    /// The CSI driver that the kubelet gives the tokens to; `None` for a projected volume.
    pub csi_driver: Option<&'a str>,
    /// The tokens.
    pub tokens: Vec<HeldToken<'a>>,
    /// The names of the containers that mount it.
    pub containers: Vec<&'a str>,
}

/// A service account token that a volume holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldToken<'a> {
    /// Its audience; `None` where it is one for the API server itself.
    pub audience: Option<&'a str>,
    /// Its lifetime in seconds; `None` where the API server decides.
    pub expiration_seconds: Option<i64>,
}

/// One container. Its texts are borrowed in a request (`ContainerFacts<&str>`), and owned where a pod is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerFacts<S> {
    /// Its name.
    pub name: S,
    /// Its own `AWS_ROLE_ARN`.
    pub own_role: OwnRole<S>,
    /// True if it brings its own `AWS_WEB_IDENTITY_TOKEN_FILE`.
    pub own_token_file: bool,
    /// True if it sends the SDK to an agent for credentials itself, by a variable of `AWS_CONTAINER_…`.
    pub own_agent: bool,
    /// Its own words about the SDK's configuration.
    pub own_configuration: OwnConfiguration<S>,
}

/// A container's own words about the configuration of its SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnConfiguration<S> {
    /// There are none, or they say what a config file of ours needs.
    Absent,
    /// It chooses this profile, by `AWS_PROFILE` or `AWS_DEFAULT_PROFILE`.
    Profile(S),
    /// It sends the SDK elsewhere, by this variable.
    Elsewhere(&'static str),
}

/// A container's own `AWS_ROLE_ARN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnRole<S> {
    /// It has none.
    Absent,
    /// It has one, written out.
    Literal(S),
    /// It has one that comes from elsewhere (`valueFrom`, or with `$(…)` in it), so nobody can judge it here.
    Indirect,
    /// It has none, but takes credentials from an agent by `AWS_CONTAINER_CREDENTIALS_FULL_URI` or `…_RELATIVE_URI`.
    Agent,
}

impl<S: AsRef<str>> ContainerFacts<S> {
    /// The same facts with other texts: `str::into` owns them.
    pub fn map<'a, T>(&'a self, text: impl Fn(&'a str) -> T) -> ContainerFacts<T> {
        ContainerFacts {
            name: text(self.name.as_ref()),
            own_role: match &self.own_role {
                OwnRole::Absent => OwnRole::Absent,
                OwnRole::Literal(role) => OwnRole::Literal(text(role.as_ref())),
                OwnRole::Indirect => OwnRole::Indirect,
                OwnRole::Agent => OwnRole::Agent,
            },
            own_token_file: self.own_token_file,
            own_agent: self.own_agent,
            own_configuration: match &self.own_configuration {
                OwnConfiguration::Absent => OwnConfiguration::Absent,
                OwnConfiguration::Profile(name) => OwnConfiguration::Profile(text(name.as_ref())),
                OwnConfiguration::Elsewhere(variable) => OwnConfiguration::Elsewhere(variable),
            },
        }
    }
}

impl Request<'_> {
    /// True if the pod must carry the review's mark: it names a role itself, its namespace requires a review, or it is too
    /// large for the API server's own rules to look into it.
    ///
    /// These are the pods that the API server's guard looks at.
    pub fn needs_mark(&self) -> bool {
        self.namespace_labels.value(annotations::REQUIRED) == Some("true") || self.may_ask_itself()
    }

    /// True if the pod names a role itself, or has more annotations than the API server's own rules look into.
    pub fn may_ask_itself(&self) -> bool {
        asks_itself(&self.pod.annotations) || self.pod.has_too_many_annotations_for_cel()
    }
}

/// True if a pod with these annotations names a role itself, so that it has to be reviewed. The guard's CEL says the same.
pub fn asks_itself<S: AsRef<str>>(pod_annotations: &Pairs<S>) -> bool {
    pod_annotations
        .iter()
        .any(|(key, _)| key == annotations::ROLE_ARN || key.starts_with(annotations::CONTAINER_ROLE_ARN))
}
