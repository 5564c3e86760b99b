//! The policies that narrow a session of AWS STS, and its length, as a policy says them.

use std::fmt;
use std::str::FromStr;

use crate::arn::shortened;

/// The most bytes of a policy document.
pub const MOST_POLICY_BYTES: usize = 1024;
/// The most managed policies of a session (AWS STS API reference, AssumeRole, PolicyArns).
pub const MOST_POLICY_ARNS: usize = 10;
/// The most characters of the document and all ARNs together (the same).
const MOST_CHARACTERS: usize = 2048;

/// The policies that narrow what a session may do: it may do what the role and these allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionPolicy {
    /// A document.
    pub inline: Option<PolicyDocument>,
    /// Managed policies.
    pub arns: Vec<PolicyArn>,
}

impl SessionPolicy {
    /// True if it narrows nothing.
    pub fn is_empty(&self) -> bool {
        self.inline.is_none() && self.arns.is_empty()
    }

    /// True if STS takes as many characters.
    pub fn fits_sts(&self) -> bool {
        let inline = self.inline.as_ref().map_or(0, |document| document.0.len());
        inline + self.arns.iter().map(|arn| arn.0.len()).sum::<usize>() <= MOST_CHARACTERS
    }
}

/// An IAM policy document: a JSON object of at most 1024 printable ASCII characters, tabs and ends of lines.
///
/// Whether the policy is valid is left to IAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDocument(Box<str>);

impl PolicyDocument {
    /// The document as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PolicyDocument {
    type Err = InvalidSession;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~');
        if text.len() > MOST_POLICY_BYTES || !text.bytes().all(allowed) {
            return Err(InvalidSession::DocumentText);
        }
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text)
            .map_err(|error| InvalidSession::Document(error.to_string().into()))?;
        Ok(Self(text.into()))
    }
}

/// The ARN of a managed IAM policy: `arn:<partition>:iam::<account or aws>:policy/<path><name>` (IAM API reference, CreatePolicy).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyArn(Box<str>);

impl PolicyArn {
    /// The whole ARN.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PolicyArn {
    type Err = InvalidSession;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fields: Vec<&str> = text.splitn(6, ':').collect();
        let ["arn", partition, "iam", "", account, resource] = *fields else {
            return Err(InvalidSession::Arn(shortened(text)));
        };
        let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let suffix = partition.strip_prefix("aws");
        let is_partition = suffix.is_some_and(|suffix| {
            suffix.is_empty()
                || (suffix.len() > 1
                    && suffix.len() <= 32
                    && suffix.starts_with('-')
                    && !suffix.ends_with('-')
                    && suffix.bytes().all(is_word))
        });
        let is_account = account == "aws" || (account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()));
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b);
        let path = resource.strip_prefix("policy/");
        let is_policy = path.is_some_and(|path| {
            let name = path.rsplit('/').next().unwrap_or_default();
            (1..=128).contains(&name.len()) && path.bytes().all(|b| is_plain(b) || b == b'/')
        });
        if text.len() > 2048 || !is_partition || !is_account || !is_policy {
            return Err(InvalidSession::Arn(shortened(text)));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for PolicyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The length of a session in seconds: 3,600, from which on SDKs don't ask again with every call, to 43,200, the most that a role can
/// allow (AWS STS API reference, AssumeRoleWithWebIdentity).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionDuration(u32);

impl SessionDuration {
    /// An hour, the most after a step of a role chain (AWS IAM User Guide, "Role chaining").
    pub const HOUR: Self = Self(3600);

    /// A length of this many seconds.
    pub fn from_seconds(seconds: i64) -> Result<Self, InvalidSession> {
        u32::try_from(seconds)
            .ok()
            .filter(|seconds| (3600..=43_200).contains(seconds))
            .map(Self)
            .ok_or(InvalidSession::Duration(seconds))
    }

    /// The seconds.
    pub fn seconds(self) -> u32 {
        self.0
    }
}

/// The reason why a text says nothing about a session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSession {
    /// It is too long, or has other characters.
    #[error("should be a JSON object of at most 1024 printable ASCII characters, tabs and ends of lines")]
    DocumentText,
    /// It is no JSON object.
    #[error("should be a JSON object: {0}")]
    Document(Box<str>),
    /// It is no managed policy's ARN.
    #[error("{0:?} should be the ARN of a managed IAM policy, such as arn:aws:iam::aws:policy/ReadOnlyAccess")]
    Arn(Box<str>),
    /// It is no session's length.
    #[error("{0} should be 3600 to 43200 seconds")]
    Duration(i64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_a_json_object_within_its_bound() {
        let longest = format!("{{\"a\":\"{}\"}}", "x".repeat(MOST_POLICY_BYTES - 8));
        for text in ["{}", " {\n\t\"Version\": \"2012-10-17\"\r\n}\n", &longest] {
            assert!(text.parse::<PolicyDocument>().is_ok(), "{text}");
        }
        let nested = format!("{}{}", "{\"a\":".repeat(200), "1".repeat(10));
        for text in [
            "",
            "[]",
            "{",
            "{\"a\":}",
            "{\"ä\":1}",
            "{}\u{0}",
            &format!("{longest} "),
            &nested,
        ] {
            assert!(text.parse::<PolicyDocument>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_arn_names_a_managed_policy() {
        for arn in [
            "arn:aws:iam::aws:policy/ReadOnlyAccess",
            "arn:aws-us-gov:iam::aws:policy/service-role/A",
            "arn:aws:iam::111122223333:policy/shop/orders_+=,.@-",
        ] {
            assert_eq!(arn.parse::<PolicyArn>().unwrap().to_string(), arn);
        }
        for arn in [
            "",
            "arn:aws:iam::111122223333:role/orders",
            "arn:aws:iam::1111:policy/a",
            "arn:azure:iam::aws:policy/a",
            "arn:aws:iam:eu-central-1:aws:policy/a",
            "arn:aws:iam::aws:policy/",
            "arn:aws:iam::aws:policy/a/",
            "arn:aws:iam::aws:policy/a*",
            "arn:aws:iam::aws:policy/$(A)",
            &format!("arn:aws:iam::aws:policy/{}", "a".repeat(129)),
        ] {
            assert!(arn.parse::<PolicyArn>().is_err(), "{arn}");
        }
    }

    #[test]
    fn sts_takes_2048_characters_of_both_together() {
        let arns = |count: usize| SessionPolicy {
            inline: Some(format!("{{{}}}", " ".repeat(MOST_POLICY_BYTES - 2)).parse().unwrap()),
            arns: vec![format!("arn:aws:iam::aws:policy/{}", "a".repeat(104)).parse().unwrap(); count],
        };
        assert!(arns(8).fits_sts() && !arns(9).fits_sts() && !arns(0).is_empty());
        assert!(SessionPolicy::default().is_empty());
    }

    #[test]
    fn a_session_lasts_an_hour_to_half_a_day() {
        for seconds in [3600, 43_200] {
            assert_eq!(
                i64::from(SessionDuration::from_seconds(seconds).unwrap().seconds()),
                seconds
            );
        }
        for seconds in [-1, 0, 900, 3599, 43_201, i64::MAX] {
            assert!(SessionDuration::from_seconds(seconds).is_err(), "{seconds}");
        }
    }
}
