//! From `main` to exit code: flags, logs, observation, the process's own work, and the order in which it all stops.

use std::error::Error as StdError;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::CommonArgs;
use crate::freshness::Freshness;
use crate::health::{self, Gates, Observed};
use crate::lease::{self, Claim, Elector};
use crate::metrics::{Registry, process_name};
use crate::telemetry;

type BoxError = Box<dyn StdError + Send + Sync>;

/// How long the Lease may take to be given back after all work has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What a process's body works with; clones are handles to the same process.
#[derive(Clone, Debug)]
pub struct Process {
    /// The common flags.
    pub common: CommonArgs,
    /// Cancelled by SIGTERM and SIGINT, by a failed task, or by the body itself: end your work.
    pub stop: CancellationToken,
    /// Every task in it may finish after `stop`, within `--stop-timeout`. [`Process::spawn`] also watches over the task.
    pub tracker: TaskTracker,
    /// What the process waits for before it is ready.
    pub gates: Gates,
    /// What it counts.
    pub registry: Registry,
    /// How old the last word of each watch is; give it to [`crate::client::connect`].
    pub freshness: Freshness,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub observe: SocketAddr,
    failure: Arc<Mutex<Option<Error>>>,
    last: FinalTasks,
}

/// What outlives the tracked tasks.
#[derive(Clone, Debug, Default)]
struct FinalTasks {
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Process {
    /// Runs a task that the process can't do without: should it fail, panic, or end before `stop`, the whole process stops
    /// and fails.
    pub fn spawn<T, E>(&self, name: &'static str, task: T)
    where
        T: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        let process = self.clone();
        self.tracker.spawn(async move {
            let error = match tokio::spawn(task).await {
                Ok(Ok(())) if process.stop.is_cancelled() => return,
                Ok(Ok(())) => Error::Ended { name },
                Ok(Err(error)) => Error::Task {
                    name,
                    source: error.into(),
                },
                Err(error) => Error::Task {
                    name,
                    source: error.into(),
                },
            };
            process
                .failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert(error);
            process.stop.cancel();
        });
    }

    /// Holds the Lease whenever it can be had, and gives it back only after the body and all tracked tasks have ended.
    pub fn hold_lease(&self, elector: Elector) -> watch::Receiver<Claim> {
        let (claims, claim) = watch::channel(Claim::default());
        self.last
            .tracker
            .spawn(lease::hold(elector, claims, self.last.stop.clone()));
        claim
    }
}

/// Why a process failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("another TLS provider was installed first")]
    Provider,
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
    #[error("can't start threads")]
    Runtime(#[source] io::Error),
    #[error("can't listen for signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Observe(#[from] health::Error),
    #[error(transparent)]
    Body(BoxError),
    #[error("{name} failed")]
    Task { name: &'static str, source: BoxError },
    #[error("{name} ended by itself")]
    Ended { name: &'static str },
    #[error("work was still running {} s after the stop, and was cut", .0.as_secs())]
    Unfinished(Duration),
    #[error("a second signal came before work had ended, and it was cut")]
    Impatient,
}

/// Runs a process: flags `A` from the command line and the environment, then `body`, until it ends or is told to stop.
///
/// After a signal the body and the tracked tasks have `--stop-timeout` to end; a second signal cuts them. A Lease is given
/// back after that, and `/livez` and `/metrics` answer to the end. The exit code is 0 if all went well, 1 after a failure
/// (logged once, with its causes), and 2 for wrong usage.
pub fn run<A, F, W, E>(common: impl FnOnce(&A) -> &CommonArgs, body: F) -> ExitCode
where
    A: clap::Parser,
    F: FnOnce(A, Process) -> W,
    W: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    run_with(std::env::args_os(), common, body)
}

fn run_with<A, F, W, E>(
    arguments: impl IntoIterator<Item = OsString>,
    common: impl FnOnce(&A) -> &CommonArgs,
    body: F,
) -> ExitCode
where
    A: clap::Parser,
    F: FnOnce(A, Process) -> W,
    W: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    let arguments = match A::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(usage) => {
            // Where even this can't be printed there is nobody to tell.
            let _ = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    let common = common(&arguments).clone();
    if let Err(error) = telemetry::start(&common.log_level, common.log_format) {
        eprintln!("error: {}", telemetry::chain(&error));
        return ExitCode::FAILURE;
    }
    tracing::info!(
        process = process_name(),
        version = env!("CARGO_PKG_VERSION"),
        "starting"
    );
    match start(common, |process| body(arguments, process)) {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(error = telemetry::chain(&error), "failed");
            ExitCode::FAILURE
        }
    }
}

fn start<F, W, E>(common: CommonArgs, body: F) -> Result<(), Error>
where
    F: FnOnce(Process) -> W,
    W: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| Error::Provider)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(common.workers))
        // For name resolution, the service account's token file and large reviews: a few are plenty.
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    let outcome = runtime.block_on(supervise(common, body));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn supervise<F, W, E>(common: CommonArgs, body: F) -> Result<(), Error>
where
    F: FnOnce(Process) -> W,
    W: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    let mut signals = Signals::new().map_err(Error::Signals)?;
    let (stop, end) = (CancellationToken::new(), CancellationToken::new());
    let observed = Observed {
        gates: Gates::default(),
        freshness: Freshness::new(common.watch_age_limit),
        registry: Registry::new(),
        stop: stop.clone(),
    };
    let (gates, freshness, registry) = (
        observed.gates.clone(),
        observed.freshness.clone(),
        observed.registry.clone(),
    );
    registry.register_collector(freshness.clone());
    let observe = health::start(common.observe, observed, end.clone())?;
    let process = Process {
        common,
        stop,
        tracker: TaskTracker::new(),
        gates,
        registry,
        freshness,
        observe,
        failure: Arc::default(),
        last: FinalTasks::default(),
    };

    let mut work = pin!(body(process.clone()));
    let ended = tokio::select! {
        ended = work.as_mut() => Some(ended),
        () = process.stop.cancelled() => None,
        name = signals.next() => {
            tracing::info!(signal = name, "stopping");
            None
        }
    };
    process.stop.cancel();
    process.tracker.close();
    let rest = async {
        let ended = match ended {
            Some(ended) => ended,
            None => work.await,
        };
        process.tracker.wait().await;
        ended.map_err(|error| Error::Body(error.into()))
    };
    let outcome = tokio::select! {
        outcome = timeout(process.common.stop_timeout, rest) => outcome.unwrap_or(Err(Error::Unfinished(process.common.stop_timeout))),
        _ = signals.next() => Err(Error::Impatient),
    };

    process.last.stop.cancel();
    process.last.tracker.close();
    if timeout(LAST_WORDS, process.last.tracker.wait()).await.is_err() {
        tracing::warn!("the lease was not given back in time");
    }
    end.cancel();
    // A failed task is why the rest ended too, so it goes first.
    match process.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(failure) => Err(failure),
        None => outcome,
    }
}

/// The two signals that ask a process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        common: CommonArgs,
        /// What the process does
        #[arg(long, default_value = "serve")]
        role: String,
    }

    /// Which flags [`child`] is run with; it does nothing where they are missing.
    const FLAGS: &str = "TOKENSCOPE_TEST_PROCESS";

    /// Not a test by itself: the other ones run it as a process of its own, since a process has one set of signals, logs
    /// and exit code.
    #[test]
    fn child() {
        let Ok(flags) = std::env::var(FLAGS) else { return };
        let arguments = ["child", "--observe=127.0.0.1:0", "--log-format=text"]
            .into_iter()
            .chain(flags.split_whitespace());
        let code = run_with(arguments.map(OsString::from), |flags: &Flags| &flags.common, body);
        // The test harness knows only passed and failed, so the number goes another way.
        eprintln!("{code:?}");
    }

    #[expect(clippy::unused_async, reason = "a task is a future")]
    async fn careless() -> Result<(), BoxError> {
        panic!("it happens")
    }

    async fn body(flags: Flags, process: Process) -> Result<(), BoxError> {
        let stop = process.stop.clone();
        match flags.role.as_str() {
            "fail" => return Err("no such secret".into()),
            "panic" => process.spawn("careless task", careless()),
            "leave" => process.spawn("short task", async { Ok::<_, BoxError>(()) }),
            "stick" => drop(process.tracker.spawn(std::future::pending::<()>())),
            _ => process.spawn("server", async move {
                stop.cancelled().await;
                tokio::time::sleep(Duration::from_millis(200)).await;
                eprintln!("drained");
                Ok::<_, BoxError>(())
            }),
        }
        eprintln!("running");
        process.stop.cancelled().await;
        Ok(())
    }

    struct Running {
        child: Child,
        output: std::io::BufReader<std::process::ChildStderr>,
    }

    impl Running {
        fn start(flags: &str) -> Self {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["run::tests::child", "--exact", "--nocapture"])
                .env(FLAGS, flags)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let output = std::io::BufReader::new(child.stderr.take().unwrap());
            Self { child, output }
        }

        fn wait_for(&mut self, text: &str) {
            let mut line = String::new();
            while !line.contains(text) {
                line.clear();
                assert_ne!(
                    std::io::BufRead::read_line(&mut self.output, &mut line).unwrap(),
                    0,
                    "no {text:?}"
                );
            }
        }

        fn signal(&self, name: &str) {
            let sent = Command::new("kill")
                .args([name, &self.child.id().to_string()])
                .status()
                .unwrap();
            assert!(sent.success());
        }

        fn rest(mut self) -> String {
            let mut rest = String::new();
            std::io::Read::read_to_string(&mut self.output, &mut rest).unwrap();
            self.child.wait().unwrap();
            rest
        }
    }

    fn assert_exit(output: &str, code: u8) {
        assert!(
            output.contains(&format!("{:?}", ExitCode::from(code))),
            "not {code}: {output}"
        );
    }

    #[test]
    fn sigterm_lets_tasks_finish_and_the_process_succeed() {
        let mut process = Running::start("");
        process.wait_for("running");
        process.signal("-TERM");
        let rest = process.rest();
        assert!(rest.contains("drained") && rest.contains("stopped"), "{rest}");
        assert_exit(&rest, 0);
    }

    #[test]
    fn work_that_does_not_end_is_cut_at_the_timeout_or_by_a_second_signal() {
        let mut process = Running::start("--role=stick --stop-timeout=1");
        process.wait_for("running");
        process.signal("-INT");
        let rest = process.rest();
        assert!(rest.contains("work was still running 1 s after the stop"), "{rest}");
        assert_exit(&rest, 1);

        let began = Instant::now();
        let mut process = Running::start("--role=stick --stop-timeout=60");
        process.wait_for("running");
        process.signal("-TERM");
        process.wait_for("stopping");
        process.signal("-TERM");
        assert_exit(&process.rest(), 1);
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_failed_body_and_a_task_that_fails_or_leaves_fail_the_process_and_are_logged_once() {
        for (role, text) in [
            ("fail", "no such secret"),
            ("panic", "careless task failed"),
            ("leave", "short task ended by itself"),
        ] {
            let rest = Running::start(&format!("--role={role}")).rest();
            assert_eq!(rest.matches(text).count(), 1, "{rest}");
            assert_exit(&rest, 1);
        }
    }

    #[test]
    fn wrong_usage_has_its_own_exit_code() {
        let rest = Running::start("--observe=nowhere").rest();
        assert!(rest.contains("--observe"), "{rest}");
        assert_exit(&rest, 2);
        assert_exit(&Running::start("--help").rest(), 0);
    }
}
