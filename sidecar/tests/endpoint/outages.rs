//! STS is away: at the start, while credentials are held, and in some of its regions.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokenscope_aws::StsEndpoint;
use tokenscope_fixtures::free_port;
use tokenscope_sidecar::clock::{Clock, Woken};
use tokenscope_sidecar::endpoint::deadlines::StsDeadlines;
use tokenscope_sidecar::run::run;

use super::account::{Account, NEAR};
use super::faulty_sts::{Fault, FaultySts, credentials, unsigned_token, web_identity_token};
use super::lab::{Lab, PATIENCE};
use super::outbound::{CLAUDE, with_token};

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_at_the_start_is_told_as_503_and_ends_by_itself() {
    let account = Account::start().await;
    let faulty = FaultySts::start(Fault::Answers(503, "busy".to_owned())).await;
    let lab = Lab::new("outage", &["app"], &faulty.url(), NEAR);
    lab.write_token(&account.token());
    let sidecar = lab.start();
    sidecar.logs("STS answered with status 503");
    let answer = lab.ask("app");
    assert_eq!(
        (answer.status, &answer.body["Code"]),
        (503, &json!("ServiceUnavailable"))
    );
    faulty.set_fault(Fault::Passes(account.sts.addr()));
    sidecar.credentials("app");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_whose_keys_aws_can_not_read_for_a_moment_is_told_as_503_and_sts_is_asked_again_soon() {
    let account = Account::start().await;
    let words = "Couldn't retrieve verification key from your identity provider,  please reference the documentation";
    let faulty = FaultySts::start(Fault::refuses(400, "InvalidIdentityToken", words)).await;
    let lab = Lab::new("no-key", &["app"], &faulty.url(), NEAR);
    lab.write_token(&account.token());
    let sidecar = lab.start();
    sidecar.logs("retrieve verification key");
    let answer = lab.ask("app");
    assert_eq!(
        (answer.status, &answer.body["Code"]),
        (503, &json!("InvalidIdentityToken"))
    );
    faulty.set_fault(Fault::Passes(account.sts.addr()));
    // A definite refusal would be remembered for a minute at least.
    sidecar.credentials("app");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_aws_refuses_is_not_shown_again_and_another_one_is_as_soon_as_it_is_there() {
    let account = Account::start().await;
    let passing = FaultySts::start(Fault::Passes(account.sts.addr())).await;
    let lab = Lab::new("expired", &["app"], &passing.url(), NEAR);
    lab.write_token(&account.token_for(-3600));
    let sidecar = lab.start();
    sidecar.logs("ExpiredTokenException");
    // Several looks at the file, after none of which it is shown again: there is no sign of that to wait for.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let refused = lab.ask("app");
    assert_eq!(
        (refused.status, &refused.body["Code"]),
        (403, &json!("ExpiredTokenException"))
    );
    assert_eq!(passing.asked(), 1);
    lab.write_token(&account.token());
    // By the refusal alone it would be asked in a minute at the earliest.
    sidecar.credentials("app");
    assert_eq!(passing.asked(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_the_first_answer_is_told_within_a_second_and_sts_is_asked_once() {
    // A call is given up after five seconds, and another one follows. Where a machine stalls for so long, it is begun anew.
    for number in 0..5 {
        let faulty = FaultySts::start(Fault::Hangs).await;
        let lab = Lab::new(&format!("hangs-{number}"), &["app"], &faulty.url(), NEAR);
        lab.write_token("a.b.c");
        let started = Instant::now();
        let _sidecar = lab.start();
        let (codes, why) = (codes_of_ten(&lab), lab.not_ready());
        let asked = faulty.asked();
        if started.elapsed() < Duration::from_secs(5) {
            assert!(
                codes
                    .iter()
                    .all(|(status, code)| (*status, code) == (503, &json!("NotReady"))),
                "{codes:?}"
            );
            assert_eq!(asked, 1);
            assert!(why.unwrap().contains("AWS STS has not answered yet"));
            return;
        }
    }
    panic!("what waits was told later than in five seconds each time");
}

/// The statuses and codes of ten answers that are asked for at the same time.
fn codes_of_ten(lab: &Lab) -> Vec<(u16, Value)> {
    let asking = std::thread::scope(|scope| {
        let all: Vec<_> = (0..10).map(|_| scope.spawn(|| lab.ask("app"))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    let codes = asking
        .into_iter()
        .map(|answer| (answer.status, answer.body["Code"].clone()));
    codes.collect()
}

/// A clock whose waits are over at once, and bring it forward; one that would bring it further than the second is never over.
#[derive(Clone)]
pub(crate) struct Hasty(Arc<Mutex<SignedDuration>>, SignedDuration);

impl Hasty {
    /// One that is never further ahead than this.
    pub(crate) fn up_to(most: SignedDuration) -> Self {
        Self(Arc::default(), most)
    }

    pub(crate) fn ahead(&self) -> SignedDuration {
        *self.0.lock().unwrap()
    }
}

impl Clock for Hasty {
    fn now(&self) -> Timestamp {
        Timestamp::now() + self.ahead()
    }

    async fn wait_until(&self, time: Timestamp) -> Woken {
        let wait = time.duration_since(self.now()).max(SignedDuration::ZERO);
        if self.ahead() + wait > self.1 {
            std::future::pending::<()>().await;
        }
        *self.0.lock().unwrap() += wait;
        // Who is not waited for any more must not be asked without end.
        tokio::time::sleep(Duration::from_millis(5)).await;
        Woken::Due
    }
}

/// Runs in this process, with these endpoints of STS, until `done`. They may take as long as a machine that stalls lets them.
pub(crate) async fn run_until(lab: &Lab, endpoints: &[String], clock: impl Clock, done: impl Fn() -> bool) {
    run_within(PATIENCE, lab, endpoints, clock, done).await;
}

/// The same where an endpoint is given up after this time.
async fn run_within(deadline: Duration, lab: &Lab, endpoints: &[String], clock: impl Clock, done: impl Fn() -> bool) {
    let mut config = lab.config();
    let mut settings = (*config.endpoint.take().unwrap()).clone();
    let region = "eu-central-1".parse().unwrap();
    let endpoints = endpoints.iter().map(|url| StsEndpoint::custom(url, &region).unwrap());
    settings.containers[0].endpoints = endpoints.collect();
    settings.deadlines = StsDeadlines {
        connection: deadline,
        answer: deadline,
    };
    config.endpoint = Some(Arc::new(settings));
    let stop = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE * 5, run(config, clock, stop))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_region_that_answers_is_taken_after_those_that_hang_refuse_connections_or_fail() {
    let account = Account::start().await;
    let hanging = FaultySts::start(Fault::Hangs).await;
    let failing = FaultySts::start(Fault::Answers(503, String::new())).await;
    let last = FaultySts::start(Fault::Hangs).await;
    let lab = Lab::new("regions", &["app"], &account.sts.url(), NEAR);
    lab.write_token(&account.token());
    let closed = free_port().unwrap();
    let urls = [
        hanging.url(),
        format!("http://127.0.0.1:{closed}"),
        failing.url(),
        account.sts.url(),
        last.url(),
    ];
    let clock = Hasty::up_to(SignedDuration::ZERO);
    // Twice as long as usual, so that none but the first one is given up where a machine stalls.
    let deadline = Duration::from_secs(10);
    run_within(deadline, &lab, &urls, clock, || {
        lab.state().is_some_and(|state| !state.starts_with('-'))
    })
    .await;
    assert_eq!((hanging.asked(), failing.asked(), last.asked()), (1, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definite_refusal_is_not_taken_to_another_region() {
    let first = FaultySts::start(Fault::refuses(403, "AccessDenied", "no")).await;
    let second = FaultySts::start(Fault::Hangs).await;
    let lab = Lab::new("definite", &["app"], &first.url(), NEAR);
    lab.write_token("a.b.c");
    let clock = Hasty::up_to(SignedDuration::ZERO);
    run_until(&lab, &[first.url(), second.url()], clock, || {
        lab.state().is_some_and(|state| state.contains("AccessDenied: no"))
    })
    .await;
    assert_eq!((first.asked(), second.asked()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_credentials_are_served_through_an_outage_while_they_are_valid() {
    let account = Account::start().await;
    let faulty = FaultySts::start(Fault::PassesOnce(account.sts.addr())).await;
    let lab = Lab::new("old", &["app"], &faulty.url(), NEAR);
    lab.write_token(&account.token());
    // Fifty minutes pass, in which the credentials would be renewed.
    let clock = Hasty::up_to(SignedDuration::from_mins(50));
    let answer = RefCell::new(None);
    let done = || {
        let in_outage = lab.state().is_some_and(|state| state.contains("status 500"));
        let is_late = clock.ahead() > SignedDuration::from_mins(40) && in_outage;
        if is_late {
            *answer.borrow_mut() = Some(tokio::task::block_in_place(|| (lab.ask("app"), lab.not_ready())));
        }
        is_late
    };
    run_until(&lab, &[faulty.url()], clock.clone(), done).await;
    let (answer, not_ready) = answer.take().unwrap();
    assert_eq!((answer.status, &answer.body["RoleArn"]), (200, &json!(NEAR)));
    assert_eq!(not_ready, None, "an outage is no harm while the credentials are valid");
    assert!(faulty.asked() > 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_token_for_a_third_party_stays_through_an_outage_while_it_is_valid_and_is_replaced_when_it_ends() {
    let (old, new) = (unsigned_token(CLAUDE, 60), unsigned_token(CLAUDE, 600));
    let outage = (503, "busy".to_owned());
    let first = [credentials("t"), web_identity_token(&old), outage.clone()];
    // Forty seconds pass: at half of its life another one is asked for.
    let later = || Hasty::up_to(SignedDuration::from_secs(40));
    let read = |file: &std::path::Path| std::fs::read_to_string(file).unwrap_or_default();

    let faulty = FaultySts::start(Fault::AnswersInTurn(first.to_vec())).await;
    let mut lab = Lab::new("outbound-outage", &["app"], &faulty.url(), NEAR);
    let file = with_token(&mut lab, |token| token["durationSeconds"] = json!(60));
    lab.write_token("a.b.c");
    let state = lab.path("authorization/app/.state-claude");
    run_until(&lab, &[faulty.url()], later(), || read(&state).contains("status 503")).await;
    assert_eq!(read(&file), old);
    assert_eq!(lab.not_ready(), None, "an outage is no harm while the token is valid");

    let again = [outage.clone(), outage, web_identity_token(&new)];
    let faulty = FaultySts::start(Fault::AnswersInTurn([&first[..], &again[..]].concat())).await;
    lab.endpoint["port"] = json!(free_port().unwrap()); // somebody else may have the first one by now
    // The state is written right after the token.
    let is_over = || read(&state).lines().nth(1) == Some("");
    run_until(&lab, &[faulty.url()], later(), || read(&file) == new && is_over()).await;
    assert!(is_over(), "the trouble is over");
}
