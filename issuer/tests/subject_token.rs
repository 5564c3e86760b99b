//! Attacks on the reader of subject tokens: each is refused, and for the reason that it should be.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod fixtures;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fixtures::{CLUSTER, Cluster, EXCHANGE, NOW, claims, forged, with_header};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokenscope_core::Algorithm;
use tokenscope_issuer::keys::{self, VerificationKeys};
use tokenscope_issuer::subject_token::InvalidSubjectToken::{self, *};

fn refused(cluster: &Cluster, changes: &Value) -> InvalidSubjectToken {
    cluster.verify(&cluster.token(&claims(changes))).unwrap_err()
}

#[test]
fn a_pods_projected_token_proves_the_pod() {
    for algorithm in Algorithm::ALL {
        let cluster = Cluster::new(algorithm);
        let caller = cluster.verify(&cluster.token(&claims(&json!({})))).unwrap();
        assert_eq!((&*caller.namespace, &*caller.service_account), ("shop", "orders"));
        assert_eq!(
            (&*caller.pod, &*caller.pod_uid),
            ("orders-1", "5f2c9a10-2c9f-4f57-8d1c-63c4c2f8f8d1")
        );
        assert_eq!(caller.expires_at, NOW + 3600);
    }
}

#[test]
fn a_token_without_a_signature_is_refused() {
    let cluster = Cluster::new(Algorithm::ES256);
    for alg in ["none", "None", "nOnE", ""] {
        let header = json!({"alg": alg, "kid": cluster.key.kid()});
        let token = forged(&header, &claims(&json!({})), |_| b"x".to_vec());
        assert_eq!(cluster.verify(&token), Err(Algorithm_()), "{alg}");
        let bare = forged(&header, &claims(&json!({})), |_| Vec::new());
        assert_eq!(cluster.verify(&bare), Err(Algorithm_()));
    }
    let header = json!({"alg": "ES256", "kid": cluster.key.kid()});
    assert_eq!(
        cluster.verify(&forged(&header, &claims(&json!({})), |_| Vec::new())),
        Err(Form)
    );
}

/// `core::Algorithm` has the name here.
#[expect(non_snake_case, reason = "it stands for a variant")]
fn Algorithm_() -> InvalidSubjectToken {
    InvalidSubjectToken::Algorithm
}

#[test]
fn the_public_key_is_no_shared_secret() {
    let cluster = Cluster::new(Algorithm::RS256);
    let published = keys::document([cluster.key.public()]);
    let n: Value = serde_json::from_str(&published).unwrap();
    for secret in [published.as_bytes(), n["keys"][0]["n"].as_str().unwrap().as_bytes()] {
        let header = Header {
            kid: Some(cluster.key.kid().to_owned()),
            ..Header::new(jsonwebtoken::Algorithm::HS256)
        };
        let token = jsonwebtoken::encode(&header, &claims(&json!({})), &EncodingKey::from_secret(secret)).unwrap();
        assert_eq!(cluster.verify(&token), Err(Algorithm_()));
    }
}

#[test]
fn a_key_verifies_its_own_algorithm_and_no_other() {
    let cluster = Cluster::new(Algorithm::RS256);
    let token = cluster.token(&claims(&json!({})));
    for alg in ["ES256", "ES384", "ES512"] {
        let header = json!({"alg": alg, "kid": cluster.key.kid()});
        assert_eq!(cluster.verify(&with_header(&token, &header)), Err(Signature), "{alg}");
    }
    for alg in ["PS256", "RS384", "RS512", "EdDSA", "rs256"] {
        let header = json!({"alg": alg, "kid": cluster.key.kid()});
        assert_eq!(
            cluster.verify(&with_header(&token, &header)),
            Err(Algorithm_()),
            "{alg}"
        );
    }
}

#[test]
fn a_key_that_the_cluster_does_not_publish_any_more_verifies_nothing() {
    let (retired, cluster) = (Cluster::new(Algorithm::ES256), Cluster::new(Algorithm::ES256));
    assert_eq!(cluster.verify(&retired.token(&claims(&json!({})))), Err(UnknownKey));
    // The attacker's key under the name of the cluster's.
    let header = json!({"alg": "ES256", "kid": cluster.key.kid()});
    let token = with_header(&retired.token(&claims(&json!({}))), &header);
    assert_eq!(cluster.verify(&token), Err(Signature));
}

#[test]
fn a_kid_is_a_name_and_never_a_path_or_a_query() {
    let cluster = Cluster::new(Algorithm::ES256);
    let token = cluster.token(&claims(&json!({})));
    for kid in [
        "../../etc/passwd",
        "/dev/null",
        "https://evil.example/keys",
        "' OR 1=1 --",
        "\u{0}",
        "💥",
    ] {
        let header = json!({"alg": "ES256", "kid": kid});
        assert_eq!(cluster.verify(&with_header(&token, &header)), Err(UnknownKey), "{kid}");
    }
    for kid in [json!(""), json!(null)] {
        let header = json!({"alg": "ES256", "kid": kid});
        assert!(cluster.verify(&with_header(&token, &header)).is_err());
    }
    assert_eq!(
        cluster.verify(&with_header(&token, &json!({"alg": "ES256"}))),
        Err(NoKid)
    );
}

#[test]
fn nothing_in_the_header_brings_a_key_or_demands_an_extension() {
    let (attacker, cluster) = (Cluster::new(Algorithm::ES256), Cluster::new(Algorithm::ES256));
    let jwk: Value = serde_json::to_value(attacker.key.public()).unwrap();
    for (member, value) in [
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/chain")),
        ("jwk", jwk),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AAAA")),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
    ] {
        let mut header = json!({"alg": "ES256", "kid": cluster.key.kid()});
        header[member] = value;
        let token = forged(&header, &claims(&json!({})), |_| vec![0; 64]);
        assert_eq!(cluster.verify(&token), Err(InvalidSubjectToken::Header), "{member}");
    }
    let header = json!({"alg": "ES256", "kid": cluster.key.kid(), "typ": "at+jwt"});
    assert_eq!(
        cluster.verify(&with_header(&cluster.token(&claims(&json!({}))), &header)),
        Err(InvalidSubjectToken::Header)
    );
}

#[test]
fn a_token_of_another_cluster_is_refused_by_its_issuer_and_by_its_key() {
    let (other, cluster) = (Cluster::new(Algorithm::ES256), Cluster::new(Algorithm::ES256));
    for issuer in [
        "https://other.example",
        "https://kubernetes.default.svc.cluster.local/",
        "https://KUBERNETES.default.svc.cluster.local",
        "https://kubernetes.default.svc.cluster.local:443",
        "",
    ] {
        assert_eq!(refused(&cluster, &json!({ "iss": issuer })), Issuer, "{issuer}");
    }
    let same_issuer = other.token(&claims(&json!({"iss": CLUSTER})));
    assert_eq!(cluster.verify(&same_issuer), Err(UnknownKey));
}

#[test]
fn only_a_token_for_this_exchange_alone_is_taken() {
    let cluster = Cluster::new(Algorithm::ES256);
    for audience in [
        json!(["sts.amazonaws.com"]),
        json!([EXCHANGE, "sts.amazonaws.com"]),
        json!(["sts.amazonaws.com", EXCHANGE]),
        json!([EXCHANGE, EXCHANGE]),
        json!([]),
        json!(""),
        json!(format!("{EXCHANGE} ")),
        json!(EXCHANGE.to_uppercase()),
    ] {
        assert_eq!(refused(&cluster, &json!({ "aud": audience })), Audience, "{audience}");
    }
    for audience in [json!(7), json!({"a": EXCHANGE}), json!([[EXCHANGE]]), json!([null])] {
        assert_eq!(
            refused(&cluster, &json!({ "aud": audience })),
            InvalidSubjectToken::Claims,
            "{audience}"
        );
    }
    assert!(
        cluster
            .verify(&cluster.token(&claims(&json!({ "aud": EXCHANGE }))))
            .is_ok()
    );
}

#[test]
fn a_token_is_taken_in_its_time_alone() {
    let cluster = Cluster::new(Algorithm::ES256);
    for (changes, reason) in [
        (json!({"exp": NOW - 10}), Expired),
        (json!({"exp": i64::MIN}), Expired),
        (json!({"nbf": NOW + 11}), NotYet),
        (json!({"iat": NOW + 11}), NotYet),
        (json!({"iat": i64::MAX, "exp": i64::MAX}), NotYet),
        (json!({"exp": NOW + 1, "iat": NOW + 5}), InvalidSubjectToken::Claims),
        (json!({"exp": null}), InvalidSubjectToken::Claims),
        (json!({"iat": null}), InvalidSubjectToken::Claims),
        (json!({"nbf": null}), InvalidSubjectToken::Claims),
        (json!({"exp": 1.9e9}), InvalidSubjectToken::Claims),
        (json!({"exp": "1900000000"}), InvalidSubjectToken::Claims),
    ] {
        assert_eq!(refused(&cluster, &changes), reason, "{changes}");
    }
    // Only whole numbers are times, as AWS has it too, and none is rounded or wraps around.
    for exp in ["19e8", "1e400", "-0", "9223372036854775808"] {
        let text = claims(&json!({})).to_string();
        let text = text.replace(&format!(r#""exp":{}"#, NOW + 3600), &format!(r#""exp":{exp}"#));
        let refused = cluster.verify(&cluster.key.token(&text).unwrap());
        assert!(matches!(refused, Err(InvalidSubjectToken::Claims | Form)), "{exp}");
    }
}

#[test]
fn a_token_that_is_bound_to_no_pod_is_refused() {
    let cluster = Cluster::new(Algorithm::ES256);
    let account = json!({"name": "orders", "uid": "1c2d"});
    let bound = |kubernetes: Value| refused(&cluster, &json!({ "kubernetes.io": kubernetes }));
    assert_eq!(bound(json!({"namespace": "shop", "serviceaccount": account})), NoPod);
    assert_eq!(
        bound(json!({"namespace": "shop", "serviceaccount": account, "secret": {"name": "s", "uid": "2"}})),
        NoPod
    );
    assert_eq!(
        bound(json!({"namespace": "shop", "serviceaccount": account, "node": {"name": "n", "uid": "2"}})),
        NoPod
    );
    assert_eq!(
        refused(&cluster, &json!({"kubernetes.io": null})),
        InvalidSubjectToken::Claims
    );
    for pod in [
        json!({"name": "a"}),
        json!({"uid": "a"}),
        json!({"name": "", "uid": ""}),
        json!({"name": "a/b", "uid": "1"}),
    ] {
        let refused = bound(json!({"namespace": "shop", "serviceaccount": account, "pod": pod}));
        assert_eq!(refused, InvalidSubjectToken::Claims, "{pod}");
    }
}

#[test]
fn a_subject_that_is_not_the_service_account_beside_it_is_refused() {
    let cluster = Cluster::new(Algorithm::ES256);
    for sub in [
        "system:serviceaccount:shop:admin",
        "system:serviceaccount:shop:orders ",
        "admin",
        "",
    ] {
        assert_eq!(
            refused(&cluster, &json!({ "sub": sub })),
            InvalidSubjectToken::Claims,
            "{sub}"
        );
    }
}

#[test]
fn claims_that_are_there_twice_are_refused() {
    let cluster = Cluster::new(Algorithm::ES256);
    let text = claims(&json!({})).to_string();
    for twice in [
        r#"{"aud":"other","#.to_owned() + &text[1..],
        format!(r#"{},"iss":"https://evil.example"}}"#, &text[..text.len() - 1]),
        text.replace(
            r#""namespace":"shop""#,
            r#""namespace":"shop","namespace":"kube-system""#,
        ),
        r#"{"\u0061ud":"other","#.to_owned() + &text[1..],
    ] {
        let token = cluster.key.token(&twice).unwrap();
        assert_eq!(cluster.verify(&token), Err(InvalidSubjectToken::Claims), "{twice}");
    }
    let header = format!(r#"{{"alg":"ES256","alg":"none","kid":"{}"}}"#, cluster.key.kid());
    let token = cluster.token(&claims(&json!({})));
    let (_, rest) = token.split_once('.').unwrap();
    let token = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
    assert_eq!(cluster.verify(&token), Err(InvalidSubjectToken::Header));
}

#[test]
fn a_list_of_values_is_no_object_even_with_the_clusters_signature() {
    let cluster = Cluster::new(Algorithm::ES256);
    let key = &cluster.key;
    let sign = |signed: &[u8]| key.sign(signed).unwrap();
    let header = json!({"alg": "ES256", "kid": key.kid()});
    assert!(cluster.verify(&forged(&header, &claims(&json!({})), sign)).is_ok());
    let list = json!(["ES256", key.kid(), "JWT"]);
    let refused = cluster.verify(&forged(&list, &claims(&json!({})), sign));
    assert_eq!(refused, Err(InvalidSubjectToken::Header));
    let account = json!({"name": "orders", "uid": "1"});
    let pod = json!({"name": "orders-1", "uid": "2"});
    let sub = "system:serviceaccount:shop:orders";
    for payload in [
        json!([CLUSTER, sub, [EXCHANGE], NOW + 3600, NOW, NOW, {"namespace": "shop", "serviceaccount": account, "pod": pod}]),
        claims(&json!({"kubernetes.io": ["shop", account, pod]})),
        claims(&json!({"kubernetes.io": {"namespace": "shop", "serviceaccount": ["orders", "1"], "pod": pod}})),
        claims(&json!({"kubernetes.io": {"namespace": "shop", "serviceaccount": account, "pod": ["orders-1", "2"]}})),
    ] {
        let refused = cluster.verify(&forged(&header, &payload, sign));
        assert_eq!(refused, Err(InvalidSubjectToken::Claims), "{payload}");
    }
}

#[test]
fn malformed_and_oversized_tokens_are_refused_before_any_signature() {
    let cluster = Cluster::new(Algorithm::ES256);
    let token = cluster.token(&claims(&json!({})));
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let deep = URL_SAFE_NO_PAD.encode(format!("{}{}", "[".repeat(4000), "]".repeat(4000)));
    for bad in [
        String::new(),
        ".".into(),
        "..".into(),
        "....".into(),
        "nonsense".into(),
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{token}.{signature}"),
        format!("{token}="),
        format!("{header}==.{payload}.{signature}"),
        format!("{header}.{payload}\r\n.{signature}"),
        format!("{token}\n"),
        format!(" {token}"),
        format!("{header}.{payload}.{}+/", &signature[2..]),
        format!("{header}.{deep}.{signature}"),
        format!("{deep}.{payload}.{signature}"),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
    ] {
        let refused = cluster.verify(&bad).unwrap_err();
        assert!(
            matches!(
                refused,
                Form | InvalidSubjectToken::Header | InvalidSubjectToken::Claims | TooLong
            ),
            "{bad:?}: {refused:?}"
        );
    }
    // The last character of 64 bytes has four bits to spare, and they are zero: a token has one spelling.
    let last = signature.bytes().last().unwrap();
    let spare = format!("{}{}", &token[..token.len() - 1], char::from(last + 1));
    assert_eq!(cluster.verify(&spare), Err(Form), "{signature}");
    assert_eq!(cluster.verify(&"a".repeat(200_000)), Err(TooLong));
    let large = cluster.token(&claims(&json!({"filler": "x".repeat(8 << 10)})));
    assert_eq!(cluster.verify(&large), Err(TooLong));
}

#[test]
fn a_changed_bit_anywhere_breaks_the_signature() {
    let cluster = Cluster::new(Algorithm::ES256);
    let token = cluster.token(&claims(&json!({})));
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(changed));
        assert_eq!(cluster.verify(&token), Err(Signature), "{at}");
    }
    // A signature in the other encoding of ECDSA, and one of zeros (CVE-2022-21449).
    for forged in [vec![0; 64], vec![0x30, 6, 2, 1, 0, 2, 1, 0]] {
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(forged));
        assert_eq!(cluster.verify(&token), Err(Signature));
    }
}

#[test]
fn an_empty_key_set_verifies_nothing() {
    let cluster = Cluster::new(Algorithm::ES256);
    let token = cluster.token(&claims(&json!({})));
    let empty = Cluster {
        keys: VerificationKeys::default(),
        ..cluster
    };
    assert_eq!(empty.verify(&token), Err(UnknownKey));
}
