//! Deliveries that are wrong.

use super::BadSpec;

pub(super) const BAD: &[BadSpec] = &[
    (
        "an unknown delivery",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Env}}",
        ("spec.delivery.type", "\"File\", \"Profile\""),
    ),
    (
        "profiles without a config file",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {profile: {profiles: [{name: a, region: r}]}}}",
        (
            "spec.delivery.profile",
            "should be left out unless delivery.type is Profile",
        ),
    ),
    (
        "a role chain without a config file",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {roleChain: [{roleArn: 'arn:aws:iam::444455556666:role/t'}]}}",
        (
            "spec.aws.roleChain",
            "should be left out unless delivery.type is Profile or Endpoint",
        ),
    ),
    (
        "a hop that is no role",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Profile}, aws: {roleChain: [{roleArn: t}]}}",
        ("spec.aws.roleChain[0].roleArn", "should be the ARN of an IAM role"),
    ),
    (
        "a hop with a comment in its path",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Profile}, aws: {roleChain: [{roleArn: 'arn:aws:iam::444455556666:role/a#b/t'}]}}",
        ("spec.aws.roleChain[0].roleArn", "should have only letters, digits"),
    ),
    (
        "a hop with a section in its path",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Profile}, aws: {roleChain: [{roleArn: 'arn:aws:iam::444455556666:role/t'}, {roleArn: 'arn:aws:iam::444455556666:role/[default]/t'}]}}",
        ("spec.aws.roleChain[1].roleArn", "should have only letters, digits"),
    ),
    (
        "a hop with a variable of the kubelet in its path",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Profile}, aws: {roleChain: [{roleArn: 'arn:aws:iam::444455556666:role/$(A)/t'}]}}",
        ("spec.aws.roleChain[0].roleArn", "should have only letters, digits"),
    ),
    (
        "an external id of two lines",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Profile}, aws: {roleChain: [{roleArn: 'arn:aws:iam::444455556666:role/t', externalId: \"a\\ncredential_process = x\"}]}}",
        (
            "spec.aws.roleChain[0].externalId",
            "as AWS STS demands of an external id",
        ),
    ),
    (
        "an external id with a comment",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Profile}, aws: {roleChain: [{roleArn: 'arn:aws:iam::444455556666:role/t', externalId: 'a ;b'}]}}",
        (
            "spec.aws.roleChain[0].externalId",
            "as AWS STS demands of an external id",
        ),
    ),
    (
        "an external id of one character",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Profile}, aws: {roleChain: [{roleArn: 'arn:aws:iam::444455556666:role/t', externalId: a}]}}",
        ("spec.aws.roleChain[0].externalId", "2 to 1224"),
    ),
    (
        "a hop's session name with the pod's UID",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Profile}, aws: {roleChain: [{roleArn: 'arn:aws:iam::444455556666:role/t', roleSessionName: '${pod.uid}'}]}}",
        ("spec.aws.roleChain[0].roleSessionName", "should be ${pod.name} alone"),
    ),
    (
        "a profile named default",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Profile, profile: {profiles: [{name: default, region: r}]}}}",
        ("spec.delivery.profile.profiles[0].name", "be neither default"),
    ),
    (
        "a profile with a name of ours",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Profile, profile: {profiles: [{name: tokenscope-1, region: r}]}}}",
        ("spec.delivery.profile.profiles[0].name", "tokenscope's own"),
    ),
    (
        "a profile that closes its section",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Profile, profile: {profiles: [{name: 'a]', region: r}]}}}",
        ("spec.delivery.profile.profiles[0].name", "1 to 64 letters"),
    ),
    (
        "a profile with a region of two lines",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Profile, profile: {profiles: [{name: a, region: \"r\\nx\"}]}}}",
        ("spec.delivery.profile.profiles[0].region", "such as eu-central-1"),
    ),
    (
        "a profile with a role that no file can have",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Profile, profile: {profiles: [{name: a, region: r, roleArn: 'arn:aws:iam::444455556666:role/;/t'}]}}}",
        (
            "spec.delivery.profile.profiles[0].roleArn",
            "should have only letters, digits",
        ),
    ),
    (
        "a chain of a profile with a wrong id",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Profile, profile: {profiles: [{name: a, region: r, roleChain: [{roleArn: 'arn:aws:iam::444455556666:role/t', externalId: 'ä2'}]}]}}}",
        (
            "spec.delivery.profile.profiles[0].roleChain[0].externalId",
            "as AWS STS demands of an external id",
        ),
    ),
    (
        "profiles with an endpoint",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint, profile: {profiles: [{name: a, region: r}]}}}",
        (
            "spec.delivery.profile",
            "should be left out unless delivery.type is Profile",
        ),
    ),
    (
        "a session policy without an endpoint",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {sessionPolicy: {inline: '{}'}}}",
        (
            "spec.aws.sessionPolicy",
            "should be left out unless delivery.type is Endpoint",
        ),
    ),
    (
        "a session policy with a config file",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Profile}, aws: {sessionPolicy: {arns: ['arn:aws:iam::aws:policy/ReadOnlyAccess']}}}",
        (
            "spec.aws.sessionPolicy",
            "should be left out unless delivery.type is Endpoint",
        ),
    ),
    (
        "a session's length without an endpoint",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {sessionDurationSeconds: 3600}}",
        (
            "spec.aws.sessionDurationSeconds",
            "should be left out unless delivery.type is Endpoint",
        ),
    ),
    (
        "regions of STS with a config file",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Profile}, aws: {sts: {regions: [eu-central-1]}}}",
        (
            "spec.aws.sts.regions",
            "should be left out unless delivery.type is Endpoint",
        ),
    ),
    (
        "a session that AWS cuts to an hour",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}, aws: {sessionDurationSeconds: 7200, roleChain: [{roleArn: 'arn:aws:iam::444455556666:role/t'}]}}",
        (
            "spec.aws.sessionDurationSeconds",
            "should be at most 3600 with aws.roleChain",
        ),
    ),
    (
        "a session that is too short",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}, aws: {sessionDurationSeconds: 900}}",
        ("spec.aws.sessionDurationSeconds", "3600"),
    ),
    (
        "a session that is too long",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}, aws: {sessionDurationSeconds: 43201}}",
        ("spec.aws.sessionDurationSeconds", "43200"),
    ),
    (
        "a session policy that is no object",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}, aws: {sessionPolicy: {inline: '[]'}}}",
        ("spec.aws.sessionPolicy.inline", "should be a JSON object"),
    ),
    (
        "a session policy of other characters",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}, aws: {sessionPolicy: {inline: '{\"ä\": 1}'}}}",
        ("spec.aws.sessionPolicy.inline", "printable ASCII characters"),
    ),
    (
        "a session policy that is a role",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}, aws: {sessionPolicy: {arns: ['arn:aws:iam::111122223333:role/r']}}}",
        (
            "spec.aws.sessionPolicy.arns[0]",
            "should be the ARN of a managed IAM policy",
        ),
    ),
    (
        "a policy's ARN with a variable of the kubelet",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}, aws: {sessionPolicy: {arns: ['arn:aws:iam::111122223333:policy/$(A)']}}}",
        (
            "spec.aws.sessionPolicy.arns[0]",
            "should be the ARN of a managed IAM policy",
        ),
    ),
    (
        "eleven managed policies",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}, aws: {sessionPolicy: {arns: ['arn:aws:iam::aws:policy/p0', 'arn:aws:iam::aws:policy/p1', 'arn:aws:iam::aws:policy/p2', 'arn:aws:iam::aws:policy/p3', 'arn:aws:iam::aws:policy/p4', 'arn:aws:iam::aws:policy/p5', 'arn:aws:iam::aws:policy/p6', 'arn:aws:iam::aws:policy/p7', 'arn:aws:iam::aws:policy/p8', 'arn:aws:iam::aws:policy/p9', 'arn:aws:iam::aws:policy/p10']}}}",
        ("spec.aws.sessionPolicy.arns", "10"),
    ),
    (
        "a zone of STS",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}, aws: {sts: {regions: [eu-central-1a]}}}",
        ("spec.aws.sts.regions[0]", "should be a region and not a zone"),
    ),
    (
        "five regions of STS",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}, aws: {sts: {regions: [r1, r2, r3, r4, r5]}}}",
        ("spec.aws.sts.regions", "4"),
    ),
    (
        "an X.509-SVID that no container sees",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}, token: {source: SPIFFE, spiffe: {x509Svid: true}}}",
        (
            "spec.token.spiffe",
            "should not have x509Svid or jwtBundle with delivery.type Endpoint",
        ),
    ),
    (
        "tokens by audience of the cluster",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint, endpoint: {aporetoTokens: true}}}",
        (
            "spec.delivery.endpoint.aporetoTokens",
            "should not be true unless token.source is Issuer",
        ),
    ),
    (
        "tokens by audience of SPIFFE",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: SPIFFE}, delivery: {type: Endpoint, endpoint: {aporetoTokens: true}}}",
        (
            "spec.delivery.endpoint.aporetoTokens",
            "should not be true unless token.source is Issuer",
        ),
    ),
    (
        "tokens by audience without a sidecar that serves",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: Issuer}, delivery: {type: File, endpoint: {aporetoTokens: true}}}",
        (
            "spec.delivery.endpoint",
            "should be left out unless delivery.type is Endpoint",
        ),
    ),
];
