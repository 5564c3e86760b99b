//! The bound on the length of a whole policy.
//!
//! Every policy is kept in memory by the webhook and the operator, so a whole specification has less than 32 KiB of JSON
//! ([`crate::read::MOST_SPEC_BYTES`]). The bounds of single texts and lists would allow much more together, so the lists that
//! people size also have a bound on their sum. Each is several times what a policy of an ordinary team needs.
//!
//! In the longest policy, in bytes of JSON: description 1024 (256 characters, of which one takes up to 4), subjects 6144, roles
//! 2048 characters and a default of 512, 5120 in all (a quotation mark takes 2), audiences 768 and a default of 255, 2046; claims
//! 6900 with keys of transitive tags (896 characters, of which one takes up to 4) and 768 of context, containers 2144,
//! namespaceSelector 1536, roleChain 1024, outboundTokens 1024, and 2000 for all other texts and the fields' names. Beside it stands
//! what one delivery has and no other: profiles 2048, or sessionPolicy and sts.regions 2800 (1024 characters of inline take up to 2
//! each, the ARNs 512, and the regions 140). That is 31.8 KiB.

use kube::core::Rule;

/// The sum of a label selector's texts, with the quotation marks and words around them.
macro_rules! selector_size {
    ($selector:literal) => {
        concat!(
            "((has(", $selector, ".matchLabels) ? ", $selector,
            ".matchLabels.map(key, key.size() + ", $selector, ".matchLabels[key].size() + 6).sum() : 0) + (has(",
            $selector, ".matchExpressions) ? ", $selector,
            ".matchExpressions.map(each, each.key.size() + 48 + (has(each.values) ? each.values.map(value, value.size() + 3).sum() : 0)).sum() : 0))"
        )
    };
}

/// On `subjects`.
pub(super) fn subjects() -> serde_json::Value {
    rule(
        concat!(
            "self.map(subject, 80 + (has(subject.serviceAccounts) ? subject.serviceAccounts.map(name, name.size() + 3).sum() : 0)",
            " + (has(subject.podSelector) ? ",
            selector_size!("subject.podSelector"),
            " : 0)).sum() <= 6144",
        ),
        "should have at most 6144 characters in all subjects together: use * in names, or write several policies",
    )
}

/// On a label selector.
pub(super) const SELECTOR: (&str, &str) = (
    concat!(selector_size!("self"), " <= 1536"),
    "should have at most 1536 characters in all: use fewer labels and values",
);

/// On `roles.allowed`.
pub(super) const ROLES: (&str, &str) = (
    "self.map(role, role.size() + 3).sum() <= 2048",
    "should have at most 2048 characters in all roles together: use * in paths and names, or write several policies",
);

/// On `audiences.allowed`.
pub(super) const AUDIENCES: (&str, &str) = (
    "self.map(audience, audience.size() + 3).sum() <= 768",
    "should have at most 768 characters in all audiences together: list fewer",
);

/// On `claims.principalTags`.
pub(super) const PRINCIPAL_TAGS: (&str, &str) = (
    "self.map(key, key.size() + self[key].size() + 6).sum() <= 896",
    "should have at most 896 characters in all keys and values together: use fewer tags or shorter names",
);

/// On `claims.context`.
pub(super) const CONTEXT: (&str, &str) = (
    "self.map(key, key.size() + self[key].size() + 6).sum() <= 768",
    "should have at most 768 characters in all keys and values together: use fewer keys or shorter values",
);

/// The sum of a role chain's texts, with the quotation marks and words around them.
macro_rules! chain_size {
    ($chain:literal) => {
        concat!(
            $chain,
            ".map(hop, hop.roleArn.size() + 16 + (has(hop.externalId) ? hop.externalId.size() + 16 : 0) + (has(hop.roleSessionName) ? hop.roleSessionName.size() + 24 : 0)).sum()",
        )
    };
}

/// On `aws.roleChain` and that of a profile.
pub(super) const ROLE_CHAIN: (&str, &str) = (
    concat!(chain_size!("self"), " <= 1024"),
    "should have at most 1024 characters in all roles together: use shorter names or fewer roles",
);

/// On `aws.sessionPolicy`. STS takes 2048 characters (AWS STS API reference, AssumeRole).
pub(super) const SESSION_POLICY: (&str, &str) = (
    "(has(self.inline) ? self.inline.size() : 0) + (has(self.arns) ? self.arns.map(arn, arn.size()).sum() : 0) <= 1536",
    "should have at most 1536 characters in inline and arns together: shorten the document, or make it a managed policy",
);

/// On `delivery.profile.profiles`.
pub(super) const PROFILES: (&str, &str) = (
    concat!(
        "self.map(profile, profile.name.size() + profile.region.size() + 48 + (has(profile.roleArn) ? profile.roleArn.size() + 16 : 0)",
        " + (has(profile.roleChain) ? ",
        chain_size!("profile.roleChain"),
        " : 0)).sum() <= 2048",
    ),
    "should have at most 2048 characters in all profiles together: use shorter names or fewer profiles",
);

/// On `outboundTokens`: as many characters as their JSON has.
pub(super) const OUTBOUND: (&str, &str) = (
    concat!(
        "self.map(token, token.name.size() + token.audience.size() + 26 + (has(token.source) ? 26 : 0) + (has(token.preset) ? 22 : 0)",
        " + (has(token.aws) ? 71 + (has(token.aws.scope) ? token.aws.scope.size() : 0) : 0)",
        " + (has(token.expirationSeconds) ? 26 : 0) + (has(token.env) ? 9 + ",
        "token.env.map(each, each.name.size() + (has(each.value) ? each.value.size() + 23 : 34)).sum() : 0)).sum() <= 1024",
    ),
    "should have at most 1024 characters in all tokens together: use shorter names and values, or write several policies",
);

/// On `containers.include` and `containers.exclude`.
pub(super) const CONTAINERS: (&str, &str) = (
    "self.map(name, name.size() + 3).sum() <= 1024",
    "should have at most 1024 characters in all names together: use * in names",
);

fn rule(rule: &str, message: &str) -> serde_json::Value {
    let rule = Rule::new(rule).message(message);
    serde_json::json!([rule])
}
