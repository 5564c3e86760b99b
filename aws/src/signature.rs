//! AWS Signature Version 4 for requests to STS: a POST to `/` without a query.
//!
//! IAM User Guide, "AWS Signature Version 4 for API requests". It adds 11 kB to the sidecar, and the
//! crate aws-sigv4 161 kB: docs/adr/0021. A test in `e2e`
//! compares signatures of made-up requests with botocore's.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, Tag, sign};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::credentials::Credentials;
use crate::endpoint::StsEndpoint;

const SERVICE: &str = "sts";

/// The headers of a signed request, besides those that it has without a signature.
pub(crate) struct SignatureHeaders {
    /// `x-amz-date`.
    pub(crate) date: String,
    /// `authorization`.
    pub(crate) authorization: String,
}

/// Signs a form for an endpoint. Host, content type, date and session token are signed.
pub(crate) fn signature_headers(
    endpoint: &StsEndpoint,
    content_type: &str,
    body: &str,
    credentials: &Credentials,
    now: Timestamp,
) -> SignatureHeaders {
    let date = basic_format(now);
    let day = date.get(..8).unwrap_or_default();
    let region = endpoint.signing_region();
    let scope = format!("{day}/{region}/{SERVICE}/aws4_request");

    let (mut headers, mut names) = (
        format!(
            "content-type:{content_type}\nhost:{}\nx-amz-date:{date}\n",
            endpoint.authority()
        ),
        "content-type;host;x-amz-date".to_owned(),
    );
    if let Some(token) = &credentials.session_token {
        headers.push_str("x-amz-security-token:");
        headers.push_str(token.expose());
        headers.push('\n');
        names.push_str(";x-amz-security-token");
    }
    let canonical = format!("POST\n/\n\n{headers}\n{names}\n{}", sha256(body.as_bytes()));
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));

    let secret = format!("AWS4{}", credentials.secret_access_key.expose());
    let key = [region, SERVICE, "aws4_request"]
        .iter()
        .fold(mac(secret.as_bytes(), day), |key, part| mac(key.as_ref(), part));
    let signature = hex(mac(key.as_ref(), &to_sign).as_ref());
    SignatureHeaders {
        authorization: format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            credentials.access_key_id
        ),
        date,
    }
}

/// `20261129T133000Z`.
fn basic_format(now: Timestamp) -> String {
    let time = TimeZone::UTC.to_datetime(now);
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

fn mac(key: &[u8], text: &str) -> Tag {
    sign(&Key::new(HMAC_SHA256, key), text.as_bytes())
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String can't fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
