//! A thousand pods that start together: their credentials are kept in this process, by a simulated clock, with STS behind a counter.
//!
//! The strict stand-in for STS, which is not optimised here, takes seconds for a thousand calls at once. So the counter itself answers a
//! thousand pods, and the stand-in a hundred.
//!
//! A pod's own sidecar has a machine's time for one call; here a thousand calls share it, none of them optimised. So the deadline of a
//! call, the one time that isn't the simulated clock's, is far longer than in a pod.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is test code, also outside the tests themselves"
)]

#[path = "../endpoint/account.rs"]
#[expect(dead_code, reason = "the tests of the endpoint use all of it")]
mod account;
mod counting_sts;
#[path = "../endpoint/faulty_sts.rs"]
#[expect(dead_code, reason = "the tests of the endpoint use all of it")]
mod faulty_sts;
#[path = "../endpoint/lab.rs"]
#[expect(dead_code, reason = "the tests of the endpoint use all of it")]
mod lab;
mod simulated_clock;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use account::{Account, NEAR};
use counting_sts::{AnsweredBy, CountingSts, Plan};
use jiff::{SignedDuration, Timestamp};
use lab::Lab;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use simulated_clock::SimulatedClock;
use tokenscope_sidecar::endpoint::deadlines::StsDeadlines;
use tokenscope_sidecar::log::{Level, Log};
use tokenscope_sidecar::run::run;
use tokio::sync::Mutex;

/// Far more than a thousand keepers in one unoptimised program take on a machine that others use too.
const PATIENCE: Duration = Duration::from_secs(600);

/// So many pods, for so long, with an STS that fails at first.
struct Pods {
    count: usize,
    run_for: SignedDuration,
    sts_fails_for: SignedDuration,
}

impl Pods {
    fn clock(&self) -> SimulatedClock {
        // STS states the end of a session in whole seconds: from a later moment of a second on, a session is shorter than an hour.
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
        SimulatedClock::new(now, now + self.run_for, self.count)
    }

    /// Keeps the credentials of all of them. All ask STS together at the start: none is answered before the last one has asked.
    async fn run(&self, name: &str, clock: SimulatedClock, answered_by: AnsweredBy, token: &str) -> CountingSts {
        // One test at a time.
        static RUNNING: Mutex<()> = Mutex::const_new(());
        let _running = RUNNING.lock().await;
        allow_open_files();
        let sts = CountingSts::start(Plan {
            clock: clock.source(),
            answered_by,
            fails_for: self.sts_fails_for,
            waits_for: self.count,
        })
        .await;
        // In memory, as in a pod: each file is written through to its disk.
        let memory = Path::new("/dev/shm");
        let temporary = std::env::temp_dir();
        let parent = if memory.is_dir() { memory } else { &temporary };
        let lab = Lab::below(parent, name, &["app"], &sts.url(), NEAR);
        lab.write_token(token);
        let mut config = lab.config();
        config.log = Log { level: Level::Off };
        let mut settings = (*config.endpoint.take().unwrap()).clone();
        settings.deadlines = StsDeadlines {
            connection: PATIENCE,
            answer: PATIENCE,
        };
        let one = settings.containers.remove(0);
        for pod in 0..self.count {
            let mut container = one.clone();
            container.name = format!("pod-{pod}").into();
            container.first.session_name = container.name.clone();
            fs::create_dir_all(settings.folder_of(&container)).unwrap();
            settings.containers.push(container);
        }
        config.endpoint = Some(Arc::new(settings));
        let over = async {
            while !clock.is_over() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, run(config, clock.clone(), over))
            .await
            .unwrap()
            .unwrap();
        sts
    }
}

/// A call has three connections at most, each with both its ends here.
fn allow_open_files() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, all).unwrap();
}

/// The most calls in one of these spans.
fn most(spans: &[usize]) -> usize {
    spans.iter().copied().max().unwrap_or(0)
}

const MINUTE: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_pods_that_start_together_ask_at_once_and_then_spread_their_renewals() {
    let pods = Pods {
        count: 1000,
        run_for: SignedDuration::from_mins(72),
        sts_fails_for: SignedDuration::ZERO,
    };
    let sts = pods.run("thousand", pods.clock(), AnsweredBy::Itself, "a.b.c").await;

    let each = sts.calls_in_each(1.0);
    assert_eq!(each[0], 1000, "nobody waits for the first credentials");
    assert_eq!(each[1..24 * MINUTE].iter().sum::<usize>(), 0);
    assert_eq!(each[24 * MINUTE..].iter().sum::<usize>(), 2000, "two renewals of each");
    // Spread evenly over the twelve minutes of the first renewals they would be 1.4 a second, and 14 in ten.
    let (in_a_second, in_ten) = (most(&each[1..]), most(&sts.calls_in_each(10.0)[1..]));
    assert!(in_a_second <= 12, "{in_a_second} calls in a second");
    assert!(in_ten <= 40, "{in_ten} calls in ten seconds");
    assert_eq!(sts.most_open_for_one(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_pods_that_failed_together_do_not_come_back_together() {
    let pods = Pods {
        count: 1000,
        run_for: SignedDuration::from_secs(40),
        sts_fails_for: SignedDuration::from_secs(15),
    };
    let sts = pods
        .run("thousand-failed", pods.clock(), AnsweredBy::Itself, "a.b.c")
        .await;

    let each = sts.calls_in_each(1.0);
    // All of them once, and half of them once more.
    assert!(each[0] <= 1700, "{each:?}");
    assert!(most(&each[1..]) <= 850, "{each:?}");
    // From then on each asks every five seconds on the average: 200 a second.
    assert!(most(&each[8..]) <= 290, "{each:?}");
    assert_eq!(each[15..].iter().sum::<usize>(), 1000, "each once: {each:?}");
    assert!(each.len() <= 26, "the last one ten seconds after the outage: {each:?}");
    assert_eq!(sts.most_open_for_one(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_pods_that_failed_together_get_credentials_of_the_strict_stand_in_and_renew_them_apart() {
    let pods = Pods {
        count: 100,
        run_for: SignedDuration::from_mins(70),
        sts_fails_for: SignedDuration::from_secs(15),
    };
    let clock = pods.clock();
    let account = Account::by_clock(clock.source()).await;
    let answered_by = AnsweredBy::Sts(account.sts.addr());
    let token = account.token_for(2 * 3600);
    let sts = pods.run("hundred", clock, answered_by, &token).await;

    let each = sts.calls_in_each(1.0);
    assert_eq!(each[15..26].iter().sum::<usize>(), 100, "each once: {:?}", &each[..30]);
    assert_eq!(each[26..24 * MINUTE].iter().sum::<usize>(), 0, "nobody was refused");
    let renewals: usize = each[24 * MINUTE..].iter().sum();
    assert!((170..=200).contains(&renewals), "{renewals}");
    let in_a_second = most(&each[24 * MINUTE..]);
    assert!(in_a_second <= 6, "{in_a_second} calls in a second");
    assert_eq!(sts.most_open_for_one(), 1);
}
