//! What an agent or an issuer sends, at random: no bytes make a reader panic, take long, or give more than was sent.
//!
//! Each target runs for 5 seconds, or for a minute where `TOKENSCOPE_NIGHTLY=1`. Inputs that once mattered are in `tests/corpus`, and
//! every run begins with them and with changes of them. The seed is another one each time, and `TOKENSCOPE_FUZZ_SEED` repeats one.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    clippy::print_stdout,
    reason = "this is test code, also outside the tests themselves"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;
use prost::Message;
use tokenscope_fixtures::ProcessorTime;
use tokenscope_fixtures::fuzz::{self, changed, fuzz_bytes};
use tokenscope_sidecar::bundle::JwtBundles;
use tokenscope_sidecar::selection::{Identity, SvidSelection};
use tokenscope_sidecar::token::Token;
use tokenscope_sidecar::workload_api::{JwtBundlesResponse, JwtSvid, JwtSvidResponse, X509Svid, X509SvidResponse};
use tokenscope_sidecar::x509::{certificates_to_pem, key_to_pem, pem_valid_until, valid_until};

fn corpus(name: &str) -> Vec<Vec<u8>> {
    fuzz::corpus(format!("{}/tests/corpus/{name}", env!("CARGO_MANIFEST_DIR")))
}

fn any_spiffe_id() -> impl Strategy<Value = String> {
    prop_oneof![
        select(&["", "spiffe://example.org/app", "spiffe://other.org/a/b"][..]).prop_map(str::to_owned),
        any::<String>()
    ]
}

fn any_jwt() -> impl Strategy<Value = Vec<u8>> {
    changed(select(corpus("jwt")))
}

fn any_der() -> impl Strategy<Value = Vec<u8>> {
    changed(select(corpus("der")))
}

/// The bytes of any of the three messages, as an agent might encode them, and changes of them.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let jwt = (any_spiffe_id(), any_jwt(), any::<String>()).prop_map(move |(spiffe_id, svid, hint)| JwtSvid {
        spiffe_id,
        svid: text(svid),
        hint,
    });
    let x509 = (any_spiffe_id(), any_der(), any_der(), any_der(), any::<String>()).prop_map(
        |(spiffe_id, x509_svid, x509_svid_key, bundle, hint)| X509Svid {
            spiffe_id,
            x509_svid,
            x509_svid_key,
            bundle,
            hint,
        },
    );
    let keys = changed(
        select(&[r#"{"keys":[{"kid":"k1","kty":"EC"},{"kid":1},null]}"#, "[]"][..])
            .prop_map(|keys| keys.as_bytes().to_vec()),
    );
    let whole = prop_oneof![
        vec(jwt, 0..4).prop_map(|svids| JwtSvidResponse { svids }.encode_to_vec()),
        vec(x509, 0..4).prop_map(|svids| X509SvidResponse { svids }.encode_to_vec()),
        prop::collection::btree_map(any_spiffe_id(), keys, 0..4)
            .prop_map(|bundles| JwtBundlesResponse { bundles }.encode_to_vec()),
    ];
    let whole = whole.boxed();
    prop_oneof![2 => whole.clone(), 5 => changed(whole), 2 => changed(select(corpus("messages"))), 1 => vec(any::<u8>(), 0..512)]
}

/// Every choice is of what there is, and an identity.
fn choose<T: Identity>(identities: &[T]) {
    let in_trust_domain = SvidSelection {
        trust_domain: "example.org".parse().ok(),
        ..SvidSelection::default()
    };
    if let Ok(chosen) = in_trust_domain.choose(identities) {
        assert!(chosen.spiffe_id().starts_with("spiffe://example.org/"));
    }
    if let Ok(chosen) = SvidSelection::default().choose(identities) {
        assert!(!chosen.spiffe_id().is_empty());
    }
}

/// A token has nothing that its text has not.
fn check_token(text: &str) -> TestCaseResult {
    match Token::parse(text) {
        Ok(token) => {
            prop_assert_eq!(token.secret(), text);
            prop_assert!(text.len() <= 20_000 && text.split('.').count() == 3);
            prop_assert!(!token.subject.is_empty() && !token.audiences.is_empty());
            prop_assert!(token.subject.starts_with(token.trust_domain_id()));
            let shown = format!("{token:?}");
            let signature = text.rsplit('.').next().unwrap();
            prop_assert!(signature.len() < 8 || !shown.contains(signature), "{shown}");
        }
        Err(error) => prop_assert!(error.to_string().len() < 256),
    }
    Ok(())
}

/// PEM holds exactly the bytes of the DER.
fn check_der(der: &[u8]) -> TestCaseResult {
    let bytes_of = |pem: &str| {
        let lines = pem
            .lines()
            .map(|line| if line.starts_with("-----BEGIN") { "\n" } else { line });
        let lines = lines.filter(|line| !line.starts_with("-----END")).collect::<String>();
        let blocks = lines.split('\n').skip(1).map(|block| STANDARD.decode(block).unwrap());
        blocks.collect::<Vec<_>>().concat()
    };
    let key = key_to_pem(der);
    let certificates = certificates_to_pem(der);
    for pem in [&key, &certificates].into_iter().flatten() {
        prop_assert_eq!(bytes_of(pem), der);
        // 2 bytes a block are the shortest certificate; 54 bytes are around it.
        prop_assert!(pem.len() <= 40 * der.len() + 64, "{} bytes of {}", pem.len(), der.len());
    }
    let until = valid_until(der);
    if let Some(certificates) = certificates {
        prop_assert_eq!(pem_valid_until(&certificates), until);
    }
    prop_assert!(until.is_none_or(|until| (0..=9999).contains(&until.to_zoned(jiff::tz::TimeZone::UTC).year())));
    let _ = std::str::from_utf8(der).map(pem_valid_until);
    Ok(())
}

fn check_bundles(bundles: &BTreeMap<String, Vec<u8>>) -> TestCaseResult {
    let Ok(read) = JwtBundles::read(bundles) else {
        return Ok(());
    };
    prop_assert!(!bundles.is_empty());
    let file: BTreeMap<String, serde_json::Value> = serde_json::from_slice(read.file()).unwrap();
    prop_assert!(file.keys().eq(bundles.keys()));
    prop_assert!(file.values().all(|keys| keys["keys"].is_array()));
    // JSON escapes a byte with six.
    let sent: usize = bundles.iter().map(|(id, keys)| id.len() + keys.len() + 8).sum();
    prop_assert!(
        read.file().len() <= 6 * sent + 2,
        "{} bytes of {sent}",
        read.file().len()
    );
    Ok(())
}

#[test]
fn no_message_of_an_agent_makes_its_readers_panic() {
    fuzz_bytes(&corpus("messages"), &any_message(), |bytes| {
        if let Ok(message) = JwtSvidResponse::decode(bytes) {
            prop_assert!(message.encoded_len() <= 2 * bytes.len());
            choose(&message.svids);
            message.svids.iter().try_for_each(|svid| check_token(&svid.svid))?;
        }
        if let Ok(message) = X509SvidResponse::decode(bytes) {
            prop_assert!(message.encoded_len() <= 2 * bytes.len());
            choose(&message.svids);
            for svid in &message.svids {
                [&svid.x509_svid, &svid.x509_svid_key, &svid.bundle]
                    .into_iter()
                    .try_for_each(|der| check_der(der))?;
                let shown = format!("{svid:?}");
                prop_assert!(shown.len() <= 10 * svid.spiffe_id.len() + 32, "{shown}");
            }
        }
        JwtBundlesResponse::decode(bytes).map_or(Ok(()), |message| check_bundles(&message.bundles))
    });
}

#[test]
fn no_text_of_a_token_makes_its_reader_panic() {
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"alg\":\"ES256\"",
        "\"kid\":\"k\"",
        "\"sub\":\"://\"",
        "\"sub\":\"spiffe://a/b\"",
        "\"iss\":\"i\"",
        "\"aud\":\"x\"",
        "\"aud\":[1,\"x\"]",
        "\"exp\":1",
        "\"exp\":-1e18",
        "\"exp\":1e400",
        "\"iat\":253402300800",
        "\"iat\":null",
        "\u{0}",
        "ä",
    ];
    let json = move || vec(select(pieces.to_vec()), 0..10).prop_map(|pieces| format!("{{{}}}", pieces.join(",")));
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let made = (json(), json())
        .prop_map(move |(header, claims)| format!("{}.{}.c2lnbmF0dXJl", part(header), part(claims)).into_bytes());
    // The text of each part is changed too, and not only its base64.
    let inside = select(corpus("jwt")).prop_flat_map(move |token| {
        let text = String::from_utf8(token).unwrap();
        let parts: Vec<Vec<u8>> = text
            .split('.')
            .map(|part| URL_SAFE_NO_PAD.decode(part).unwrap_or_default())
            .collect();
        let parts: Vec<_> = parts.into_iter().map(|part| changed(Just(part))).collect();
        parts.prop_map(|parts| {
            parts
                .iter()
                .map(|part| URL_SAFE_NO_PAD.encode(part))
                .collect::<Vec<_>>()
                .join(".")
                .into_bytes()
        })
    });
    let inputs = prop_oneof![3 => any_jwt(), 3 => inside, 2 => made, 1 => vec(any::<u8>(), 0..512)];
    fuzz_bytes(&corpus("jwt"), &inputs, |bytes| {
        check_token(&String::from_utf8_lossy(bytes))
    });
}

#[test]
fn no_bytes_of_a_certificate_make_its_readers_panic() {
    let inputs = prop_oneof![
        4 => any_der(),
        1 => vec(select(corpus("der")), 0..4).prop_map(|chain| chain.concat()),
        1 => vec(select(&[0x30_u8, 0x02, 0xa0, 0x17, 0x18, 0, 1, 0x7f, 0x80, 0x81, 0x82, 0x84, 0x85, 0xff][..]), 0..64),
        1 => vec(any::<u8>(), 0..512),
    ];
    fuzz_bytes(&corpus("der"), &inputs, check_der);
}

/// The largest message that is taken, 4 MiB, of what multiplies most in reading.
#[test]
fn the_largest_message_is_read_in_time() {
    let empty_certificates = [0x30, 0].repeat(2 << 20);
    let began = ProcessorTime::now();
    assert!(certificates_to_pem(&empty_certificates).is_some());
    assert_eq!(valid_until(&empty_certificates), None);
    let nothing = [0x0a, 0].repeat(2 << 20);
    assert!(JwtSvidResponse::decode(&nothing[..]).is_ok_and(|message| message.svids.len() == 2 << 20));
    assert!(Token::parse(&".".repeat(4 << 20)).is_err());
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}
