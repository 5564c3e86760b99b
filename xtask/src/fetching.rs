//! Programs that fetch something from a registry: one that hangs is ended, and one that fails is run again.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::progress::say;
use crate::run_quietly;

/// The number of runs of a program that fetches before its failure counts: a registry or the way to it may fail once.
const ATTEMPTS: u32 = 3;

/// The time before the next attempt.
const PAUSE: Duration = Duration::from_secs(10);

/// The longest time of an attempt, in seconds.
const FETCH_DEADLINE: u32 = 15 * 60;

/// The same where what is fetched is compiled in the same step, which takes up to eight minutes on two cores that do nothing else.
pub(crate) const BUILD_DEADLINE: u32 = 30 * 60;

/// Runs a program that fetches, as [`run_quietly`] does, up to three times. It must do no harm when it runs again after it failed.
pub fn fetch_quietly(command: &Command) -> Result<String> {
    again(PAUSE, || run_quietly(&mut limited(command, FETCH_DEADLINE)))
}

/// Tries what fetches up to three times. The last error counts.
pub fn fetch<T>(attempt: impl FnMut() -> Result<T>) -> Result<T> {
    again(PAUSE, attempt)
}

/// True if the program of a command is there, by its path or on PATH. One that is missing fails in each attempt, so ask first.
pub(crate) fn is_there(command: &Command) -> bool {
    let program = Path::new(command.get_program());
    let folders = std::env::var_os("PATH").unwrap_or_default();
    (program.is_absolute() && program.is_file())
        || std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

/// The same command, which is ended after so many seconds: not every program gives up on a server that says nothing.
pub(crate) fn limited(command: &Command, seconds: u32) -> Command {
    let mut limited = Command::new("timeout");
    // In the foreground, so that Ctrl-C ends it with us.
    limited
        .args(["--foreground", "--kill-after=30", &seconds.to_string()])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        limited.current_dir(folder);
    }
    limited
}

fn again<T>(pause: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for number in 1..ATTEMPTS {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => say(&format!("  attempt {number} of {ATTEMPTS} failed: {error:#}")),
        }
        std::thread::sleep(pause);
    }
    attempt()
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[test]
    fn what_fails_twice_and_then_succeeds_is_a_success_and_three_failures_are_one() {
        let mut made = 0;
        let number = again(Duration::ZERO, || {
            made += 1;
            ensure!(made > 2, "not yet");
            Ok(made)
        });
        assert_eq!(number.unwrap(), 3);
        let mut made = 0;
        let error = again(Duration::ZERO, || -> Result<()> {
            made += 1;
            ensure!(made > 3, "attempt {made}");
            Ok(())
        });
        assert_eq!(error.unwrap_err().to_string(), "attempt 3");
    }

    #[test]
    fn a_limited_command_is_the_first_one_with_an_end() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo \"$WORD ${HOME-none} $PWD\""])
            .env("WORD", "word")
            .env_remove("HOME")
            .current_dir("/");
        let said = run_quietly(&mut limited(&command, 60)).unwrap();
        assert_eq!(said, "word none /\n");
        let hanging = run_quietly(&mut limited(Command::new("sleep").arg("600"), 1));
        assert!(hanging.unwrap_err().to_string().contains("124"), "timeout says so");
    }
}
