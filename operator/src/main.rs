//! The operator's process.

use std::process::ExitCode;

use tokenscope_operator::OperatorArguments;

fn main() -> ExitCode {
    tokenscope_platform::run(|args: &OperatorArguments| &args.common, tokenscope_operator::run)
}
