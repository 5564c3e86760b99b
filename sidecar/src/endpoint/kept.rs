//! The state of a container's credentials: those that are served, or the reason why there are none. Pure: the time is an argument.

use std::fmt;

use hyper::body::Bytes;
use jiff::Timestamp;
use serde_json::json;
use tokenscope_aws::AssumedRole;
use tokenscope_core::RoleArn;

/// Credentials as they are served. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ServedCredentials {
    /// The answer's body.
    pub(crate) body: Bytes,
    pub(crate) expires_at: Timestamp,
}

impl ServedCredentials {
    /// The answer for a role that was taken (AWS SDKs and Tools reference, "Container credential provider"). Its account is what SDKs make
    /// endpoints of that have the account in their names ("Account-based endpoints").
    pub(crate) fn new(taken: &AssumedRole, role: &RoleArn) -> Self {
        let credentials = &taken.credentials;
        let token = credentials.session_token.as_ref();
        let body = json!({
            "AccessKeyId": &*credentials.access_key_id,
            "SecretAccessKey": credentials.secret_access_key.expose(),
            "Token": token.map_or("", |token| token.expose()),
            "Expiration": format!("{:.0}", taken.expires_at),
            "RoleArn": role.as_str(),
            "AccountId": role.account(),
        });
        Self {
            body: body.to_string().into(),
            expires_at: taken.expires_at,
        }
    }
}

impl fmt::Debug for ServedCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ServedCredentials(until {:.0})", self.expires_at)
    }
}

/// The kind of a failure to renew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// Somebody has looked at the request and refuses it.
    Refused,
    /// Nobody answers, or the answer is one for later.
    Outage,
    /// tokenscope's issuer says that the grant does not stand any more: what is there is dropped, too.
    Withdrawn,
}

/// The reason why credentials could not be renewed, in words for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RenewalError {
    pub(crate) kind: FailureKind,
    /// The code of the JSON that is answered.
    pub(crate) code: Box<str>,
    pub(crate) message: Box<str>,
}

impl RenewalError {
    /// True if it is another kind of trouble than the last one, or a refusal in other words.
    pub(crate) fn is_news_after(&self, last: Option<&Self>) -> bool {
        last.is_none_or(|last| last.kind != self.kind || (self.kind != FailureKind::Outage && last != self))
    }
}

/// The credentials that are kept for a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    credentials: Option<ServedCredentials>,
    trouble: Option<RenewalError>,
}

/// The answer to an authorized request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    /// Credentials that are valid.
    Credentials(&'a ServedCredentials),
    /// The reason why there are none.
    Unavailable(&'a RenewalError),
    /// Nothing is known yet.
    Nothing,
}

impl Kept {
    /// New credentials have come.
    pub(crate) fn renewed(&mut self, credentials: ServedCredentials) {
        self.credentials = Some(credentials);
        self.trouble = None;
    }

    /// They could not be renewed. Those that are there are served while they are valid, unless the grant itself was withdrawn:
    /// nobody but AWS ends a session, and to withhold it would end nothing. Returns whether that is news.
    pub(crate) fn failed(&mut self, trouble: RenewalError) -> bool {
        if trouble.kind == FailureKind::Withdrawn {
            self.credentials = None;
        }
        let news = trouble.is_news_after(self.trouble.as_ref());
        self.trouble = Some(trouble);
        news
    }

    /// The answer at `now`.
    pub(crate) fn reply(&self, now: Timestamp) -> Reply<'_> {
        match (&self.credentials, &self.trouble) {
            (Some(credentials), _) if credentials.expires_at > now => Reply::Credentials(credentials),
            (_, Some(trouble)) => Reply::Unavailable(trouble),
            (_, None) => Reply::Nothing,
        }
    }

    /// The end of what is there.
    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        self.credentials.as_ref().map(|credentials| credentials.expires_at)
    }

    /// The trouble, if there is any.
    pub(crate) fn trouble(&self) -> Option<&RenewalError> {
        self.trouble.as_ref()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tokenscope_aws::{Credentials, Secret};

    use super::*;

    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    pub(crate) fn credentials(until: i64) -> ServedCredentials {
        let taken = AssumedRole {
            credentials: Credentials {
                access_key_id: "ASIAEXAMPLEEXAMPLE12".into(),
                secret_access_key: Secret::new("hidden/+="),
                session_token: Some(Secret::new("hidden-too")),
            },
            expires_at: at(until),
            arn: "arn:aws:sts::111122223333:assumed-role/orders/pod-1".into(),
            source_identity: None,
            utilization_percent: None,
        };
        let role = "arn:aws:iam::111122223333:role/orders".parse().unwrap();
        ServedCredentials::new(&taken, &role)
    }

    pub(crate) fn trouble(kind: FailureKind, message: &str) -> RenewalError {
        RenewalError {
            kind,
            code: "AccessDenied".into(),
            message: message.into(),
        }
    }

    #[test]
    fn the_body_has_what_sdks_read_and_debug_has_no_secret() {
        let held = credentials(1_800_003_600);
        let body: serde_json::Value = serde_json::from_slice(&held.body).unwrap();
        assert_eq!(
            body,
            json!({
                "AccessKeyId": "ASIAEXAMPLEEXAMPLE12", "SecretAccessKey": "hidden/+=", "Token": "hidden-too",
                "Expiration": "2027-01-15T09:00:00Z", "RoleArn": "arn:aws:iam::111122223333:role/orders",
                "AccountId": "111122223333",
            })
        );
        assert_eq!(format!("{held:?}"), "ServedCredentials(until 2027-01-15T09:00:00Z)");
    }

    #[test]
    fn old_credentials_are_served_while_they_are_valid_whatever_sts_says() {
        for kind in [FailureKind::Outage, FailureKind::Refused] {
            let mut kept = Kept::default();
            assert_eq!(kept.reply(at(0)), Reply::Nothing);
            kept.renewed(credentials(100));
            kept.failed(trouble(kind, "no"));
            assert_eq!(kept.reply(at(99)), Reply::Credentials(&credentials(100)));
            assert_eq!(kept.reply(at(100)), Reply::Unavailable(&trouble(kind, "no")));
            kept.renewed(credentials(300));
            assert_eq!(
                (kept.reply(at(299)), kept.trouble()),
                (Reply::Credentials(&credentials(300)), None)
            );
        }
    }

    #[test]
    fn what_the_issuer_withdraws_is_dropped_at_once() {
        let mut kept = Kept::default();
        kept.renewed(credentials(100));
        kept.failed(trouble(FailureKind::Withdrawn, "the policy is gone"));
        assert_eq!(
            kept.reply(at(0)),
            Reply::Unavailable(&trouble(FailureKind::Withdrawn, "the policy is gone"))
        );
        assert_eq!(kept.expires_at(), None);
    }

    #[test]
    fn only_another_kind_of_trouble_or_a_refusal_in_other_words_is_news() {
        let mut kept = Kept::default();
        assert!(kept.failed(trouble(FailureKind::Outage, "a")));
        assert!(!kept.failed(trouble(FailureKind::Outage, "b")));
        assert!(kept.failed(trouble(FailureKind::Refused, "a")));
        assert!(!kept.failed(trouble(FailureKind::Refused, "a")));
        assert!(kept.failed(trouble(FailureKind::Refused, "b")));
    }
}
