//! Requests as clients send them.

use super::*;

const ROLE: &str = "arn:aws:iam::111122223333:role/orders";

/// A valid request with some parameters replaced, or left out by an empty value.
fn assume(changes: &[(&str, &str)]) -> Result<AssumeRequest, AwsError> {
    let mut values = BTreeMap::from(
        [
            ("RoleArn", ROLE),
            ("RoleSessionName", "pod-1"),
            ("WebIdentityToken", "a.b.c"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    for (name, value) in changes {
        if value.is_empty() {
            values.remove(*name);
        } else {
            values.insert((*name).to_owned(), (*value).to_owned());
        }
    }
    AssumeRequest::parse(&Parameters(values))
}

#[test]
fn form_text_is_decoded_and_a_repeated_or_broken_parameter_refused() {
    let parameters = Parameters::parse("Action=Get%43allerIdentity&Version=2011-06-15&x=a+b%2Bc&y").unwrap();
    assert_eq!(parameters.action(), Ok(Action::GetCallerIdentity));
    assert_eq!(
        (parameters.value("x"), parameters.value("y")),
        (Some("a b+c"), Some(""))
    );
    for wrong in [
        "a=1&a=2",
        "a=%ff",
        &(0..300).map(|n| format!("p{n}=")).collect::<Vec<_>>().join("&"),
    ] {
        assert_eq!(Parameters::parse(wrong).err().unwrap().code, "MalformedQueryString");
    }
}

#[test]
fn action_and_version_must_be_ones_that_sts_has() {
    for (form, code, message) in [
        ("", "MissingAction", "The request is missing an action."),
        (
            "Action=GetSessionToken&Version=2011-06-15",
            "InvalidAction",
            "Could not find operation GetSessionToken for version 2011-06-15",
        ),
        (
            "Action=GetCallerIdentity",
            "InvalidAction",
            "Could not find operation GetCallerIdentity for version NO_VERSION_SPECIFIED",
        ),
        (
            "Action=GetCallerIdentity&Version=2010-05-08",
            "InvalidAction",
            "Could not find operation GetCallerIdentity for version 2010-05-08",
        ),
    ] {
        let error = Parameters::parse(form).unwrap().action().unwrap_err();
        assert_eq!((error.status, error.code, error.message.as_str()), (400, code, message));
    }
}

#[test]
fn every_parameter_outside_its_bounds_is_refused_in_the_words_of_aws() {
    let cases = names().into_iter().chain(tokens()).chain(numbers_and_policies());
    for (name, value, message) in cases {
        assert_eq!(
            assume(&[(name, &value)]).err(),
            Some(AwsError::validation(message)),
            "{name}={value}"
        );
    }
    let both = assume(&[("RoleSessionName", "a/"), ("DurationSeconds", "1")])
        .err()
        .unwrap();
    assert!(
        both.message.starts_with("2 validation errors detected: Value 'a/'"),
        "{both}"
    );
    assert!(both.message.contains("; Value '1' at 'durationSeconds'"), "{both}");
}

fn constraint(value: &str, member: &str, rule: &str) -> String {
    format!("1 validation error detected: {value} at '{member}' failed to satisfy constraint: Member must {rule}")
}

/// A parameter, its value, and the message about it.
fn names() -> Vec<(&'static str, String, String)> {
    let long_name = "n".repeat(65);
    vec![
        (
            "RoleArn",
            String::new(),
            constraint("Value null", "roleArn", "not be null"),
        ),
        (
            "RoleArn",
            "short".to_owned(),
            constraint("Value 'short'", "roleArn", "have length greater than or equal to 20"),
        ),
        (
            "RoleArn",
            "arn:aws:s3:::a-bucket-name".to_owned(),
            "Request ARN is invalid".to_owned(),
        ),
        (
            "RoleSessionName",
            String::new(),
            constraint("Value null", "roleSessionName", "not be null"),
        ),
        (
            "RoleSessionName",
            "n".to_owned(),
            constraint("Value 'n'", "roleSessionName", "have length greater than or equal to 2"),
        ),
        (
            "RoleSessionName",
            long_name.clone(),
            constraint(
                &format!("Value '{long_name}'"),
                "roleSessionName",
                "have length less than or equal to 64",
            ),
        ),
        (
            "RoleSessionName",
            "a:b".to_owned(),
            constraint(
                "Value 'a:b'",
                "roleSessionName",
                r"satisfy regular expression pattern: [\w+=,.@-]*",
            ),
        ),
    ]
}

/// The same of tokens.
fn tokens() -> Vec<(&'static str, String, String)> {
    vec![
        (
            "WebIdentityToken",
            String::new(),
            constraint("Value", "webIdentityToken", "not be null"),
        ),
        (
            "WebIdentityToken",
            "abc".to_owned(),
            constraint("Value", "webIdentityToken", "have length greater than or equal to 4"),
        ),
        (
            "WebIdentityToken",
            "t".repeat(20_001),
            constraint("Value", "webIdentityToken", "have length less than or equal to 20000"),
        ),
    ]
}

/// A parameter, its value, and the message about it.
fn numbers_and_policies() -> Vec<(&'static str, String, String)> {
    let long_policy = format!("{{\"x\":\"{}\"}}", "y".repeat(2048));
    vec![
        (
            "ProviderId",
            "graph.facebook.com".to_owned(),
            "ProviderId must not be specified for OpenID Connect ID tokens".to_owned(),
        ),
        (
            "DurationSeconds",
            "899".to_owned(),
            constraint(
                "Value '899'",
                "durationSeconds",
                "have value greater than or equal to 900",
            ),
        ),
        (
            "DurationSeconds",
            "43201".to_owned(),
            constraint(
                "Value '43201'",
                "durationSeconds",
                "have value less than or equal to 43200",
            ),
        ),
        (
            "MinimumSessionTokenSize",
            "4097".to_owned(),
            constraint(
                "Value '4097'",
                "minimumSessionTokenSize",
                "have value less than or equal to 4096",
            ),
        ),
        (
            "Policy",
            long_policy.clone(),
            constraint(
                &format!("Value '{long_policy}'"),
                "policy",
                "have length less than or equal to 2048",
            ),
        ),
        (
            "PolicyArns.member.1.arn",
            "short".to_owned(),
            constraint(
                "Value 'short'",
                "policyArns.1.member.arn",
                "have length greater than or equal to 20",
            ),
        ),
    ]
}

#[test]
fn session_policies_must_be_policies_and_fit_together() {
    for (policy, message) in [
        ("{", "This policy contains invalid Json"),
        ("{}", "Syntax errors in policy."),
        (
            r#"{"Statement":[{"Effect":"Allow","Principal":"*"}]}"#,
            "Policy document should not specify a principal.",
        ),
    ] {
        assert_eq!(
            assume(&[("Policy", policy)]).err(),
            Some(AwsError::malformed_policy(message))
        );
    }
    let policy = format!(r#"{{"Statement":{{"Effect":"Deny","Action":"{}"}}}}"#, "a".repeat(1990));
    let arn = ("PolicyArns.member.1.arn", "arn:aws:iam::aws:policy/ReadOnlyAccess");
    assert_eq!(
        assume(&[("Policy", &policy), arn]).err().unwrap().code,
        "PackedPolicyTooLarge"
    );
    assert_eq!(assume(&[arn]).unwrap().session_policies.packed(), Some(2));
    let list: Vec<_> = (1..=11).map(|n| format!("PolicyArns.member.{n}.arn")).collect();
    let list: Vec<_> = list.iter().map(|name| (name.as_str(), arn.1)).collect();
    assert!(
        assume(&list)
            .err()
            .unwrap()
            .message
            .ends_with("Member must have length less than or equal to 10")
    );
    assert_eq!(
        assume(&[("PolicyArns.member.2.arn", arn.1)]).err().unwrap().code,
        "MalformedInput"
    );
    assert_eq!(
        assume(&[("DurationSeconds", "an hour")]).err().unwrap().code,
        "MalformedInput"
    );
}

#[test]
fn a_valid_request_has_the_defaults_of_aws() {
    let request = assume(&[]).unwrap();
    assert_eq!((request.duration, request.session_policies.packed()), (3600, None));
    assert_eq!(
        (request.role.name.as_str(), request.session_name.as_str()),
        ("orders", "pod-1")
    );
    assert_eq!(assume(&[("DurationSeconds", "43200")]).unwrap().duration, 43_200);
}
