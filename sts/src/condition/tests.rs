//! Conditions, by operator.

use serde_json::json;

use super::*;

const TIME: i64 = 1_800_000_000;

fn facts() -> Facts {
    let mut facts = Facts::of_families(&["aws:requesttag/"]);
    facts.set("aws:RequestTag/Team", Fact::One("blue".into()));
    facts.set("aws:RequestTag/Path", Fact::One("a/*".into()));
    facts.set("aws:TagKeys", Fact::Many(vec!["Team".into(), "Path".into()]));
    facts.set("sts:TransitiveTagKeys", Fact::many(&[]));
    facts.set("aws:TokenIssueTime", Fact::Time(Timestamp::from_second(TIME).unwrap()));
    facts
}

fn holds(condition: &Value) -> Option<bool> {
    all_hold(&conditions(Some(condition), true, "Condition").unwrap(), &facts())
}

#[test]
fn for_all_values_and_for_any_value_count_every_value_of_the_request() {
    for (condition, expected) in [
        (
            json!({"ForAllValues:StringEquals": {"aws:TagKeys": ["Team", "Path", "x"]}}),
            true,
        ),
        (json!({"ForAllValues:StringEquals": {"aws:TagKeys": ["Team"]}}), false),
        (
            json!({"ForAllValues:StringLike": {"aws:TagKeys": ["T*", "Pat?"]}}),
            true,
        ),
        (json!({"ForAllValues:StringNotEquals": {"aws:TagKeys": ["x"]}}), true),
        (
            json!({"ForAllValues:StringNotEquals": {"aws:TagKeys": ["Team"]}}),
            false,
        ),
        (json!({"ForAnyValue:StringEquals": {"aws:TagKeys": ["Team"]}}), true),
        (json!({"ForAnyValue:StringEquals": {"aws:TagKeys": ["team"]}}), false),
        (
            json!({"ForAnyValue:StringEqualsIgnoreCase": {"aws:TagKeys": ["team"]}}),
            true,
        ),
        (json!({"ForAnyValue:StringNotEquals": {"aws:TagKeys": ["Team"]}}), true),
        // Without a value: ForAllValues holds, which is why IAM's guide wants a Null beside it.
        (
            json!({"ForAllValues:StringEquals": {"sts:TransitiveTagKeys": ["x"]}}),
            true,
        ),
        (
            json!({"ForAllValues:StringEquals": {"sts:TransitiveTagKeys": ["x"]}, "Null": {"sts:TransitiveTagKeys": "false"}}),
            false,
        ),
        (
            json!({"ForAnyValue:StringEquals": {"sts:TransitiveTagKeys": ["x"]}}),
            false,
        ),
        (
            json!({"ForAnyValue:StringEqualsIfExists": {"sts:TransitiveTagKeys": ["x"]}}),
            true,
        ),
        (json!({"Null": {"aws:TagKeys": "false"}}), true),
        (json!({"Null": {"aws:TagKeys": "true"}}), false),
        (json!({"Null": {"sts:TransitiveTagKeys": "true"}}), true),
        (json!({"Null": {"sts:TransitiveTagKeys": "false"}}), false),
    ] {
        assert_eq!(holds(&condition), Some(expected), "{condition}");
    }
    assert_eq!(holds(&json!({"StringEquals": {"aws:TagKeys": ["Team", "Path"]}})), None);
}

#[test]
fn an_absent_tag_fails_every_positive_operator_and_passes_the_negative_and_if_exists_ones() {
    for (operator, expected) in [
        ("StringEquals", false),
        ("StringLike", false),
        ("StringEqualsIgnoreCase", false),
        ("StringNotEquals", true),
        ("StringNotLike", true),
        ("StringEqualsIfExists", true),
        ("StringLikeIfExists", true),
        ("StringNotEqualsIfExists", true),
    ] {
        assert_eq!(
            holds(&json!({ (operator): {"aws:RequestTag/none": "*"} })),
            Some(expected),
            "{operator}"
        );
    }
    assert_eq!(
        holds(&json!({"StringLike": {"aws:RequestTag/none/": "*"}})),
        Some(false)
    );
    assert_eq!(holds(&json!({"StringNotEquals": {"aws:PrincipalTag/none": "x"}})), None);
}

#[test]
fn a_pattern_matches_the_whole_tag_and_never_takes_the_tags_own_characters_as_wildcards() {
    for (condition, expected) in [
        (json!({"StringLike": {"aws:RequestTag/Team": "bl*"}}), true),
        (json!({"StringLike": {"aws:RequestTag/Team": "lu"}}), false),
        (json!({"StringLike": {"aws:RequestTag/Team": "blu"}}), false),
        (json!({"StringEquals": {"aws:RequestTag/Team": "bl*"}}), false),
        (json!({"StringLike": {"aws:RequestTag/Path": "a/b"}}), false),
        (
            json!({"StringEquals": {"aws:RequestTag/Path": "${aws:RequestTag/path}"}}),
            true,
        ),
        (
            json!({"StringLike": {"aws:RequestTag/Team": "${aws:RequestTag/Path}"}}),
            false,
        ),
        (
            json!({"StringLike": {"aws:RequestTag/Team": ["${aws:RequestTag/none}", "blue"]}}),
            true,
        ),
    ] {
        assert_eq!(holds(&condition), Some(expected), "{condition}");
    }
    for undecided in [
        json!({"StringLike": {"aws:RequestTag/Team": "${aws:RequestTag/none}"}}),
        json!({"StringNotLike": {"aws:RequestTag/Team": "${aws:RequestTag/none}"}}),
        json!({"StringEquals": {"aws:RequestTag/Team": "${aws:TagKeys}"}}),
    ] {
        assert_eq!(holds(&undecided), None, "{undecided}");
    }
}

#[test]
fn a_variable_in_a_policy_of_the_old_version_decides_nothing() {
    let block = json!({"StringEquals": {"aws:RequestTag/Team": "${aws:RequestTag/Team}"}});
    let old = conditions(Some(&block), false, "Condition").unwrap();
    assert_eq!(all_hold(&old, &facts()), None);
}

#[test]
fn times_are_compared_to_the_second_and_in_every_form_that_iam_takes() {
    for (operator, value, expected) in [
        ("DateLessThan", "2027-01-15T08:00:00Z", false),
        ("DateLessThan", "2027-01-15T08:00:01Z", true),
        ("DateLessThan", "2027-01-15T08:00:00.001Z", true),
        ("DateLessThan", "2027-01-15T09:00:01+01:00", true),
        ("DateLessThan", "1800000001", true),
        ("DateLessThan", "2027-01-16", true),
        ("DateLessThan", "2027-01-15", false),
        ("DateLessThanEquals", "2027-01-15T08:00:00Z", true),
        ("DateGreaterThan", "2027-01-15T07:59:59Z", true),
        ("DateGreaterThanEquals", "2027-01-15T08:00:01Z", false),
        ("DateEquals", "2027-01-15T08:00:00Z", true),
        ("DateNotEquals", "2027-01-15T08:00:00Z", false),
    ] {
        let condition = json!({ (operator): {"aws:TokenIssueTime": value} });
        assert_eq!(holds(&condition), Some(expected), "{condition}");
    }
    for undecided in [
        json!({"DateLessThan": {"aws:TokenIssueTime": "yesterday"}}),
        json!({"DateLessThan": {"aws:RequestTag/Team": "2027-01-15T08:00:00Z"}}),
        json!({"StringEquals": {"aws:TokenIssueTime": "2027-01-15T08:00:00Z"}}),
        json!({"NumericLessThan": {"aws:TokenIssueTime": "1"}}),
    ] {
        assert_eq!(holds(&undecided), None, "{undecided}");
    }
}
