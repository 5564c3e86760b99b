//! The claims of a subject token (Kubernetes, `pkg/serviceaccount/claims.go`).

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::object::Object;
use super::{Caller, Expected, InvalidSubjectToken, LEEWAY};

/// A name or UID of Kubernetes has at most 253 bytes.
const MOST_NAME_BYTES: usize = 253;

/// The claims that are read. Others are passed over. A token that has one of these twice is refused.
#[derive(Deserialize)]
pub(super) struct SubjectClaims {
    iss: Box<str>,
    sub: Box<str>,
    aud: OnlyAudience,
    exp: i64,
    iat: i64,
    nbf: i64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Object<Kubernetes>,
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: Box<str>,
    serviceaccount: Object<Reference>,
    #[serde(default)]
    pod: Option<Object<Reference>>,
}

#[derive(Deserialize)]
struct Reference {
    name: Box<str>,
    uid: Box<str>,
}

/// The audience, where there is exactly one. A token for several parties was given to each of them, and any could exchange it.
struct OnlyAudience(Option<Box<str>>);

impl<'de> Deserialize<'de> for OnlyAudience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = OnlyAudience;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(OnlyAudience(Some(text.into())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let first: Option<Box<str>> = list.next_element()?;
                let mut is_only = true;
                while list.next_element::<Box<str>>()?.is_some() {
                    is_only = false;
                }
                Ok(OnlyAudience(first.filter(|_| is_only)))
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl SubjectClaims {
    pub(super) fn read(text: &[u8]) -> Result<Self, InvalidSubjectToken> {
        let Object(claims): Object<Self> = serde_json::from_slice(text).map_err(|error| {
            if error.is_data() {
                InvalidSubjectToken::Claims
            } else {
                InvalidSubjectToken::Form
            }
        })?;
        Ok(claims)
    }

    pub(super) fn check(&self, expected: &Expected<'_>, now: i64) -> Result<(), InvalidSubjectToken> {
        if *self.iss != *expected.issuer {
            return Err(InvalidSubjectToken::Issuer);
        }
        if self.aud.0.as_deref() != Some(expected.audience) {
            return Err(InvalidSubjectToken::Audience);
        }
        if now >= self.exp.saturating_add(LEEWAY) {
            return Err(InvalidSubjectToken::Expired);
        }
        let latest = now.saturating_add(LEEWAY);
        if self.nbf > latest || self.iat > latest {
            return Err(InvalidSubjectToken::NotYet);
        }
        let Object(Kubernetes {
            namespace,
            serviceaccount: Object(account),
            pod,
        }) = &self.kubernetes;
        let Object(pod) = pod.as_ref().ok_or(InvalidSubjectToken::NoPod)?;
        let is_name = |text: &str| {
            let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
            (1..=MOST_NAME_BYTES).contains(&text.len()) && text.bytes().all(allowed)
        };
        let names = [namespace, &account.name, &account.uid, &pod.name, &pod.uid];
        let is_same = *self.sub == *format!("system:serviceaccount:{namespace}:{}", account.name);
        if self.exp <= self.iat || !is_same || !names.into_iter().all(|name| is_name(name)) {
            return Err(InvalidSubjectToken::Claims);
        }
        Ok(())
    }

    pub(super) fn caller(self) -> Result<Caller, InvalidSubjectToken> {
        let Object(Kubernetes {
            namespace,
            serviceaccount: Object(account),
            pod,
        }) = self.kubernetes;
        let Object(pod) = pod.ok_or(InvalidSubjectToken::NoPod)?;
        Ok(Caller {
            namespace,
            service_account: account.name,
            service_account_uid: account.uid,
            pod: pod.name,
            pod_uid: pod.uid,
            issued_at: self.iat,
            expires_at: self.exp,
        })
    }
}
