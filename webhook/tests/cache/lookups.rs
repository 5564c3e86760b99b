//! The bounds of lookups.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;
use tokenscope_index::{Share, WebhookBounds};

use super::{Asked, NEIGHBOUR, account, all, namespace, none};

#[tokio::test]
async fn a_name_that_does_not_exist_is_not_asked_for_again_at_once() {
    let asked = Asked::new(&WebhookBounds::default(), none);
    asked.cache.apply_namespace(namespace("shop"));
    let began = Instant::now();
    for _ in 0..50 {
        let known = asked.around("shop", "missing").await.unwrap();
        assert!(known.annotations.is_none());
    }
    // Once a second, where a machine stalls for so long.
    let before = asked.requests();
    assert!(
        (1..=1 + began.elapsed().as_secs() as usize).contains(&before),
        "{before}"
    );
    tokio::time::sleep(Duration::from_millis(1100)).await;
    asked.around("shop", "missing").await.unwrap();
    assert_eq!(asked.requests(), before + 1);
}

#[tokio::test]
async fn names_that_kubernetes_does_not_allow_are_never_asked_for() {
    let asked = Asked::new(&WebhookBounds::default(), all);
    asked.cache.apply_namespace(namespace("shop"));
    let long = "a".repeat(254);
    for name in ["", "..", "A", "a/b", "a?b", "ä", &long] {
        let known = asked.around("shop", name).await.unwrap();
        assert!(known.annotations.is_none(), "{name:?}");
    }
    let long_namespace = "n".repeat(1 << 20);
    for name in ["", "..", "a.b", &long_namespace] {
        let why = asked.around(name, "orders").await.unwrap_err().to_string();
        assert!(why.contains("knows none of that name") && why.len() < 1024, "{why}");
    }
    assert_eq!(asked.requests(), 0);
}

#[tokio::test]
async fn a_namespace_that_asks_for_much_fails_alone() {
    let asked = Asked::new(&WebhookBounds::default(), all);
    asked.cache.apply_namespace(namespace("noisy"));
    asked.cache.apply_namespace(namespace("shop"));
    let (mut unknown, began) = (0, Instant::now());
    for burst in 0..20 {
        let names: Vec<_> = (0..20).map(|number| format!("account-{burst}-{number}")).collect();
        let around = futures::future::join_all(names.iter().map(|name| asked.around("noisy", name)));
        let (answers, other) = futures::join!(around, asked.around("shop", "orders"));
        assert!(other.is_ok(), "{other:?}");
        for answer in answers.into_iter().filter_map(Result::err) {
            assert!(
                answer.to_string().contains("at most 20 such things a second"),
                "{answer}"
            );
            unknown += 1;
        }
    }
    assert!(asked.at_a_time.load(Ordering::Relaxed) <= 9);
    // The burst and what its seconds allow; the other namespace asks for one in each of the twenty.
    let most = 40 + 20 * (began.elapsed().as_secs() as usize + 1);
    assert!((30..=most + 20).contains(&asked.requests()), "{}", asked.requests());
    assert!(
        unknown + most >= 400,
        "{unknown} of 400 are refused, and {most} may be asked for"
    );
    assert!(asked.shows(&format!(
        "tokenscope_webhook_live_lookups_total{{result=\"limited\"}} {unknown}"
    )));
}

#[tokio::test]
async fn whoever_invents_namespaces_takes_nothing_from_those_that_exist() {
    let asked = Asked::new(&WebhookBounds::default(), |path| path.contains("/shop/"));
    asked.cache.apply_namespace(namespace("shop"));
    let names: Vec<_> = (0..500).map(|number| format!("invented-{number}")).collect();
    let around = futures::future::join_all(names.iter().map(|name| asked.around(name, "orders")));
    let (invented, real) = futures::join!(around, asked.around("shop", "orders"));
    assert!(real.unwrap().annotations.is_some());
    assert!(invented.iter().all(Result::is_err));
    assert!(asked.requests() <= 10, "{}", asked.requests());
}

#[tokio::test]
async fn a_neighbour_who_invents_service_accounts_takes_nothing_from_the_namespaces_that_he_names() {
    let asked = Asked::new(&WebhookBounds::default(), all);
    let namespaces: Vec<_> = (0..40).map(|number| format!("shop-{number}")).collect();
    for name in &namespaces {
        asked.cache.apply_namespace(namespace(name));
    }
    for burst in 0..10 {
        let names: Vec<_> = (0..20).map(|number| format!("invented-{burst}-{number}")).collect();
        let mut invented = Vec::new();
        for namespace in &namespaces {
            for name in &names {
                invented.push(asked.around_for(NEIGHBOUR, namespace, name));
            }
        }
        let account = format!("orders-{burst}");
        let (_, real) = futures::join!(futures::future::join_all(invented), asked.around("shop-0", &account));
        assert!(real.is_ok(), "{real:?}");
    }
    // Of 64 lookups at a time one peer has two thirds, and one more is the API server's.
    let at_a_time = asked.at_a_time.load(Ordering::Relaxed);
    assert!((20..50).contains(&at_a_time), "{at_a_time}");
}

#[tokio::test]
async fn over_the_share_and_the_rate_the_reason_is_the_share() {
    let bounds = WebhookBounds {
        service_accounts: Share {
            objects: 1,
            bytes: usize::MAX,
        },
        ..WebhookBounds::default()
    };
    let asked = Asked::new(&bounds, all);
    asked.cache.apply_namespace(namespace("crowd"));
    for number in 0..200 {
        asked
            .cache
            .apply_service_account(account("crowd", &format!("account-{number}"), &json!({})));
    }
    let names: Vec<_> = (0..200).map(|number| format!("account-{number}")).collect();
    let around = futures::future::join_all(names.iter().map(|name| asked.around("crowd", name))).await;
    let (refused, known): (Vec<_>, Vec<_>) = around
        .into_iter()
        .map(Result::unwrap)
        .partition(|known| known.over_share.is_some());
    assert!(known.iter().all(|known| known.annotations.is_some()) && known.len() >= 8);
    assert!(refused.len() > 150);
    for known in refused {
        let why = known.over_share.unwrap().to_string();
        assert!(
            why.contains("service accounts of namespace crowd take more than"),
            "{why}"
        );
        assert!(known.annotations.is_none() && !known.lacks_policies);
    }
}
