//! What a workload asks for by annotation.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use crate::annotations::{
    AUDIENCE, CONTAINER_ROLE_ARN, CONTAINERS, EKS_AUDIENCE, EKS_ROLE_ARN, EKS_SKIP_CONTAINERS,
    EKS_STS_REGIONAL_ENDPOINTS, EKS_TOKEN_EXPIRATION, INJECT, InvalidAnnotation, InvalidFlag, InvalidValue, ROLE_ARN,
    SKIP_CONTAINERS, TOKEN_EXPIRATION, most_bytes,
};
use crate::arn::{RoleArn, shortened};
use crate::audience::{Audience, TokenExpiration};
use crate::bounds::{Beyond, MOST_LIST_ENTRIES};
use crate::labels::Pairs;
use crate::request::Request;
use crate::settings::Settings;

/// The request that the annotations of a pod and of its service account make.
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
