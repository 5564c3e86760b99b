//! Real child processes: how they begin, stop and fail.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct TestArguments {
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
    let code = run_with(
        arguments.map(OsString::from),
        |flags: &TestArguments| &flags.common,
        body,
    );
    // The test harness knows only passed and failed, so the number goes another way.
    eprintln!("{code:?}");
}

#[expect(clippy::unused_async, reason = "a task is a future")]
async fn careless() -> Result<(), BoxError> {
    panic!("it happens")
}

async fn body(flags: TestArguments, process: Process) -> Result<(), BoxError> {
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

struct ChildProcess {
    child: Child,
    output: std::io::BufReader<std::process::ChildStderr>,
}

impl ChildProcess {
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
    let mut process = ChildProcess::start("");
    process.wait_for("running");
    process.signal("-TERM");
    let rest = process.rest();
    assert!(rest.contains("drained") && rest.contains("stopped"), "{rest}");
    assert_exit(&rest, 0);
}

#[test]
fn work_that_does_not_end_is_cut_at_the_timeout_or_by_a_second_signal() {
    let mut process = ChildProcess::start("--role=stick --stop-timeout=1");
    process.wait_for("running");
    process.signal("-INT");
    let rest = process.rest();
    assert!(rest.contains("work was still running 1 s after the stop"), "{rest}");
    assert_exit(&rest, 1);

    let began = Instant::now();
    let mut process = ChildProcess::start("--role=stick --stop-timeout=3600");
    process.wait_for("running");
    process.signal("-TERM");
    process.wait_for("stopping");
    process.signal("-TERM");
    assert_exit(&process.rest(), 1);
    assert!(began.elapsed() < Duration::from_secs(600));
}

#[test]
fn a_failed_body_and_a_task_that_fails_or_leaves_fail_the_process_and_are_logged_once() {
    for (role, text) in [
        ("fail", "no such secret"),
        ("panic", "careless task failed"),
        ("leave", "short task ended by itself"),
    ] {
        let rest = ChildProcess::start(&format!("--role={role}")).rest();
        assert_eq!(rest.matches(text).count(), 1, "{rest}");
        assert_exit(&rest, 1);
    }
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    let rest = ChildProcess::start("--observe=nowhere").rest();
    assert!(rest.contains("--observe"), "{rest}");
    assert_exit(&rest, 2);
    assert_exit(&ChildProcess::start("--help").rest(), 0);
}
