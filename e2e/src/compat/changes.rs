//! The changes that make the pod that is expected of us of the one that the other webhook makes.

use serde_json::{Value, json};

use super::case::{Case, MOUNT_PATH_FLAG};
use super::pods::{containers, containers_mut, items, items_mut, normalised, push, put_back, variable};
use super::{MOUNT_PATH, ROLE_ARN, TOKEN_FILE, VOLUME};

pub(super) fn skip_trimmed_names(case: &Case, expected: &mut Value) {
    let Some(list) = case.annotation("skip-containers") else {
        return;
    };
    let names: Vec<&str> = list
        .split(',')
        .filter(|name| name.trim() != *name)
        .map(str::trim)
        .collect();
    for container in containers_mut(expected) {
        if names.iter().any(|name| container["name"] == *name) {
            restore(case, container);
        }
    }
}

pub(super) fn keep_fields(case: &Case, expected: &mut Value) {
    for container in containers_mut(expected) {
        if let Some(admitted) = admitted(case, container) {
            put_back(admitted, container);
        }
    }
}

pub(super) fn leave_own_credentials_alone(case: &Case, expected: &mut Value) {
    for container in containers_mut(expected) {
        let both =
            |admitted: &Value| variable(admitted, ROLE_ARN).is_some() && variable(admitted, TOKEN_FILE).is_some();
        if admitted(case, container).is_some_and(both) {
            restore(case, container);
        }
    }
}

pub(super) fn leave_indirect_roles_alone(case: &Case, expected: &mut Value) {
    for container in containers_mut(expected) {
        let indirect = |admitted: &Value| {
            variable(admitted, ROLE_ARN)
                .is_some_and(|role| role["value"].as_str().is_none_or(|text| text.contains("$(")))
        };
        if admitted(case, container).is_some_and(indirect) {
            restore(case, container);
        }
    }
}

pub(super) fn complete_half_pairs(case: &Case, expected: &mut Value) {
    let windows = [
        &case.pod["spec"]["os"]["name"],
        &case.pod["spec"]["nodeSelector"]["kubernetes.io/os"],
    ];
    let windows = windows.into_iter().any(|name| name == "windows");
    for container in containers_mut(expected) {
        let half = case
            .unskipped()
            .find(|admitted| admitted["name"] == container["name"])
            .and_then(
                |admitted| match (variable(admitted, ROLE_ARN), variable(admitted, TOKEN_FILE)) {
                    (Some(role), None) if role["value"].is_string() => Some(TOKEN_FILE),
                    (None, Some(_)) => Some(ROLE_ARN),
                    _ => None,
                },
            );
        let Some(missing) = half.filter(|missing| variable(container, missing).is_none()) else {
            continue;
        };
        let file = format!("{MOUNT_PATH}/token");
        let value = match missing {
            ROLE_ARN => case.annotation("role-arn").unwrap_or_default().to_owned(),
            _ if windows => format!("C:{}", file.replace('/', "\\")),
            _ => file,
        };
        push(container, "env", json!({"name": missing, "value": value}));
        let own_file = variable(container, TOKEN_FILE).and_then(|file| file["value"].as_str());
        let needs_token = own_file.is_some_and(|path| path.replace('\\', "/").contains(MOUNT_PATH));
        if !items(&container["volumeMounts"]).any(|mount| mount["name"] == VOLUME) && needs_token {
            push(
                container,
                "volumeMounts",
                json!({"name": VOLUME, "readOnly": true, "mountPath": MOUNT_PATH}),
            );
        }
    }
}

pub(super) fn drop_unused_volume(case: &Case, expected: &mut Value) {
    let ours = |object: &Value| object["name"] == VOLUME;
    let mounted = containers(expected).any(|container| items(&container["volumeMounts"]).any(ours));
    let admitted = items(&case.pod["spec"]["volumes"]).any(ours);
    if let Some(volumes) = expected.pointer_mut("/spec/volumes").and_then(Value::as_array_mut)
        && !mounted
        && !admitted
    {
        volumes.retain(|volume| !ours(volume));
    }
}

pub(super) fn move_to_our_path(case: &Case, expected: &mut Value) {
    let Some(path) = case.webhook_state.get(MOUNT_PATH_FLAG) else {
        return;
    };
    let theirs = path.trim_end_matches('/');
    for container in containers_mut(expected) {
        for mount in items_mut(container, "volumeMounts").filter(|mount| mount["name"] == VOLUME) {
            mount["mountPath"] = json!(MOUNT_PATH);
        }
        for variable in items_mut(container, "env").filter(|variable| variable["name"] == TOKEN_FILE) {
            let (unix, windows) = (
                format!("{theirs}/token"),
                format!("C:{}\\token", theirs.replace('/', "\\")),
            );
            if variable["value"] == unix {
                variable["value"] = json!(format!("{MOUNT_PATH}/token"));
            } else if variable["value"] == windows {
                variable["value"] = json!(format!("C:{}\\token", MOUNT_PATH.replace('/', "\\")));
            }
        }
    }
}

/// A container as it was admitted, by its name: init containers and containers have no name twice.
fn admitted<'a>(case: &'a Case, container: &Value) -> Option<&'a Value> {
    containers(&case.pod).find(|admitted| admitted["name"] == container["name"])
}

fn restore(case: &Case, container: &mut Value) {
    if let Some(admitted) = admitted(case, container) {
        *container = normalised(admitted.clone());
    }
}
