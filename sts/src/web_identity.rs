//! `AssumeRoleWithWebIdentity`.

use std::sync::Arc;

use crate::aws_error::AwsError;
use crate::condition::Facts;
use crate::config::CheckedProvider;
use crate::context_provider::Propagated;
use crate::identity::WebIdentity;
use crate::lock::lock;
use crate::names::AssumableRole;
use crate::packed_size::packed_policy_size;
use crate::principal::Principal;
use crate::request::AssumeRequest;
use crate::session::{Session, SessionGrant};
use crate::state::AwsAccount;
use crate::token;
use crate::trust::{access_denied, authorize};
use crate::xml::{credentials, elements};

impl AwsAccount {
    /// The result's members as XML.
    pub(crate) async fn assume_role_with_web_identity(&self, request: &AssumeRequest) -> Result<String, AwsError> {
        let unverified = token::parse(&request.token)?;
        let issuer = unverified.issuer.as_str();
        // "The token can't be used for AssumeRoleWithWebIdentity" (IAM User Guide, outbound identity federation).
        if self.outbound.is_issuer(issuer) {
            let message = "Tokens of GetWebIdentityToken can't be used with AssumeRoleWithWebIdentity";
            return Err(AwsError::invalid_token(message));
        }
        let provider = self.provider(issuer, &request.role)?;
        let key = self.issuers.key(issuer, &unverified.key_id, (self.clock)()).await?;
        let now = (self.clock)();
        let mut identity = token::verify(&unverified, &key, &provider.client_ids, now)?;
        let context = provider.context.as_ref();
        identity.propagated = context
            .map(|context| context.read(&identity.claims, issuer, &provider.arn))
            .transpose()?;

        let role = self.role(&request.role_arn).ok_or_else(access_denied)?;
        authorize(
            &role.trust,
            &provider.arn,
            &identity,
            &Facts::new(issuer, &identity, &request.session_name, now),
        )?;
        if request.duration > role.max_session_duration {
            let message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.";
            return Err(AwsError::validation(message));
        }

        let packed = packed_policy_size(request.session_policies.packed(), &identity.tags)?;
        let (role_tags, policies) = {
            let directory = lock(&self.directory);
            let tags = directory.permissions(&request.role_arn).tags;
            (tags, directory.resolve(request.session_policies.clone()))
        };
        let grant = SessionGrant {
            role_arn: &request.role_arn,
            role: &request.role,
            session_name: &request.session_name,
            duration: request.duration,
            packed_percent: packed.unwrap_or(0),
            minimum_token_size: request.minimum_token_size,
        };
        let principal = Principal::federated(issuer, &provider.arn, &identity, &role_tags, policies);
        let session = Session::issue(&grant, now, principal).map_err(|_| AwsError::internal())?;
        tracing::info!(
            arn = session.arn, subject = identity.subject, expires = %session.expires, tags = ?identity.tags,
            session_policies = %request.session_policies.described(), "role assumed"
        );
        let result = assumed(&session, &identity, &provider.arn, packed);
        self.remember(session);
        Ok(result)
    }

    /// The provider of an issuer in the account of the request, which is the role's.
    fn provider(&self, issuer: &str, role: &AssumableRole) -> Result<Arc<CheckedProvider>, AwsError> {
        let is_wanted = |provider: &&Arc<CheckedProvider>| {
            provider.url == issuer && provider.account == role.account && provider.partition == role.partition
        };
        let providers = lock(&self.providers);
        let provider = providers.iter().find(is_wanted).cloned();
        provider.ok_or_else(|| {
            AwsError::invalid_token(format!("No OpenIDConnect provider found in your account for {issuer}"))
        })
    }
}

/// The members of `AssumeRoleWithWebIdentityResult`.
fn assumed(session: &Session, identity: &WebIdentity, provider_arn: &str, packed_policy_size: Option<usize>) -> String {
    // The API reference says that Provider is the token's `iss`; what STS really sends is the provider's ARN.
    let mut rest = vec![
        ("SubjectFromWebIdentityToken", identity.subject.as_str()),
        ("Audience", &identity.audience),
        ("Provider", provider_arn),
    ];
    rest.extend(
        identity
            .source_identity
            .as_deref()
            .map(|source| ("SourceIdentity", source)),
    );
    let context = identity.propagated.as_ref().map(propagated_context).unwrap_or_default();
    format!(
        "{}{}{context}",
        credentials(session, packed_policy_size),
        elements(&rest)
    )
}

/// `TrustedIdentityPropagationContext` as the query protocol writes structures and maps. Not yet seen by AWS.
fn propagated_context(propagated: &Propagated) -> String {
    let mut origin = vec![("Subject", propagated.subject.as_str())];
    origin.extend(propagated.subject_type.as_deref().map(|kind| ("SubjectType", kind)));
    origin.push(("Issuer", &propagated.issuer));
    origin.push(("FederatedProviderArn", &propagated.provider_arn));
    let mut xml = format!("<OriginIdentity>{}</OriginIdentity>", elements(&origin));
    if !propagated.transaction.is_empty() {
        let entries = propagated.transaction.iter().map(|(key, value)| {
            let entry = elements(&[("key", key), ("value", value)]);
            format!("<entry>{entry}</entry>")
        });
        let entries = entries.collect::<String>();
        xml.extend([
            "<TransactionContext><IdentityProvider>",
            &entries,
            "</IdentityProvider></TransactionContext>",
        ]);
    }
    format!("<TrustedIdentityPropagationContext>{xml}</TrustedIdentityPropagationContext>")
}
