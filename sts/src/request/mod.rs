//! The request: parameters of the query protocol, and the bounds and patterns STS gives to each of them.

mod assume_role;
mod bounds;
mod session_policy;
mod web_identity;
mod web_identity_token;

use std::collections::BTreeMap;

pub(crate) use assume_role::AssumeRoleRequest;
use percent_encoding::percent_decode_str;
pub(crate) use session_policy::SessionPolicies;
pub(crate) use web_identity::AssumeRequest;
pub(crate) use web_identity_token::{SigningAlgorithm, SubjectMode, WebIdentityTokenRequest};

use crate::aws_error::AwsError;

const VERSION: &str = "2011-06-15";
/// Fifty tags, fifty transitive keys and ten policies are 160; far more parameters are an attack on memory.
const MAX_PARAMETERS: usize = 200;
/// The action that the caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    AssumeRole,
    AssumeRoleWithWebIdentity,
    GetCallerIdentity,
    GetWebIdentityToken,
}

/// Decoded parameters. No Debug: the token is among them.
pub(crate) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// Takes `application/x-www-form-urlencoded` text.
    pub(crate) fn parse(form: &str) -> Result<Self, AwsError> {
        let malformed = || AwsError::new(400, "MalformedQueryString", "The query string contains a syntax error.");
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_decode_str(&spaced)
                .decode_utf8()
                .map(std::borrow::Cow::into_owned)
                .map_err(|_| malformed())
        };
        let mut parameters = BTreeMap::new();
        for pair in form.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if parameters.len() >= MAX_PARAMETERS || parameters.insert(decode(name)?, decode(value)?).is_some() {
                return Err(malformed());
            }
        }
        Ok(Self(parameters))
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn action(&self) -> Result<Action, AwsError> {
        let Some(action) = self.value("Action").filter(|action| !action.is_empty()) else {
            return Err(AwsError::new(400, "MissingAction", "The request is missing an action."));
        };
        let version = self.value("Version").unwrap_or("NO_VERSION_SPECIFIED");
        match (action, version) {
            ("AssumeRole", VERSION) => Ok(Action::AssumeRole),
            ("AssumeRoleWithWebIdentity", VERSION) => Ok(Action::AssumeRoleWithWebIdentity),
            ("GetCallerIdentity", VERSION) => Ok(Action::GetCallerIdentity),
            ("GetWebIdentityToken", VERSION) => Ok(Action::GetWebIdentityToken),
            _ => {
                let message = format!("Could not find operation {action} for version {version}");
                Err(AwsError::new(400, "InvalidAction", message))
            }
        }
    }
}

#[cfg(test)]
mod tests;
