//! What the API server itself refuses of a policy, and whether its message says which field is wrong and what would be right.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_tests::control_plane::{ControlPlane, Options};
use tokenscope_tests::{get_json, merge, post, put};
use tokio::sync::OnceCell;

/// A field's path as the message has it, and a part of what the message says would be right.
type Complaint = (&'static str, &'static str);

const GOOD: &[(&str, &str)] = &[
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
token: {source: Issuer, expirationSeconds: 600, algorithm: ES384}
claims:
  principalTags: {Team: "${pod.labels['example.com/team']}", Namespace: "a ${namespace}/${namespace.labels['x']}", Ä: ä}
  transitiveTagKeys: [Team]
  sourceIdentity: "${namespace}.${serviceAccount}"
aws: {region: eu-central-1, stsRegionalEndpoints: true, roleSessionName: "${pod.name}"}
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
        "{roles: {default: 'arn:aws:iam::111122223333:role/r'}, token: {source: SPIFFE, expirationSeconds: 86400}}",
    ),
];

const BAD: &[(&str, &str, Complaint)] = &[
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
        ("spec.expiresAt", "must be of type date-time"),
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

#[tokio::test]
async fn a_good_policy_of_either_kind_is_accepted() -> Result<()> {
    let client = client().await?;
    for (case, spec) in GOOD {
        for kind in [NAMESPACED, CLUSTER] {
            kind.create(&client, serde_saphyr::from_str(spec)?)
                .await
                .with_context(|| format!("{}: {case}", kind.name))?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_bad_policy_of_either_kind_is_refused_and_the_message_says_which_field_and_what_would_be_right() -> Result<()>
{
    let client = client().await?;
    for (case, spec, (field, right)) in BAD {
        for kind in [NAMESPACED, CLUSTER] {
            let message = kind.refusal(&client, case, serde_saphyr::from_str(spec)?).await?;
            ensure!(
                message.contains(&format!("{field}: ")) && message.contains(right),
                "{}: {case}: the message should speak of {field} and say {right:?}: {message}",
                kind.name
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn one_mistake_gives_one_complaint() -> Result<()> {
    let client = client().await?;
    for (case, spec) in [
        ("an unknown variable", "${pod.nam}"),
        ("a character that STS doesn't take", "${namespace}/a"),
        ("a name too long", &"a".repeat(65)),
    ] {
        let spec = json!({"roles": {"default": ROLE}, "aws": {"roleSessionName": spec}});
        let message = NAMESPACED.refusal(&client, case, spec).await?;
        ensure!(
            message.matches("spec.aws.roleSessionName: ").count() == 1,
            "{case}: {message}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn more_tags_than_aws_takes_are_refused() -> Result<()> {
    let client = client().await?;
    let tags = |count: usize| -> Value { (0..count).map(|number| (format!("tag{number}"), json!("x"))).collect() };
    let spec = |count| json!({"roles": {"default": ROLE}, "token": {"source": "Issuer"}, "claims": {"principalTags": tags(count)}});

    NAMESPACED.create(&client, spec(50)).await?;
    let message = NAMESPACED.refusal(&client, "51 tags", spec(51)).await?;
    ensure!(
        message.contains("spec.claims.principalTags: Too many: 51: must have at most 50 items"),
        "{message}"
    );
    Ok(())
}

/// The API server counts what the rules cost while it evaluates them, and refuses an object that is too dear.
#[tokio::test]
async fn a_policy_as_large_as_the_bounds_allow_is_accepted() -> Result<()> {
    let client = client().await?;
    let many = |count: usize, text: &dyn Fn(usize) -> String| (0..count).map(text).collect::<Vec<_>>();
    let role = |number: usize| format!("arn:aws:iam::111122223333:role/{}/*/{number:064}", "p*".repeat(170));
    let subject = json!({
        "serviceAccounts": many(64, &|number| format!("{}{number}*", "s".repeat(250 - number.to_string().len()))),
        "podSelector": {
            "matchLabels": many(32, &|number| format!("{}{number}", "k".repeat(50)))
                .into_iter().map(|key| (key, json!("v".repeat(63)))).collect::<Value>(),
            "matchExpressions": many(16, &|number| number.to_string()).into_iter().map(|number| json!({
                "key": format!("example.com/x{number}"), "operator": "In",
                "values": many(32, &|number| format!("{}{number}", "v".repeat(60))),
            })).collect::<Vec<_>>(),
        },
    });
    let template = format!("{}{}", "${namespace}".repeat(20), "x".repeat(700));
    let spec = json!({
        "subjects": vec![subject; 4],
        "roles": {"allowed": many(32, &role), "default": role(31).replace('*', "x")},
        "audiences": {"allowed": many(32, &|number| format!("{number:0255}")), "default": format!("{:0255}", 31)},
        "token": {"source": "Issuer"},
        "claims": {
            "principalTags": many(50, &|number| format!("{number:0128}"))
                .into_iter().map(|key| (key, json!(template))).collect::<Value>(),
            "transitiveTagKeys": many(50, &|number| format!("{number:0128}")),
            "sourceIdentity": template,
        },
        "containers": {"include": many(64, &|number| format!("{number:063}")), "exclude": many(64, &|number| format!("{number:063}"))},
        "activeSchedule": {"cron": format!("{} 8 * * 1-5", many(30, &|minute| minute.to_string()).join(",")), "duration": "10h"},
    });

    NAMESPACED.create(&client, spec).await?;
    Ok(())
}

#[tokio::test]
async fn what_is_left_out_gets_its_default() -> Result<()> {
    let client = client().await?;
    let spec = json!({"roles": {"default": ROLE}, "activeSchedule": {"cron": "0 8 * * 1-5", "duration": "10h"}});

    let created = NAMESPACED.create(&client, spec).await?;

    ensure!(
        created["spec"]
            == json!({
                "roles": {"default": ROLE},
                "activeSchedule": {"cron": "0 8 * * 1-5", "duration": "10h", "timeZone": "UTC"},
                "token": {"source": "ServiceAccount", "expirationSeconds": 3600},
                "disabled": false,
                "fallback": false,
            }),
        "{created:#}"
    );
    let spec = json!({"roles": {"default": ROLE}, "token": {"expirationSeconds": 7200}});
    ensure!(NAMESPACED.create(&client, spec).await?["spec"]["token"]["source"] == "ServiceAccount");
    Ok(())
}

#[tokio::test]
async fn a_namespace_selector_is_checked_like_any_other() -> Result<()> {
    let client = client().await?;
    let spec = |selector: Value| json!({"roles": {"default": ROLE}, "namespaceSelector": selector});

    CLUSTER
        .create(&client, spec(json!({"matchLabels": {"team": "shop"}})))
        .await?;
    let bad = spec(json!({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": []}]}));
    let message = CLUSTER.refusal(&client, "no values", bad).await?;

    ensure!(
        message.contains("spec.namespaceSelector.matchExpressions[0].values: ")
            && message.contains("should have at least one value"),
        "{message}"
    );
    Ok(())
}

#[tokio::test]
async fn the_spec_can_not_be_changed_through_the_status_nor_the_status_through_the_spec() -> Result<()> {
    let client = client().await?;
    let path = format!("{}/two-halves", NAMESPACED.path);
    let mut object = json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy", "metadata": {"name": "two-halves"},
        "spec": {"roles": {"default": ROLE}}, "status": {"matchedPods": 7},
    });
    let created = post(&client, NAMESPACED.path, &object).await?;
    ensure!(created.get("status").is_none(), "{created:#}");

    let status = json!({
        "spec": {"disabled": true},
        "status": {
            "observedGeneration": 1, "generationObservedAt": "2026-11-22T08:00:00Z", "matchedPods": 12, "missedPods": 1,
            "conditions": [{
                "type": "Ready", "status": "False", "reason": "MissedPods", "message": "1 pod",
                "lastTransitionTime": "2026-11-22T08:00:00Z",
            }],
            "trustPolicies": [{"roleArn": ROLE, "document": "{}", "notes": ["a note"]}],
        },
    });
    let changed = merge(&client, &format!("{path}/status"), &status).await?;
    ensure!(changed["spec"]["disabled"] == false, "{changed:#}");
    ensure!(changed["status"] == status["status"], "{changed:#}");

    let columns = table(&client, &path).await?;
    let value = |name: &str| {
        columns
            .iter()
            .find(|(column, _)| column == name)
            .map(|(_, value)| value.clone())
    };
    ensure!(value("Role") == Some(json!(ROLE)), "{columns:?}");
    ensure!(value("Source") == Some(json!("ServiceAccount")), "{columns:?}");
    ensure!(value("Matched") == Some(json!(12)), "{columns:?}");
    ensure!(value("Missed") == Some(json!(1)), "{columns:?}");
    ensure!(value("Ready") == Some(json!("False")), "{columns:?}");

    object["metadata"]["resourceVersion"] = changed["metadata"]["resourceVersion"].clone();
    object["status"] = json!({"matchedPods": 0});
    let replaced = put(&client, &path, &object).await?;
    ensure!(replaced["status"]["matchedPods"] == 12, "{replaced:#}");
    Ok(())
}

#[tokio::test]
async fn both_kinds_are_found_by_short_name_and_category() -> Result<()> {
    let client = client().await?;
    let resources = get_json(&client, "/apis/tokenscope.io/v1alpha1").await?;
    let resources = resources["resources"].as_array().context("a list of resources")?;
    for (name, short) in [("tokenscopepolicies", "tsp"), ("clustertokenscopepolicies", "ctsp")] {
        let resource = resources.iter().find(|resource| resource["name"] == name);
        let resource = resource.with_context(|| format!("no {name}"))?;
        ensure!(resource["shortNames"] == json!([short]), "{resource}");
        ensure!(resource["categories"] == json!(["tokenscope"]), "{resource}");
    }
    Ok(())
}

const ROLE: &str = "arn:aws:iam::111122223333:role/orders";

#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    path: &'static str,
}

const NAMESPACED: Kind = Kind {
    name: "TokenScopePolicy",
    path: "/apis/tokenscope.io/v1alpha1/namespaces/default/tokenscopepolicies",
};

const CLUSTER: Kind = Kind {
    name: "ClusterTokenScopePolicy",
    path: "/apis/tokenscope.io/v1alpha1/clustertokenscopepolicies",
};

impl Kind {
    /// What the API server would store. Nothing is stored.
    async fn create(self, client: &Client, spec: Value) -> Result<Value> {
        let object = json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": self.name, "metadata": {"name": "policy"}, "spec": spec,
        });
        let path = format!("{}?dryRun=All&fieldValidation=Strict", self.path);
        Ok(post(client, &path, &object).await?)
    }

    /// Why the API server refuses it.
    async fn refusal(self, client: &Client, case: &str, spec: Value) -> Result<String> {
        let error = match self.create(client, spec).await {
            Ok(accepted) => anyhow::bail!("{}: {case}: it was accepted: {accepted:#}", self.name),
            Err(error) => error,
        };
        match error.downcast::<kube::Error>()? {
            kube::Error::Api(status) if status.is_invalid() || status.code == 400 => Ok(status.message),
            other => Err(other.into()),
        }
    }
}

/// What `kubectl get` prints: columns and their values.
async fn table(client: &Client, path: &str) -> Result<Vec<(String, Value)>> {
    let request = http::Request::get(path)
        .header(http::header::ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())?;
    let table: Value = client.request(request).await?;
    let columns = table["columnDefinitions"].as_array().context("columns")?;
    let cells = table["rows"][0]["cells"].as_array().context("cells")?;
    let names = columns
        .iter()
        .map(|column| column["name"].as_str().unwrap_or_default().to_owned());
    Ok(names.zip(cells.iter().cloned()).collect())
}

/// A client of one control plane for all tests, with both definitions as they are committed.
async fn client() -> Result<Client> {
    static SHARED: OnceCell<Result<ControlPlane, String>> = OnceCell::const_new();
    let started = SHARED
        .get_or_init(async || start().await.map_err(|error| format!("{error:#}")))
        .await;
    match started {
        Ok(control_plane) => control_plane.client().await,
        Err(message) => anyhow::bail!("{message}"),
    }
}

async fn start() -> Result<ControlPlane> {
    let control_plane = ControlPlane::start(Options {
        audit: false,
        ..Options::default()
    })
    .await?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/yaml");
    for file in fs::read_dir(folder)? {
        control_plane.apply_yaml(&fs::read_to_string(file?.path())?).await?;
    }
    Ok(control_plane)
}
