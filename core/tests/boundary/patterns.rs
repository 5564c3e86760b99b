//! Patterns of roles inside other patterns.

use proptest::prelude::*;
use tokenscope_core::*;

use super::{ROLES, role};

/// Every text of up to five of these characters.
fn texts() -> Vec<String> {
    let mut all = vec![String::new()];
    let mut last = all.clone();
    for _ in 0..5 {
        last = last
            .iter()
            .flat_map(|text| ["a", "b", "/"].map(|c| format!("{text}{c}")))
            .collect();
        all.extend(last.iter().cloned());
    }
    all
}

proptest! {
    #[test]
    fn a_pattern_that_is_inside_another_allows_nothing_that_the_other_does_not(
        wide in "([ab*]{1,4}/)?[ab*]{1,4}",
        narrow in "([ab*]{1,4}/)?[ab*]{1,4}",
    ) {
        let (wide, narrow) = (role(&wide), role(&narrow));
        if wide.contains(&narrow) {
            for text in texts() {
                if let Ok(role) = format!("{ROLES}{text}").parse::<RoleArn>() {
                    prop_assert!(!narrow.matches(&role) || wide.matches(&role), "{} {} {}", wide, narrow, role);
                }
            }
        }
    }

    #[test]
    fn a_pattern_is_inside_itself_and_inside_what_has_a_star_for_any_part_of_it(
        pattern in "[ab*/]{1,8}[ab]", from in 0usize..9, to in 0usize..9,
    ) {
        let (from, to) = (from.min(to).min(pattern.len() - 1), from.max(to).min(pattern.len() - 1));
        let wider = format!("{}*{}", &pattern[..from], &pattern[to..]);
        if let (Ok(pattern), Ok(wider)) = (
            format!("{ROLES}{pattern}").parse::<RolePattern>(),
            format!("{ROLES}{wider}").parse::<RolePattern>(),
        ) {
            prop_assert!(pattern.contains(&pattern) && wider.contains(&pattern), "{} {}", wider, pattern);
        }
    }
}

#[test]
fn a_pattern_of_another_account_is_outside() {
    let other: RolePattern = "arn:aws:iam::999922223333:role/shop/x".parse().unwrap();
    assert!(!role("*").contains(&other));
    assert!(role("*").contains(&role("shop/*")) && !role("shop/*").contains(&role("shop*")));
}
