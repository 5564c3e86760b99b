//! The largest policies that are accepted, and larger ones.

use super::Complaint;
use serde_json::{Value, json};

const ROLE: &str = "arn:aws:iam::111122223333:role/orders";

fn many(count: usize, text: impl Fn(usize) -> String) -> Vec<String> {
    (0..count).map(text).collect()
}

/// As many labels with keys of 50 characters and values of 63 as are asked for.
fn labels(count: usize) -> Value {
    let keys = many(count, |number| format!("{}{number:02}", "k".repeat(48)));
    keys.into_iter().map(|key| (key, json!("v".repeat(63)))).collect()
}

/// The largest policy that the schema allows, of the characters that take the most bytes of JSON.
pub(crate) fn longest(cluster: bool) -> Value {
    let role = |number: usize| format!("arn:aws:iam::111122223333:role/{}/{number:064}", "\"".repeat(416));
    let tags = many(4, |number| format!("{}{number}", "𝐀".repeat(127)));
    let template = "${namespace}".repeat(21);
    let containers = many(23, |number| format!("{number:063}"));
    let mut spec = json!({
        "description": "\u{1}".repeat(256),
        "subjects": [
            {"serviceAccounts": many(31, |number| format!("{}{number:03}*", "s".repeat(246))), "podSelector": {"matchLabels": labels(1)}},
        ],
        "roles": {"allowed": many(3, role), "default": role(2)},
        "audiences": {"allowed": many(4, |number| format!("{}{number}", "\"".repeat(249))), "default": format!("{}3", "\"".repeat(249))},
        "token": {"source": "Issuer", "subjectFormat": "ServiceAccount", "algorithm": "ES384", "expirationSeconds": 86400},
        "claims": {
            "principalTags": tags.iter().map(|key| (key.clone(), json!("𝐀".repeat(85)))).collect::<Value>(),
            "transitiveTagKeys": tags,
            "sourceIdentity": template,
            "context": many(8, |number| format!("{number:064}")).into_iter().map(|key| (key, json!("v".repeat(26)))).collect::<Value>(),
        },
        "aws": {
            "region": "eu-central-1", "roleSessionName": template, "sts": {"endpoints": "Regional"},
            "roleChain": [{"roleArn": format!("arn:aws:iam::111122223333:role/{}/r", "p".repeat(230)), "externalId": "e".repeat(425), "roleSessionName": template}],
        },
        "delivery": {"type": "Profile", "profile": {"profiles": many(2, |number| format!("{number:064}")).into_iter().map(|name| json!({
            "name": name, "region": "eu-central-1", "roleArn": format!("arn:aws:iam::111122223333:role/{}/r", "p".repeat(260)),
            "roleChain": [{"roleArn": format!("arn:aws:iam::111122223333:role/{}/r", "p".repeat(260)), "externalId": "e".repeat(190)}],
        })).collect::<Value>()}},
        "containers": {"include": containers, "exclude": containers},
        "disabled": false,
        "fallback": false,
        "onExpiry": "Evict",
        "expiresAt": "2027-01-01T00:00:00Z",
        "activeSchedule": {"cron": "0,15,30,45 8 * * 1-5", "duration": "10h", "timeZone": "Europe/Berlin"},
    });
    if cluster {
        spec["namespaceSelector"] = json!({"matchLabels": labels(12)});
    }
    spec
}

/// Policies of which one part is longer in all than the schema allows, though each of its texts is not.
pub(crate) fn too_long() -> Vec<(Value, Complaint)> {
    let with = |part: &str, value: Value| {
        let mut spec = json!({"roles": {"default": ROLE}});
        spec[part] = value;
        spec
    };
    let names = |count| json!({"serviceAccounts": many(count, |number| format!("{}{number:03}", "s".repeat(250)))});
    let role = |number: usize| format!("arn:aws:iam::111122223333:role/{}/{number:064}", "p".repeat(416));
    let mut tags = with(
        "claims",
        json!({"principalTags": many(8, |number| format!("{number:0120}")).into_iter().map(|key| (key, json!("x"))).collect::<Value>()}),
    );
    tags["token"] = json!({"source": "Issuer"});
    let mut context = with(
        "claims",
        json!({"context": many(10, |number| format!("{number:064}")).into_iter().map(|key| (key, json!("x".repeat(7)))).collect::<Value>()}),
    );
    context["token"] = json!({"source": "Issuer"});
    let hop = |length: usize| json!({"roleArn": ROLE, "externalId": "e".repeat(length)});
    let mut chain = with("delivery", json!({"type": "Profile"}));
    chain["aws"] = json!({"roleChain": [hop(500), hop(500)]});
    let profiles: Value = (0..3)
        .map(|number| json!({"name": format!("p{number}"), "region": "eu-central-1", "roleChain": [hop(700)]}))
        .collect();
    vec![
        (
            with("subjects", json!([names(20), names(20)])),
            ("spec.subjects", "at most 8192 characters"),
        ),
        (
            with(
                "subjects",
                json!(vec![json!({"podSelector": {"matchLabels": labels(12)}}); 8]),
            ),
            ("spec.subjects", "at most 8192 characters"),
        ),
        (
            with("subjects", json!([{"podSelector": {"matchLabels": labels(16)}}])),
            ("spec.subjects[0].podSelector", "at most 1536 characters"),
        ),
        (
            with("roles", json!({"allowed": many(5, role)})),
            ("spec.roles.allowed", "at most 2048 characters"),
        ),
        (
            with(
                "audiences",
                json!({"allowed": many(5, |number| format!("{number:0250}"))}),
            ),
            ("spec.audiences.allowed", "at most 1024 characters"),
        ),
        (
            with(
                "containers",
                json!({"include": many(30, |number| format!("{number:063}"))}),
            ),
            ("spec.containers.include", "at most 1536 characters"),
        ),
        (tags, ("spec.claims.principalTags", "at most 896 characters")),
        (context, ("spec.claims.context", "at most 768 characters")),
        (chain, ("spec.aws.roleChain", "at most 1024 characters")),
        (
            with(
                "delivery",
                json!({"type": "Profile", "profile": {"profiles": profiles}}),
            ),
            ("spec.delivery.profile.profiles", "at most 2048 characters"),
        ),
    ]
}
