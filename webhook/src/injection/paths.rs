//! Paths as a container resolves them.
//!
//! What a link inside an image points to is not known here, but for one that nearly every image has: `/var/run` is `/run` (Filesystem
//! Hierarchy Standard 3.0, section 5.13). A path under `/proc` leads back to the root too, and container runtimes refuse to mount there.

/// True if `path` is `folder` or something in it, however its slashes are written. A `path` with `..` in it may be read in
/// two ways, with its links followed before or after; it is in the folder if one of them is.
pub(super) fn is_within(path: &str, folder: &str, windows: bool) -> bool {
    let folder = without_link(PathParts::of(folder, false), windows);
    let path = match path.as_bytes() {
        [_, b':', ..] if windows => &path[2..],
        _ => path,
    };
    let parts = PathParts::of(path, windows);
    if !path.contains("..") {
        return begins_with(without_link(parts, windows), folder, windows);
    }
    let written = straightened(parts.clone(), false);
    let followed = straightened(parts, !windows);
    [written, followed].iter().any(|parts| {
        let parts = parts.iter().copied();
        begins_with(without_link(parts, windows), folder.clone(), windows)
    })
}

/// The parts of a path between its slashes, or on Windows backslashes, without those that say nothing. Paths are compared for each
/// mount of each pod, so this goes by bytes.
#[derive(Clone)]
pub(super) struct PathParts<'p> {
    rest: &'p str,
    windows: bool,
}

impl<'p> PathParts<'p> {
    pub(super) fn of(path: &'p str, windows: bool) -> Self {
        Self { rest: path, windows }
    }
}

impl<'p> Iterator for PathParts<'p> {
    type Item = &'p str;

    fn next(&mut self) -> Option<&'p str> {
        let is_separator = |byte| byte == b'/' || (self.windows && byte == b'\\');
        while !self.rest.is_empty() {
            let end = self.rest.bytes().position(is_separator);
            let part = &self.rest[..end.unwrap_or(self.rest.len())];
            self.rest = end.map_or("", |end| &self.rest[end + 1..]);
            if !matches!(part, "" | ".") {
                return Some(part);
            }
        }
        None
    }
}

/// The parts without each `..` and what it takes back. With `links` followed, `/var/run/..` is the root.
fn straightened<'p>(parts: impl Iterator<Item = &'p str>, links: bool) -> Vec<&'p str> {
    let mut straight = Vec::new();
    for part in parts {
        match part {
            ".." => drop(straight.pop()),
            part => straight.push(part),
        }
        if links && straight == ["var", "run"] {
            straight = vec!["run"];
        }
    }
    straight
}

/// `/run` for `/var/run`.
fn without_link<'p>(
    mut parts: impl Iterator<Item = &'p str> + Clone,
    windows: bool,
) -> impl Iterator<Item = &'p str> + Clone {
    let mut ahead = parts.clone();
    if !windows && ahead.next() == Some("var") && ahead.next() == Some("run") {
        parts.next();
    }
    parts
}

fn begins_with<'p>(
    mut parts: impl Iterator<Item = &'p str>,
    mut folder: impl Iterator<Item = &'p str>,
    windows: bool,
) -> bool {
    folder.all(|expected| {
        parts.next().is_some_and(|part| {
            // Windows drops dots and spaces at the end of a name, and knows no case.
            part == expected || (windows && part.trim_end_matches(['.', ' ']).eq_ignore_ascii_case(expected))
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FOLDER: &str = "/var/run/secrets/tokenscope.io/aws";

    #[test]
    fn a_path_is_in_the_folder_however_it_is_written() {
        for path in [
            FOLDER,
            "/var/run/secrets/tokenscope.io/aws/token",
            "//var//run/secrets/./tokenscope.io/aws/",
            "var/run/secrets/tokenscope.io/aws",
            "/run/secrets/tokenscope.io/aws",
            "/run/./secrets/tokenscope.io/aws/token",
            "/var/run/secrets/tokenscope.io/b/../aws",
            "/../../var/run/secrets/tokenscope.io/aws",
            "/var/log/../run/secrets/tokenscope.io/aws",
            "/var/run/../run/secrets/tokenscope.io/aws",
            "/var/run/../var/run/secrets/tokenscope.io/aws",
            "/run/../var/run/secrets/tokenscope.io/aws",
        ] {
            assert!(is_within(path, FOLDER, false), "{path}");
        }
        for path in [
            "",
            "/",
            "/var/run/secrets",
            "/var/run/secrets/tokenscope.io/aws-2",
            "/var/run/secrets/tokenscope.io/aws/../other",
            "/srv/run/secrets/tokenscope.io/aws",
            "/var/secrets/tokenscope.io/aws",
            "/VAR/RUN/secrets/tokenscope.io/aws",
        ] {
            assert!(!is_within(path, FOLDER, false), "{path}");
        }
    }

    #[test]
    fn windows_knows_backslashes_drives_and_no_case() {
        for path in [
            r"C:\var\run\secrets\tokenscope.io\aws\token",
            r"c:/VAR\Run/secrets\TOKENSCOPE.io\aws",
            r"\var\run\secrets\tokenscope.io\aws. \token",
        ] {
            assert!(is_within(path, FOLDER, true), "{path}");
            assert!(!is_within(path, FOLDER, false), "{path}");
        }
        assert!(!is_within(r"C:\run\secrets\tokenscope.io\aws", FOLDER, true));
    }

    proptest! {
        #[test]
        fn a_path_behind_the_folder_is_within_and_no_text_makes_it_panic(
            tail in "[a-z./]{0,12}", text in ".*", windows: bool,
        ) {
            let path = format!("{FOLDER}/{tail}");
            prop_assert_eq!(is_within(&path, FOLDER, windows), !leaves(&tail));
            is_within(&text, FOLDER, windows);
        }
    }

    /// True if a relative path ends above where it begins.
    fn leaves(tail: &str) -> bool {
        let parts = std::path::Path::new(FOLDER).join(tail.trim_start_matches('/'));
        let mut straight = std::path::PathBuf::from("/");
        for part in parts.components().skip(1) {
            match part {
                std::path::Component::ParentDir => drop(straight.pop()),
                part => straight.push(part),
            }
        }
        !straight.starts_with(FOLDER)
    }
}
