//! One claim of a token: how it is read, and how STS refuses it.

use serde_json::{Map, Value};

use crate::aws_error::AwsError;

pub(super) fn missing(claim: &str) -> AwsError {
    AwsError::invalid_token(format!("Missing a required claim: {claim}"))
}

pub(super) fn wrong(claim: &str, rule: &str) -> AwsError {
    AwsError::invalid_token(format!("Invalid claim {claim}: {rule}"))
}

pub(super) fn text_claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, AwsError> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(name, "must be a string")),
    }
}

pub(super) fn strings(list: &[Value]) -> Option<Vec<String>> {
    list.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}
