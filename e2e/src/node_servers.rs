//! The servers of a cluster's control plane, which tests end and start again.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::node::Node;

/// How long a control plane may take until it serves. On a busy machine a server gives up where it finds another one not ready
/// yet, and starts once more.
const SERVES: Duration = Duration::from_secs(180);

/// The command line of a server of the cluster.
#[derive(Clone, Debug)]
pub struct NodeServer {
    name: String,
    path: PathBuf,
    arguments: Vec<String>,
}

impl NodeServer {
    /// The same server with one more argument.
    pub fn with_argument(&self, argument: &str) -> Self {
        let mut server = self.clone();
        server.arguments.push(argument.to_owned());
        server
    }
}

impl Node {
    /// The command line of a server of the cluster that runs now, to start it with again.
    pub fn server(&self, program: &str) -> Result<NodeServer> {
        let processes = self.processes(program)?;
        let process = processes.first().with_context(|| format!("{program} doesn't run"))?;
        let path = format!("/proc/{process}");
        let line = fs::read_to_string(format!("{path}/cmdline"))?;
        Ok(NodeServer {
            name: program.to_owned(),
            path: fs::read_link(format!("{path}/exe"))?,
            arguments: line.split_terminator('\0').skip(1).map(str::to_owned).collect(),
        })
    }

    /// Starts those that don't run, as a kubelet does with its static pods.
    pub fn keep_running(&self, servers: &[NodeServer]) -> Result<()> {
        for server in servers {
            if self.processes(&server.name)?.is_empty() {
                let arguments: Vec<&str> = server.arguments.iter().map(String::as_str).collect();
                self.serve(&format!("{}-again", server.name), &server.path, &arguments, &[])?;
            }
        }
        Ok(())
    }

    /// Keeps the API server, and what it needs, running until it is ready.
    pub fn serves_again(&self, servers: &[NodeServer]) -> Result<()> {
        self.eventually(SERVES, "the API server is back", || {
            self.keep_running(servers)?;
            self.kubectl(&["get", "--raw", "/readyz", "--request-timeout=5s"])
        })?;
        Ok(())
    }
}
