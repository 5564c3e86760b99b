//! The server's answers: which action a request is for.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use crate::aws_error::AwsError;
use crate::caller::Caller;
use crate::request::{Action, AssumeRequest, AssumeRoleRequest, Parameters, WebIdentityTokenRequest};
use crate::session::random;
use crate::sigv4::{Signed, hex};
use crate::state::AwsAccount;
use crate::xml::{answer, elements, refusal};

/// A token of 20,000 characters and a policy, all percent-encoded, fit in.
const MAX_BODY: usize = 128 << 10;
/// For the body and, 5 s of it, for the issuer.
const REQUEST_DEADLINE: Duration = Duration::from_secs(15);

impl AwsAccount {
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
                (status, refusal(&error, &request_id))
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
