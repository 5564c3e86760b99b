//! boto3 drives the stand-in: chains with external ids, tags and source identity, and tokens for third parties.

use std::fs;

use anyhow::Result;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::client::get;
use crate::{EXTERNAL_ID, FAR, ISSUER, KEY, NEAR, REGION, python, stand_in};

/// Calls of STS, one after another; each may go on with the credentials of an earlier one: `[{"call", "with", "as"}]`.
const CALLS: &str = "
import json, sys, boto3, botocore.exceptions
outcomes = []
for step in json.load(sys.stdin):
    keys = {}
    if step.get('as') is not None:
        held = outcomes[step['as']]['Credentials']
        keys = {'aws_access_key_id': held['AccessKeyId'], 'aws_secret_access_key': held['SecretAccessKey'],
                'aws_session_token': held['SessionToken']}
    try:
        outcome = getattr(boto3.client('sts', **keys), step['call'])(**step['with'])
        outcome.pop('ResponseMetadata')
    except botocore.exceptions.ClientError as error:
        outcome = {'status': error.response['ResponseMetadata']['HTTPStatusCode'], **error.response['Error']}
    outcomes.append(outcome)
print(json.dumps(outcomes, default=str))
";

/// Makes such calls as the user; gives their answers and errors.
pub(crate) fn calls(url: &str, steps: &Value) -> Result<Value> {
    let variables = [
        ("AWS_ENDPOINT_URL_STS", url),
        ("AWS_DEFAULT_REGION", REGION),
        ("AWS_ACCESS_KEY_ID", KEY.0),
        ("AWS_SECRET_ACCESS_KEY", KEY.1),
    ];
    python(CALLS, &variables, steps)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_goes_to_another_account_with_its_external_id_tags_and_source_identity() {
    let sts = stand_in().await.unwrap();
    let near = json!({"RoleArn": NEAR, "RoleSessionName": "pod-1", "SourceIdentity": "shop.orders",
        "Tags": [{"Key": "team", "Value": "blue"}, {"Key": "job", "Value": "7"}], "TransitiveTagKeys": ["team"]});
    let far = |external_id: &str| json!({"RoleArn": FAR, "RoleSessionName": "pod-1", "ExternalId": external_id});
    let mut too_long = far(EXTERNAL_ID);
    too_long["DurationSeconds"] = json!(3601);
    let mut other = far(EXTERNAL_ID);
    other["SourceIdentity"] = json!("bank.admin");
    let outcomes = calls(
        &sts.url(),
        &json!([
            {"call": "assume_role", "with": near},
            {"call": "assume_role", "with": far(EXTERNAL_ID), "as": 0},
            {"call": "get_caller_identity", "with": {}, "as": 1},
            {"call": "assume_role", "with": far("e-3"), "as": 0},
            {"call": "assume_role", "with": too_long, "as": 0},
            {"call": "assume_role", "with": other, "as": 0},
        ]),
    )
    .unwrap();
    assert_eq!(outcomes[1]["SourceIdentity"], "shop.orders");
    assert_eq!(outcomes[2]["Arn"], "arn:aws:sts::444455556666:assumed-role/far/pod-1");
    assert_eq!(outcomes[2]["Account"], "444455556666");
    let key = outcomes[1]["Credentials"]["AccessKeyId"].as_str().unwrap();
    let session = sts.session(key).unwrap();
    assert_eq!(json!(session.principal_tags), json!({"team": "blue"}));
    assert_eq!(outcomes[3]["Code"], "AccessDenied");
    assert_eq!(
        outcomes[3]["Message"],
        format!(
            "User: arn:aws:sts::111122223333:assumed-role/near/pod-1 is not authorized to perform: sts:AssumeRole on resource: {FAR}"
        )
    );
    assert_eq!(outcomes[4]["Code"], "ValidationError");
    assert_eq!(outcomes[5]["Code"], "AccessDenied");
    sts.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_a_config_file_describes_needs_no_code() {
    let sts = stand_in().await.unwrap();
    let folder = std::env::temp_dir().join(format!("tokenscope-sts-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("config");
    let who = |external_id: &str| {
        let text = format!(
            "[default]\nrole_arn = {FAR}\nsource_profile = near\nexternal_id = {external_id}\nrole_session_name = pod-1\n\
             region = {REGION}\n[profile near]\nrole_arn = {NEAR}\nsource_profile = ann\nrole_session_name = pod-1\n\
             region = {REGION}\n[profile ann]\naws_access_key_id = {}\naws_secret_access_key = {}\nregion = {REGION}\n",
            KEY.0, KEY.1
        );
        fs::write(&file, text).unwrap();
        let script = "import json, boto3; print(json.dumps(boto3.client('sts').get_caller_identity()['Arn']))";
        let (url, file) = (sts.url(), file.display().to_string());
        python(
            script,
            &[("AWS_ENDPOINT_URL_STS", &url), ("AWS_CONFIG_FILE", &file)],
            &json!(null),
        )
    };
    assert_eq!(
        who(EXTERNAL_ID).unwrap(),
        "arn:aws:sts::444455556666:assumed-role/far/pod-1"
    );
    let refused = who("e-3").unwrap_err().to_string();
    assert!(refused.contains("AccessDenied"), "{refused}");
    fs::remove_dir_all(&folder).unwrap();
    sts.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_a_third_party_is_verified_with_the_keys_that_discovery_names() {
    let sts = stand_in().await.unwrap();
    let token = |duration: u32, more: Value| {
        let mut with = json!({"Audience": ["https://api.test"], "SigningAlgorithm": "ES384", "DurationSeconds": duration,
            "Tags": [{"Key": "job", "Value": "7"}]});
        for (name, value) in more.as_object().unwrap() {
            with[name] = value.clone();
        }
        json!({"call": "get_web_identity_token", "with": with, "as": 0})
    };
    let outcomes = calls(
        &sts.url(),
        &json!([
            {"call": "assume_role", "with": {"RoleArn": NEAR, "RoleSessionName": "pod-1", "DurationSeconds": 900}},
            token(300, json!({})),
            token(3600, json!({})),
            token(300, json!({"SubjectMode": "OriginIdentity", "Scope": "read write"})),
            token(300, json!({"Scope": "read"})),
            {"call": "get_web_identity_token", "with": {"Audience": ["a"], "SigningAlgorithm": "RS256"}},
        ]),
    )
    .unwrap();
    let claims = verified(&sts, outcomes[1]["WebIdentityToken"].as_str().unwrap()).await;
    assert_eq!(
        (&claims["iss"], &claims["sub"], &claims["aud"]),
        (&json!(ISSUER), &json!(NEAR), &json!("https://api.test"))
    );
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 300);
    assert_eq!(
        claims["https://sts.amazonaws.com/"]["request_tags"],
        json!({"job": "7"})
    );
    assert_eq!(claims["https://sts.amazonaws.com/"]["source_region"], REGION);

    assert_eq!(
        (&outcomes[2]["status"], &outcomes[2]["Code"]),
        (&json!(403), &json!("SessionDurationEscalationException"))
    );
    // The session has no propagated context.
    assert_eq!(outcomes[3]["Code"], "ValidationError");
    assert_eq!(outcomes[4]["Code"], "ValidationError");
    // The user may take roles, and nothing else.
    assert_eq!(outcomes[5]["Code"], "AccessDenied");
    sts.stop().await;
}

/// The claims of a token whose signature holds, by the issuer's published key.
async fn verified(sts: &tokenscope_sts::Server, token: &str) -> Value {
    let host = ISSUER.trim_start_matches("https://");
    let discovery = get(sts.addr(), host, "/.well-known/openid-configuration")
        .await
        .unwrap();
    assert_eq!(discovery["issuer"], ISSUER);
    let path = discovery["jwks_uri"]
        .as_str()
        .unwrap()
        .strip_prefix(ISSUER)
        .unwrap()
        .to_owned();
    let keys = get(sts.addr(), host, &path).await.unwrap();

    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let header: Value = serde_json::from_slice(&decode(header)).unwrap();
    assert_eq!(header["alg"], "ES384");
    let key = keys["keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["kid"] == header["kid"])
        .unwrap();
    let coordinate = |name: &str| decode(key[name].as_str().unwrap());
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
        .verify(signed.as_bytes(), &decode(signature))
        .unwrap();
    serde_json::from_slice(&decode(claims)).unwrap()
}
