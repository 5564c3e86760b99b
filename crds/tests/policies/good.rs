//! Specs that are right.

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
        "a config file with a role chain and further profiles",
        r#"
roles: {default: "arn:aws:iam::111122223333:role/r"}
aws:
  region: eu-central-1
  roleSessionName: "${pod.name}"
  roleChain:
  - {roleArn: "arn:aws:iam::444455556666:role/a/b+=,.@_-", externalId: "7f:3e/a=@b,c.d+e-_", roleSessionName: "${namespace}.x"}
  - {roleArn: "arn:aws:iam::777788889999:role/c"}
delivery:
  type: Profile
  profile:
    profiles:
    - {name: reports, region: us-east-1, roleArn: "arn:aws:iam::111122223333:role/reports"}
    - {name: Second_2, region: us-east-1, roleChain: [{roleArn: "arn:aws:iam::444455556666:role/a"}]}
"#,
    ),
    (
        "tokens for third parties",
        r#"
roles: {default: "arn:aws:iam::111122223333:role/r"}
token: {source: Issuer}
outboundTokens:
- name: claude
  audience: https://api.anthropic.com
  preset: Anthropic
  env:
  - {name: ANTHROPIC_FEDERATION_RULE_ID, value: "fdrl_1 $(X) 'a'"}
  - {name: MY_AUDIENCE, valueFrom: Audience}
- {name: data-1, audience: "//iam.example/x", source: Issuer, preset: Databricks, expirationSeconds: 900}
- {name: plain, audience: b, source: ServiceAccount, env: [{name: MY_TOKEN_FILE, valueFrom: File}]}
"#,
    ),
    (
        "a token for each party that has a preset",
        r#"
roles: {default: "arn:aws:iam::111122223333:role/r"}
outboundTokens:
- {name: claude, audience: https://api.anthropic.com, preset: Anthropic}
- {name: azure, audience: "api://AzureADTokenExchange", preset: Azure}
- {name: data, audience: https://dbc.example, preset: Databricks}
- {name: rows, audience: snowflakecomputing.com, preset: Snowflake}
- {name: vault, audience: https://vault.example, preset: Vault}
"#,
    ),
    (
        "tokens that AWS signs for third parties",
        r#"
roles: {default: "arn:aws:iam::111122223333:role/r"}
aws: {region: eu-central-1}
delivery: {type: Endpoint}
outboundTokens:
- {name: claude, audience: https://api.anthropic.com, source: AWS, preset: Anthropic}
- {name: short, audience: a, source: AWS, aws: {algorithm: ES384}, expirationSeconds: 600}
- {name: pod, audience: b, source: AWS, aws: {algorithm: RS256, subjectMode: OriginIdentity, scope: "orders:read [x]-~ !"}, expirationSeconds: 3600}
- {name: role, audience: c, source: AWS, aws: {subjectMode: AWSIdentity}}
"#,
    ),
    (
        "a config file with the default profile alone, and a token's file by name",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {region: eu-central-1}, delivery: {type: Profile}}",
    ),
    (
        "credentials that a sidecar serves, with a role chain and a session policy",
        r#"
roles: {default: "arn:aws:iam::111122223333:role/r"}
aws:
  region: eu-central-1
  sts: {regions: [eu-central-1, eu-west-1]}
  roleChain:
  - {roleArn: "arn:aws:iam::444455556666:role/a", externalId: "7f3e"}
  sessionDurationSeconds: 3600
  sessionPolicy:
    inline: |
      {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}
    arns: ["arn:aws:iam::aws:policy/ReadOnlyAccess", "arn:aws:iam::111122223333:policy/shop/orders"]
delivery: {type: Endpoint}
"#,
    ),
    (
        "an endpoint that says nothing else, and a long session",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}, aws: {sessionDurationSeconds: 43200, sessionPolicy: {}}}",
    ),
    (
        "tokens by audience",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, delivery: {type: Endpoint, endpoint: {aporetoTokens: true}}}",
    ),
    (
        "no tokens by audience, said of an endpoint of another source",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: SPIFFE}, delivery: {type: Endpoint, endpoint: {aporetoTokens: false}}}",
    ),
    (
        "delivery by a token's file",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: File}}",
    ),
    (
        "a delivery that says nothing",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {}}",
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
