//! `AssumeRole`.

use std::collections::BTreeMap;

use super::Parameters;
use super::bounds::{Check, NAME_PATTERN, ParameterBounds};
use super::session_policy::SessionPolicies;
use crate::aws_error::AwsError;
use crate::names::{AssumableRole, is_name_character};
use crate::tags;

const EXTERNAL_ID_PATTERN: &str = r"[\w+=,.@:\/-]*";

/// `AssumeRole` with every parameter in its bounds (STS service model, `AssumeRoleRequest`).
#[derive(Debug)]
pub(crate) struct AssumeRoleRequest {
    pub(crate) role_arn: String,
    pub(crate) role: AssumableRole,
    pub(crate) session_name: String,
    /// Seconds; `None` when the caller leaves it to STS.
    pub(crate) duration: Option<u32>,
    /// Bytes.
    pub(crate) minimum_token_size: usize,
    pub(crate) session_policies: SessionPolicies,
    /// Session tags by key, without inherited ones.
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) transitive_tag_keys: Vec<String>,
    pub(crate) external_id: Option<String>,
    pub(crate) source_identity: Option<String>,
}

impl AssumeRoleRequest {
    pub(crate) fn parse(parameters: &Parameters) -> Result<Self, AwsError> {
        if let Some(unknown) = ["SerialNumber", "TokenCode", "ProvidedContexts.member.1.ProviderArn"]
            .into_iter()
            .find(|name| parameters.value(name).is_some())
        {
            // Taken in silence, they would prove nothing.
            let message = format!("{unknown} is not there in this stand-in");
            return Err(AwsError::validation(message));
        }
        let mut check = Check::new(parameters);
        let role_arn = check.role_arn();
        let session_name = check.session_name();
        let policy_arns = check.policy_arns()?;
        // No maximum of its own since November 2026 (`unrestrictedSessionPolicyDocumentType`); that of the plain text stays.
        let policy = check.policy(usize::MAX);
        let duration = check.session_duration()?;
        let pairs = check.tags()?;
        let transitive = check.transitive_tag_keys()?;
        let external_id = check.optional(
            "ExternalId",
            "externalId",
            &ParameterBounds::text(2, 1224, EXTERNAL_ID_PATTERN, |c| {
                is_name_character(c) || matches!(c, ':' | '/')
            }),
        );
        // The User Guide's quota is 64; the model allows 256 since November 2026. The stricter one.
        let source_identity = check.optional(
            "SourceIdentity",
            "sourceIdentity",
            &ParameterBounds::text(2, 64, NAME_PATTERN, is_name_character),
        );
        let minimum_token_size = check.minimum_token_size()?;
        check.finish()?;

        let role = AssumableRole::parse(role_arn).ok_or_else(|| AwsError::validation("Request ARN is invalid"))?;
        let transitive: Vec<_> = transitive.into_iter().map(str::to_owned).collect();
        // The code of refused tags is not yet seen by AWS.
        let tags = tags::checked(&pairs).map_err(AwsError::validation)?;
        tags::check_transitive(&transitive, &tags).map_err(AwsError::validation)?;
        Ok(Self {
            role_arn: role_arn.to_owned(),
            session_name: session_name.to_owned(),
            duration,
            minimum_token_size,
            session_policies: SessionPolicies::check(policy, &policy_arns, &role)?,
            role,
            tags,
            transitive_tag_keys: transitive,
            external_id: external_id.map(str::to_owned),
            source_identity: source_identity.map(str::to_owned),
        })
    }
}
