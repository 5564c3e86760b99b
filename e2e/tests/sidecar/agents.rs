//! Agents that refuse, hang, crash and withdraw keys, and what is said of it over HTTP.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use jiff::{SignedDuration, Timestamp};
use tokenscope_e2e::sidecar::Sidecar;
use tokenscope_e2e::workload_api::{Answer, fresh, svid, token};
use tokenscope_e2e::{eventually, get};
use tokenscope_fixtures::free_port;
use tokenscope_sidecar::fetch_error::FetchError;
use tokenscope_sidecar::token::Token;
use tokenscope_sidecar::workload_api::Client;

use crate::{Lab, PATIENCE, ends};

#[tokio::test]
async fn who_has_no_identity_for_long_asks_patiently_and_gets_the_token_when_there_is_one() {
    let lab = Lab::new();
    let denied = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&denied);
    let agent = lab.agent(move |question, _| {
        if still.load(Ordering::Relaxed) {
            Answer::Status(7, "no identity issued")
        } else {
            fresh(question, 3600)
        }
    });
    let started = Instant::now();
    let sidecar = lab.sidecar(&[]);
    tokio::time::sleep(Duration::from_secs(12)).await;
    // On a busy machine it starts late, and asks more rarely than elsewhere.
    eventually(PATIENCE, "it has asked three times", async || {
        ensure!(agent.questions() >= 3, "{} questions", agent.questions());
        Ok(())
    })
    .await
    .unwrap();
    let (questions, took) = (agent.questions(), started.elapsed());
    let most = 40 * took.as_secs().div_ceil(12);
    assert!(u64::from(questions) <= most, "{questions} in {took:?}");
    let why = says_why(&sidecar, "(no identity issued)").await;
    assert!(why.starts_with("token is not there yet: "), "{why}");
    assert!(why.contains("knows no identity for this pod yet"), "{why}");
    assert!(why.trim_end().ends_with("(no identity issued)"), "{why}");

    denied.store(false, Ordering::Relaxed);
    // At most ten seconds after the last question.
    sidecar.wait_for(PATIENCE, "there is a token", |_| true).await.unwrap();
}

/// What the probe says, once it has this part.
async fn says_why(sidecar: &Sidecar, part: &str) -> String {
    eventually(PATIENCE, format!("the probe says {part:?}"), async || {
        let why = sidecar.probe()?.err().unwrap_or_default();
        ensure!(why.contains(part), "{why}");
        Ok(why)
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_question_that_the_agent_calls_wrong_is_not_repeated_at_once_and_ends_a_job() {
    let lab = Lab::new();
    let agent = lab.agent(|_, _| Answer::Status(3, "audience must be specified"));
    let sidecar = lab.sidecar(&[]);
    eventually(PATIENCE, "the agent was asked", async || {
        ensure!(agent.questions() > 0, "not yet");
        Ok(())
    })
    .await
    .unwrap();
    let asked = Instant::now();
    says_why(
        &sidecar,
        "refuses the question itself (INVALID_ARGUMENT): audience must",
    )
    .await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    // The next one comes after a minute.
    let (questions, took) = (agent.questions(), asked.elapsed());
    assert!(
        questions == 1 || took > Duration::from_secs(50),
        "{questions} in {took:?}"
    );

    let job = lab.sidecar(&[("TOKENSCOPE_ONCE", "true")]);
    let ended = ends(&job.process).await;
    assert_eq!(ended.code(), Some(1), "{}", job.process.log());
}

#[tokio::test]
async fn an_agent_that_hangs_is_given_up_and_the_one_that_took_its_place_is_asked() {
    let lab = Lab::new();
    let hanging = lab.agent(|_, _| Answer::Hang);
    let client = Client::new(lab.socket(), Duration::from_secs(1));
    // Where the machine stands still for the deadline, the question hasn't come to the agent yet.
    eventually(PATIENCE, "a question that reached the agent is given up", async || {
        let before = hanging.questions();
        let answer = client.jwt_svids("sts.amazonaws.com", "").await;
        assert_eq!(answer.unwrap_err(), FetchError::Deadline(1));
        ensure!(hanging.questions() == before + 1, "it has not been asked");
        Ok(())
    })
    .await
    .unwrap();

    let sidecar = lab.sidecar(&[]);
    eventually(PATIENCE, "the probe says that it waits", async || {
        let why = sidecar.probe()?.err().unwrap_or_default();
        ensure!(why.contains("has not answered yet"), "{why}");
        Ok(())
    })
    .await
    .unwrap();

    // It lives on with its connections, but another one listens at the path.
    let _working = lab.agent(|question, _| fresh(question, 3600));
    let svids = eventually(PATIENCE, "the working agent answers", async || {
        Ok(client.jwt_svids("sts.amazonaws.com", "").await?)
    });
    assert_eq!(svids.await.unwrap().len(), 1);
    hanging.crash().await; // now its connections break, too
    sidecar.wait_for(PATIENCE, "there is a token", |_| true).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_comes_back_with_another_socket_is_found() {
    let lab = Lab::new();
    let agent = lab.agent(|question, _| fresh(question, 6));
    let sidecar = lab.sidecar(&[]);
    let first = sidecar.wait_for(PATIENCE, "there is a token", |_| true).await.unwrap();
    agent.crash().await;
    eventually(PATIENCE, "the sidecar has noticed", async || {
        ensure!(sidecar.process.log().contains("nobody_listens"), "not yet");
        Ok(())
    })
    .await
    .unwrap();
    fs::remove_file(lab.socket()).unwrap();
    eventually(PATIENCE, "the sidecar has noticed", async || {
        ensure!(sidecar.process.log().contains("socket_absent"), "not yet");
        Ok(())
    })
    .await
    .unwrap();

    let _agent = lab.agent(|question, _| fresh(question, 3600));
    let long = |token: &Token| token.expires_at.duration_since(first.expires_at) > SignedDuration::from_secs(600);
    sidecar.wait_for(PATIENCE, "there is a token", long).await.unwrap();
}

#[tokio::test]
async fn a_withdrawn_key_is_acted_upon_once_even_if_the_agent_has_no_other() {
    let lab = Lab::new();
    let now = Timestamp::now().as_second();
    let agent =
        lab.agent(move |_, _| Answer::Svids(vec![svid(token("sts.amazonaws.com", "k1", Some(now), now + 3600), "")]));
    let sidecar = lab.sidecar(&[]);
    sidecar.wait_for(PATIENCE, "there is a token", |_| true).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await; // the keys are known
    agent.publish(&["k1", "k2"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(agent.questions(), 1, "a key more is nothing");

    agent.publish(&["k2"]);
    eventually(PATIENCE, "the sidecar asks again", async || {
        ensure!(agent.questions() == 2, "not yet");
        Ok(())
    })
    .await
    .unwrap();
    for more in [&["k2", "k3"][..], &["k3"]] {
        agent.publish(more);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(agent.questions(), 2, "and then in half a minute");
}

#[tokio::test]
async fn how_it_goes_is_told_over_http() {
    let lab = Lab::new();
    let port = free_port().unwrap();
    let denied = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&denied);
    let _agent = lab.agent(move |question, _| {
        if still.load(Ordering::Relaxed) {
            Answer::Status(7, "no identity issued")
        } else {
            fresh(question, 3600)
        }
    });
    let address = format!("127.0.0.1:{port}");
    let sidecar = lab.sidecar(&[("TOKENSCOPE_OBSERVE", &address)]);
    eventually(PATIENCE, "it says why it is not ready", async || {
        let (status, text) = get(port, "/readyz").await?;
        ensure!(status == 503 && text.contains("knows no identity"), "{status} {text}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(get(port, "/livez").await.unwrap(), (200, "ok\n".to_owned()));

    denied.store(false, Ordering::Relaxed);
    let token = sidecar.wait_for(PATIENCE, "there is a token", |_| true).await.unwrap();
    eventually(PATIENCE, "it is ready", async || {
        ensure!(get(port, "/readyz").await?.0 == 200, "not yet");
        Ok(())
    })
    .await
    .unwrap();
    let (_, metrics) = get(port, "/metrics").await.unwrap();
    let value = |series: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(series));
        line.unwrap_or_else(|| panic!("{series} is missing in {metrics}"))
            .trim()
            .parse::<i64>()
            .unwrap()
    };
    let expiry = value(r#"tokenscope_sidecar_expiry_timestamp_seconds{file="token"}"#);
    assert_eq!(expiry, token.expires_at.as_second());
    assert!(value(r#"tokenscope_sidecar_last_success_timestamp_seconds{file="token"}"#) > expiry - 3700);
    assert_eq!(value(r#"tokenscope_sidecar_refreshes_total{file="token"}"#), 1);
    assert!(value(r#"tokenscope_sidecar_failures_total{file="token",reason="no_identity"}"#) >= 1);
    assert_eq!(get(port, "/nowhere").await.unwrap().0, 404);
    let log = sidecar.process.log();
    assert!(
        token
            .secret()
            .split('.')
            .all(|part| !log.contains(part) && !metrics.contains(part))
    );
}
