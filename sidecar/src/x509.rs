//! X.509-SVIDs: from the DER that the Workload API gives to the PEM that programs read.
//!
//! x509-parser would add 106 kB to the program (docs/adr/0010).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

/// PEM blocks of concatenated DER certificates. None if the bytes are none, or nothing.
pub fn certificates_to_pem(der: &[u8]) -> Option<String> {
    let mut pem = String::new();
    let mut rest = der;
    while !rest.is_empty() {
        let (certificate, after) = element(rest, SEQUENCE)?;
        pem.push_str(&to_pem("CERTIFICATE", certificate.whole));
        rest = after;
    }
    (!pem.is_empty()).then_some(pem)
}

/// The PEM block of a private key in PKCS#8. None if it is no DER.
pub fn key_to_pem(der: &[u8]) -> Option<String> {
    let (key, rest) = element(der, SEQUENCE)?;
    rest.is_empty().then(|| to_pem("PRIVATE KEY", key.whole))
}

/// The end of validity of the first of some concatenated DER certificates (RFC 5280, section 4.1). None if it is none.
pub fn valid_until(der: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (signed_part, _) = element(certificate.content, SEQUENCE)?;
    let mut rest = signed_part.content;
    if let Some((_, after_version)) = element(rest, VERSION) {
        rest = after_version;
    }
    let (_, rest) = element(rest, INTEGER)?; // serial number
    let (_, rest) = element(rest, SEQUENCE)?; // algorithm
    let (_, rest) = element(rest, SEQUENCE)?; // issuer
    let (validity, _) = element(rest, SEQUENCE)?;
    let (&tag, _) = validity.content.split_first()?;
    let (_, not_after) = element(validity.content, tag)?;
    let (&tag, _) = not_after.split_first()?;
    let (time, _) = element(not_after, tag)?;
    let text = std::str::from_utf8(time.content).ok()?.strip_suffix('Z')?;
    match tag {
        // Years from 50 on are of the 20th century.
        UTC_TIME if text.starts_with(|digit: char| digit >= '5') => date(&format!("19{text}")),
        UTC_TIME => date(&format!("20{text}")),
        GENERALIZED_TIME => date(text),
        _ => None,
    }
}

/// As [`valid_until`], of the first certificate in a PEM file.
pub fn pem_valid_until(pem: &str) -> Option<Timestamp> {
    let (_, rest) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let body: String = body.split_whitespace().collect();
    valid_until(&STANDARD.decode(body).ok()?)
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

struct Element<'a> {
    whole: &'a [u8],
    content: &'a [u8],
}

/// The first element of DER, which must have this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(Element<'_>, &[u8])> {
    let (&first, after_tag) = der.split_first()?;
    let (&length, after_length) = after_tag.split_first()?;
    if first != tag {
        return None;
    }
    let (length, start) = match length {
        0..=0x7f => (usize::from(length), 2),
        // Four bytes say more than any message can have.
        0x81..=0x84 => {
            let count = usize::from(length & 0x7f);
            let bytes = after_length.get(..count)?;
            let length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            (length, 2 + count)
        }
        _ => return None,
    };
    let end = start.checked_add(length)?;
    let content = der.get(start..end)?;
    let element = Element {
        whole: der.get(..end)?,
        content,
    };
    Some((element, der.get(end..)?))
}

/// `YYYYMMDDhhmmss`, in UTC.
fn date(text: &str) -> Option<Timestamp> {
    if text.len() != 14 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<i16>().ok();
    let two = |from: usize| number(from, from + 2).and_then(|value| i8::try_from(value).ok());
    let date = DateTime::new(number(0, 4)?, two(4)?, two(6)?, two(8)?, two(10)?, two(12)?, 0).ok()?;
    Offset::UTC.to_timestamp(date).ok()
}

fn to_pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for from in (0..body.len()).step_by(64) {
        pem.push_str(&body[from..body.len().min(from + 64)]);
        pem.push('\n');
    }
    pem + "-----END " + label + "-----\n"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let mut bytes = vec![tag];
        if length < 128 {
            bytes.push(length as u8);
        } else {
            bytes.extend([0x82, (length >> 8) as u8, length as u8]);
        }
        bytes.extend(content);
        bytes
    }

    /// As much of a certificate as is read.
    fn certificate(tag: u8, not_after: &str, version: bool) -> Vec<u8> {
        let validity = [der(UTC_TIME, b"240101000000Z"), der(tag, not_after.as_bytes())].concat();
        let mut signed_part = if version {
            der(VERSION, &der(INTEGER, &[2]))
        } else {
            Vec::new()
        };
        signed_part.extend(der(INTEGER, &[7; 16]));
        signed_part.extend(der(SEQUENCE, &[6; 10]));
        signed_part.extend(der(SEQUENCE, &[5; 200]));
        signed_part.extend(der(SEQUENCE, &validity));
        der(SEQUENCE, &der(SEQUENCE, &signed_part))
    }

    #[test]
    fn the_end_of_a_certificate_is_found() {
        let until = |tag, text, version| valid_until(&certificate(tag, text, version)).map(|time| time.to_string());

        assert_eq!(
            until(UTC_TIME, "240229123456Z", true).as_deref(),
            Some("2024-02-29T12:34:56Z")
        );
        assert_eq!(
            until(UTC_TIME, "991231235959Z", false).as_deref(),
            Some("1999-12-31T23:59:59Z")
        );
        assert_eq!(
            until(GENERALIZED_TIME, "20510101000000Z", true).as_deref(),
            Some("2051-01-01T00:00:00Z")
        );
        assert_eq!(until(GENERALIZED_TIME, "20511301000000Z", true), None);
        assert_eq!(until(INTEGER, "240229123456Z", true), None);
    }

    #[test]
    fn a_chain_becomes_one_block_for_each_certificate() {
        let one = certificate(UTC_TIME, "240229123456Z", true);
        let pem = certificates_to_pem(&[one.clone(), one.clone()].concat()).unwrap();

        assert_eq!(pem.matches("-----BEGIN CERTIFICATE-----\n").count(), 2);
        assert!(pem.lines().all(|line| line.len() <= 64), "{pem}");
        assert_eq!(pem_valid_until(&pem), valid_until(&one));
        assert_eq!(certificates_to_pem(&[]), None);
        assert_eq!(certificates_to_pem(&one[..one.len() - 1]), None);
        assert_eq!(key_to_pem(&[one.clone(), one].concat()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, cut in 0_usize..300) {
            let _ = certificates_to_pem(&bytes);
            let _ = valid_until(&bytes);
            let whole = certificate(UTC_TIME, "240229123456Z", true);
            let _ = valid_until(&whole[..cut.min(whole.len())]);
        }

        #[test]
        fn no_text_makes_it_panic(text in "(-----BEGIN CERTIFICATE-----)?.{0,80}(-----END CERTIFICATE-----)?") {
            let _ = pem_valid_until(&text);
        }
    }
}
