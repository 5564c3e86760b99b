//! What the API server itself refuses of a policy, and whether its message says which field is wrong and what would be right.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use kube::Client;
use policies::{GOOD, bad, longest, too_long};
use serde_json::{Value, json};
use tokenscope_e2e::control_plane::{ControlPlane, Options};
use tokenscope_e2e::fixtures::PROPAGATION;
use tokenscope_e2e::{eventually, get_json, merge, post, put};
use tokio::sync::OnceCell;

#[path = "../../crds/tests/policies/mod.rs"]
mod policies;

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
    for (case, spec, (field, right)) in bad() {
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
async fn a_policy_as_large_as_the_bounds_allow_is_accepted_and_has_less_than_32_kib() -> Result<()> {
    let client = client().await?;
    let namespaced = longest(false).map(|spec| (NAMESPACED, spec));
    let cluster = longest(true).map(|spec| (CLUSTER, spec));
    for (kind, spec) in namespaced.into_iter().chain(cluster) {
        let bytes = spec.to_string().len();
        kind.create(&client, spec).await?;
        ensure!(bytes < 32 * 1024, "{}: {bytes} bytes", kind.name);
    }
    Ok(())
}

#[tokio::test]
async fn a_policy_of_which_a_part_is_too_long_in_all_is_refused_and_the_message_says_which() -> Result<()> {
    let client = client().await?;
    for (spec, (field, right)) in too_long() {
        let message = NAMESPACED.refusal(&client, field, spec).await?;
        ensure!(
            message.contains(&format!("{field}: ")) && message.contains(right),
            "the message should speak of {field} and say {right:?}: {message}"
        );
    }
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
                "onExpiry": "Keep",
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

/// Specifications of boundaries with the field that is wrong in each, and words that say what would be right.
fn boundaries_with_a_mistake(roles: &Value) -> [(Value, &'static str, &'static str); 9] {
    [
        (json!({}), "spec.roles", "Required value"),
        (
            json!({"roles": []}),
            "spec.roles",
            "should have at least one role or pattern",
        ),
        (
            json!({"roles": ["*"]}),
            "spec.roles[0]",
            "should be the ARN of an IAM role",
        ),
        (
            json!({"roles": roles, "maxExpirationSeconds": 60}),
            "spec.maxExpirationSeconds",
            "greater than or equal to 600",
        ),
        (
            json!({"roles": roles, "sources": ["Vault"]}),
            "spec.sources[0]",
            "\"ServiceAccount\", \"SPIFFE\", \"Issuer\"",
        ),
        (
            json!({"roles": roles, "audiences": ["a b"]}),
            "spec.audiences[0]",
            "without spaces",
        ),
        (
            json!({"roles": roles, "claims": {"principalTags": {"aws:x": "a"}}}),
            "spec.claims.principalTags",
            "no key should start with aws:",
        ),
        (
            json!({"roles": roles, "sessionPolicy": {"arns": []}}),
            "spec.sessionPolicy",
            "should have inline or arns",
        ),
        (
            json!({"roles": roles, "sessionPolicy": {"arns": ["arn:aws:iam::111122223333:role/r"]}}),
            "spec.sessionPolicy.arns[0]",
            "managed",
        ),
    ]
}

#[tokio::test]
async fn a_boundary_is_checked_by_the_api_server_and_the_message_says_which_field_and_what_would_be_right() -> Result<()>
{
    let client = client().await?;
    let roles = json!(["arn:aws:iam::111122223333:role/shop/*"]);
    for spec in [
        json!({"roles": roles}),
        json!({
            "namespaceSelector": {"matchLabels": {"team": "core"}}, "roles": roles, "audiences": ["sts.amazonaws.com"],
            "maxExpirationSeconds": 900, "sources": ["ServiceAccount", "SPIFFE", "Issuer"],
            "claims": {"principalTags": {"Team": "${namespace.labels['team']}"}, "transitiveTagKeys": ["Team"]},
        }),
        json!({"roles": roles, "claims": {}}),
        json!({"roles": roles, "sessionPolicy": {"inline": "{}", "arns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"]}}),
        json!({"roles": roles, "sessionPolicy": {"inline": "{}"}}),
    ] {
        let created = BOUNDARY.create(&client, spec.clone()).await?;
        ensure!(created["spec"] == spec, "{created:#}");
    }
    for (spec, field, right) in boundaries_with_a_mistake(&roles) {
        let message = BOUNDARY.refusal(&client, field, spec).await?;
        ensure!(
            message.contains(&format!("{field}: ")) && message.contains(right),
            "the message should speak of {field} and say {right:?}: {message}"
        );
    }
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
            "roles": "arn:aws:iam::111122223333:role/shop/* +1",
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
    ensure!(
        value("Roles") == Some(json!("arn:aws:iam::111122223333:role/shop/* +1")),
        "{columns:?}"
    );
    ensure!(value("Default") == Some(json!(ROLE)), "{columns:?}");
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
async fn all_kinds_are_found_by_short_name_and_category() -> Result<()> {
    let client = client().await?;
    let kinds = [
        ("tokenscopepolicies", "tsp"),
        ("clustertokenscopepolicies", "ctsp"),
        ("tokenscopeboundaries", "tsb"),
    ];
    // A kind is found some moments after it is served.
    let resources = eventually(PROPAGATION, "all kinds are found", async || {
        let found = get_json(&client, "/apis/tokenscope.io/v1alpha1").await?;
        let resources = found["resources"].as_array().context("a list of resources")?;
        for (name, _) in kinds {
            ensure!(resources.iter().any(|resource| resource["name"] == name), "no {name}");
        }
        Ok(resources.clone())
    })
    .await?;
    for (name, short) in kinds {
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

const BOUNDARY: Kind = Kind {
    name: "TokenScopeBoundary",
    path: "/apis/tokenscope.io/v1alpha1/tokenscopeboundaries",
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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/tokenscope-crds/files");
    for file in fs::read_dir(folder)? {
        control_plane.apply_yaml(&fs::read_to_string(file?.path())?).await?;
    }
    Ok(control_plane)
}
