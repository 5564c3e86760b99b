//! Roles and tokens that are wrong.

use super::BadSpec;

pub(super) const BAD: &[BadSpec] = &[
    ("no roles", "{subjects: []}", ("spec.roles", "Required value")),
    (
        "roles that allow nothing",
        "{roles: {allowed: []}}",
        ("spec.roles", "should have allowed, default or both"),
    ),
    (
        "a default that is no ARN",
        "{roles: {default: orders}}",
        (
            "spec.roles.default",
            "such as arn:aws:iam::111122223333:role/shop/orders",
        ),
    ),
    (
        "a default that is a user",
        "{roles: {default: 'arn:aws:iam::111122223333:user/ann'}}",
        ("spec.roles.default", "should be the ARN of an IAM role"),
    ),
    (
        "a default of 11 digits",
        "{roles: {default: 'arn:aws:iam::11112222333:role/r'}}",
        ("spec.roles.default", "account of 12 digits"),
    ),
    (
        "a default of another cloud",
        "{roles: {default: 'arn:azure:iam::111122223333:role/r'}}",
        ("spec.roles.default", "should be the ARN of an IAM role"),
    ),
    (
        "a default with a star",
        "{roles: {default: 'arn:aws:iam::111122223333:role/*'}}",
        ("spec.roles.default", "without wildcards"),
    ),
    (
        "a pattern for any account",
        "{roles: {allowed: ['arn:aws:iam::111122223333:role/r', 'arn:aws:iam::*:role/r']}}",
        ("spec.roles.allowed[1]", "* may stand only in the role's path and name"),
    ),
    (
        "a pattern for any partition",
        "{roles: {allowed: ['arn:*:iam::111122223333:role/r']}}",
        ("spec.roles.allowed[0]", "* may stand only in the role's path and name"),
    ),
    (
        "a default that allowed doesn't cover",
        "{roles: {allowed: ['arn:aws:iam::111122223333:role/shop/*'], default: 'arn:aws:iam::111122223333:role/shopping/orders'}}",
        ("spec.roles.default", "should be one of the roles in roles.allowed"),
    ),
    (
        "a default that only an unescaped dot would cover",
        "{roles: {allowed: ['arn:aws:iam::111122223333:role/a.b'], default: 'arn:aws:iam::111122223333:role/axb'}}",
        ("spec.roles.default", "should be one of the roles in roles.allowed"),
    ),
    (
        "a default of another account than allowed",
        "{roles: {allowed: ['arn:aws:iam::111122223333:role/*'], default: 'arn:aws:iam::999922223333:role/r'}}",
        ("spec.roles.default", "should be one of the roles in roles.allowed"),
    ),
    (
        "the same role twice",
        "{roles: {allowed: ['arn:aws:iam::111122223333:role/r', 'arn:aws:iam::111122223333:role/r']}}",
        ("spec.roles.allowed[1]", "Duplicate value"),
    ),
    (
        "a token of less than ten minutes",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {expirationSeconds: 599}}",
        ("spec.token.expirationSeconds", "greater than or equal to 600"),
    ),
    (
        "a token of more than a day",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {expirationSeconds: 86401}}",
        ("spec.token.expirationSeconds", "less than or equal to 86400"),
    ),
    (
        "an expiration with a unit",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {expirationSeconds: 1h}}",
        ("spec.token.expirationSeconds", "must be of type integer"),
    ),
    (
        "an unknown source",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Vault}}",
        ("spec.token.source", "\"ServiceAccount\", \"SPIFFE\", \"Issuer\""),
    ),
    (
        "an expiration that SPIRE would decide",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: SPIFFE, expirationSeconds: 7200}}",
        (
            "spec.token.expirationSeconds",
            "should be left out with token.source SPIFFE",
        ),
    ),
    (
        "a SPIFFE identity without SPIFFE",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {spiffe: {hint: aws}}}",
        ("spec.token.spiffe", "should be left out unless token.source is SPIFFE"),
    ),
    (
        "a SPIFFE ID of another scheme",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: SPIFFE, spiffe: {spiffeId: 'https://example.org/a'}}}",
        (
            "spec.token.spiffe.spiffeId",
            "such as spiffe://example.org/ns/shop/sa/orders",
        ),
    ),
    (
        "a SPIFFE ID of a trust domain",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: SPIFFE, spiffe: {spiffeId: 'spiffe://example.org'}}}",
        ("spec.token.spiffe.spiffeId", "SPIFFE ID of a workload"),
    ),
    (
        "a SPIFFE ID with a slash at its end",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: SPIFFE, spiffe: {spiffeId: 'spiffe://example.org/a/'}}}",
        ("spec.token.spiffe.spiffeId", "SPIFFE ID of a workload"),
    ),
    (
        "a SPIFFE ID that goes up",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: SPIFFE, spiffe: {spiffeId: 'spiffe://example.org/a/../b'}}}",
        ("spec.token.spiffe.spiffeId", "SPIFFE ID of a workload"),
    ),
    (
        "a SPIFFE ID with a port",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: SPIFFE, spiffe: {spiffeId: 'spiffe://example.org:8443/a'}}}",
        ("spec.token.spiffe.spiffeId", "SPIFFE ID of a workload"),
    ),
    (
        "a trust domain with a scheme",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: SPIFFE, spiffe: {trustDomain: 'spiffe://example.org'}}}",
        ("spec.token.spiffe.trustDomain", "should be a trust domain"),
    ),
    (
        "a trust domain in capitals",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: SPIFFE, spiffe: {trustDomain: Example.org}}}",
        ("spec.token.spiffe.trustDomain", "should be a trust domain"),
    ),
    (
        "a trust domain that is not the ID's",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: SPIFFE, spiffe: {spiffeId: 'spiffe://example.org/a', trustDomain: example.com}}}",
        (
            "spec.token.spiffe.trustDomain",
            "should be the trust domain of token.spiffe.spiffeId",
        ),
    ),
    (
        "a hint of two lines",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: SPIFFE, spiffe: {hint: \"a\\nb\"}}}",
        ("spec.token.spiffe.hint", "no control characters"),
    ),
    (
        "an empty hint",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: SPIFFE, spiffe: {hint: ''}}}",
        ("spec.token.spiffe.hint", "1 to 128 characters"),
    ),
    (
        "an algorithm that AWS doesn't take",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer, algorithm: EdDSA}}",
        ("spec.token.algorithm", "\"RS256\", \"ES256\", \"ES384\""),
    ),
    (
        "an algorithm without the issuer",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {algorithm: ES256}}",
        (
            "spec.token.algorithm",
            "should be left out unless token.source is Issuer",
        ),
    ),
    (
        "a subject of the policy without the issuer",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {subjectFormat: Policy}}",
        (
            "spec.token.subjectFormat",
            "should not be Policy unless token.source is Issuer",
        ),
    ),
    (
        "an unknown subject",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer, subjectFormat: Pod}}",
        ("spec.token.subjectFormat", "\"ServiceAccount\", \"Policy\""),
    ),
];
