//! The mutating admission webhook of tokenscope.

use std::process::ExitCode;

use tokenscope_webhook::args::WebhookArguments;
use tokenscope_webhook::check;
use tokenscope_webhook::run::run;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|first| first == check::NAME) {
        return check::run(std::env::args_os().skip(2));
    }
    tokenscope_platform::run(|arguments: &WebhookArguments| &arguments.common, run)
}
