//! AdmissionReview of admission.k8s.io/v1 on the wire: a pod in, an outcome and a patch out.
//!
//! The request is read by a borrowed, partial decode, and the answer is written straight to text ([`crate::answer`]): the pod is
//! never built as a whole, so nothing of it can get lost.

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokenscope_core::lock::{self, LockMode, UngrantedToken};
use tokenscope_core::pod::{OwnerReference, Pod, PodAnnotations, Text, Volume};
use tokenscope_core::{Enforcement, PolicySet, Request, Settings, decide, known_keys};

use crate::answer::{self, Audited, Warnings, printable};
pub use crate::answer::{ReportedRefusal, ReviewAnswer, allow};
use crate::facts::{self, ReviewContext};
use crate::injection::{self, InjectionOutcome, Reviewed};
use crate::json;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// A review that can be answered.
#[derive(Debug)]
pub enum Asked<'a> {
    /// A pod that is to be created.
    Pod(Box<Review<'a>>),
    /// Anything else: we have nothing to say about it.
    Other {
        /// The review's ID.
        uid: Text<'a>,
    },
}

/// The review of a pod that is to be created.
#[derive(Debug)]
pub struct Review<'a> {
    uid: Text<'a>,
    namespace: Text<'a>,
    dry_run: bool,
    pod: Pod<Text<'a>>,
    /// The whole review.
    text: &'a str,
}

/// The reason why a review can't be answered. `Display` repeats nothing of the body, since the API server shows it; the
/// cause is for the log.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The body is no review.
    #[error("the body is not an AdmissionReview")]
    Json(#[source] json::Error),
    /// The body is no text.
    #[error("the body is not UTF-8")]
    Utf8(#[from] std::str::Utf8Error),
    /// The body is another object, or a review of another version.
    #[error("the body is not an AdmissionReview of \"admission.k8s.io/v1\"")]
    Version,
    /// The review asks nothing, or has no ID or namespace to answer with.
    #[error("the AdmissionReview has no {0}")]
    Missing(&'static str),
    /// The pod is no pod.
    #[error("the pod of the AdmissionReview can't be read")]
    Pod(#[source] json::Error),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "O: Deserialize<'de>, 'de: 'a"))]
struct Wire<'a, O> {
    api_version: Text<'a>,
    kind: Text<'a>,
    #[serde(default = "Option::default")]
    request: Option<WireRequest<'a, O>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "O: Deserialize<'de>, 'de: 'a"))]
struct WireRequest<'a, O> {
    uid: Text<'a>,
    kind: WireKind<'a>,
    #[serde(default)]
    sub_resource: Option<Text<'a>>,
    operation: Text<'a>,
    #[serde(default)]
    namespace: Option<Text<'a>>,
    #[serde(default)]
    dry_run: Option<bool>,
    #[serde(default = "Option::default")]
    object: Option<O>,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct WireKind<'a> {
    #[serde(default)]
    group: Option<Text<'a>>,
    kind: Text<'a>,
}

/// Reads a review.
pub fn read(body: &[u8]) -> Result<Asked<'_>, ReviewError> {
    let text = std::str::from_utf8(body)?;
    let error = match json::from_str::<Wire<'_, Pod<Text<'_>>>>(text) {
        Ok(wire) => return asked(wire, text),
        Err(error) => error,
    };
    // An object that is no pod is none of our business, but a pod that can't be read is.
    let wire: Wire<'_, IgnoredAny> = json::from_str(text).map_err(ReviewError::Json)?;
    let request = checked(wire)?;
    if request.creates_a_pod() {
        return Err(ReviewError::Pod(error));
    }
    Ok(Asked::Other { uid: request.uid })
}

fn asked<'a>(wire: Wire<'a, Pod<Text<'a>>>, text: &'a str) -> Result<Asked<'a>, ReviewError> {
    let request = checked(wire)?;
    if !request.creates_a_pod() {
        return Ok(Asked::Other { uid: request.uid });
    }
    Ok(Asked::Pod(Box::new(Review {
        uid: request.uid,
        namespace: request.namespace.ok_or(ReviewError::Missing("namespace"))?,
        dry_run: request.dry_run.unwrap_or_default(),
        pod: request.object.ok_or(ReviewError::Missing("object"))?,
        text,
    })))
}

fn checked<O>(wire: Wire<'_, O>) -> Result<WireRequest<'_, O>, ReviewError> {
    if *wire.api_version != *API_VERSION || *wire.kind != *KIND {
        return Err(ReviewError::Version);
    }
    let request = wire.request.ok_or(ReviewError::Missing("request"))?;
    if request.uid.is_empty() {
        return Err(ReviewError::Missing("request.uid"));
    }
    Ok(request)
}

impl<O> WireRequest<'_, O> {
    fn creates_a_pod(&self) -> bool {
        let empty = |text: &Option<Text<'_>>| text.as_ref().is_none_or(|text| text.is_empty());
        *self.operation == *"CREATE"
            && *self.kind.kind == *"Pod"
            && empty(&self.kind.group)
            && empty(&self.sub_resource)
    }
}

impl Review<'_> {
    /// The pod's namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The pod's service account.
    pub fn service_account(&self) -> &str {
        facts::service_account(&self.pod)
    }

    /// The most times that a policy is compared with the pod: for each container, and for each token of an audience with each container.
    pub fn comparisons(&self) -> usize {
        let volumes = self.pod.spec.volumes.iter().flatten();
        let tokens = volumes.flat_map(Volume::tokens);
        let tokens = tokens.filter(|token| token.audience.is_some()).count();
        (self.pod.all_containers().count() + 1) * (tokens + 1)
    }

    /// The CSI drivers that the pod has inline volumes of.
    pub fn csi_drivers(&self) -> impl Iterator<Item = &str> {
        let volumes = self.pod.spec.volumes.iter().flatten();
        volumes.filter_map(|volume| Some(volume.csi.as_ref()?.driver.as_ref()))
    }

    /// The answer, as things are at `now`. The same facts always give the same answer.
    pub fn answer(
        &self,
        mut surroundings: ReviewContext<'_>,
        policies: &PolicySet,
        settings: &Settings,
        now: Timestamp,
    ) -> ReviewAnswer {
        let account_is_known = surroundings.service_account_annotations.is_some() || surroundings.refused.is_some();
        let refused = surroundings.refused.take();
        let lacks_policies = surroundings.lacks_policies;
        let stale = surroundings.stale;
        let record = self.pod.grant_record();
        let mut request = facts::request(&self.pod, record.as_ref(), &self.namespace, surroundings);
        let decision = decide(&request, policies, settings, now);
        let reviewed = Reviewed {
            pod: &self.pod,
            text: self.text,
            record: record.as_ref(),
            request: &request,
            policies,
            settings,
        };
        let injection = injection::inject(&reviewed, &decision, refused.clone());
        // What is ours, or goes, is not a token that the pod brings.
        let volumes = &mut request.pod.token_volumes;
        volumes.retain(|volume| !injection.settled_volumes.iter().any(|settled| *settled == volume.name));
        let ungranted = match refused.filter(|_| lacks_policies) {
            Some(why) => lock::ungranted_where_unknown(&request, policies, settings, &why),
            None => lock::ungranted(&request, policies, settings, now),
        };
        let mut warnings = self.warnings(account_is_known, &injection.warnings, &request, settings);
        let (outcome, patch) = match refused_by_lock(&ungranted, &injection.outcome, &request, settings) {
            Some(refused) => (refused, None),
            None => (injection.outcome, injection.patch),
        };
        warnings.tell(&outcome);
        warn_of_ungranted(&mut warnings, &ungranted, &outcome, settings);
        ReviewAnswer {
            body: answer::body(
                &self.uid,
                &outcome,
                patch.as_deref(),
                &warnings,
                &Audited {
                    decision: &decision,
                    ungranted: &ungranted,
                    stale,
                },
            ),
            outcome: answer::counted(&outcome),
            ungranted_tokens: ungranted.len(),
            refusal: self.refusal(&outcome),
        }
    }

    /// The warnings to the pod's author beside the outcome.
    fn warnings(
        &self,
        account_is_known: bool,
        of_injection: &[String],
        request: &Request<'_>,
        settings: &Settings,
    ) -> Warnings {
        let mut warnings = Warnings::default();
        if !account_is_known {
            warnings.add(&format!(
                "service account {} was not found, so its annotations could not be looked at",
                request.service_account
            ));
        }
        let annotations = self.pod.metadata.annotations.iter();
        let unknown = annotations.flat_map(PodAnnotations::without_effect).map(|key| &**key);
        let of_keys = known_keys::warnings(request, unknown, settings);
        for warning in of_injection.iter().chain(&of_keys) {
            warnings.add(warning);
        }
        warnings
    }

    /// What is to be written on the pod's owner: whoever asked it for pods does not see our answer.
    fn refusal(&self, outcome: &InjectionOutcome) -> Option<ReportedRefusal> {
        let InjectionOutcome::Refused { reasons, enforcement } = outcome else {
            return None;
        };
        let what = match enforcement {
            Enforcement::Enforce => "A pod was refused",
            Enforcement::Warn => "A pod was admitted without AWS credentials",
            Enforcement::Audit => return None,
        };
        // A dry run must have no side effects.
        if self.dry_run {
            return None;
        }
        let owner = self.pod.metadata.owner.controller()?;
        Some(ReportedRefusal {
            namespace: (*self.namespace).into(),
            owner: OwnerReference {
                api_version: (*owner.api_version).into(),
                kind: (*owner.kind).into(),
                name: (*owner.name).into(),
                uid: (*owner.uid).into(),
                controller: owner.controller,
            },
            message: printable(&format!("{what}: {}", reasons.join("; "))).into_owned(),
        })
    }
}

/// Warns of tokens that no policy grants, unless the pod is refused or the lock's mode is too low for it.
fn warn_of_ungranted(
    warnings: &mut Warnings,
    ungranted: &[UngrantedToken],
    outcome: &InjectionOutcome,
    settings: &Settings,
) {
    let warns = settings.lock.mode >= LockMode::Warn || lock::refuses(ungranted, settings);
    if warns && !matches!(outcome, InjectionOutcome::Refused { .. }) {
        for token in ungranted {
            warnings.add(&token.to_string());
        }
    }
}

/// The outcome where the lock keeps the pod out, whatever else was decided. It does not where namespaces are never denied.
fn refused_by_lock(
    ungranted: &[UngrantedToken],
    decided: &InjectionOutcome,
    request: &Request<'_>,
    settings: &Settings,
) -> Option<InjectionOutcome> {
    if settings.never_denies(request.namespace) {
        return None;
    }
    let tokens = ungranted.iter().filter(|_| lock::refuses(ungranted, settings));
    let mut reasons: Vec<String> = tokens.map(ToString::to_string).collect();
    reasons.extend(lock::unexamined(request, settings).map(ToString::to_string));
    if reasons.is_empty() {
        return None;
    }
    if let InjectionOutcome::Refused { reasons: others, .. } = decided {
        reasons.extend(others.iter().cloned());
    }
    Some(InjectionOutcome::Refused {
        reasons,
        enforcement: Enforcement::Enforce,
    })
}
