//! The requests, as the query protocol writes them (STS service model).

use std::fmt;

use jiff::Timestamp;
use tokenscope_core::RoleArn;
use tokenscope_core::outbound::{AwsAlgorithm, LONGEST_AWS_TOKEN};

use crate::credentials::{Credentials, Secret};
use crate::endpoint::StsEndpoint;
use crate::form::Form;
use crate::signature::signature_headers;

const CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// A POST to `/` of an endpoint, ready to be sent. Headers and body are secrets: `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct StsRequest {
    action: &'static str,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl StsRequest {
    /// The operation's name, for logs.
    pub fn action(&self) -> &'static str {
        self.action
    }

    /// Headers by name in lower case, `host` among them. The content length is left to whoever sends it.
    pub fn headers(&self) -> &[(&'static str, String)] {
        &self.headers
    }

    /// The body.
    pub fn body(&self) -> &str {
        &self.body
    }

    fn unsigned(action: &'static str, form: Form, endpoint: &StsEndpoint) -> Self {
        Self {
            action,
            headers: vec![
                ("host", endpoint.authority().to_owned()),
                ("content-type", CONTENT_TYPE.to_owned()),
            ],
            body: form.into_body(),
        }
    }

    fn signed(
        action: &'static str,
        form: Form,
        endpoint: &StsEndpoint,
        credentials: &Credentials,
        now: Timestamp,
    ) -> Self {
        let mut request = Self::unsigned(action, form, endpoint);
        let signature = signature_headers(endpoint, CONTENT_TYPE, &request.body, credentials, now);
        request.headers.push(("x-amz-date", signature.date));
        if let Some(token) = &credentials.session_token {
            request
                .headers
                .push(("x-amz-security-token", token.expose().to_owned()));
        }
        request.headers.push(("authorization", signature.authorization));
        request
    }
}

impl fmt::Debug for StsRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StsRequest")
            .field("action", &self.action)
            .finish_non_exhaustive()
    }
}

/// The policies that narrow a session.
#[derive(Clone, Copy, Debug, Default)]
pub struct SessionPolicyParameters<'a> {
    /// A policy document as JSON text, of at most 2,048 characters together with the ARNs.
    pub inline: Option<&'a str>,
    /// ARNs of at most ten managed policies of the role's account or of AWS.
    pub arns: &'a [&'a str],
}

impl SessionPolicyParameters<'_> {
    fn write(&self, form: &mut Form) {
        form.add_list("PolicyArns", ".arn", self.arns.iter().copied());
        form.add_some("Policy", self.inline);
    }
}

/// `AssumeRoleWithWebIdentity`: a token becomes credentials. It is not signed.
#[derive(Clone, Copy, Debug)]
pub struct AssumeRoleWithWebIdentity<'a> {
    /// The role.
    pub role: &'a RoleArn,
    /// 2 to 64 characters out of `[A-Za-z0-9_+=,.@-]`.
    pub session_name: &'a str,
    /// The web identity token.
    pub token: &'a Secret,
    /// 900 to 43,200; STS gives an hour without it.
    pub duration_seconds: Option<u32>,
    /// Policies that narrow the session.
    pub session_policy: SessionPolicyParameters<'a>,
}

impl AssumeRoleWithWebIdentity<'_> {
    /// The request to an endpoint.
    pub fn request(&self, endpoint: &StsEndpoint) -> StsRequest {
        let mut form = Form::of("AssumeRoleWithWebIdentity");
        form.add("RoleArn", self.role.as_str());
        form.add("RoleSessionName", self.session_name);
        form.add("WebIdentityToken", self.token.expose());
        self.session_policy.write(&mut form);
        form.add_number("DurationSeconds", self.duration_seconds);
        StsRequest::unsigned("AssumeRoleWithWebIdentity", form, endpoint)
    }
}

/// `AssumeRole`: from one role to the next.
#[derive(Clone, Copy, Debug)]
pub struct AssumeRole<'a> {
    /// The role.
    pub role: &'a RoleArn,
    /// 2 to 64 characters out of `[A-Za-z0-9_+=,.@-]`.
    pub session_name: &'a str,
    /// The external id, where the role's account asks for one.
    pub external_id: Option<&'a str>,
    /// 900 to 43,200, and 3,600 where the caller has a role already; STS gives an hour without it.
    pub duration_seconds: Option<u32>,
    /// Policies that narrow the session.
    pub session_policy: SessionPolicyParameters<'a>,
    /// Session tags, at most fifty.
    pub tags: &'a [(&'a str, &'a str)],
    /// Keys of the tags that pass on to further roles.
    pub transitive_tag_keys: &'a [&'a str],
    /// The source identity, which can't change along a chain.
    pub source_identity: Option<&'a str>,
}

impl AssumeRole<'_> {
    /// The request to an endpoint, signed with the credentials of the role before it.
    pub fn request(&self, endpoint: &StsEndpoint, credentials: &Credentials, now: Timestamp) -> StsRequest {
        let mut form = Form::of("AssumeRole");
        form.add("RoleArn", self.role.as_str());
        form.add("RoleSessionName", self.session_name);
        self.session_policy.write(&mut form);
        form.add_number("DurationSeconds", self.duration_seconds);
        form.add_tags(self.tags);
        form.add_list("TransitiveTagKeys", "", self.transitive_tag_keys.iter().copied());
        form.add_some("ExternalId", self.external_id);
        form.add_some("SourceIdentity", self.source_identity);
        StsRequest::signed("AssumeRole", form, endpoint, credentials, now)
    }
}

/// The identity in a token's `sub`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubjectMode {
    /// The role's ARN.
    #[default]
    AwsIdentity,
    /// The subject that an IAM provider's context provider took from the first token, such as the pod.
    OriginIdentity,
}

/// `GetWebIdentityToken`: a token for third parties, signed by the account's own issuer. Not yet seen by AWS.
#[derive(Clone, Copy, Debug)]
pub struct GetWebIdentityToken<'a> {
    /// One to ten.
    pub audiences: &'a [&'a str],
    /// The algorithm of its signature.
    pub algorithm: AwsAlgorithm,
    /// 60 to 3,600; STS gives five minutes without it.
    pub duration_seconds: Option<u32>,
    /// At most fifty; they need a permission of their own.
    pub tags: &'a [(&'a str, &'a str)],
    /// The identity that is named in `sub`.
    pub subject_mode: SubjectMode,
    /// OAuth scopes between single spaces, with `OriginIdentity` and one audience only.
    pub scope: Option<&'a str>,
}

/// `GetWebIdentityToken` is not available at the global endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("GetWebIdentityToken is not available at the global endpoint of STS; a region is needed")]
pub struct NotRegional;

impl GetWebIdentityToken<'_> {
    /// The shortest lifetime of a token, in seconds.
    pub const SHORTEST: u32 = 60;
    /// The longest, in seconds.
    pub const LONGEST: u32 = LONGEST_AWS_TOKEN;

    /// The lifetime to ask for when `wanted` seconds are wanted: never longer than the session lasts, since STS refuses that
    /// (`SessionDurationEscalationException`). Five seconds are left for clocks that differ. `None` when less than a minute would
    /// be left: then the session has to be renewed first.
    pub fn lifetime(wanted: u32, session_ends: Timestamp, now: Timestamp) -> Option<u32> {
        const CLOCKS_DIFFER: i64 = 5;
        let left = session_ends.as_second().saturating_sub(now.as_second()) - CLOCKS_DIFFER;
        let left = u32::try_from(left).ok()?;
        let lifetime = wanted.min(left).min(Self::LONGEST);
        (lifetime >= Self::SHORTEST).then_some(lifetime)
    }

    /// The request to an endpoint, signed with the session's credentials.
    pub fn request(
        &self,
        endpoint: &StsEndpoint,
        credentials: &Credentials,
        now: Timestamp,
    ) -> Result<StsRequest, NotRegional> {
        if !endpoint.is_regional() {
            return Err(NotRegional);
        }
        let mut form = Form::of("GetWebIdentityToken");
        form.add_list("Audience", "", self.audiences.iter().copied());
        form.add_number("DurationSeconds", self.duration_seconds);
        form.add("SigningAlgorithm", self.algorithm.as_str());
        form.add_tags(self.tags);
        // Left out where it is the default: the parameter is younger than the operation.
        if self.subject_mode == SubjectMode::OriginIdentity {
            form.add("SubjectMode", "OriginIdentity");
        }
        form.add_some("Scope", self.scope);
        Ok(StsRequest::signed(
            "GetWebIdentityToken",
            form,
            endpoint,
            credentials,
            now,
        ))
    }
}

/// `GetCallerIdentity`: whose credentials these are. It needs no permission.
pub fn get_caller_identity(endpoint: &StsEndpoint, credentials: &Credentials, now: Timestamp) -> StsRequest {
    StsRequest::signed(
        "GetCallerIdentity",
        Form::of("GetCallerIdentity"),
        endpoint,
        credentials,
        now,
    )
}

#[cfg(test)]
mod tests;
