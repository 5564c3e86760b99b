//! The API server's word on a subject token, where an installation wants it for each exchange (`--token-review`).
//!
//! The cluster's keys prove who made a token. The API server knows also at once that the pod or the service account is gone, and
//! another authenticator than its own keys. It is asked last: about tokens that were verified, within the limits of their pods, and
//! that would bring a token by everything that is known here. So neither strangers nor pods that have ended or are granted nothing
//! cause such a request, and no namespace's pods take the room of all others.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::subject_token::Caller;

/// The most questions that wait for an answer at a time.
pub const MOST_AT_A_TIME: usize = 64;
/// The most of them about the pods of one namespace. With an answer in five milliseconds that is 1,600 a second.
pub const MOST_OF_A_NAMESPACE: usize = 8;
/// The key under which the API server names the pod that a token is bound to (Kubernetes, `pkg/serviceaccount`).
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Asks the API server.
#[derive(Debug)]
pub struct TokenReviews {
    reviews: Api<TokenReview>,
    audience: Box<str>,
    deadline: Duration,
    asking: Asking,
}

/// The number of questions of each namespace that wait for an answer. A namespace without one is not in it.
#[derive(Debug, Default)]
struct Asking(Mutex<HashMap<Box<str>, usize>>);

/// One question's place. It is given back with its end.
#[derive(Debug)]
struct ReviewSlot<'a> {
    asking: &'a Asking,
    namespace: &'a str,
}

impl Asking {
    fn place<'a>(&'a self, namespace: &'a str) -> Result<ReviewSlot<'a>, NotConfirmed> {
        let mut counts = self.counts();
        let own = counts.get(namespace).copied().unwrap_or_default();
        if own >= MOST_OF_A_NAMESPACE {
            return Err(NotConfirmed::NamespaceFull(namespace.into()));
        }
        if counts.values().sum::<usize>() >= MOST_AT_A_TIME {
            return Err(NotConfirmed::Full);
        }
        counts.insert(namespace.into(), own + 1);
        drop(counts);
        Ok(ReviewSlot {
            asking: self,
            namespace,
        })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Box<str>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ReviewSlot<'_> {
    fn drop(&mut self) {
        let mut counts = self.asking.counts();
        if let Some(count) = counts.get_mut(self.namespace) {
            *count -= 1;
            if *count == 0 {
                counts.remove(self.namespace);
            }
        }
    }
}

/// The reason why a token is not confirmed. No text repeats the token or what the API server says of it.
#[derive(Debug, thiserror::Error)]
pub enum NotConfirmed {
    /// The API server does not take the token, or takes it for somebody else's.
    #[error("the API server does not take the subject token any more")]
    Refused,
    /// Too many are asked about.
    #[error("too many tokens wait for the API server's word: try again later")]
    Full,
    /// Too many tokens of this namespace's pods are asked about.
    #[error("too many tokens of namespace {0} wait for the API server's word: try again later")]
    NamespaceFull(Box<str>),
    /// No answer in time.
    #[error("the API server has not said whether it takes the subject token: try again later")]
    Late,
    /// No answer.
    #[error("the API server can't be asked about the subject token: try again later")]
    Asking(#[source] Box<kube::Error>),
}

impl From<Elapsed> for NotConfirmed {
    fn from(_: Elapsed) -> Self {
        Self::Late
    }
}

impl TokenReviews {
    /// Asks about tokens of this audience, and waits so long at most for an answer.
    pub fn new(client: Client, audience: &str, deadline: Duration) -> Self {
        Self {
            reviews: Api::all(client),
            audience: audience.into(),
            deadline,
            asking: Asking::default(),
        }
    }

    /// Whether the API server takes the token now, for this audience and as this caller's.
    pub async fn confirm(&self, token: &str, caller: &Caller) -> Result<(), NotConfirmed> {
        let _place = self.asking.place(&caller.namespace)?;
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![self.audience.to_string()]),
                token: Some(token.to_owned()),
            },
            ..TokenReview::default()
        };
        let parameters = PostParams::default();
        let answer = timeout(self.deadline, self.reviews.create(&parameters, &review)).await?;
        let status = answer
            .map_err(|error| NotConfirmed::Asking(Box::new(error)))?
            .status
            .unwrap_or_default();
        let is_for_us = status
            .audiences
            .iter()
            .flatten()
            .any(|audience| **audience == *self.audience);
        let is_the_caller = status.user.is_some_and(|user| is_of(&user, caller));
        let is_confirmed = status.authenticated == Some(true) && is_for_us && is_the_caller;
        is_confirmed.then_some(()).ok_or(NotConfirmed::Refused)
    }
}

fn is_of(user: &UserInfo, caller: &Caller) -> bool {
    let none = BTreeMap::new();
    let pod = user.extra.as_ref().unwrap_or(&none).get(POD_UID);
    user.username.as_deref() == Some(&*caller.user_name())
        && user.uid.as_deref() == Some(&*caller.service_account_uid)
        && pod.is_some_and(|uids| matches!(&**uids, [uid] if **uid == *caller.pod_uid))
}
