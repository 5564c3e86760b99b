//! Disks, signals and clocks that misbehave.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use jiff::{SignedDuration, Timestamp};
use tokenscope_e2e::eventually;
use tokenscope_e2e::process::ServerProcess;
use tokenscope_e2e::sidecar::{FILE, program};
use tokenscope_e2e::workload_api::{Answer, fresh, svid, token};
use tokenscope_sidecar::clock::{Clock, Woken};
use tokenscope_sidecar::run::run;
use tokio::sync::Notify;

use crate::{Lab, PATIENCE, ends};

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
    let filler = inside.join("filler");
    for fault in ["full", "read-only"] {
        if fault == "full" {
            assert!(fs::write(&filler, vec![0; 1 << 20]).is_err());
        } else {
            remount(&process, &directory, "ro").await;
        }
        a_write_fails_and_the_old_token_stays(&process, &inside, fault).await;
        let kept = content().unwrap();
        if fault == "full" {
            fs::remove_file(&filler).unwrap();
        } else {
            remount(&process, &directory, "rw").await;
        }
        last = changes(&kept, "a new token is written").await;
    }
    drop(last);
    it_ends_where_it_can_never_write(&lab, &directory, &variables).await;
}

/// Mounts the folder anew, which is refused while the sidecar has a file open there to write.
async fn remount(process: &ServerProcess, directory: &Path, mode: &str) {
    eventually(PATIENCE, format!("it is mounted anew: {mode}"), async || {
        let status = Command::new("nsenter")
            .args(["--mount", "--target", &process.pid()?.to_string()])
            .args(["mount", "-o", &format!("remount,{mode}")])
            .arg(directory)
            .status()?;
        ensure!(status.success(), "{status}");
        Ok(())
    })
    .await
    .unwrap();
}

async fn a_write_fails_and_the_old_token_stays(process: &ServerProcess, inside: &Path, fault: &str) {
    let refused = |log: &str| log.matches("\"reason\":\"write\"").count();
    let before = refused(&process.log());
    eventually(PATIENCE, format!("a write has failed: {fault}"), async || {
        ensure!(refused(&process.log()) > before, "not yet");
        Ok(())
    })
    .await
    .unwrap();
    let kept = fs::read_to_string(inside.join(FILE)).unwrap();
    assert_eq!(kept.split('.').count(), 3, "{fault}");
    // It tries again meanwhile, and a file may go between two looks at the folder.
    eventually(PATIENCE, format!("nothing partial is left: {fault}"), async || {
        let mut names = Vec::new();
        for entry in fs::read_dir(inside)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        ensure!(names.iter().all(|name| !name.ends_with(".partial")), "{names:?}");
        Ok(())
    })
    .await
    .unwrap();
}

async fn it_ends_where_it_can_never_write(lab: &Lab, directory: &Path, variables: &[(String, String)]) {
    let script = format!(
        "mount -t tmpfs -o ro small '{0}' && exec '{1}'",
        directory.display(),
        program().unwrap().display()
    );
    let process = lab.process("unshare", &["--mount", "sh", "-c", &script], variables);
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
    // A kubelet kills it after as long: it ends by itself, and not because nobody waits any longer.
    assert!(
        signalled.elapsed() < Duration::from_secs(30),
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

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
