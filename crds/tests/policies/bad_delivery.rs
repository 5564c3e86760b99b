//! Deliveries that are wrong.

use super::BadSpec;

pub(super) const BAD: &[BadSpec] = &[
    (
        "an unknown delivery",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Env}}",
        ("spec.delivery.type", "\"File\", \"Profile\""),
    ),
    (
        "a delivery that is not available yet",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, delivery: {type: Endpoint}}",
        (
            "spec.delivery.type",
            "Endpoint is not available in this version: write File or Profile",
        ),
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
            "should be left out unless delivery.type is Profile",
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
];
