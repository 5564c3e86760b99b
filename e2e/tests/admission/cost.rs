//! Pods that are meant to keep the API server busy: what the admission policies and the webhook's registration cost it.

use std::time::Duration;

use anyhow::ensure;
use http::{HeaderName, HeaderValue, Method, header};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Map, Value, json};
use tokenscope_e2e::admission::try_pod;
use tokenscope_e2e::control_plane::{ControlPlane, Options};
use tokenscope_e2e::fixtures::{Shop, with_annotations};
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::policies_act::policies_act;
use tokenscope_e2e::{eventually, shapes};

use crate::stand_in::{StandIn, Way};
use crate::{Door, SOON, chart_for, with_label};

/// How often each is tried in a turn.
const ROUNDS: u32 = 2;
/// How many turns both have at most where it seems too much, one right after the other: other work on the machine makes any request dearer, so the least of
/// each counts.
const TURNS: u32 = 6;
/// Processor time that doesn't count: what the API server does beside.
const BESIDE: Duration = Duration::from_millis(250);

/// A request that may be refused, but not cost much.
struct Shape {
    name: &'static str,
    path: String,
    body: Value,
    impersonated_groups: usize,
}

#[tokio::test]
async fn the_shapes_of_this_list_cost_the_api_server_at_most_twice_what_they_cost_without_tokenscope() {
    // One API server has no tokenscope, and is asked beside the one that has it.
    let (plain, _) = with_namespaces().await;
    let (control_plane, shapes) = with_namespaces().await;
    let values = json!({"lock": {"mode": "deny", "allowed": {"groups": ["a", "b"]}}});
    let door = Door::open_in(control_plane, &values).await;
    let mut too_much = Vec::new();
    for shape in &shapes {
        let (mut without, mut with) = (Duration::MAX, Duration::MAX);
        for _ in 0..TURNS {
            without = without.min(spent(&plain, shape).await);
            with = with.min(spent(&door.control_plane, shape).await);
            if with <= without * 2 + BESIDE {
                break;
            }
        }
        println!(
            "{:44} {:8.1} ms without, {:8.1} ms with",
            shape.name,
            milliseconds(without),
            milliseconds(with)
        );
        if with > without * 2 + BESIDE {
            too_much.push(format!("{}: {without:?} without, {with:?} with", shape.name));
        }
    }
    assert_eq!(too_much, [""; 0]);
}

/// A control plane with the namespaces of the shapes, and these.
async fn with_namespaces() -> (ControlPlane, Vec<Shape>) {
    let control_plane = ControlPlane::start(Options::default()).await.unwrap();
    let shapes = {
        let shop = Shop::open(&control_plane, "shop", &[]).await.unwrap();
        let strict = Shop::open(&control_plane, "strict", &[("tokenscope.io/required", "true")])
            .await
            .unwrap();
        Shop::open(&control_plane, "out", &[("tokenscope.io/inject", "false")])
            .await
            .unwrap();
        shapes(&shop, &strict)
    };
    (control_plane, shapes)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Pods whose review is long: what the API server spends on them is mostly the writing of it, which every webhook that is registered for all pods
/// costs. So the chart's policies are compared with that, and not with a cluster that has no such webhook.
#[tokio::test]
async fn where_a_review_is_long_the_policies_cost_no_more_than_one_webhook_that_is_called_for_every_pod() {
    // Two API servers that are asked one right after the other: one with the registration alone, and one with all.
    let (one_entry, all) = (registered(false).await, registered(true).await);
    let mut too_much = Vec::new();
    for shape in &long_reviews() {
        let (mut entry, mut with) = (Duration::MAX, Duration::MAX);
        for _ in 0..TURNS {
            entry = entry.min(mean(&one_entry.control_plane, shape).await);
            with = with.min(mean(&all.control_plane, shape).await);
            if with <= entry * 2 {
                break;
            }
        }
        println!(
            "{:44} {:8.1} ms with one entry, {:8.1} ms with all",
            shape.name,
            milliseconds(entry),
            milliseconds(with)
        );
        if with > entry * 2 {
            too_much.push(format!("{}: {entry:?} with one entry, {with:?} with all", shape.name));
        }
    }
    assert_eq!(too_much, [""; 0]);
}

/// A control plane with the registration of a webhook that allows all, and, if wanted, all else that the chart makes. It is in force.
async fn registered(with_policies: bool) -> Door {
    let control_plane = ControlPlane::start(Options::default()).await.unwrap();
    let shop = Shop::open(&control_plane, "shop", &[]).await.unwrap();
    control_plane.create_namespace(NAMESPACE, &[]).await.unwrap();
    let ordinary = shop.pod("ordinary");
    let stand_in = StandIn::start().await.unwrap();
    stand_in.answers(Way::Allows, Way::Allows);
    let client = control_plane.client().await.unwrap();
    let door = Door {
        control_plane,
        stand_in,
        client,
    };
    let mut objects = chart_for(&door.control_plane, &json!({"lock": {"mode": "deny"}}));
    objects.retain(|object| with_policies || object["kind"] == "MutatingWebhookConfiguration");
    door.apply(objects.clone()).await.unwrap();
    policies_act(&door.control_plane, &objects).await.unwrap();
    eventually(SOON, "the webhook is asked", async || {
        try_pod(&door.client, &ordinary).await?;
        ensure!(door.stand_in.calls() > 0, "it is not asked yet");
        Ok(())
    })
    .await
    .unwrap();
    door
}

/// The pods whose review is long, those of `cargo xtask bench webhook`: one that is large, and one that is six times as large in a review as in
/// its request.
fn long_reviews() -> Vec<Shape> {
    let wanted = ["20,000 terms of affinity", "400,000 characters that JSON escapes"];
    let found = shapes::SHAPES.into_iter().filter(|shape| wanted.contains(&shape.name));
    let found: Vec<Shape> = found
        .map(|shape| Shape {
            name: shape.name,
            path: "/api/v1/namespaces/shop/pods?dryRun=All".to_owned(),
            body: serde_json::from_str(&(shape.pod)("shop", "pod")).unwrap(),
            impersonated_groups: 0,
        })
        .collect();
    assert_eq!(found.len(), wanted.len());
    found
}

/// The processor time that the API server spends on one such request, as the mean of some: the kernel counts in steps of ten milliseconds.
async fn mean(control_plane: &ControlPlane, shape: &Shape) -> Duration {
    const REQUESTS: u32 = 10;
    let client = control_plane.client().await.unwrap();
    let before = control_plane.apiserver().processor_time().unwrap();
    for _ in 0..REQUESTS {
        send(&client, shape).await;
    }
    let after = control_plane.apiserver().processor_time().unwrap();
    after.saturating_sub(before) / REQUESTS
}

/// The least processor time that the API server spent on one such request.
async fn spent(control_plane: &ControlPlane, shape: &Shape) -> Duration {
    let client = control_plane.client().await.unwrap();
    let mut least = Duration::MAX;
    for _ in 0..ROUNDS {
        let before = control_plane.apiserver().processor_time().unwrap();
        send(&client, shape).await;
        let after = control_plane.apiserver().processor_time().unwrap();
        least = least.min(after.saturating_sub(before));
    }
    least
}

/// Sends one such request, which is answered.
async fn send(client: &Client, shape: &Shape) {
    let mut request = http::Request::builder()
        .method(Method::POST)
        .uri(&shape.path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(shape.body.to_string().into_bytes())
        .unwrap();
    if shape.impersonated_groups > 0 {
        let headers = request.headers_mut();
        headers.insert("impersonate-user", HeaderValue::from_static("somebody"));
        for number in 0..shape.impersonated_groups {
            let group = HeaderValue::from_str(&format!("g{number}")).unwrap();
            headers.append(HeaderName::from_static("impersonate-group"), group);
        }
        headers.append(
            HeaderName::from_static("impersonate-group"),
            HeaderValue::from_static("system:masters"),
        );
    }
    let answer = client.send(request.map(Body::from)).await.unwrap();
    let status = answer.status();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&text[..text.len().min(500)]).into_owned();
    let expected = [201, 400, 403, 422].contains(&status.as_u16());
    assert!(expected, "{}: {status} {text}", shape.name);
}

/// As much of everything that a pod's author sizes as the API server takes in some seconds: its own checks of many volumes or containers
/// are quadratic, and of 40,000 take minutes without us.
fn large_pods(shop: &Shop<'_>, strict: &Shop<'_>) -> [(&'static str, Value); 15] {
    // All of a pod's annotations together have at most 256 KiB.
    let annotated = |prefix: &str| {
        let mut pod = shop.pod("pod");
        pod["metadata"]["annotations"] = Value::Object(keys(240_000 / (prefix.len() + 5), prefix));
        pod
    };
    let mut labelled = shop.pod("pod");
    labelled["metadata"]["labels"] = Value::Object(keys(40_000, "l"));
    let mut finalized = shop.pod("pod");
    finalized["metadata"]["finalizers"] = (0..40_000)
        .map(|number| json!(format!("a.example/f{number}")))
        .collect();
    let with_volumes = |count: usize, volume: &dyn Fn(usize) -> Value| {
        let mut pod = shop.pod("pod");
        pod["spec"]["volumes"] = (0..count).map(volume).collect();
        pod
    };
    let mut containers = shop.pod("pod");
    containers["spec"]["containers"] = (0..2_000)
        .map(|number| json!({"name": format!("c{number}"), "image": "i"}))
        .collect();
    let opted_out = |mut pod: Value| {
        pod["metadata"]["namespace"] = json!("out");
        pod["spec"]["serviceAccountName"] = json!("default");
        pod
    };
    let in_strict = |mut pod: Value| {
        pod["metadata"]["namespace"] = json!(strict.namespace);
        pod
    };
    [
        ("an ordinary pod", shop.pod("pod")),
        ("annotations", annotated("k")),
        ("annotations that begin as ours", annotated("tokenscope.io/role-arn")),
        (
            "annotations of a marked pod",
            with_label(annotated("k"), "tokenscope.io/reviewed", "granted"),
        ),
        (
            "annotations and an opt-out",
            with_annotations(annotated("k"), &[("tokenscope.io/inject", "false")]),
        ),
        ("labels", labelled.clone()),
        ("labels in a required namespace", in_strict(labelled)),
        ("finalizers", finalized),
        ("volumes", with_volumes(4_000, &empty)),
        (
            "volumes in a namespace without reviews",
            opted_out(with_volumes(4_000, &empty)),
        ),
        ("projected volumes", with_volumes(3_000, &projected)),
        ("sources of one volume", with_volumes(1, &|_| sources(4_000))),
        ("sources, as many as are looked at", with_volumes(256, &full)),
        ("the same without reviews", opted_out(with_volumes(256, &full))),
        ("containers", containers),
    ]
}

/// These pods and requests for tokens, each with its path.
fn shapes(shop: &Shop<'_>, strict: &Shop<'_>) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = large_pods(shop, strict)
        .into_iter()
        .map(|(name, body)| Shape {
            name,
            path: format!(
                "/api/v1/namespaces/{}/pods?dryRun=All",
                body["metadata"]["namespace"].as_str().unwrap_or_default()
            ),
            body,
            impersonated_groups: 0,
        })
        .collect();
    shapes.extend(token_requests());
    shapes
}

fn keys(count: usize, prefix: &str) -> Map<String, Value> {
    (0..count)
        .map(|number| (format!("{prefix}{number}"), json!("")))
        .collect()
}

fn source(number: usize) -> Value {
    json!({"serviceAccountToken": {"audience": format!("a{number}"), "path": format!("p{number}")}})
}

fn empty(number: usize) -> Value {
    json!({"name": format!("v{number}"), "emptyDir": {}})
}

fn projected(number: usize) -> Value {
    json!({"name": format!("v{number}"), "projected": {"sources": [source(0), source(1)]}})
}

fn sources(count: usize) -> Value {
    json!({"name": "many", "projected": {"sources": (0..count).map(source).collect::<Vec<_>>()}})
}

fn full(number: usize) -> Value {
    json!({"name": format!("v{number}"), "projected": {"sources": (0..32).map(source).collect::<Vec<_>>()}})
}

/// Requests for tokens with much in them.
fn token_requests() -> [Shape; 2] {
    let token = |audiences: Vec<String>| json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": audiences}});
    let path = "/api/v1/namespaces/shop/serviceaccounts/orders/token?dryRun=All".to_owned();
    let audiences = Shape {
        name: "audiences of a token",
        path: path.clone(),
        body: token((0..40_000).map(|number| format!("a{number}")).collect()),
        impersonated_groups: 0,
    };
    let groups = Shape {
        name: "groups of who wants a token",
        path,
        body: token(vec!["sts.amazonaws.com".to_owned()]),
        impersonated_groups: 5_000,
    };
    [audiences, groups]
}
