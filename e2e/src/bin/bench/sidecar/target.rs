//! A program that is measured: how it is started, and what it uses while it keeps a token.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokenscope_e2e::eventually;
use tokenscope_e2e::process::{ServerProcess, Start};
use tokenscope_e2e::sidecar::{FILE, Reader};
use tokenscope_e2e::spire::Spire;
use tokio::task::JoinHandle;

use super::ground::{AUDIENCE, PATIENCE, waits, wake_ups};
use super::{Arguments, Measured};

/// A program and how it is configured.
pub(super) struct Target {
    name: &'static str,
    program: PathBuf,
    directory: PathBuf,
    environment: BTreeMap<String, String>,
    once: Vec<String>,
    always: Vec<String>,
}

impl Target {
    pub(super) fn sidecar(spire: &Spire, program: &Path) -> Result<Self> {
        let directory = spire.folder().join("bench-sidecar");
        fs::create_dir(&directory)?;
        let variables = [
            ("TOKENSCOPE_DIRECTORY", directory.display().to_string()),
            ("TOKENSCOPE_JWT_SVIDS", format!("{FILE}={AUDIENCE}")),
            ("SPIFFE_ENDPOINT_SOCKET", format!("unix://{}", spire.socket().display())),
        ];
        Ok(Self {
            name: "tokenscope",
            program: program.to_owned(),
            directory,
            environment: variables.map(|(name, value)| (name.to_owned(), value)).into(),
            once: vec!["--once".to_owned()],
            always: Vec::new(),
        })
    }

    pub(super) fn spiffe_helper(spire: &Spire, program: &Path) -> Result<Self> {
        let directory = spire.folder().join("bench-helper");
        fs::create_dir(&directory)?;
        let config = spire.folder().join("helper.conf");
        let text = format!(
            "agent_address = \"{}\"\ncert_dir = \"{}\"\n\
             jwt_svids = [{{jwt_audience = \"{AUDIENCE}\", jwt_svid_file_name = \"{FILE}\"}}]\n",
            spire.socket().display(),
            directory.display()
        );
        fs::write(&config, text)?;
        let always = vec!["-config".to_owned(), config.display().to_string()];
        let once = [&always[..], &["-daemon-mode=false".to_owned()]].concat();
        Ok(Self {
            name: "spiffe-helper",
            program: fs::canonicalize(program).with_context(|| format!("no {}", program.display()))?,
            directory,
            environment: BTreeMap::new(),
            once,
            always,
        })
    }

    /// Milliseconds from its start until it has written one token and ended.
    pub(super) fn start_once(&self) -> Result<f64> {
        let file = self.directory.join(FILE);
        let _ = fs::remove_file(&file);
        let started = Instant::now();
        let status = tokio::task::block_in_place(|| {
            Command::new(&self.program)
                .args(&self.once)
                .env_clear()
                .envs(&self.environment)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
        })?;
        let elapsed = started.elapsed();
        ensure!(status.success() && file.exists(), "{} ended with {status}", self.name);
        Ok(elapsed.as_secs_f64() * 1e3)
    }

    /// Starts it, and a workload that reads its file.
    pub(super) async fn keep(&self, spire: &Spire) -> Result<Running> {
        let file = self.directory.join(FILE);
        let process = ServerProcess::start(
            Start {
                name: self.name.to_owned(),
                program: self.program.clone(),
                arguments: self.always.clone(),
                environment: self.environment.clone(),
                logs: spire.folder().join("logs"),
                observe_port: None,
            },
            spire.watchdog(),
        )?;
        let _ = fs::remove_file(&file);
        eventually(PATIENCE, "there is a token", async || Ok(fs::metadata(&file)?))
            .await
            .with_context(|| process.log_tail(10))?;
        // What belongs to the start is over.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let waits = waits(process.pid()?)?;
        let pid = process.pid()?;
        Ok(Running {
            waits,
            wake_ups: tokio::spawn(wake_ups(pid)),
            processor: process.processor_time()?,
            reader: Reader::start(file),
            process,
        })
    }
}

/// A program that keeps a token.
pub(super) struct Running {
    process: ServerProcess,
    reader: Reader,
    waits: u64,
    wake_ups: JoinHandle<Result<u64>>,
    processor: Duration,
}

impl Running {
    /// Waits for the refreshes.
    pub(super) async fn until(self, target: &Target, arguments: &Arguments, start_ms: f64) -> Result<Measured> {
        let wanted = u64::from(arguments.refreshes);
        let limit = PATIENCE + Duration::from_secs(u64::from(arguments.refreshes * arguments.life));
        eventually(limit, format!("{} has renewed its token", target.name), async || {
            let tokens = self.reader.tokens();
            ensure!(tokens > wanted, "{tokens} tokens");
            Ok(())
        })
        .await
        .with_context(|| self.process.log_tail(10))?;
        let memory = self.process.memory()?;
        let waits = waits(self.process.pid()?)? - self.waits;
        let processor = self.process.processor_time()?.saturating_sub(self.processor);
        let seen = self.reader.stop()?;
        drop(self.process);
        let wake_ups = self.wake_ups.await??;
        let refreshes = seen.tokens.saturating_sub(1).max(1); // the first one was there
        Ok(Measured {
            name: target.name,
            size: fs::metadata(&target.program)?.len(),
            resident: memory.resident,
            peak: memory.peak,
            refreshes,
            wake_ups: wake_ups as f64 / refreshes as f64,
            waits: waits as f64 / refreshes as f64,
            processor_us: processor.as_secs_f64() * 1e6 / refreshes as f64,
            start_ms,
            torn: seen.torn,
            expired: seen.expired,
        })
    }
}
