//! The server's answers: the two actions, and what is remembered between requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use crate::condition::Facts;
use crate::config::{CheckedProvider, CheckedRole, Provider, Role, StsConfigError, checked_context};
use crate::context_provider::Propagated;
use crate::identity::WebIdentity;
use crate::issuer::Issuers;
use crate::packed_size::packed_policy_size;
use crate::permissions::AssumedSession;
use crate::principal::Principal;
use crate::request::{Action, AssumeRequest, Parameters};
use crate::session::{Session, Sessions, random};
use crate::sigv4::{Authorization, Signed, hex};
use crate::token;
use crate::trust::{access_denied, authorize};
use crate::xml::{AwsError, answer, elements};

/// A token of 20,000 characters and a policy, all percent-encoded, fit in.
const MAX_BODY: usize = 128 << 10;
/// For the body and, 5 s of it, for the issuer.
const REQUEST_DEADLINE: Duration = Duration::from_secs(15);

/// Tells the time; tests move it.
pub type TimeSource = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The machine's clock.
pub fn system_clock() -> TimeSource {
    Arc::new(Timestamp::now)
}

/// The account as requests see it: its roles, its providers, the sessions that were issued.
pub(crate) struct AwsAccount {
    clock: TimeSource,
    issuers: Issuers,
    roles: Mutex<HashMap<String, Arc<CheckedRole>>>,
    providers: Mutex<Vec<Arc<CheckedProvider>>>,
    sessions: Mutex<Sessions>,
}

impl AwsAccount {
    /// An account without roles and providers.
    pub(crate) fn new(issuers: Issuers, clock: TimeSource) -> Self {
        Self {
            clock,
            issuers,
            roles: Mutex::default(),
            providers: Mutex::default(),
            sessions: Mutex::default(),
        }
    }

    /// Adds a role; it is an error if there is one of this ARN.
    pub(crate) fn add_role(&self, role: &Role) -> Result<(), StsConfigError> {
        let checked = role.check()?;
        let mut roles = lock(&self.roles);
        if roles.contains_key(&role.arn) {
            return Err(StsConfigError::EntityAlreadyExists(role.arn.clone()));
        }
        roles.insert(role.arn.clone(), Arc::new(checked));
        Ok(())
    }

    /// Adds a role or replaces the one of this ARN.
    pub(crate) fn set_role(&self, role: &Role) -> Result<(), StsConfigError> {
        let checked = role.check()?;
        lock(&self.roles).insert(role.arn.clone(), Arc::new(checked));
        Ok(())
    }

    /// Registers an identity provider; a URL can be there once in an account.
    pub(crate) fn add_provider(&self, provider: Provider) -> Result<(), StsConfigError> {
        let provider = provider.checked()?;
        let mut providers = lock(&self.providers);
        if providers.iter().any(|other| other.arn == provider.arn) {
            return Err(StsConfigError::EntityAlreadyExists(provider.arn));
        }
        providers.push(Arc::new(provider));
        Ok(())
    }

    /// Sets, changes or removes the context provider of a provider.
    pub(crate) fn update_context_provider(&self, arn: &str, document: Option<&Value>) -> Result<(), StsConfigError> {
        let context = document.map(checked_context).transpose()?;
        let mut providers = lock(&self.providers);
        let Some(provider) = providers.iter_mut().find(|provider| provider.arn == arn) else {
            return Err(StsConfigError::NoSuchEntity(arn.to_owned()));
        };
        *provider = Arc::new(CheckedProvider {
            context,
            ..CheckedProvider::clone(provider)
        });
        Ok(())
    }

    /// The session of an access key id, for tests.
    pub(crate) fn session(&self, access_key_id: &str) -> Option<AssumedSession> {
        lock(&self.sessions)
            .find(access_key_id)
            .map(|session| AssumedSession::of(&session))
    }

    /// Answers a request, within a deadline.
    pub(crate) async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let request_id = request_id();
        let deadline = AwsError::new(408, "RequestExpired", "The request took too long.");
        let handled = tokio::time::timeout(REQUEST_DEADLINE, self.handle(request, &request_id));
        let (status, body) = match handled.await.unwrap_or(Err(deadline)) {
            Ok(body) => (StatusCode::OK, body),
            Err(error) => {
                tracing::info!(code = error.code, reason = error.message, request_id, "refused");
                let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                (status, error.to_xml(&request_id))
            }
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert("x-amzn-requestid", value);
        }
        response
    }

    async fn handle(&self, request: Request<Incoming>, request_id: &str) -> Result<String, AwsError> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| {
            AwsError::new(
                413,
                "RequestEntityTooLarge",
                format!("The body is over {MAX_BODY} bytes or was cut off."),
            )
        })?;
        let body = body.to_bytes();
        let query = head.uri.query().unwrap_or_default();
        let form_body = || {
            let form = head
                .headers
                .get(CONTENT_TYPE)
                .and_then(|value| value.to_str().ok())
                .is_some_and(|value| {
                    value.split(';').next().unwrap_or_default().trim() == "application/x-www-form-urlencoded"
                });
            if form {
                std::str::from_utf8(&body).unwrap_or_default()
            } else {
                ""
            }
        };
        let parameters = match head.method {
            _ if head.uri.path() != "/" => return Err(AwsError::new(404, "InvalidAction", "STS answers at / only")),
            Method::POST => Parameters::parse(form_body())?,
            Method::GET => Parameters::parse(query)?,
            _ => return Err(AwsError::new(405, "InvalidAction", "STS answers GET and POST only")),
        };
        match parameters.action()? {
            Action::AssumeRoleWithWebIdentity => {
                let result = self.assume_role(&AssumeRequest::parse(&parameters)?).await?;
                Ok(answer("AssumeRoleWithWebIdentity", &result, request_id))
            }
            Action::GetCallerIdentity => {
                let signed = Signed {
                    method: &head.method,
                    path: head.uri.path(),
                    query,
                    headers: &head.headers,
                    body: &body,
                };
                Ok(answer("GetCallerIdentity", &self.caller_identity(&signed)?, request_id))
            }
        }
    }

    async fn assume_role(&self, request: &AssumeRequest) -> Result<String, AwsError> {
        let unverified = token::parse(&request.token)?;
        let issuer = unverified.issuer.as_str();
        // The account of the request is the role's.
        let provider = lock(&self.providers)
            .iter()
            .find(|provider| {
                provider.url == issuer
                    && provider.account == request.role.account
                    && provider.partition == request.role.partition
            })
            .cloned()
            .ok_or_else(|| {
                AwsError::invalid_token(format!("No OpenIDConnect provider found in your account for {issuer}"))
            })?;
        let key = self.issuers.key(issuer, &unverified.key_id, (self.clock)()).await?;
        let now = (self.clock)();
        let mut identity = token::verify(&unverified, &key, &provider.client_ids, now)?;
        let context = provider.context.as_ref();
        identity.propagated = context
            .map(|context| context.read(&identity.claims, issuer, &provider.arn))
            .transpose()?;

        let role = lock(&self.roles)
            .get(&request.role_arn)
            .cloned()
            .ok_or_else(access_denied)?;
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

        let packed = packed_policy_size(request.packed_policy_size, &identity.tags)?;
        let session = Session::issue(
            &request.role_arn,
            &request.role,
            &request.session_name,
            request.duration,
            now,
            Principal::new(issuer, &provider.arn, &identity, request.session_policies.clone()),
        )
        .map_err(|_| AwsError::internal())?;
        tracing::info!(arn = session.arn, subject = identity.subject, expires = %session.expires, "role assumed");
        let result = assumed(&session, &identity, &provider.arn, packed);
        lock(&self.sessions).add(Arc::new(session));
        Ok(result)
    }

    fn caller_identity(&self, request: &Signed<'_>) -> Result<String, AwsError> {
        let invalid = || {
            AwsError::new(
                403,
                "InvalidClientTokenId",
                "The security token included in the request is invalid.",
            )
        };
        let authorization = Authorization::parse(request.headers)?;
        let session = lock(&self.sessions)
            .find(&authorization.access_key_id)
            .ok_or_else(invalid)?;
        let now = (self.clock)();
        let session_token = request.headers.get("x-amz-security-token").ok_or_else(invalid)?;
        if !session.has_token(session_token.as_bytes()) {
            return Err(invalid());
        }
        authorization.verify(request, &session.secret_access_key, now)?;
        session.check_expiry(now)?;
        Ok(elements(&[
            ("Arn", &session.arn),
            ("UserId", &session.user_id),
            ("Account", &session.account),
        ]))
    }
}

/// The members of `AssumeRoleWithWebIdentityResult`.
fn assumed(session: &Session, identity: &WebIdentity, provider_arn: &str, packed_policy_size: Option<usize>) -> String {
    let credentials = elements(&[
        ("AccessKeyId", &session.access_key_id),
        ("SecretAccessKey", &session.secret_access_key),
        ("SessionToken", &session.token),
        ("Expiration", &session.expires.to_string()),
    ]);
    let user = elements(&[("AssumedRoleId", &session.user_id), ("Arn", &session.arn)]);
    // The API reference says that Provider is the token's `iss`; what STS really sends is the provider's ARN.
    let mut rest = vec![
        ("SubjectFromWebIdentityToken", identity.subject.as_str()),
        ("Audience", &identity.audience),
        ("Provider", provider_arn),
    ];
    let percent = packed_policy_size.map(|percent| percent.to_string());
    rest.extend(percent.as_deref().map(|percent| ("PackedPolicySize", percent)));
    rest.extend(
        identity
            .source_identity
            .as_deref()
            .map(|source| ("SourceIdentity", source)),
    );
    let context = identity.propagated.as_ref().map(propagated_context).unwrap_or_default();
    format!(
        "<Credentials>{credentials}</Credentials><AssumedRoleUser>{user}</AssumedRoleUser>{}{context}",
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

/// In the form of a UUID. Without randomness it is all zeros: it only serves to find a request in a log.
fn request_id() -> String {
    let text = hex(&random::<16>().unwrap_or_default());
    let parts = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
    parts.join("-")
}

/// What the locks guard is changed in single steps, so a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
