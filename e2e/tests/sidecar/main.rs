//! The sidecar beside an agent that misbehaves, on a disk that does, and with a clock that is set.

#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod agents;
mod machine;
mod tokens;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokenscope_e2e::eventually;
use tokenscope_e2e::process::{ServerProcess, Start, Watchdog};
use tokenscope_e2e::sidecar::{FILE, Sidecar};
use tokenscope_e2e::workload_api::{Agent, Answer};
use tokenscope_fixtures::unique_name;
use tokenscope_sidecar::config::{Config, Invocation, invocation};
use tokenscope_sidecar::workload_api::JwtSvidRequest;

/// What two busy cores may take for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder for sockets and files, and what ends processes.
struct Lab {
    folder: PathBuf,
    watchdog: Arc<Watchdog>,
}

impl Lab {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(unique_name("lab"));
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

    fn process(&self, program: &str, arguments: &[&str], variables: &[(String, String)]) -> ServerProcess {
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
        ServerProcess::start(start, &self.watchdog).unwrap()
    }
}

async fn ends(process: &ServerProcess) -> ExitStatus {
    eventually(PATIENCE, "the process ends", async || {
        process.exit_status()?.with_context(|| process.log_tail(10))
    })
    .await
    .unwrap()
}
