//! What an author of pods can do with pods that the API server has stored: each start of a process reads them all again, and
//! a word of the author's about their ServiceAccount makes the operator look at each of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::json;
use tokenscope_e2e::fixtures::{ORDERS, PROPAGATION};
use tokenscope_e2e::{eventually, shapes};
use tokio::task::JoinSet;

use crate::attack::{Attack, Round};
use crate::field::{Field, HOSTILE};
use crate::pods::survives_a_restart;

/// How many pods are stored, and of what: the list is as long as an annotation may be. More containers would cost nobody but the
/// API server more, which takes a fifth of a second to store a thousand.
const PODS: usize = 90;
const CONTAINERS: usize = 2000;
const NAMES_TO_SKIP: usize = 120_000;

/// How many pods are being stored at a time.
const AT_ONCE: usize = 3;

/// An operator that computes no more than a tenth of such a time has judged everything.
const SETTLED: Duration = Duration::from_secs(1);

/// The most processor time of the operator from its start until it has judged every pod. Lists that are searched for each
/// name of another list took 48 s.
const MOST_TO_START: Duration = Duration::from_secs(10);

pub(crate) fn attacks() -> Vec<Attack> {
    vec![
        Attack::new(
            "C1",
            "ninety_stored_pods_with_thousands_of_containers_and_names_to_skip",
            2,
            |field, round| Box::pin(touch(field, round)),
        )
        .prepared_by(|field| Box::pin(store(field)))
        .judged_by(|field| Box::pin(a_start_is_cheap(field))),
    ]
}

fn name(number: usize) -> String {
    format!("stored-{number}")
}

/// Every one of them is stored: an attack with fewer would be another.
async fn store(field: Arc<Field>) -> Result<()> {
    let attackers = field.attackers.clone();
    let mut workers = JoinSet::new();
    for worker in 0..AT_ONCE {
        let field = Arc::clone(&field);
        let store = async move {
            for number in (worker..PODS).step_by(AT_ONCE) {
                let pod = shapes::stored_containers_and_skip_list(HOSTILE, &name(number), CONTAINERS, NAMES_TO_SKIP);
                let request = http::Request::post(format!("/api/v1/namespaces/{HOSTILE}/pods"))
                    .header(http::header::CONTENT_TYPE, "application/json")
                    .body(Body::from(pod.into_bytes()))?;
                let answer = field.author.send(request).await?;
                let status = answer.status();
                let body = answer.into_body().collect().await?.to_bytes();
                ensure!(
                    status == 201,
                    "it is not stored: {status} {}",
                    String::from_utf8_lossy(&body[..body.len().min(500)])
                );
            }
            anyhow::Ok(())
        };
        workers.spawn_on(store, &attackers);
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(())
}

/// The first worker turns the annotation of their ServiceAccount on and off, so that each of them is judged anew. The others
/// write to the pods, so that each watch brings them again.
async fn touch(field: Arc<Field>, round: Round) -> Result<()> {
    let account = format!("/api/v1/namespaces/{HOSTILE}/serviceaccounts/orders");
    for number in 0.. {
        if !round.goes_on() {
            break;
        }
        let (path, change) = if round.worker == 0 {
            let role = (number % 2 == 0).then_some(ORDERS);
            (
                account.clone(),
                json!({"metadata": {"annotations": {"tokenscope.io/role-arn": role}}}),
            )
        } else {
            let path = format!("/api/v1/namespaces/{HOSTILE}/pods/{}", name(number % PODS));
            (path, json!({"metadata": {"labels": {"touched": number.to_string()}}}))
        };
        round
            .send(&field.author, http::Method::PATCH, &path, change.to_string())
            .await?;
        round.pause(200).await;
    }
    Ok(())
}

/// Both processes start beside them, and the operator has judged them all with little work.
async fn a_start_is_cheap(field: Arc<Field>) -> Result<()> {
    let account = format!("/api/v1/namespaces/{HOSTILE}/serviceaccounts/orders");
    let change = json!({"metadata": {"annotations": {"tokenscope.io/role-arn": ORDERS}}});
    let request = http::Request::patch(account)
        .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
        .body(Body::from(change.to_string().into_bytes()))?;
    let answer = field.author.send(request).await?;
    ensure!(
        answer.status().is_success(),
        "the ServiceAccount can't be annotated: {}",
        answer.status()
    );
    survives_a_restart(Arc::clone(&field)).await?;
    let operator = field.installed.operator(0);
    eventually(PROPAGATION * 2, "the operator has nothing to do any more", async || {
        let before = operator.processor_time()?;
        tokio::time::sleep(SETTLED).await;
        let used = operator.processor_time()?.saturating_sub(before);
        ensure!(used < SETTLED / 10, "it used {used:?} in {SETTLED:?}");
        Ok(())
    })
    .await?;
    let took = operator.processor_time()?;
    ensure!(
        took <= MOST_TO_START,
        "the operator took {took:?} of processor time to start beside {PODS} stored pods, and may take {MOST_TO_START:?}"
    );
    Ok(())
}
