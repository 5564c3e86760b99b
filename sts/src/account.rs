//! Users, permissions, managed policies and outbound federation of accounts.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use crate::config_error::StsConfigError;
use crate::names::{AssumableRole, UserName, is_account};
use crate::permissions::check_identity_policy;
use crate::request::SessionPolicies;
use crate::tags;

/// An IAM user with an access key. Its Debug leaves the secret out.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// `arn:<partition>:iam::<account>:user/<path><name>`.
    pub arn: String,
    /// `AKIA…`: 16..=128 letters and digits.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("arn", &self.arn).finish_non_exhaustive()
    }
}

/// The identity policies of a role or user, and its own tags.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permissions {
    /// The ARN of the role or user.
    pub principal: String,
    /// Identity policies.
    #[serde(default)]
    pub policies: Vec<Value>,
    /// Tags by key.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// An account in which `EnableOutboundWebIdentityFederation` was called.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutboundFederation {
    /// 12 digits.
    pub account: String,
    /// `IssuerIdentifier`: in AWS `https://<uuid>.tokens.sts.global.api.aws`, here any https URL without path and query.
    pub issuer: String,
}

/// Users, permissions and managed policies that passed their checks.
#[derive(Default)]
pub(crate) struct AccountDirectory {
    users: HashMap<String, User>,
    permissions: HashMap<String, Permissions>,
    managed: HashMap<String, Value>,
}

impl AccountDirectory {
    pub(crate) fn add_user(&mut self, user: User) -> Result<(), StsConfigError> {
        if UserName::parse(&user.arn).is_none() {
            let problem = format!(
                "`{}` is not arn:<partition>:iam::<12 digits>:user/<path><name>",
                user.arn
            );
            return Err(StsConfigError::invalid("users.arn", problem));
        }
        let id = &user.access_key_id;
        if !(16..=128).contains(&id.len()) || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            let problem = format!("`{id}` is not 16..=128 letters and digits");
            return Err(StsConfigError::invalid("users.access_key_id", problem));
        }
        if self.users.contains_key(id) {
            return Err(StsConfigError::EntityAlreadyExists(id.clone()));
        }
        self.users.insert(id.clone(), user);
        Ok(())
    }

    /// Sets or replaces what a principal may do, and its tags.
    pub(crate) fn set_permissions(&mut self, permissions: Permissions) -> Result<(), StsConfigError> {
        let principal = permissions.principal.clone();
        if AssumableRole::parse(&principal).is_none() && UserName::parse(&principal).is_none() {
            let problem = format!("`{principal}` is not the ARN of a role or user");
            return Err(StsConfigError::invalid("permissions.principal", problem));
        }
        for policy in &permissions.policies {
            check_identity_policy(policy).map_err(|problem| StsConfigError::MalformedPolicyDocument {
                role: principal.clone(),
                problem,
            })?;
        }
        let pairs = permissions.tags.iter();
        let pairs: Vec<_> = pairs.map(|(key, value)| (key.as_str(), value.as_str())).collect();
        tags::checked(&pairs).map_err(|problem| StsConfigError::invalid("permissions.tags", problem))?;
        self.permissions.insert(principal, permissions);
        Ok(())
    }

    /// Sets or replaces the document of a managed policy.
    pub(crate) fn set_managed_policy(&mut self, arn: String, document: Value) -> Result<(), StsConfigError> {
        check_identity_policy(&document).map_err(|problem| StsConfigError::MalformedPolicyDocument {
            role: arn.clone(),
            problem,
        })?;
        self.managed.insert(arn, document);
        Ok(())
    }

    pub(crate) fn user(&self, access_key_id: &str) -> Option<User> {
        self.users.get(access_key_id).cloned()
    }

    /// Nothing for a principal that has none.
    pub(crate) fn permissions(&self, principal: &str) -> Permissions {
        self.permissions.get(principal).cloned().unwrap_or_default()
    }

    /// Puts the documents of managed policies beside their ARNs, where they are known.
    pub(crate) fn resolve(&self, policies: SessionPolicies) -> SessionPolicies {
        let documents = policies.managed.iter().filter_map(|arn| self.managed.get(arn));
        SessionPolicies {
            managed_documents: documents.cloned().collect(),
            ..policies
        }
    }
}

impl OutboundFederation {
    pub(crate) fn check(&self) -> Result<(), StsConfigError> {
        if !is_account(&self.account) {
            let problem = format!("`{}` is not 12 digits", self.account);
            return Err(StsConfigError::invalid("outbound_federation.account", problem));
        }
        let host = self.issuer.strip_prefix("https://").unwrap_or_default();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':');
        if host.is_empty() || !host.chars().all(allowed) {
            let problem = format!("`{}` is not https://<host>", self.issuer);
            return Err(StsConfigError::invalid("outbound_federation.issuer", problem));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_of_it_may_stand_in_the_configuration_file() {
        let config: crate::StsConfig = serde_json::from_value(json!({
            "users": [{"arn": "arn:aws:iam::111122223333:user/ann", "access_key_id": "AKIAANNANNANNANNANNA",
                "secret_access_key": "of-a-test-only"}],
            "permissions": [{"principal": "arn:aws:iam::111122223333:role/near", "tags": {"team": "blue"}}],
            "managed_policies": {"arn:aws:iam::aws:policy/x": {"Statement": []}},
            "outbound_federation": [{"account": "111122223333", "issuer": "https://a.tokens.sts.global.api.aws"}],
            "region": "aws-global",
        }))
        .unwrap();
        assert_eq!((config.users.len(), config.managed_policies.len()), (1, 1));
        assert!(config.permissions[0].policies.is_empty());
        config.outbound_federation[0].check().unwrap();
        for issuer in ["http://a.test", "https://a.test/x", "https://"] {
            let federation = OutboundFederation {
                account: "111122223333".into(),
                issuer: issuer.into(),
            };
            assert!(federation.check().is_err(), "{issuer}");
        }
    }

    #[test]
    fn what_iam_would_refuse_is_refused_with_its_field() {
        let mut directory = AccountDirectory::default();
        let user = |arn: &str, id: &str| User {
            arn: arn.into(),
            access_key_id: id.into(),
            secret_access_key: "of-a-test-only".into(),
        };
        let ann = "arn:aws:iam::111122223333:user/ann";
        directory.add_user(user(ann, "AKIAANNANNANNANNANNA")).unwrap();
        let problems = [
            directory.add_user(user(ann, "AKIAANNANNANNANNANNA")),
            directory.add_user(user("arn:aws:iam::111122223333:role/x", "AKIABNNANNANNANNANNA")),
            directory.add_user(user(ann, "short")),
            directory.set_permissions(Permissions {
                principal: "orders".into(),
                ..Permissions::default()
            }),
            directory.set_permissions(Permissions {
                principal: ann.into(),
                policies: vec![json!({"Statement": []})],
                tags: BTreeMap::new(),
            }),
            directory.set_permissions(Permissions {
                principal: ann.into(),
                policies: Vec::new(),
                tags: [("aws:x".to_owned(), String::new())].into(),
            }),
        ];
        let texts = problems.map(|problem| problem.unwrap_err().to_string());
        for (text, expected) in texts.iter().zip([
            "EntityAlreadyExists: AKIAANNANNANNANNANNA",
            "ValidationError: users.arn: ",
            "ValidationError: users.access_key_id: ",
            "ValidationError: permissions.principal: ",
            "MalformedPolicyDocument: ",
            "ValidationError: permissions.tags: ",
        ]) {
            assert!(text.starts_with(expected), "{text}");
        }
        assert!(!format!("{:?}", user(ann, "AKIAANNANNANNANNANNA")).contains("of-a-test-only"));
    }
}
