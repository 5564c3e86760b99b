//! The sidecar of tokenscope: keeps tokens fresh in files.

use std::process::ExitCode;

use tokenscope_sidecar::config::{Invocation, invocation};
use tokenscope_sidecar::{ready, run, write};

fn main() -> ExitCode {
    match invocation(std::env::args_os().skip(1), |name| std::env::var(name).ok()) {
        Ok(Invocation::Run(config)) => run::process(config),
        Ok(Invocation::Ready(config)) => ready::process(&config),
        Ok(Invocation::Write(files)) => write::process(&files),
        Ok(Invocation::Print(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
