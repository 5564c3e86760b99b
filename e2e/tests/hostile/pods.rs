//! What an author of pods can do: shapes that are large or many, and forged marks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::admission::create_pod;
use tokenscope_e2e::fixtures::{ADMIN, ORDERS, PROPAGATION, Shop};
use tokenscope_e2e::{eventually, post, shapes};

use crate::attack::{Attack, Round};
use crate::field::{Field, HOSTILE, LOCKED, MARK, REQUIRED};

pub(crate) fn attacks() -> Vec<Attack> {
    let mut attacks = vec![
        Attack::new(
            "C1",
            "many_containers_with_a_long_list_of_names_to_skip",
            2,
            |field, round| {
                Box::pin(shape(field, round, |name| {
                    shapes::containers_and_skip_list(HOSTILE, name, 9000, 24_000)
                }))
            },
        )
        .beside_large_pods(),
        Attack::new(
            "C2",
            "thousands_of_containers_under_a_policy_that_grants",
            4,
            |field, round| Box::pin(shape(field, round, |name| shapes::containers(HOSTILE, name, 8000))),
        )
        .beside_large_pods(),
        Attack::new("M2", "pods_with_variables_of_a_megabyte", 2, |field, round| {
            Box::pin(megabyte_variables(field, round))
        })
        .judged_by(|field| Box::pin(survives_a_restart(field))),
        Attack::new(
            "A1",
            "forty_thousand_annotations_labels_and_finalizers",
            1,
            |field, round| Box::pin(many_keys(field, round)),
        ),
        Attack::new("T4", "refused_pods_with_invented_owners", 4, |field, round| {
            Box::pin(invented_owners(field, round))
        })
        .judged_by(|field| Box::pin(others_still_get_events(field))),
        Attack::new(
            "",
            "tokens_by_hand_in_pods_that_are_too_large_for_a_review",
            2,
            |field, round| Box::pin(tokens_by_hand(field, round)),
        )
        .beside_large_pods(),
        Attack::new("T13", "pods_that_bring_the_mark_of_a_review", 2, |field, round| {
            Box::pin(forged_marks(field, round))
        }),
        Attack::new(
            "",
            "keys_written_with_escapes_and_keys_that_stand_twice",
            1,
            |field, round| Box::pin(escaped_keys(field, round)),
        ),
        Attack::new("", "ephemeral_containers_by_the_thousand", 2, |field, round| {
            Box::pin(ephemeral_containers(field, round))
        }),
        Attack::new("", "pods_that_come_and_go_with_generated_names", 4, |field, round| {
            Box::pin(churn(field, round))
        }),
    ];
    attacks.extend(shape_attacks());
    attacks
}

/// Pods of one shape each.
fn shape_attacks() -> Vec<Attack> {
    vec![
        Attack::new("", "thousands_of_roles_for_single_containers", 2, |field, round| {
            Box::pin(shape(field, round, |name| {
                let roles = shapes::map(2500, "tokenscope.io/role-arn.c", ORDERS);
                shapes::metadata(HOSTILE, name, "annotations", &roles)
            }))
        }),
        Attack::new("", "projected_volumes_with_thousands_of_sources", 2, |field, round| {
            Box::pin(shape(field, round, |name| shapes::sources(HOSTILE, name, 12_000)))
        }),
        Attack::new("", "tens_of_thousands_of_volumes", 2, |field, round| {
            Box::pin(shape(field, round, |name| shapes::volumes(HOSTILE, name, 28_000)))
        }),
        Attack::new("", "tens_of_thousands_of_variables", 2, |field, round| {
            Box::pin(shape(field, round, |name| shapes::variables(HOSTILE, name, 25_000)))
        })
        .beside_large_pods(),
        Attack::new("", "thousands_of_owners_and_terms_of_affinity", 2, |field, round| {
            Box::pin(shape(field, round, |name| {
                if name.len() % 2 == 0 {
                    shapes::affinity(HOSTILE, name, 12_000)
                } else {
                    (shapes::SHAPES[10].pod)(HOSTILE, name)
                }
            }))
        }),
        Attack::new("", "a_review_six_times_as_large_as_its_request", 1, |field, round| {
            Box::pin(shape(field, round, |name| {
                let value = "<".repeat(1_600_000);
                let annotations = format!("{{\"tokenscope.io/role-arn\":\"{ADMIN}\",\"k\":\"{value}\"}}");
                shapes::metadata(HOSTILE, name, "annotations", &annotations)
            }))
        })
        .beside_large_pods(),
    ]
}

/// Creates pods of one shape, again and again. The names differ in length.
async fn shape(field: Arc<Field>, round: Round, text: fn(&str) -> String) -> Result<()> {
    let bodies = ["pod", "other"].map(|name| text(&format!("{name}-{}", round.worker)).into_bytes());
    for body in bodies.iter().cycle() {
        if !round.goes_on() {
            break;
        }
        let sent = Instant::now();
        round.create(&field.author, body.clone()).await?;
        round.pace(sent.elapsed()).await;
    }
    Ok(())
}

/// They are stored, and so every watch and list of pods brings them.
async fn megabyte_variables(field: Arc<Field>, round: Round) -> Result<()> {
    for number in 0..60 {
        if !round.goes_on() {
            break;
        }
        let name = format!("large-{}-{number}", round.worker);
        round
            .create(&field.author, shapes::variable(HOSTILE, &name, 1_250_000))
            .await?;
    }
    Ok(())
}

/// What is stored comes back as a list, whole.
pub(crate) async fn survives_a_restart(field: Arc<Field>) -> Result<()> {
    for (number, process) in field.processes().into_iter().enumerate() {
        field.restart(number)?;
        let ready = process.wait_ready(PROPAGATION * 2).await;
        ready.with_context(|| format!("{} is not ready after a restart beside what was stored", process.name()))?;
    }
    Ok(())
}

async fn many_keys(field: Arc<Field>, round: Round) -> Result<()> {
    let shapes = [&shapes::SHAPES[2], &shapes::SHAPES[3], &shapes::SHAPES[4]];
    for shape in shapes.iter().cycle() {
        if !round.goes_on() {
            break;
        }
        let sent = Instant::now();
        round.create(&field.author, (shape.pod)(HOSTILE, "keys")).await?;
        round.pace(sent.elapsed()).await;
    }
    Ok(())
}

async fn invented_owners(field: Arc<Field>, round: Round) -> Result<()> {
    for number in 0_u64.. {
        if !round.goes_on() {
            break;
        }
        let mut pod: Value = serde_json::from_str(&shapes::asks_too_much(
            HOSTILE,
            &format!("refused-{}-{number}", round.worker),
        ))?;
        pod["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("invented-{}-{number}", round.worker),
            "controller": true, "uid": format!("{:08x}-0000-4000-8000-{number:012x}", round.worker),
        }]);
        round.create(&field.author, pod.to_string()).await?;
    }
    Ok(())
}

/// A refusal elsewhere is written on the owner that exists, as ever.
async fn others_still_get_events(field: Arc<Field>) -> Result<()> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0); // an attack may be made once more
    let shop = Shop {
        control_plane: &field.control_plane,
        client: field.admin.clone(),
        namespace: "honest".to_owned(),
    };
    let name = format!("owner-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "app", "image": "app"}]}});
    let replica_set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    });
    let owner = post(
        &field.admin,
        "/apis/apps/v1/namespaces/honest/replicasets",
        &replica_set,
    )
    .await?;
    let mut pod = shop.asking("refused-beside-an-attack", ADMIN);
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": owner["metadata"]["uid"], "controller": true,
    }]);
    let answer = create_pod(&field.admin, &pod).await?;
    ensure!(
        !answer.accepted(),
        "a pod that asks for a role that nobody allows was admitted"
    );
    eventually(
        PROPAGATION,
        "a refusal in another namespace is told by an Event",
        async || {
            let events = shop.events_about("ReplicaSet", &name).await?;
            ensure!(!events.is_empty(), "there is none");
            Ok(())
        },
    )
    .await
}

/// With every sign of a review that a pod can bear, plain, and too large to be reviewed.
async fn forged_marks(field: Arc<Field>, round: Round) -> Result<()> {
    let grant = json!({"grants": [], "hash": "", "sidecar": true}).to_string();
    for number in 0.. {
        if !round.goes_on() {
            break;
        }
        let namespace = if number % 2 == 0 { HOSTILE } else { REQUIRED };
        let name = format!("forged-{}-{number}", round.worker);
        let mut pod: Value = serde_json::from_str(&shapes::asks_too_much(namespace, &name))?;
        for mark in ["granted", "untouched"] {
            pod["metadata"]["labels"][MARK] = json!(mark);
            pod["metadata"]["annotations"][MARK] = json!(mark);
            pod["metadata"]["annotations"]["tokenscope.io/grant"] = json!(grant);
            if number % 3 == 0 {
                make_too_large_for_a_review(&mut pod);
            }
            create_paced(&field, &round, namespace, &pod).await?;
        }
    }
    Ok(())
}

/// A review's JSON writes each of these characters in six bytes.
fn make_too_large_for_a_review(pod: &mut Value) {
    pod["spec"]["schedulerName"] = json!("<".repeat(1_500_000));
}

async fn create_paced(field: &Field, round: &Round, namespace: &str, pod: &Value) -> Result<()> {
    let sent = Instant::now();
    round.create_in(&field.author, namespace, pod.to_string()).await?;
    round.pace(sent.elapsed()).await;
    Ok(())
}

/// Tokens of the locked audience that nobody grants, and pods where reviews are required: each brings a mark, and is too large for a review or one of a flood.
async fn tokens_by_hand(field: Arc<Field>, round: Round) -> Result<()> {
    let token = json!({"serviceAccountToken": {"audience": LOCKED, "path": "token"}});
    for number in 0.. {
        if !round.goes_on() {
            break;
        }
        let namespace = if number % 2 == 0 { HOSTILE } else { REQUIRED };
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("by-hand-{}-{number}", round.worker), "namespace": namespace,
                "labels": {MARK: "granted"}, "annotations": {MARK: "granted", "tokenscope.io/inject": "false"},
            },
            "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app"}]},
        });
        if number % 4 < 2 {
            pod["spec"]["volumes"] = json!([{"name": "mine", "projected": {"sources": [token]}}]);
        }
        if number % 3 == 0 {
            make_too_large_for_a_review(&mut pod);
        }
        create_paced(&field, &round, namespace, &pod).await?;
    }
    Ok(())
}

/// What the API server makes of such a text is what is reviewed.
async fn escaped_keys(field: Arc<Field>, round: Round) -> Result<()> {
    let texts = [
        format!(r#"{{"tokenscope.io\u002frole-arn":"{ADMIN}"}}"#),
        format!(r#"{{"\u0074okenscope.io/role-arn":"{ADMIN}"}}"#),
        format!(r#"{{"tokenscope.io/role-arn":"{ORDERS}","tokenscope.io/role-arn":"{ADMIN}"}}"#),
        format!(r#"{{"tokenscope.io/inject":"true","tokenscope.io/role-arn":"{ADMIN}"}},"annotations":{{}}"#),
        format!(r#"{{}},"annotations":{{"tokenscope.io/role-arn":"{ADMIN}"}}"#),
        format!(r#"{{"tokenscope.io/role-arn.app":"{ADMIN}"}}"#),
    ];
    for (number, text) in texts.iter().cycle().enumerate() {
        if !round.goes_on() {
            break;
        }
        let pod = shapes::metadata(HOSTILE, &format!("escaped-{number}"), "annotations", text);
        round.create(&field.author, pod).await?;
        round.pause(20).await;
    }
    Ok(())
}

async fn ephemeral_containers(field: Arc<Field>, round: Round) -> Result<()> {
    let name = format!("host-{}", round.worker);
    round
        .create(&field.author, shapes::metadata(HOSTILE, &name, "labels", "{}"))
        .await?;
    let containers = shapes::list(3000, |n| format!("{{\"name\":\"e{n}\",\"image\":\"app\"}}"));
    let body = format!("{{\"spec\":{{\"ephemeralContainers\":{containers}}}}}");
    let path = format!("/api/v1/namespaces/{HOSTILE}/pods/{name}/ephemeralcontainers");
    while round.goes_on() {
        round
            .send(&field.author, http::Method::PATCH, &path, body.clone())
            .await?;
        round.pause(300).await;
    }
    Ok(())
}

async fn churn(field: Arc<Field>, round: Round) -> Result<()> {
    let mut pod: Value = serde_json::from_str(&shapes::containers(HOSTILE, "x", 1))?;
    pod["metadata"]["name"] = Value::Null;
    pod["metadata"]["generateName"] = json!("churn-");
    pod["spec"]["containers"][0] = json!({"name": "app", "image": "app"});
    let path = format!("/api/v1/namespaces/{HOSTILE}/pods");
    while round.goes_on() {
        let created = round
            .send(&field.author, http::Method::POST, &path, pod.to_string())
            .await?;
        let Some((201, body)) = created else { continue };
        let stored: Value = serde_json::from_slice(&body)?;
        let name = stored["metadata"]["name"].as_str().context("a pod has a name")?;
        let now = r#"{"gracePeriodSeconds":0}"#;
        round
            .send(&field.author, http::Method::DELETE, &format!("{path}/{name}"), now)
            .await?;
    }
    Ok(())
}
