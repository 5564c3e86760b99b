//! The answers on the wire: the XML of answers and of errors.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::aws_error::AwsError;
use crate::session::Session;

/// The namespace of every STS answer.
const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// The envelope of an error.
pub(crate) fn refusal(error: &AwsError, request_id: &str) -> String {
    let party = if error.status >= 500 { "Receiver" } else { "Sender" };
    let detail = [("Type", party), ("Code", error.code), ("Message", &error.message)];
    format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error>{}</Error>{}</ErrorResponse>",
        elements(&detail),
        elements(&[("RequestId", request_id)])
    )
}

/// The envelope of a successful answer; `result` is XML already.
pub(crate) fn answer(action: &str, result: &str, request_id: &str) -> String {
    let metadata = elements(&[("RequestId", request_id)]);
    format!(
        "<{action}Response xmlns=\"{NAMESPACE}\"><{action}Result>{result}</{action}Result>\
         <ResponseMetadata>{metadata}</ResponseMetadata></{action}Response>"
    )
}

/// `Credentials`, `AssumedRoleUser` and the sizes: what both ways to take a role answer (STS service model of November 2026).
pub(crate) fn credentials(session: &Session, packed_policy_size: Option<usize>) -> String {
    let credentials = elements(&[
        ("AccessKeyId", &session.access_key_id),
        ("SecretAccessKey", &session.secret_access_key),
        ("SessionToken", &session.token),
        ("Expiration", &session.expires.to_string()),
    ]);
    let user = elements(&[("AssumedRoleId", &session.user_id), ("Arn", &session.arn)]);
    let packed = packed_policy_size.map(|percent| elements(&[("PackedPolicySize", &percent.to_string())]));
    let sizes = elements(&[
        ("SessionTokenUtilization", &session.token_utilization().to_string()),
        ("SessionTokenSize", &session.token.len().to_string()),
    ]);
    format!(
        "<Credentials>{credentials}</Credentials><AssumedRoleUser>{user}</AssumedRoleUser>{}{sizes}",
        packed.unwrap_or_default()
    )
}

/// Elements with text, one after the other.
pub(crate) fn elements(pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(String::new(), |mut xml, (name, text)| {
        // Writing to a String can't fail.
        let _ = write!(xml, "<{name}>{}</{name}>", escape(text));
        xml
    })
}

/// Text for an element. Characters that XML 1.0 can't carry even escaped become U+FFFD, so that no input of a caller
/// makes an answer that an SDK can't parse.
fn escape(text: &str) -> Cow<'_, str> {
    let special = |c: char| matches!(c, '<' | '>' | '&' | '"' | '\'' | '\r' | '\u{fffe}' | '\u{ffff}') || c < ' ';
    if !text.contains(special) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\r' => escaped.push_str("&#xD;"),
            '\t' | '\n' => escaped.push(c),
            c if special(c) => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_envelope_of_aws_and_escapes_what_the_caller_sent() {
        let error = AwsError::validation("Value '<a>&\u{1}'");
        assert_eq!(
            refusal(&error, "r-1"),
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
             <Code>ValidationError</Code><Message>Value &apos;&lt;a&gt;&amp;\u{fffd}&apos;</Message></Error>\
             <RequestId>r-1</RequestId></ErrorResponse>"
        );
    }

    #[test]
    fn an_answer_is_wrapped_in_result_and_response() {
        assert_eq!(
            answer("GetCallerIdentity", &elements(&[("Account", "1")]), "r-2"),
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
             <Account>1</Account></GetCallerIdentityResult><ResponseMetadata><RequestId>r-2</RequestId>\
             </ResponseMetadata></GetCallerIdentityResponse>"
        );
    }
}
