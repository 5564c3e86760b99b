//! The OIDC issuer of tokenscope.

use std::process::ExitCode;

use clap::Parser as _;
use tokenscope_issuer::args::{IssuerAction, IssuerCommand};
use tokenscope_issuer::{commands, run};

fn main() -> ExitCode {
    let done = match IssuerCommand::parse().action {
        IssuerAction::Serve(_) => return tokenscope_platform::run(IssuerCommand::common, serve),
        IssuerAction::Publish(arguments) => once(commands::publish(*arguments)),
        IssuerAction::Rotate(arguments) => once(commands::rotate(*arguments)),
        IssuerAction::RevokeKey(arguments) => once(commands::revoke(*arguments)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(command: IssuerCommand, process: tokenscope_platform::Process) -> Result<(), run::RunError> {
    match command.action {
        IssuerAction::Serve(arguments) => run::run(*arguments, process).await,
        // `main` has done these.
        IssuerAction::Publish(_) | IssuerAction::Rotate(_) | IssuerAction::RevokeKey(_) => Ok(()),
    }
}

fn once(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(command)
}
