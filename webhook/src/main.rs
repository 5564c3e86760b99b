//! The mutating admission webhook of tokenscope.

use std::process::ExitCode;

use clap::Parser as _;
use tokenscope_webhook::args::{WebhookArguments, WebhookCommand};
use tokenscope_webhook::check;
use tokenscope_webhook::run::run;

fn main() -> ExitCode {
    // What can't be parsed is said by the process below, which parses again.
    if let Ok(WebhookArguments {
        command: Some(WebhookCommand::Check(arguments)),
        ..
    }) = WebhookArguments::try_parse()
    {
        return check::run(&arguments);
    }
    tokenscope_platform::run(|arguments: &WebhookArguments| &arguments.common, run)
}
