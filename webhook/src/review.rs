//! AdmissionReview of admission.k8s.io/v1 on the wire: a pod in, a verdict and a patch out.
//!
//! The request is read by a borrowed, partial decode, and the answer is written straight to text: the pod is never built
//! as a whole, so nothing of it can get lost.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use base64_simd::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokenscope_core::json::push_string;
use tokenscope_core::pod::{OwnerReference, Pod, Text};
use tokenscope_core::{ContainerGrant, Decision, Enforcement, Granted, PolicySet, Settings, decide, json};

use crate::facts::{self, Surroundings};
use crate::metrics::Outcome;
use crate::patch;
use crate::plan::{self, Verdict};

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
}

/// Why a review can't be answered. `Display` repeats nothing of the body, since the API server shows it; the cause is for the
/// log.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
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
pub fn read(body: &[u8]) -> Result<Asked<'_>, Unreadable> {
    let text = std::str::from_utf8(body)?;
    let error = match json::from_str::<Wire<'_, Pod<Text<'_>>>>(text) {
        Ok(wire) => return asked(wire),
        Err(error) => error,
    };
    // An object that is no pod is none of our business, but a pod that can't be read is.
    let wire: Wire<'_, IgnoredAny> = json::from_str(text).map_err(Unreadable::Json)?;
    let request = checked(wire)?;
    if request.creates_a_pod() {
        return Err(Unreadable::Pod(error));
    }
    Ok(Asked::Other { uid: request.uid })
}

fn asked<'a>(wire: Wire<'a, Pod<Text<'a>>>) -> Result<Asked<'a>, Unreadable> {
    let request = checked(wire)?;
    if !request.creates_a_pod() {
        return Ok(Asked::Other { uid: request.uid });
    }
    Ok(Asked::Pod(Box::new(Review {
        uid: request.uid,
        namespace: request.namespace.ok_or(Unreadable::Missing("namespace"))?,
        dry_run: request.dry_run.unwrap_or_default(),
        pod: request.object.ok_or(Unreadable::Missing("object"))?,
    })))
}

fn checked<O>(wire: Wire<'_, O>) -> Result<WireRequest<'_, O>, Unreadable> {
    if *wire.api_version != *API_VERSION || *wire.kind != *KIND {
        return Err(Unreadable::Version);
    }
    let request = wire.request.ok_or(Unreadable::Missing("request"))?;
    if request.uid.is_empty() {
        return Err(Unreadable::Missing("request.uid"));
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

/// The answer to a review.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The AdmissionReview as JSON.
    pub body: String,
    /// How it is counted.
    pub outcome: Outcome,
    /// What is to be written on the pod's owner.
    pub refusal: Option<Refusal>,
}

/// A refusal that somebody should hear of who does not see the answer.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The pod's namespace.
    pub namespace: Box<str>,
    /// The object that creates the pod.
    pub owner: OwnerReference<Box<str>>,
    /// Why.
    pub message: String,
}

/// Lets something through that is no pod's creation.
pub fn allow(uid: &str) -> Answer {
    let mut body = begin(uid, true, 0);
    body.push_str("}}");
    Answer {
        body,
        outcome: Outcome::Untouched,
        refusal: None,
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

    /// The answer, as things are at `now`. The same facts always give the same answer.
    pub fn answer(
        &self,
        surroundings: Surroundings<'_>,
        policies: &PolicySet,
        settings: &Settings,
        now: Timestamp,
    ) -> Answer {
        let account_is_known = surroundings.service_account_annotations.is_some();
        let record = self.pod.grant_record();
        let request = facts::request(&self.pod, record.as_ref(), &self.namespace, surroundings);
        let decision = decide(&request, policies, settings, now);
        let plan = plan::plan(&self.pod, record.as_ref(), &request, &decision, settings);

        let patch = (!plan.edits.is_empty()).then(|| patch::json(&plan.edits));
        let mut warnings = Warnings::default();
        if !account_is_known {
            warnings.add(&format!(
                "service account {} was not found, so its annotations could not be looked at",
                request.service_account
            ));
        }
        for warning in &plan.warnings {
            warnings.add(warning);
        }
        let (outcome, allowed) = match &plan.verdict {
            Verdict::Untouched(_) => (Outcome::Untouched, true),
            Verdict::Granted => (Outcome::Granted, true),
            Verdict::Refused { enforcement, .. } => match enforcement {
                Enforcement::Enforce => (Outcome::Denied, false),
                Enforcement::Warn => (Outcome::Warned, true),
                Enforcement::Audit => (Outcome::Audited, true),
            },
        };
        if let Verdict::Refused { reasons, .. } = &plan.verdict
            && outcome == Outcome::Warned
        {
            warnings.add("the pod gets no AWS credentials:");
            for reason in reasons {
                warnings.add(reason);
            }
        }

        let mut body = begin(&self.uid, allowed, patch.as_ref().map_or(0, String::len));
        if let Some(patch) = &patch {
            body.push_str(",\"patchType\":\"JSONPatch\",\"patch\":\"");
            STANDARD.encode_append(patch, &mut body);
            body.push('"');
        }
        if let Verdict::Refused { reasons, .. } = &plan.verdict
            && !allowed
        {
            body.push_str(",\"status\":{\"status\":\"Failure\",\"message\":");
            push_string(&mut body, &format!("tokenscope: {}", reasons.join("; ")));
            body.push_str(",\"reason\":\"Forbidden\",\"code\":403}");
        }
        warnings.write(&mut body);
        audit(&plan.verdict, outcome, &decision, &mut body);
        body.push_str("}}");
        Answer {
            body,
            outcome,
            refusal: self.refusal(&plan.verdict),
        }
    }

    /// What is to be written on the pod's owner: whoever asked it for pods does not see our answer.
    fn refusal(&self, verdict: &Verdict) -> Option<Refusal> {
        let Verdict::Refused { reasons, enforcement } = verdict else {
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
        let owners = self.pod.metadata.owner_references.as_deref()?;
        let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
        Some(Refusal {
            namespace: (*self.namespace).into(),
            owner: OwnerReference {
                api_version: (*owner.api_version).into(),
                kind: (*owner.kind).into(),
                name: (*owner.name).into(),
                uid: (*owner.uid).into(),
                controller: owner.controller,
            },
            message: format!("{what}: {}", reasons.join("; ")),
        })
    }
}

/// Everything up to `allowed`, with room for what mostly follows.
fn begin(uid: &str, allowed: bool, patch: usize) -> String {
    let mut body = String::with_capacity(1024 + patch.div_ceil(3) * 4);
    body.push_str(r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"#);
    push_string(&mut body, uid);
    body.push_str(if allowed {
        ",\"allowed\":true"
    } else {
        ",\"allowed\":false"
    });
    body
}

/// What the API server writes into its audit log, if it has one.
fn audit(verdict: &Verdict, outcome: Outcome, decision: &Decision, body: &mut String) {
    /// An audit event has many readers and no use for a book.
    const MOST_BYTES: usize = 2048;
    let mut annotations = vec![("decision", Cow::Borrowed(outcome.as_str()))];
    match (verdict, decision) {
        (Verdict::Untouched(_), _) => return,
        (Verdict::Granted, Decision::Granted(granted)) => annotations.extend([
            ("role", distinct(granted, |granted| Some(&granted.grant.role)).into()),
            (
                "policy",
                distinct(granted, |granted| granted.grant.policy.as_ref()).into(),
            ),
            ("reasons", distinct(granted, |granted| Some(&granted.reason)).into()),
        ]),
        (Verdict::Refused { reasons, .. }, _) => annotations.push(("reasons", reasons.join("; ").into())),
        // A plan grants only what was granted.
        (Verdict::Granted, _) => {}
    }
    body.push_str(",\"auditAnnotations\":{");
    let present = annotations.iter().filter(|(_, value)| !value.is_empty());
    for (index, (key, value)) in present.enumerate() {
        if index > 0 {
            body.push(',');
        }
        push_string(body, key);
        body.push(':');
        push_string(body, up_to(value, MOST_BYTES));
    }
    body.push('}');
}

/// What the containers' grants say, each once.
fn distinct<'a, T>(granted: &'a Granted, said: impl Fn(&'a ContainerGrant) -> Option<&'a T>) -> String
where
    T: PartialEq + fmt::Display + 'a,
{
    let mut things: Vec<&T> = Vec::with_capacity(1);
    let mut text = String::with_capacity(128);
    for thing in granted.containers.iter().filter_map(said) {
        if things.contains(&thing) {
            continue;
        }
        things.push(thing);
        let separator = if text.is_empty() { "" } else { "; " };
        // Writing into a String can't fail.
        let _ = write!(text, "{separator}{thing}");
    }
    text
}

/// Warnings as kubectl shows them: the API server cuts each after 256 characters, and all together after 4,096.
#[derive(Default)]
struct Warnings {
    texts: Vec<String>,
}

impl Warnings {
    const MOST: usize = 14;
    const MOST_BYTES: usize = 256;
    const PREFIX: &'static str = "tokenscope: ";
    const CONTINUED: &'static str = "… ";

    /// A sentence that is too long goes on in the next warning.
    fn add(&mut self, text: &str) {
        let mut rest = text;
        let mut prefix = Self::PREFIX;
        while !rest.is_empty() && self.texts.len() < Self::MOST {
            let room = Self::MOST_BYTES - prefix.len();
            let mut part = up_to(rest, room);
            if part.len() < rest.len()
                && let Some(space) = part.rfind(' ').filter(|&at| at > 0)
            {
                part = &part[..space];
            }
            self.texts.push(format!("{prefix}{part}"));
            rest = rest[part.len()..].trim_start();
            prefix = Self::CONTINUED;
        }
    }

    fn write(&self, body: &mut String) {
        if self.texts.is_empty() {
            return;
        }
        body.push_str(",\"warnings\":[");
        for (index, text) in self.texts.iter().enumerate() {
            if index > 0 {
                body.push(',');
            }
            push_string(body, text);
        }
        body.push(']');
    }
}

/// The longest start of a text that has at most `most` bytes.
pub(crate) fn up_to(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or_default()]
}
