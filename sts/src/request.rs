//! The request: parameters of the query protocol, and the bounds and patterns STS gives to each of them.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::names::{AssumableRole, is_name_character};
use crate::xml::AwsError;

const VERSION: &str = "2011-06-15";
/// Neither action has a list longer than ten; far more parameters are an attack on memory.
const MAX_PARAMETERS: usize = 200;
/// The plain text of an inline session policy and the ARNs of managed ones together, in characters.
const MAX_SESSION_POLICY: usize = 2048;

const NAME_PATTERN: &str = r"[\w+=,.@-]*";
const ARN_PATTERN: &str = r"[\u0009\u000A\u000D\u0020-\u007E\u0085\u00A0-\uD7FF\uE000-\uFFFD\u10000-\u10FFFF]+";
const POLICY_PATTERN: &str = r"[\u0009\u000A\u000D\u0020-\u00FF]+";

/// The action that the caller asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    AssumeRoleWithWebIdentity,
    GetCallerIdentity,
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
            ("AssumeRoleWithWebIdentity", VERSION) => Ok(Action::AssumeRoleWithWebIdentity),
            ("GetCallerIdentity", VERSION) => Ok(Action::GetCallerIdentity),
            _ => {
                let message = format!("Could not find operation {action} for version {version}");
                Err(AwsError::new(400, "InvalidAction", message))
            }
        }
    }
}

/// `AssumeRoleWithWebIdentity` with every parameter in its bounds. No Debug: it holds the token.
pub(crate) struct AssumeRequest {
    pub(crate) role_arn: String,
    pub(crate) role: AssumableRole,
    pub(crate) session_name: String,
    pub(crate) token: String,
    /// Seconds.
    pub(crate) duration: u32,
    /// Percent of the space for session policies, if there are any.
    pub(crate) packed_policy_size: Option<usize>,
    pub(crate) session_policies: SessionPolicies,
}

/// The policies that narrow a session.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionPolicies {
    pub(crate) inline: Option<Value>,
    /// True if there are managed ones besides. What they say is not known here.
    pub(crate) managed: bool,
}

impl AssumeRequest {
    pub(crate) fn parse(parameters: &Parameters) -> Result<Self, AwsError> {
        let given = GivenParameters::read(parameters)?;
        let role =
            AssumableRole::parse(given.role_arn).ok_or_else(|| AwsError::validation("Request ARN is invalid"))?;
        if given.provider_id.is_some() {
            return Err(AwsError::validation(
                "ProviderId must not be specified for OpenID Connect ID tokens",
            ));
        }
        let inline = given.policy.map(check_session_policy).transpose()?;
        Ok(Self {
            role_arn: given.role_arn.to_owned(),
            role,
            session_name: given.session_name.to_owned(),
            token: given.token.to_owned(),
            duration: given.duration,
            packed_policy_size: given.packed_policy_size()?,
            session_policies: SessionPolicies {
                inline,
                managed: !given.policy_arns.is_empty(),
            },
        })
    }
}

/// The parameters of `AssumeRoleWithWebIdentity`, each within its own bounds. No Debug: it holds the token.
struct GivenParameters<'a> {
    role_arn: &'a str,
    session_name: &'a str,
    token: &'a str,
    provider_id: Option<&'a str>,
    policy_arns: Vec<&'a str>,
    policy: Option<&'a str>,
    /// Seconds.
    duration: u32,
}

impl<'a> GivenParameters<'a> {
    fn read(parameters: &'a Parameters) -> Result<Self, AwsError> {
        let mut check = Check {
            parameters,
            problems: Vec::new(),
        };
        // In the order in which AWS names what is wrong.
        let given = Self {
            role_arn: check.required(
                "RoleArn",
                "roleArn",
                &ParameterBounds::text(20, 2048, ARN_PATTERN, is_arn_character),
            ),
            session_name: check.required(
                "RoleSessionName",
                "roleSessionName",
                &ParameterBounds::text(2, 64, NAME_PATTERN, is_name_character),
            ),
            token: check.required(
                "WebIdentityToken",
                "webIdentityToken",
                &ParameterBounds::secret(4, 20_000),
            ),
            provider_id: check.optional(
                "ProviderId",
                "providerId",
                &ParameterBounds::text(4, 2048, "", |_| true),
            ),
            policy_arns: check.policy_arns()?,
            policy: check.optional(
                "Policy",
                "policy",
                &ParameterBounds::text(1, 2048, POLICY_PATTERN, is_policy_character),
            ),
            duration: check
                .number("DurationSeconds", "durationSeconds", 900, 43_200)?
                .unwrap_or(3600),
        };
        let _ = check.number("MinimumSessionTokenSize", "minimumSessionTokenSize", 0, 4096)?;
        check.finish()?;
        Ok(given)
    }

    /// How many percent of the space for session policies are used, if there are any.
    fn packed_policy_size(&self) -> Result<Option<usize>, AwsError> {
        let texts = self.policy_arns.iter().copied().chain(self.policy);
        let size: usize = texts.map(|text| text.chars().count()).sum();
        let percent = (size * 100).div_ceil(MAX_SESSION_POLICY);
        if percent > 100 {
            let message = format!("Packed policy consumes {percent}% of allotted space, please use smaller policy.");
            return Err(AwsError::new(400, "PackedPolicyTooLarge", message));
        }
        Ok((size > 0).then_some(percent))
    }
}

struct ParameterBounds {
    min: usize,
    max: usize,
    pattern: &'static str,
    allowed: fn(char) -> bool,
    sensitive: bool,
}

impl ParameterBounds {
    fn text(min: usize, max: usize, pattern: &'static str, allowed: fn(char) -> bool) -> Self {
        Self {
            min,
            max,
            pattern,
            allowed,
            sensitive: false,
        }
    }

    fn secret(min: usize, max: usize) -> Self {
        Self {
            sensitive: true,
            ..Self::text(min, max, "", |_| true)
        }
    }
}

/// Collects all problems, since AWS reports them together.
struct Check<'a> {
    parameters: &'a Parameters,
    problems: Vec<String>,
}

impl<'a> Check<'a> {
    fn required(&mut self, name: &str, member: &str, bounds: &ParameterBounds) -> &'a str {
        self.optional(name, member, bounds).unwrap_or_else(|| {
            let value = if bounds.sensitive { "Value" } else { "Value null" };
            self.problems.push(format!(
                "{value} at '{member}' failed to satisfy constraint: Member must not be null"
            ));
            ""
        })
    }

    fn optional(&mut self, name: &str, member: &str, bounds: &ParameterBounds) -> Option<&'a str> {
        let value = self.parameters.value(name)?;
        let length = value.chars().count();
        if length < bounds.min {
            let rule = format!("Member must have length greater than or equal to {}", bounds.min);
            self.problem(value, member, bounds.sensitive, &rule);
        }
        if length > bounds.max {
            let rule = format!("Member must have length less than or equal to {}", bounds.max);
            self.problem(value, member, bounds.sensitive, &rule);
        }
        if !value.chars().all(bounds.allowed) {
            let rule = format!("Member must satisfy regular expression pattern: {}", bounds.pattern);
            self.problem(value, member, bounds.sensitive, &rule);
        }
        Some(value)
    }

    fn number(&mut self, name: &str, member: &str, min: u32, max: u32) -> Result<Option<u32>, AwsError> {
        let Some(text) = self.parameters.value(name) else {
            return Ok(None);
        };
        let number: i64 = text
            .parse()
            .map_err(|_| AwsError::new(400, "MalformedInput", format!("Value at '{member}' is not an integer")))?;
        if number < i64::from(min) {
            self.problem(
                text,
                member,
                false,
                &format!("Member must have value greater than or equal to {min}"),
            );
        }
        if number > i64::from(max) {
            self.problem(
                text,
                member,
                false,
                &format!("Member must have value less than or equal to {max}"),
            );
        }
        Ok(u32::try_from(number).ok())
    }

    fn policy_arns(&mut self) -> Result<Vec<&'a str>, AwsError> {
        let given = self
            .parameters
            .0
            .keys()
            .filter(|name| name.starts_with("PolicyArns."))
            .count();
        let mut arns = Vec::new();
        for index in 1..=given {
            let bounds = ParameterBounds::text(20, 2048, ARN_PATTERN, is_arn_character);
            let member = format!("policyArns.{index}.member.arn");
            match self.optional(&format!("PolicyArns.member.{index}.arn"), &member, &bounds) {
                Some(arn) => arns.push(arn),
                None => {
                    return Err(AwsError::new(
                        400,
                        "MalformedInput",
                        "PolicyArns is not a list counted from 1",
                    ));
                }
            }
        }
        if arns.len() > 10 {
            let list = format!("[{}]", arns.join(", "));
            self.problem(
                &list,
                "policyArns",
                false,
                "Member must have length less than or equal to 10",
            );
        }
        Ok(arns)
    }

    fn problem(&mut self, value: &str, member: &str, sensitive: bool, rule: &str) {
        let value = if sensitive {
            "Value".to_owned()
        } else {
            format!("Value '{value}'")
        };
        self.problems
            .push(format!("{value} at '{member}' failed to satisfy constraint: {rule}"));
    }

    fn finish(self) -> Result<(), AwsError> {
        let count = self.problems.len();
        if count == 0 {
            return Ok(());
        }
        let errors = if count == 1 { "error" } else { "errors" };
        Err(AwsError::validation(format!(
            "{count} validation {errors} detected: {}",
            self.problems.join("; ")
        )))
    }
}

fn check_session_policy(policy: &str) -> Result<Value, AwsError> {
    let Ok(document) = serde_json::from_str::<Value>(policy) else {
        return Err(AwsError::malformed_policy("This policy contains invalid Json"));
    };
    let statements = match &document["Statement"] {
        Value::Array(list) if !list.is_empty() => list.iter().collect(),
        one @ Value::Object(_) => vec![one],
        _ => return Err(AwsError::malformed_policy("Syntax errors in policy.")),
    };
    if statements
        .iter()
        .any(|statement| !matches!(statement["Effect"].as_str(), Some("Allow" | "Deny")))
    {
        return Err(AwsError::malformed_policy("Syntax errors in policy."));
    }
    if statements.iter().any(|statement| {
        statement
            .get("Principal")
            .or_else(|| statement.get("NotPrincipal"))
            .is_some()
    }) {
        return Err(AwsError::malformed_policy(
            "Policy document should not specify a principal.",
        ));
    }
    Ok(document)
}

fn is_arn_character(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
}

fn is_policy_character(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{ff}')
}

#[cfg(test)]
mod tests;
