//! The program as the webhook starts it to serve credentials, in folders of a test, and clients of it.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokenscope_core::sidecar::variables;
use tokenscope_fixtures::{free_port, unique_name};
use tokenscope_sidecar::config::{Config, Invocation, invocation};

/// The longest time that two busy cores may take for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Folders that go away with the test, and what is served.
pub(crate) struct Lab {
    folder: PathBuf,
    pub(crate) endpoint: Value,
    more: Vec<(&'static str, String)>,
}

/// A sidecar that ends with the test.
pub(crate) struct Running<'a> {
    lab: &'a Lab,
    pub(crate) child: Child,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Lab {
    /// For containers of these names, each with its own folder and all with one role of STS at a URL.
    pub(crate) fn new(name: &str, containers: &[&str], sts: &str, role: &str) -> Self {
        Self::below(&std::env::temp_dir(), name, containers, sts, role)
    }

    /// The same with its folder below another one.
    pub(crate) fn below(parent: &Path, name: &str, containers: &[&str], sts: &str, role: &str) -> Self {
        let folder = parent.join(unique_name(&format!("endpoint-{name}")));
        let token_file = folder.join("web-identity-token");
        for container in containers {
            fs::create_dir_all(folder.join("authorization").join(container)).unwrap();
        }
        let containers = containers.iter().map(|container| {
            json!({"name": container, "tokenFile": token_file, "role": {"role": role}, "regions": ["eu-central-1"]})
        });
        let port = free_port().unwrap();
        let endpoint = json!({"port": port, "containers": containers.collect::<Vec<_>>(), "stsUrl": sts});
        Self {
            folder,
            endpoint,
            more: Vec::new(),
        }
    }

    /// A further variable.
    pub(crate) fn with(mut self, name: &'static str, value: String) -> Self {
        self.more.push((name, value));
        self
    }

    /// Takes the tokens of all containers from an issuer, whose authority is this.
    pub(crate) fn with_issuer(mut self, url: String, authority: &str, subject: &str) -> Self {
        let folder = self.path("tokens");
        fs::create_dir_all(&folder).unwrap();
        fs::write(self.path("subject"), subject).unwrap();
        for container in self.endpoint["containers"].as_array_mut().unwrap() {
            container["tokenFile"] = json!(folder.join("token"));
        }
        let subject = self.path("subject").display().to_string();
        self.with("TOKENSCOPE_DIRECTORY", folder.display().to_string())
            .with("TOKENSCOPE_ISSUED_TOKENS", "token=sts.amazonaws.com".to_owned())
            .with("TOKENSCOPE_ISSUER", url)
            .with("TOKENSCOPE_ISSUER_CA", authority.to_owned())
            .with("TOKENSCOPE_SUBJECT_TOKEN", subject)
    }

    /// A path in the test's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// In one step, as the kubelet does it: nobody reads a part of it.
    pub(crate) fn write_token(&self, token: &str) {
        let new = self.path("web-identity-token.new");
        fs::write(&new, token).unwrap();
        fs::rename(new, self.path("web-identity-token")).unwrap();
    }

    pub(crate) fn port(&self) -> u16 {
        u16::try_from(self.endpoint["port"].as_u64().unwrap()).unwrap()
    }

    /// A container's authorization token.
    pub(crate) fn authorization(&self, container: &str) -> Option<String> {
        fs::read_to_string(self.folder.join("authorization").join(container).join("token")).ok()
    }

    /// Starts the program, and waits until it serves.
    pub(crate) fn start(&self) -> Running<'_> {
        let running = self.start_without_waiting();
        running.logs("credentials are served on 127.0.0.1");
        running
    }

    pub(crate) fn start_without_waiting(&self) -> Running<'_> {
        let log = File::create(self.path("log")).unwrap();
        let child = self.command().stderr(log).spawn().unwrap();
        Running { lab: self, child }
    }

    /// Runs the program until it fails; gives its log, which is not that of the one that runs beside it.
    pub(crate) fn run_to_its_end(&self) -> String {
        let output = self.command().stderr(Stdio::piped()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    /// The probe's words if it is not ready.
    pub(crate) fn not_ready(&self) -> Option<String> {
        let output = self.command().arg("ready").stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (!output.status.success()).then_some(said)
    }

    /// The configuration of the environment, for a sidecar in this process.
    pub(crate) fn config(&self) -> Config {
        let environment = self.environment();
        let variable = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.clone())
        };
        match invocation([], variable) {
            Ok(Invocation::Run(config)) => Config {
                injected: false,
                ..config
            },
            other => panic!("{other:?}"),
        }
    }

    /// What the process leaves for the probe of container `app`.
    pub(crate) fn state(&self) -> Option<String> {
        fs::read_to_string(self.path("authorization/app/.state")).ok()
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let folders = self.folder.join("authorization").display().to_string();
        let mut environment = vec![
            ("TOKENSCOPE_ENDPOINT", self.endpoint.to_string()),
            (variables::AUTHORIZATION_FOLDERS, folders),
            ("TOKENSCOPE_POD_NAME", "orders-7d9f-x2x9p".to_owned()),
            ("TOKENSCOPE_LOG_LEVEL", "debug".to_owned()),
            ("TOKENSCOPE_INJECTED", "true".to_owned()),
        ];
        environment.extend_from_slice(&self.more);
        environment
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokenscope-sidecar"));
        command
            .env_clear()
            .envs(self.environment())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Asks for a container's credentials as an SDK does.
    pub(crate) fn ask(&self, container: &str) -> Answer {
        let token = self.authorization(container).unwrap();
        self.ask_with(container, &token)
    }

    /// Asks with another authorization.
    pub(crate) fn ask_with(&self, container: &str, authorization: &str) -> Answer {
        let head = format!(
            "GET /v1/credentials/{container} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: {authorization}\r\n\r\n",
            self.port()
        );
        self.send(head.as_bytes())
    }

    /// Sends bytes over a connection of their own, and reads the answer to its end.
    pub(crate) fn send(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        read(stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect_to(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port())))
    }

    pub(crate) fn connect_v6(&self) -> TcpStream {
        connect_to(SocketAddr::from((Ipv6Addr::LOCALHOST, self.port())))
    }
}

fn connect_to(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads an answer to its end.
pub(crate) fn read(stream: TcpStream) -> Answer {
    let (status, body) = read_text(stream);
    Answer {
        status,
        body: serde_json::from_str(&body).unwrap(),
    }
}

/// Reads an answer that need not be JSON.
pub(crate) fn read_text(mut stream: TcpStream) -> (u16, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nConnection: close"), "{head}");
    assert!(head.contains("\r\nCache-Control: no-store"), "{head}");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Running<'_> {
    /// The log. No part of any token or key is ever in it.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.lab.path("log")).unwrap();
        assert!(!log.contains("eyJ"), "a token was logged: {log}");
        log
    }

    /// Waits until something is so.
    pub(crate) fn until<T>(&self, what: &str, mut is_so: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = is_so() {
                return found;
            }
            assert!(Instant::now() < deadline, "in vain: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a text is logged.
    pub(crate) fn logs(&self, part: &str) {
        self.until(part, || self.log().contains(part).then_some(()));
    }

    /// Waits until the container is answered with credentials.
    pub(crate) fn credentials(&self, container: &str) -> Value {
        let lab = self.lab;
        self.until("there are credentials", || {
            let answer = lab.ask(container);
            (answer.status == 200).then_some(answer.body)
        })
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
