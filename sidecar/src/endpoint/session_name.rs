//! The names of sessions.

/// The least and the most characters of a session's name (AWS STS API reference, `RoleSessionName`).
const LENGTHS: std::ops::RangeInclusive<usize> = 2..=64;

/// The name of a session: the one that the policy gives, else the pod's.
///
/// Of one that is too long the end is kept: that is where the names of a workload's pods differ. A name of one character is doubled.
pub(super) fn session_name(given: Option<&str>, pod_name: Option<&str>) -> Result<Box<str>, String> {
    let name = given
        .or(pod_name)
        .ok_or("there is none, and no name of the pod to make one of: TOKENSCOPE_POD_NAME is not set")?;
    // [\w+=,.@-] without what is beyond ASCII.
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_allowed) {
        return Err(format!(
            "{:?} should have letters, digits and _+=,.@- alone",
            name.chars().take(*LENGTHS.end()).collect::<String>()
        ));
    }
    if name.len() < *LENGTHS.start() {
        return Ok(name.repeat(2).into());
    }
    // All characters are ASCII, as was seen above.
    Ok(name[name.len().saturating_sub(*LENGTHS.end())..].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_bears_the_given_name_or_the_pods_cut_to_what_sts_takes() {
        let of = |given, pod| session_name(given, pod).map(String::from);
        assert_eq!(of(Some("nightly"), Some("orders-1")), Ok("nightly".to_owned()));
        assert_eq!(of(None, Some("orders-1")), Ok("orders-1".to_owned()));
        assert_eq!(of(None, Some("a")), Ok("aa".to_owned()));
        let long = format!("{}-7d9f-x2x9p", "o".repeat(80));
        let cut = of(None, Some(&long)).unwrap();
        assert_eq!(cut.len(), 64);
        assert!(cut.ends_with("o-7d9f-x2x9p"), "{cut}");
        for wrong in [Some(""), Some("a b"), Some("ä-1"), Some("a/b"), None] {
            assert!(of(wrong, None).is_err(), "{wrong:?}");
        }
    }
}
