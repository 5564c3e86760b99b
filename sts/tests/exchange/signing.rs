//! Signed requests, by a signer of the tests' own.

use aws_lc_rs::{digest, hmac};
use jiff::Timestamp;
use tokenscope_sts::Server;

use super::{element, post};

/// An access key, with the session token of temporary credentials.
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
}

impl Keys {
    /// The credentials of an answer.
    pub(crate) fn of(answer: &str) -> Self {
        Self {
            id: element(answer, "AccessKeyId"),
            secret: element(answer, "SecretAccessKey"),
            token: Some(element(answer, "SessionToken")),
        }
    }
}

/// Posts a form signed for eu-central-1; `now` in seconds.
pub(crate) async fn signed(server: &Server, keys: &Keys, now: i64, form: &str) -> (u16, String) {
    signed_for(server, keys, now, form, "eu-central-1").await
}

/// The same for any region.
pub(crate) async fn signed_for(server: &Server, keys: &Keys, now: i64, form: &str, region: &str) -> (u16, String) {
    let sha256 = |bytes: &[u8]| base16(digest::digest(&digest::SHA256, bytes).as_ref());
    let mac = |key: &[u8], text: &str| {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
        tag.as_ref().to_vec()
    };
    let date = Timestamp::from_second(now)
        .unwrap()
        .strftime("%Y%m%dT%H%M%SZ")
        .to_string();
    let scope = format!("{}/{region}/sts/aws4_request", &date[..8]);
    let (mut lines, mut names, mut headers) = (
        format!("host:{}\nx-amz-date:{date}\n", server.addr()),
        "host;x-amz-date".to_owned(),
        format!("x-amz-date: {date}\r\n"),
    );
    if let Some(token) = &keys.token {
        lines.extend(["x-amz-security-token:", token, "\n"]);
        names += ";x-amz-security-token";
        headers.extend(["x-amz-security-token: ", token, "\r\n"]);
    }
    let canonical = format!("POST\n/\n\n{lines}\n{names}\n{}", sha256(form.as_bytes()));
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let day = mac(format!("AWS4{}", keys.secret).as_bytes(), &date[..8]);
    let key = mac(&mac(&mac(&day, region), "sts"), "aws4_request");
    let signature = base16(&mac(&key, &to_sign));
    let authorization = format!(
        "authorization: AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}\r\n",
        keys.id
    );
    headers.push_str(&authorization);
    post(server, &headers, form).await
}

fn base16(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap();
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}
