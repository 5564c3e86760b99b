//! The output of the demos: their steps, in colour on a terminal only, and how they end.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

/// The exit code of a program of the harness; an error is printed with its causes.
pub fn exit_code(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the steps of a demo.
#[derive(Debug)]
pub struct DemoOutput {
    colour: bool,
    started: Instant,
}

impl DemoOutput {
    /// Begins; times are counted from here. NO_COLOR in the environment is obeyed.
    #[expect(
        clippy::new_without_default,
        reason = "it begins something, and is no value of its own"
    )]
    pub fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            colour,
            started: Instant::now(),
        }
    }

    /// Prints the title of the next step.
    pub fn step(&self, title: &str) {
        println!("\n{}", self.paint("1", title));
    }

    /// Something to look at, indented.
    pub fn quote(&self, text: &str) {
        for line in text.lines() {
            println!("    {}", self.paint("2", line));
        }
    }

    /// Prints what was reached, and how many seconds after the beginning.
    pub fn done(&self, text: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        println!("  {} {text} ({seconds:.1} s)", self.paint("32", "✓"));
    }

    /// Leaves a cluster with a node running and says how to look at it. Ctrl-C ends this process, and the cluster's guard the cluster.
    pub fn keep_cluster(&self, name: &str) -> ! {
        self.step("Everything keeps running until Ctrl-C");
        println!("  cargo xtask cluster shell --name {name} -- kubectl get tokenscopepolicies,pods --all-namespaces");
        loop {
            std::thread::park();
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}
