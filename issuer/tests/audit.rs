//! The audit line of an exchange: who got what by which policy, and never a token. Alone in its program, since subscribers of
//! other tests' threads would have a say in what is logged.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]
#![allow(dead_code, reason = "the other exchanges use the rest of the setup")]

mod fixtures;
#[path = "exchange/setup.rs"]
mod setup;

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use fixtures::{NOW, claims};
use http::StatusCode;
use serde_json::{Value, json};
use setup::{Setup, policy, policy_with};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn last(&self) -> Value {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let line = text
            .lines()
            .rfind(|line| line.contains("\"target\":\"audit\""))
            .unwrap();
        serde_json::from_str::<Value>(line).unwrap()["fields"].clone()
    }

    fn count(&self) -> usize {
        self.text().matches("\"target\":\"audit\"").count()
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test]
async fn each_exchange_leaves_one_line_that_names_all_and_shows_no_token() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing::Level::TRACE);
    let _logging = tracing::subscriber::set_default(subscriber.with_writer(lines.clone()).finish());
    let setup = Setup::new().await;
    let subject = setup.subject();
    let (status, body) = setup.exchange(&subject, "sts.amazonaws.com").await;
    assert_eq!(status, StatusCode::OK);
    let line = lines.last();
    assert_eq!(line["outcome"], "issued");
    assert_eq!(line["subject"], "system:serviceaccount:shop:orders");
    assert_eq!(line["policy"], "TokenScopePolicy shop/orders");
    assert_eq!(
        (&line["audience"], &line["pod"]),
        (&json!("sts.amazonaws.com"), &json!("orders-1"))
    );
    assert_eq!(line["jti"].as_str().unwrap().len(), 22, "128 bits in base64url");

    let old = setup.cluster.token(&claims(&json!({"exp": NOW - 100})));
    setup.exchange(&old, "sts.amazonaws.com").await;
    let line = lines.last();
    assert_eq!(
        (&line["outcome"], &line["jti"]),
        (&json!("invalid_subject"), &json!(""))
    );
    assert_eq!(
        (&line["pod"], &line["subject"]),
        (&json!(""), &json!("")),
        "what proves nothing names nobody"
    );
    assert!(line["reason"].as_str().unwrap().contains("expired"));

    setup.exchange(&subject, "https://evil.example").await;
    let line = lines.last();
    assert_eq!(
        (&line["outcome"], &line["subject"], &line["policy"]),
        (
            &json!("not_granted"),
            &json!("system:serviceaccount:shop:orders"),
            &json!("")
        )
    );

    let text = lines.text();
    for token in [subject.as_str(), old.as_str(), body["access_token"].as_str().unwrap()] {
        for part in token.split('.').skip(1) {
            assert!(!text.contains(part), "{text}");
        }
    }
}

#[tokio::test]
async fn a_source_that_is_refused_without_end_leaves_some_lines_and_the_rest_is_counted() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing::Level::INFO);
    let _logging = tracing::subscriber::set_default(subscriber.with_writer(lines.clone()).finish());
    let setup = Setup::new().await;
    let old = setup.cluster.token(&claims(&json!({"exp": NOW - 100})));
    let began = Instant::now();
    for _ in 0..200 {
        setup.exchange(&old, "sts.amazonaws.com").await;
    }
    // The burst, and one a second.
    let most = 21 + began.elapsed().as_secs() as usize;
    assert!((20..=most).contains(&lines.count()), "{}", lines.count());
    let counted = setup.registry.encode().unwrap();
    let line = counted
        .lines()
        .find(|line| line.starts_with("tokenscope_issuer_audit_suppressed_total"));
    let count: usize = line.unwrap().split(' ').next_back().unwrap().parse().unwrap();
    assert_eq!(count, 200 - lines.count());
}

#[tokio::test]
async fn each_token_has_its_line_while_the_refusals_of_its_source_have_none() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing::Level::INFO);
    let _logging = tracing::subscriber::set_default(subscriber.with_writer(lines.clone()).finish());
    let setup = Setup::new().await;
    let old = setup.cluster.token(&claims(&json!({"exp": NOW - 100})));
    for _ in 0..5 {
        // Fewer than an address may send in all, or the next exchange would be refused too.
        let left_out = async {
            for _ in 0..30 {
                let before = lines.count();
                setup.exchange(&old, "sts.amazonaws.com").await;
                if lines.count() == before {
                    return true;
                }
            }
            false
        };
        assert!(left_out.await, "a refusal has no line any more");
        let before = lines.count();
        let (status, body) = setup.exchange(&setup.subject(), "sts.amazonaws.com").await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!(lines.count(), before + 1);
        assert_eq!(lines.last()["outcome"], "issued");
    }
}

#[tokio::test]
async fn a_refusal_names_the_policy_whose_grant_can_not_be_kept() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().json().with_max_level(tracing::Level::INFO);
    let _logging = tracing::subscriber::set_default(subscriber.with_writer(lines.clone()).finish());
    let setup = Setup::new().await;
    let refused = async |policy: Value, outcome: &str, words: &[&str]| {
        setup.put_policy(policy);
        setup.refused().await;
        let line = lines.last();
        assert_eq!(
            (&line["outcome"], &line["policy"]),
            (&json!(outcome), &json!("TokenScopePolicy shop/orders"))
        );
        let reason = line["reason"].as_str().unwrap();
        assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
    };
    let tagged = json!({"claims": {"principalTags": {"Team": "${pod.labels['late']}"}}});
    let words = [
        "TokenScopePolicy shop/orders",
        "spec.claims.principalTags[Team]",
        "pod.labels['late']",
    ];
    refused(policy_with("a", &tagged), "invalid_claims", &words).await;
    let other_algorithm = json!({"token": {"source": "Issuer", "algorithm": "ES384"}});
    refused(
        policy_with("a", &other_algorithm),
        "not_granted",
        &["spec.token.algorithm"],
    )
    .await;
    let mut without_uid = policy("a");
    without_uid["metadata"].as_object_mut().unwrap().remove("uid");
    refused(without_uid, "unavailable", &["UID"]).await;
    setup.put_policy(policy("a"));
    let short = setup.cluster.token(&claims(&json!({"exp": NOW + 30})));
    setup.exchange(&short, "sts.amazonaws.com").await;
    assert_eq!(lines.last()["policy"], "TokenScopePolicy shop/orders");
    // The key is there and signs nothing.
    setup.signers.store(None);
    refused(policy("a"), "unavailable", &["no key for ES256"]).await;
}
