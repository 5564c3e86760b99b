//! The progress of a step that takes long: the seconds tick on a terminal, and elsewhere (a CI log) a line comes every
//! quarter of a minute. Everything goes to standard error, and past the test runner's capturing.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A running step. Ends with [`Step::done`] or [`Step::failed`]; dropped without either (an early return), it is failed.
#[derive(Debug)]
pub struct Step {
    what: String,
    started: Instant,
    events: Option<Sender<String>>,
    ticker: Option<JoinHandle<()>>,
}

impl Step {
    /// Starts a step. `expected` is added to every line, such as `last time 95 s`.
    pub fn start(what: &str, expected: Option<&str>) -> Self {
        let (events, details) = channel::<String>();
        let started = Instant::now();
        let expected = expected.map(|text| format!(" ({text})")).unwrap_or_default();
        let line = format!("{what}{expected}");
        let ticker = std::thread::spawn(move || {
            let terminal = std::io::stderr().is_terminal();
            let every = Duration::from_secs(if terminal { 1 } else { 15 });
            let mut detail = String::new();
            let mut next = every;
            if !terminal {
                say(&format!("  {line} …"));
            }
            loop {
                match details.recv_timeout(next.saturating_sub(started.elapsed())) {
                    Ok(text) => detail = text,
                    Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => {
                        next += every;
                        let shown = format!("  {line} … {} s  {detail}", started.elapsed().as_secs());
                        if terminal {
                            draw(&shown);
                        } else {
                            say(shown.trim_end());
                        }
                    }
                }
            }
            if terminal {
                draw("");
            }
        });
        Self {
            what: what.to_owned(),
            started,
            events: Some(events),
            ticker: Some(ticker),
        }
    }

    /// The part that the step is at just now; shown with the next tick.
    pub fn detail(&self, text: &str) {
        if let Some(events) = &self.events {
            // The ticker lives as long as this sender.
            let _ = events.send(text.to_owned());
        }
    }

    /// Ends the step and says how long it took.
    pub fn done(mut self, note: &str) -> Duration {
        self.finish("✓", note)
    }

    /// Ends the step as failed.
    pub fn failed(mut self, note: &str) -> Duration {
        self.finish("✗", note)
    }

    fn finish(&mut self, mark: &str, note: &str) -> Duration {
        self.events = None;
        if let Some(ticker) = self.ticker.take() {
            let _ = ticker.join();
            let space = if note.is_empty() { "" } else { "  " };
            say(&format!(
                "{mark} {} ({:.1} s){space}{note}",
                self.what,
                self.started.elapsed().as_secs_f64()
            ));
        }
        self.started.elapsed()
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.finish("✗", "");
    }
}

/// One line on standard error. Unlike `eprintln!`, libtest doesn't capture it, and a closed standard error is no panic.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Replaces the terminal's current line, cut so that it never wraps.
fn draw(line: &str) {
    let shown: String = line.chars().take(110).collect();
    let _ = write!(std::io::stderr(), "\r\u{1b}[2K{shown}");
    let _ = std::io::stderr().flush();
}
