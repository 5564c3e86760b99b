//! Files of the tool `age` itself, and such as the tests make: what is read, and that nothing else is.
//!
//! `tests/age` has two identities and two files of one key, made with age 1.1.1 and `openssl genpkey`; they open nothing else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail as tests do")]

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use secrecy::ExposeSecret as _;
use tokenscope_issuer::age::{AgeError, AgeIdentity, decrypt, is_encrypted};
use tokenscope_issuer::keys::SigningKey;

const IDENTITY: &[u8] = include_bytes!("age/identity.txt");
const OTHER: &[u8] = include_bytes!("age/other-identity.txt");
const FILE: &[u8] = include_bytes!("age/keys.pem.age");
const ARMOURED: &[u8] = include_bytes!("age/keys.pem.armoured.age");
/// An identity whose bytes the tests know, as BIP 173 encodes 32 zeros.
const ZEROS: &[u8] = b"AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ8H00W3\n";

fn open(file: &[u8], identities: &[u8]) -> Result<Vec<u8>, AgeError> {
    let identities = AgeIdentity::read(identities)?;
    decrypt(file, &identities).map(|clear| clear.expose_secret().to_vec())
}

fn derive(salt: &[u8], secret: &[u8], purpose: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    let prk = Salt::new(HKDF_SHA256, salt).extract(secret);
    prk.expand(&[purpose], HKDF_SHA256).unwrap().fill(&mut key).unwrap();
    key
}

fn seal(key: &[u8; 32], nonce: [u8; 12], text: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).unwrap());
    let mut sealed = text.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)
        .unwrap();
    sealed
}

/// Encrypts chunks for a public key, with other stanzas before and the last chunk marked as such or not.
fn encrypted(public: &[u8], before: &str, chunks: &[&[u8]], is_whole: bool) -> Vec<u8> {
    let (file_key, ephemeral) = ([7; 16], PrivateKey::generate(&X25519).unwrap());
    let share = ephemeral.compute_public_key().unwrap();
    let salt = [share.as_ref(), public].concat();
    let peer = UnparsedPublicKey::new(&X25519, public);
    let wrapping = agree(&ephemeral, peer, (), |secret| {
        Ok(derive(&salt, secret, b"age-encryption.org/v1/X25519"))
    });
    let body = seal(&wrapping.unwrap(), [0; 12], &file_key);
    let head = format!(
        "age-encryption.org/v1\n{before}-> X25519 {}\n{}\n---",
        STANDARD_NO_PAD.encode(share.as_ref()),
        STANDARD_NO_PAD.encode(body)
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, &derive(&[], &file_key, b"header"));
    let mac = hmac::sign(&key, head.as_bytes());
    let mut file = format!("{head} {}\n", STANDARD_NO_PAD.encode(mac)).into_bytes();
    file.extend([9; 16]);
    let key = derive(&[9; 16], &file_key, b"payload");
    for (number, chunk) in chunks.iter().enumerate() {
        let mut nonce = [0; 12];
        nonce[10] = number as u8;
        nonce[11] = u8::from(is_whole && number + 1 == chunks.len());
        file.extend(seal(&key, nonce, chunk));
    }
    file
}

fn public() -> Vec<u8> {
    let private = PrivateKey::from_private_key(&X25519, &[0; 32]).unwrap();
    private.compute_public_key().unwrap().as_ref().to_vec()
}

#[test]
fn what_the_tool_encrypted_is_read_in_armour_or_not_by_any_of_its_recipients() {
    let clear = open(FILE, IDENTITY).unwrap();
    SigningKey::from_pem(std::str::from_utf8(&clear).unwrap()).unwrap();
    for identity in [IDENTITY, OTHER, &[OTHER, b"\n# both\n", IDENTITY].concat()] {
        assert_eq!(open(ARMOURED, identity).unwrap(), clear);
    }
    let windows = String::from_utf8(ARMOURED.to_vec()).unwrap().replace('\n', "\r\n");
    assert_eq!(open(windows.as_bytes(), IDENTITY).unwrap(), clear);
    assert!(is_encrypted(FILE) && is_encrypted(ARMOURED) && !is_encrypted(&clear));
}

#[test]
fn a_file_for_somebody_else_is_not_read_and_the_reason_shows_nothing() {
    assert_eq!(open(FILE, OTHER).unwrap_err(), AgeError::Recipient);
    let passphrase = b"age-encryption.org/v1\n-> scrypt rF0/NwblUHHTpgQgRpe5CQ 10\nKg0WGVeOaNmNqS4oLLzWRs4xXPVHaSGdkGKpTd3n5Ls\n--- 1+YkSK7ZbrTWJVN2+5z0DsmbqyWuzjVr7gfoIvLuCqE\n0123456789abcdef0123456789abcdef";
    assert_eq!(open(passphrase, IDENTITY).unwrap_err(), AgeError::Recipient);
    assert_eq!(
        open(b"-----BEGIN PRIVATE KEY-----", IDENTITY).unwrap_err(),
        AgeError::Form
    );
    for error in [
        AgeError::Identity,
        AgeError::Form,
        AgeError::Recipient,
        AgeError::Header,
        AgeError::Payload,
    ] {
        assert!(!format!("{error} {error:?}").contains("KEY-1Q"));
    }
}

#[test]
fn a_changed_byte_anywhere_or_a_cut_is_noticed() {
    for at in 0..FILE.len() {
        let mut changed = FILE.to_vec();
        changed[at] ^= 1;
        assert!(open(&changed, IDENTITY).is_err(), "byte {at}");
        assert!(open(&FILE[..at], IDENTITY).is_err(), "cut at {at}");
    }
    for more in [&b"x"[..], b"\n"] {
        assert_eq!(open(&[FILE, more].concat(), IDENTITY).unwrap_err(), AgeError::Payload);
    }
}

#[test]
fn chunks_are_read_up_to_the_last_and_no_chunk_is_left_out_or_empty() {
    let (public, full) = (public(), vec![1; 64 << 10]);
    let file = |chunks: &[&[u8]], is_whole| encrypted(&public, "", chunks, is_whole);
    let whole: [&[&[u8]]; 5] = [&[b"short"], &[b""], &[&full], &[&full, b"x"], &[&full, &full]];
    for chunks in whole {
        assert_eq!(open(&file(chunks, true), ZEROS).unwrap(), chunks.concat());
    }
    let cut: [(&[&[u8]], bool); 3] = [(&[&full], false), (&[&full, b""], true), (&[], true)];
    for (chunks, is_whole) in cut {
        assert_eq!(open(&file(chunks, is_whole), ZEROS).unwrap_err(), AgeError::Payload);
    }
}

#[test]
fn stanzas_of_others_are_passed_over_and_bounded() {
    let public = public();
    let grease = "-> e;@K-grease x 1\n\n-> ssh-ed25519 0OKK2w fnbFgGaV\nPpd3KBE0f7MDy6aGJxKTcsAFvSQPSmo4wB7LE3S9lTw\n";
    assert_eq!(
        open(&encrypted(&public, grease, &[b"text"], true), ZEROS).unwrap(),
        b"text"
    );
    for (before, error) in [
        (grease.repeat(40), AgeError::Form),
        ("-> X25519 short\n\n".to_owned(), AgeError::Form),
        ("-> X25519\n\n".to_owned(), AgeError::Recipient),
        (format!("-> x\n{}\n", "A".repeat(65)), AgeError::Form),
        ("no stanza\n".to_owned(), AgeError::Form),
    ] {
        let file = encrypted(&public, &before, &[b"text"], true);
        let read = open(&file, ZEROS);
        // A stanza of another type says nothing; the file is then read by its next.
        if error == AgeError::Recipient {
            assert_eq!(read.unwrap(), b"text");
        } else {
            assert_eq!(read.unwrap_err(), error, "{before}");
        }
    }
    // A share of low order has no secret.
    let low = format!(
        "-> X25519 {}\n{}\n",
        STANDARD_NO_PAD.encode([0; 32]),
        STANDARD_NO_PAD.encode([0; 32])
    );
    assert_eq!(
        open(&encrypted(&public, &low, &[b"text"], true), ZEROS).unwrap(),
        b"text"
    );
}

#[test]
fn identities_are_read_strictly() {
    let line = std::str::from_utf8(IDENTITY).unwrap().lines().last().unwrap();
    let lower = line.to_lowercase();
    assert_eq!(open(FILE, lower.as_bytes()).unwrap(), open(FILE, IDENTITY).unwrap());
    let mixed = format!("{}{}", &line[..30], &lower[30..]);
    let changed = format!(
        "{}{}",
        &line[..line.len() - 1],
        if line.ends_with('Q') { 'P' } else { 'Q' }
    );
    let many = format!("{line}\n").repeat(17);
    let armour = STANDARD.encode(line);
    for wrong in [
        "",
        "# nothing\n",
        &mixed,
        &changed,
        &line[..line.len() - 1],
        &many,
        &armour,
        "AGE-SECRET-KEY-1",
    ] {
        let error = AgeIdentity::read(wrong.as_bytes()).err();
        assert_eq!(error, Some(AgeError::Identity), "{} bytes", wrong.len());
    }
}
