//! The program as the webhook starts it for an issuer, in folders of a test.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokenscope_fixtures::unique_name;
use tokenscope_sidecar::config::{Config, Invocation, invocation};

use super::server::TestIssuer;

/// The longest time that two busy cores may take for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Folders that go away with the test, and the environment of its sidecar.
pub(crate) struct Lab {
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
}

/// A sidecar that ends with the test.
pub(crate) struct Running<'a> {
    lab: &'a Lab,
    child: Child,
}

impl Lab {
    /// For one token of AWS's usual audience.
    pub(crate) fn new(name: &str, issuer: &TestIssuer) -> Self {
        let folder = std::env::temp_dir().join(unique_name(&format!("exchange-{name}")));
        fs::create_dir_all(folder.join("tokens")).unwrap();
        fs::create_dir_all(folder.join("other")).unwrap();
        let environment = vec![
            ("TOKENSCOPE_DIRECTORY", folder.join("tokens").display().to_string()),
            ("TOKENSCOPE_ISSUED_TOKENS", "token=sts.amazonaws.com".to_owned()),
            ("TOKENSCOPE_ISSUER", issuer.url()),
            ("TOKENSCOPE_ISSUER_CA", issuer.authority.clone()),
            ("TOKENSCOPE_SUBJECT_TOKEN", folder.join("subject").display().to_string()),
            ("TOKENSCOPE_TOKEN_LIFETIME", "900".to_owned()),
            ("TOKENSCOPE_LOG_LEVEL", "debug".to_owned()),
            ("TOKENSCOPE_INJECTED", "true".to_owned()),
        ];
        let lab = Self { folder, environment };
        lab.write_subject(&super::subject("first"));
        lab
    }

    /// Sets a variable.
    pub(crate) fn with(mut self, name: &'static str, value: String) -> Self {
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value));
        self
    }

    /// A file in the folder of the tokens, or in `../other`.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// In one step, as the kubelet does it: nobody reads a part of it.
    pub(crate) fn write_subject(&self, token: &str) {
        let new = self.folder.join("subject.new");
        fs::write(&new, token).unwrap();
        fs::rename(new, self.folder.join("subject")).unwrap();
    }

    pub(crate) fn token(&self) -> Option<String> {
        fs::read_to_string(self.folder.join("tokens/token")).ok()
    }

    /// The configuration of the environment, for a sidecar in this process.
    pub(crate) fn config(&self) -> Config {
        let variable = |name: &str| {
            let found = self.environment.iter().find(|(known, _)| *known == name);
            found
                .map(|(_, value)| value.clone())
                .filter(|_| name != "TOKENSCOPE_INJECTED")
        };
        match invocation([], variable) {
            Ok(Invocation::Run(config)) => config,
            other => panic!("{other:?}"),
        }
    }

    /// Starts the program.
    pub(crate) fn start(&self) -> Running<'_> {
        let log = File::create(self.folder.join("log")).unwrap();
        let child = self.command().stderr(log).spawn().unwrap();
        Running { lab: self, child }
    }

    /// The probe's words if it is not ready.
    pub(crate) fn not_ready(&self) -> Option<String> {
        let output = self.command().arg("ready").stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (!output.status.success()).then_some(said)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokenscope-sidecar"));
        command
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Running<'_> {
    /// The log. No part of any token is ever in it.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.lab.folder.join("log")).unwrap();
        assert!(!log.contains("eyJ"), "a token was logged: {log}");
        log
    }

    /// Waits until something is so.
    pub(crate) async fn until<T>(&self, what: &str, mut is_so: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = is_so() {
                return found;
            }
            assert!(Instant::now() < deadline, "in vain: {what}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a text is logged.
    pub(crate) async fn logs(&self, part: &str) {
        self.until(part, || self.log().contains(part).then_some(())).await;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
