//! An IAM role's Amazon Resource Name, parsed once at the edge and trusted from then on.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::text::up_to;

/// An IAM role's ARN: `arn:<partition>:iam::<account>:role/<path><name>`.
///
/// Bounds of the IAM API reference (CreateRole) and of STS (AssumeRoleWithWebIdentity's RoleArn): 20 to 2048
/// characters, an account of 12 digits, a path of at most 512 printable ASCII characters between slashes, a name of 1
/// to 64 characters out of `[A-Za-z0-9_+=,.@-]`. A clone shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleArn {
    text: Arc<str>,
}

impl RoleArn {
    /// The partition, such as `aws`, `aws-cn` or `aws-us-gov`.
    pub fn partition(&self) -> &str {
        self.field(1)
    }

    /// The account: 12 digits.
    pub fn account(&self) -> &str {
        self.field(4)
    }

    /// Path and name without the leading `role/`: `shop/orders`.
    pub fn path_and_name(&self) -> &str {
        self.field(5).strip_prefix("role/").unwrap_or_default()
    }

    /// The whole ARN.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn field(&self, index: usize) -> &str {
        // Six fields were counted when the ARN was parsed.
        self.text.splitn(6, ':').nth(index).unwrap_or_default()
    }
}

impl FromStr for RoleArn {
    type Err = InvalidRoleArn;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason| InvalidRoleArn {
            text: shortened(text),
            reason,
        };
        // First, so that a text that was cut off for its length is refused for its length.
        if text.len() > 2048 {
            return Err(fail(ArnFault::Length));
        }
        let path_and_name = prefix(text).map_err(fail)?.path_and_name;
        check_path_and_name(path_and_name, allowed_in_name).map_err(fail)?;
        if text.len() < 20 {
            return Err(fail(ArnFault::Length));
        }
        Ok(Self { text: text.into() })
    }
}

impl fmt::Display for RoleArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for RoleArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl serde::Serialize for RoleArn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// The reason why a text is no role ARN. `Display` is the sentence that a user reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an IAM role ARN: {reason}")]
pub struct InvalidRoleArn {
    text: Box<str>,
    reason: ArnFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArnFault {
    #[error("it should read arn:aws:iam::<account>:role/<name>")]
    Shape,
    #[error("its partition should be aws, or aws- and lower case letters, digits and hyphens")]
    Partition,
    #[error("its account should have 12 digits")]
    Account,
    #[error("it names something other than a role")]
    NotARole,
    #[error("its name should have 1 to 64 characters out of A-Z a-z 0-9 _ + = , . @ -")]
    Name,
    #[error("its path should have at most 512 printable ASCII characters between slashes")]
    Path,
    #[error("it should have 20 to 2048 characters")]
    Length,
    #[error("* may stand only in the role's path and name, after role/")]
    WildcardPlace,
}

/// The parts in front of a role's path and name.
pub(crate) struct Prefix<'a> {
    pub(crate) path_and_name: &'a str,
}

/// Checks everything up to `role/`.
pub(crate) fn prefix(text: &str) -> Result<Prefix<'_>, ArnFault> {
    let mut fields = text.splitn(6, ':');
    let (Some("arn"), Some(partition), Some("iam"), Some(""), Some(account), Some(resource)) = (
        fields.next(),
        fields.next(),
        fields.next(),
        fields.next(),
        fields.next(),
        fields.next(),
    ) else {
        return Err(ArnFault::Shape);
    };
    let suffix = partition.strip_prefix("aws").ok_or(ArnFault::Partition)?;
    let well_formed = suffix.is_empty()
        || (suffix.len() > 1
            && suffix.len() <= 32
            && suffix.starts_with('-')
            && !suffix.ends_with('-')
            && suffix
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
    if !well_formed {
        return Err(ArnFault::Partition);
    }
    if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ArnFault::Account);
    }
    let path_and_name = resource.strip_prefix("role/").ok_or(ArnFault::NotARole)?;
    Ok(Prefix { path_and_name })
}

/// Checks a role's path and name; what a name may hold is the caller's to say.
pub(crate) fn check_path_and_name(path_and_name: &str, in_name: fn(u8) -> bool) -> Result<(), ArnFault> {
    let name = path_and_name.rsplit('/').next().unwrap_or_default();
    if name.is_empty() || name.len() > 64 || !name.bytes().all(in_name) {
        return Err(ArnFault::Name);
    }
    let path = &path_and_name[..path_and_name.len() - name.len()];
    // The slash after "role" belongs to the path as IAM counts it.
    if path.len() > 511 || !path.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
        return Err(ArnFault::Path);
    }
    Ok(())
}

pub(crate) fn allowed_in_name(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b)
}

/// The start of a text, for messages: an annotation's value may have 256 KiB.
pub(crate) fn shortened(text: &str) -> Box<str> {
    const MOST: usize = 120;
    if text.len() <= MOST {
        return text.into();
    }
    format!("{}…", up_to(text, MOST)).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_role_with_a_path_gives_its_parts() {
        let arn: RoleArn = "arn:aws-cn:iam::111122223333:role/shop/orders".parse().unwrap();

        assert_eq!(arn.partition(), "aws-cn");
        assert_eq!(arn.account(), "111122223333");
        assert_eq!(arn.path_and_name(), "shop/orders");
    }

    #[test]
    fn every_partition_is_accepted() {
        for partition in [
            "aws",
            "aws-cn",
            "aws-us-gov",
            "aws-eusc",
            "aws-iso",
            "aws-iso-b",
            "aws-iso-e",
            "aws-iso-f",
        ] {
            let text = format!("arn:{partition}:iam::111122223333:role/r");
            assert_eq!(text.parse::<RoleArn>().unwrap().partition(), partition);
        }
    }

    #[test]
    fn each_fault_is_named() {
        let name_of_65 = "n".repeat(65);
        let path_of_513 = format!("{}/", "p".repeat(511));
        for (text, reason) in [
            ("", ArnFault::Shape),
            ("orders", ArnFault::Shape),
            ("arn:aws:sts::111122223333:role/r", ArnFault::Shape),
            ("arn:aws:iam:eu-west-1:111122223333:role/r", ArnFault::Shape),
            ("arn:azure:iam::111122223333:role/r", ArnFault::Partition),
            ("arn:aws-:iam::111122223333:role/r", ArnFault::Partition),
            ("arn:aws-CN:iam::111122223333:role/r", ArnFault::Partition),
            ("arn:awsx:iam::111122223333:role/r", ArnFault::Partition),
            ("arn:aws:iam::11112222333:role/r", ArnFault::Account),
            ("arn:aws:iam::11112222333x:role/r", ArnFault::Account),
            ("arn:aws:iam::111122223333:user/ann", ArnFault::NotARole),
            ("arn:aws:iam::111122223333:root", ArnFault::NotARole),
            ("arn:aws:iam::111122223333:role/", ArnFault::Name),
            ("arn:aws:iam::111122223333:role/shop/", ArnFault::Name),
            ("arn:aws:iam::111122223333:role/a b", ArnFault::Name),
            ("arn:aws:iam::111122223333:role/a*", ArnFault::Name),
            ("arn:aws:iam::111122223333:role/näme", ArnFault::Name),
            (&format!("arn:aws:iam::111122223333:role/{name_of_65}"), ArnFault::Name),
            ("arn:aws:iam::111122223333:role/a b/r", ArnFault::Path),
            (
                &format!("arn:aws:iam::111122223333:role/{path_of_513}r"),
                ArnFault::Path,
            ),
        ] {
            assert_eq!(text.parse::<RoleArn>().unwrap_err().reason, reason, "{text}");
        }
    }

    #[test]
    fn the_longest_path_and_name_are_accepted() {
        let text = format!("arn:aws:iam::111122223333:role/{}/{}", "p".repeat(510), "n".repeat(64));

        assert!(text.parse::<RoleArn>().is_ok());
    }

    #[test]
    fn the_error_shows_the_start_of_a_very_long_text_only() {
        let error = "ä".repeat(100_000).parse::<RoleArn>().unwrap_err();

        assert!(error.to_string().len() < 300);
    }

    proptest! {
        #[test]
        fn whatever_parses_prints_back_the_same(
            text in "arn:aws(-cn|-us-gov|-iso-b)?:iam::[0-9]{12}:role/([!-.0-~]{1,20}/){0,4}[A-Za-z0-9_+=,.@-]{1,64}"
        ) {
            let arn = text.parse::<RoleArn>().unwrap();
            prop_assert_eq!(arn.as_str(), text.as_str());
            let rebuilt = format!("arn:{}:iam::{}:role/{}", arn.partition(), arn.account(), arn.path_and_name());
            prop_assert_eq!(rebuilt, text);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = text.parse::<RoleArn>();
        }
    }
}
