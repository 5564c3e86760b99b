//! Policies, good and bad: for the reader here, and for a real API server in e2e/tests/schema.rs.

mod size;

pub(crate) use size::{longest, too_long};

/// A field's path as the message has it, and a part of what the message says would be right.
pub(crate) type Complaint = (&'static str, &'static str);

/// Specs that are right, as YAML.
pub(crate) const GOOD: &[(&str, &str)] = &[
    (
        "the smallest: a default role",
        "roles: {default: 'arn:aws:iam::111122223333:role/orders'}",
    ),
    (
        "no default",
        "roles: {allowed: ['arn:aws:iam::111122223333:role/shop/*', 'arn:aws-us-gov:iam::111122223333:role/a/b/*-reader']}",
    ),
    (
        "everything at once, as the documentation has it",
        r#"
description: orders may read its bucket
subjects:
- serviceAccounts: [orders, "orders-*"]
  podSelector:
    matchLabels: {app: orders, example.com/team: ""}
    matchExpressions:
    - {key: tier, operator: In, values: [web, batch]}
    - {key: canary, operator: DoesNotExist}
- {}
roles:
  allowed: ["arn:aws:iam::111122223333:role/shop/*"]
  default: arn:aws:iam::111122223333:role/shop/orders
audiences: {allowed: [sts.amazonaws.com, "https://example.com/x?y"], default: sts.amazonaws.com}
token: {source: Issuer, subjectFormat: Policy, expirationSeconds: 600, algorithm: ES384}
claims:
  principalTags: {Team: "${pod.labels['example.com/team']}", Namespace: "a ${namespace}/${namespace.labels['x']}", Ä: ä}
  transitiveTagKeys: [Team]
  sourceIdentity: "${namespace}.${serviceAccount}"
  context: {team: "${pod.labels['example.com/team']}", Stage_2: "a constant, (1)"}
aws: {region: eu-central-1, sts: {endpoints: Regional}, roleSessionName: "${pod.name}"}
containers: {include: ["app", "worker-*"], exclude: ["*-proxy"]}
disabled: true
fallback: true
expiresAt: "2027-01-01T00:00:00+01:00"
activeSchedule: {cron: "0 8 * * 1-5", duration: 10h, timeZone: Europe/Berlin}
"#,
    ),
    (
        "a default among patterns with characters that are special in regular expressions",
        "roles: {allowed: ['arn:aws:iam::111122223333:role/a.b+(c)[d]^$|\\?{2}/*'], default: 'arn:aws:iam::111122223333:role/a.b+(c)[d]^$|\\?{2}/r'}",
    ),
    (
        "a star in the middle, several stars, and one that takes slashes",
        "roles: {allowed: ['arn:aws:iam::111122223333:role/*/x-*-y'], default: 'arn:aws:iam::111122223333:role/a/b/x-1-y'}",
    ),
    (
        "cron with lists, steps, ranges and names",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, activeSchedule: {cron: '*/15 0,6-18/2 1,15 jan-MAR MON-Fri', duration: 1h30m}}",
    ),
    (
        "cron's last day, nearest weekday and n-th weekday",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, activeSchedule: {cron: '0 0 L,15W * 5#2,3L', duration: 744h}}",
    ),
    (
        "a session name without variables",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {roleSessionName: orders@shop}}",
    ),
    (
        "a session name of other variables",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {roleSessionName: \"${namespace}-${pod.labels['app.kubernetes.io/name']}\"}}",
    ),
    (
        "an empty tag value",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, claims: {principalTags: {Empty: ''}}}",
    ),
    (
        "the SPIFFE source",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: SPIFFE, expirationSeconds: 3600}}",
    ),
    (
        "a SPIFFE identity",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: SPIFFE, spiffe: {spiffeId: 'spiffe://example.org/ns/shop/sa/orders', hint: 'für AWS', trustDomain: example.org}}}",
    ),
    (
        "a subject of the service account, whoever signs",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {subjectFormat: ServiceAccount}}",
    ),
    (
        "the global endpoint of STS",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {sts: {endpoints: Global}}}",
    ),
    (
        "settings of STS that say nothing",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {sts: {}}}",
    ),
    (
        "a SPIFFE ID with dots and all that may be in it",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: SPIFFE, spiffe: {spiffeId: 'spiffe://a_b-1.example/...a/A-z_0.9'}}}",
    ),
];

/// Specs that are wrong, and the complaint about each.
pub(crate) const BAD: &[(&str, &str, Complaint)] = &[
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
    (
        "the field that sts.endpoints was",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {stsRegionalEndpoints: false}}",
        (
            "spec.aws.stsRegionalEndpoints",
            "was renamed: write aws.sts, {endpoints: Regional}",
        ),
    ),
    (
        "an unknown endpoint of STS",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {sts: {endpoints: regional}}}",
        ("spec.aws.sts.endpoints", "\"Regional\", \"Global\""),
    ),
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
    (
        "a session name with more than the pod's name",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {roleSessionName: '${namespace}-${pod.name}'}}",
        ("spec.aws.roleSessionName", "${pod.name} alone"),
    ),
    (
        "a session name with a slash",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {roleSessionName: '${namespace}/x'}}",
        ("spec.aws.roleSessionName", "only letters, digits and _+=,.@-"),
    ),
    (
        "a region with a capital",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {region: EU-central-1}}",
        ("spec.aws.region", "such as eu-central-1"),
    ),
    (
        "an audience with a space",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, audiences: {allowed: ['sts amazonaws']}}",
        ("spec.audiences.allowed[0]", "without spaces, such as sts.amazonaws.com"),
    ),
    (
        "a default audience that isn't allowed",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, audiences: {allowed: [a], default: b}}",
        ("spec.audiences.default", "should be one of audiences.allowed"),
    ),
    (
        "a service account that can't exist",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, subjects: [{}, {serviceAccounts: [Orders]}]}",
        (
            "spec.subjects[1].serviceAccounts[0]",
            "should be the name of a service account",
        ),
    ),
    (
        "a container that can't exist",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, containers: {include: [a.b]}}",
        ("spec.containers.include[0]", "should be the name of a container"),
    ),
    (
        "In without values",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, subjects: [{podSelector: {matchExpressions: [{key: a, operator: In}]}}]}",
        (
            "spec.subjects[0].podSelector.matchExpressions[0].values",
            "should have at least one value",
        ),
    ),
    (
        "Exists with values",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, subjects: [{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}]}",
        (
            "spec.subjects[0].podSelector.matchExpressions[0].values",
            "should be left out",
        ),
    ),
    (
        "a label that can't exist",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, subjects: [{podSelector: {matchLabels: {'a b': c}}}]}",
        ("spec.subjects[0].podSelector.matchLabels", "should be a label's key"),
    ),
    (
        "an expiry without a time zone",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, expiresAt: '2027-01-01T00:00:00'}",
        ("spec.expiresAt", "such as 2027-01-01T00:00:00Z"),
    ),
    (
        "an expiry on a day that February doesn't have",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, expiresAt: '2027-02-30T00:00:00Z'}",
        ("spec.expiresAt", "such as 2027-01-01T00:00:00Z"),
    ),
    (
        "a time zone that isn't there",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, activeSchedule: {cron: '0 8 * * 1', duration: 1h, timeZone: Mars/Olympus}}",
        ("spec.activeSchedule.timeZone", "such as Europe/Berlin"),
    ),
    (
        "cron of six fields",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, activeSchedule: {cron: '0 0 8 * * 1', duration: 1h}}",
        ("spec.activeSchedule.cron", "should be five cron fields"),
    ),
    (
        "cron at 25 o'clock",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, activeSchedule: {cron: '0 25 * * 1', duration: 1h}}",
        ("spec.activeSchedule.cron", "hour (0-23)"),
    ),
    (
        "a window of days",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, activeSchedule: {cron: '0 8 * * 1', duration: 2d}}",
        ("spec.activeSchedule.duration", "such as 10h or 1h30m"),
    ),
    (
        "a window of no length",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, activeSchedule: {cron: '0 8 * * 1', duration: 0m}}",
        ("spec.activeSchedule.duration", "from 1m to 744h"),
    ),
    (
        "a window of more than 31 days",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, activeSchedule: {cron: '0 8 * * 1', duration: 745h}}",
        ("spec.activeSchedule.duration", "from 1m to 744h"),
    ),
    (
        "a time zone with a space",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, activeSchedule: {cron: '0 8 * * 1', duration: 1h, timeZone: 'Central Europe'}}",
        ("spec.activeSchedule.timeZone", "such as Europe/Berlin"),
    ),
];
