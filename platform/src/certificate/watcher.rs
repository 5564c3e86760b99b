//! The serving certificate: its Secret is watched, and a new pair is shown from the event on.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher;
use kube::{Api, Client};
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;

use super::{CertificatePair, ServingCertificate, UnusablePair};
use crate::health::Gate;
use crate::run::Process;
use crate::telemetry::chain;
use crate::watch;

/// The time between two looks at the certificate without an event: its validity may end, or begin.
const TICK: Duration = Duration::from_secs(5);

/// Shows what the serving Secret has.
#[derive(Debug)]
pub struct CertificateWatcher {
    /// The Secrets of its namespace.
    pub secrets: Api<Secret>,
    /// The Secret's name.
    pub name: String,
    /// The certificate that the listener shows.
    pub certificate: Arc<ServingCertificate>,
    /// Open while the certificate that is shown is valid.
    pub gate: Gate,
    /// The time when it expires, in seconds since the Unix epoch; 0 while there is none.
    pub expires: Gauge,
    /// The time.
    pub clock: fn() -> Timestamp,
}

/// Starts the watch of the Secret of this name in the process's own namespace, and returns the certificate that it keeps. The gate
/// `certificate` is made now, and open while that certificate is valid. `expires` is [`CertificateWatcher::expires`].
pub fn keep(client: Client, secret: &str, expires: Gauge, process: &Process) -> Arc<ServingCertificate> {
    let certificate = ServingCertificate::empty();
    let watcher = CertificateWatcher {
        secrets: Api::namespaced(client, &process.common.namespace),
        name: secret.to_owned(),
        certificate: certificate.clone(),
        gate: process.gates.gate("certificate"),
        expires,
        clock: Timestamp::now,
    };
    process.spawn("certificate", watcher.run(process.stop.clone()));
    certificate
}

/// The reason why a Secret gives no certificate.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the Secret can't be watched")]
    Watch(#[from] watcher::Error),
    #[error("there is no Secret {0}")]
    NoSecret(String),
    #[error("the Secret has no {0}")]
    NoEntry(&'static str),
    #[error("the Secret's certificate can't be used, and the one before stays")]
    Unusable(#[from] UnusablePair),
}

/// The pair that the Secret has as far as it is not shown, and why not.
#[derive(Default)]
struct Pending {
    secret: Option<Secret>,
    problem: Option<String>,
}

impl CertificateWatcher {
    /// Watches until `stop`.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let secrets = watch::object(self.secrets.clone(), &self.name);
        stop.run_until_cancelled(self.follow(secrets)).await;
        Ok(())
    }

    async fn follow(&self, secrets: impl Stream<Item = Result<Option<Secret>, watcher::Error>>) {
        let mut secrets = pin!(secrets);
        let mut pending = Pending::default();
        loop {
            tokio::select! {
                // The stream has no end.
                Some(found) = secrets.next() => self.note(found, &mut pending),
                () = tokio::time::sleep(TICK) => self.show(&mut pending),
            }
            self.judge(pending.problem.as_deref());
        }
    }

    /// Takes up what the watch has told.
    fn note(&self, found: Result<Option<Secret>, watcher::Error>, pending: &mut Pending) {
        match found {
            Ok(Some(secret)) => {
                pending.secret = Some(secret);
                self.show(pending);
            }
            // What is shown stays: whoever deletes the Secret gets a new one, and nobody gains by a webhook without a certificate.
            Ok(None) => {
                pending.secret = None;
                self.report(Some(&Error::NoSecret(self.name.clone())), pending);
            }
            Err(error) => self.report(Some(&Error::Watch(error)), pending),
        }
    }

    /// Shows the pair of the Secret that is not shown yet, if there is one.
    fn show(&self, pending: &mut Pending) {
        let Some(secret) = &pending.secret else { return };
        match self.parse(secret) {
            Ok(pair) => {
                let certificate = pair.certificate().clone();
                self.certificate.show(pair);
                let (serial, not_after) = (&certificate.serial, certificate.validity.not_after);
                tracing::info!(serial, %not_after, "a serving certificate was taken");
                pending.secret = None;
                self.report(None, pending);
            }
            Err(error) => self.report(Some(&error), pending),
        }
    }

    fn parse(&self, secret: &Secret) -> Result<CertificatePair, Error> {
        let data = secret.data.as_ref();
        let entry = |key| data.and_then(|data| data.get(key)).ok_or(Error::NoEntry(key));
        let (certificate, key) = (entry("tls.crt")?, entry("tls.key")?);
        Ok(CertificatePair::parse(&certificate.0, &key.0, (self.clock)())?)
    }

    /// The same problem is one line in the log, not one every few seconds.
    fn report(&self, error: Option<&Error>, pending: &mut Pending) {
        let problem = error.map(|error| chain(error));
        if let Some(text) = &problem
            && pending.problem.as_ref() != Some(text)
        {
            tracing::warn!(secret = self.name, error = text, "no new serving certificate");
        }
        pending.problem = problem;
    }

    /// Opens or closes the gate, by whether the certificate that is shown can be used now.
    fn judge(&self, problem: Option<&str>) {
        let Some(certificate) = self.certificate.certificate() else {
            self.gate.close(problem.unwrap_or("there is none yet"));
            return;
        };
        let validity = certificate.validity;
        self.expires.set(validity.not_after.as_second());
        if !validity.covers((self.clock)()) {
            let (from, to) = (validity.not_before, validity.not_after);
            self.gate.close(format!("it was valid from {from} to {to}"));
            return;
        }
        self.gate.open();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use k8s_openapi::ByteString;
    use kube::Client;
    use kube::client::Body;
    use rcgen::{CertificateParams, KeyPair};
    use tokenscope_fixtures::retry_while;
    use tokio::sync::mpsc;

    use super::*;
    use crate::health::Gates;

    fn secret(certificate: &str, key: &str) -> Secret {
        let entry = |text: &str| ByteString(text.as_bytes().to_vec());
        Secret {
            data: Some([("tls.crt".into(), entry(certificate)), ("tls.key".into(), entry(key))].into()),
            ..Secret::default()
        }
    }

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut certificate = CertificateParams::new(vec!["webhook.test".to_owned()]).unwrap();
        certificate.not_after = rcgen::date_time_ymd(2090, 1, 1);
        (certificate.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    /// A watcher before an API server that never answers; with what it is asked.
    fn watcher(gates: &Gates) -> (CertificateWatcher, mpsc::UnboundedReceiver<String>) {
        let (asked, requests) = mpsc::unbounded_channel();
        let api_server = tower::service_fn(move |request: http::Request<Body>| {
            let _ = asked.send(request.uri().to_string());
            std::future::pending::<Result<http::Response<Body>, Infallible>>()
        });
        let watcher = CertificateWatcher {
            secrets: Api::namespaced(Client::new(api_server, "default"), "tokenscope-system"),
            name: "tls".to_owned(),
            certificate: ServingCertificate::empty(),
            gate: gates.gate("certificate"),
            expires: Gauge::default(),
            clock: Timestamp::now,
        };
        (watcher, requests)
    }

    /// The step that follows an event.
    fn after(watcher: &CertificateWatcher, pending: &mut Pending, found: Result<Option<Secret>, watcher::Error>) {
        watcher.note(found, pending);
        watcher.judge(pending.problem.as_deref());
    }

    #[tokio::test]
    async fn the_gate_opens_with_the_first_certificate_and_a_bad_one_changes_nothing() {
        let gates = Gates::default();
        let (watcher, _requests) = watcher(&gates);
        let mut pending = Pending::default();
        after(&watcher, &mut pending, Ok(None));
        assert_eq!(
            gates.waiting().unwrap(),
            "waiting for certificate: there is no Secret tls\n"
        );

        let (certificate, key) = pair();
        after(&watcher, &mut pending, Ok(Some(secret(&certificate, &key))));
        assert_eq!(gates.waiting(), None);
        let first = watcher.certificate.certificate().unwrap();
        assert_eq!(watcher.expires.get(), first.validity.not_after.as_second());

        let (other_certificate, other_key) = pair();
        after(&watcher, &mut pending, Ok(Some(secret(&other_certificate, &key))));
        let problem = pending.problem.clone().unwrap();
        assert!(
            problem.contains("the one before stays") && problem.contains("does not fit"),
            "{problem}"
        );
        assert!(!problem.contains("PRIVATE"), "{problem}");
        assert_eq!(
            (gates.waiting(), watcher.certificate.certificate()),
            (None, Some(first.clone()))
        );
        after(&watcher, &mut pending, Ok(None));
        assert_eq!(
            watcher.certificate.certificate(),
            Some(first.clone()),
            "a deleted Secret takes nothing away"
        );

        after(&watcher, &mut pending, Ok(Some(secret(&other_certificate, &other_key))));
        assert_ne!(watcher.certificate.certificate(), Some(first));
        assert_eq!(pending.problem, None);
    }

    #[tokio::test]
    async fn a_certificate_that_expired_closes_the_gate() {
        let (certificate, key) = pair();
        let gates = Gates::default();
        let (mut watcher, _requests) = watcher(&gates);
        after(&watcher, &mut Pending::default(), Ok(Some(secret(&certificate, &key))));
        watcher.clock = || "2090-01-02T00:00:00Z".parse().unwrap();
        watcher.judge(None);
        assert!(gates.waiting().unwrap().contains("to 2090-01-01T00:00:00Z"));
    }

    #[tokio::test]
    async fn a_pair_that_came_too_early_is_shown_once_its_time_has_come() {
        let (certificate, key) = pair();
        let gates = Gates::default();
        let (mut watcher, _requests) = watcher(&gates);
        let mut pending = Pending::default();
        watcher.clock = || "1960-01-01T00:00:00Z".parse().unwrap();
        after(&watcher, &mut pending, Ok(Some(secret(&certificate, &key))));
        assert!(gates.waiting().unwrap().contains("now is 1960-01-01T00:00:00Z"));
        watcher.clock = Timestamp::now;
        watcher.show(&mut pending);
        watcher.judge(pending.problem.as_deref());
        assert_eq!(gates.waiting(), None);
    }

    /// How long after its event a change is shown.
    async fn shown_after() -> Duration {
        let (watcher, _requests) = watcher(&Gates::default());
        let (events, received) = mpsc::unbounded_channel();
        let received = futures::stream::unfold(received, async |mut received| Some((received.recv().await?, received)));
        let shown = watcher.certificate.clone();
        let (certificate, key) = pair();
        let began = Instant::now();
        let following = async {
            events.send(Ok(Some(secret(&certificate, &key)))).unwrap();
            while shown.certificate().is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(TICK * 12, async {
            tokio::select! {
                () = watcher.follow(received) => unreachable!("it has no end"),
                () = following => {}
            }
        })
        .await
        .unwrap();
        began.elapsed()
    }

    #[tokio::test]
    async fn a_change_is_shown_with_its_event() {
        // Much less than a tick, unless the machine stalls meanwhile.
        let longest = TICK / 2;
        let took = retry_while(|took: &Duration| *took >= longest, 5, shown_after).await;
        assert!(
            took < longest,
            "it was shown late each time, and after {took:?} at last"
        );
    }

    #[tokio::test]
    async fn only_the_one_secret_is_asked_for() {
        let (watcher, mut requests) = watcher(&Gates::default());
        let stop = CancellationToken::new();
        let running = tokio::spawn(watcher.run(stop.clone()));
        let asked = requests.recv().await.unwrap();
        let (path, query) = asked.split_once('?').unwrap();
        assert_eq!(path, "/api/v1/namespaces/tokenscope-system/secrets");
        assert!(query.contains("fieldSelector=metadata.name%3Dtls"), "{query}");
        stop.cancel();
        running.await.unwrap().unwrap();
    }
}
