//! `cargo xtask cluster`: the command line of [`tokenscope_xtask::cluster`].

use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use tokenscope_xtask::cluster::{Cluster, DEFAULT_NAME, Status};
use tokenscope_xtask::progress::say;
use tokenscope_xtask::tools::Tool;

use crate::Output;

#[derive(Subcommand)]
pub(crate) enum ClusterCommand {
    /// Start it; returns once pods can run
    Up {
        /// Several clusters can run side by side
        #[arg(long, default_value = DEFAULT_NAME)]
        name: String,
    },
    /// Stop it and remove every trace, also of one whose start was interrupted
    Down {
        /// Which one
        #[arg(long, default_value = DEFAULT_NAME, conflicts_with = "all")]
        name: String,
        /// Every one
        #[arg(long)]
        all: bool,
    },
    /// Show what runs; fails if the named cluster isn't ready
    Status {
        /// Only this one
        #[arg(long)]
        name: Option<String>,
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Run a command inside, with kubectl and helm set up, and end with its exit status: shell -- kubectl get pods -A
    Shell {
        /// Which one
        #[arg(long, default_value = DEFAULT_NAME)]
        name: String,
        /// The command and its arguments; without one, a shell
        #[arg(last = true)]
        command: Vec<String>,
    },
}

pub(crate) fn run(command: ClusterCommand) -> Result<ExitCode> {
    match command {
        ClusterCommand::Up { name } => up(&Cluster::named(&name)?).map(|()| ExitCode::SUCCESS),
        ClusterCommand::Down { name, all } => {
            let clusters = if all {
                Cluster::all()?
            } else {
                vec![Cluster::named(&name)?]
            };
            for cluster in clusters {
                down(&cluster)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        ClusterCommand::Status { name, output } => status(name.as_deref(), output),
        ClusterCommand::Shell { name, command } => {
            let shell = std::env::var("SHELL").unwrap_or_else(|_| "bash".to_owned());
            let (program, arguments) = match command.split_first() {
                Some((program, arguments)) => (program.as_str(), arguments),
                None => (shell.as_str(), [].as_slice()),
            };
            let error = Cluster::named(&name)?.command(program)?.args(arguments).exec();
            Err(error).context("can't run sh")
        }
    }
}

fn up(cluster: &Cluster) -> Result<()> {
    let started = Instant::now();
    let name = cluster.name();
    cluster.up().map_err(|error| {
        if cluster.folder().exists() {
            error.context(format!(
                "the cluster {name:?} didn't start; to remove what is left of it: cargo xtask cluster down --name {name}"
            ))
        } else {
            error
        }
    })?;
    let option = if name == DEFAULT_NAME {
        String::new()
    } else {
        format!(" --name {name}")
    };
    say(&format!(
        "✓ the cluster {name:?} runs Kubernetes {} ({:.1} s)\n\n  \
         cargo xtask cluster shell{option} -- kubectl get pods -A\n  \
         cargo xtask images --load {name}\n  \
         cargo xtask cluster down{option}\n\n  logs: {}",
        Tool::KubeApiserver.pinned_version()?,
        started.elapsed().as_secs_f64(),
        cluster.folder().join("log").display(),
    ));
    Ok(())
}

fn down(cluster: &Cluster) -> Result<()> {
    let started = Instant::now();
    if cluster.down()? {
        let seconds = started.elapsed().as_secs_f64();
        say(&format!("✓ the cluster {:?} is gone ({seconds:.1} s)", cluster.name()));
    } else {
        say(&format!("  there is no cluster {:?}", cluster.name()));
    }
    Ok(())
}

fn status(name: Option<&str>, output: Output) -> Result<ExitCode> {
    let clusters = match name {
        Some(name) => vec![Cluster::named(name)?],
        None => Cluster::all()?,
    };
    let mut found = Vec::new();
    for cluster in clusters {
        if let Some(status) = cluster.status()? {
            found.push((cluster, status));
        }
    }
    match output {
        Output::Json => {
            let rows: Vec<_> = found
                .iter()
                .map(|(cluster, status)| {
                    let servers: serde_json::Map<_, _> = status
                        .servers
                        .iter()
                        .map(|(name, process)| (name.clone(), (*process).into()))
                        .collect();
                    serde_json::json!({
                        "name": cluster.name(), "ready": status.ready, "ageSeconds": age(status).as_secs(),
                        "processes": status.processes, "servers": servers, "kubeconfig": cluster.kubeconfig(),
                        "logs": cluster.folder().join("log"),
                    })
                })
                .collect();
            println!("{}", serde_json::to_string_pretty(&rows)?);
        }
        Output::Table if found.is_empty() => say("  no cluster"),
        Output::Table => {
            println!(
                "{:<16} {:<10} {:<8} {:<10} KUBECONFIG",
                "NAME", "STATE", "AGE", "PROCESSES"
            );
            for (cluster, status) in &found {
                println!(
                    "{:<16} {:<10} {:<8} {:<10} {}",
                    cluster.name(),
                    if status.ready { "ready" } else { "not ready" },
                    rounded(age(status)),
                    status.processes,
                    cluster.kubeconfig().display()
                );
                for (server, process) in &status.servers {
                    println!("  {server:<24} pid {process}");
                }
            }
        }
    }
    if let Some(name) = name {
        ensure!(!found.is_empty(), "there is no cluster {name:?}");
        if !found.iter().all(|(_, status)| status.ready) {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Zero if the clock was put back meanwhile.
fn age(status: &Status) -> Duration {
    status.started.elapsed().unwrap_or_default()
}

fn rounded(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3600),
    }
}
