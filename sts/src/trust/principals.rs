//! The Principal element of a trust policy, and the caller that is compared with it.
//!
//! IAM User Guide, "AWS JSON policy elements: Principal": accounts by number or root ARN, roles, users, role sessions, federated
//! providers. A trust policy is a resource-based policy of the role ("Policy evaluation logic"): what it grants to an account
//! must be allowed by the principal's own policies, too, and what it grants to a role or user of the same account need not.

use serde_json::Value;

use crate::condition::{only_known, texts};
use crate::names::{is_account, is_partition};

/// The principals of a statement.
#[derive(Debug)]
pub(crate) enum Principals {
    Everybody,
    Named {
        federated: Vec<String>,
        aws: Vec<AwsPrincipal>,
    },
}

/// A principal of kind AWS.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AwsPrincipal {
    /// `None` = the partition of the role.
    Account(Option<String>, String),
    /// A role or a user.
    Identity(String),
    /// `arn:…:sts::…:assumed-role/<role>/<session>`.
    Session(String),
}

/// The one who wants to take the role.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Presenter<'a> {
    /// The bearer of a token of this provider.
    Federated(&'a str),
    /// The signer of the request.
    Aws {
        partition: &'a str,
        account: &'a str,
        /// The role's or the user's ARN.
        identity: &'a str,
        /// The session's ARN, or again the user's.
        caller: &'a str,
    },
}

/// The way in which a statement names the one who wants the role; the more precise comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Naming {
    /// By `*` or by the account.
    Account,
    /// By its role or user.
    Identity,
    /// By its session.
    Session,
}

impl Principals {
    /// Checks the form. The error begins with the place in the document.
    pub(crate) fn parse(principal: Option<&Value>, at: &str) -> Result<Self, String> {
        let kinds = match principal {
            Some(Value::String(text)) if text == "*" => return Ok(Self::Everybody),
            Some(Value::Object(kinds)) if !kinds.is_empty() => kinds,
            _ => {
                return Err(format!(
                    "{at}: must be an object such as {{\"Federated\": \"arn:…:oidc-provider/…\"}}"
                ));
            }
        };
        only_known(
            kinds,
            &["Federated", "AWS", "Service", "CanonicalUser"],
            &format!("{at}."),
        )?;
        let (mut federated, mut aws) = (Vec::new(), Vec::new());
        for (kind, value) in kinds {
            let at = format!("{at}.{kind}");
            let names = texts(Some(value), &at)?;
            match kind.as_str() {
                // IAM: {"AWS": "*"} means the same as "*".
                "AWS" if names.iter().any(|name| name == "*") => return Ok(Self::Everybody),
                "AWS" => {
                    let parsed = names.iter().map(|name| AwsPrincipal::parse(name));
                    let parsed = parsed.collect::<Option<Vec<_>>>();
                    aws = parsed.ok_or_else(|| format!("{at}: Invalid principal in policy: {}", names.join(", ")))?;
                }
                "Federated" => match names.iter().find(|name| name.contains('*')) {
                    Some(name) => return Err(format!("{at}: {name}: wildcards are not allowed")),
                    None => federated = names,
                },
                _ => {}
            }
        }
        Ok(Self::Named { federated, aws })
    }

    /// The way in which the statement names `presenter`; `None` when it doesn't.
    pub(crate) fn naming(&self, presenter: Presenter<'_>) -> Option<Naming> {
        let (federated, aws) = match self {
            Self::Everybody => return Some(Naming::Account),
            Self::Named { federated, aws } => (federated, aws),
        };
        match presenter {
            Presenter::Federated(provider) => federated.iter().any(|arn| arn == provider).then_some(Naming::Identity),
            Presenter::Aws { .. } => aws.iter().filter_map(|principal| principal.naming(presenter)).max(),
        }
    }
}

impl AwsPrincipal {
    /// `None` for what IAM takes for no principal; patterns are not allowed.
    fn parse(text: &str) -> Option<Self> {
        if is_account(text) {
            return Some(Self::Account(None, text.to_owned()));
        }
        let [_, partition, service, "", account, resource] = <[&str; 6]>::try_from(
            text.strip_prefix("arn:")
                .map(|_| text.splitn(6, ':').collect::<Vec<_>>())?,
        )
        .ok()?
        else {
            return None;
        };
        if !is_partition(partition) || !is_account(account) || text.contains('*') {
            return None;
        }
        let named = |prefix: &str| resource.strip_prefix(prefix).is_some_and(|name| !name.is_empty());
        match service {
            "iam" if resource == "root" => Some(Self::Account(Some(partition.to_owned()), account.to_owned())),
            "iam" if named("role/") || named("user/") => Some(Self::Identity(text.to_owned())),
            "sts" if named("assumed-role/") => Some(Self::Session(text.to_owned())),
            _ => None,
        }
    }

    fn naming(&self, presenter: Presenter<'_>) -> Option<Naming> {
        let Presenter::Aws {
            partition,
            account,
            identity,
            caller,
        } = presenter
        else {
            return None;
        };
        match self {
            Self::Account(of, number) => {
                let same = number == account && of.as_deref().is_none_or(|of| of == partition);
                same.then_some(Naming::Account)
            }
            Self::Identity(arn) => (arn == identity).then_some(Naming::Identity),
            Self::Session(arn) => (arn == caller).then_some(Naming::Session),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_roles_users_and_sessions_are_principals_and_patterns_are_not() {
        let role = "arn:aws:iam::111122223333:role/shop/orders";
        let session = "arn:aws:sts::111122223333:assumed-role/orders/pod-1";
        for (text, expected) in [
            ("111122223333", Some(AwsPrincipal::Account(None, "111122223333".into()))),
            (
                "arn:aws-cn:iam::111122223333:root",
                Some(AwsPrincipal::Account(Some("aws-cn".into()), "111122223333".into())),
            ),
            (role, Some(AwsPrincipal::Identity(role.into()))),
            (session, Some(AwsPrincipal::Session(session.into()))),
            ("arn:aws:iam::111122223333:role/*", None),
            ("arn:aws:iam::111122223333:role/", None),
            ("arn:aws:iam::111122223333:group/x", None),
            ("arn:aws:iam::1111:root", None),
            ("orders", None),
        ] {
            assert_eq!(AwsPrincipal::parse(text), expected, "{text}");
        }
    }
}
