//! The answers, read with bounds.

use jiff::Timestamp;

use crate::credentials::{Credentials, Secret};
use crate::error::StsError;
use crate::xml::XmlTexts;

/// The answer of `AssumeRole` and `AssumeRoleWithWebIdentity`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssumedRole {
    /// The credentials of the session.
    pub credentials: Credentials,
    /// The time from which nobody takes them.
    pub expires_at: Timestamp,
    /// `arn:<partition>:sts::<account>:assumed-role/<role>/<session>`.
    pub arn: Box<str>,
    /// The source identity, if there is one.
    pub source_identity: Option<Box<str>>,
    /// Percent of the largest session token that tags and policies use: `SessionTokenUtilization`, or `PackedPolicySize`
    /// of an STS that is older.
    pub utilization_percent: Option<u32>,
}

/// The answer of `GetWebIdentityToken`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebIdentityToken {
    /// The token.
    pub token: Secret,
    /// The time of its `exp`.
    pub expires_at: Timestamp,
}

/// The answer of `GetCallerIdentity`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerIdentity {
    /// The session's or user's ARN.
    pub arn: Box<str>,
    /// The account: 12 digits, in AWS.
    pub account: Box<str>,
    /// A unique id.
    pub user_id: Box<str>,
}

impl AssumedRole {
    /// Reads the answer to `action`, `AssumeRole` or `AssumeRoleWithWebIdentity`.
    pub fn read(action: &str, status: u16, body: &[u8]) -> Result<Self, StsError> {
        let members = Members::read(action, status, body)?;
        let number = |name: &str| members.text(name)?.parse().ok();
        let role = || {
            Some(Self {
                credentials: Credentials {
                    access_key_id: members
                        .text("Credentials/AccessKeyId")
                        .filter(|id| is_key_id(id))?
                        .into(),
                    secret_access_key: Secret::new(members.header("Credentials/SecretAccessKey")?),
                    session_token: Some(Secret::new(members.header("Credentials/SessionToken")?)),
                },
                expires_at: members.time("Credentials/Expiration")?,
                arn: members.text("AssumedRoleUser/Arn")?.into(),
                source_identity: members.text("SourceIdentity").map(Into::into),
                utilization_percent: number("SessionTokenUtilization").or_else(|| number("PackedPolicySize")),
            })
        };
        role().ok_or(StsError::Unreadable(status))
    }
}

impl WebIdentityToken {
    /// Reads the answer to `GetWebIdentityToken`.
    pub fn read(status: u16, body: &[u8]) -> Result<Self, StsError> {
        let members = Members::read("GetWebIdentityToken", status, body)?;
        let token = || {
            Some(Self {
                token: Secret::new(members.header("WebIdentityToken")?),
                expires_at: members.time("Expiration")?,
            })
        };
        token().ok_or(StsError::Unreadable(status))
    }
}

impl CallerIdentity {
    /// Reads the answer to `GetCallerIdentity`.
    pub fn read(status: u16, body: &[u8]) -> Result<Self, StsError> {
        let members = Members::read("GetCallerIdentity", status, body)?;
        let identity = || {
            Some(Self {
                arn: members.text("Arn")?.into(),
                account: members.text("Account")?.into(),
                user_id: members.text("UserId")?.into(),
            })
        };
        identity().ok_or(StsError::Unreadable(status))
    }
}

/// The members of a result.
struct Members {
    texts: XmlTexts,
    prefix: String,
}

impl Members {
    fn read(action: &str, status: u16, body: &[u8]) -> Result<Self, StsError> {
        if status != 200 {
            return Err(StsError::read(status, body));
        }
        Ok(Self {
            texts: XmlTexts::read(body).ok_or(StsError::Unreadable(status))?,
            prefix: format!("{action}Response/{action}Result/"),
        })
    }

    /// `None` for an empty text, too.
    fn text(&self, name: &str) -> Option<&str> {
        let text = self.texts.get(&format!("{}{name}", self.prefix))?.trim();
        (!text.is_empty()).then_some(text)
    }

    /// A text that goes into a header or a file: printable ASCII without spaces.
    fn header(&self, name: &str) -> Option<&str> {
        self.text(name)
            .filter(|text| text.bytes().all(|b| b.is_ascii_graphic()))
    }

    fn time(&self, name: &str) -> Option<Timestamp> {
        self.text(name)?.parse().ok()
    }
}

/// `accessKeyIdType`: 16 to 128 of `\w`.
fn is_key_id(text: &str) -> bool {
    (16..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
        <SourceIdentity>shop.orders</SourceIdentity><AssumedRoleUser><AssumedRoleId>AROA:pod-1</AssumedRoleId>\
        <Arn>arn:aws:sts::111122223333:assumed-role/orders/pod-1</Arn></AssumedRoleUser><Credentials>\
        <AccessKeyId>ASIAEXAMPLEEXAMPLE12</AccessKeyId><SecretAccessKey>s/+=</SecretAccessKey><SessionToken>t//=</SessionToken>\
        <Expiration>2027-01-15T09:00:00Z</Expiration></Credentials><PackedPolicySize>6</PackedPolicySize></AssumeRoleResult>\
        <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></AssumeRoleResponse>";

    #[test]
    fn credentials_are_read() {
        let role = AssumedRole::read("AssumeRole", 200, ROLE.as_bytes()).unwrap();
        assert_eq!(&*role.credentials.access_key_id, "ASIAEXAMPLEEXAMPLE12");
        assert_eq!(role.credentials.secret_access_key.expose(), "s/+=");
        assert_eq!(role.credentials.session_token.unwrap().expose(), "t//=");
        assert_eq!(role.expires_at.as_second(), 1_800_003_600);
        assert_eq!(
            (role.source_identity.as_deref(), role.utilization_percent),
            (Some("shop.orders"), Some(6))
        );
    }

    #[test]
    fn an_answer_without_a_member_or_with_one_that_cannot_be_is_not_of_sts() {
        for (part, other) in [
            ("ASIAEXAMPLEEXAMPLE12", "x"),
            ("<SecretAccessKey>s/+=</SecretAccessKey>", ""),
            ("t//=", "a\nb"),
            ("2027-01-15T09:00:00Z", "soon"),
            ("AssumeRoleResult", "OtherResult"),
            (
                "<PackedPolicySize>6</PackedPolicySize>",
                "<Credentials><AccessKeyId>ASIAEXAMPLEEXAMPLE13</AccessKeyId></Credentials>",
            ),
        ] {
            let changed = ROLE.replace(part, other);
            let read = AssumedRole::read("AssumeRole", 200, changed.as_bytes());
            assert_eq!(read, Err(StsError::Unreadable(200)), "{part}");
        }
        let read = AssumedRole::read("AssumeRole", 403, b"");
        assert_eq!(read, Err(StsError::Unreadable(403)));
    }

    #[test]
    fn tokens_and_identities_are_read() {
        let token = "<GetWebIdentityTokenResponse><GetWebIdentityTokenResult><WebIdentityToken>a.b.c</WebIdentityToken>\
                     <Expiration>2027-01-15T08:05:00Z</Expiration></GetWebIdentityTokenResult></GetWebIdentityTokenResponse>";
        let token = WebIdentityToken::read(200, token.as_bytes()).unwrap();
        assert_eq!(
            (token.token.expose(), token.expires_at.as_second()),
            ("a.b.c", 1_800_000_300)
        );
        let identity = "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>a</Arn><UserId>u</UserId><Account>1</Account>\
                        </GetCallerIdentityResult></GetCallerIdentityResponse>";
        let identity = CallerIdentity::read(200, identity.as_bytes()).unwrap();
        assert_eq!(
            (&*identity.arn, &*identity.account, &*identity.user_id),
            ("a", "1", "u")
        );
    }
}
