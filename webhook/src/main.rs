//! The mutating admission webhook of tokenscope.

use std::process::ExitCode;

use tokenscope_webhook::args::Arguments;
use tokenscope_webhook::run::run;

fn main() -> ExitCode {
    tokenscope_platform::run(|arguments: &Arguments| &arguments.common, run)
}
