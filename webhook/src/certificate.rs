//! The serving certificate: read from its Secret again and again, and swapped when it changed.
//!
//! Only `get` by name: a right to list or watch could not be bound to the one Secret.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use prometheus_client::metrics::gauge::Gauge;
use tokenscope_platform::health::Gate;
use tokenscope_platform::telemetry::chain;
use tokenscope_platform::tls::{self, ServingCertificate};
use tokio_util::sync::CancellationToken;

/// Between two looks until there is a certificate at all: right after an installation the operator is just making it, and
/// nobody is served meanwhile.
const WHILE_THERE_IS_NONE: Duration = Duration::from_secs(1);

/// Keeps a serving certificate what its Secret says.
#[derive(Debug)]
pub struct Keeper {
    /// Where the Secret is.
    pub secrets: Api<Secret>,
    /// The Secret's name.
    pub name: String,
    /// How long between two looks.
    pub period: Duration,
    /// What the listener shows.
    pub certificate: Arc<ServingCertificate>,
    /// Open while the certificate that is shown is valid.
    pub gate: Gate,
    /// When it expires, in seconds since the Unix epoch; 0 while there is none.
    pub expires: Gauge,
    /// The time.
    pub clock: fn() -> Timestamp,
}

/// Why a Secret gives no certificate.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the Secret can't be read: {0}")]
    Read(String),
    #[error("the Secret has no {0}")]
    Missing(&'static str),
    #[error("the Secret's certificate can't be used, and the one before stays")]
    Unusable(#[source] tls::Error),
}

impl Keeper {
    /// Looks again and again until `stop`.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut version = None;
        let mut problem = None;
        while !stop.is_cancelled() {
            let looked = self.look(&mut version).await.err().map(|error| chain(&error));
            // The same problem is one line in the log, not one every few seconds.
            if let Some(text) = &looked
                && problem.as_ref() != Some(text)
            {
                tracing::warn!(secret = self.name, error = text, "no new serving certificate");
            }
            problem = looked;
            self.judge(problem.as_deref());
            let pause = match self.certificate.info() {
                Some(_) => self.period,
                None => self.period.min(WHILE_THERE_IS_NONE),
            };
            stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
        Ok(())
    }

    /// Shows the Secret's certificate, if the Secret is not the `version` that was looked at before.
    async fn look(&self, version: &mut Option<String>) -> Result<(), Error> {
        let secret = self
            .secrets
            .get(&self.name)
            .await
            .map_err(|error| Error::Read(chain(&error)))?;
        if secret.metadata.resource_version.is_some() && secret.metadata.resource_version == *version {
            return Ok(());
        }
        let data = secret.data.unwrap_or_default();
        let entry = |key| data.get(key).ok_or(Error::Missing(key));
        let (certificate, key) = (entry("tls.crt")?, entry("tls.key")?);
        let info = self
            .certificate
            .replace(&certificate.0, &key.0)
            .map_err(Error::Unusable)?;
        tracing::info!(serial = info.serial, not_after = %info.not_after, "a serving certificate was taken");
        *version = secret.metadata.resource_version;
        Ok(())
    }

    /// Whether what is shown is good now.
    fn judge(&self, problem: Option<&str>) {
        let Some(info) = self.certificate.info() else {
            self.gate.close(problem.unwrap_or("there is none yet"));
            return;
        };
        self.expires.set(info.not_after.as_second());
        let now = (self.clock)();
        if now < info.not_before || now > info.not_after {
            self.gate
                .close(format!("it was valid from {} to {}", info.not_before, info.not_after));
            return;
        }
        self.gate.open();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use kube::Client;
    use kube::client::Body;
    use rcgen::{CertificateParams, KeyPair};
    use serde_json::{Value, json};
    use std::sync::Mutex;
    use tokenscope_platform::health::Gates;

    fn secret(version: &str, certificate: &str, key: &str) -> Value {
        let data = json!({"tls.crt": STANDARD.encode(certificate), "tls.key": STANDARD.encode(key)});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls", "resourceVersion": version}, "data": data})
    }

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut certificate = CertificateParams::new(vec!["webhook.test".to_owned()]).unwrap();
        certificate.not_after = rcgen::date_time_ymd(2090, 1, 1);
        (certificate.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    /// A keeper before an API server that answers with what `stored` holds.
    fn keeper(stored: &Arc<Mutex<Value>>, gates: &Gates) -> Keeper {
        let stored = stored.clone();
        let api_server = tower::service_fn(move |request: http::Request<Body>| {
            assert_eq!(request.uri().path(), "/api/v1/namespaces/tokenscope-system/secrets/tls");
            let answer = stored.lock().unwrap().clone();
            let status = answer["code"].as_u64().unwrap_or(200) as u16;
            let body = Body::from(answer.to_string().into_bytes());
            std::future::ready(Ok::<_, Infallible>(
                http::Response::builder().status(status).body(body).unwrap(),
            ))
        });
        Keeper {
            secrets: Api::namespaced(Client::new(api_server, "default"), "tokenscope-system"),
            name: "tls".to_owned(),
            period: Duration::from_secs(5),
            certificate: ServingCertificate::empty(),
            gate: gates.gate("certificate"),
            expires: Gauge::default(),
            clock: Timestamp::now,
        }
    }

    #[tokio::test]
    async fn the_gate_opens_with_the_first_certificate_and_a_bad_one_changes_nothing() {
        let missing = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound", "message": "secrets \"tls\" not found"});
        let (stored, gates) = (Arc::new(Mutex::new(missing)), Gates::default());
        let keeper = keeper(&stored, &gates);
        let mut version = None;
        let problem = keeper.look(&mut version).await.unwrap_err().to_string();
        keeper.judge(Some(&problem));
        assert_eq!(
            gates.waiting().unwrap(),
            "waiting for certificate: the Secret can't be read: secrets \"tls\" not found\n"
        );

        let (certificate, key) = pair();
        *stored.lock().unwrap() = secret("1", &certificate, &key);
        keeper.look(&mut version).await.unwrap();
        keeper.judge(None);
        assert_eq!(gates.waiting(), None);
        let first = keeper.certificate.info().unwrap();
        assert_eq!(keeper.expires.get(), first.not_after.as_second());

        let (other_certificate, other_key) = pair();
        *stored.lock().unwrap() = secret("2", &other_certificate, &key);
        let problem = chain(&keeper.look(&mut version).await.unwrap_err());
        assert!(
            problem.contains("the one before stays") && problem.contains("does not fit"),
            "{problem}"
        );
        assert!(!problem.contains("PRIVATE"), "{problem}");
        keeper.judge(Some(&problem));
        assert_eq!(
            (gates.waiting(), keeper.certificate.info()),
            (None, Some(first.clone()))
        );

        *stored.lock().unwrap() = secret("3", &other_certificate, &other_key);
        keeper.look(&mut version).await.unwrap();
        assert_ne!(keeper.certificate.info(), Some(first));
    }

    #[tokio::test]
    async fn a_certificate_that_expired_closes_the_gate() {
        let (certificate, key) = pair();
        let (stored, gates) = (Arc::new(Mutex::new(secret("1", &certificate, &key))), Gates::default());
        let mut keeper = keeper(&stored, &gates);
        keeper.look(&mut None).await.unwrap();
        keeper.clock = || "2090-01-02T00:00:00Z".parse().unwrap();
        keeper.judge(None);
        assert!(gates.waiting().unwrap().contains("to 2090-01-01T00:00:00Z"));
    }
}
