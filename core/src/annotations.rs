//! Annotations and labels that users write and the webhook leaves, and what they ask for.

use crate::{
    Audience, InvalidAudience, InvalidRoleArn, InvalidTokenExpiration, Pairs, Request, RoleArn, Settings,
    TokenExpiration,
    arn::shortened,
    bounds::{Beyond, MOST_LIST_BYTES, MOST_LIST_ENTRIES, MOST_RECORD_BYTES, MOST_VALUE_BYTES},
};
use std::{
    collections::{HashMap, HashSet},
    str::FromStr,
};

/// The role, on a pod or a service account.
pub const ROLE_ARN: &str = "tokenscope.io/role-arn";
/// The role of one container, on a pod; the container's name follows.
pub const CONTAINER_ROLE_ARN: &str = "tokenscope.io/role-arn.";
/// The token's audience.
pub const AUDIENCE: &str = "tokenscope.io/audience";
/// The token's expiration in seconds.
pub const TOKEN_EXPIRATION: &str = "tokenscope.io/token-expiration";
/// Only these containers, separated by commas.
pub const CONTAINERS: &str = "tokenscope.io/containers";
/// All containers but these, separated by commas.
pub const SKIP_CONTAINERS: &str = "tokenscope.io/skip-containers";
/// `"false"` opts out: a pod, a service account, or (as a label) a namespace.
pub const INJECT: &str = "tokenscope.io/inject";
/// Written by the webhook: what was granted ([`crate::GrantRecord`]).
pub const GRANT: &str = "tokenscope.io/grant";
/// The label that the webhook writes on every pod that had to be reviewed: `granted`, `refused` or `untouched`. Before version 0.2
/// it was an annotation.
pub const REVIEWED: &str = "tokenscope.io/reviewed";
/// Namespace label: every pod must be reviewed.
pub const REQUIRED: &str = "tokenscope.io/required";
/// Namespace label: denied pods are refused.
pub const ENFORCE: &str = "tokenscope.io/enforce";
/// Namespace label: denied pods are admitted with a warning.
pub const WARN: &str = "tokenscope.io/warn";
/// Namespace label: denied pods are admitted and audited.
pub const AUDIT: &str = "tokenscope.io/audit";

const EKS_ROLE_ARN: &str = "eks.amazonaws.com/role-arn";
const EKS_AUDIENCE: &str = "eks.amazonaws.com/audience";
const EKS_STS_REGIONAL_ENDPOINTS: &str = "eks.amazonaws.com/sts-regional-endpoints";
const EKS_TOKEN_EXPIRATION: &str = "eks.amazonaws.com/token-expiration";
const EKS_SKIP_CONTAINERS: &str = "eks.amazonaws.com/skip-containers";

/// The annotation of a mirror pod, which only shows what a kubelet runs from a file.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// The annotations of a service account that a decision reads.
pub const OF_SERVICE_ACCOUNTS: [&str; 10] = [
    ROLE_ARN,
    AUDIENCE,
    TOKEN_EXPIRATION,
    CONTAINERS,
    SKIP_CONTAINERS,
    INJECT,
    EKS_ROLE_ARN,
    EKS_AUDIENCE,
    EKS_STS_REGIONAL_ENDPOINTS,
    EKS_TOKEN_EXPIRATION,
];

/// Whether an annotation can change a decision or what follows from it, so that nothing needs to keep any other.
pub fn is_relevant(key: &str) -> bool {
    most_bytes(key).is_some()
}

/// How many bytes the value of a relevant annotation may have; `None` where the annotation is not relevant.
///
/// Whoever keeps annotations may cut a longer value after one byte more: a decision then still knows that it is too long.
pub fn most_bytes(key: &str) -> Option<usize> {
    match key {
        GRANT => Some(MOST_RECORD_BYTES),
        CONTAINERS | SKIP_CONTAINERS | EKS_SKIP_CONTAINERS => Some(MOST_LIST_BYTES),
        ROLE_ARN
        | AUDIENCE
        | TOKEN_EXPIRATION
        | INJECT
        | REVIEWED
        | MIRROR
        | EKS_ROLE_ARN
        | EKS_AUDIENCE
        | EKS_STS_REGIONAL_ENDPOINTS
        | EKS_TOKEN_EXPIRATION => Some(MOST_VALUE_BYTES),
        _ => key.starts_with(CONTAINER_ROLE_ARN).then_some(MOST_VALUE_BYTES),
    }
}

/// Whether an annotation of a pod can change a decision: what the webhook itself writes can't.
pub fn decides(key: &str) -> bool {
    is_relevant(key) && key != GRANT && key != REVIEWED
}

/// What the webhook made of a pod: the values of [`REVIEWED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It gave it credentials.
    Granted,
    /// It refused it them, and let it run.
    Refused,
    /// It had nothing to give.
    Untouched,
}

impl Mark {
    /// The mark with this value.
    pub fn read(value: &str) -> Option<Self> {
        [Self::Granted, Self::Refused, Self::Untouched]
            .into_iter()
            .find(|mark| mark.as_str() == value)
    }

    /// The value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Refused => "refused",
            Self::Untouched => "untouched",
        }
    }
}

/// What a workload asks for by annotation.
#[derive(Debug, Default)]
pub(crate) struct AnnotationRequest<'a> {
    pub(crate) role: Option<NamedRole>,
    pub(crate) container_roles: HashMap<&'a str, RoleArn>,
    pub(crate) audience: Option<Audience>,
    pub(crate) expiration: Option<TokenExpiration>,
    pub(crate) only: Option<HashSet<&'a str>>,
    pub(crate) skip: HashSet<&'a str>,
    pub(crate) sts_regional_endpoints: Option<bool>,
    /// Values that can't be parsed, of annotations that don't name a role: they matter once a role is asked for.
    pub(crate) invalid: Vec<InvalidAnnotation>,
}

/// A role and the place that names it.
#[derive(Debug)]
pub(crate) struct NamedRole {
    pub(crate) role: RoleArn,
    pub(crate) place: &'static str,
}

impl<'a> AnnotationRequest<'a> {
    /// Reads the annotations. A role that can't be parsed is the error.
    pub(crate) fn read(request: &'a Request<'_>, settings: &Settings) -> Result<Self, Vec<InvalidAnnotation>> {
        let on_pod = AnnotationSource {
            place: "pod",
            pairs: &request.pod.annotations,
        };
        let on_service_account = AnnotationSource {
            place: "service account",
            pairs: &request.service_account_annotations,
        };
        let places = [on_pod, on_service_account];
        let eks = settings.eks_compatible;
        let mut asks = AnnotationRequest::default();
        let mut invalid_roles = Vec::new();

        for (key, value) in request.pod.annotations.iter() {
            if let Some(container) = key.strip_prefix(CONTAINER_ROLE_ARN) {
                match value.parse() {
                    Ok(role) => drop(asks.container_roles.insert(container, role)),
                    Err(reason) => invalid_roles.push(InvalidAnnotation::new(key, "pod", reason)),
                }
            }
        }
        for (annotated, key, eks_only) in [
            (on_pod, ROLE_ARN, false),
            (on_service_account, ROLE_ARN, false),
            (on_service_account, EKS_ROLE_ARN, true),
        ] {
            // An empty EKS annotation means none, as it does there.
            let Some(value) = annotated
                .pairs
                .value(key)
                .filter(|value| !eks_only || (eks && !value.is_empty()))
            else {
                continue;
            };
            match value.parse() {
                Ok(role) => {
                    asks.role = Some(NamedRole {
                        role,
                        place: annotated.place,
                    });
                }
                Err(reason) => invalid_roles.push(InvalidAnnotation::new(key, annotated.place, reason)),
            }
            break;
        }
        if !invalid_roles.is_empty() {
            return Err(invalid_roles);
        }

        let both = |key: &'static str| places.into_iter().find_map(|place| place.found(key));
        let eks_on = |place: AnnotationSource<'a>, key: &'static str| eks.then(|| place.found(key)).flatten();
        asks.audience = asks.parse(both(AUDIENCE).or_else(|| eks_on(on_service_account, EKS_AUDIENCE)));
        asks.expiration = asks.parse(
            both(TOKEN_EXPIRATION)
                .or_else(|| eks_on(on_pod, EKS_TOKEN_EXPIRATION))
                .or_else(|| eks_on(on_service_account, EKS_TOKEN_EXPIRATION)),
        );
        asks.sts_regional_endpoints = asks
            .parse::<Flag>(eks_on(on_service_account, EKS_STS_REGIONAL_ENDPOINTS))
            .map(|Flag(value)| value);
        asks.only = both(CONTAINERS).map(|found| names(found.value).collect());
        asks.skip = both(SKIP_CONTAINERS)
            .or_else(|| eks_on(on_pod, EKS_SKIP_CONTAINERS))
            .map(|found| names(found.value).collect())
            .unwrap_or_default();
        Ok(asks)
    }

    /// Whether a list leaves a container out.
    pub(crate) fn leave_out(&self, container: &str) -> bool {
        self.skip.contains(container) || self.only.as_ref().is_some_and(|only| !only.contains(container))
    }

    fn parse<T: FromStr>(&mut self, found: Option<Found<'_>>) -> Option<T>
    where
        InvalidValue: From<T::Err>,
    {
        let found = found?;
        match found.value.parse() {
            Ok(value) => Some(value),
            Err(reason) => {
                self.invalid
                    .push(InvalidAnnotation::new(found.key, found.place, reason));
                None
            }
        }
    }
}

/// The bounds that a pod exceeds, its annotations and those of its service account included.
pub(crate) fn beyond(request: &Request<'_>, settings: &Settings) -> Vec<Beyond> {
    let mut beyond = request.pod.beyond.clone();
    let of_pod = request.pod.annotations.iter();
    let counts = |key: &str| settings.eks_compatible || !key.starts_with("eks.amazonaws.com/");
    let annotations = of_pod.chain(request.service_account_annotations.iter());
    for (key, value) in annotations.filter(|(key, _)| counts(key)) {
        let Some(most) = most_bytes(key) else { continue };
        let mut listing = [CONTAINERS, SKIP_CONTAINERS, EKS_SKIP_CONTAINERS].into_iter();
        let listing = listing.find(|list| *list == key);
        if value.len() > most {
            let key = shortened(key);
            beyond.push(Beyond::Value { key, most });
        } else if let Some(key) = listing
            && names(value).nth(MOST_LIST_ENTRIES).is_some()
        {
            beyond.push(Beyond::ListEntries { key });
        }
    }
    beyond
}

/// Whether pod, service account or namespace opt out. An `inject` that is neither `"true"` nor `"false"` is the error.
pub(crate) fn opted_out(request: &Request<'_>) -> Result<bool, InvalidAnnotation> {
    if request.namespace_labels.value(INJECT) == Some("false") {
        return Ok(true);
    }
    let places = [
        ("pod", &request.pod.annotations),
        ("service account", &request.service_account_annotations),
    ];
    let Some((place, value)) = places
        .into_iter()
        .find_map(|(place, pairs)| Some((place, pairs.value(INJECT)?)))
    else {
        return Ok(false);
    };
    match value {
        "true" => Ok(false),
        "false" => Ok(true),
        _ => Err(InvalidAnnotation::new(
            INJECT,
            place,
            InvalidFlag { text: shortened(value) },
        )),
    }
}

#[derive(Clone, Copy)]
struct AnnotationSource<'a> {
    place: &'static str,
    pairs: &'a Pairs<&'a str>,
}

impl<'a> AnnotationSource<'a> {
    fn found(self, key: &'static str) -> Option<Found<'a>> {
        self.pairs.value(key).map(|value| Found {
            key,
            value,
            place: self.place,
        })
    }
}

struct Found<'a> {
    key: &'static str,
    value: &'a str,
    place: &'static str,
}

fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty())
}

/// A boolean as the EKS webhook reads it (Go's `strconv.ParseBool`).
struct Flag(bool);

impl FromStr for Flag {
    type Err = InvalidFlag;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Self(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Self(false)),
            _ => Err(InvalidFlag { text: shortened(text) }),
        }
    }
}

/// An annotation whose value can't be used. It names the annotation, the place, the value and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {key} of the {place}: {reason}")]
pub struct InvalidAnnotation {
    key: Box<str>,
    place: &'static str,
    // Its text is part of this one's, for the messages that users read are one sentence.
    reason: InvalidValue,
}

impl InvalidAnnotation {
    fn new(key: &str, place: &'static str, reason: impl Into<InvalidValue>) -> Self {
        Self {
            key: shortened(key),
            place,
            reason: reason.into(),
        }
    }
}

/// Why an annotation's value can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidValue {
    #[error(transparent)]
    RoleArn(#[from] InvalidRoleArn),
    #[error(transparent)]
    Audience(#[from] InvalidAudience),
    #[error(transparent)]
    TokenExpiration(#[from] InvalidTokenExpiration),
    #[error(transparent)]
    Flag(#[from] InvalidFlag),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} should be \"true\" or \"false\"")]
pub(crate) struct InvalidFlag {
    text: Box<str>,
}
