//! Claims that are wrong.

use super::BadSpec;

pub(super) const BAD: &[BadSpec] = &[
    (
        "context without the issuer",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, claims: {context: {team: a}}}",
        ("spec.claims", "should be left out unless token.source is Issuer"),
    ),
    (
        "a context key with a dash",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, claims: {context: {'cost-center': a}}}",
        (
            "spec.claims.context",
            "every key should have 1 to 64 letters, digits and _",
        ),
    ),
    (
        "a context value with a quotation mark",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, claims: {context: {team: 'a\"b'}}}",
        ("spec.claims.context[team]", "only printable ASCII characters"),
    ),
    (
        "a context value with an umlaut",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, claims: {context: {team: 'ä'}}}",
        ("spec.claims.context[team]", "only printable ASCII characters"),
    ),
    (
        "an empty context value",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, claims: {context: {team: ''}}}",
        ("spec.claims.context[team]", "should have 1 to 128 characters"),
    ),
    (
        "a context value with an unknown variable",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, claims: {context: {team: '${pod.label}'}}}",
        ("spec.claims.context[team]", "unknown"),
    ),
    (
        "more context keys than IAM takes",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, claims: {context: {a: x, b: x, c: x, d: x, e: x, f: x, g: x, h: x, i: x, j: x, k: x}}}",
        ("spec.claims.context", "at most 10"),
    ),
    (
        "claims without the issuer",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, claims: {sourceIdentity: orders}}",
        ("spec.claims", "should be left out unless token.source is Issuer"),
    ),
    (
        "tag keys that differ only by case",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, claims: {principalTags: {Team: a, team: b}}}",
        (
            "spec.claims.principalTags",
            "should differ by more than upper and lower case",
        ),
    ),
    (
        "a tag key of AWS's own",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, claims: {principalTags: {'AWS:x': a}}}",
        ("spec.claims.principalTags", "no key should start with aws:"),
    ),
    (
        "a tag key with a character that AWS doesn't take",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, claims: {principalTags: {'a*': a}}}",
        ("spec.claims.principalTags", "every key should have 1 to 128 letters"),
    ),
    (
        "a tag value of AWS's own",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, claims: {principalTags: {Team: 'aws:x'}}}",
        ("spec.claims.principalTags[Team]", "should not start with aws:"),
    ),
    (
        "a tag value with a character that AWS doesn't take",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, claims: {principalTags: {Team: 'a;b'}}}",
        (
            "spec.claims.principalTags[Team]",
            "should have only letters, digits, spaces",
        ),
    ),
    (
        "a transitive tag that isn't there",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, claims: {principalTags: {Team: a}, transitiveTagKeys: [team]}}",
        (
            "spec.claims.transitiveTagKeys",
            "should name only keys of claims.principalTags",
        ),
    ),
    (
        "an unknown variable",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, claims: {sourceIdentity: '${pod.namespace}'}}",
        ("spec.claims.sourceIdentity", "known are ${namespace}"),
    ),
    (
        "an unclosed variable",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, claims: {principalTags: {Team: '${namespace'}}}",
        ("spec.claims.principalTags[Team]", "unknown or unclosed variable"),
    ),
    (
        "a source identity with a colon",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, claims: {sourceIdentity: 'system:serviceaccount:a:b'}}",
        ("spec.claims.sourceIdentity", "only letters, digits and _+=,.@-"),
    ),
    (
        "a source identity of one character",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, claims: {sourceIdentity: a}}",
        ("spec.claims.sourceIdentity", "2 to 64 characters"),
    ),
];
