//! The program as it runs in a pod: for its container's own start, and for nobody else.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tokenscope_fixtures::unique_name;

/// The user that the webhook gives the sidecar.
const USER: u32 = 65532;

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(unique_name(&format!("injected-{name}")));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(directory: &Path) -> Command {
    command_of(Path::new(env!("CARGO_BIN_EXE_tokenscope-sidecar")), directory)
}

fn command_of(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("TOKENSCOPE_INJECTED", "true")
        .env("TOKENSCOPE_DIRECTORY", directory)
        .env("TOKENSCOPE_JWT_SVIDS", "token=sts.amazonaws.com")
        .env("SPIFFE_ENDPOINT_SOCKET", "unix:///nonexistent/agent.sock")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn start(mut command: Command, directory: &Path) -> Running {
    let running = Running(command.spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    // The reason why there is no token yet is the last that it does at its start.
    while !directory.join(".reason").exists() {
        assert!(Instant::now() < deadline, "it does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    running
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn a_second_process_in_the_container_gets_nothing() {
    let scratch = Scratch::new("second");
    let first = start(command(&scratch.0), &scratch.0);

    let second = command(&scratch.0).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(said(&second).contains("runs already"), "{}", said(&second));
    for options in [
        &["--once"][..],
        &["--once", "--directory=/tmp"],
        &["ready", "--jwt-svid=mine=other"],
    ] {
        let refused = command(&scratch.0).args(options).output().unwrap();
        assert_eq!(refused.status.code(), Some(2));
        assert!(said(&refused).contains("takes no options"), "{}", said(&refused));
    }
    // The probe is another process, too, and says why there is no token.
    let probe = command(&scratch.0).arg("ready").output().unwrap();
    assert_eq!(probe.status.code(), Some(1));
    assert!(said(&probe).contains("token is not there yet"), "{}", said(&probe));

    // What was killed is in nobody's way.
    drop(first);
    fs::remove_file(scratch.0.join(".reason")).unwrap();
    start(command(&scratch.0), &scratch.0);
}

#[test]
fn no_process_of_the_same_user_may_look_into_it() {
    let scratch = Scratch::new("dumpable");
    if chown(&scratch.0, Some(USER), Some(USER)).is_err() {
        eprintln!("skipped: only root can start processes of another user");
        return;
    }
    // Where the program was built this user may not look.
    let folder = Scratch::new("program");
    let program = folder.0.join("tokenscope-sidecar");
    fs::copy(env!("CARGO_BIN_EXE_tokenscope-sidecar"), &program).unwrap();
    let mut command = command_of(&program, &scratch.0);
    command.uid(USER).gid(USER);
    let running = start(command, &scratch.0);
    // Files of a process that may not be dumped belong to root (proc(5)).
    let environment = fs::metadata(format!("/proc/{}/environ", running.0.id())).unwrap();
    assert_eq!(environment.uid(), 0);
}
