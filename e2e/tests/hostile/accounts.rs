//! What an author can do with ServiceAccounts, Events and namespaces: what the processes watch and keep.

use std::sync::Arc;

use anyhow::Result;
use serde_json::json;
use tokenscope_e2e::fixtures::ORDERS;
use tokenscope_e2e::shapes;

use crate::attack::{Attack, Round};
use crate::field::{Field, HOSTILE};
use crate::pods::survives_a_restart;

pub(crate) fn attacks() -> Vec<Attack> {
    vec![
        Attack::new(
            "M1",
            "service_accounts_with_annotations_of_a_quarter_megabyte",
            4,
            |field, round| {
                Box::pin(large_accounts(field, round, |name| {
                    let value = "v".repeat(200_000);
                    let annotations = format!(
                        "{{\"tokenscope.io/x\":\"{value}\",\"tokenscope.io/audience\":\"{}\"}}",
                        "a".repeat(50_000)
                    );
                    account(name, &format!("\"annotations\":{annotations}"))
                }))
            },
        )
        .judged_by(|field| Box::pin(survives_a_restart(field))),
        Attack::new("M1", "service_accounts_with_a_megabyte_of_labels", 1, |field, round| {
            Box::pin(large_accounts(field, round, |name| {
                account(
                    name,
                    &format!("\"labels\":{}", shapes::map(14_000, "label", &"v".repeat(60))),
                )
            }))
        })
        .judged_by(|field| Box::pin(survives_a_restart(field))),
        Attack::new("", "service_accounts_that_change_all_the_time", 4, |field, round| {
            Box::pin(account_flapping(field, round))
        }),
        Attack::new(
            "",
            "many_namespaces_each_with_a_crowd_of_service_accounts",
            8,
            |field, round| Box::pin(many_namespaces(field, round)),
        )
        .judged_by(|field| Box::pin(many_namespaces_survive_a_restart(field))),
        Attack::new("", "a_namespace_whose_labels_change_all_the_time", 2, |field, round| {
            Box::pin(namespace_labels(field, round))
        }),
        Attack::new("", "a_flood_of_events_by_their_own_hand", 4, |field, round| {
            Box::pin(events(field, round))
        }),
    ]
}

fn account(name: &str, metadata: &str) -> String {
    format!("{{\"apiVersion\":\"v1\",\"kind\":\"ServiceAccount\",\"metadata\":{{\"name\":\"{name}\",{metadata}}}}}")
}

/// As many as fit into the time, and no more than the API server's own store bears.
async fn large_accounts(field: Arc<Field>, round: Round, text: fn(&str) -> String) -> Result<()> {
    let path = format!("/api/v1/namespaces/{HOSTILE}/serviceaccounts");
    for number in 0..100 {
        if !round.goes_on() {
            break;
        }
        let body = text(&format!("large-{}-{number}", round.worker));
        round.send(&field.author, http::Method::POST, &path, body).await?;
    }
    Ok(())
}

async fn account_flapping(field: Arc<Field>, round: Round) -> Result<()> {
    let collection = format!("/api/v1/namespaces/{HOSTILE}/serviceaccounts");
    let name = format!("flapping-{}", round.worker);
    let path = format!("{collection}/{name}");
    while round.goes_on() {
        let annotations = format!("\"annotations\":{{\"tokenscope.io/role-arn\":\"{ORDERS}\"}}");
        round
            .send(
                &field.author,
                http::Method::POST,
                &collection,
                account(&name, &annotations),
            )
            .await?;
        for number in 0..5 {
            let change = json!({"metadata": {"annotations": {"tokenscope.io/role-arn": format!("{ORDERS}-{number}")}}});
            round
                .send(&field.author, http::Method::PATCH, &path, change.to_string())
                .await?;
        }
        round.send(&field.author, http::Method::DELETE, &path, "{}").await?;
    }
    Ok(())
}

/// Tenants who may make namespaces: each of theirs has little.
async fn many_namespaces(field: Arc<Field>, round: Round) -> Result<()> {
    let annotations = format!(
        "\"annotations\":{{\"tokenscope.io/role-arn\":\"{ORDERS}\",\"tokenscope.io/audience\":\"{}\"}}",
        "a".repeat(2000)
    );
    for number in 0..12 {
        let namespace = crowd(round.worker * 12 + number);
        let body = json!({"metadata": {"name": namespace}}).to_string();
        round
            .send(&field.tenant, http::Method::POST, "/api/v1/namespaces", body)
            .await?;
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        for account_number in 0..30 {
            if !round.goes_on() {
                return Ok(());
            }
            let body = account(&format!("account-{account_number}"), &annotations);
            round.send(&field.tenant, http::Method::POST, &path, body).await?;
        }
    }
    Ok(())
}

fn crowd(number: usize) -> String {
    format!("crowd-{number}")
}

async fn many_namespaces_survive_a_restart(field: Arc<Field>) -> Result<()> {
    let result = survives_a_restart(Arc::clone(&field)).await;
    for number in 0..96 {
        field
            .delete_all(&format!("/api/v1/namespaces/{}/serviceaccounts", crowd(number)))
            .await?;
    }
    result
}

/// The owner of a namespace may label it at will.
async fn namespace_labels(field: Arc<Field>, round: Round) -> Result<()> {
    let path = format!("/api/v1/namespaces/{HOSTILE}");
    for number in 0.. {
        if !round.goes_on() {
            break;
        }
        let labels: serde_json::Map<_, _> = (0..400)
            .map(|label| {
                (
                    format!("label-{}-{label}", round.worker),
                    json!(format!("value-{number}")),
                )
            })
            .collect();
        let change = json!({"metadata": {"labels": labels}});
        round
            .send(&field.tenant, http::Method::PATCH, &path, change.to_string())
            .await?;
        round.pause(20).await;
    }
    Ok(())
}

async fn events(field: Arc<Field>, round: Round) -> Result<()> {
    let path = format!("/api/v1/namespaces/{HOSTILE}/events");
    for number in 0_u64.. {
        if !round.goes_on() {
            break;
        }
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": format!("event-{}-{number}", round.worker)},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": HOSTILE, "name": "orders"},
            "reason": "RoleDenied", "message": "m".repeat(1000), "type": "Warning",
            "source": {"component": "tokenscope-webhook"},
        });
        round
            .send(&field.author, http::Method::POST, &path, event.to_string())
            .await?;
    }
    Ok(())
}
