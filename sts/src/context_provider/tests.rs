//! Documents that IAM takes or refuses, and what they make of claims.

use serde_json::json;

use super::*;

const ARN: &str = "arn:aws:iam::111122223333:oidc-provider/a.test";

fn document() -> Value {
    json!({
        "SubjectSourceKey": "sub",
        "SubjectTypeValue": "workload",
        "KeyDefinitionList": [
            {"SourceKey": "tokenscope_team", "TargetKey": "team"},
            {"SourceKey": "tokenscope_namespace", "TargetKey": "namespace"},
        ],
    })
}

fn changed(changes: &Value) -> Value {
    let mut document = document();
    for (name, value) in changes.as_object().unwrap() {
        document[name] = value.clone();
    }
    document
}

fn read(document: &Value, claims: &Value) -> Result<Vec<(String, String)>, String> {
    let provider = ContextProvider::parse(document)?;
    let propagated = provider.read(claims.as_object().unwrap(), "https://a.test", ARN);
    let propagated = propagated.map_err(|error| {
        assert_eq!((error.status, error.code), (400, "InvalidIdentityToken"));
        error.message
    })?;
    Ok(propagated
        .context_keys()
        .map(|(key, value)| (key, value.to_owned()))
        .collect())
}

#[test]
fn flat_claims_become_the_keys_of_origin_identity_and_transaction_context() {
    let claims = json!({"sub": "shop/orders", "tokenscope_team": "blue", "tokenscope_pod": "not mapped"});
    let expected = [
        ("aws:OriginIdentity/Subject", "shop/orders"),
        ("aws:OriginIdentity/SubjectType", "workload"),
        ("aws:OriginIdentity/Issuer", "a.test"),
        ("aws:OriginIdentity/FederatedProviderArn", ARN),
        ("aws:TransactionContext/IdentityProvider/team", "blue"),
    ];
    assert_eq!(
        read(&document(), &claims).unwrap(),
        expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
}

#[test]
fn a_subject_type_may_come_from_a_claim_or_be_absent() {
    let from_claim = json!({"SubjectSourceKey": "sub", "SubjectTypeSourceKey": "kind"});
    let keys = read(&from_claim, &json!({"sub": "a", "kind": "user"})).unwrap();
    assert_eq!(
        keys[1],
        ("aws:OriginIdentity/SubjectType".to_owned(), "user".to_owned())
    );
    assert_eq!(
        read(&from_claim, &json!({"sub": "a", "kind": "robot"})).unwrap_err(),
        "Invalid claim kind: must be user or workload"
    );
    assert_eq!(
        read(&from_claim, &json!({"sub": "a"})).unwrap_err(),
        "Missing a required claim: kind"
    );
    let none = json!({"SubjectSourceKey": "sub", "SubjectTypeValue": ""});
    assert_eq!(read(&none, &json!({"sub": "a"})).unwrap().len(), 3);
}

#[test]
fn a_claim_that_is_no_short_text_at_the_top_level_is_refused_and_named() {
    for (claims, expected) in [
        (json!({}), "Missing a required claim: sub"),
        (
            json!({"sub": 7}),
            "Invalid claim sub: must be a text of at least one character",
        ),
        (
            json!({"sub": ""}),
            "Invalid claim sub: must be a text of at least one character",
        ),
        (
            json!({"sub": "a", "tokenscope_team": ["blue"]}),
            "Invalid claim tokenscope_team: must be a text of at least one character",
        ),
        (
            json!({"sub": "a", "tokenscope_team": null}),
            "Invalid claim tokenscope_team: must be a text of at least one character",
        ),
        (
            json!({"sub": "a", "tokenscope_team": "é".repeat(129)}),
            "Invalid claim tokenscope_team: must have at most 128 characters",
        ),
    ] {
        assert_eq!(read(&document(), &claims).unwrap_err(), expected, "{claims}");
    }
    assert!(read(&document(), &json!({"sub": "a", "tokenscope_team": "é".repeat(128)})).is_ok());
}

#[test]
fn a_name_never_reaches_into_an_object() {
    let nested = changed(&json!({"KeyDefinitionList": [{"SourceKey": "kubernetes.io/namespace", "TargetKey": "ns"}]}));
    let claims = json!({"sub": "a", "kubernetes.io": {"namespace": "shop"}});
    assert_eq!(read(&nested, &claims).unwrap().len(), 4);
}

fn each_is_refused<const N: usize>(documents: [(Value, &str); N]) {
    for (document, problem) in documents {
        let error = ContextProvider::parse(&document).unwrap_err();
        assert!(error.contains(problem), "{document}: {error}");
    }
}

#[test]
fn a_document_has_at_most_ten_mappings_of_valid_keys_that_differ() {
    let list = |count: usize| {
        let mappings: Vec<_> = (0..count)
            .map(|n| json!({"SourceKey": "a", "TargetKey": format!("k{n}")}))
            .collect();
        changed(&json!({"KeyDefinitionList": mappings}))
    };
    assert!(ContextProvider::parse(&list(10)).is_ok() && ContextProvider::parse(&list(0)).is_ok());
    let one = |mapping: Value| changed(&json!({"KeyDefinitionList": [mapping]}));
    each_is_refused([
        (list(11), "KeyDefinitionList: 11 mappings, at most 10 are allowed"),
        (one(json!(["a", "b"])), "KeyDefinitionList[0]: must be an object"),
        (
            one(json!({"SourceKey": "a  b", "TargetKey": "k"})),
            "KeyDefinitionList[0].SourceKey: `a  b` must",
        ),
        (
            one(json!({"SourceKey": "a", "TargetKey": " k"})),
            "KeyDefinitionList[0].TargetKey: ` k` must",
        ),
        (
            one(json!({"SourceKey": "a", "TargetKey": "ü"})),
            "KeyDefinitionList[0].TargetKey: `ü` must",
        ),
        (
            one(json!({"SourceKey": "a", "TargetKey": "k${x}"})),
            "KeyDefinitionList[0].TargetKey: `k${x}` must",
        ),
        (
            one(json!({"SourceKey": "a"})),
            "KeyDefinitionList[0].TargetKey: is required here",
        ),
        (
            changed(&json!({"KeyDefinitionList": [
                {"SourceKey": "a", "TargetKey": "team"}, {"SourceKey": "b", "TargetKey": "Team"}]})),
            "KeyDefinitionList[1].TargetKey: `Team` is there twice",
        ),
    ]);
}

#[test]
fn a_document_has_the_members_of_the_api_and_values_in_their_bounds() {
    let long = "k".repeat(129);
    each_is_refused([
        (json!([]), "ContextProvider: must be an object"),
        (json!(["sub", null, null, []]), "ContextProvider: must be an object"),
        (json!({}), "ContextProvider: missing field `SubjectSourceKey`"),
        (changed(&json!({"Subject": "sub"})), "unknown field `Subject`"),
        (
            changed(&json!({"SubjectSourceKey": ""})),
            "SubjectSourceKey: must have 1..=128",
        ),
        (
            changed(&json!({"SubjectSourceKey": long})),
            "SubjectSourceKey: must have 1..=128",
        ),
        (changed(&json!({"SubjectSourceKey": 1})), "invalid type"),
        (
            changed(&json!({"SubjectTypeValue": "robot"})),
            "SubjectTypeValue: `robot` is neither",
        ),
        (
            changed(&json!({"SubjectTypeSourceKey": "kind"})),
            "SubjectTypeValue: excludes",
        ),
    ]);
}
