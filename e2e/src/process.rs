//! Child processes that end when the test does, however it ends.
//!
//! libtest never drops statics, and a killed test drops nothing at all. So each [`Watchdog`] is a small shell that reads
//! a pipe: when the pipe closes, because this process dropped it or is gone, it kills what it was told to watch and
//! removes the folder.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Reads `watch PID`, `forget PID`, `keep`, one a line. A process that is killed writes on for a moment, so removing the
/// folder is tried for some seconds.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
pids= remove=yes
while read -r word value; do
  case $word in
    watch) pids="$pids $value" ;;
    forget) left=; for pid in $pids; do [ "$pid" = "$value" ] || left="$left $pid"; done; pids=$left ;;
    keep) remove=no ;;
  esac
done
for pid in $pids; do kill -s KILL -- "-$pid" 2>/dev/null; done
[ $remove = yes ] || { rm -rf -- "$1/etcd"; exit 0; }
for attempt in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do rm -rf -- "$1" && exit 0; sleep 0.3; done
"#;

/// Kills the processes it watches and removes a folder, when it is dropped or this process ends.
#[derive(Debug)]
pub struct Watchdog {
    pipe: Mutex<Option<ChildStdin>>,
    shell: Mutex<Child>,
}

impl Watchdog {
    /// Guards a folder, which is removed at the end.
    pub fn start(folder: &Path) -> Result<Arc<Self>> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "tokenscope-watchdog"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null()) // an inherited one would keep whoever reads ours waiting
            .stderr(Stdio::null())
            .process_group(0) // Ctrl-C is for us; it ends when we do
            .spawn()
            .context("can't run /bin/sh")?;
        let pipe = shell.stdin.take();
        Ok(Arc::new(Self {
            pipe: Mutex::new(pipe),
            shell: Mutex::new(shell),
        }))
    }

    /// Leaves the folder in place at the end, but for etcd's data, which nobody reads.
    pub fn keep_folder(&self) {
        self.tell("keep");
    }

    fn tell(&self, line: &str) {
        if let Some(pipe) = guard(&self.pipe).as_mut() {
            // Without its shell nothing is guarded, but the test itself can go on.
            let _ = writeln!(pipe, "{line}");
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(guard(&self.pipe).take());
        let _ = guard(&self.shell).wait();
    }
}

/// A server that a test started, and may kill, stop for a while, and start again with the same arguments and ports.
#[derive(Debug)]
pub struct ServerProcess {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    log: PathBuf,
    observe_port: Option<u16>,
    watchdog: Arc<Watchdog>,
    child: Mutex<Option<Child>>,
}

/// The memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident just now.
    pub resident: u64,
    /// Resident just now, without pages of files such as the program itself.
    pub anonymous: u64,
    /// The most that was ever resident.
    pub peak: u64,
}

impl Memory {
    /// That of the process with this number. A process that has ended has none, which is an error.
    pub fn of(process: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let bytes = |field: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let kibibytes = line
                .and_then(|line| line.split_whitespace().next())
                .context("/proc names the field")?;
            Ok(kibibytes.parse::<u64>()? * 1024)
        };
        Ok(Self {
            resident: bytes("VmRSS:")?,
            anonymous: bytes("RssAnon:")?,
            peak: bytes("VmHWM:")?,
        })
    }
}

/// The start of a [`ServerProcess`].
#[derive(Debug)]
pub struct Start {
    /// Its name in messages and that of its log file.
    pub name: String,
    /// The program's path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its whole environment; nothing is inherited.
    pub environment: BTreeMap<String, String>,
    /// The folder for its log.
    pub logs: PathBuf,
    /// The port on 127.0.0.1 of /livez, /readyz and /metrics, if it has them.
    pub observe_port: Option<u16>,
}

impl ServerProcess {
    /// Starts it, in its own process group, with both outputs in its log file.
    pub fn start(start: Start, watchdog: &Arc<Watchdog>) -> Result<Self> {
        let Start {
            name,
            program,
            arguments,
            environment,
            logs,
            observe_port,
        } = start;
        let log = logs.join(format!("{name}.log"));
        let watchdog = Arc::clone(watchdog);
        let process = Self {
            name,
            program,
            arguments,
            environment,
            log,
            observe_port,
            watchdog,
            child: Mutex::new(None),
        };
        process.spawn()?;
        Ok(process)
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program and the arguments it was started with.
    pub fn command_line(&self) -> (&Path, &[String]) {
        (&self.program, &self.arguments)
    }

    /// The URL at which it tells how it is: `http://127.0.0.1:PORT`.
    pub fn observe_url(&self) -> Result<String> {
        Ok(format!("http://127.0.0.1:{}", self.port()?))
    }

    /// Status and text of a GET at its observing address, such as `/metrics`.
    pub async fn observe(&self, path: &str) -> Result<(u16, String)> {
        crate::get(self.port()?, path).await
    }

    /// Waits until /readyz answers 200. Fails at once if the process has ended, and else after `deadline`.
    pub async fn wait_ready(&self, deadline: Duration) -> Result<()> {
        let started = Instant::now();
        let mut last = String::from("no answer yet");
        while started.elapsed() < deadline {
            if let Some(status) = self.exit_status()? {
                bail!("{} has ended with {status}:\n{}", self.name, self.log_tail(30));
            }
            match self.observe("/readyz").await {
                Ok((200, _)) => return Ok(()),
                Ok((status, text)) => last = format!("{status}: {}", text.trim()),
                Err(error) => last = format!("{error:#}"),
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        bail!(
            "{} isn't ready after {deadline:?} ({last}):\n{}",
            self.name,
            self.log_tail(30)
        )
    }

    /// Its process id. Fails if it was killed or terminated.
    pub fn pid(&self) -> Result<u32> {
        Ok(guard(&self.child)
            .as_ref()
            .with_context(|| format!("{} isn't running", self.name))?
            .id())
    }

    /// The status with which it ended, if it did.
    pub fn exit_status(&self) -> Result<Option<ExitStatus>> {
        match guard(&self.child).as_mut() {
            Some(child) => Ok(child.try_wait()?),
            None => Ok(None),
        }
    }

    /// SIGKILL, as a crash or the kernel's out-of-memory killer. Returns when it is gone.
    pub fn kill(&self) -> Result<()> {
        let Some(mut child) = guard(&self.child).take() else {
            return Ok(());
        };
        child.kill()?;
        child.wait()?;
        self.watchdog.tell(&format!("forget {}", child.id()));
        Ok(())
    }

    /// SIGTERM, as a kubelet ends a container; SIGKILL after `deadline`, which is an error.
    pub async fn terminate(&self, deadline: Duration) -> Result<ExitStatus> {
        self.signal("TERM")?;
        let started = Instant::now();
        while started.elapsed() < deadline {
            if let Some(status) = self.exit_status()? {
                self.kill()?; // reaped already; this only forgets it
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.kill()?;
        bail!(
            "{} did not end within {deadline:?} of SIGTERM:\n{}",
            self.name,
            self.log_tail(30)
        )
    }

    /// Starts it again with the same arguments, killed first if it still runs. Its log is continued.
    pub fn restart(&self) -> Result<()> {
        self.kill()?;
        self.spawn()
    }

    /// Sends a signal by name: STOP and CONT make it hang and go on.
    pub fn signal(&self, name: &str) -> Result<()> {
        let pid = self.pid()?.to_string();
        let status = Command::new("/bin/sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &pid])
            .status()?;
        ensure!(status.success(), "can't send {name} to {}", self.name);
        Ok(())
    }

    /// Its memory.
    pub fn memory(&self) -> Result<Memory> {
        Memory::of(self.pid()?)
    }

    /// Processor time it has used, in user and kernel mode, since it was started.
    pub fn processor_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        processor_time_in(&stat, 14)
    }

    /// The file with its standard output and standard error.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = self.log();
        let all: Vec<&str> = text.lines().collect();
        format!(
            "--- {}\n{}",
            self.log.display(),
            all[all.len().saturating_sub(lines)..].join("\n")
        )
    }

    fn port(&self) -> Result<u16> {
        self.observe_port
            .with_context(|| format!("{} has no observing address", self.name))
    }

    fn spawn(&self) -> Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let errors: File = log.try_clone()?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("can't run {}", self.program.display()))?;
        self.watchdog.tell(&format!("watch {}", child.id()));
        *guard(&self.child) = Some(child);
        Ok(())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Processor time in user and kernel mode, which a process's `stat` has in this field and the next one, counted from 1 (proc(5)): its own
/// from field 14 on, and that of the children it has waited for from field 16 on.
pub fn processor_time_in(stat: &str, field: usize) -> Result<Duration> {
    // The name in brackets may hold spaces; what is behind it begins with field 3.
    let (_, rest) = stat.rsplit_once(')').context("a stat line has a name")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks =
        |field: usize| -> Result<u64> { Ok(fields.get(field - 3).context("a stat line has all fields")?.parse()?) };
    Ok(Duration::from_millis((ticks(field)? + ticks(field + 1)?) * 10)) // USER_HZ is 100 on every Linux
}

/// A test that panicked while it held a lock must not hide its message behind another.
fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
