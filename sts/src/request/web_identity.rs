//! `AssumeRoleWithWebIdentity`.

use super::Parameters;
use super::bounds::{Check, ParameterBounds};
use super::session_policy::SessionPolicies;
use crate::aws_error::AwsError;
use crate::names::AssumableRole;

/// `AssumeRoleWithWebIdentity` with every parameter in its bounds. No Debug: it holds the token.
pub(crate) struct AssumeRequest {
    pub(crate) role_arn: String,
    pub(crate) role: AssumableRole,
    pub(crate) session_name: String,
    pub(crate) token: String,
    /// Seconds.
    pub(crate) duration: u32,
    /// Bytes.
    pub(crate) minimum_token_size: usize,
    pub(crate) session_policies: SessionPolicies,
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
        Ok(Self {
            role_arn: given.role_arn.to_owned(),
            session_name: given.session_name.to_owned(),
            token: given.token.to_owned(),
            duration: given.duration,
            minimum_token_size: given.minimum_token_size,
            session_policies: SessionPolicies::check(given.policy, &given.policy_arns, &role)?,
            role,
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
    /// Bytes.
    minimum_token_size: usize,
}

impl<'a> GivenParameters<'a> {
    fn read(parameters: &'a Parameters) -> Result<Self, AwsError> {
        let mut check = Check::new(parameters);
        // In the order in which AWS names what is wrong.
        let given = Self {
            role_arn: check.role_arn(),
            session_name: check.session_name(),
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
            policy: check.policy(2048),
            duration: check.session_duration()?.unwrap_or(3600),
            minimum_token_size: check.minimum_token_size()?,
        };
        check.finish()?;
        Ok(given)
    }
}
