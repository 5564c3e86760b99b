//! STS as the sidecar asks it: the role of the token, then the roles of the chain, and tokens for third parties with the credentials of the last.
//!
//! Each call is a connection of its own: between two renewals lie many minutes. No redirect is followed.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use http::Request;
use http::header::{CONNECTION, USER_AGENT};
use http_body_util::Full;
use hyper::body::Bytes;
use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokenscope_aws::{
    AssumeRole, AssumeRoleWithWebIdentity, AssumedRole, Credentials, GetWebIdentityToken, RegionChoice, RegionOutcome,
    Secret, SessionPolicyParameters, StsEndpoint, StsError, StsRequest, SubjectMode, WebIdentityToken,
};
use tokenscope_core::RoleArn;
use tokenscope_core::delivery::ExternalId;
use tokenscope_core::outbound::{AwsScope, AwsSubject};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::deadlines::StsDeadlines;
use super::error::NotTaken;
use super::outbound_settings::OutboundSettings;
use super::settings::ContainerSettings;
use crate::exchange::{Authority, trusted};
use crate::one_request::{self, Broken, WholeAnswer};
use crate::words::{shown, without};

/// The longest web identity token, in bytes (AWS STS API reference, `WebIdentityToken`).
const LONGEST_TOKEN: usize = 20_000;
/// The most of what is said of a certificate that is refused, in bytes.
const LONGEST_REASON: usize = 300;

/// A client of STS.
pub(crate) struct StsClient {
    provider: Arc<CryptoProvider>,
    authorities: Option<Arc<[Authority]>>,
    deadlines: StsDeadlines,
    /// The moment from which times of [`RegionChoice`] are counted.
    started: Instant,
}

impl StsClient {
    /// One that trusts these authorities, or the public ones. Nothing is connected to yet.
    pub(crate) fn new(authorities: Option<Arc<[Authority]>>, deadlines: StsDeadlines) -> Self {
        Self {
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            authorities,
            deadlines,
            started: Instant::now(),
        }
    }

    /// Takes the container's roles, one after the other, with the token that is in its file now; gives the session of the last one.
    /// `now` tells the time.
    pub(crate) async fn take(
        &self,
        container: &ContainerSettings,
        regions: &mut RegionChoice,
        now: &(dyn Fn() -> Timestamp + Sync),
    ) -> Result<AssumedRole, NotTaken> {
        let token = token(&container.token_file)?;
        let arns: Vec<&str> = container.session_policy.arns.iter().map(|arn| &**arn).collect();
        let narrowed = SessionPolicyParameters {
            inline: container.session_policy.inline.as_deref(),
            arns: &arns,
        };
        // The policies narrow the last session alone: an earlier one only takes the next role.
        let policy_of = |is_last: bool| {
            if is_last {
                narrowed
            } else {
                SessionPolicyParameters::default()
            }
        };
        let first = &container.first;
        let by_token = AssumeRoleWithWebIdentity {
            role: &first.role,
            session_name: &first.session_name,
            token: &token,
            duration_seconds: container.duration_seconds,
            session_policy: policy_of(container.chain.is_empty()),
        };
        let call = Call {
            container,
            role: &first.role,
            now,
        };
        let write = |endpoint: &StsEndpoint| Ok(by_token.request(endpoint));
        let taken = self.ask(call, regions, write, AssumedRole::read).await;
        let mut taken = taken.map_err(|error| error_without(error, &token))?;
        for (index, step) in container.chain.iter().enumerate() {
            let next = AssumeRole {
                role: &step.role,
                session_name: &step.session_name,
                external_id: step.external_id.as_ref().map(ExternalId::as_str),
                duration_seconds: None,
                session_policy: policy_of(index + 1 == container.chain.len()),
                tags: &[],
                transitive_tag_keys: &[],
                source_identity: None,
            };
            let credentials = &taken.credentials;
            let call = Call {
                container,
                role: &step.role,
                now,
            };
            let write = |endpoint: &StsEndpoint| Ok(next.request(endpoint, credentials, now()));
            let answer = self.ask(call, regions, write, AssumedRole::read).await;
            taken = answer.map_err(|error| error_without_session(error, credentials))?;
        }
        Ok(taken)
    }

    /// Asks for a token for a third party, valid for these seconds, with the credentials of the container's last role.
    pub(crate) async fn web_identity_token(
        &self,
        container: &ContainerSettings,
        (token, seconds): (&OutboundSettings, u32),
        credentials: &Credentials,
        regions: &mut RegionChoice,
        now: &(dyn Fn() -> Timestamp + Sync),
    ) -> Result<WebIdentityToken, NotTaken> {
        let wanted = GetWebIdentityToken {
            audiences: &[token.audience.as_str()],
            algorithm: token.aws.algorithm,
            duration_seconds: Some(seconds),
            tags: &[],
            subject_mode: match token.aws.subject {
                AwsSubject::Role => SubjectMode::AwsIdentity,
                AwsSubject::Origin { .. } => SubjectMode::OriginIdentity,
            },
            scope: token.aws.subject.scope().map(AwsScope::as_str),
        };
        let call = Call {
            container,
            role: container.last_role(),
            now,
        };
        let write = |endpoint: &StsEndpoint| {
            let request = wanted.request(endpoint, credentials, now());
            request.map_err(NotTaken::from)
        };
        let read = |_: &str, status, body: &[u8]| WebIdentityToken::read(status, body);
        let answer = self.ask(call, regions, write, read).await;
        answer.map_err(|error| error_without_session(error, credentials))
    }

    /// Makes one call: the first region that answers.
    async fn ask<T>(
        &self,
        call: Call<'_>,
        regions: &mut RegionChoice,
        write: impl Fn(&StsEndpoint) -> Result<StsRequest, NotTaken>,
        read: impl Fn(&str, u16, &[u8]) -> Result<T, StsError>,
    ) -> Result<T, NotTaken> {
        let mut asking = regions.call(self.started.elapsed());
        let mut last = None;
        while let Some(endpoint) = regions
            .next(&mut asking)
            .and_then(|index| call.container.endpoints.get(index))
        {
            let answer = self.ask_one(endpoint, write(endpoint)?, call, &read).await;
            let is_failure = answer.as_ref().is_err_and(NotTaken::may_try_elsewhere);
            let outcome = if is_failure {
                RegionOutcome::Failed
            } else {
                RegionOutcome::Answered
            };
            regions.report(&mut asking, outcome, self.started.elapsed());
            match answer {
                Err(error) if is_failure => last = Some(error),
                answer => return answer,
            }
        }
        // A container has a region, so one was asked.
        Err(last.unwrap_or_else(|| no_answer("no region", "none was asked")))
    }

    async fn ask_one<T>(
        &self,
        endpoint: &StsEndpoint,
        request: StsRequest,
        call: Call<'_>,
        read: impl Fn(&str, u16, &[u8]) -> Result<T, StsError>,
    ) -> Result<T, NotTaken> {
        let action = request.action();
        let deadline = self.deadlines.answer;
        let late = || no_answer(endpoint.host(), format!("nothing came within {} s", deadline.as_secs()));
        let answer = timeout(deadline, self.send(endpoint, request, (call.now)())).await;
        let answer = answer.map_err(|_| late())??;
        read(action, answer.status.as_u16(), &answer.body).map_err(|error| NotTaken::Sts {
            action,
            role: call.role.as_str().into(),
            error,
        })
    }

    async fn send(&self, endpoint: &StsEndpoint, request: StsRequest, now: Timestamp) -> Result<WholeAnswer, NotTaken> {
        let host = endpoint.host();
        let request = http_request(&request).ok_or_else(|| no_answer(host, "the request can't be written"))?;
        let no_connection = |reason: String| NotTaken::Connect {
            host: host.to_owned(),
            reason,
        };
        let deadline = self.deadlines.connection;
        let stream = timeout(deadline, TcpStream::connect((host, endpoint.port())))
            .await
            .map_err(|_| no_connection(format!("nothing came about in {} s", deadline.as_secs())))?
            .map_err(|error| no_connection(error.to_string()))?;
        let answer = if endpoint.is_https() {
            let name = ServerName::try_from(host.to_owned()).map_err(|error| no_tls(host, &error))?;
            let connecting = self.connector(host, now)?.connect(name, stream).await;
            one_request::send(connecting.map_err(|error| no_tls(host, &error))?, request).await
        } else {
            one_request::send(stream, request).await
        };
        answer.map_err(|broken| {
            no_answer(
                host,
                match broken {
                    Broken::TooLong => "what came is longer than any answer of STS",
                    Broken::NotHttp => "what came is no HTTP/1.1",
                    Broken::Lost => "the connection broke",
                },
            )
        })
    }

    /// TLS that trusts the authorities of this moment. It is made for each connection, and takes no memory between them.
    fn connector(&self, host: &str, now: Timestamp) -> Result<TlsConnector, NotTaken> {
        let roots = match &self.authorities {
            Some(authorities) => trusted(authorities, now).ok_or(NotTaken::AuthoritiesEnded)?,
            None => RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            },
        };
        let mut tls = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| no_tls(host, &error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        tls.resumption = rustls::client::Resumption::disabled();
        Ok(TlsConnector::from(Arc::new(tls)))
    }
}

/// A call that is made: for whom, and for which role.
#[derive(Clone, Copy)]
struct Call<'a> {
    container: &'a ContainerSettings,
    role: &'a RoleArn,
    now: &'a (dyn Fn() -> Timestamp + Sync),
}

/// The token as it is in its file now.
fn token(path: &Path) -> Result<Secret, NotTaken> {
    let mut text = String::new();
    // One byte for the end of a line, which belongs to no token.
    let most = LONGEST_TOKEN as u64 + 2;
    let read = File::open(path).and_then(|file| file.take(most).read_to_string(&mut text));
    read.map_err(|error| NotTaken::Token {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    let token = text.trim_ascii_end();
    if token.is_empty() || token.len() > LONGEST_TOKEN {
        return Err(NotTaken::TokenLength(path.to_owned()));
    }
    Ok(Secret::new(token))
}

fn http_request(request: &StsRequest) -> Option<Request<Full<Bytes>>> {
    let mut builder = Request::post("/");
    for (name, value) in request.headers() {
        builder = builder.header(*name, value);
    }
    builder
        .header(USER_AGENT, concat!("tokenscope-sidecar/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Full::new(Bytes::copy_from_slice(request.body().as_bytes())))
        .ok()
}

fn no_answer(host: &str, reason: impl Into<Cow<'static, str>>) -> NotTaken {
    NotTaken::NoAnswer {
        host: host.to_owned(),
        reason: reason.into(),
    }
}

fn no_tls(host: &str, error: &dyn std::fmt::Display) -> NotTaken {
    NotTaken::Tls {
        host: host.to_owned(),
        reason: shown(&error.to_string(), LONGEST_REASON),
    }
}

/// The error without the session token of the credentials that were sent, if they have one.
fn error_without_session(error: NotTaken, credentials: &Credentials) -> NotTaken {
    match &credentials.session_token {
        Some(sent) => error_without(error, sent),
        None => error,
    }
}

/// The error without the token that was sent, should the other side repeat it.
fn error_without(error: NotTaken, token: &Secret) -> NotTaken {
    let clean = |message: &str| without(message, token.expose()).into();
    match error {
        NotTaken::Sts {
            action,
            role,
            error:
                StsError::Refused {
                    code,
                    name,
                    message,
                    request_id,
                },
        } => NotTaken::Sts {
            action,
            role,
            error: StsError::Refused {
                code,
                name,
                message: clean(&message),
                request_id,
            },
        },
        NotTaken::Sts {
            action,
            role,
            error: StsError::Later { name, message },
        } => NotTaken::Sts {
            action,
            role,
            error: StsError::Later {
                name,
                message: clean(&message),
            },
        },
        other => other,
    }
}
