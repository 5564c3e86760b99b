//! Reads files that are encrypted with age to an X25519 recipient, in armour or not (C2SP, age-encryption.org/v1).
//!
//! By hand, since the crate `age` brings a second crypto library and sixty crates with it, of which a file of keys needs this much
//! ([ADR 20](../../docs/adr/0020-a-file-of-keys-is-decrypted-here.md)). Files for passphrases, SSH keys and plugins are not read.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use secrecy::zeroize::{Zeroize as _, Zeroizing};
use secrecy::{ExposeSecret as _, SecretSlice};

const VERSION: &[u8] = b"age-encryption.org/v1\n";
const ARMOUR: [&[u8]; 2] = [
    b"-----BEGIN AGE ENCRYPTED FILE-----",
    b"-----END AGE ENCRYPTED FILE-----",
];
/// The most recipients of a file.
const MOST_STANZAS: usize = 64;
/// The most identities.
const MOST_IDENTITIES: usize = 16;
/// The bytes of a chunk of the payload before it is encrypted.
const CHUNK: usize = 64 << 10;
/// The bytes that authenticate a chunk.
const TAG: usize = 16;
const FILE_KEY: usize = 16;
/// The columns of a stanza's body.
const COLUMNS: usize = 64;

/// The reason why a file can't be decrypted. No text repeats anything of an identity or of what is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgeError {
    /// The identities can't be read.
    #[error("the identities should be lines with AGE-SECRET-KEY-1…, at most {MOST_IDENTITIES}")]
    Identity,
    /// It is no such file.
    #[error("it is not encrypted with age (age-encryption.org/v1)")]
    Form,
    /// None of the identities is a recipient.
    #[error("it is encrypted for none of the identities; only recipients age1… are read, and no passphrase")]
    Recipient,
    /// Somebody changed the header.
    #[error("its header was changed after it was encrypted")]
    Header,
    /// Somebody changed or cut the payload.
    #[error("it was changed or cut off after it was encrypted")]
    Payload,
}

/// True for a text that is encrypted with age.
pub fn is_encrypted(file: &[u8]) -> bool {
    file.starts_with(VERSION) || file.trim_ascii_start().starts_with(ARMOUR[0])
}

/// A private key that files are encrypted for. No `Debug`.
pub struct AgeIdentity {
    private: PrivateKey,
    public: Vec<u8>,
}

impl AgeIdentity {
    /// Reads identities as `age-keygen` writes them: one a line, with comments between them.
    pub fn read(text: &[u8]) -> Result<Vec<Self>, AgeError> {
        let text = std::str::from_utf8(text).map_err(|_| AgeError::Identity)?;
        let lines = text.lines().map(str::trim);
        let identities: Vec<_> = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(Self::of_line)
            .collect::<Result<_, _>>()?;
        if identities.is_empty() || identities.len() > MOST_IDENTITIES {
            return Err(AgeError::Identity);
        }
        Ok(identities)
    }

    fn of_line(line: &str) -> Result<Self, AgeError> {
        let seed = bech32("age-secret-key-", line).ok_or(AgeError::Identity)?;
        let private = PrivateKey::from_private_key(&X25519, seed.expose_secret()).map_err(|_| AgeError::Identity)?;
        let public = private.compute_public_key().map_err(|_| AgeError::Identity)?;
        Ok(Self {
            public: public.as_ref().to_vec(),
            private,
        })
    }

    /// The file's key, if a stanza is for this identity.
    fn unwrap(&self, stanza: &Stanza) -> Option<SecretSlice<u8>> {
        let share = UnparsedPublicKey::new(&X25519, &stanza.share);
        let salt = [&*stanza.share, &self.public].concat();
        // A share of low order has no shared secret: the library fails then.
        let key = agree(&self.private, share, AgeError::Form, |secret| {
            derive(&salt, secret, b"age-encryption.org/v1/X25519").ok_or(AgeError::Form)
        });
        open(&key.ok()?, [0; NONCE_LEN], &stanza.body)
    }
}

/// Decrypts a file with the first identity that it is for.
pub fn decrypt(file: &[u8], identities: &[AgeIdentity]) -> Result<SecretSlice<u8>, AgeError> {
    let unarmoured;
    let file = if file.trim_ascii_start().starts_with(ARMOUR[0]) {
        unarmoured = without_armour(file)?;
        unarmoured.as_slice()
    } else {
        file
    };
    let header = Header::read(file)?;
    let mut keys = header.stanzas.iter().flat_map(|stanza| {
        let opened = move |identity: &AgeIdentity| identity.unwrap(stanza);
        identities.iter().filter_map(opened)
    });
    let key = keys.next().ok_or(AgeError::Recipient)?;
    let authentic = derive(&[], key.expose_secret(), b"header").ok_or(AgeError::Header)?;
    let authentic = hmac::Key::new(HMAC_SHA256, authentic.expose_secret());
    hmac::verify(&authentic, header.authenticated, &header.mac).map_err(|_| AgeError::Header)?;
    payload(header.payload, &key)
}

/// A recipient's part of the header.
struct Stanza {
    share: Vec<u8>,
    body: Vec<u8>,
}

struct Header<'a> {
    /// The stanzas of X25519; others are passed over.
    stanzas: Vec<Stanza>,
    /// Everything up to the three dashes of the last line, with them.
    authenticated: &'a [u8],
    mac: Vec<u8>,
    payload: &'a [u8],
}

impl<'a> Header<'a> {
    fn read(file: &'a [u8]) -> Result<Self, AgeError> {
        let mut rest = file.strip_prefix(VERSION).ok_or(AgeError::Form)?;
        let mut stanzas = Vec::new();
        for _ in 0..=MOST_STANZAS {
            let at = file.len() - rest.len();
            let first = line(&mut rest)?;
            if let Some(mac) = first.strip_prefix("--- ") {
                let authenticated = file.get(..at + 3).ok_or(AgeError::Form)?;
                let mac = STANDARD_NO_PAD.decode(mac).map_err(|_| AgeError::Form)?;
                return Ok(Self {
                    stanzas,
                    authenticated,
                    mac,
                    payload: rest,
                });
            }
            let arguments = first.strip_prefix("-> ").ok_or(AgeError::Form)?;
            let body = body(&mut rest)?;
            if let Some(share) = arguments.strip_prefix("X25519 ") {
                let share = STANDARD_NO_PAD.decode(share).map_err(|_| AgeError::Form)?;
                if share.len() != 32 || body.len() != FILE_KEY + TAG {
                    return Err(AgeError::Form);
                }
                stanzas.push(Stanza { share, body });
            }
        }
        Err(AgeError::Form)
    }
}

/// The next line, of printable ASCII.
fn line<'a>(rest: &mut &'a [u8]) -> Result<&'a str, AgeError> {
    let end = rest.iter().position(|byte| *byte == b'\n').ok_or(AgeError::Form)?;
    let (line, after) = rest.split_at(end);
    *rest = after.get(1..).unwrap_or_default();
    if !line.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return Err(AgeError::Form);
    }
    std::str::from_utf8(line).map_err(|_| AgeError::Form)
}

/// A stanza's body: full lines of base64, and a last one that is shorter.
fn body(rest: &mut &[u8]) -> Result<Vec<u8>, AgeError> {
    let mut body = Vec::new();
    loop {
        let line = line(rest)?;
        if line.len() > COLUMNS {
            return Err(AgeError::Form);
        }
        STANDARD_NO_PAD
            .decode_vec(line, &mut body)
            .map_err(|_| AgeError::Form)?;
        if line.len() < COLUMNS {
            return Ok(body);
        }
    }
}

/// The payload: a nonce, and chunks of which each has its number and the last one says that it is (STREAM).
fn payload(payload: &[u8], key: &SecretSlice<u8>) -> Result<SecretSlice<u8>, AgeError> {
    let (nonce, chunks) = payload.split_at_checked(16).ok_or(AgeError::Payload)?;
    let key = derive(nonce, key.expose_secret(), b"payload").ok_or(AgeError::Payload)?;
    let count = chunks.len().div_ceil(CHUNK + TAG);
    // As long as all of it, so that it never moves and leaves a copy behind.
    let mut clear = Vec::with_capacity(chunks.len().saturating_sub(count * TAG));
    for (number, chunk) in chunks.chunks(CHUNK + TAG).enumerate() {
        let mut nonce = [0; NONCE_LEN];
        // Eleven bytes for the number, of which a file in memory needs eight, and one for the mark of the last.
        nonce[3..11].copy_from_slice(&(number as u64).to_be_bytes());
        nonce[11] = u8::from(number + 1 == count);
        let opened = open(&key, nonce, chunk).filter(|opened| number == 0 || !opened.expose_secret().is_empty());
        let Some(opened) = opened else {
            clear.zeroize();
            return Err(AgeError::Payload);
        };
        clear.extend_from_slice(opened.expose_secret());
    }
    if count == 0 {
        return Err(AgeError::Payload);
    }
    Ok(clear.into())
}

/// HKDF with SHA-256: 32 bytes.
fn derive(salt: &[u8], secret: &[u8], purpose: &[u8]) -> Option<SecretSlice<u8>> {
    let mut key = vec![0; 32];
    let prk = Salt::new(HKDF_SHA256, salt).extract(secret);
    prk.expand(&[purpose], HKDF_SHA256).ok()?.fill(&mut key).ok()?;
    Some(key.into())
}

/// ChaCha20-Poly1305.
fn open(key: &SecretSlice<u8>, nonce: [u8; NONCE_LEN], sealed: &[u8]) -> Option<SecretSlice<u8>> {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key.expose_secret()).ok()?);
    let mut text = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    let length = key.open_in_place(nonce, Aad::empty(), &mut text).ok()?.len();
    // A text that is cut short would move when it becomes a secret, and leave a copy behind.
    let clear = text.get(..length).map(|clear| SecretSlice::from(clear.to_vec()));
    text.zeroize();
    clear
}

fn without_armour(file: &[u8]) -> Result<Vec<u8>, AgeError> {
    let text = file.trim_ascii();
    let text = text
        .strip_prefix(ARMOUR[0])
        .and_then(|text| text.strip_suffix(ARMOUR[1]));
    let mut text = text.ok_or(AgeError::Form)?.to_vec();
    text.retain(|byte| !matches!(byte, b'\r' | b'\n'));
    STANDARD.decode(text).map_err(|_| AgeError::Form)
}

/// The 32 bytes of a text in Bech32 (BIP 173) whose part for people is this; in upper or lower case, not both.
fn bech32(people: &str, text: &str) -> Option<SecretSlice<u8>> {
    const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    const CHECKSUM: usize = 6;
    let has_upper = text.bytes().any(|byte| byte.is_ascii_uppercase());
    if has_upper && text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return None;
    }
    let (found, data) = text.split_at_checked(people.len())?;
    let data = data.strip_prefix('1').filter(|_| found.eq_ignore_ascii_case(people))?;
    let value = |byte: u8| ALPHABET.iter().position(|known| *known == byte.to_ascii_lowercase());
    // With room for all digits none stay behind where the list grows.
    let mut values = Zeroizing::new(Vec::with_capacity(data.len()));
    for byte in data.bytes() {
        values.push(value(byte)? as u8);
    }
    let expanded = people.bytes().map(|byte| byte >> 5);
    let expanded = expanded.chain([0]).chain(people.bytes().map(|byte| byte & 31));
    let is_intact = checksum(expanded.chain(values.iter().copied())) == 1;
    let length = values.len().checked_sub(CHECKSUM)?;
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(32), 0_u32, 0_u32);
    for value in values.iter().take(length) {
        bits = (bits << 5) | u32::from(*value);
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    drop(values);
    // What does not fill a byte is padding, and nothing but zeros.
    let is_whole = is_intact && bytes.len() == 32 && held < 5 && bits == 0;
    let bytes = SecretSlice::from(bytes);
    is_whole.then_some(bytes)
}

fn checksum(values: impl Iterator<Item = u8>) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    values.fold(1, |sum: u32, value| {
        let top = sum >> 25;
        let shifted = ((sum & 0x01ff_ffff) << 5) ^ u32::from(value);
        let bits = GENERATOR.iter().enumerate();
        bits.fold(
            shifted,
            |sum, (bit, with)| if (top >> bit) & 1 == 1 { sum ^ with } else { sum },
        )
    })
}
