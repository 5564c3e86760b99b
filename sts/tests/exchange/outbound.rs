//! Tokens for third parties: what they say, who verifies them, and what is refused.

use std::sync::atomic::Ordering;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use tokenscope_sts::{OutboundFederation, Permissions, Role, Server, StsConfig, User};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::signing::{Keys, signed};
use super::{START, element, error, start};

const ACCOUNT: &str = "111122223333";
const ANN: &str = "arn:aws:iam::111122223333:user/ann";
const ROLE: &str = "arn:aws:iam::111122223333:role/orders";
const ISSUER: &str = "https://0d2f7a5c-0000-4000-8000-000000000001.tokens.sts.global.api.aws";
const TAGS: &str = "&Tags.member.1.Key=job&Tags.member.1.Value=7";

fn may(statement: &Value) -> Permissions {
    allowed(ROLE, statement)
}

fn allowed(principal: &str, statement: &Value) -> Permissions {
    let mut statement = statement.clone();
    statement["Effect"] = json!("Allow");
    statement["Resource"] = json!("*");
    Permissions {
        principal: principal.into(),
        policies: vec![json!({"Version": "2012-10-17", "Statement": [statement]})],
        ..Permissions::default()
    }
}

fn config() -> StsConfig {
    StsConfig {
        users: vec![User {
            arn: ANN.into(),
            access_key_id: "AKIAANNANNANNANNANNA".into(),
            secret_access_key: "of-a-test-only".into(),
        }],
        permissions: vec![
            may(&json!({"Action": ["sts:GetWebIdentityToken", "sts:TagGetWebIdentityToken"]})),
            allowed(ANN, &json!({"Action": "sts:*"})),
        ],
        roles: vec![Role {
            arn: ROLE.into(),
            trust_policy: json!({"Statement": [{"Effect": "Allow", "Principal": {"AWS": ANN},
                "Action": ["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]}]}),
            max_session_duration: 3600,
        }],
        outbound_federation: vec![OutboundFederation {
            account: ACCOUNT.into(),
            issuer: ISSUER.into(),
        }],
        ..StsConfig::default()
    }
}

/// A session of the role, of an hour.
async fn session(server: &Server) -> Keys {
    let ann = Keys {
        id: "AKIAANNANNANNANNANNA".into(),
        secret: "of-a-test-only".into(),
        token: None,
    };
    let form = format!(
        "Action=AssumeRole&Version=2011-06-15&RoleArn={}&RoleSessionName=pod-1&SourceIdentity=shop.orders\
         &Tags.member.1.Key=team&Tags.member.1.Value=blue",
        ROLE.replace(':', "%3A").replace('/', "%2F")
    );
    let (status, body) = signed(server, &ann, START, &form).await;
    assert_eq!(status, 200, "{body}");
    Keys::of(&body)
}

async fn token(server: &Server, keys: &Keys, now: i64, more: &str) -> (u16, String) {
    let form = format!("Action=GetWebIdentityToken&Version=2011-06-15{more}");
    signed(server, keys, now, &form).await
}

async fn get(server: &Server, host: &str, path: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test]
async fn a_third_party_finds_the_keys_by_discovery_and_verifies_both_algorithms() {
    let (server, _) = start(config()).await;
    let keys = session(&server).await;
    let host = ISSUER.trim_start_matches("https://");
    let (_, discovery) = get(&server, host, "/.well-known/openid-configuration").await;
    assert_eq!(discovery["issuer"], ISSUER);
    assert_eq!(discovery["jwks_uri"], format!("{ISSUER}/.well-known/jwks.json"));
    let (_, jwks) = get(&server, host, "/.well-known/jwks.json").await;
    let jwks: JwkSet = serde_json::from_value(jwks).unwrap();

    for (name, algorithm) in [("RS256", Algorithm::RS256), ("ES384", Algorithm::ES384)] {
        let more = format!("&Audience.member.1=https%3A%2F%2Fapi.test&SigningAlgorithm={name}{TAGS}");
        let (status, body) = token(&server, &keys, START, &more).await;
        assert_eq!(
            (status, element(&body, "Expiration").as_str()),
            (200, "2027-01-15T08:05:00Z"),
            "{body}"
        );
        let jwt = element(&body, "WebIdentityToken");
        let key_id = jsonwebtoken::decode_header(&jwt).unwrap().kid.unwrap();
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&["https://api.test"]);
        validation.set_issuer(&[ISSUER]);
        // The server's clock is the test's.
        validation.validate_exp = false;
        let key = DecodingKey::from_jwk(jwks.find(&key_id).unwrap()).unwrap();
        let claims = jsonwebtoken::decode::<Value>(&jwt, &key, &validation).unwrap().claims;
        assert_eq!(
            (&claims["sub"], &claims["iat"], &claims["exp"]),
            (&json!(ROLE), &json!(START), &json!(START + 300))
        );
        assert_eq!(
            claims["https://sts.amazonaws.com/"],
            json!({"aws_account": ACCOUNT, "principal_id": ROLE, "principal_tags": {"team": "blue"},
                "request_tags": {"job": "7"}, "source_identity": "shop.orders", "source_region": "eu-central-1"})
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn the_definite_refusals_have_the_codes_of_the_service_model() {
    let (server, clock) = start(config()).await;
    let keys = session(&server).await;
    let plain = "&Audience.member.1=a&SigningAlgorithm=ES384";
    let longest = format!("{plain}&DurationSeconds=3600");
    assert_eq!(token(&server, &keys, START, &longest).await.0, 200);
    clock.store(START + 1, Ordering::SeqCst);
    let refused = error(token(&server, &keys, START + 1, &longest).await);
    assert!(
        refused.starts_with("403 SessionDurationEscalationException: "),
        "{refused}"
    );
    assert_eq!(token(&server, &keys, START + 1, plain).await.0, 200);

    let many: Vec<_> = (1..=50)
        .map(|n| format!("&Tags.member.{n}.Key=k{n}&Tags.member.{n}.Value={}", "v".repeat(256)))
        .collect();
    let refused = error(token(&server, &keys, START, &format!("{plain}{}", many.concat())).await);
    assert!(
        refused.starts_with("400 JWTPayloadSizeExceededException: "),
        "{refused}"
    );

    let disabled = StsConfig {
        outbound_federation: Vec::new(),
        ..config()
    };
    let (server, _) = start(disabled).await;
    let keys = session(&server).await;
    let refused = error(token(&server, &keys, START, plain).await);
    assert!(
        refused.starts_with("403 OutboundWebIdentityFederationDisabledException: "),
        "{refused}"
    );
}

#[tokio::test]
async fn parameters_out_of_their_bounds_are_refused() {
    let (server, _) = start(config()).await;
    let keys = session(&server).await;
    let eleven: Vec<_> = (1..=11).map(|n| format!("&Audience.member.{n}=a{n}")).collect();
    for more in [
        "&SigningAlgorithm=RS256".to_owned(),
        "&Audience.member.1=a".to_owned(),
        "&Audience.member.1=a&SigningAlgorithm=ES256".to_owned(),
        "&Audience.member.1=a&SigningAlgorithm=RS256&DurationSeconds=59".to_owned(),
        "&Audience.member.1=a&SigningAlgorithm=RS256&DurationSeconds=3601".to_owned(),
        "&Audience.member.1=a&SigningAlgorithm=RS256&SubjectMode=Other".to_owned(),
        "&Audience.member.1=a&SigningAlgorithm=RS256&SubjectMode=OriginIdentity".to_owned(),
        "&Audience.member.1=a&SigningAlgorithm=RS256&Scope=read".to_owned(),
        format!("{}&SigningAlgorithm=RS256", eleven.concat()),
    ] {
        let refused = error(token(&server, &keys, START, &more).await);
        assert!(refused.starts_with("400 ValidationError: "), "{more}: {refused}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_roles_policy_decides_by_audience_algorithm_and_lifetime() {
    let (server, _) = start(config()).await;
    let keys = session(&server).await;
    let condition = json!({"Action": "sts:GetWebIdentityToken", "Condition": {
        "ForAllValues:StringEquals": {"sts:IdentityTokenAudience": ["https://api.test"]},
        "StringEquals": {"sts:SigningAlgorithm": "ES384"},
        "NumericLessThanEquals": {"sts:DurationSeconds": "600"}}});
    server.set_permissions(may(&condition)).unwrap();
    let good = "&Audience.member.1=https%3A%2F%2Fapi.test&SigningAlgorithm=ES384&DurationSeconds=600";
    assert_eq!(token(&server, &keys, START, good).await.0, 200);
    for (more, action) in [
        (good.replace("api.test", "other.test"), "sts:GetWebIdentityToken"),
        (format!("{good}&Audience.member.2=b"), "sts:GetWebIdentityToken"),
        (good.replace("ES384", "RS256"), "sts:GetWebIdentityToken"),
        (good.replace("=600", "=601"), "sts:GetWebIdentityToken"),
        (format!("{good}{TAGS}"), "sts:TagGetWebIdentityToken"),
    ] {
        let expected = format!(
            "403 AccessDenied: User: arn:aws:sts::111122223333:assumed-role/orders/pod-1 is not authorized to perform: {action} \
             on resource: *"
        );
        assert_eq!(error(token(&server, &keys, START, &more).await), expected, "{more}");
    }
    server.stop().await;
}

#[tokio::test]
async fn neither_the_global_endpoint_nor_a_role_takes_part() {
    let global = StsConfig {
        region: Some("aws-global".into()),
        ..config()
    };
    let (server, _) = start(config()).await;
    let keys = session(&server).await;
    let (_, body) = token(
        &server,
        &keys,
        START,
        "&Audience.member.1=sts.amazonaws.com&SigningAlgorithm=RS256",
    )
    .await;
    let form = super::assume_form(ROLE, &element(&body, "WebIdentityToken"), "");
    let refused = error(super::post(&server, "", &form).await);
    assert!(
        refused.starts_with("400 InvalidIdentityToken: Tokens of GetWebIdentityToken"),
        "{refused}"
    );

    let (server, _) = start(global).await;
    let ann = Keys {
        id: "AKIAANNANNANNANNANNA".into(),
        secret: "of-a-test-only".into(),
        token: None,
    };
    let form = "Action=GetWebIdentityToken&Version=2011-06-15&Audience.member.1=a&SigningAlgorithm=RS256";
    let refused = error(super::signing::signed_for(&server, &ann, START, form, "us-east-1").await);
    assert_eq!(
        refused,
        "400 InvalidAction: GetWebIdentityToken is not available on the STS Global endpoint"
    );
}
