//! The space that session policies and session tags take in a session token.
//!
//! IAM User Guide, "IAM and AWS STS quotas", "Pass session tags in AWS STS": both are packed into a binary form with a limit
//! of its own, `PackedPolicySize` says in percent how much of it is used, and more is `PackedPolicyTooLarge`. How they are
//! packed is not documented, nor the limit: the percentage here is an estimate, the plain text in characters over the 2,048
//! that session policies have. Since November 2026 the service model speaks of the size of the session token, and says that the
//! error's message has both sizes in bytes; its words are ours. Not yet seen by AWS.

use std::collections::BTreeMap;

use crate::aws_error::AwsError;
use crate::session::{MAX_TOKEN, token_size};

const SPACE: usize = 2048;

/// Percent of the space, `None` when there is nothing in it. `policies` is what session policies take alone.
pub(crate) fn packed_policy_size(
    policies: Option<usize>,
    tags: &BTreeMap<String, String>,
) -> Result<Option<usize>, AwsError> {
    let size: usize = tags
        .iter()
        .map(|(key, value)| key.chars().count() + value.chars().count())
        .sum();
    let percent = policies.unwrap_or(0) + (size * 100).div_ceil(SPACE);
    if percent > 100 {
        let message = format!(
            "Session token size of {} bytes with its session policies and session tags exceeds the maximum allowed size of {} \
             bytes ({percent}% of the space for them).",
            token_size(percent),
            MAX_TOKEN
        );
        return Err(AwsError::new(400, "PackedPolicyTooLarge", message));
    }
    Ok((percent > 0).then_some(percent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_count_beside_policies_and_too_many_are_refused() {
        let tags = |count: usize| (0..count).map(|n| (format!("{n:04}"), "v".repeat(60))).collect();
        assert_eq!(packed_policy_size(None, &tags(0)), Ok(None));
        assert_eq!(packed_policy_size(Some(7), &tags(0)), Ok(Some(7)));
        assert_eq!(packed_policy_size(None, &tags(32)), Ok(Some(100)));
        assert_eq!(packed_policy_size(Some(50), &tags(16)), Ok(Some(100)));
        for error in [
            packed_policy_size(None, &tags(33)).unwrap_err(),
            packed_policy_size(Some(51), &tags(16)).unwrap_err(),
        ] {
            assert_eq!((error.status, error.code), (400, "PackedPolicyTooLarge"));
        }
    }
}
