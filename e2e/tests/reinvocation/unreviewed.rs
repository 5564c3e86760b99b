//! Another webhook adds to a pod what ours has not seen, and the second review of the pod fails: by then it bears a mark.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::admission::{Answer, try_pod};
use tokenscope_e2e::fixtures::{ORDERS, Shop, annotation, reviewed, with_annotations};
use tokenscope_e2e::second_webhook::{Order, SecondWebhook};
use tokenscope_e2e::{Environment, install};

const LATE: &str = "'tokenscope-guard-late'";

/// A value whose review is larger than what the webhook reads: JSON for HTML writes each of these characters in six bytes.
fn large() -> Value {
    json!({"name": "LARGE", "value": "<".repeat(1_450_000)})
}

/// What the other webhook does, as the label of a pod says: it makes the review of the pod fail, and adds something before.
fn edits(pod: &Value) -> Vec<Value> {
    let Some(added) = pod["metadata"]["labels"]["added"].as_str() else {
        return Vec::new();
    };
    let container = "/spec/containers/0";
    let mut edits = vec![json!({"op": "add", "path": format!("{container}/env"), "value": [large()]})];
    match added {
        "role" => {
            let mut annotations = pod["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
            annotations.insert("tokenscope.io/role-arn".to_owned(), json!(ORDERS));
            edits.push(json!({"op": "add", "path": "/metadata/annotations", "value": annotations}));
        }
        "token" => {
            let token = json!({"serviceAccountToken": {"audience": "sts.amazonaws.com", "path": "token"}});
            let mut volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
            volumes.push(json!({"name": "added", "projected": {"sources": [token]}}));
            edits.push(json!({"op": "add", "path": "/spec/volumes", "value": volumes}));
        }
        _ => {}
    }
    edits
}

fn with_added(mut pod: Value, added: &str) -> Value {
    pod["metadata"]["labels"]["added"] = json!(added);
    pod
}

fn many_annotations(shop: &Shop<'_>) -> Value {
    let mut pod = shop.pod("many");
    for number in 0..257 {
        pod["metadata"]["annotations"][format!("example.com/{number}")] = json!("");
    }
    pod
}

/// Says what is wrong with an answer.
type Judge = fn(&Answer) -> Result<()>;

/// True if the pod has the token that the other webhook adds.
fn holds_added_token(pod: &Value) -> bool {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.filter(|volume| volume["name"] == "added").count() == 1
}

#[tokio::test]
async fn what_is_added_after_the_review_of_a_pod_that_had_nothing_is_refused_where_no_second_review_succeeds() {
    let options = install::Options {
        values: json!({"lock": {"mode": "deny"}}),
        ..install::Options::default()
    };
    let Environment { control_plane, .. } = &Environment::start(options).await.unwrap();
    let required = [("tokenscope.io/required", "true")];
    let shop = Shop::open(control_plane, "shop", &[]).await.unwrap();
    let strict = Shop::open(control_plane, "strict", &required).await.unwrap();
    shop.allow_orders().await.unwrap();
    shop.granted(&shop.asking("early", ORDERS)).await.unwrap();
    let mut others = Vec::new();
    for namespace in ["shop", "strict"] {
        let other = SecondWebhook::start(control_plane, Order::After, namespace, edits).await;
        others.push(other.unwrap());
    }

    let opted_out = |pod| with_annotations(pod, &[("tokenscope.io/inject", "false")]);
    let expected: [(&str, Value, &str, Judge); 9] = [
        ("required", strict.pod("pod"), "role", is_refused),
        ("required", strict.pod("pod"), "token", is_refused),
        ("required", strict.pod("pod"), "nothing", is_marked_as_asking_nothing),
        ("opted out", opted_out(shop.asking("pod", ORDERS)), "token", is_refused),
        ("many annotations", many_annotations(&shop), "token", is_refused),
        ("many annotations", many_annotations(&shop), "nothing", is_admitted),
        ("no mark", shop.pod("pod"), "role", is_refused_for_want_of_a_mark),
        ("no mark", shop.pod("pod"), "token", is_refused_for_want_of_a_mark),
        // What remains possible: the mark of a granted pod says nothing of what was not there.
        (
            "granted",
            shop.asking("pod", ORDERS),
            "token",
            is_admitted_with_the_token,
        ),
    ];
    for (what, pod, added, judge) in expected {
        let answer = try_pod(&shop.client, &with_added(pod, added)).await.unwrap();
        judge(&answer)
            .with_context(|| format!("{what}, added: {added}"))
            .unwrap();
    }
    for other in others {
        other.remove(control_plane).await.unwrap();
    }
}

fn is_refused(answer: &Answer) -> Result<()> {
    ensure!(answer.message().contains(LATE), "{}", shown(answer));
    Ok(())
}

fn is_refused_for_want_of_a_mark(answer: &Answer) -> Result<()> {
    ensure!(answer.message().contains("'tokenscope-guard'"), "{}", shown(answer));
    Ok(())
}

fn is_admitted(answer: &Answer) -> Result<()> {
    ensure!(
        answer.accepted() && reviewed(&answer.body).is_some(),
        "{}",
        shown(answer)
    );
    Ok(())
}

fn is_marked_as_asking_nothing(answer: &Answer) -> Result<()> {
    is_admitted(answer)?;
    ensure!(reviewed(&answer.body) == Some("asks-nothing"), "{}", shown(answer));
    Ok(())
}

fn is_admitted_with_the_token(answer: &Answer) -> Result<()> {
    ensure!(
        answer.accepted() && reviewed(&answer.body) == Some("granted") && holds_added_token(&answer.body),
        "{}",
        shown(answer)
    );
    ensure!(
        annotation(&answer.body, "tokenscope.io/grant").is_some(),
        "{}",
        shown(answer)
    );
    Ok(())
}

/// An answer without the pod's large value.
fn shown(answer: &Answer) -> String {
    format!("{} {} {}", answer.status, answer.message(), answer.body["metadata"])
}
