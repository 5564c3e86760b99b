//! The sidecar as a process, and a workload that reads its file as SDKs do, but all the time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::Value;
use tokenscope_core::credentials_endpoint::{AUTHORIZATION_FOLDERS, CredentialsEndpoint, ENDPOINT_VARIABLE};
use tokenscope_core::pod::SIDECAR;
use tokenscope_core::sidecar::variables;
use tokenscope_fixtures::free_port;
use tokenscope_sidecar::token::Token;

use crate::container::ContainerView;
use crate::eventually;
use crate::install::own_programs;
use crate::process::{ServerProcess, Start, Watchdog};

/// The file of the token.
pub const FILE: &str = "token";

/// A running sidecar and its directory.
#[derive(Debug)]
pub struct Sidecar {
    /// The process, for faults.
    pub process: ServerProcess,
    directory: PathBuf,
    program: PathBuf,
    environment: BTreeMap<String, String>,
}

impl Sidecar {
    /// Starts it in a new folder of `folder`, configured by the environment as the webhook does, with `more` variables.
    pub fn start(
        folder: &Path,
        name: &str,
        socket: &Path,
        watchdog: &Arc<Watchdog>,
        more: &[(&str, &str)],
    ) -> Result<Self> {
        let directory = folder.join(name);
        fs::create_dir_all(&directory)?;
        Self::start_in(directory, folder, name, socket, watchdog, more)
    }

    /// As [`start`](Self::start), in a directory that is there.
    pub fn start_in(
        directory: PathBuf,
        logs: &Path,
        name: &str,
        socket: &Path,
        watchdog: &Arc<Watchdog>,
        more: &[(&str, &str)],
    ) -> Result<Self> {
        let mut environment: BTreeMap<String, String> = [
            ("TOKENSCOPE_DIRECTORY", directory.display().to_string()),
            ("TOKENSCOPE_JWT_SVIDS", format!("{FILE}=sts.amazonaws.com")),
            ("SPIFFE_ENDPOINT_SOCKET", format!("unix://{}", socket.display())),
            ("TOKENSCOPE_LOG_LEVEL", "debug".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        environment.extend(
            more.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        Self::start_with(program()?, environment, directory, logs, name, watchdog)
    }

    /// Starts the sidecar of a pod with exactly the environment that admission wrote. Each of its volumes is a folder of `folder`, which
    /// is made if need be, and what stands in `reached` in place of an address of the cluster is used instead of it.
    pub fn of_pod(
        pod: &Value,
        folder: &Path,
        name: &str,
        reached: (&str, &str),
        watchdog: &Arc<Watchdog>,
    ) -> Result<Self> {
        Self::of_pod_by(program()?, pod, folder, name, reached, watchdog)
    }

    /// The same with another program, such as that of an earlier release.
    pub fn of_pod_by(
        program: PathBuf,
        pod: &Value,
        folder: &Path,
        name: &str,
        reached: (&str, &str),
        watchdog: &Arc<Watchdog>,
    ) -> Result<Self> {
        let mut containers = pod["spec"]["initContainers"].as_array().into_iter().flatten();
        let container = containers.find(|container| container["name"] == SIDECAR);
        let container = container.context("the pod has a sidecar")?;
        let mut places = vec![(reached.0.to_owned(), reached.1.to_owned())];
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let path = mount["mountPath"].as_str().context("a mount has a path")?;
            let volume = mount["name"].as_str().context("a mount names its volume")?;
            fs::create_dir_all(folder.join(volume))?;
            places.push((path.to_owned(), folder.join(volume).display().to_string()));
        }
        let mut environment = BTreeMap::new();
        for variable in container["env"].as_array().into_iter().flatten() {
            let name = variable["name"].as_str().context("a variable has a name")?;
            let value = variable["value"].as_str().context("a variable has a value")?;
            let value = places
                .iter()
                .fold(value.to_owned(), |value, (from, to)| value.replace(from, to));
            environment.insert(name.to_owned(), value);
        }
        let directory = environment.get(variables::DIRECTORY).context("there is a directory")?;
        Self::start_with(program, environment.clone(), directory.into(), folder, name, watchdog)
    }

    fn start_with(
        program: PathBuf,
        environment: BTreeMap<String, String>,
        directory: PathBuf,
        logs: &Path,
        name: &str,
        watchdog: &Arc<Watchdog>,
    ) -> Result<Self> {
        let process = ServerProcess::start(
            Start {
                name: name.to_owned(),
                program: program.clone(),
                arguments: Vec::new(),
                environment: environment.clone(),
                logs: logs.to_owned(),
                observe_port: None,
            },
            watchdog,
        )?;
        Ok(Self {
            process,
            directory,
            program,
            environment,
        })
    }

    /// The folder with the files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The token in a file.
    pub fn token(&self, file: &str) -> Result<Token> {
        let text = fs::read_to_string(self.directory.join(file)).with_context(|| format!("no {file}"))?;
        Ok(Token::parse(&text)?)
    }

    /// Waits for a token that pleases.
    pub async fn wait_for(&self, deadline: Duration, what: &str, pleases: impl Fn(&Token) -> bool) -> Result<Token> {
        let found = eventually(deadline, what, async || {
            let token = self.token(FILE)?;
            if !pleases(&token) {
                bail!("the token {token:?} does not please");
            }
            Ok(token)
        });
        found.await.with_context(|| self.process.log_tail(30))
    }

    /// Runs the probe, in the same environment: what it says if it is not ready.
    pub fn probe(&self) -> Result<Result<(), String>> {
        let output = std::process::Command::new(&self.program)
            .arg("ready")
            .env_clear()
            .envs(&self.environment)
            .output()?;
        let text = String::from_utf8(output.stderr)?;
        match output.status.code() {
            Some(0) => Ok(Ok(())),
            Some(1) => Ok(Err(text)),
            _ => bail!("the probe ended with {}: {text}", output.status),
        }
    }

    /// Names of all files in the directory, hidden ones included.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }
}

/// What a stored pod's sidecar that serves credentials is told, as it can run here: its files are below a folder, STS is the tests' own, and the
/// port may be another test's.
pub fn endpoint_here(sidecar: &ContainerView, sts_url: &str) -> Result<CredentialsEndpoint> {
    let told = sidecar.environment.get(ENDPOINT_VARIABLE).context("it serves")?;
    let mut told: CredentialsEndpoint = serde_json::from_str(told)?;
    told.port = free_port()?;
    told.sts_url = Some(sts_url.into());
    for served in &mut told.containers {
        served.token_file = sidecar.file(&served.token_file).display().to_string().into();
        fs::create_dir_all(sidecar.file(AUTHORIZATION_FOLDERS).join(&*served.name))?;
    }
    Ok(told)
}

/// Starts the sidecar of a stored pod that serves credentials, and tells it this.
pub fn start_endpoint(
    sidecar: &ContainerView,
    told: &CredentialsEndpoint,
    watchdog: &Arc<Watchdog>,
) -> Result<ServerProcess> {
    let folders = sidecar.file(AUTHORIZATION_FOLDERS).display().to_string();
    let mut environment = sidecar.environment.clone();
    environment.insert(ENDPOINT_VARIABLE.to_owned(), serde_json::to_string(told)?);
    environment.insert(variables::AUTHORIZATION_FOLDERS.to_owned(), folders);
    let start = Start {
        name: "sidecar".to_owned(),
        program: program()?,
        arguments: Vec::new(),
        environment,
        logs: sidecar.root.clone(),
        observe_port: None,
    };
    ServerProcess::start(start, watchdog)
}

/// The program that Cargo built.
pub fn program() -> Result<PathBuf> {
    let path = own_programs()?.join("tokenscope-sidecar");
    anyhow::ensure!(
        path.exists(),
        "{} is missing: cargo build --workspace --bins",
        path.display()
    );
    Ok(path)
}

/// A workload that opens and reads the file in a tight loop, from when it is there.
#[derive(Debug)]
pub struct Reader {
    stop: Arc<AtomicBool>,
    tokens: Arc<AtomicU64>,
    thread: JoinHandle<Read>,
}

/// The reads of a [`Reader`].
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// The number of reads.
    pub reads: u64,
    /// The number of different tokens.
    pub tokens: u64,
    /// Reads of a file that was absent, empty, partial or no token.
    pub torn: u64,
    /// Reads of a token that had ended.
    pub expired: u64,
    /// The shortest time that a token had left, in milliseconds.
    pub least_left: i64,
    /// The first bad read, without the token.
    pub first_bad: Option<String>,
}

impl Reader {
    /// Starts reading a file that is there.
    pub fn start(file: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let tokens = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&tokens);
        let thread = std::thread::spawn(move || read(&file, &stopped, &counted));
        Self { stop, tokens, thread }
    }

    /// The number of different tokens until now.
    pub fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// Ends reading; what it saw.
    pub fn stop(self) -> Result<Read> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the reader panicked")
    }
}

fn read(file: &Path, stop: &AtomicBool, tokens: &AtomicU64) -> Read {
    let mut seen = Read {
        least_left: i64::MAX,
        ..Read::default()
    };
    let mut last: Option<(Vec<u8>, Token)> = None;
    while !stop.load(Ordering::Relaxed) {
        let content = fs::read(file);
        let now = Timestamp::now();
        seen.reads += 1;
        let content = match content {
            Ok(content) => content,
            Err(error) => {
                seen.torn += 1;
                seen.first_bad.get_or_insert_with(|| format!("{now}: {error}"));
                continue;
            }
        };
        if last.as_ref().is_none_or(|(text, _)| *text != content) {
            let token = std::str::from_utf8(&content).ok().map(Token::parse);
            match token {
                Some(Ok(token)) => {
                    seen.tokens += 1;
                    tokens.store(seen.tokens, Ordering::Relaxed);
                    last = Some((content, token));
                }
                other => {
                    seen.torn += 1;
                    let why = other.map(|other| other.map(|_| ()));
                    seen.first_bad
                        .get_or_insert_with(|| format!("{now}: {} bytes, {why:?}", content.len()));
                    continue;
                }
            }
        }
        let Some((_, token)) = &last else { continue };
        let left = token.expires_at.duration_since(now).as_millis() as i64;
        seen.least_left = seen.least_left.min(left);
        if left <= 0 {
            seen.expired += 1;
            seen.first_bad
                .get_or_insert_with(|| format!("{now}: {token:?} ended {} ms ago", -left));
        }
        // A tight loop on both of two cores would starve what is tested.
        std::thread::sleep(Duration::from_micros(50));
    }
    seen
}
