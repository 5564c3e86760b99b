//! Containers that get nothing although their pod asks for a role. A pod that asks for such a container by name is refused, or gets a warning.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::annotation_request::AnnotationRequest;
use crate::annotations::{CONTAINERS, InvalidAnnotation};
use crate::arn::shortened;
use crate::text::some_of;
use crate::{Refusal, Request, asks_itself};

/// The reason why a container gets nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LeftOut {
    /// A list in an annotation.
    ByList,
    /// These policies allow what it would get, and none covers it.
    ByPolicies(Box<str>),
    /// Nobody names a role for it.
    WithoutRole,
    /// Its own configuration already gives it credentials; the text says which.
    WithOwn(&'static str),
    /// Another reason, which a warning has explained already; the text is its short form.
    Told(&'static str),
}

impl LeftOut {
    /// The reason in a few words.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::ByList => "its pod's annotations leave it out",
            Self::ByPolicies(_) => "its policies don't cover it",
            Self::WithoutRole => "no role is named for it",
            Self::WithOwn(reason) | Self::Told(reason) => reason,
        }
    }

    /// The reason with the annotation or the field that makes the difference.
    fn cause(&self, container: &str, asks: &AnnotationRequest<'_>) -> String {
        match self {
            Self::ByList => match asks.skipped_by.filter(|_| asks.skip.contains(container)) {
                Some((key, place)) => format!("it is listed in annotation {key} of the {place}"),
                None => format!(
                    "it is not listed in annotation {CONTAINERS} of the {}",
                    asks.list_place()
                ),
            },
            Self::ByPolicies(policies) => format!("spec.containers of {policies} leaves it out"),
            Self::WithoutRole => "no annotation names a role for it, and no policy assigns one".to_owned(),
            Self::WithOwn(reason) | Self::Told(reason) => (*reason).to_owned(),
        }
    }
}

/// The refusal of a pod that gets nothing and names containers itself: it has none of them, or each is left out.
pub(super) fn named_nothing(
    request: &Request<'_>,
    asks: &AnnotationRequest<'_>,
    left_out: &[(usize, LeftOut)],
) -> Option<Refusal> {
    let known: HashSet<&str> = request.pod.containers.iter().map(|container| container.name).collect();
    let asks_on_pod = asks.lists_on_pod || asks_itself(&request.pod.annotations);
    let named = names_in(asks, asks_on_pod);
    if named.is_empty() {
        return None;
    }
    if !named.iter().any(|name| known.contains(name)) {
        let named: Vec<_> = named.into_iter().map(shortened).collect();
        let containers = request.pod.containers.iter();
        let containers: Vec<_> = containers.map(|container| shortened(container.name)).collect();
        return Some(Refusal::UnknownContainers {
            named: some_of(&named),
            containers: some_of(&containers),
        });
    }
    let reasons = reasons(request, left_out);
    let mut causes = Vec::new();
    // A list of the service account is about other pods too.
    for name in names_in(asks, asks.lists_on_pod) {
        match reasons.get(name) {
            // Another webhook may add it and have the pod reviewed again; or it was refused, has what it needs, or a warning says more.
            None | Some(LeftOut::WithOwn(_) | LeftOut::Told(_)) => return None,
            Some(reason) => causes.push(format!("{} ({})", shortened(name), reason.cause(name, asks))),
        }
    }
    (!causes.is_empty()).then(|| Refusal::NamedContainersLeftOut {
        containers: some_of(&causes),
    })
}

/// Warnings of containers that annotations name and that get nothing, in a pod that is not refused for it.
pub(super) fn warnings(
    request: &Request<'_>,
    asks: &AnnotationRequest<'_>,
    left_out: &[(usize, LeftOut)],
) -> Vec<String> {
    if asks.only.is_none() && asks.container_roles.is_empty() && asks.skip.is_empty() {
        return Vec::new();
    }
    let mut warnings = unknown_containers(request, asks);
    let reasons = reasons(request, left_out);
    let by_pod = names_in(asks, asks.lists_on_pod);
    for name in names_in(asks, true) {
        match reasons.get(name) {
            None | Some(LeftOut::Told(_)) => {}
            Some(LeftOut::WithOwn(_)) if !by_pod.contains(name) => {}
            Some(reason) => warnings.push(format!(
                "an annotation names container {}, which gets nothing: {}",
                shortened(name),
                reason.cause(name, asks)
            )),
        }
    }
    warnings
}

/// What is said of annotations that can't be used in a pod that gets nothing. A list of the pod's own is the error: nobody knows
/// which containers it is about. The others would matter if a container got a role.
pub(super) fn invalid_without_effect(invalid: Vec<InvalidAnnotation>) -> Result<Vec<String>, Vec<Refusal>> {
    let (lists, others): (Vec<_>, Vec<_>) = invalid.into_iter().partition(InvalidAnnotation::is_list_of_pod);
    if lists.is_empty() {
        let said = |invalid| format!("{invalid}. It has no effect here, since no container gets a role");
        return Ok(others.into_iter().map(said).collect());
    }
    let all = lists.into_iter().chain(others);
    Err(all.map(Refusal::InvalidAnnotation).collect())
}

/// The containers that annotations name, by their list if it counts.
fn names_in<'a>(asks: &AnnotationRequest<'a>, list_counts: bool) -> BTreeSet<&'a str> {
    let listed = asks.only.iter().flatten().filter(|_| list_counts);
    listed.chain(asks.container_roles.keys()).copied().collect()
}

fn reasons<'a>(request: &'a Request<'_>, left_out: &'a [(usize, LeftOut)]) -> HashMap<&'a str, &'a LeftOut> {
    let of_index = |(index, reason): &'a (usize, LeftOut)| Some((request.pod.containers.get(*index)?.name, reason));
    left_out.iter().filter_map(of_index).collect()
}

/// Names in annotations that no container has: a typo, or a sidecar that another webhook adds later.
fn unknown_containers(request: &Request<'_>, asks: &AnnotationRequest<'_>) -> Vec<String> {
    let known: HashSet<&str> = request.pod.containers.iter().map(|container| container.name).collect();
    let by_list = asks.only.iter().flatten().chain(&asks.skip);
    let named = asks.container_roles.keys().chain(by_list).copied();
    let unknown: BTreeSet<&str> = named.filter(|name| !known.contains(name)).collect();
    let warning = |name| {
        let name = shortened(name);
        format!("an annotation names container {name}, which this pod does not have")
    };
    unknown.into_iter().map(warning).collect()
}
