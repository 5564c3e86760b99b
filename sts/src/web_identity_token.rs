//! `GetWebIdentityToken`: a token for third parties, signed by the account's issuer.
//!
//! STS service model of November 2026 (`GetWebIdentityTokenRequest`, the three errors) and IAM User Guide, "Outbound identity
//! federation" (claims, condition keys, permissions). Not yet seen by AWS: the claims as a whole, since no page has all of them at
//! once; that `aud` is a text for one audience and a list for several; the limit of the payload; the code of a refusal at the
//! global endpoint; that the resource of its permissions is `*`.

use std::collections::BTreeMap;

use hyper::HeaderMap;
use hyper::header::HOST;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::aws_error::AwsError;
use crate::caller::{Caller, GLOBAL};
use crate::condition::{Fact, Facts};
use crate::outbound::CLAIMS;
use crate::request::{SubjectMode, WebIdentityTokenRequest};
use crate::session::random;
use crate::sigv4::hex;
use crate::state::AwsAccount;
use crate::xml::elements;

/// Bytes of the payload. Not documented: the stricter side of what a verifier can be expected to take in a header.
const MAX_PAYLOAD: usize = 8192;

impl AwsAccount {
    /// "The GetWebIdentityToken API is not available on the STS Global endpoint" (STS API reference).
    pub(crate) fn check_regional(&self, headers: &HeaderMap) -> Result<(), AwsError> {
        let host = headers
            .get(HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default();
        let host = host.split(':').next().unwrap_or_default();
        if self.region.as_deref() == Some(GLOBAL) || host.eq_ignore_ascii_case("sts.amazonaws.com") {
            let message = "GetWebIdentityToken is not available on the STS Global endpoint";
            return Err(AwsError::new(400, "InvalidAction", message));
        }
        Ok(())
    }

    /// The result's members as XML.
    pub(crate) fn web_identity_token(
        &self,
        caller: &Caller,
        request: &WebIdentityTokenRequest,
    ) -> Result<String, AwsError> {
        let facts = facts(caller, request);
        let tags = (!request.tags.is_empty()).then_some("sts:TagGetWebIdentityToken");
        let scope = request.scope.is_some().then_some("sts:SetWebIdentityTokenScope");
        for action in [Some("sts:GetWebIdentityToken"), tags, scope].into_iter().flatten() {
            caller.check_may(action, "*", &facts)?;
        }
        let issuer = self.outbound.issuer_of(&caller.account).ok_or_else(disabled)?;
        let subject = subject(caller, request.subject_mode)?;

        let now = (self.clock)();
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let duration = SignedDuration::from_secs(i64::from(request.duration));
        let expires = now.saturating_add(duration).unwrap_or(Timestamp::MAX);
        if caller.session.as_ref().is_some_and(|session| expires > session.expires) {
            return Err(escalates());
        }

        let mut claims = json!({
            "iss": issuer,
            "sub": subject,
            "aud": audience(&request.audiences),
            "iat": now.as_second(),
            "exp": expires.as_second(),
            "jti": hex(&random::<16>().map_err(|_| AwsError::internal())?),
            CLAIMS: own_claims(caller, request),
        });
        if let Some(scope) = &request.scope {
            claims["scope"] = json!(scope);
        }
        if claims.to_string().len() > MAX_PAYLOAD {
            return Err(too_large());
        }
        let token = self.outbound.sign(request.algorithm, &claims);
        let token = token.map_err(|_| AwsError::internal())?;
        tracing::info!(by = caller.arn, audiences = ?request.audiences, %expires, "web identity token issued");
        Ok(elements(&[
            ("WebIdentityToken", &token),
            ("Expiration", &expires.to_string()),
        ]))
    }
}

fn facts(caller: &Caller, request: &WebIdentityTokenRequest) -> Facts {
    let mut facts = caller.facts.clone();
    facts.set("sts:IdentityTokenAudience", Fact::many(&request.audiences));
    facts.set("sts:DurationSeconds", Fact::One(request.duration.to_string()));
    facts.set("sts:SigningAlgorithm", Fact::One(request.algorithm.name().to_owned()));
    facts.set("sts:SubjectMode", Fact::One(request.subject_mode.name().to_owned()));
    let scopes = request
        .scope
        .iter()
        .flat_map(|scope| scope.split(' ').map(str::to_owned));
    facts.set("sts:IdentityTokenScope", Fact::many(&scopes.collect::<Vec<_>>()));
    facts.set("aws:RequestedRegion", Fact::One(caller.region.clone()));
    facts.set_request_tags(&request.tags);
    facts
}

/// The role's or user's ARN, or the propagated subject (STS service model, SubjectMode).
fn subject(caller: &Caller, mode: SubjectMode) -> Result<String, AwsError> {
    if mode == SubjectMode::AwsIdentity {
        return Ok(caller.identity.clone());
    }
    let propagated = |key: &str| caller.principal.propagated.get(&format!("aws:OriginIdentity/{key}"));
    let issuer = propagated("Issuer").or_else(|| propagated("FederatedProviderArn"));
    let subject = propagated("Subject").filter(|subject| issuer.is_some() && !subject.trim().is_empty());
    let Some(subject) = subject else {
        let message = "The session has no trusted identity propagation context with a subject and its issuer";
        return Err(AwsError::validation(message));
    };
    let is_refused = |c: char| c.is_control() || (c.is_whitespace() && c != ' ') || is_format(c);
    if subject.to_lowercase().starts_with("arn:") || subject.trim() != subject || subject.contains(is_refused) {
        let message = "The subject of the session's trusted identity propagation context is not allowed in a token";
        return Err(AwsError::new(403, "AccessDenied", message));
    }
    Ok(subject.clone())
}

/// Format characters of Unicode that a subject may be disguised with.
fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0001}'..='\u{e007f}')
}

fn audience(audiences: &[String]) -> Value {
    match audiences {
        [only] => json!(only),
        several => json!(several),
    }
}

/// Those under `https://sts.amazonaws.com/` that this stand-in has facts for.
fn own_claims(caller: &Caller, request: &WebIdentityTokenRequest) -> Value {
    let mut claims = json!({
        "aws_account": caller.account,
        "source_region": caller.region,
        "principal_id": caller.identity,
    });
    let mut add = |name: &str, tags: &BTreeMap<String, String>| {
        if !tags.is_empty() {
            claims[name] = json!(tags);
        }
    };
    add("principal_tags", &caller.principal.tags);
    add("request_tags", &request.tags);
    if let Some(source) = &caller.principal.source_identity {
        claims["source_identity"] = json!(source);
    }
    if request.subject_mode == SubjectMode::OriginIdentity {
        claims["subject_mode"] = json!(request.subject_mode.name());
    }
    claims
}

fn disabled() -> AwsError {
    AwsError::new(
        403,
        "OutboundWebIdentityFederationDisabledException",
        "The outbound web identity federation feature is not enabled for this account.",
    )
}

fn escalates() -> AwsError {
    AwsError::new(
        403,
        "SessionDurationEscalationException",
        "The requested token duration would extend the session beyond its original expiration time.",
    )
}

fn too_large() -> AwsError {
    AwsError::new(
        400,
        "JWTPayloadSizeExceededException",
        "The requested token payload size exceeds the maximum allowed size.",
    )
}
