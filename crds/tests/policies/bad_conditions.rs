//! Subjects, times and AWS settings that are wrong.

use super::BadSpec;

pub(super) const BAD: &[BadSpec] = &[
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
        "a region that ends with a hyphen",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {region: eu-central-1-}}",
        ("spec.aws.region", "begin and end with a letter or digit"),
    ),
    (
        "a region that begins with a hyphen",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {region: -central-1}}",
        ("spec.aws.region", "begin and end with a letter or digit"),
    ),
    (
        "a number in place of a region",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {region: '2026'}}",
        ("spec.aws.region", "be no number"),
    ),
    (
        "a zone in place of a region",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {region: eu-central-1a}}",
        ("spec.aws.region", "zone"),
    ),
    (
        "a local zone in place of a region",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {region: us-east-1-bos-1a}}",
        ("spec.aws.region", "zone"),
    ),
    (
        "the ID of a zone in place of a region",
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, aws: {region: euc1-az2}}",
        ("spec.aws.region", "zone"),
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
