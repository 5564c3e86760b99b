//! Names with `*` in them.
//!
//! Matching takes fifteen lines. Crates for globs give `?`, brackets or `/` a meaning too, which would let a policy say more than it
//! seems to, and don't say whether two patterns overlap or one contains the other. The reason is these rules, and no figure.

use std::fmt;
use std::str::FromStr;

use crate::arn::{self, ArnFault, RoleArn};

/// A text in which `*` stands for any characters, also none and also `/`; every other character for itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Glob(Box<str>);

impl Glob {
    /// Takes any text; one without `*` matches itself only.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// True if the whole of `text` matches. Takes time in proportion to both lengths.
    pub fn matches(&self, text: &str) -> bool {
        glob_matches(&self.0, text)
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Takes each part between two `*` where it first occurs: a later place never leaves more room for the rest.
pub(crate) fn glob_matches(pattern: &str, text: &str) -> bool {
    let Some((prefix, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let (parts, suffix) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut text) = text.strip_prefix(prefix).and_then(|text| text.strip_suffix(suffix)) else {
        return false;
    };
    parts.split('*').all(|part| match text.find(part) {
        Some(at) => {
            text = &text[at + part.len()..];
            true
        }
        None => false,
    })
}

/// A name with `*`.
#[derive(Clone, Copy)]
pub(crate) struct Pattern<'a> {
    /// The whole.
    pub(crate) glob: &'a str,
    /// The text before the first `*`.
    pub(crate) prefix: &'a str,
    /// The text after the last `*`.
    pub(crate) suffix: &'a str,
}

impl<'a> Pattern<'a> {
    pub(crate) const ANY: Self = Self {
        glob: "*",
        prefix: "",
        suffix: "",
    };

    pub(crate) fn of(glob: &'a Glob) -> Option<Self> {
        let glob = glob.as_str();
        Some(Self {
            glob,
            prefix: glob.split_once('*')?.0,
            suffix: glob.rsplit_once('*')?.1,
        })
    }

    /// True if some text matches both: between what they begin and end with, there is room for the rest of both.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let starts_alike = self.prefix.starts_with(other.prefix) || other.prefix.starts_with(self.prefix);
        starts_alike && (self.suffix.ends_with(other.suffix) || other.suffix.ends_with(self.suffix))
    }
}

/// The roles that a policy allows: a role ARN, exact or with `*` inside the role's path and name.
///
/// Partition and account are always exact, so a pattern can't reach into another account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RolePattern {
    text: Box<str>,
    /// Bytes before the role's path and name, which are compared as they are.
    fixed: usize,
}

impl RolePattern {
    /// True if it allows `role`.
    pub fn matches(&self, role: &RoleArn) -> bool {
        let (fixed, path_and_name) = self.text.split_at(self.fixed);
        role.as_str()
            .strip_prefix(fixed)
            .is_some_and(|rest| glob_matches(path_and_name, rest))
    }

    /// True if it certainly allows every role that `other` allows. `false` where that is not shown by their stars: each `*`
    /// of `other` has to stand under one of its own, which then takes whatever that one takes.
    pub fn contains(&self, other: &Self) -> bool {
        let (fixed, path_and_name) = self.text.split_at(self.fixed);
        let (other_fixed, other) = other.text.split_at(other.fixed);
        // In a pattern's own text `*` is a character like others, which only a `*` takes.
        fixed == other_fixed && glob_matches(path_and_name, other)
    }

    /// The one role it allows, where it has no `*`.
    pub fn exact(&self) -> Option<RoleArn> {
        // IAM allows `*` in the path of a role, but in a pattern it stands for others.
        if self.text.contains('*') {
            return None;
        }
        self.text.parse().ok()
    }

    /// The partition of these roles, such as `aws` or `aws-cn`.
    pub fn partition(&self) -> &str {
        self.text.split(':').nth(1).unwrap_or_default()
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for RolePattern {
    type Err = InvalidRolePattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason| InvalidRolePattern {
            text: arn::shortened(text),
            reason,
        };
        let path_and_name = match arn::prefix(text) {
            Ok(prefix) => prefix.path_and_name,
            Err(_) if text.split("role/").next().unwrap_or_default().contains('*') => {
                return Err(fail(ArnFault::WildcardPlace));
            }
            Err(reason) => return Err(fail(reason)),
        };
        arn::check_path_and_name(path_and_name, |b| b == b'*' || arn::allowed_in_name(b)).map_err(fail)?;
        Ok(Self {
            text: text.into(),
            fixed: text.len() - path_and_name.len(),
        })
    }
}

impl fmt::Display for RolePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The reason why a text is no pattern of role ARNs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a pattern of IAM role ARNs: {reason}")]
pub struct InvalidRolePattern {
    text: Box<str>,
    reason: ArnFault,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allows(pattern: &str, role: &str) -> bool {
        let role = format!("arn:aws:iam::111122223333:role/{role}").parse().unwrap();
        format!("arn:aws:iam::111122223333:role/{pattern}")
            .parse::<RolePattern>()
            .unwrap()
            .matches(&role)
    }

    #[test]
    fn a_star_takes_any_characters_of_the_path_and_name() {
        assert!(allows("shop/*", "shop/orders"));
        assert!(allows("shop/*", "shop/eu/orders"));
        assert!(allows("*", "orders"));
        assert!(allows("*/orders-*-reader", "a/b/orders-eu-reader"));
        assert!(!allows("shop/*", "shopping/orders"));
        assert!(!allows("orders", "orders2"));
        assert!(!allows("*/orders", "orders"));
    }

    #[test]
    fn another_account_or_partition_never_matches() {
        let pattern: RolePattern = "arn:aws:iam::111122223333:role/*".parse().unwrap();

        for other in [
            "arn:aws:iam::999922223333:role/r",
            "arn:aws-cn:iam::111122223333:role/r",
        ] {
            assert!(!pattern.matches(&other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn a_star_outside_the_role_part_is_refused_and_the_error_says_where_it_may_stand() {
        for text in ["arn:aws:iam::*:role/r", "arn:*:iam::111122223333:role/r", "*"] {
            let error = text.parse::<RolePattern>().unwrap_err();
            assert!(
                error.to_string().contains("only in the role's path and name"),
                "{error}"
            );
        }
    }

    #[test]
    fn only_a_pattern_without_a_star_is_exact() {
        let exact: RolePattern = "arn:aws:iam::111122223333:role/r".parse().unwrap();

        assert_eq!(exact.exact().unwrap().as_str(), exact.as_str());
        for open in ["r*", "*/r", "shop/*/r", "shop*/r"] {
            let open: RolePattern = format!("arn:aws:iam::111122223333:role/{open}").parse().unwrap();
            assert_eq!(open.exact(), None, "{open}");
        }
    }

    /// True if some text matches both, by looking at every pair of places in them.
    fn some_text_matches_both(one: &str, other: &str) -> bool {
        let (one, other) = (one.as_bytes(), other.as_bytes());
        let mut reachable = vec![vec![false; other.len() + 1]; one.len() + 1];
        reachable[0][0] = true;
        for i in 0..=one.len() {
            for j in 0..=other.len() {
                let (a, b) = (one.get(i), other.get(j));
                let star = a == Some(&b'*') || b == Some(&b'*');
                if !reachable[i][j] {
                    continue;
                }
                if a.is_some() && star {
                    reachable[i + 1][j] = true;
                }
                if b.is_some() && star {
                    reachable[i][j + 1] = true;
                }
                if a.is_some() && a == b {
                    reachable[i + 1][j + 1] = true;
                }
            }
        }
        reachable[one.len()][other.len()]
    }

    proptest! {
        #[test]
        fn two_patterns_meet_if_some_text_matches_both(one in "[ab*]{0,6}[*][ab*]{0,6}", other in "[ab*]{0,6}[*][ab*]{0,6}") {
            let (first, second) = (Glob::new(&one), Glob::new(&other));
            let meet = Pattern::of(&first).unwrap().overlaps(Pattern::of(&second).unwrap());
            prop_assert_eq!(meet, some_text_matches_both(&one, &other));
        }

        #[test]
        fn a_text_matches_itself_with_any_part_replaced_by_a_star(text in "[a-c/]{0,12}", from in 0usize..12, to in 0usize..12) {
            let (from, to) = (from.min(text.len()), to.min(text.len()));
            let (from, to) = (from.min(to), from.max(to));
            let pattern = format!("{}*{}", &text[..from], &text[to..]);
            prop_assert!(Glob::new(&pattern).matches(&text));
        }

        #[test]
        fn it_agrees_with_the_plain_recursive_definition(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            fn plain(p: &[u8], t: &[u8]) -> bool {
                match p.split_first() {
                    None => t.is_empty(),
                    Some((b'*', rest)) => (0..=t.len()).any(|n| plain(rest, &t[n..])),
                    Some((c, rest)) => t.first() == Some(c) && plain(rest, &t[1..]),
                }
            }
            prop_assert_eq!(Glob::new(&pattern).matches(&text), plain(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
