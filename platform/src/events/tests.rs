//! What is taken in, and how an Event looks.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::client::{DEADLINE, client_with};
use crate::freshness::Freshness;

fn notice(namespace: Option<&str>, message: &str) -> Notice {
    let about = ObjectReference {
        namespace: namespace.map(str::to_owned),
        ..ObjectReference::default()
    };
    Notice {
        name: Some("n".into()),
        about,
        verified_as: None,
        reason: "CredentialsMissed",
        message: message.into(),
    }
}

/// Both ends, with the number of notices that were dropped.
fn ends() -> (EventSender, EventWriter, Arc<AtomicUsize>) {
    let config = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = dropped.clone();
    let source = EventSource {
        client: client_with(config, DEADLINE, &Freshness::default()).unwrap(),
        component: "tokenscope-operator",
        instance: "me".into(),
        is_leader: Box::new(|| false),
        clock: || Timestamp::UNIX_EPOCH,
        count: Arc::new(move |outcome| {
            let is_dropped = outcome == EventOutcome::Dropped;
            counter.fetch_add(usize::from(is_dropped), Ordering::Relaxed);
        }),
    };
    let limits = EventLimits {
        waiting: 4,
        waiting_of_a_namespace: 4,
        repeat: Duration::ZERO,
        remembered_of_a_namespace: 2,
        namespaces: 8,
        pause: Duration::ZERO,
        deadline: Duration::from_secs(1),
    };
    let (sender, writer) = queue(source, limits);
    (sender, writer, dropped)
}

#[tokio::test]
async fn an_event_stands_beside_what_it_is_about_or_in_default() {
    let (_, writer, _) = ends();
    let of = |namespace| writer.event(&notice(namespace, "")).metadata.namespace;
    assert_eq!(of(Some("shop")).as_deref(), Some("shop"));
    assert_eq!(of(None).as_deref(), Some("default"));
}

#[tokio::test]
async fn an_event_has_the_name_of_its_notice_or_one_that_the_api_server_makes() {
    let (_, writer, _) = ends();
    let named = writer.event(&notice(None, "")).metadata;
    assert_eq!((named.name.as_deref(), named.generate_name), (Some("n"), None));
    let unnamed = Notice {
        name: None,
        ..notice(None, "")
    };
    let unnamed = writer.event(&unnamed).metadata;
    assert_eq!(
        (unnamed.name, unnamed.generate_name.as_deref()),
        (None, Some("tokenscope-"))
    );
}

#[tokio::test]
async fn a_long_message_is_cut_between_two_characters() {
    let (sender, writer, _) = ends();
    sender.send(notice(None, &"ä".repeat(1000)));
    let event = writer.event(&writer.next_notice().unwrap());
    assert_eq!(event.message, Some("ä".repeat(512)));
}

#[tokio::test]
async fn what_does_not_fit_is_counted_and_whoever_asks_first_hears_it() {
    let (sender, writer, dropped) = ends();
    assert!(sender.has_room_for("shop", 4) && !sender.has_room_for("shop", 5));
    for _ in 0..5 {
        sender.send(notice(
            Some("shop"),
            "the same, since names tell where nothing is remembered",
        ));
    }
    assert_eq!(dropped.load(Ordering::Relaxed), 2, "one question and one notice");
    assert_eq!(std::iter::from_fn(|| writer.next_notice()).count(), 4);
}

#[tokio::test]
async fn a_process_that_does_not_lead_writes_nothing_and_keeps_nothing() {
    let (sender, writer, _) = ends();
    sender.send(notice(Some("shop"), "a"));
    let waiting = sender.clone();
    drop(sender);
    let running = tokio::spawn(writer.run(tokio_util::sync::CancellationToken::new()));
    while !waiting.has_room_for("shop", 4) {
        tokio::task::yield_now().await;
    }
    drop(waiting);
    running.await.unwrap().unwrap();
}
