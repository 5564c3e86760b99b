//! The types of texts in the schema, with the rules that the API server checks.
//!
//! A rule is CEL rather than a `pattern` wherever a person may get it wrong, since only CEL has a message of its own. Every
//! text and list has a bound: the API server refuses a definition whose rules could cost too much.

use kube::core::Rule;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use tokenscope_core::delivery::{MOST_POLICY_ARNS, MOST_POLICY_BYTES, MOST_STS_REGIONS};

use super::size;
use crate::messages;

/// What a template may speak of, as the rule's own parser knows it.
macro_rules! variable {
    () => {
        r"\$\{(namespace|serviceAccount|pod\.name|pod\.uid|(namespace|pod)\.labels\['[A-Za-z0-9._/-]+'\])\}"
    };
}

/// A `${` that is no variable is refused; `$${` stands for `${`.
const KNOWS_ITS_VARIABLES: (&str, &str) = (
    concat!(
        "self.matches(r\"^([^$]|",
        variable!(),
        r"|\$\$+\{|\$+[^${])*\$*$",
        "\")"
    ),
    "has an unknown or unclosed variable: known are ${namespace}, ${namespace.labels['key']}, ${serviceAccount}, ${pod.name}, ${pod.uid}, ${pod.labels['key']}",
);

/// STS's characters of session names and source identities (AssumeRoleWithWebIdentity), around any variables.
const STS_NAME_CHARACTERS: (&str, &str) = (
    r#"self.matches(r"^([A-Za-z0-9_+=,.@-]|\$\{[^}]*\})*$")"#,
    messages::STS_NAME,
);

const STS_NAME_LENGTH: (&str, &str) = (
    "self.contains('${') || (self.size() >= 2 && self.size() <= 64)",
    messages::STS_NAME_LENGTH,
);

const ROLE_ARN: (&str, &str) = (
    r#"self.matches(r"^arn:aws(-[a-z0-9-]{0,30}[a-z0-9])?:iam::[0-9]{12}:role/([!-~]*/)?[A-Za-z0-9_+=,.@-]{1,64}$")"#,
    "should be the ARN of an IAM role without wildcards, arn:<partition>:iam::<account of 12 digits>:role/<path and name>, such as arn:aws:iam::111122223333:role/shop/orders",
);

const ROLE_PATTERN: (&str, &str) = (
    r#"self.matches(r"^arn:aws(-[a-z0-9-]{0,30}[a-z0-9])?:iam::[0-9]{12}:role/([!-~]*/)?[A-Za-z0-9_+=,.@*-]{1,64}$")"#,
    "should be the ARN of an IAM role, such as arn:aws:iam::111122223333:role/shop/orders, in which * may stand only in the role's path and name, such as arn:aws:iam::111122223333:role/shop/*",
);

/// What every SDK reads as it is in a config file ([`tokenscope_core::delivery::is_plain`]).
const PLAIN: (&str, &str) = (r#"self.matches(r"^[A-Za-z0-9_+=,.@:/-]+$")"#, messages::PLAIN_ROLE);

/// AWS STS API reference, AssumeRole.
const EXTERNAL_ID: (&str, &str) = (
    r#"self.matches(r"^[A-Za-z0-9_+=,.@:/-]{2,}$")"#,
    "should have 2 to 1224 letters, digits and _+=,.@:/-, as AWS STS demands of an external id",
);

/// STS takes more characters; these take at most 2 bytes of JSON each.
const POLICY_DOCUMENT: (&str, &str) = (
    r#"self.matches(r"^\s*\{[\t\n\r -~]*\}\s*$")"#,
    messages::POLICY_DOCUMENT,
);

const POLICY_ARN: (&str, &str) = (
    r#"self.matches(r"^arn:aws(-[a-z0-9-]{0,30}[a-z0-9])?:iam::(aws|[0-9]{12}):policy/([A-Za-z0-9_+=,.@/-]*/)?[A-Za-z0-9_+=,.@-]{1,128}$")"#,
    "should be the ARN of a managed IAM policy, such as arn:aws:iam::aws:policy/ReadOnlyAccess",
);

const PROFILE_NAME: (&str, &str) = (
    r#"self.matches(r"^[A-Za-z0-9_-]+$") && self != 'default' && !self.startsWith('tokenscope-')"#,
    "should have 1 to 64 letters, digits, - and _, and be neither default nor begin with tokenscope-, which are tokenscope's own",
);

pub(super) const AUDIENCE: (&str, &str) = (
    r#"self.matches(r"^[!-~]+$")"#,
    "should have 1 to 255 printable ASCII characters without spaces, such as sts.amazonaws.com",
);

/// As [`tokenscope_core::Region`] has it.
const REGION: (&str, &str) = (
    r#"self.matches(r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$") && !self.matches(r"^[0-9]+$")"#,
    "should have 1 to 32 lower case letters, digits and hyphens, begin and end with a letter or digit, and be no number, such as eu-central-1",
);

/// As [`tokenscope_core::Region`] tells zones and their IDs.
const NO_ZONE: (&str, &str) = (
    r#"!self.matches(r"^[a-z]{2,}(-[a-z]{2,})+-[0-9]+([a-z]|-[a-z0-9-]*[0-9][a-z]|-[a-z0-9-]*[a-z][a-z0-9-]*[0-9])$") && !self.matches(r"^[a-z]{2,5}[0-9]-az[0-9]+$")"#,
    "should be a region and not a zone: eu-central-1, not eu-central-1a",
);

/// SPIFFE-ID, section 2: lower case, without port, query and fragment, and no part of the path is empty, `.` or `..`.
const SPIFFE_ID: (&str, &str) = (
    r#"self.matches(r"^spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+$") && !self.matches(r"/[.]{1,2}(/|$)")"#,
    "should be the SPIFFE ID of a workload, spiffe://<trust domain>/<path>, such as spiffe://example.org/ns/shop/sa/orders",
);

const TRUST_DOMAIN: (&str, &str) = (
    r#"self.matches(r"^[a-z0-9._-]+$")"#,
    "should be a trust domain without spiffe://: 1 to 255 lower case letters, digits, dots, hyphens and underscores, such as example.org",
);

const HINT: (&str, &str) = (
    r#"self.matches(r"^[^\x00-\x1f\x7f-\x{9f}]+$")"#,
    "should have 1 to 128 characters and no control characters",
);

const SERVICE_ACCOUNT_GLOB: (&str, &str) = (
    r#"self.matches(r"^[a-z0-9*]([a-z0-9.*-]*[a-z0-9*])?$")"#,
    messages::SERVICE_ACCOUNT,
);

const CONTAINER_GLOB: (&str, &str) = (
    r#"self.matches(r"^[a-z0-9*]([a-z0-9*-]*[a-z0-9*])?$")"#,
    messages::CONTAINER,
);

/// Characters of session tags (IAM API reference, Tag).
const TAG_CHARACTERS: &str = r"[\p{L}\p{Z}\p{N}_.:/=+@-]";

const LABEL_VALUE: (&str, &str) = (
    r#"self.matches(r"^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$")"#,
    "should be a label's value: at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends",
);

const LABEL_KEY: &str = r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$";

/// The most characters of a role's ARN. IAM would take a path of 511; with more than this here, the rule that compares
/// the default with 32 patterns would exceed the API server's budget.
const ROLE_LENGTH: u32 = 512;

/// The ARN of a role.
pub(super) fn role_arn(_: &mut SchemaGenerator) -> Schema {
    text(ROLE_LENGTH, &[ROLE_ARN])
}

/// A text for people. A control character takes 6 bytes of JSON, but for those that are lines and tabs.
pub(super) fn description(_: &mut SchemaGenerator) -> Schema {
    text(
        256,
        &[(
            r#"self.matches(r"^[^\x00-\x08\x0b\x0c\x0e-\x1f]*$")"#,
            "should have no control characters but tabs and ends of lines",
        )],
    )
}

/// Roles, exact or with `*`.
pub(super) fn role_patterns(_: &mut SchemaGenerator) -> Schema {
    within(set(32, &text(ROLE_LENGTH, &[ROLE_PATTERN])), size::ROLES)
}

/// A role in a config file.
pub(super) fn plain_role_arn(_: &mut SchemaGenerator) -> Schema {
    text(ROLE_LENGTH, &[ROLE_ARN, PLAIN])
}

pub(super) fn external_id(_: &mut SchemaGenerator) -> Schema {
    text(1224, &[EXTERNAL_ID])
}

pub(super) fn policy_document(_: &mut SchemaGenerator) -> Schema {
    text(MOST_POLICY_BYTES, &[POLICY_DOCUMENT])
}

pub(super) fn policy_arns(_: &mut SchemaGenerator) -> Schema {
    set(MOST_POLICY_ARNS, &text(512, &[POLICY_ARN]))
}

pub(super) fn sts_regions(_: &mut SchemaGenerator) -> Schema {
    set(MOST_STS_REGIONS, &text(32, &[REGION, NO_ZONE]))
}

pub(super) fn profile_name(_: &mut SchemaGenerator) -> Schema {
    text(64, &[PROFILE_NAME])
}

pub(super) fn audience(_: &mut SchemaGenerator) -> Schema {
    text(255, &[AUDIENCE])
}

pub(super) fn audiences(_: &mut SchemaGenerator) -> Schema {
    within(set(32, &text(255, &[AUDIENCE])), size::AUDIENCES)
}

pub(super) fn spiffe_id(_: &mut SchemaGenerator) -> Schema {
    text(1024, &[SPIFFE_ID])
}

pub(super) fn trust_domain(_: &mut SchemaGenerator) -> Schema {
    text(255, &[TRUST_DOMAIN])
}

pub(super) fn hint(_: &mut SchemaGenerator) -> Schema {
    text(128, &[HINT])
}

pub(super) fn region(_: &mut SchemaGenerator) -> Schema {
    text(32, &[REGION, NO_ZONE])
}

pub(super) fn service_accounts(_: &mut SchemaGenerator) -> Schema {
    set(64, &text(253, &[SERVICE_ACCOUNT_GLOB]))
}

pub(super) fn containers(_: &mut SchemaGenerator) -> Schema {
    within(set(64, &text(63, &[CONTAINER_GLOB])), size::CONTAINERS)
}

pub(super) fn source_identity(_: &mut SchemaGenerator) -> Schema {
    text(256, &[KNOWS_ITS_VARIABLES, STS_NAME_CHARACTERS, STS_NAME_LENGTH])
}

pub(super) fn role_session_name(_: &mut SchemaGenerator) -> Schema {
    text(
        256,
        &[
            KNOWS_ITS_VARIABLES,
            STS_NAME_CHARACTERS,
            STS_NAME_LENGTH,
            (
                "self == '${pod.name}' || !(self.contains('${pod.name}') || self.contains('${pod.uid}'))",
                messages::SESSION_NAME,
            ),
        ],
    )
}

/// Session tags: templates by key. AWS compares keys without regard to case and reserves the prefix `aws:` (IAM user
/// guide, "Tagging rules").
pub(super) fn principal_tags(_: &mut SchemaGenerator) -> Schema {
    let key_characters = format!(r#"self.all(key, key.matches(r"^{TAG_CHARACTERS}{{1,128}}$"))"#);
    let value_characters = format!(r#"self.matches(r"^({TAG_CHARACTERS}|\$\{{[^}}]*\}})*$")"#);
    let value = text(
        512,
        &[
            KNOWS_ITS_VARIABLES,
            (&value_characters, messages::TAG_VALUE),
            ("self.contains('${') || self.size() <= 256", messages::TAG_VALUE_LENGTH),
            ("!self.lowerAscii().startsWith('aws:')", messages::TAG_VALUE_OF_AWS),
        ],
    );
    json_schema!({
        "type": "object",
        "maxProperties": 50,
        "additionalProperties": value,
        "x-kubernetes-validations": rules(&[
            (
                &key_characters,
                messages::TAG_KEY,
            ),
            (
                "self.all(key, !key.lowerAscii().startsWith('aws:'))",
                messages::TAG_KEY_OF_AWS,
            ),
            (
                "self.all(key, self.exists_one(other, other.lowerAscii() == key.lowerAscii()))",
                messages::TAG_KEY_TWICE,
            ),
            size::PRINCIPAL_TAGS,
        ]),
    })
}

/// Flat claims for an IAM OIDC provider's ContextProvider: at most 10 keys, values of at most 128 characters.
pub(super) fn context(_: &mut SchemaGenerator) -> Schema {
    let value = text(
        256,
        &[
            KNOWS_ITS_VARIABLES,
            (
                r#"self.matches(r"^([ !#-\[\]-~]|\$\{[^}]*\})*$")"#,
                messages::CONTEXT_VALUE,
            ),
            (
                "self.contains('${') || (self.size() >= 1 && self.size() <= 128)",
                messages::CONTEXT_VALUE_LENGTH,
            ),
        ],
    );
    json_schema!({
        "type": "object",
        "maxProperties": 10,
        "additionalProperties": value,
        "x-kubernetes-validations": rules(&[
            (r#"self.all(key, key.matches(r"^[A-Za-z0-9_]{1,64}$"))"#, messages::CONTEXT_KEY),
            size::CONTEXT,
        ]),
    })
}

pub(super) fn tag_keys(_: &mut SchemaGenerator) -> Schema {
    set(50, &text(128, &[]))
}

/// Five fields with their own bounds: a day of the month that no month has still is the operator's to find.
pub(super) fn cron(_: &mut SchemaGenerator) -> Schema {
    let field = |value: &str| format!(r"(\*|{value}(-{value})?)(/[0-9]+)?(,(\*|{value}(-{value})?)(/[0-9]+)?)*");
    let fields = [
        field("[0-5]?[0-9]"),
        field("(2[0-3]|[01]?[0-9])"),
        field("(L|(3[01]|[12][0-9]|0?[1-9])W?)"),
        field("(1[0-2]|0?[1-9]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"),
        field("([0-7]|sun|mon|tue|wed|thu|fri|sat)(L|#[1-5])?"),
    ];
    let rule = format!(r#"self.matches(r"^(?i)\s*{}\s*$")"#, fields.join(r"\s+"));
    text(
        128,
        &[(
            &rule,
            "should be five cron fields: minute (0-59), hour (0-23), day of month (1-31), month (1-12), day of week (0-7 or SUN-SAT), such as 0 8 * * 1-5",
        )],
    )
}

pub(super) fn window(_: &mut SchemaGenerator) -> Schema {
    text(
        16,
        &[(
            r#"self.matches(r"^([0-9]{1,3}h)?([0-9]{1,5}m)?$") && duration(self) >= duration('1m') && duration(self) <= duration('744h')"#,
            "should be hours and minutes from 1m to 744h (31 days), such as 10h or 1h30m",
        )],
    )
}

pub(super) fn time_zone(_: &mut SchemaGenerator) -> Schema {
    text(
        64,
        &[(
            r#"self.matches(r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$") && timestamp('2000-01-01T00:00:00Z').getHours(self) >= 0"#,
            "should be an IANA time zone, such as Europe/Berlin or UTC",
        )],
    )
}

/// A moment. With `format: date-time` the API server's message would not say what is right.
pub(super) fn moment(_: &mut SchemaGenerator) -> Schema {
    text(
        40,
        &[(
            r#"self.matches(r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$") && timestamp(self) > timestamp('1970-01-01T00:00:00Z')"#,
            messages::MOMENT,
        )],
    )
}

pub(super) fn match_labels(_: &mut SchemaGenerator) -> Schema {
    let keys = format!(r#"self.all(key, key.matches(r"{LABEL_KEY}"))"#);
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": text(63, &[LABEL_VALUE]),
        "x-kubernetes-validations": rules(&[(&keys, &format!("every key {}", messages::LABEL_KEY))]),
    })
}

pub(super) fn label_key(_: &mut SchemaGenerator) -> Schema {
    let rule = format!(r#"self.matches(r"{LABEL_KEY}")"#);
    text(317, &[(&rule, messages::LABEL_KEY)])
}

pub(super) fn label_values(_: &mut SchemaGenerator) -> Schema {
    set(32, &text(63, &[LABEL_VALUE]))
}

pub(super) fn text(most: impl Serialize, checks: &[(&str, &str)]) -> Schema {
    let mut schema = json_schema!({"type": "string", "maxLength": most});
    if !checks.is_empty() {
        schema.insert("x-kubernetes-validations".into(), rules(checks));
    }
    schema
}

/// A list without duplicates.
fn set(most: impl Serialize, item: &Schema) -> Schema {
    json_schema!({"type": "array", "x-kubernetes-list-type": "set", "maxItems": most, "items": item})
}

/// A list whose sum has a bound too.
pub(super) fn within(mut list: Schema, check: (&str, &str)) -> Schema {
    list.insert("x-kubernetes-validations".into(), rules(&[check]));
    list
}

fn rules(checks: &[(&str, &str)]) -> serde_json::Value {
    checks
        .iter()
        .map(|&(rule, message)| serde_json::to_value(Rule::new(rule).message(message)).unwrap_or_default())
        .collect()
}
