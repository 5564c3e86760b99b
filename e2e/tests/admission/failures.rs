//! A webhook that fails in every way, and pods that bring marks: what needs a review and got none is never admitted.

use std::fmt::Write as _;

use serde_json::{Value, json};
use tokenscope_e2e::admission::{accepts, create_pod};
use tokenscope_e2e::fixtures::{ORDERS, Shop, with_annotations};

use crate::stand_in::Way;
use crate::{Door, MARK, opted_out, with_driver, with_label, with_token};

const LOCKED: &str = "sts.amazonaws.com";

pub(crate) const DRIVER: &str = "listed.csi.example.com";

const FAILURES: [Way; 15] = [
    Way::Allows,
    Way::Status(302),
    Way::Status(400),
    Way::Status(404),
    Way::Status(413),
    Way::Status(429),
    Way::Status(500),
    Way::Status(503),
    Way::Unreadable,
    Way::WrongUid,
    Way::WrongPatch,
    Way::Nothing,
    Way::HalfAnAnswer,
    Way::HangsUp,
    Way::Late,
];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_webhook_does_no_pod_that_needs_a_review_is_admitted_without_one() {
    nothing_gets_past_failures(Door::open(&failing()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_holds_where_the_webhook_takes_marks_away() {
    nothing_gets_past_failures(Door::open_before_mutating_policies(&failing()).await).await;
}

fn failing() -> Value {
    json!({"lock": {"mode": "deny", "csiDrivers": [DRIVER]}, "webhook": {"timeoutSeconds": 1}})
}

async fn nothing_gets_past_failures(door: Door) {
    let shop = door.shop("shop", &[]).await;
    let strict = door.shop("strict", &[("tokenscope.io/required", "true")]).await;

    let mut admitted = String::new();
    let mut tried = 0;
    for (round, failure) in FAILURES.into_iter().enumerate() {
        // A webhook that allows and strips nothing is one that was taken over: marks are believed then.
        let ways_to_strip: &[Way] = if failure == Way::Allows {
            &[Way::Works]
        } else {
            &[Way::Works, failure]
        };
        for &strip in ways_to_strip {
            door.stand_in.answers(failure, strip);
            let pods = needing_a_review(&shop, &strict);
            let pods = pods.into_iter().flat_map(|(kind, pod)| marks(&kind, &pod));
            let attempts = pods.map(|(kind, mut pod)| {
                tried += 1;
                pod["metadata"]["name"] = json!(format!("pod-{round}-{tried}"));
                let client = door.client.clone();
                let task = tokio::spawn(async move { create_pod(&client, &pod).await });
                (kind, task)
            });
            for (kind, task) in attempts.collect::<Vec<_>>() {
                let answer = task.await.unwrap().unwrap();
                if answer.accepted() {
                    writeln!(
                        admitted,
                        "{failure:?}, strip {strip:?}: {kind}: {}",
                        answer.body["metadata"]
                    )
                    .unwrap();
                }
            }
        }
    }
    assert_eq!(admitted, "");
    assert!(tried > 1000, "only {tried} were tried");

    // Nobody else is held up by any of it, but for a patch that can't be applied, which the API server never ignores.
    let ignored = FAILURES.into_iter().filter(|failure| *failure != Way::WrongPatch);
    for (round, failure) in ignored.enumerate() {
        door.stand_in.answers(failure, failure);
        accepts(&door.client, &shop.pod(&format!("plain-{round}")))
            .await
            .unwrap();
        accepts(&door.client, &opted_out(shop.asking(&format!("out-{round}"), ORDERS)))
            .await
            .unwrap();
        accepts(&door.client, &with_token(shop.pod(&format!("vault-{round}")), "vault"))
            .await
            .unwrap();
    }

    // Nothing listens where the webhook was.
    door.stand_in.stop();
    for (kind, pod) in needing_a_review(&shop, &strict) {
        for (mark, pod) in marks(&kind, &pod) {
            let answer = create_pod(&door.client, &pod).await.unwrap();
            assert!(!answer.accepted(), "{mark}: {}", answer.body);
        }
    }
    accepts(&door.client, &shop.pod("plain-away")).await.unwrap();
}

#[tokio::test]
async fn a_mark_that_a_pod_brings_is_taken_away_before_the_pod_is_reviewed() {
    let door = Door::open(&json!({"lock": {"mode": "deny"}})).await;
    let shop = door.shop("shop", &[]).await;
    let forged = with_label(shop.asking("forged", ORDERS), MARK, "refused");
    let pod = accepts(&door.client, &forged).await.unwrap();
    assert_eq!(pod["metadata"]["labels"][MARK], "granted", "that of the review");

    // Also where no webhook is called, and while it fails.
    let out = door.shop("out", &[("tokenscope.io/inject", "false")]).await;
    let pod = accepts(&door.client, &with_label(out.asking("forged", ORDERS), MARK, "granted"))
        .await
        .unwrap();
    assert!(pod["metadata"]["labels"][MARK].is_null(), "{}", pod["metadata"]);
    door.stand_in.answers(Way::Status(500), Way::Status(500));
    let restored = with_label(shop.pod("restored"), MARK, "granted");
    let pod = accepts(&door.client, &restored).await.unwrap();
    assert!(pod["metadata"]["labels"][MARK].is_null(), "{}", pod["metadata"]);
}

#[tokio::test]
async fn before_mutating_policies_a_mark_is_taken_away_by_the_webhook_and_refused_where_there_is_none() {
    let door = Door::open_before_mutating_policies(&json!({"lock": {"mode": "deny"}})).await;
    let shop = door.shop("shop", &[]).await;
    let forged = with_label(shop.asking("forged", ORDERS), MARK, "refused");
    let pod = accepts(&door.client, &forged).await.unwrap();
    assert_eq!(pod["metadata"]["labels"][MARK], "granted", "that of the review");

    // In namespaces without reviews nobody would take it away, so it is refused.
    let out = door.shop("out", &[("tokenscope.io/inject", "false")]).await;
    let answer = create_pod(&door.client, &with_label(out.pod("forged"), MARK, "granted"))
        .await
        .unwrap();
    assert_eq!(answer.status, 403, "{}", answer.body);
    assert!(
        answer.message().contains("'tokenscope-record-forged'"),
        "{}",
        answer.message()
    );
    accepts(&door.client, &out.asking("asking", ORDERS)).await.unwrap();
}

#[tokio::test]
async fn each_refusal_says_what_is_wrong_and_what_to_do_and_a_required_review_is_not_optional() {
    let door = Door::open(&json!({"lock": {"mode": "deny"}})).await;
    door.stand_in.answers(Way::Status(500), Way::Works);
    let shop = door.shop("shop", &[]).await;
    let strict = door.shop("strict", &[("tokenscope.io/required", "true")]).await;
    let message = async |pod: Value| {
        let answer = create_pod(&door.client, &pod).await.unwrap();
        assert_eq!(answer.status, 403, "{}", answer.body);
        answer.message().to_owned()
    };
    let asks = message(shop.asking("asks", ORDERS)).await;
    assert!(
        asks.contains("asks for an AWS role") && asks.contains("did not review it"),
        "{asks}"
    );
    assert!(
        asks.contains("kubectl get mutatingwebhookconfiguration tokenscope"),
        "{asks}"
    );
    assert!(asks.contains("tokenscope.io/inject: \"false\""), "{asks}");
    accepts(&door.client, &opted_out(shop.asking("asks", ORDERS)))
        .await
        .unwrap();

    let locked = message(opted_out(with_token(shop.pod("locked"), LOCKED))).await;
    assert!(
        locked.contains("token of a locked audience (sts.amazonaws.com)"),
        "{locked}"
    );
    assert!(
        !locked.contains("inject"),
        "opting out is no way around the lock: {locked}"
    );

    for pod in [
        strict.pod("plain"),
        opted_out(strict.pod("out")),
        opted_out(strict.asking("asks", ORDERS)),
    ] {
        let required = message(pod).await;
        assert!(
            required.contains("namespace strict requires a review of every pod"),
            "{required}"
        );
        assert!(
            !required.contains("inject"),
            "the pod's author can't decide that: {required}"
        );
    }
}

/// Pods that may not start without a review, with what each is.
pub(crate) fn needing_a_review(shop: &Shop<'_>, strict: &Shop<'_>) -> Vec<(String, Value)> {
    let many = |count: usize, make: &dyn Fn(usize) -> Value| (0..count).map(make).collect::<Vec<_>>();
    let mut many_annotations = shop.pod("pod");
    for number in 0..257 {
        many_annotations["metadata"]["annotations"][format!("example.com/{number}")] = json!("");
    }
    let mut many_volumes = shop.pod("pod");
    many_volumes["spec"]["volumes"] = json!(many(
        257,
        &|number| json!({"name": format!("v{number}"), "emptyDir": {}})
    ));
    let mut many_sources = shop.pod("pod");
    let source = |number| json!({"downwardAPI": {"items": [{"path": format!("f{number}"), "fieldRef": {"fieldPath": "metadata.name"}}]}});
    many_sources["spec"]["volumes"] = json!([{"name": "many", "projected": {"sources": many(33, &source)}}]);
    let pods = [
        ("asks", shop.asking("pod", ORDERS)),
        (
            "asks for one container",
            with_annotations(shop.pod("pod"), &[("tokenscope.io/role-arn.app", ORDERS)]),
        ),
        ("many annotations", many_annotations),
        ("locked token", with_token(shop.pod("pod"), LOCKED)),
        (
            "locked token, opted out",
            opted_out(with_token(shop.pod("pod"), LOCKED)),
        ),
        (
            "asks and locked token, opted out",
            opted_out(with_token(shop.asking("pod", ORDERS), LOCKED)),
        ),
        ("listed driver", with_driver(shop.pod("pod"), DRIVER)),
        (
            "listed driver, opted out",
            opted_out(with_driver(shop.pod("pod"), DRIVER)),
        ),
        ("many volumes", many_volumes),
        ("many sources", many_sources),
        ("required", strict.pod("pod")),
        ("required, opted out", opted_out(strict.pod("pod"))),
        ("required, asks", strict.asking("pod", ORDERS)),
        ("required, locked token", with_token(strict.pod("pod"), LOCKED)),
    ];
    pods.into_iter().map(|(kind, pod)| (kind.to_owned(), pod)).collect()
}

/// The pod without a mark, and with each that its author could write.
pub(crate) fn marks(kind: &str, pod: &Value) -> Vec<(String, Value)> {
    let record = [
        ("tokenscope.io/grant", "{\"grants\":[],\"hash\":\"\"}"),
        (MARK, "granted"),
    ];
    let marked = with_label(pod.clone(), MARK, "granted");
    vec![
        (kind.to_owned(), pod.clone()),
        (format!("{kind}, annotation"), with_annotations(pod.clone(), &record)),
        (format!("{kind}, label"), marked.clone()),
        (
            format!("{kind}, label and annotations"),
            with_annotations(marked, &record),
        ),
    ]
}
