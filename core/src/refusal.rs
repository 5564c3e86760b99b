//! The reasons why a pod is denied, in sentences that its owner can act on.

use std::fmt;

use jiff::Timestamp;

use crate::annotations::InvalidAnnotation;
use crate::bounds::Beyond;
use crate::text::{and_more, bounded};
use crate::{
    AssociationRefusal, Audience, NoContextRoom, OutsideBoundary, PolicyName, RoleArn, TokenExpiration, TokenSource,
};

/// The most refusals that are kept: a cluster can have more policies than anybody reads refusals.
const MOST_REFUSALS: usize = 16;
/// The most sentences of a message.
const MOST_SENTENCES: usize = 8;
/// The most bytes of a sentence: names, patterns and reasons in it are other people's.
const MOST_SENTENCE_BYTES: usize = 1024;
/// The most bytes of a message. Users read it in a terminal, and the API server writes it into its log.
const MOST_MESSAGE_BYTES: usize = 4096;

/// The reasons that stood against a pod. `Display` is one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denied {
    /// The reasons, the nearest miss first. Never empty.
    pub refusals: Vec<Refusal>,
    /// The number of further ones.
    pub more: usize,
}

impl Denied {
    /// The reasons as users read them, each and all together of bounded length. The last says how many are missing.
    pub fn sentences(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        // Room for the last one, which counts the others.
        let mut room = MOST_MESSAGE_BYTES - 32;
        for refusal in self.refusals.iter().take(MOST_SENTENCES) {
            let sentence = bounded(refusal.to_string(), MOST_SENTENCE_BYTES);
            let Some(left) = room.checked_sub(sentence.len() + SEPARATOR.len()) else {
                break;
            };
            room = left;
            sentences.push(sentence);
        }
        let missing = self.refusals.len() - sentences.len() + self.more;
        if missing > 0 {
            sentences.push(and_more(missing));
        }
        sentences
    }
}

const SEPARATOR: &str = "; ";

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentences().join(SEPARATOR))
    }
}

/// Refusals as they are found: each once, and no more than anybody reads.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    kept: Vec<Refusal>,
    more: usize,
}

impl Refusals {
    pub(crate) fn add(&mut self, refusal: Refusal) {
        self.add_with(|| Some(refusal));
    }

    /// Adds what is made only if it is kept.
    pub(crate) fn add_with(&mut self, refusal: impl FnOnce() -> Option<Refusal>) {
        if self.kept.len() == MOST_REFUSALS {
            self.more += 1;
            return;
        }
        if let Some(refusal) = refusal().filter(|refusal| !self.kept.contains(refusal)) {
            self.kept.push(refusal);
        }
    }

    /// `None` where there are none.
    pub(crate) fn denied(self) -> Option<Denied> {
        (!self.kept.is_empty()).then_some(Denied {
            refusals: self.kept,
            more: self.more,
        })
    }
}

/// The reason why a policy did not grant a request, or why none could. `Display` is the sentence that users read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The pod is larger than what a review looks at.
    #[error("{0}")]
    Beyond(Beyond),
    /// An annotation's value can't be parsed.
    #[error("{0}")]
    InvalidAnnotation(InvalidAnnotation),
    /// The pod may not have the token of EKS Pod Identity that its service account is listed for.
    #[error("{0}")]
    Association(AssociationRefusal),
    /// A container's own `AWS_ROLE_ARN` can't be parsed.
    #[error("AWS_ROLE_ARN of container {container}: {reason}")]
    InvalidOwnRole {
        /// The container.
        container: Box<str>,
        /// The fault.
        reason: crate::InvalidRoleArn,
    },
    /// A container's own `AWS_ROLE_ARN` and its annotation name two roles.
    #[error(
        "container {container} sets AWS_ROLE_ARN to {own} but annotation tokenscope.io/role-arn.{container} names {asked}: remove one of them"
    )]
    ContradictingRoles {
        /// The container.
        container: Box<str>,
        /// The role in its environment.
        own: RoleArn,
        /// The role in the annotation.
        asked: RoleArn,
    },
    /// The pod names containers that it does not have, and gets nothing.
    #[error(
        "annotations name the containers {named}, of which this pod has none: it has {containers}. Correct the names; for a container that \
         another webhook adds later, name the role by tokenscope.io/role-arn and in tokenscope.io/skip-containers those that should get none"
    )]
    UnknownContainers {
        /// The first names.
        named: Box<str>,
        /// The first of the pod's containers.
        containers: Box<str>,
    },
    /// The pod names containers itself, and lists or policies leave each out.
    #[error(
        "annotations of the pod name containers, and none of them gets anything: {containers}. Change what leaves them out, or remove the annotations that name them"
    )]
    NamedContainersLeftOut {
        /// The first names, each with the annotation or field that leaves it out.
        containers: Box<str>,
    },
    /// No policy is about the workload.
    #[error(
        "no policy selects service account {service_account} of namespace {namespace} with this pod's labels, so it may not have {role}: \
         a TokenScopePolicy in this namespace whose subjects match the pod and whose roles.allowed has the role would allow it"
    )]
    NoPolicy {
        /// The pod's namespace.
        namespace: Box<str>,
        /// The pod's service account.
        service_account: Box<str>,
        /// The role that was asked for.
        role: RoleArn,
    },
    /// The policy allows other roles.
    #[error("{policy} does not allow {role}: its roles.allowed has {allowed}")]
    RoleNotAllowed {
        /// The policy.
        policy: PolicyName,
        /// The role that was asked for.
        role: RoleArn,
        /// The allowed values, shortened.
        allowed: Box<str>,
    },
    /// The policy allows other audiences.
    #[error("{policy} does not allow audience {audience}: its audiences.allowed has {allowed}")]
    AudienceNotAllowed {
        /// The policy.
        policy: PolicyName,
        /// The audience that was asked for.
        audience: Audience,
        /// The allowed values, shortened.
        allowed: Box<str>,
    },
    /// The workload would get a token of the exchange audience.
    #[error(
        "the audience {audience} is that of tokenscope's own issuer, whose tokens no workload gets: change tokenscope.io/audience, or the installation's default audience"
    )]
    ExchangeAudience {
        /// The exchange audience.
        audience: Audience,
    },
    /// The policy names the exchange audience.
    #[error(
        "{policy} grants nothing: its audiences have {audience}, which is that of tokenscope's own issuer, whose tokens no workload gets"
    )]
    ExchangeAudienceInPolicy {
        /// The policy.
        policy: PolicyName,
        /// The exchange audience.
        audience: Audience,
    },
    /// The workload asks for a longer token than the policy gives.
    #[error("{policy} gives tokens of at most {} seconds and the workload asks for {}: lower tokenscope.io/token-expiration", most.seconds(), asked.seconds())]
    ExpirationTooLong {
        /// The policy.
        policy: PolicyName,
        /// The requested value.
        asked: TokenExpiration,
        /// The value of the policy.
        most: TokenExpiration,
    },
    /// The policy leaves the container out.
    #[error("{policy} does not cover container {container}: see its spec.containers")]
    ContainerNotCovered {
        /// The policy.
        policy: PolicyName,
        /// The container.
        container: Box<str>,
    },
    /// This version can't inject the policy's kind of token.
    #[error("{policy} wants tokens from {}, which is not available in this version: set its token.source to ServiceAccount or SPIFFE", source_name(*.source_of_token))]
    SourceNotAvailable {
        /// The policy.
        policy: PolicyName,
        /// Its source.
        source_of_token: TokenSource,
    },
    /// The role has characters that SDKs read in different ways in a config file.
    #[error(
        "{policy} delivers credentials by an AWS config file, and {role} has characters that SDKs read in different ways there: use a role whose path has only letters, digits and _+=,.@:/-, or set delivery.type: File in the policy"
    )]
    RoleInFile {
        /// The policy.
        policy: PolicyName,
        /// The role that was asked for.
        role: RoleArn,
    },
    /// Two containers would get tokens of different kinds.
    #[error(
        "container {one} would get its token from {} and container {other} from {}, and a pod has one place for tokens: let policies of one token.source grant both, or leave one container out", source_name(*.one_source), source_name(*.other_source)
    )]
    DifferentSources {
        /// The first container.
        one: Box<str>,
        /// The signer of its token.
        one_source: TokenSource,
        /// The other container.
        other: Box<str>,
        /// The signer of that one's token.
        other_source: TokenSource,
    },
    /// Two containers would get tokens of different SPIFFE identities.
    #[error(
        "containers {one} and {other} would get tokens of different SPIFFE identities, and a pod has one sidecar: let their policies have the same token.spiffe, or leave one container out"
    )]
    DifferentIdentities {
        /// The first container.
        one: Box<str>,
        /// The other one.
        other: Box<str>,
    },
    /// Two containers would get different tokens of one audience from tokenscope's own issuer.
    #[error(
        "{one_policy} grants container {one} and {other_policy} grants container {other} a token of tokenscope's issuer for audience {audience}, and a pod has one such token, which names its policy: let one policy grant both, or give one of them another audience"
    )]
    DifferentClaims {
        /// The first container.
        one: Box<str>,
        /// The policy that grants its token.
        one_policy: PolicyName,
        /// The other container.
        other: Box<str>,
        /// The policy that grants that one's token.
        other_policy: PolicyName,
        /// The audience of both.
        audience: Audience,
    },
    /// Two policies of one level assign one role, with tokens that say different things.
    #[error(
        "{one} and {other} assign {role} as default role to this pod with different tokens, role chains or deliveries: name it with annotation tokenscope.io/role-arn, let both policies have the same token, claims, audiences.default, aws.roleChain, delivery and outboundTokens, or remove one roles.default"
    )]
    ConflictingTokens {
        /// The first policy by name.
        one: PolicyName,
        /// The first policy by name whose tokens say something else.
        other: PolicyName,
        /// The role of both.
        role: RoleArn,
    },
    /// Two policies of one level assign different roles.
    #[error(
        "{one} and {other} assign different default roles to this pod, {one_role} and {other_role}: name one with annotation tokenscope.io/role-arn, or change a policy"
    )]
    ConflictingDefaults {
        /// The first policy by name.
        one: PolicyName,
        /// Its default.
        one_role: RoleArn,
        /// The first policy by name that has another default.
        other: PolicyName,
        /// That default.
        other_role: RoleArn,
    },
    /// The policy is switched off.
    #[error("{policy} is disabled")]
    Disabled {
        /// The policy.
        policy: PolicyName,
    },
    /// The policy's time is over.
    #[error("{policy} expired at {at}")]
    Expired {
        /// The policy.
        policy: PolicyName,
        /// When (UTC).
        at: Timestamp,
    },
    /// The policy is in force at other times.
    #[error("{policy} is not active now: its schedule is {schedule}{}", next_opening(*.next))]
    Inactive {
        /// The policy.
        policy: PolicyName,
        /// The schedule's text.
        schedule: Box<str>,
        /// When it is in force again (UTC).
        next: Option<Timestamp>,
    },
    /// The policy is about other workloads.
    #[error("{policy} does not select this pod: it is about {subjects}")]
    OtherSubject {
        /// The policy.
        policy: PolicyName,
        /// Its subjects, shortened.
        subjects: Box<str>,
    },
    /// The policy grants more than its namespace's policies may.
    #[error("{policy} grants nothing: {why}")]
    OutsideBoundary {
        /// The policy.
        policy: PolicyName,
        /// The values that are beyond a boundary, each with the boundary.
        why: OutsideBoundary,
    },
    /// The policy's context keys have no room beside those of cluster policies and older ones.
    #[error("{policy} grants nothing: {why}")]
    NoContextRoom {
        /// The policy.
        policy: PolicyName,
        /// The key that has no room.
        why: NoContextRoom,
    },
    /// No policy is required, but a boundary does not allow the grant.
    #[error("no policy selects the pod, and without one it may not have {role}: {why}")]
    OutsideBoundaryWithoutPolicy {
        /// The role that was asked for.
        role: RoleArn,
        /// The values that are beyond a boundary, each with the boundary.
        why: OutsideBoundary,
    },
    /// The policy itself is unusable.
    #[error("{policy} can't be used: {why}")]
    InvalidPolicy {
        /// The policy.
        policy: PolicyName,
        /// The fault.
        why: Box<str>,
    },
}

fn source_name(source: TokenSource) -> &'static str {
    source.as_str()
}

fn next_opening(next: Option<Timestamp>) -> String {
    next.map(|at| format!(", next at {at}")).unwrap_or_default()
}
