//! The file that the probe reads for a container: it is beside the container's authorization token.
//!
//! A file and not a path of the port, because a neighbour can't forge it: the folder is mounted in the sidecar and, for reading alone, in the
//! one container, while the port may be taken by whoever is in the pod before the sidecar starts. It has no secret. A process
//! touches it only while it has the port, and removes what one before has left as soon as it has it.

use std::path::Path;

use jiff::Timestamp;
use tokenscope_core::outbound::OutboundName;

use super::kept::RenewalError;

/// The file's name.
pub(super) const STATE_FILE: &str = ".state";

/// The name of the file about one of the container's tokens for third parties.
pub(super) fn of_token(name: &OutboundName) -> String {
    [STATE_FILE, "-", name.as_str()].concat()
}

/// The longest file that is read, in bytes: a message of STS has 1,000 characters at most.
const LONGEST: u64 = 16 << 10;

/// The file's text: the end of the credentials or of the token, and in the next line why it could not be renewed.
pub(super) fn text(end: Option<Timestamp>, trouble: Option<&RenewalError>) -> String {
    let end = end.map_or_else(|| "-".to_owned(), |end| format!("{end:.0}"));
    let trouble = trouble.map_or("", |trouble| &trouble.message);
    // One line, whoever's words it has.
    let trouble: String = trouble.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{end}\n{trouble}\n")
}

/// What a file is about.
#[derive(Clone, Copy)]
pub(super) enum About<'a> {
    /// The credentials of a container.
    Credentials,
    /// One of its tokens for third parties.
    Token(&'a OutboundName),
}

/// Nothing if the container `name` has it, valid at `now`, else why not, in one line.
pub(super) fn ready(name: &str, about: About<'_>, folder: &Path, now: Timestamp) -> Result<(), String> {
    let file = match about {
        About::Credentials => STATE_FILE.to_owned(),
        About::Token(token) => of_token(token),
    };
    judge(name, about, read(&folder.join(file)).as_deref(), now)
}

fn read(file: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(file).ok()?;
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

fn judge(name: &str, about: About<'_>, text: Option<&str>, now: Timestamp) -> Result<(), String> {
    let mut lines = text.unwrap_or("-\n").lines();
    let end: Option<Timestamp> = lines.next().and_then(|end| end.parse().ok());
    let ago = end.map(|end| now.duration_since(end).as_secs());
    let state = match (end, ago, about) {
        (Some(end), ..) if end > now => return Ok(()),
        (_, Some(ago), About::Credentials) => format!("the credentials of container {name} expired {ago} s ago"),
        (_, Some(ago), About::Token(token)) => format!("the token {token} of container {name} expired {ago} s ago"),
        (_, None, About::Credentials) => format!("container {name} has no credentials"),
        (_, None, About::Token(token)) => format!("container {name} has no token {token}"),
    };
    let trouble = lines.next().filter(|trouble| !trouble.is_empty());
    Err(format!(
        "{state}: {}",
        trouble.unwrap_or("AWS STS has not answered yet")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::kept::tests::{at, credentials, trouble};
    use crate::endpoint::kept::{FailureKind, Kept};

    fn said(kept: &Kept, second: i64) -> Result<(), String> {
        let text = text(kept.expires_at(), kept.trouble());
        judge("app", About::Credentials, Some(&text), at(second))
    }

    #[test]
    fn the_probe_is_told_of_the_container_and_of_the_reason_and_of_nothing_while_credentials_are_valid() {
        assert_eq!(
            judge("app", About::Credentials, None, at(0)),
            Err("container app has no credentials: AWS STS has not answered yet".to_owned())
        );
        let mut kept = Kept::default();
        kept.failed(trouble(FailureKind::Refused, "AccessDenied: not\nauthorized"));
        let refused = "container app has no credentials: AccessDenied: not authorized";
        assert_eq!(said(&kept, 0), Err(refused.to_owned()));
        kept.renewed(credentials(100));
        assert_eq!(said(&kept, 99), Ok(()));
        assert_eq!(
            said(&kept, 142),
            Err("the credentials of container app expired 42 s ago: AWS STS has not answered yet".to_owned())
        );
        kept.failed(trouble(FailureKind::Outage, "nobody answers"));
        assert_eq!(said(&kept, 99), Ok(()), "an outage is no harm while they are valid");
        assert_eq!(
            said(&kept, 100),
            Err("the credentials of container app expired 0 s ago: nobody answers".to_owned())
        );
        assert!(!text(kept.expires_at(), kept.trouble()).contains("hidden"));
    }

    #[test]
    fn the_probe_is_told_of_a_token_for_a_third_party_by_its_name() {
        let name = "claude".parse().unwrap();
        let said = |text: Option<&str>, second| judge("app", About::Token(&name), text, at(second));
        let missing = "container app has no token claude: AWS STS has not answered yet";
        assert_eq!(said(None, 0), Err(missing.to_owned()));
        let trouble = trouble(FailureKind::Refused, "not enabled");
        let old = text(Some(at(100)), Some(&trouble));
        assert_eq!(said(Some(&old), 99), Ok(()));
        let expired = "the token claude of container app expired 1 s ago: not enabled";
        assert_eq!(said(Some(&old), 101), Err(expired.to_owned()));
        assert_eq!(of_token(&name), ".state-claude");
    }
}
