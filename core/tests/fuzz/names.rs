//! ARNs of roles, patterns of them, and globs, beside a plain regular expression and a plain table.

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use regex::Regex;
use tokenscope_core::{Glob, RoleArn, RolePattern};

use crate::{all, any_text, corpus, fuzz, in_time};

const PIECES: &[&str] = &[
    "arn",
    ":",
    "::",
    "aws",
    "aws-",
    "-",
    "aws-cn",
    "aws-us-gov",
    "iam",
    "111122223333",
    "1",
    "role/",
    "role",
    "user/",
    "shop",
    "/",
    "//",
    "orders",
    "*",
    "**",
    "?",
    "[a]",
    ".",
    "+",
    "=",
    ",",
    "@",
    "_",
    "~",
    "!",
    "\u{7f}",
    " ",
    "ä",
    "😀",
    "a",
    "aa",
    "ab",
    "arn:aws:iam::111122223333:role/",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

/// Texts of ARNs, of which half have a good beginning.
fn any_name() -> impl Strategy<Value = String> {
    let prefix = prop::sample::select(&["", "arn:aws:iam::111122223333:role/"][..]);
    (prefix, any_text(corpus("names"), PIECES)).prop_map(|(prefix, text)| format!("{prefix}{text}"))
}

/// Whether a glob takes a text, by a table of all their beginnings.
fn plainly_matches(glob: &str, text: &str) -> bool {
    let text = text.as_bytes();
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for wanted in glob.bytes() {
        let mut next = vec![false; text.len() + 1];
        for at in 0..=text.len() {
            next[at] = match wanted {
                b'*' => reached[at] || (at > 0 && next[at - 1]),
                _ => at > 0 && reached[at - 1] && text[at - 1] == wanted,
            };
        }
        reached = next;
    }
    reached[text.len()]
}

/// The two regular expressions say what the documentation of the types says.
struct Plain {
    arn: Regex,
    pattern: Regex,
}

impl Plain {
    fn new() -> Self {
        let whole = |name: &str| {
            let text = format!(
                r"\Aarn:aws(-[a-z0-9-]{{0,30}}[a-z0-9])?:iam::[0-9]{{12}}:role/([\x21-\x7e]{{0,510}}/)?[{name}]{{1,64}}\z"
            );
            Regex::new(&text).unwrap()
        };
        Self {
            arn: whole(r"A-Za-z0-9_+=,.@\-"),
            pattern: whole(r"A-Za-z0-9_+=,.@\-*"),
        }
    }

    fn check(&self, one: &str, other: &str) -> TestCaseResult {
        let (role, pattern) = (one.parse::<RoleArn>(), other.parse::<RolePattern>());
        prop_assert_eq!(role.is_ok(), self.arn.is_match(one), "{}", one);
        prop_assert_eq!(pattern.is_ok(), self.pattern.is_match(other), "{}", other);
        for error in [
            role.as_ref().err().map(ToString::to_string),
            pattern.as_ref().err().map(ToString::to_string),
        ] {
            prop_assert!(error.is_none_or(|error| error.len() < 1024));
        }
        if let Ok(role) = &role {
            prop_assert_eq!(role.as_str(), one);
            let parts = format!(
                "arn:{}:iam::{}:role/{}",
                role.partition(),
                role.account(),
                role.path_and_name()
            );
            prop_assert_eq!(parts, one);
        }
        let Ok(pattern) = pattern else { return Ok(()) };
        prop_assert_eq!(pattern.as_str(), other);
        if let Some(exact) = pattern.exact() {
            prop_assert_eq!(exact.as_str(), other);
        }
        if let Ok(role) = role {
            prop_assert_eq!(pattern.matches(&role), plainly_matches(other, one), "{} {}", other, one);
        }
        // What it contains, it takes, however the stars are filled.
        if let Ok(inner) = one.parse::<RolePattern>()
            && pattern.contains(&inner)
        {
            for filling in ["", "a", "a/b", "orders"] {
                let filled = one.replace('*', filling);
                prop_assert!(
                    plainly_matches(other, &filled),
                    "{other} does not take {filled} of {one}"
                );
            }
        }
        Ok(())
    }
}

#[test]
fn arns_and_patterns_are_those_that_a_regular_expression_takes() {
    let plain = Plain::new();
    let texts = corpus("names");
    all(&texts, |one| texts.iter().try_for_each(|other| plain.check(one, other)));
    fuzz(&(any_name(), any_name(), any::<bool>()), |(one, other, related)| {
        // Two that have nothing in common say little.
        let other = if related {
            one.replacen("shop", "*", 1).replacen("ord", "*", 1)
        } else {
            other
        };
        plain.check(&one, &other)
    });
}

#[test]
fn globs_take_what_a_plain_table_takes_and_in_time() {
    let short = || prop_oneof!["[ab*]{0,12}", any_text(corpus("names"), PIECES)];
    fuzz(&(short(), short(), 1..200_usize), |(glob, text, times)| {
        let text = text.replace('*', "b");
        prop_assert_eq!(Glob::new(&glob).matches(&text), plainly_matches(&glob, &text));
        let (long, many) = (text.repeat(times), Glob::new(&glob.repeat(times)));
        in_time(|| _ = many.matches(&long))?;
        if long.len() * glob.len() * times < 200_000 {
            prop_assert_eq!(many.matches(&long), plainly_matches(many.as_str(), &long));
        }
        Ok(())
    });
}
