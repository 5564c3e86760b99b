//! The operator's process.

use std::process::ExitCode;
use tokenscope_operator::Args;

fn main() -> ExitCode {
    tokenscope_platform::run(|args: &Args| &args.common, tokenscope_operator::run)
}
