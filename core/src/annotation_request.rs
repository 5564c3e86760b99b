//! The request that a workload makes by annotation.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use crate::annotations::{
    AUDIENCE, CONTAINER_ROLE_ARN, CONTAINERS, EKS_AUDIENCE, EKS_ROLE_ARN, EKS_SKIP_CONTAINERS,
    EKS_STS_REGIONAL_ENDPOINTS, EKS_TOKEN_EXPIRATION, EmptyList, INJECT, InvalidAnnotation, InvalidFlag, InvalidValue,
    NoContainerName, POD, ROLE_ARN, SERVICE_ACCOUNT, SKIP_CONTAINERS, TOKEN_EXPIRATION, most_bytes,
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
    /// True if the pod itself has that list.
    pub(crate) lists_on_pod: bool,
    pub(crate) skip: HashSet<&'a str>,
    /// The key of the annotation that lists those, and the object that has it.
    pub(crate) skipped_by: Option<(&'static str, &'static str)>,
    pub(crate) sts_regional_endpoints: Option<bool>,
    /// Values that can't be parsed, of annotations that don't name a role: they matter once a role is asked for.
    pub(crate) invalid: Vec<InvalidAnnotation>,
}

/// A role and the place that names it.
#[derive(Debug)]
pub(crate) struct NamedRole {
    pub(crate) role: RoleArn,
    pub(crate) place: &'static str,
    /// True if EKS's annotation names it.
    pub(crate) is_eks: bool,
}

impl<'a> AnnotationRequest<'a> {
    /// Reads the annotations. A role that can't be parsed is the error.
    pub(crate) fn read(request: &'a Request<'_>, settings: &Settings) -> Result<Self, Vec<InvalidAnnotation>> {
        Self::of(&AnnotationSources::of(request, settings))
    }

    /// The same without the role that EKS's annotation names, for pods whose role an association of EKS Pod Identity decides.
    pub(crate) fn read_without_eks_role(
        request: &'a Request<'_>,
        settings: &Settings,
    ) -> Result<Self, Vec<InvalidAnnotation>> {
        Self::of(&AnnotationSources {
            eks_role: false,
            ..AnnotationSources::of(request, settings)
        })
    }

    fn of(sources: &AnnotationSources<'a>) -> Result<Self, Vec<InvalidAnnotation>> {
        let mut invalid_roles = Vec::new();
        let container_roles = sources.container_roles(&mut invalid_roles);
        let role = sources.role(&mut invalid_roles);
        if !invalid_roles.is_empty() {
            return Err(invalid_roles);
        }
        let mut asks = AnnotationRequest {
            role,
            container_roles,
            ..AnnotationRequest::default()
        };
        asks.read_options(sources);
        Ok(asks)
    }

    /// Reads all but the roles. EKS's annotations stand back behind ours.
    fn read_options(&mut self, sources: &AnnotationSources<'a>) {
        self.audience = self.parse(
            sources
                .own(AUDIENCE)
                .or_else(|| sources.eks_on_service_account(EKS_AUDIENCE)),
        );
        self.expiration = self.parse(
            sources
                .own(TOKEN_EXPIRATION)
                .or_else(|| sources.eks_on_pod(EKS_TOKEN_EXPIRATION))
                .or_else(|| sources.eks_on_service_account(EKS_TOKEN_EXPIRATION)),
        );
        self.sts_regional_endpoints = self
            .parse::<Flag>(sources.eks_on_service_account(EKS_STS_REGIONAL_ENDPOINTS))
            .map(|Flag(value)| value);
        self.only = sources.own(CONTAINERS).and_then(|found| self.list(&found));
        self.lists_on_pod = sources.pod.found(CONTAINERS).is_some();
        let skipped = sources.skipped();
        self.skipped_by = skipped.as_ref().map(|found| (found.key, found.place));
        let skipped = skipped.and_then(|found| match found.key {
            EKS_SKIP_CONTAINERS => Some(names(found.key, found.value).collect()),
            _ => self.list(&found),
        });
        self.skip = skipped.unwrap_or_default();
    }

    /// A list of ours, which has at least one name and nothing else: a separator that is none would leave the wrong containers out.
    fn list(&mut self, found: &Found<'a>) -> Option<HashSet<&'a str>> {
        let listed: HashSet<&str> = names(found.key, found.value).collect();
        let no_name = names(found.key, found.value).find(|name| !is_container_name(name));
        let reason: InvalidValue = match no_name {
            Some(text) => NoContainerName { text: shortened(text) }.into(),
            None if listed.is_empty() => EmptyList.into(),
            None => return Some(listed),
        };
        self.invalid
            .push(InvalidAnnotation::new(found.key, found.place, reason));
        None
    }

    /// True if an annotation of ours names the pod's role, and not only EKS's on its service account.
    pub(crate) fn names_role_itself(&self) -> bool {
        self.role.as_ref().is_some_and(|named| !named.is_eks)
    }

    /// The object whose list names the containers that get something.
    pub(crate) fn list_place(&self) -> &'static str {
        if self.lists_on_pod { POD } else { SERVICE_ACCOUNT }
    }

    /// True if a list leaves a container out.
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
            && names(key, value).nth(MOST_LIST_ENTRIES).is_some()
        {
            beyond.push(Beyond::ListEntries { key });
        }
    }
    beyond
}

/// True if pod, service account or namespace opt out. An `inject` that is neither `"true"` nor `"false"` is the error.
pub(crate) fn opted_out(request: &Request<'_>) -> Result<bool, InvalidAnnotation> {
    if request.namespace_labels.value(INJECT) == Some("false") {
        return Ok(true);
    }
    let places = [
        (POD, &request.pod.annotations),
        (SERVICE_ACCOUNT, &request.service_account_annotations),
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

/// The annotations of a pod and of its service account, and whether those of EKS count.
struct AnnotationSources<'a> {
    pod: AnnotationSource<'a>,
    service_account: AnnotationSource<'a>,
    eks: bool,
    /// True if EKS's role does, where its annotations do.
    eks_role: bool,
}

impl<'a> AnnotationSources<'a> {
    fn of(request: &'a Request<'_>, settings: &Settings) -> Self {
        Self {
            pod: AnnotationSource {
                place: POD,
                pairs: &request.pod.annotations,
            },
            service_account: AnnotationSource {
                place: SERVICE_ACCOUNT,
                pairs: &request.service_account_annotations,
            },
            eks: settings.eks_compatible,
            eks_role: true,
        }
    }

    /// The roles of single containers.
    fn container_roles(&self, invalid: &mut Vec<InvalidAnnotation>) -> HashMap<&'a str, RoleArn> {
        let mut roles = HashMap::new();
        for (key, value) in self.pod.pairs.iter() {
            if let Some(container) = key.strip_prefix(CONTAINER_ROLE_ARN) {
                match value.parse() {
                    Ok(role) => drop(roles.insert(container, role)),
                    Err(reason) => invalid.push(InvalidAnnotation::new(key, self.pod.place, reason)),
                }
            }
        }
        roles
    }

    /// The list of containers that get nothing. One without a name is as none, in whichever key: templates write it for nobody.
    fn skipped(&self) -> Option<Found<'a>> {
        let lists = [
            self.pod.found(SKIP_CONTAINERS),
            self.service_account.found(SKIP_CONTAINERS),
            self.eks_on_pod(EKS_SKIP_CONTAINERS),
        ];
        let mut lists = lists.into_iter().flatten();
        lists.find(|found| names(found.key, found.value).next().is_some())
    }

    /// The role of all other containers: the pod's annotation, else the service account's, else EKS's.
    fn role(&self, invalid: &mut Vec<InvalidAnnotation>) -> Option<NamedRole> {
        let named = self
            .own(ROLE_ARN)
            // An empty EKS annotation means none, as it does there.
            .or_else(|| {
                self.eks_on_service_account(EKS_ROLE_ARN)
                    .filter(|found| self.eks_role && !found.value.is_empty())
            })?;
        match named.value.parse() {
            Ok(role) => Some(NamedRole {
                role,
                place: named.place,
                is_eks: named.key == EKS_ROLE_ARN,
            }),
            Err(reason) => {
                invalid.push(InvalidAnnotation::new(named.key, named.place, reason));
                None
            }
        }
    }

    /// An annotation of ours; the pod's goes before the service account's.
    fn own(&self, key: &'static str) -> Option<Found<'a>> {
        self.pod.found(key).or_else(|| self.service_account.found(key))
    }

    fn eks_on_pod(&self, key: &'static str) -> Option<Found<'a>> {
        self.eks.then(|| self.pod.found(key)).flatten()
    }

    fn eks_on_service_account(&self, key: &'static str) -> Option<Found<'a>> {
        self.eks.then(|| self.service_account.found(key)).flatten()
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

/// The names of a list. EKS's has commas between them, ours white space too.
fn names<'a>(key: &str, list: &'a str) -> impl Iterator<Item = &'a str> {
    let is_ours = key != EKS_SKIP_CONTAINERS;
    let splits = move |c: char| c == ',' || (is_ours && c.is_whitespace());
    list.split(splits).map(str::trim).filter(|name| !name.is_empty())
}

/// True if a container can have this name: a label of RFC 1123, as Kubernetes checks it.
fn is_container_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let ends = [name.bytes().next(), name.bytes().last()];
    name.len() <= 63 && name.bytes().all(allowed) && ends.iter().all(|end| end.is_some_and(|byte| byte != b'-'))
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
