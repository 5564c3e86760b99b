//! The AWS account of the stand-in: identity providers and roles, checked when they are added.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use serde::Deserialize;

use crate::account::{OutboundFederation, Permissions, User};
use crate::config_error::StsConfigError;
use crate::context_provider::ContextProvider;
use crate::names::{AssumableRole, is_account, is_partition};
use crate::trust::IamTrustPolicy;

/// Everything a [`crate::Server`] starts with. Also the form of the binary's `--config` file (JSON).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StsConfig {
    /// IAM OIDC identity providers.
    #[serde(default)]
    pub providers: Vec<Provider>,
    /// IAM roles.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// PEM bundle of the CAs that issuers' certificates are checked against. AWS has its own library of public CAs.
    #[serde(default)]
    pub issuer_trust_pem: String,
    /// Issuer host to the loopback address where it is really reached. URL, Host header and TLS server name stay the
    /// issuer's.
    #[serde(default)]
    pub connect_to: BTreeMap<String, SocketAddr>,
    /// IAM users with keys of their own, who may start a chain.
    #[serde(default)]
    pub users: Vec<User>,
    /// What roles and users may do, and their tags. A principal that isn't here may do nothing and has none.
    #[serde(default)]
    pub permissions: Vec<Permissions>,
    /// Documents of managed policies by ARN, for sessions that are narrowed by them.
    #[serde(default)]
    pub managed_policies: BTreeMap<String, serde_json::Value>,
    /// Accounts whose outbound web identity federation is enabled.
    #[serde(default)]
    pub outbound_federation: Vec<OutboundFederation>,
    /// The region that it answers for: signatures for another are refused. `aws-global` makes it the global endpoint. Without
    /// one it answers for every region that a signature names.
    #[serde(default)]
    pub region: Option<String>,
}

/// An IAM OIDC identity provider, as `CreateOpenIDConnectProvider` takes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// The issuer, compared with the token's `iss` byte by byte: `https://`, no port, no query, 1..=255 characters.
    pub url: String,
    /// Audiences accepted from it: at most 100, each 1..=255 characters.
    pub client_ids: Vec<String>,
    /// The account it is registered in: 12 digits.
    pub account: String,
    /// The partition of the account.
    #[serde(default = "default_partition")]
    pub partition: String,
    /// `ContextProvider` as `CreateOpenIDConnectProvider` takes it, if its tokens carry trusted context.
    #[serde(default)]
    pub context_provider: Option<serde_json::Value>,
}

/// An IAM role.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// `arn:<partition>:iam::<account>:role/<path><name>`.
    pub arn: String,
    /// The trust policy (AssumeRolePolicyDocument) as JSON.
    pub trust_policy: serde_json::Value,
    /// The longest session in seconds: 3600..=43200, as `CreateRole` bounds it.
    #[serde(default = "default_max_session_duration")]
    pub max_session_duration: u32,
}

/// A provider that passed its checks.
#[derive(Clone)]
pub(crate) struct CheckedProvider {
    pub(crate) url: String,
    pub(crate) client_ids: Vec<String>,
    pub(crate) account: String,
    pub(crate) partition: String,
    pub(crate) arn: String,
    pub(crate) context: Option<ContextProvider>,
}

/// A role that passed its checks.
pub(crate) struct CheckedRole {
    pub(crate) trust: IamTrustPolicy,
    pub(crate) max_session_duration: u32,
}

impl Role {
    pub(crate) fn check(&self) -> Result<CheckedRole, StsConfigError> {
        if AssumableRole::parse(&self.arn).is_none() {
            let problem = format!(
                "`{}` is not arn:<partition>:iam::<12 digits>:role/<path><name>",
                self.arn
            );
            return Err(StsConfigError::invalid("arn", problem));
        }
        if !(3600..=43_200).contains(&self.max_session_duration) {
            let problem = format!("{} is not within 3600..=43200 seconds", self.max_session_duration);
            return Err(StsConfigError::invalid("max_session_duration", problem));
        }
        let trust =
            IamTrustPolicy::parse(&self.trust_policy).map_err(|problem| StsConfigError::MalformedPolicyDocument {
                role: self.arn.clone(),
                problem,
            })?;
        Ok(CheckedRole {
            trust,
            max_session_duration: self.max_session_duration,
        })
    }
}

impl Provider {
    pub(crate) fn check(&self) -> Result<(), StsConfigError> {
        if let Some(problem) = issuer_url_problem(&self.url) {
            return Err(StsConfigError::invalid("url", format!("`{}` {problem}", self.url)));
        }
        if !is_account(&self.account) {
            return Err(StsConfigError::invalid(
                "account",
                format!("`{}` is not 12 digits", self.account),
            ));
        }
        if !is_partition(&self.partition) {
            return Err(StsConfigError::invalid(
                "partition",
                format!("`{}` is not a partition of AWS", self.partition),
            ));
        }
        if self.client_ids.len() > 100 {
            return Err(StsConfigError::invalid("client_ids", "more than 100 client ids"));
        }
        if let Some(wrong) = self
            .client_ids
            .iter()
            .find(|id| !(1..=255).contains(&id.chars().count()))
        {
            return Err(StsConfigError::invalid(
                "client_ids",
                format!("`{wrong}` is not 1..=255 characters long"),
            ));
        }
        let mut seen = HashSet::new();
        match self.client_ids.iter().find(|id| !seen.insert(id.as_str())) {
            Some(twice) => Err(StsConfigError::invalid(
                "client_ids",
                format!("`{twice}` is there twice"),
            )),
            None => Ok(()),
        }
    }

    pub(crate) fn checked(self) -> Result<CheckedProvider, StsConfigError> {
        self.check()?;
        Ok(CheckedProvider {
            arn: self.arn(),
            context: self.context_provider.as_ref().map(checked_context).transpose()?,
            url: self.url,
            client_ids: self.client_ids,
            account: self.account,
            partition: self.partition,
        })
    }

    /// The ARN that trust policies name as `Principal.Federated`.
    pub(crate) fn arn(&self) -> String {
        let path = self.url.strip_prefix("https://").unwrap_or(&self.url);
        format!("arn:{}:iam::{}:oidc-provider/{path}", self.partition, self.account)
    }
}

/// Checks a `ContextProvider` document.
pub(crate) fn checked_context(document: &serde_json::Value) -> Result<ContextProvider, StsConfigError> {
    ContextProvider::parse(document).map_err(|problem| StsConfigError::invalid("context_provider", problem))
}

/// Issuers on other addresses than loopback are never redirected: only a test's own server can stand in for one.
pub(crate) fn check_connect_to(connect_to: &BTreeMap<String, SocketAddr>) -> Result<(), StsConfigError> {
    match connect_to.iter().find(|(_, address)| !address.ip().is_loopback()) {
        Some((host, address)) => Err(StsConfigError::invalid(
            "connect_to",
            format!("{host}={address}: only a loopback address is accepted"),
        )),
        None => Ok(()),
    }
}

/// The rules of `CreateOpenIDConnectProvider` for a URL.
fn issuer_url_problem(url: &str) -> Option<&'static str> {
    if !(1..=255).contains(&url.len()) {
        return Some("is not 1..=255 characters long");
    }
    let Some(rest) = url.strip_prefix("https://") else {
        return Some("does not begin with https://");
    };
    if rest.contains(['?', '#']) {
        return Some("has a query or a fragment");
    }
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains(':') {
        return Some("has a port");
    }
    if host.is_empty()
        || !host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
    {
        return Some("has no valid host name");
    }
    (!rest.chars().all(|c| c.is_ascii_graphic())).then_some("has characters that a URL can't have")
}

fn default_partition() -> String {
    "aws".to_owned()
}

fn default_max_session_duration() -> u32 {
    3600
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role() -> Role {
        let trust_policy = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/a.test"},
            "Action": "sts:AssumeRoleWithWebIdentity"}]});
        Role {
            arn: "arn:aws:iam::111122223333:role/shop/orders".into(),
            trust_policy,
            max_session_duration: 3600,
        }
    }

    fn provider(url: &str) -> Provider {
        Provider {
            url: url.into(),
            client_ids: vec!["sts.amazonaws.com".into()],
            account: "111122223333".into(),
            partition: "aws".into(),
            context_provider: None,
        }
    }

    #[test]
    fn a_role_arn_is_taken_apart_and_anything_else_refused() {
        let arn = AssumableRole::parse("arn:aws-cn:iam::111122223333:role/a/b/name").unwrap();
        assert_eq!(
            (arn.partition.as_str(), arn.account.as_str(), arn.name.as_str()),
            ("aws-cn", "111122223333", "name")
        );
        for wrong in [
            "arn:aws:iam::111122223333:user/name",
            "arn:aws:iam::11112222333:role/name",
            "arn:aws:iam:us-east-1:111122223333:role/name",
            "arn:aws:sts::111122223333:role/name",
            "arn:gcp:iam::111122223333:role/name",
            "arn:aws:iam::111122223333:role/",
            "arn:aws:iam::111122223333:role/na me",
            "arn:aws:iam::111122223333:role/pa th/name",
            "role/name",
        ] {
            assert_eq!(AssumableRole::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_issuer_url_must_be_https_without_port_and_query() {
        for (url, problem) in [
            ("http://a.test", "https://"),
            ("https://a.test:6443", "port"),
            ("https://a.test/?x=1", "query"),
            ("https://a.test#x", "fragment"),
            ("https://", "host"),
            ("https://u@a.test", "host"),
            ("https://a.test/ x", "characters"),
        ] {
            let error = provider(url).check().unwrap_err().to_string();
            assert!(
                error.starts_with("ValidationError: url: ") && error.contains(problem),
                "{url}: {error}"
            );
        }
        assert_eq!(provider("https://a.test/id/1/").check(), Ok(()));
        assert_eq!(
            provider("https://a.test/id").arn(),
            "arn:aws:iam::111122223333:oidc-provider/a.test/id"
        );
    }

    #[test]
    fn every_refused_configuration_names_its_field() {
        let long = Provider {
            client_ids: vec!["x".repeat(256)],
            ..provider("https://a.test")
        };
        assert!(
            long.check()
                .unwrap_err()
                .to_string()
                .starts_with("ValidationError: client_ids: ")
        );
        let account = Provider {
            account: "12".into(),
            ..provider("https://a.test")
        };
        assert_eq!(
            account.check().unwrap_err().to_string(),
            "ValidationError: account: `12` is not 12 digits"
        );
        let arn = Role {
            arn: "nonsense".into(),
            ..role()
        };
        assert!(
            arn.check()
                .err()
                .unwrap()
                .to_string()
                .starts_with("ValidationError: arn: ")
        );
        let duration = Role {
            max_session_duration: 43_201,
            ..role()
        };
        assert!(
            duration
                .check()
                .err()
                .unwrap()
                .to_string()
                .starts_with("ValidationError: max_session_duration: ")
        );
        let policy = Role {
            trust_policy: json!({"Statement": [{"Effect": "Maybe"}]}),
            ..role()
        };
        assert_eq!(
            policy.check().err().unwrap().to_string(),
            "MalformedPolicyDocument: arn:aws:iam::111122223333:role/shop/orders: trust_policy: \
             Statement[0].Effect: must be Allow or Deny"
        );
        assert!(role().check().is_ok());
        let connect_to = BTreeMap::from([("a.test".to_owned(), SocketAddr::from(([10, 0, 0, 1], 443)))]);
        assert!(
            check_connect_to(&connect_to)
                .unwrap_err()
                .to_string()
                .contains("only a loopback address")
        );
    }
}
