//! What an editor of policies can do in a namespace: policies as large and as many as the schema allows.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::fixtures::{ORDERS, orders_may};
use tokenscope_e2e::shapes;

use crate::attack::{Attack, Round};
use crate::field::{Field, HOSTILE};
use crate::pods::survives_a_restart;

const POLICIES: &str = "/apis/tokenscope.io/v1alpha1/namespaces/hostile/tokenscopepolicies";

pub(crate) fn attacks() -> Vec<Attack> {
    vec![
        Attack::new(
            "T6",
            "policies_as_large_as_the_schema_lets_them_be",
            2,
            |field, round| {
                Box::pin(many(
                    field,
                    round,
                    30,
                    // All that the schema takes together: 6144 characters of subjects, 2048 of roles, 256 of description.
                    |number, _| json!({"description": "d".repeat(250), "subjects": subjects(number, 1, 23, 250), "roles": roles(4)}),
                ))
            },
        )
        .judged_by(|field| Box::pin(survives_a_restart(field))),
        Attack::new(
            "D1",
            "subjects_times_names_with_different_default_roles",
            1,
            |field, round| {
                Box::pin(many(field, round, 4, |number, _| {
                    let role = format!("{ORDERS}-{number}");
                    json!({"subjects": subjects(0, 15, 14, 20), "roles": {"allowed": [role], "default": role}})
                }))
            },
        ),
        Attack::new("", "patterns_full_of_stars_against_long_names", 2, |field, round| {
            Box::pin(stars(field, round))
        }),
        Attack::new("", "policies_that_come_and_go_and_change", 3, |field, round| {
            Box::pin(flapping(field, round))
        }),
        Attack::new("", "schedules_that_open_once_in_many_years", 2, |field, round| {
            Box::pin(many(field, round, 40, |number, _| {
                let mut spec = orders_may(&[&format!("{ORDERS}-{number}")]);
                let zone = ["Pacific/Apia", "Europe/Dublin", "Africa/Casablanca"][number % 3];
                spec["activeSchedule"] = json!({"cron": "59 23 29 2 1", "duration": "1m", "timeZone": zone});
                spec
            }))
        }),
        Attack::new(
            "",
            "selectors_with_every_value_that_the_schema_takes",
            2,
            |field, round| {
                Box::pin(many(field, round, 20, |number, size| {
                    let expressions: Vec<Value> = (0..16.min(size))
                        .map(|key| {
                            let values: Vec<String> = (0..size.min(32)).map(|value| format!("{value:x>63}")).collect();
                            json!({"key": format!("k{number}-{key}"), "operator": "NotIn", "values": values})
                        })
                        .collect();
                    let subjects: Vec<Value> = (0..size.min(32))
                        .map(|_| json!({"podSelector": {"matchExpressions": expressions}}))
                        .collect();
                    json!({"subjects": subjects, "roles": roles(1)})
                }))
            },
        ),
    ]
}

fn policy(name: &str, spec: &Value) -> String {
    json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy", "metadata": {"name": name}, "spec": spec,
    })
    .to_string()
}

/// So many subjects, each of so many names of so many characters. They differ at their ends.
fn subjects(number: usize, count: usize, names: usize, length: usize) -> Value {
    let subject = |subject: usize| {
        let names: Vec<String> = (0..names)
            .map(|name| {
                let end = format!("{number}-{subject}-{name}");
                format!("{}{end}", "n".repeat(length - end.len()))
            })
            .collect();
        json!({"serviceAccounts": names})
    };
    (0..count).map(subject).collect()
}

fn roles(size: usize) -> Value {
    let allowed: Vec<String> = (0..size.min(32))
        .map(|role| format!("arn:aws:iam::111122223333:role/{}/{role}", "p".repeat(440)))
        .collect();
    json!({"allowed": allowed})
}

/// Creates policies of the largest size that the schema takes, and pods that they are all asked about.
async fn many(field: Arc<Field>, round: Round, count: usize, spec: fn(usize, usize) -> Value) -> Result<()> {
    let mut size = 32;
    for number in 0..count {
        if !round.goes_on() {
            break;
        }
        let name = format!("policy-{}-{number}", round.worker);
        size = create_largest(
            &field,
            &round,
            &name,
            |size| spec(number * 8 + round.worker, size),
            size,
        )
        .await?;
        round
            .create(&field.author, shapes::asks_too_much(HOSTILE, &name))
            .await?;
    }
    while round.goes_on() {
        round
            .create(&field.author, shapes::asks_too_much(HOSTILE, "asks"))
            .await?;
        round.pause(30).await;
    }
    Ok(())
}

/// Halves the size until the API server takes it. A size that the schema refuses says nothing about us.
async fn create_largest(
    field: &Field,
    round: &Round,
    name: &str,
    spec: impl Fn(usize) -> Value,
    mut size: usize,
) -> Result<usize> {
    while size > 0 {
        let body = policy(name, &spec(size));
        let sent = Instant::now();
        let answer = round.send(&field.editor, http::Method::POST, POLICIES, body).await?;
        // Rules of a schema cost the API server, whoever wrote them.
        round.pace(sent.elapsed()).await;
        match answer {
            Some((201 | 409, _)) | None => return Ok(size),
            Some((422 | 413 | 403, answer)) => {
                size /= 2;
                let text = String::from_utf8_lossy(&answer);
                ensure!(
                    size > 0,
                    "not even the smallest policy is accepted: {}",
                    text.chars().take(600).collect::<String>()
                );
            }
            // An API server that is attacked may have no time.
            Some((429 | 500..=599, _)) => {
                if !round.goes_on() {
                    return Ok(size);
                }
                round.pause(100).await;
            }
            Some((status, answer)) => bail!("{status} {}", String::from_utf8_lossy(&answer[..answer.len().min(500)])),
        }
    }
    bail!("no size is left to try")
}

async fn stars(field: Arc<Field>, round: Round) -> Result<()> {
    let pattern = format!(
        "arn:aws:iam::111122223333:role/{}/{}b",
        "a*".repeat(120),
        "a*".repeat(28)
    );
    let spec = |size: usize| {
        let names: Vec<String> = (0..size).map(|name| format!("{}{name}", "o*".repeat(100))).collect();
        let all: Vec<String> = (0..size).map(|role| format!("{pattern}{role}")).collect();
        json!({"subjects": [{"serviceAccounts": names}, {"serviceAccounts": ["orders"]}], "roles": {"allowed": all}})
    };
    for number in 0..10 {
        create_largest(&field, &round, &format!("stars-{}-{number}", round.worker), spec, 32).await?;
    }
    let role = format!("arn:aws:iam::111122223333:role/{}/{}", "a".repeat(400), "a".repeat(60));
    while round.goes_on() {
        let annotations = format!("{{\"tokenscope.io/role-arn\":\"{role}\"}}");
        round
            .create(
                &field.author,
                shapes::metadata(HOSTILE, "stars", "annotations", &annotations),
            )
            .await?;
        round.pause(20).await;
    }
    Ok(())
}

async fn flapping(field: Arc<Field>, round: Round) -> Result<()> {
    let name = format!("flapping-{}", round.worker);
    let path = format!("{POLICIES}/{name}");
    let (editor, author) = (&field.editor, &field.author);
    while round.goes_on() {
        let spec = orders_may(&[ORDERS]);
        round
            .send(editor, http::Method::POST, POLICIES, policy(&name, &spec))
            .await?;
        for number in 0..4 {
            let change = json!({"spec": {"disabled": number % 2 == 0, "description": "d".repeat(500 + number)}});
            round
                .send(editor, http::Method::PATCH, &path, change.to_string())
                .await?;
            let pod = shapes::asks_too_much(HOSTILE, &format!("{name}-{number}"));
            round.create(author, pod).await?;
        }
        let deleted = round.send(editor, http::Method::DELETE, &path, "{}").await?;
        deleted.context("the API server does not answer")?;
    }
    Ok(())
}
