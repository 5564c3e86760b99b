//! The server's answers: which action a request is for, and what is remembered between requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use crate::account::Directory;
use crate::caller::Caller;
use crate::config::{CheckedProvider, CheckedRole, Provider, Role, checked_context};
use crate::config_error::StsConfigError;
use crate::issuer::Issuers;
use crate::outbound::OutboundIssuers;
use crate::permissions::AssumedSession;
use crate::request::{Action, AssumeRequest, AssumeRoleRequest, Parameters, WebIdentityTokenRequest};
use crate::session::{Session, Sessions, random};
use crate::sigv4::{Signed, hex};
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
    pub(crate) clock: TimeSource,
    pub(crate) issuers: Issuers,
    roles: Mutex<HashMap<String, Arc<CheckedRole>>>,
    pub(crate) providers: Mutex<Vec<Arc<CheckedProvider>>>,
    pub(crate) sessions: Mutex<Sessions>,
    pub(crate) directory: Mutex<Directory>,
    pub(crate) outbound: OutboundIssuers,
    /// `None` = any.
    pub(crate) region: Option<String>,
}

impl AwsAccount {
    /// An account without roles and providers.
    pub(crate) fn new(issuers: Issuers, clock: TimeSource, region: Option<String>) -> Self {
        Self {
            clock,
            issuers,
            roles: Mutex::default(),
            providers: Mutex::default(),
            sessions: Mutex::default(),
            directory: Mutex::default(),
            outbound: OutboundIssuers::default(),
            region,
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

    pub(crate) fn role(&self, arn: &str) -> Option<Arc<CheckedRole>> {
        lock(&self.roles).get(arn).cloned()
    }

    pub(crate) fn remember(&self, session: Session) {
        lock(&self.sessions).add(Arc::new(session));
    }

    /// The session of an access key id, for tests.
    pub(crate) fn session(&self, access_key_id: &str) -> Option<AssumedSession> {
        lock(&self.sessions)
            .find(access_key_id)
            .map(|session| AssumedSession::of(&session))
    }

    /// Answers a request, within a deadline.
    pub(crate) async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if let Some(document) = self.outbound.document(&request) {
            return document;
        }
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
        let signed = Signed {
            method: &head.method,
            path: head.uri.path(),
            query,
            headers: &head.headers,
            body: &body,
        };
        let (name, result) = match parameters.action()? {
            Action::AssumeRole => {
                let caller = self.caller(&signed)?;
                let result = self.assume_role(&caller, &AssumeRoleRequest::parse(&parameters)?)?;
                ("AssumeRole", result)
            }
            Action::AssumeRoleWithWebIdentity => {
                let request = AssumeRequest::parse(&parameters)?;
                let result = self.assume_role_with_web_identity(&request).await?;
                ("AssumeRoleWithWebIdentity", result)
            }
            Action::GetCallerIdentity => ("GetCallerIdentity", caller_identity(&self.caller(&signed)?)),
            Action::GetWebIdentityToken => {
                let caller = self.caller(&signed)?;
                self.check_regional(&head.headers)?;
                let result = self.web_identity_token(&caller, &WebIdentityTokenRequest::parse(&parameters)?)?;
                ("GetWebIdentityToken", result)
            }
        };
        Ok(answer(name, &result, request_id))
    }
}

/// Nobody needs a permission for it (STS API reference, GetCallerIdentity).
fn caller_identity(caller: &Caller) -> String {
    elements(&[
        ("Arn", &caller.arn),
        ("UserId", &caller.user_id),
        ("Account", &caller.account),
    ])
}

/// In the form of a UUID. Without randomness it is all zeros: it only serves to find a request in a log.
fn request_id() -> String {
    let text = hex(&random::<16>().unwrap_or_default());
    let parts = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
    parts.join("-")
}

/// What the locks guard is changed in single steps, so a panic elsewhere leaves it whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
