//! The largest policies that are accepted, and larger ones.

use serde_json::{Value, json};

use super::Complaint;

const ROLE: &str = "arn:aws:iam::111122223333:role/orders";

fn many(count: usize, text: impl Fn(usize) -> String) -> Vec<String> {
    (0..count).map(text).collect()
}

/// As many labels with keys of 50 characters and values of 63 as are asked for.
fn labels(count: usize) -> Value {
    let keys = many(count, |number| format!("{}{number:02}", "k".repeat(48)));
    keys.into_iter().map(|key| (key, json!("v".repeat(63)))).collect()
}

/// The largest policies that the schema allows, of the characters that take the most bytes of JSON: one for each delivery that has something of
/// its own.
pub(crate) fn longest(cluster: bool) -> [Value; 2] {
    let mut by_file = longest_but_delivery(cluster);
    by_file["delivery"] = json!({"type": "Profile", "profile": {"profiles": many(2, |number| format!("{number:064}")).into_iter().map(|name| json!({
        "name": name, "region": "eu-central-1", "roleArn": format!("arn:aws:iam::111122223333:role/{}/r", "p".repeat(260)),
        "roleChain": [{"roleArn": format!("arn:aws:iam::111122223333:role/{}/r", "p".repeat(260)), "externalId": "e".repeat(190)}],
    })).collect::<Value>()}});
    let mut served = longest_but_delivery(cluster);
    served["delivery"] = json!({"type": "Endpoint"});
    served["aws"]["sts"]["regions"] = json!(many(4, |number| format!("{}{number}", "r".repeat(31))));
    served["aws"]["sessionDurationSeconds"] = json!(3600);
    // A string of escaped quotation marks, of which each character takes two bytes.
    served["aws"]["sessionPolicy"] = json!({
        "inline": format!("{{\"\":\"{}\"}}", "\\\"".repeat(508)),
        "arns": many(4, |number| format!("arn:aws:iam::aws:policy/{}{number}", "a".repeat(103))),
    });
    [by_file, served]
}

fn longest_but_delivery(cluster: bool) -> Value {
    let role = |number: usize| format!("arn:aws:iam::111122223333:role/{}/{number:064}", "\"".repeat(416));
    let tags = many(4, |number| format!("{}{number}", "𝐀".repeat(127)));
    let template = "${namespace}".repeat(21);
    let containers = many(15, |number| format!("{number:063}"));
    let mut spec = json!({
        "description": "\"".repeat(256),
        "subjects": [
            {"serviceAccounts": many(23, |number| format!("{}{number:03}*", "s".repeat(246))), "podSelector": {"matchLabels": labels(1)}},
        ],
        "roles": {"allowed": many(3, role), "default": role(2)},
        "audiences": {"allowed": many(3, |number| format!("{}{number}", "\"".repeat(249))), "default": format!("{}2", "\"".repeat(249))},
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
        "outboundTokens": many(2, |number| format!("{number:04}")).into_iter().map(|name| json!({
            "name": name, "audience": "a".repeat(170), "source": "ServiceAccount", "expirationSeconds": 86400,
            "env": [{"name": format!("A{}", name), "value": "v".repeat(200)}],
        })).collect::<Value>(),
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

fn with(part: &str, value: Value) -> Value {
    let mut spec = json!({"roles": {"default": ROLE}});
    spec[part] = value;
    spec
}

/// Policies of which one part is longer in all than the schema allows, though each of its texts is not.
pub(crate) fn too_long() -> Vec<(Value, Complaint)> {
    let names = |count| json!({"serviceAccounts": many(count, |number| format!("{}{number:03}", "s".repeat(250)))});
    let role = |number: usize| format!("arn:aws:iam::111122223333:role/{}/{number:064}", "p".repeat(416));
    vec![
        (
            with("subjects", json!([names(20), names(20)])),
            ("spec.subjects", "at most 6144 characters"),
        ),
        (
            with(
                "subjects",
                json!(vec![json!({"podSelector": {"matchLabels": labels(12)}}); 8]),
            ),
            ("spec.subjects", "at most 6144 characters"),
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
            ("spec.audiences.allowed", "at most 768 characters"),
        ),
        (
            with(
                "containers",
                json!({"include": many(30, |number| format!("{number:063}"))}),
            ),
            ("spec.containers.include", "at most 1024 characters"),
        ),
    ]
    .into_iter()
    .chain(too_long_together())
    .collect()
}

/// Such policies of which other fields make the part one that is allowed at all.
fn too_long_together() -> Vec<(Value, Complaint)> {
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
    let mut served = with("delivery", json!({"type": "Endpoint"}));
    served["aws"] = json!({"sessionPolicy": {
        "inline": format!("{{\"a\": \"{}\"}}", "x".repeat(900)),
        "arns": many(6, |number| format!("arn:aws:iam::aws:policy/{number:0100}")),
    }});
    vec![
        (tags, ("spec.claims.principalTags", "at most 896 characters")),
        (context, ("spec.claims.context", "at most 768 characters")),
        (
            with(
                "outboundTokens",
                json!(
                    many(5, |number| format!("{number}"))
                        .into_iter()
                        .map(|name| json!({"name": name, "audience": "a".repeat(200)}))
                        .collect::<Value>()
                ),
            ),
            ("spec.outboundTokens", "at most 1024 characters"),
        ),
        (chain, ("spec.aws.roleChain", "at most 1024 characters")),
        (
            with(
                "delivery",
                json!({"type": "Profile", "profile": {"profiles": profiles}}),
            ),
            ("spec.delivery.profile.profiles", "at most 2048 characters"),
        ),
        (served, ("spec.aws.sessionPolicy", "at most 1536 characters")),
    ]
}
