//! Tokens for third parties that are wrong.

use super::BadSpec;

pub(super) const BAD: &[BadSpec] = &[
    (
        "a token that AWS would sign beside a token's file",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, outboundTokens: [{name: a, audience: b, source: AWS}]}",
        ("spec.outboundTokens", "unless delivery.type is Endpoint"),
    ),
    (
        "a token that AWS would sign beside a config file",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {region: eu-central-1}, delivery: {type: Profile}, outboundTokens: [{name: a, audience: b, source: AWS}]}",
        ("spec.outboundTokens", "unless delivery.type is Endpoint"),
    ),
    (
        "a token of AWS for more than an hour",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}, outboundTokens: [{name: a, audience: b, source: AWS, expirationSeconds: 3601}]}",
        (
            "spec.outboundTokens[0].expirationSeconds",
            "at most 3600 with source AWS",
        ),
    ),
    (
        "what AWS is asked for in a token of the cluster",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}, outboundTokens: [{name: a, audience: b, aws: {algorithm: ES384}}]}",
        ("spec.outboundTokens[0].aws", "unless source is AWS"),
    ),
    (
        "an algorithm that AWS does not sign with",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}, outboundTokens: [{name: a, audience: b, source: AWS, aws: {algorithm: ES256}}]}",
        ("spec.outboundTokens[0].aws.algorithm", "\"RS256\", \"ES384\""),
    ),
    (
        "scopes in a token of the role",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}, outboundTokens: [{name: a, audience: b, source: AWS, aws: {scope: read}}]}",
        (
            "spec.outboundTokens[0].aws.scope",
            "unless subjectMode is OriginIdentity",
        ),
    ),
    (
        "scopes with two spaces between",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}, outboundTokens: [{name: a, audience: b, source: AWS, aws: {subjectMode: OriginIdentity, scope: 'a  b'}}]}",
        ("spec.outboundTokens[0].aws.scope", "scopes between single spaces"),
    ),
    (
        "scopes with a comma",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}, outboundTokens: [{name: a, audience: b, source: AWS, aws: {subjectMode: OriginIdentity, scope: 'a,b'}}]}",
        ("spec.outboundTokens[0].aws.scope", "scopes between single spaces"),
    ),
    (
        "a token of the issuer beside one of the cluster",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, outboundTokens: [{name: a, audience: b, source: Issuer}]}",
        ("spec.outboundTokens", "unless token.source is Issuer"),
    ),
    (
        "a token whose name leaves its folder",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, outboundTokens: [{name: '..', audience: b}]}",
        ("spec.outboundTokens[0].name", "1 to 63 lower case letters"),
    ),
    (
        "a token without an audience",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, outboundTokens: [{name: a, audience: ''}]}",
        ("spec.outboundTokens[0].audience", "1 to 255 printable ASCII characters"),
    ),
    (
        "a token with a quotation mark in its audience",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, outboundTokens: [{name: a, audience: 'a\"b'}]}",
        ("spec.outboundTokens[0].audience", "no quotation marks"),
    ),
    (
        "an unknown party",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, outboundTokens: [{name: a, audience: b, preset: Google}]}",
        (
            "spec.outboundTokens[0].preset",
            "\"Anthropic\", \"Azure\", \"Databricks\", \"Snowflake\", \"Vault\"",
        ),
    ),
    (
        "a token that is too short",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, outboundTokens: [{name: a, audience: b, expirationSeconds: 60}]}",
        ("spec.outboundTokens[0].expirationSeconds", "600"),
    ),
    (
        "a variable with both a value and a source of one",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, outboundTokens: [{name: a, audience: b, env: [{name: A, value: x, valueFrom: File}]}]}",
        ("spec.outboundTokens[0].env[0]", "either value or valueFrom"),
    ),
    (
        "a variable without a value",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, outboundTokens: [{name: a, audience: b, env: [{name: A}]}]}",
        ("spec.outboundTokens[0].env[0]", "either value or valueFrom"),
    ),
    (
        "a variable of two lines",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, outboundTokens: [{name: a, audience: b, env: [{name: A, value: \"x\\ny\"}]}]}",
        ("spec.outboundTokens[0].env[0].value", "1 to 256 printable ASCII"),
    ),
    (
        "a variable in small letters",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, outboundTokens: [{name: a, audience: b, env: [{name: http_proxy, value: x}]}]}",
        ("spec.outboundTokens[0].env[0].name", "upper case letters"),
    ),
    (
        "a variable of the loader",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, outboundTokens: [{name: a, audience: b, env: [{name: LD_PRELOAD, value: x}]}]}",
        (
            "spec.outboundTokens[0].env[0].name",
            "should not be a name that AWS SDKs",
        ),
    ),
    (
        "a variable of AWS",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, outboundTokens: [{name: a, audience: b, env: [{name: AWS_ENDPOINT_URL, value: x}]}]}",
        (
            "spec.outboundTokens[0].env[0].name",
            "should not be a name that AWS SDKs",
        ),
    ),
    (
        "the search path",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, outboundTokens: [{name: a, audience: b, env: [{name: PATH, value: x}]}]}",
        (
            "spec.outboundTokens[0].env[0].name",
            "should not be a name that AWS SDKs",
        ),
    ),
    (
        "options of a runtime",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, outboundTokens: [{name: a, audience: b, env: [{name: ES_JAVA_OPTS, value: x}]}]}",
        (
            "spec.outboundTokens[0].env[0].name",
            "should not be a name that AWS SDKs",
        ),
    ),
];
