//! The output of the demos: their steps, in colour on a terminal only.

use std::io::IsTerminal;
use std::time::Instant;

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

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}
