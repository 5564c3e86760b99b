//! The cause of a refusal in a case.

use serde_json::Value;
use tokenscope_core::{RoleArn, TokenExpiration};

use super::case::{Case, EXPIRATION_FLAG};
use super::pods::{items, variable};
use super::{MOUNT_PATH, ROLE_ARN, VOLUME};

pub(super) fn names_an_invalid_role(case: &Case) -> bool {
    let invalid = |text: &str| text.parse::<RoleArn>().is_err();
    case.annotation("role-arn").is_some_and(invalid)
        || case.unskipped().any(|container| {
            variable(container, ROLE_ARN)
                .and_then(|own| own["value"].as_str())
                .is_some_and(invalid)
        })
}

pub(super) fn names_an_invalid_expiration(case: &Case) -> bool {
    let flag = case.webhook_state.get(EXPIRATION_FLAG).map(String::as_str);
    let named = [case.annotation("token-expiration"), flag];
    named
        .into_iter()
        .flatten()
        .any(|text| text.parse::<TokenExpiration>().is_err())
}

pub(super) fn names_an_invalid_flag(case: &Case) -> bool {
    // As Go reads one.
    const FLAGS: [&str; 12] = [
        "1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False",
    ];
    case.annotation("sts-regional-endpoints")
        .is_some_and(|text| !FLAGS.contains(&text))
}

pub(super) fn brings_a_foreign_volume(case: &Case) -> bool {
    items(&case.pod["spec"]["volumes"]).any(|volume| volume["name"] == VOLUME)
        || case
            .unskipped()
            .any(|container| items(&container["volumeMounts"]).any(|mount| mount["name"] == VOLUME))
}

pub(super) fn mounts_at_our_path(case: &Case) -> bool {
    let ours = |mount: &Value| {
        mount["mountPath"]
            .as_str()
            .is_some_and(|path| path.trim_end_matches('/').starts_with(MOUNT_PATH))
    };
    case.unskipped()
        .any(|container| items(&container["volumeMounts"]).any(ours))
}
