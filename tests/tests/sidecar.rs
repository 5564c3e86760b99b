//! The sidecar beside an agent that misbehaves, on a disk that does, and with a clock that is set.

#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use jiff::{SignedDuration, Timestamp};
use tokenscope_sidecar::clock::{Clock, Woken};
use tokenscope_sidecar::config::{Config, Invocation, invocation};
use tokenscope_sidecar::fetch_error::FetchError;
use tokenscope_sidecar::run::run;
use tokenscope_sidecar::token::Token;
use tokenscope_sidecar::workload_api::{Client, JwtSvidRequest};
use tokenscope_tests::process::{Process, Start, Watchdog, free_port};
use tokenscope_tests::sidecar::{FILE, Sidecar, program};
use tokenscope_tests::workload_api::{Agent, Answer, fresh, svid, token};
use tokenscope_tests::{eventually, get};
use tokio::sync::Notify;

/// What two busy cores may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_half_spent_token_of_a_cache_is_replaced_by_its_own_times() {
    let lab = Lab::new();
    let agent = lab.agent(|question, before| match before {
        0 => {
            let now = Timestamp::now().as_second();
            Answer::Svids(vec![svid(
                token("sts.amazonaws.com", "k1", Some(now - 16), now + 24),
                "",
            )])
        }
        _ => fresh(question, 3600),
    });
    let sidecar = lab.sidecar(&[]);
    let first = sidecar.wait_for(PATIENCE, "there is a token", |_| true).await.unwrap();
    let written = Instant::now();
    sidecar
        .wait_for(PATIENCE, "there is the next one", |token| *token != first)
        .await
        .unwrap();

    // 55 to 65 % of 40 s, of which 16 are over: a little less than 6, for times have whole seconds here.
    let waited = written.elapsed();
    assert!(waited > Duration::from_millis(4500), "{waited:?}");
    assert!(waited < Duration::from_secs(20), "{waited:?}");
    assert_eq!(agent.questions(), 2);
}

#[tokio::test]
async fn an_agent_that_gives_the_same_token_again_is_asked_now_and_then_until_there_is_a_new_one() {
    let lab = Lab::new();
    let now = Timestamp::now().as_second();
    let agent = lab.agent(move |question, before| match before {
        0..3 => Answer::Svids(vec![svid(
            token("sts.amazonaws.com", "k1", Some(now - 20), now + 16),
            "",
        )]),
        _ => fresh(question, 3600),
    });
    let sidecar = lab.sidecar(&[]);
    let first = sidecar.wait_for(PATIENCE, "there is a token", |_| true).await.unwrap();
    sidecar
        .wait_for(PATIENCE, "there is the next one", |token| *token != first)
        .await
        .unwrap();

    assert!(Timestamp::now() < first.expires_at, "in time");
    assert_eq!(agent.questions(), 4);
}

#[tokio::test]
async fn a_token_without_iat_is_used() {
    let lab = Lab::new();
    let agent = lab.agent(|_, _| {
        let now = Timestamp::now().as_second();
        Answer::Svids(vec![svid(token("sts.amazonaws.com", "k1", None, now + 8), "")])
    });
    let sidecar = lab.sidecar(&[]);
    let first = sidecar.wait_for(PATIENCE, "there is a token", |_| true).await.unwrap();
    sidecar
        .wait_for(PATIENCE, "there is the next one", |token| *token != first)
        .await
        .unwrap();

    assert_eq!(first.issued_at, None);
    assert_eq!(agent.questions(), 2);
}

#[tokio::test]
async fn useless_answers_never_reach_the_file() {
    fn usual(audience: &str) -> String {
        let now = Timestamp::now().as_second();
        token(audience, "k1", Some(now), now + 3600)
    }
    fn of(spiffe_id: &str) -> Answer {
        let mut svid = svid(usual("sts.amazonaws.com"), "");
        spiffe_id.clone_into(&mut svid.spiffe_id);
        Answer::Svids(vec![svid])
    }
    fn expired() -> Answer {
        let now = Timestamp::now().as_second();
        Answer::Svids(vec![svid(
            token("sts.amazonaws.com", "k1", Some(now - 90), now - 30),
            "",
        )])
    }
    type Case = (fn() -> Answer, &'static str);
    let cases: [Case; 8] = [
        (expired, "gave a token that ended"),
        (|| Answer::Svids(Vec::new()), "it has no identity"),
        (|| Answer::Bytes(b"\xff\xff\xff"), "the SPIFFE agent answered INTERNAL"),
        (
            || Answer::Svids(vec![svid("no.token".to_owned(), "")]),
            "no JWS in compact form",
        ),
        (
            || Answer::Svids(vec![svid(String::new(), "")]),
            "no JWS in compact form",
        ),
        (
            || Answer::Svids(vec![svid(usual("another"), "")]),
            "for another audience",
        ),
        (|| of("spiffe://example.test/other"), "of another identity"),
        (|| of(""), "an identity has no SPIFFE ID"),
    ];
    let running = cases.map(|(useless, part)| {
        let lab = Lab::new();
        let well = Arc::new(AtomicBool::new(false));
        let is_well = Arc::clone(&well);
        let agent = lab.agent(move |question, before| {
            if before == 0 {
                fresh(question, 2)
            } else if is_well.load(Ordering::Relaxed) {
                fresh(question, 3600)
            } else {
                useless()
            }
        });
        let sidecar = lab.sidecar(&[]);
        (sidecar, agent, well, part, lab)
    });
    for (sidecar, _agent, well, part, _lab) in &running {
        let expired = async || {
            let why = sidecar.probe()?.err().unwrap_or_default();
            ensure!(why.starts_with("token expired ") && why.contains(part), "{why}");
            Ok(())
        };
        eventually(PATIENCE, format!("the probe says {part:?}"), expired)
            .await
            .unwrap();
        let still = sidecar.token(FILE).unwrap();
        let life = still.expires_at.duration_since(still.issued_at.unwrap());
        assert_eq!(life, SignedDuration::from_secs(2), "{part}: the first token is there");

        well.store(true, Ordering::Relaxed);
    }
    for (sidecar, _agent, _well, part, _lab) in &running {
        let long = |token: &Token| token.expires_at > Timestamp::now() + SignedDuration::from_mins(10);
        sidecar.wait_for(PATIENCE, part, long).await.unwrap();
        assert_eq!(sidecar.probe().unwrap(), Ok(()));
    }
}

#[tokio::test]
async fn of_two_identities_with_the_same_hint_the_first_is_taken() {
    let lab = Lab::new();
    let _agent = lab.agent(|_, _| {
        let now = Timestamp::now().as_second();
        let with = |key_id, hint| svid(token("sts.amazonaws.com", key_id, Some(now), now + 3600), hint);
        Answer::Svids(vec![with("other", "web"), with("first", "aws"), with("second", "aws")])
    });
    let sidecar = lab.sidecar(&[("TOKENSCOPE_HINT", "aws")]);
    let token = sidecar.wait_for(PATIENCE, "there is a token", |_| true).await.unwrap();

    assert_eq!(token.key_id.as_deref(), Some("first"));
}

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
    let sidecar = lab.sidecar(&[]);
    tokio::time::sleep(Duration::from_secs(12)).await;
    let questions = agent.questions();
    assert!((3..=40).contains(&questions), "{questions} in 12 s");
    let why = sidecar.probe().unwrap().unwrap_err();
    assert!(why.starts_with("token is not there yet: "), "{why}");
    assert!(why.contains("knows no identity for this pod yet"), "{why}");
    assert!(why.trim_end().ends_with("(no identity issued)"), "{why}");

    denied.store(false, Ordering::Relaxed);
    // At most ten seconds after the last question.
    sidecar.wait_for(PATIENCE, "there is a token", |_| true).await.unwrap();
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
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(agent.questions(), 1);
    let why = sidecar.probe().unwrap().unwrap_err();
    assert!(
        why.contains("refuses the question itself (INVALID_ARGUMENT): audience must"),
        "{why}"
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
    let answer = client.jwt_svids("sts.amazonaws.com", "").await;
    assert_eq!(answer.unwrap_err(), FetchError::Deadline(1));
    assert_eq!(hanging.questions(), 1);

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
    let svids = client.jwt_svids("sts.amazonaws.com", "").await.unwrap();
    assert_eq!(svids.len(), 1);
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

#[tokio::test]
async fn a_full_disk_or_one_that_cannot_be_written_leaves_the_old_token_until_there_is_room() {
    if !is_root() {
        eprintln!("skipped: only root can make file systems");
        return;
    }
    let lab = Lab::new();
    let _agent = lab.agent(|question, _| fresh(question, 8));
    let directory = lab.folder.join("small");
    fs::create_dir(&directory).unwrap();
    // In a mount namespace of its own, so that it goes away with the process.
    let script = format!(
        "mount -t tmpfs -o size=64k,mode=0777 small '{0}' && exec '{1}'",
        directory.display(),
        program().unwrap().display()
    );
    let variables = lab.variables(&directory);
    let process = lab.process("unshare", &["--mount", "sh", "-c", &script], &variables);
    let inside = PathBuf::from(format!("/proc/{}/root{}", process.pid().unwrap(), directory.display()));
    let content = || fs::read_to_string(inside.join(FILE)).context("no token");
    let changes = async |from: &str, what: &str| {
        eventually(PATIENCE, what, async || {
            let now = content()?;
            ensure!(now != from, "it is as it was\n{}", process.log_tail(10));
            Ok(now)
        })
        .await
        .unwrap()
    };
    let mut last = changes("", "there is a token").await;
    let remount = |mode: &str| {
        let status = Command::new("nsenter")
            .args(["--mount", "--target", &process.pid().unwrap().to_string()])
            .args(["mount", "-o", &format!("remount,{mode}")])
            .arg(&directory)
            .status();
        assert!(status.unwrap().success());
    };
    let filler = inside.join("filler");
    for fault in ["full", "read-only"] {
        if fault == "full" {
            assert!(fs::write(&filler, vec![0; 1 << 20]).is_err());
        } else {
            remount("ro");
        }
        let refused = |log: &str| log.matches("\"reason\":\"write\"").count();
        let before = refused(&process.log());
        eventually(PATIENCE, format!("a write has failed: {fault}"), async || {
            ensure!(refused(&process.log()) > before, "not yet");
            Ok(())
        })
        .await
        .unwrap();
        let kept = content().unwrap();
        assert_eq!(kept.split('.').count(), 3, "{fault}");
        let names: Vec<_> = fs::read_dir(&inside)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(
            names.iter().all(|name| !name.ends_with(".partial")),
            "{fault}: {names:?}"
        );
        if fault == "full" {
            fs::remove_file(&filler).unwrap();
        } else {
            remount("rw");
        }
        last = changes(&kept, "a new token is written").await;
    }
    drop(last);

    let script = format!(
        "mount -t tmpfs -o ro small '{0}' && exec '{1}'",
        directory.display(),
        program().unwrap().display()
    );
    let process = lab.process("unshare", &["--mount", "sh", "-c", &script], &variables);
    assert_eq!(ends(&process).await.code(), Some(1));
    let log = process.log();
    assert!(
        log.contains("can't write into the directory") && log.contains("mount a volume there"),
        "{log}"
    );
}

#[tokio::test]
async fn as_the_first_process_of_its_container_it_ends_at_sigterm() {
    if !is_root() {
        eprintln!("skipped: only root can make process namespaces");
        return;
    }
    let lab = Lab::new();
    let _agent = lab.agent(|question, _| fresh(question, 3600));
    let directory = lab.folder.join("first");
    fs::create_dir(&directory).unwrap();
    let sidecar = program().unwrap();
    let arguments = ["--pid", "--fork", "--kill-child", sidecar.to_str().unwrap()];
    let process = lab.process("unshare", &arguments, &lab.variables(&directory));
    eventually(PATIENCE, "there is a token", async || {
        Ok(fs::metadata(directory.join(FILE))?)
    })
    .await
    .unwrap();
    let pid = process.pid().unwrap();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let signalled = Instant::now();
    assert!(
        Command::new("kill")
            .args(["-s", "TERM", children.trim()])
            .status()
            .unwrap()
            .success()
    );
    let ended = ends(&process).await;

    assert!(ended.success(), "{ended}: {}", process.log());
    assert!(
        signalled.elapsed() < Duration::from_secs(10),
        "{:?}",
        signalled.elapsed()
    );
    assert!(process.log().contains("\"stopped\""), "{}", process.log());
}

#[tokio::test]
async fn when_the_clock_is_set_a_token_is_asked_for_by_the_new_time() {
    for step in [SignedDuration::from_hours(2), SignedDuration::from_hours(-2)] {
        let lab = Lab::new();
        let clock = TestClock::default();
        let agents_clock = clock.clone();
        // The agent is on the same machine, but a token's times are those of the server, which is right.
        let agent = lab.agent(move |_, _| {
            let now = agents_clock.now().as_second();
            Answer::Svids(vec![svid(token("sts.amazonaws.com", "k1", Some(now), now + 3600), "")])
        });
        let directory = lab.folder.join("clock");
        fs::create_dir(&directory).unwrap();
        let (stopping, config) = (Arc::new(Notify::new()), lab.config(&directory));
        let stop = Arc::clone(&stopping);
        let running = tokio::spawn(run(config, clock.clone(), async move { stop.notified().await }));
        let read = || fs::read_to_string(directory.join(FILE)).context("no token");
        let first = eventually(PATIENCE, "there is a token", async || read()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(agent.questions(), 1);

        clock.set(step);
        eventually(PATIENCE, "there is a token of the new time", async || {
            ensure!(read()? != first, "not yet");
            Ok(())
        })
        .await
        .unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(agent.questions(), 2, "after {step}");
        stopping.notify_one();
        running.await.unwrap().unwrap();
    }
}

/// The real time and an offset, which can be set as an administrator sets a clock.
#[derive(Clone, Default)]
struct TestClock(Arc<(AtomicI64, Notify)>);

impl TestClock {
    fn set(&self, offset: SignedDuration) {
        self.0.0.store(offset.as_secs(), Ordering::SeqCst);
        self.0.1.notify_waiters();
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::now() + SignedDuration::from_secs(self.0.0.load(Ordering::SeqCst))
    }

    async fn wait_until(&self, time: Timestamp) -> Woken {
        let left = Duration::try_from(time.duration_since(self.now())).unwrap_or_default();
        tokio::select! {
            () = tokio::time::sleep(left) => Woken::Due,
            () = self.0.1.notified() => Woken::ClockWasSet,
        }
    }
}

/// A folder for sockets and files, and what ends processes.
struct Lab {
    folder: PathBuf,
    watchdog: Arc<Watchdog>,
}

impl Lab {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("tokenscope-lab-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let watchdog = Watchdog::start(&folder).unwrap();
        Self { folder, watchdog }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("agent.sock")
    }

    fn agent(&self, script: impl Fn(&JwtSvidRequest, u32) -> Answer + Send + Sync + 'static) -> Agent {
        Agent::start(&self.socket(), script).unwrap()
    }

    fn sidecar(&self, more: &[(&str, &str)]) -> Sidecar {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("sidecar-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Sidecar::start(&self.folder, &name, &self.socket(), &self.watchdog, more).unwrap()
    }

    fn variables(&self, directory: &Path) -> Vec<(String, String)> {
        [
            ("TOKENSCOPE_DIRECTORY", directory.display().to_string()),
            ("TOKENSCOPE_JWT_SVIDS", format!("{FILE}=sts.amazonaws.com")),
            ("SPIFFE_ENDPOINT_SOCKET", format!("unix://{}", self.socket().display())),
            ("TOKENSCOPE_LOG_LEVEL", "debug".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn config(&self, directory: &Path) -> Config {
        let variables = self.variables(directory);
        let variable = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.clone())
        };
        match invocation([], variable) {
            Ok(Invocation::Run(config)) => config,
            other => panic!("{other:?}"),
        }
    }

    fn process(&self, program: &str, arguments: &[&str], variables: &[(String, String)]) -> Process {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let start = Start {
            name: format!("{program}-{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
            program: PathBuf::from("/usr/bin").join(program),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            environment: [("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())]
                .into_iter()
                .chain(variables.iter().cloned())
                .collect(),
            logs: self.folder.clone(),
            observe_port: None,
        };
        Process::start(start, &self.watchdog).unwrap()
    }
}

async fn ends(process: &Process) -> ExitStatus {
    eventually(PATIENCE, "the process ends", async || {
        process.exit_status()?.with_context(|| process.log_tail(10))
    })
    .await
    .unwrap()
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
