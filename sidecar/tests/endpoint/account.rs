//! An account of AWS: the strict stand-in for STS, which verifies tokens of an issuer of the tests over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokenscope_sts::{OutboundFederation, Permissions, Provider, Role, Server, StsCertificate, StsConfig, TimeSource};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// The issuer of the pod's tokens.
pub(crate) const ISSUER: &str = "https://oidc.tokenscope.test/cluster";
const HOST: &str = "oidc.tokenscope.test";
/// Their subject.
pub(crate) const SUBJECT: &str = "system:serviceaccount:shop:orders";

/// The role that is taken with a token.
pub(crate) const NEAR: &str = "arn:aws:iam::111122223333:role/shop/near";
/// The role of another account that is taken after it, with an external id.
pub(crate) const FAR: &str = "arn:aws:iam::444455556666:role/far";
/// Its external id.
pub(crate) const EXTERNAL_ID: &str = "e-2";
/// The issuer of the first account's tokens for third parties.
pub(crate) const FEDERATION: &str = "https://0d2f7a5c-0000-4000-8000-000000000001.tokens.sts.global.api.aws";

/// The stand-in and the key that signs the pod's tokens.
pub(crate) struct Account {
    pub(crate) sts: Server,
    key: EncodingKey,
}

impl Account {
    /// Starts one in plain HTTP.
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Starts one that shows this certificate.
    pub(crate) async fn start_with(certificate: Option<StsCertificate>) -> Self {
        Self::start_as(certificate, true).await
    }

    /// Starts one in plain HTTP that signs no tokens for third parties.
    pub(crate) async fn without_federation() -> Self {
        Self::start_as(None, false).await
    }

    /// Starts one in plain HTTP that goes by this clock.
    pub(crate) async fn by_clock(clock: TimeSource) -> Self {
        Self::start_with_all(None, true, clock).await
    }

    async fn start_as(certificate: Option<StsCertificate>, signs: bool) -> Self {
        Self::start_with_all(certificate, signs, tokenscope_sts::system_clock()).await
    }

    async fn start_with_all(certificate: Option<StsCertificate>, signs: bool, clock: TimeSource) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some("k1".to_owned());
        let (authority, address) = issuer(&json!({ "keys": [jwk] })).await;
        let config = StsConfig {
            providers: vec![Provider {
                url: ISSUER.to_owned(),
                client_ids: vec!["sts.amazonaws.com".to_owned()],
                account: "111122223333".to_owned(),
                partition: "aws".to_owned(),
                context_provider: None,
            }],
            roles: vec![near(true), far()],
            permissions: vec![may_have_tokens(NEAR, AUDIENCE), may_have_tokens(FAR, AUDIENCE)],
            outbound_federation: federation(signs),
            issuer_trust_pem: authority,
            connect_to: [(HOST.to_owned(), address)].into(),
            ..StsConfig::default()
        };
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let sts = Server::start_with_clock(config, loopback, certificate, clock)
            .await
            .unwrap();
        Self { sts, key }
    }

    /// Whether the role trusts the pod, from now on.
    pub(crate) fn trust_pod(&self, is_trusted: bool) {
        self.sts.set_role(&near(is_trusted)).unwrap();
    }

    /// From now on the role lets tokens with session tags in, whatever the tags are.
    pub(crate) fn trust_tags(&self) {
        let mut role = near(true);
        role.trust_policy["Statement"][0]["Action"] = json!(["sts:AssumeRoleWithWebIdentity", "sts:TagSession"]);
        self.sts.set_role(&role).unwrap();
    }

    /// A token of the pod that ends in an hour.
    pub(crate) fn token(&self) -> String {
        self.token_for(3600)
    }

    /// A token of the pod that ends in so many seconds.
    pub(crate) fn token_for(&self, seconds: i64) -> String {
        self.token_with(seconds, &json!({}))
    }

    /// A token of the pod with these tags, all of which are passed on.
    pub(crate) fn token_with_tags(&self, tags: &[(&str, &str)]) -> String {
        let keys: Vec<&str> = tags.iter().map(|(key, _)| *key).collect();
        let tags: Value = tags.iter().map(|(key, value)| (*key, json!([value]))).collect();
        let claim = json!({"principal_tags": tags, "transitive_tag_keys": keys});
        self.token_with(3600, &json!({ "https://aws.amazon.com/tags": claim }))
    }

    fn token_with(&self, seconds: i64, more: &Value) -> String {
        let now = Timestamp::now().as_second();
        let mut claims =
            json!({"iss": ISSUER, "sub": SUBJECT, "aud": "sts.amazonaws.com", "iat": now - 1, "exp": now + seconds});
        for (name, claim) in more.as_object().unwrap() {
            claims[name] = claim.clone();
        }
        let header = Header {
            kid: Some("k1".to_owned()),
            ..Header::new(Algorithm::ES256)
        };
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }
}

/// The audience that both roles may have tokens for.
const AUDIENCE: &str = "https://api.anthropic.com";

fn federation(signs: bool) -> Vec<OutboundFederation> {
    let of = |account: &str, issuer: String| OutboundFederation {
        account: account.to_owned(),
        issuer,
    };
    let far = FEDERATION.replace("0001", "0002");
    let both = [of("111122223333", FEDERATION.to_owned()), of("444455556666", far)];
    both.into_iter().filter(|_| signs).collect()
}

/// What a role may: take the role of the other account, and have tokens for one audience with the conditions that the status of a
/// policy has.
pub(crate) fn may_have_tokens(role: &str, audience: &str) -> Permissions {
    Permissions {
        principal: role.to_owned(),
        policies: vec![json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": FAR},
            {"Effect": "Allow", "Action": "sts:GetWebIdentityToken", "Resource": "*", "Condition": {
                "ForAllValues:StringEquals": {"sts:IdentityTokenAudience": audience},
                "StringEquals": {"sts:SigningAlgorithm": "ES384"},
                "NumericLessThanEquals": {"sts:DurationSeconds": "3600"}}}]})],
        ..Permissions::default()
    }
}

fn near(is_trusted: bool) -> Role {
    let subject = if is_trusted {
        SUBJECT
    } else {
        "system:serviceaccount:shop:other"
    };
    role(
        NEAR,
        &json!({"Federated": format!("arn:aws:iam::111122223333:oidc-provider/{HOST}/cluster")}),
        "sts:AssumeRoleWithWebIdentity",
        &json!({"StringEquals": {
            format!("{HOST}/cluster:aud"): "sts.amazonaws.com", format!("{HOST}/cluster:sub"): subject}}),
    )
}

fn far() -> Role {
    let condition = json!({"StringEquals": {"sts:ExternalId": EXTERNAL_ID}});
    role(FAR, &json!({ "AWS": NEAR }), "sts:AssumeRole", &condition)
}

fn role(arn: &str, principal: &Value, action: &str, condition: &Value) -> Role {
    Role {
        arn: arn.to_owned(),
        trust_policy: json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": principal, "Action": action, "Condition": condition}]}),
        max_session_duration: 7200,
    }
}

/// A private authority and a certificate of it for `name`.
pub(crate) fn certificate(name: &str) -> (String, StsCertificate) {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &authority).unwrap();
    let certificate = StsCertificate {
        certificate_pem: leaf.pem(),
        key_pem: key.serialize_pem(),
    };
    (authority.pem(), certificate)
}

/// An issuer with these keys; gives the authority of its certificate, PEM, and its address.
async fn issuer(keys: &Value) -> (String, SocketAddr) {
    let (authority, serving) = certificate(HOST);
    let chain = vec![CertificateDer::from_pem_slice(serving.certificate_pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(serving.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let discovery = json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/keys")}).to_string();
    let keys = keys.to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let is_keys = head.starts_with(b"GET /cluster/keys ");
            let body = if is_keys { &keys } else { &discovery };
            let answer = format!("HTTP/1.1 200 x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (authority, address)
}
