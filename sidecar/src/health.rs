//! The state of each file: valid now, or the reason why not.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::directory::{Directory, Readers};
use crate::fetch_error::FetchError;
use crate::retry::Kind;

/// The file in the directory that holds, while there is trouble, why: the probe is another process and reads it there.
pub const REASON_FILE: &str = ".reason";

/// The state of all files.
#[derive(Debug)]
pub struct Health {
    directory: Directory,
    files: Mutex<BTreeMap<String, FileHealth>>,
    /// The tasks that wait for news of trouble, or of its end.
    changes: watch::Sender<()>,
}

/// The state of one file.
#[derive(Clone, Debug, Default)]
struct FileHealth {
    /// The end of its content's validity; a bundle of keys has none.
    expires_at: Option<Timestamp>,
    last_success: Option<Timestamp>,
    refreshes: u64,
    /// The reason why it was not renewed, and the time of the first such failure.
    trouble: Option<(FetchError, Timestamp)>,
    failures: BTreeMap<&'static str, u64>,
    /// The words of whoever grants the token, from its refusal until it grants one again: no failure to ask ends a withdrawal.
    withdrawn: Option<String>,
}

impl Health {
    /// Of these files in a directory, about which nothing is known yet; what a process before has left as its reason goes.
    pub fn new(directory: Directory, files: impl IntoIterator<Item = String>) -> Self {
        directory.remove(REASON_FILE);
        let files = files.into_iter().map(|name| (name, FileHealth::default()));
        Self {
            directory,
            files: Mutex::new(files.collect()),
            changes: watch::Sender::new(()),
        }
    }

    /// True once this process has written a file.
    pub fn was_written(&self, file: &str) -> bool {
        self.files()
            .get(file)
            .is_some_and(|health| health.last_success.is_some())
    }

    /// A file has new content, valid until a time if that ends. Returns since when there was trouble, if there was.
    pub fn renewed(&self, file: &str, expires_at: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        let mut files = self.files();
        let health = files.entry(file.to_owned()).or_default();
        health.expires_at = expires_at;
        health.last_success = Some(now);
        health.refreshes += 1;
        health.withdrawn = None;
        let before = health.trouble.take();
        if before.is_some() {
            self.tell(&files);
        }
        before.map(|(_, since)| since)
    }

    /// A file could not be renewed. Returns whether that is news: another trouble than the last one, or a refusal in other words.
    pub fn failed(&self, file: &str, trouble: &FetchError, now: Timestamp) -> bool {
        let mut files = self.files();
        let health = files.entry(file.to_owned()).or_default();
        if !matches!(trouble, FetchError::Waiting(_)) {
            *health.failures.entry(trouble.label()).or_default() += 1;
        }
        let last = health.trouble.as_ref();
        let is_new = |last: &FetchError| {
            last.label() != trouble.label() || (trouble.kind() == Kind::Rejected && last != trouble)
        };
        let news = last.is_none_or(|(last, _)| is_new(last));
        let since = last.map_or(now, |(_, since)| *since);
        health.trouble = Some((trouble.clone(), since));
        if trouble.is_withdrawal() {
            health.withdrawn = Some(trouble.to_string());
        }
        if news {
            self.tell(&files);
        }
        news
    }

    /// Nothing if every file is there and valid at `now`, else why not, a line for each file.
    pub fn ready(&self, now: Timestamp) -> Result<(), String> {
        let lines: Vec<String> = self
            .files()
            .iter()
            .filter(|(_, health)| !health.is_valid(now))
            .map(|(file, health)| format!("{file}: {}", health.why_not(now)))
            .collect();
        if lines.is_empty() {
            return Ok(());
        }
        Err(lines.join("\n"))
    }

    /// The words of whoever grants a file's token, if it was refused since it was last given.
    pub fn withdrawn(&self, file: &str) -> Option<String> {
        self.files().get(file)?.withdrawn.clone()
    }

    /// The reason why a file was not written or renewed, as far as that is known.
    pub fn reason(&self, file: &str) -> String {
        let files = self.files();
        let trouble = files.get(file).and_then(|health| health.trouble.as_ref());
        trouble.map_or_else(|| "not there yet".to_owned(), |(trouble, _)| trouble.to_string())
    }

    /// Changes each time when there is news of trouble, or it has ended.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The numbers, in Prometheus' text format.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        let files = self.files();
        let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&FileHealth) -> Option<i64>| {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n"); // a String takes everything
            for (file, health) in files.iter() {
                if let Some(value) = value(health) {
                    let _ = writeln!(text, "{name}{{file=\"{file}\"}} {value}");
                }
            }
        };
        family(
            "tokenscope_sidecar_expiry_timestamp_seconds",
            "gauge",
            "When the file's content ends, in seconds since 1970.",
            &|health| health.expires_at.map(Timestamp::as_second),
        );
        family(
            "tokenscope_sidecar_last_success_timestamp_seconds",
            "gauge",
            "When the file was last written, in seconds since 1970.",
            &|health| health.last_success.map(Timestamp::as_second),
        );
        family(
            "tokenscope_sidecar_refreshes_total",
            "counter",
            "How often the file was written.",
            &|health| i64::try_from(health.refreshes).ok(),
        );
        let name = "tokenscope_sidecar_failures_total";
        let _ = write!(
            text,
            "# HELP {name} How often renewing the file failed.\n# TYPE {name} counter\n"
        );
        for (file, health) in files.iter() {
            for (reason, count) in &health.failures {
                let _ = writeln!(text, "{name}{{file=\"{file}\",reason=\"{reason}\"}} {count}");
            }
        }
        text
    }

    /// Leaves the reason where the probe finds it.
    fn tell(&self, files: &BTreeMap<String, FileHealth>) {
        self.changes.send_replace(());
        let mut text = String::new();
        for (file, health) in files {
            if let Some((trouble, since)) = &health.trouble {
                let _ = writeln!(text, "{file} (since {since:.0}): {trouble}"); // a String takes everything
            }
        }
        if text.is_empty() {
            self.directory.remove(REASON_FILE);
        } else {
            // It only explains; what can't be written for the same reason as the token is in the log.
            let _ = self.directory.replace(REASON_FILE, text.as_bytes(), Readers::All);
        }
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, FileHealth>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileHealth {
    fn is_valid(&self, now: Timestamp) -> bool {
        self.last_success.is_some() && self.expires_at.is_none_or(|end| end > now)
    }

    fn why_not(&self, now: Timestamp) -> String {
        let state = match self.expires_at {
            Some(end) => format!("expired {} s ago", now.duration_since(end).as_secs()),
            None => "not there yet".to_owned(),
        };
        match &self.trouble {
            Some((trouble, since)) => {
                format!("{state}; for {} s now, {trouble}", now.duration_since(*since).as_secs())
            }
            None => state,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokenscope_fixtures::unique_name;

    use super::*;
    use crate::fetch_error::TokenProvider;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn health(name: &str) -> (Health, Directory) {
        let path = std::env::temp_dir().join(unique_name(&format!("health-{name}")));
        std::fs::create_dir_all(&path).unwrap();
        let directory = Directory::open(&path).unwrap();
        let health = Health::new(directory.clone(), ["token".to_owned(), "jwt_bundle.json".to_owned()]);
        (health, directory)
    }

    #[test]
    fn it_is_ready_while_every_file_is_there_and_valid() {
        let (_, directory) = health("ready");
        directory
            .replace(REASON_FILE, b"of a process that crashed", Readers::All)
            .unwrap();
        let (health, directory) = health("ready");
        assert_eq!(directory.read(REASON_FILE), None);

        assert_eq!(
            health.ready(at(0)).unwrap_err(),
            "jwt_bundle.json: not there yet\ntoken: not there yet"
        );
        health.renewed("jwt_bundle.json", None, at(0));
        health.failed("token", &FetchError::NoIdentity("no identity issued".into()), at(5));
        let why = health.ready(at(9)).unwrap_err();
        assert!(
            why.starts_with("token: not there yet; for 4 s now, the SPIFFE agent knows no identity"),
            "{why}"
        );
        assert!(directory.read(REASON_FILE).unwrap().contains("knows no identity"));

        assert_eq!(health.renewed("token", Some(at(100)), at(10)), Some(at(5)));
        assert_eq!(health.ready(at(99)), Ok(()));
        assert_eq!(directory.read(REASON_FILE), None);
        assert_eq!(health.ready(at(103)).unwrap_err(), "token: expired 3 s ago");

        health.failed("token", &FetchError::Deadline(75), at(90));
        assert_eq!(
            health.ready(at(99)),
            Ok(()),
            "a failure is no harm while the token is valid"
        );
        std::fs::remove_dir_all(directory.path()).unwrap();
    }

    #[test]
    fn only_another_kind_of_trouble_or_a_refusal_in_other_words_is_news() {
        let (health, directory) = health("news");
        let no = |message: &str| FetchError::NoIdentity(message.into());

        assert!(health.failed("token", &no("a"), at(1)));
        assert!(!health.failed("token", &no("b"), at(2)));
        assert!(health.failed("token", &FetchError::Waiting(TokenProvider::Agent), at(3)));
        assert!(health.failed("token", &no("c"), at(4)));
        let refused = |message: &str| FetchError::Rejected {
            code: "INVALID_ARGUMENT",
            message: message.into(),
        };
        assert!(health.failed("token", &refused("a"), at(5)));
        assert!(!health.failed("token", &refused("a"), at(6)));
        assert!(health.failed("token", &refused("b"), at(7)));
        let metrics = health.metrics();
        let line = r#"tokenscope_sidecar_failures_total{file="token",reason="no_identity"} 3"#;
        assert!(metrics.lines().any(|candidate| candidate == line), "{metrics}");
        assert!(!metrics.contains("waiting"), "{metrics}");
        std::fs::remove_dir_all(directory.path()).unwrap();
    }
}
