//! AWS Signature Version 4 in the Authorization header: read and verified.

use std::fmt::Write as _;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use hyper::{HeaderMap, Method};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use crate::aws_error::AwsError;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "sts";
/// The most seconds that the signer's clock may be off.
const MAX_SKEW: i64 = 15 * 60;
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The parts of a request that are signed.
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// The claims of the Authorization header.
pub(crate) struct Authorization {
    pub(crate) access_key_id: String,
    /// `<date>/<region>/<service>/aws4_request`
    scope: String,
    signed_headers: Vec<String>,
    signature: String,
    /// `X-Amz-Date` as it was sent.
    date: String,
    at: Timestamp,
}

impl Authorization {
    /// Reads the headers. A message never repeats them.
    pub(crate) fn parse(headers: &HeaderMap) -> Result<Self, AwsError> {
        let fields = fields(headers)?;
        let (credential, signed_headers, signature) = (
            field(fields, "Credential")?,
            field(fields, "SignedHeaders")?,
            field(fields, "Signature")?,
        );
        let (access_key_id, scope) = credential
            .split_once('/')
            .ok_or_else(|| incomplete("Credential must have a scope: <key>/<date>/<region>/sts/aws4_request"))?;
        let (date, at) = date(headers)?;
        let signed_headers: Vec<_> = signed_headers.split(';').map(str::to_owned).collect();
        check_signed(&signed_headers, headers)?;
        check_scope(scope, date)?;
        Ok(Self {
            access_key_id: access_key_id.to_owned(),
            scope: scope.to_owned(),
            signed_headers,
            signature: signature.to_owned(),
            date: date.to_owned(),
            at,
        })
    }

    /// The region of the scope.
    pub(crate) fn region(&self) -> &str {
        // `parse` refuses a scope without one.
        self.scope.split('/').nth(1).unwrap_or_default()
    }

    /// Checks the time and the signature under `secret`.
    pub(crate) fn verify(&self, request: &Signed<'_>, secret: &str, now: Timestamp) -> Result<(), AwsError> {
        let difference = now.as_second() - self.at.as_second();
        if difference.abs() > MAX_SKEW {
            let (sent, now) = (&self.date, now.strftime("%Y%m%dT%H%M%SZ"));
            return Err(does_not_match(&if difference > 0 {
                format!("Signature expired: {sent} is more than 15 min. earlier than {now}")
            } else {
                format!("Signature not yet current: {sent} is more than 15 min. later than {now}")
            }));
        }
        let expected = signature(request, &self.signed_headers, &self.date, &self.scope, secret);
        verify_slices_are_equal(expected.as_bytes(), self.signature.as_bytes()).map_err(|_| {
            does_not_match(
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
                 Access Key and signing method. Consult the service documentation for details.",
            )
        })
    }
}

/// What follows the algorithm in the Authorization header.
fn fields(headers: &HeaderMap) -> Result<&str, AwsError> {
    let Some(header) = headers.get("authorization") else {
        return Err(AwsError::new(
            403,
            "MissingAuthenticationToken",
            "Request is missing Authentication Token",
        ));
    };
    let text = header.to_str().ok();
    text.and_then(|text| text.strip_prefix(ALGORITHM)?.strip_prefix(' '))
        .ok_or_else(|| incomplete(format!("Authorization header must begin with '{ALGORITHM} '")))
}

fn field<'a>(fields: &'a str, name: &str) -> Result<&'a str, AwsError> {
    let found = fields
        .split(',')
        .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
    found
        .filter(|value| !value.is_empty())
        .ok_or_else(|| incomplete(format!("Authorization header requires '{name}' parameter.")))
}

/// `X-Amz-Date` as it was sent, and the time that it says.
fn date(headers: &HeaderMap) -> Result<(&str, Timestamp), AwsError> {
    let date = headers
        .get("x-amz-date")
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| incomplete("Authorization header requires existence of a 'X-Amz-Date' header."))?;
    let at = DateTime::strptime("%Y%m%dT%H%M%SZ", date)
        .and_then(|time| time.to_zoned(TimeZone::UTC))
        .map_err(|_| incomplete("Date must be in ISO-8601 'basic format'."))?
        .timestamp();
    Ok((date, at))
}

/// What has to be signed if it was sent is signed.
fn check_signed(signed_headers: &[String], headers: &HeaderMap) -> Result<(), AwsError> {
    for required in ["host", "x-amz-date", "x-amz-security-token"] {
        if headers.contains_key(required) && !signed_headers.iter().any(|name| name == required) {
            return Err(incomplete(format!(
                "'{required}' must be a 'SignedHeader' in the AWS Authorization."
            )));
        }
    }
    Ok(())
}

fn check_scope(scope: &str, date: &str) -> Result<(), AwsError> {
    let problem = match scope.split('/').collect::<Vec<_>>().as_slice() {
        [day, ..] if !date.starts_with(&format!("{day}T")) => {
            "Date in Credential scope does not match the date of the request."
        }
        [_, "", _, _] => "Credential should be scoped to a valid region.",
        [_, _, service, _] if *service != SERVICE => "Credential should be scoped to correct service: 'sts'.",
        [_, _, _, "aws4_request"] => return Ok(()),
        _ => "Credential should be scoped with a valid terminator: 'aws4_request'.",
    };
    Err(does_not_match(problem))
}

fn incomplete(message: impl Into<String>) -> AwsError {
    AwsError::new(400, "IncompleteSignature", message)
}

fn does_not_match(message: &str) -> AwsError {
    AwsError::new(403, "SignatureDoesNotMatch", message)
}

/// The signature in lower-case hexadecimal.
fn signature(request: &Signed<'_>, signed_headers: &[String], date: &str, scope: &str, secret: &str) -> String {
    let sha256 = |bytes: &[u8]| hex(digest(&SHA256, bytes).as_ref());
    let mac = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());

    let mut canonical = format!(
        "{}\n{}\n{}\n",
        request.method,
        request.path,
        canonical_query(request.query)
    );
    for name in signed_headers {
        let values = request.headers.get_all(name).iter().map(|value| {
            // One space for several, none at the ends.
            String::from_utf8_lossy(value.as_bytes())
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        });
        // Writing to a String can't fail.
        let _ = writeln!(canonical, "{name}:{}", values.collect::<Vec<_>>().join(","));
    }
    let _ = write!(canonical, "\n{}\n{}", signed_headers.join(";"), sha256(request.body));

    let to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let key = scope
        .split('/')
        .fold(format!("AWS4{secret}").into_bytes(), |key, part| {
            mac(&key, part).as_ref().to_vec()
        });
    hex(mac(&key, &to_sign).as_ref())
}

fn canonical_query(query: &str) -> String {
    let encode = |text: &str| {
        let bytes: Vec<u8> = percent_decode_str(text).collect();
        percent_encode(&bytes, UNRESERVED).to_string()
    };
    let mut pairs: Vec<_> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encode(name), encode(value)))
        .collect();
    pairs.sort();
    pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join("&")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests;
