//! A token of a real TLS issuer becomes credentials over real HTTP, and they identify their holder.

#![expect(
    clippy::unwrap_used,
    reason = "the lint knows test functions only, not their helpers"
)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::{digest, hmac};
use jiff::Timestamp;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokenscope_sts::{Provider, Role, Server, StartError, StsCertificate, StsConfig, StsConfigError, TimeSource};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[path = "exchange/own_issuer.rs"]
mod own_issuer;

const ISSUER: &str = "https://oidc.tokenscope.test/cluster";
const ROLE: &str = "arn:aws:iam::111122223333:role/shop/orders";
const START: i64 = 1_800_000_000;
const FORM: &str = "content-type: application/x-www-form-urlencoded; charset=utf-8\r\n";

/// A private CA and a certificate of it for `name`.
fn certificate(name: &str) -> (String, StsCertificate) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .signed_by(&key, &ca)
        .unwrap();
    (
        ca.pem(),
        StsCertificate {
            certificate_pem: leaf.pem(),
            key_pem: key.serialize_pem(),
        },
    )
}

/// An issuer on loopback that serves what `answers` has for a path, and counts the requests.
struct Issuer {
    address: SocketAddr,
    trust_pem: String,
    answers: Arc<Mutex<HashMap<String, (u16, String)>>>,
    requests: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(name: &str, keys: &[Jwk]) -> Self {
        use rustls_pki_types::pem::PemObject as _;
        let (trust_pem, serving) = certificate(name);
        let chain = rustls_pki_types::CertificateDer::from_pem_slice(serving.certificate_pem.as_bytes()).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(serving.key_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Self {
            address: listener.local_addr().unwrap(),
            trust_pem,
            answers: Arc::default(),
            requests: Arc::default(),
        };
        let discovery = json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/keys")});
        issuer.answer("/cluster/.well-known/openid-configuration", 200, &discovery);
        issuer.answer("/cluster/keys", 200, &json!({ "keys": keys }));
        let (answers, requests) = (issuer.answers.clone(), issuer.requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let head = read_head(&mut stream).await;
                assert!(head.contains("host: oidc.tokenscope.test\r\n"), "{head}");
                requests.fetch_add(1, Ordering::SeqCst);
                let path = head.split(' ').nth(1).unwrap();
                let (status, body) = answers
                    .lock()
                    .unwrap()
                    .get(path)
                    .cloned()
                    .unwrap_or((404, String::new()));
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        issuer
    }

    fn answer(&self, path: &str, status: u16, body: &Value) {
        self.answers
            .lock()
            .unwrap()
            .insert(path.to_owned(), (status, body.to_string()));
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
    key_id: &'static str,
}

impl Signer {
    fn new(algorithm: Algorithm, key_id: &'static str) -> Self {
        let key = if algorithm == Algorithm::RS256 {
            let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
            EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap()
        } else {
            let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
            EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap()
        };
        Self { key, algorithm, key_id }
    }

    fn jwk(&self) -> Jwk {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.key_id.to_owned());
        jwk
    }

    fn token(&self, changes: &Value) -> String {
        let mut claims = json!({"iss": ISSUER, "sub": "system:serviceaccount:shop:orders", "aud": ["sts.amazonaws.com"],
            "iat": START - 60, "nbf": START - 60, "exp": START + 3600});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = Header {
            kid: Some(self.key_id.to_owned()),
            ..Header::new(self.algorithm)
        };
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }
}

fn role(arn: &str, actions: &Value) -> Role {
    let condition = json!({
        "StringEquals": {"oidc.tokenscope.test/cluster:aud": "sts.amazonaws.com"},
        "StringLike": {"oidc.tokenscope.test/cluster:sub": "system:serviceaccount:shop:*"}});
    let trust_policy = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions,
        "Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/oidc.tokenscope.test/cluster"},
        "Condition": condition}]});
    Role {
        arn: arn.into(),
        trust_policy,
        max_session_duration: 3600,
    }
}

fn config(issuer: &Issuer) -> StsConfig {
    StsConfig {
        providers: vec![Provider {
            url: ISSUER.into(),
            client_ids: vec!["sts.amazonaws.com".into()],
            account: "111122223333".into(),
            partition: "aws".into(),
            context_provider: None,
        }],
        roles: vec![role(ROLE, &json!("sts:AssumeRoleWithWebIdentity"))],
        issuer_trust_pem: issuer.trust_pem.clone(),
        connect_to: [("oidc.tokenscope.test".to_owned(), issuer.address)].into(),
    }
}

/// The server and the second hand of its clock.
async fn start(config: StsConfig) -> (Server, Arc<AtomicI64>) {
    let now = Arc::new(AtomicI64::new(START));
    let hand = now.clone();
    let clock: TimeSource = Arc::new(move || Timestamp::from_second(hand.load(Ordering::SeqCst)).unwrap());
    (
        Server::start_with_clock(config, loopback(), None, clock).await.unwrap(),
        now,
    )
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Sends a request and returns status and body.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("x-amzn-requestid: ") && head.contains("content-type: text/xml"),
        "{head}"
    );
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn post(server: &Server, headers: &str, body: &str) -> (u16, String) {
    let stream = TcpStream::connect(server.addr()).await.unwrap();
    exchange(stream, &request(&server.addr().to_string(), headers, body)).await
}

fn request(host: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{FORM}{headers}content-length: {length}\r\n\r\n{body}"
    )
}

fn assume_form(role: &str, token: &str, more: &str) -> String {
    format!(
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={}&RoleSessionName=pod-1&WebIdentityToken={token}{more}",
        role.replace(':', "%3A").replace('/', "%2F")
    )
}

async fn assume(server: &Server, token: &str) -> (u16, String) {
    post(server, "", &assume_form(ROLE, token, "")).await
}

/// The text of the only element of this name, or nothing.
fn element(xml: &str, name: &str) -> String {
    let inner = xml
        .split_once(&format!("<{name}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{name}>")));
    inner.map(|(text, _)| text.to_owned()).unwrap_or_default()
}

fn error((status, body): (u16, String)) -> String {
    format!(
        "{status} {}: {}",
        element(&body, "Code"),
        element(&body, "Message").replace("&apos;", "'")
    )
}

fn base16(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap();
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// GetCallerIdentity signed with the credentials of an answer; `now` in seconds.
async fn caller_identity(server: &Server, credentials: &str, secret: Option<&str>, now: i64) -> (u16, String) {
    const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
    let sha256 = |bytes: &[u8]| base16(digest::digest(&digest::SHA256, bytes).as_ref());
    let mac = |key: &[u8], text: &str| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
            .as_ref()
            .to_vec()
    };
    let (id, token) = (
        element(credentials, "AccessKeyId"),
        element(credentials, "SessionToken"),
    );
    let secret = secret.map_or_else(|| element(credentials, "SecretAccessKey"), str::to_owned);
    let date = Timestamp::from_second(now)
        .unwrap()
        .strftime("%Y%m%dT%H%M%SZ")
        .to_string();
    let scope = format!("{}/eu-central-1/sts/aws4_request", &date[..8]);
    let names = "host;x-amz-date;x-amz-security-token";
    let canonical = format!(
        "POST\n/\n\nhost:{}\nx-amz-date:{date}\nx-amz-security-token:{token}\n\n{names}\n{}",
        server.addr(),
        sha256(BODY.as_bytes())
    );
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let day = mac(format!("AWS4{secret}").as_bytes(), &date[..8]);
    let key = mac(&mac(&mac(&day, "eu-central-1"), "sts"), "aws4_request");
    let signature = base16(&mac(&key, &to_sign));
    let headers = format!(
        "x-amz-date: {date}\r\nx-amz-security-token: {token}\r\n\
         authorization: AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}\r\n"
    );
    post(server, &headers, BODY).await
}

#[tokio::test]
async fn a_token_becomes_credentials_that_identify_their_holder_until_they_expire() {
    let signer = Signer::new(Algorithm::RS256, "rsa");
    let issuer = Issuer::start("oidc.tokenscope.test", &[signer.jwk()]).await;
    let (server, clock) = start(config(&issuer)).await;

    let (status, body) = assume(&server, &signer.token(&json!({}))).await;
    assert_eq!(status, 200, "{body}");
    for (name, expected) in [
        ("SubjectFromWebIdentityToken", "system:serviceaccount:shop:orders"),
        ("Audience", "sts.amazonaws.com"),
        (
            "Provider",
            "arn:aws:iam::111122223333:oidc-provider/oidc.tokenscope.test/cluster",
        ),
        ("Arn", "arn:aws:sts::111122223333:assumed-role/orders/pod-1"),
        ("Expiration", "2027-01-15T09:00:00Z"),
    ] {
        assert_eq!(element(&body, name), expected, "{name}");
    }

    let (status, identity) = caller_identity(&server, &body, None, START).await;
    assert_eq!(status, 200, "{identity}");
    assert_eq!(
        element(&identity, "Arn"),
        "arn:aws:sts::111122223333:assumed-role/orders/pod-1"
    );
    assert_eq!(element(&identity, "Account"), "111122223333");
    assert_eq!(element(&identity, "UserId"), element(&body, "AssumedRoleId"));

    let wrong = error(caller_identity(&server, &body, Some("wrong"), START).await);
    assert!(
        wrong.starts_with("403 SignatureDoesNotMatch: The request signature we calculated"),
        "{wrong}"
    );
    let late = error(caller_identity(&server, &body, None, START - 901).await);
    assert!(
        late.starts_with("403 SignatureDoesNotMatch: Signature expired"),
        "{late}"
    );
    let unknown = body.replace(&element(&body, "AccessKeyId"), "ASIAAAAAAAAAAAAAAAAA");
    let other_token = body.replace(&element(&body, "SessionToken"), "AAAA");
    for changed in [unknown, other_token] {
        assert_eq!(
            error(caller_identity(&server, &changed, None, START).await),
            "403 InvalidClientTokenId: The security token included in the request is invalid."
        );
    }
    assert_eq!(
        error(post(&server, "", "Action=GetCallerIdentity&Version=2011-06-15").await),
        "403 MissingAuthenticationToken: Request is missing Authentication Token"
    );
    clock.store(START + 3600, Ordering::SeqCst);
    assert_eq!(
        error(caller_identity(&server, &body, None, START + 3600).await),
        "403 ExpiredToken: The security token included in the request is expired"
    );
    server.stop().await;
}

#[tokio::test]
async fn every_refusal_has_the_status_code_and_text_of_aws() {
    let signer = Signer::new(Algorithm::ES384, "ec");
    let stranger = Signer::new(Algorithm::ES384, "ec");
    let issuer = Issuer::start("oidc.tokenscope.test", &[signer.jwk()]).await;
    let (server, _) = start(config(&issuer)).await;
    let denied = "403 AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity";
    let tags = json!({"https://aws.amazon.com/tags": {"principal_tags": {"Team": ["blue"]}}});
    let source = json!({"https://aws.amazon.com/source_identity": "shop.orders"});

    for (token, expected) in [
        (
            signer.token(&json!({"sub": "system:serviceaccount:bank:orders"})),
            denied,
        ),
        (
            signer.token(&tags),
            "403 AccessDenied: Not authorized to perform sts:TagSession",
        ),
        (
            signer.token(&source),
            "403 AccessDenied: Not authorized to perform sts:SetSourceIdentity",
        ),
        (
            signer.token(&json!({"aud": "other"})),
            "400 InvalidIdentityToken: Incorrect token audience",
        ),
        (
            signer.token(&json!({"iss": "https://other.test"})),
            "400 InvalidIdentityToken: No OpenIDConnect provider found in your account for https://other.test",
        ),
        (
            signer.token(&json!({"iss": format!("{ISSUER}/")})),
            "400 InvalidIdentityToken: No OpenIDConnect provider found in your account for https://oidc.tokenscope.test/cluster/",
        ),
        (
            signer.token(&json!({"exp": START - 301})),
            "400 ExpiredTokenException: Token expired: current date/time 1800000000 must be before the expiration date/time 1799999699",
        ),
        (
            signer.token(&json!({"iat": START - 90_000})),
            "400 ExpiredTokenException: Token too old: 90000",
        ),
        (
            stranger.token(&json!({})),
            "400 InvalidIdentityToken: Invalid token signature",
        ),
        (
            "opaque-token".to_owned(),
            "400 InvalidIdentityToken: The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)",
        ),
    ] {
        assert_eq!(error(assume(&server, &token).await), expected);
    }
    let token = signer.token(&json!({}));
    for (form, expected) in [
        (assume_form("arn:aws:iam::111122223333:role/nobody", &token, ""), denied.to_owned()),
        (assume_form("arn:aws:iam::999922223333:role/shop/orders", &token, ""), format!("400 InvalidIdentityToken: No OpenIDConnect provider found in your account for {ISSUER}")),
        (assume_form(ROLE, &token, "&DurationSeconds=3601"), "400 ValidationError: The requested DurationSeconds exceeds the MaxSessionDuration set for this role.".into()),
        (assume_form(ROLE, &token, "&DurationSeconds=60"), "400 ValidationError: 1 validation error detected: Value '60' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900".into()),
        ("Action=GetFederationToken&Version=2011-06-15".into(), "400 InvalidAction: Could not find operation GetFederationToken for version 2011-06-15".into()),
    ] {
        assert_eq!(error(post(&server, "", &form).await), expected);
    }

    // The same role, once it allows what the claims need.
    let actions = json!([
        "sts:AssumeRoleWithWebIdentity",
        "sts:TagSession",
        "sts:SetSourceIdentity"
    ]);
    server.set_role(&role(ROLE, &actions)).unwrap();
    assert_eq!(assume(&server, &signer.token(&tags)).await.0, 200);
    let (status, body) = assume(&server, &signer.token(&source)).await;
    assert_eq!(
        (status, element(&body, "SourceIdentity").as_str()),
        (200, "shop.orders")
    );

    let query = assume_form(ROLE, &token, "");
    let get = format!("GET /?{query} HTTP/1.1\r\nhost: sts\r\nconnection: close\r\n\r\n");
    assert_eq!(
        exchange(TcpStream::connect(server.addr()).await.unwrap(), &get).await.0,
        200
    );
    let huge = format!("x={}", "y".repeat(200_000));
    assert!(error(post(&server, "", &huge).await).starts_with("413 RequestEntityTooLarge"));
}

#[tokio::test]
async fn keys_are_remembered_and_an_unknown_one_is_asked_for_at_most_every_half_minute() {
    let (old, new) = (
        Signer::new(Algorithm::ES384, "old"),
        Signer::new(Algorithm::ES384, "new"),
    );
    let issuer = Issuer::start("oidc.tokenscope.test", &[old.jwk()]).await;
    let (server, clock) = start(config(&issuer)).await;
    let no_key = "400 InvalidIdentityToken: Couldn't retrieve verification key from your identity provider, please \
                  reference AssumeRoleWithWebIdentity documentation for requirements";

    let token = old.token(&json!({}));
    let together = tokio::join!(
        assume(&server, &token),
        assume(&server, &token),
        assume(&server, &token)
    );
    assert_eq!((together.0.0, together.1.0, together.2.0), (200, 200, 200));
    assert_eq!(issuer.requests(), 2, "discovery and keys, once");
    issuer.answer("/cluster/keys", 200, &json!({"keys": [old.jwk(), new.jwk()]}));
    assert_eq!(error(assume(&server, &new.token(&json!({}))).await), no_key);
    assert_eq!(issuer.requests(), 2);
    clock.store(START + 30, Ordering::SeqCst);
    assert_eq!(assume(&server, &new.token(&json!({}))).await.0, 200);
    assert_eq!(issuer.requests(), 4);

    // After five minutes the issuer is asked again, and what it says then counts.
    clock.store(START + 330, Ordering::SeqCst);
    issuer.answer("/cluster/keys", 503, &json!({}));
    assert!(error(assume(&server, &old.token(&json!({}))).await).starts_with("400 IDPCommunicationError: "));
    let good = json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/keys")});
    for (discovery, keys) in [
        (
            json!({"issuer": "https://other.test", "jwks_uri": format!("{ISSUER}/keys")}),
            json!({"keys": [old.jwk()]}),
        ),
        (
            json!({"issuer": ISSUER, "jwks_uri": "http://oidc.tokenscope.test/keys"}),
            json!({"keys": [old.jwk()]}),
        ),
        (json!({"issuer": ISSUER}), json!({"keys": [old.jwk()]})),
        (good.clone(), json!({"keys": []})),
        (good.clone(), json!({"keys": vec![old.jwk(); 101]})),
        (good.clone(), json!("x".repeat(2 << 20))),
    ] {
        issuer.answer("/cluster/.well-known/openid-configuration", 200, &discovery);
        issuer.answer("/cluster/keys", 200, &keys);
        assert_eq!(error(assume(&server, &old.token(&json!({}))).await), no_key);
    }
    issuer.answer("/cluster/.well-known/openid-configuration", 200, &good);
    issuer.answer("/cluster/keys", 200, &json!({"keys": [new.jwk()]}));
    assert_eq!(assume(&server, &new.token(&json!({}))).await.0, 200);
    assert_eq!(error(assume(&server, &old.token(&json!({}))).await), no_key);
}

#[tokio::test]
async fn an_issuer_that_cannot_be_trusted_or_reached_gives_no_credentials() {
    let signer = Signer::new(Algorithm::ES384, "k");
    let token = signer.token(&json!({}));
    let no_key = "400 InvalidIdentityToken: Couldn't retrieve verification key";

    let other_name = Issuer::start("other.test", &[signer.jwk()]).await;
    let (server, _) = start(config(&other_name)).await;
    assert!(error(assume(&server, &token).await).starts_with(no_key));

    let issuer = Issuer::start("oidc.tokenscope.test", &[signer.jwk()]).await;
    let (server, _) = start(StsConfig {
        issuer_trust_pem: other_name.trust_pem.clone(),
        ..config(&issuer)
    })
    .await;
    assert!(error(assume(&server, &token).await).starts_with(no_key));
    assert_eq!(issuer.requests(), 0);

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect_to = [("oidc.tokenscope.test".to_owned(), silent.local_addr().unwrap())].into();
    let (server, _) = start(StsConfig {
        connect_to,
        ..config(&issuer)
    })
    .await;
    let started = std::time::Instant::now();
    let both = tokio::join!(assume(&server, &token), assume(&server, &token));
    assert!(error(both.0).starts_with(no_key) && error(both.1).starts_with(no_key));
    assert!((5..8).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let connect_to = [("oidc.tokenscope.test".to_owned(), closed)].into();
    let (server, _) = start(StsConfig {
        connect_to,
        ..config(&issuer)
    })
    .await;
    assert!(error(assume(&server, &token).await).starts_with("400 IDPCommunicationError: "));
}

#[tokio::test]
async fn it_speaks_tls_when_it_has_a_certificate() {
    use rustls_pki_types::pem::PemObject as _;
    let signer = Signer::new(Algorithm::ES384, "k");
    let issuer = Issuer::start("oidc.tokenscope.test", &[signer.jwk()]).await;
    let (trust_pem, serving) = certificate("localhost");
    let server = Server::start(config(&issuer), loopback(), Some(serving)).await.unwrap();
    assert!(server.url().starts_with("https://127.0.0.1:"));

    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(rustls_pki_types::CertificateDer::from_pem_slice(trust_pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.addr()).await.unwrap();
    let stream = TlsConnector::from(Arc::new(tls))
        .connect("localhost".try_into().unwrap(), stream)
        .await
        .unwrap();
    let now = Timestamp::now().as_second();
    let token = signer.token(&json!({"iat": now, "nbf": now, "exp": now + 600}));
    let (status, body) = exchange(stream, &request("localhost", "", &assume_form(ROLE, &token, ""))).await;
    assert_eq!(status, 200, "{body}");
    server.stop().await;
}

#[tokio::test]
async fn what_it_is_configured_with_is_checked_when_it_is_added() {
    let public = Server::start(StsConfig::default(), "0.0.0.0:0".parse().unwrap(), None).await;
    assert!(matches!(public, Err(StartError::NotLoopback(_))));
    let connect_to = [("a.test".to_owned(), "192.0.2.1:443".parse().unwrap())].into();
    let elsewhere = Server::start(
        StsConfig {
            connect_to,
            ..StsConfig::default()
        },
        loopback(),
        None,
    )
    .await;
    assert!(
        elsewhere
            .err()
            .unwrap()
            .to_string()
            .starts_with("ValidationError: connect_to: ")
    );

    let server = Server::start(StsConfig::default(), loopback(), None).await.unwrap();
    let good = role(ROLE, &json!("sts:AssumeRoleWithWebIdentity"));
    server.add_role(&good).unwrap();
    assert_eq!(
        server.add_role(&good),
        Err(StsConfigError::EntityAlreadyExists(ROLE.into()))
    );
    server.set_role(&good).unwrap();
    let bad = role(ROLE, &json!("s3:GetObject"));
    assert!(
        server
            .set_role(&bad)
            .unwrap_err()
            .to_string()
            .starts_with("MalformedPolicyDocument: ")
    );
    let provider = || Provider {
        url: ISSUER.into(),
        client_ids: Vec::new(),
        account: "111122223333".into(),
        partition: "aws".into(),
        context_provider: None,
    };
    server.add_provider(provider()).unwrap();
    assert!(matches!(
        server.add_provider(provider()),
        Err(StsConfigError::EntityAlreadyExists(_))
    ));
    let port = Provider {
        url: "https://a.test:6443".into(),
        ..provider()
    };
    assert_eq!(
        server.add_provider(port).unwrap_err().to_string(),
        "ValidationError: url: `https://a.test:6443` has a port"
    );
}
