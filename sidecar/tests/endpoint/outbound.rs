//! Tokens for third parties that AWS signs for the role of a container.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokenscope_sts::Permissions;

use super::account::{Account, FAR, FEDERATION, ISSUER, NEAR, SUBJECT, may_have_tokens};
use super::faulty_sts::{Fault, FaultySts, credentials, refusal, unsigned_token, web_identity_token};
use super::lab::Lab;

pub(crate) const CLAUDE: &str = "https://api.anthropic.com";

/// Gives the lab's container this token beside its credentials; gives its file.
pub(crate) fn with_token(lab: &mut Lab, change: impl FnOnce(&mut Value)) -> PathBuf {
    let folder = lab.path("outbound");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("token");
    let mut token =
        json!({"name": "claude", "file": file, "audience": CLAUDE, "durationSeconds": 3600, "algorithm": "ES384"});
    change(&mut token);
    lab.endpoint["containers"][0]["outbound"] = json!([token]);
    file
}

/// The claims of a token.
pub(crate) fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_in_its_file_signed_for_the_role_and_ends_before_its_session() {
    let account = Account::start().await;
    let mut lab = Lab::new("outbound", &["app"], &account.sts.url(), NEAR);
    let file = with_token(&mut lab, |_| ());
    lab.write_token(&account.token());
    let sidecar = lab.start();
    let token = sidecar.until("the token is there", || fs::read_to_string(&file).ok());
    let said = claims(&token);
    assert_eq!(
        (&said["iss"], &said["sub"], &said["aud"]),
        (&json!(FEDERATION), &json!(NEAR), &json!(CLAUDE))
    );
    let session = sidecar.credentials("app");
    let session = account.sts.session(session["AccessKeyId"].as_str().unwrap()).unwrap();
    let left = session.expires.as_second() - said["exp"].as_i64().unwrap();
    assert!((1..60).contains(&left), "{left}");
    sidecar.logs("the token for a third party is there");
    assert_eq!(lab.not_ready(), None);
    assert!(!sidecar.log().contains(&token[token.len() - 20..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_token_is_as_long_as_the_policy_says_and_after_a_chain_it_is_signed_for_the_last_role() {
    let account = Account::start().await;
    let mut lab = Lab::new("outbound-chain", &["app"], &account.sts.url(), NEAR);
    lab.endpoint["containers"][0]["chain"] = json!([{"role": FAR, "externalId": super::EXTERNAL_ID}]);
    let file = with_token(&mut lab, |token| token["durationSeconds"] = json!(600));
    lab.write_token(&account.token());
    let sidecar = lab.start();
    let said = claims(&sidecar.until("the token is there", || fs::read_to_string(&file).ok()));
    assert_eq!(said["sub"], FAR);
    assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_origin_identity_has_the_subject_of_the_pods_token_and_the_scopes_of_the_policy() {
    let account = Account::start().await;
    let provider = format!(
        "arn:aws:iam::111122223333:oidc-provider/{}",
        ISSUER.trim_start_matches("https://")
    );
    let context = json!({"SubjectSourceKey": "sub", "SubjectTypeValue": "workload"});
    account.sts.update_context_provider(&provider, Some(&context)).unwrap();
    // The stand-in for STS lets it happen with these values alone.
    let allow = |action: &str, condition: &Value| json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": "*", "Condition": condition}]});
    let permissions = Permissions {
        principal: NEAR.to_owned(),
        policies: vec![
            allow(
                "sts:GetWebIdentityToken",
                &json!({"StringEquals": {"sts:SubjectMode": "OriginIdentity"}}),
            ),
            allow(
                "sts:SetWebIdentityTokenScope",
                &json!({"ForAllValues:StringEquals": {"sts:IdentityTokenScope": ["data:read", "data:list"]}}),
            ),
        ],
        ..Permissions::default()
    };
    account.sts.set_permissions(permissions).unwrap();
    let mut lab = Lab::new("outbound-origin", &["app"], &account.sts.url(), NEAR);
    let file = with_token(&mut lab, |token| {
        token["originIdentity"] = json!(true);
        token["scope"] = json!("data:read data:list");
    });
    lab.write_token(&account.token());
    let sidecar = lab.start();
    let said = claims(&sidecar.until("the token is there", || fs::read_to_string(&file).ok()));
    assert_eq!(
        (&said["sub"], &said["scope"]),
        (&json!(SUBJECT), &json!("data:read data:list"))
    );
    let own = &said["https://sts.amazonaws.com/"];
    assert_eq!(
        (&own["subject_mode"], &own["principal_id"]),
        (&json!("OriginIdentity"), &json!(NEAR))
    );
    drop(sidecar);

    // The role may not set scopes.
    account.sts.set_permissions(may_have_tokens(NEAR, CLAUDE)).unwrap();
    fs::remove_file(&file).unwrap();
    let sidecar = lab.start();
    sidecar.logs("is not authorized to perform: sts:SetWebIdentityTokenScope");
    assert!(!file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_outbound_federation_is_told_with_the_remedy_and_credentials_are_served_all_the_same() {
    let account = Account::without_federation().await;
    let mut lab = Lab::new("outbound-disabled", &["app"], &account.sts.url(), NEAR);
    let file = with_token(&mut lab, |_| ());
    lab.write_token(&account.token());
    let sidecar = lab.start();
    sidecar.logs("OutboundWebIdentityFederationDisabledException");
    sidecar.credentials("app");
    let said = sidecar.until("the probe says so", || {
        lab.not_ready()
            .filter(|said| said.contains("has no token claude: GetWebIdentityToken of"))
    });
    assert!(
        said.contains(NEAR) && said.contains("aws iam enable-outbound-web-identity-federation"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1);
    assert!(!file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_the_permission_is_told_where_it_stands_and_one_that_aws_finds_too_large_or_too_long_why() {
    let account = Account::start().await;
    account
        .sts
        .set_permissions(may_have_tokens(NEAR, "https://other.example"))
        .unwrap();
    let mut lab = Lab::new("outbound-denied", &["app"], &account.sts.url(), NEAR);
    with_token(&mut lab, |_| ());
    lab.write_token(&account.token());
    let sidecar = lab.start();
    sidecar.logs("is not authorized to perform: sts:GetWebIdentityToken");
    sidecar.logs("the status of the pod's policy (outboundTokenPolicies)");
    drop(sidecar);

    for (code, status, remedy) in [
        ("JWTPayloadSizeExceededException", 400, "too many tags"),
        ("SessionDurationEscalationException", 403, "outlast the role's session"),
    ] {
        let answers = vec![credentials("t"), refusal(status, code, "no")];
        let faulty = FaultySts::start(Fault::AnswersInTurn(answers)).await;
        let mut lab = Lab::new("outbound-refused", &["app"], &faulty.url(), NEAR);
        with_token(&mut lab, |_| ());
        lab.write_token("a.b.c");
        let sidecar = lab.start();
        sidecar.logs(code);
        sidecar.logs(remedy);
        assert_eq!(faulty.asked(), 2, "a definite refusal is remembered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_token_for_the_audience_or_outlasts_the_session_is_not_written() {
    for (token, said) in [
        ("not-a-token".to_owned(), "three parts with dots between"),
        (unsigned_token("other", 600), "it is not for its audience alone"),
        (
            unsigned_token(json!([CLAUDE, "other"]), 600),
            "it is not for its audience alone",
        ),
        (unsigned_token(CLAUDE, 10 * 3600), "it would outlast the role's session"),
    ] {
        let faulty = FaultySts::start(Fault::AnswersInTurn(vec![credentials("t"), web_identity_token(&token)])).await;
        let mut lab = Lab::new("outbound-unfit", &["app"], &faulty.url(), NEAR);
        let file = with_token(&mut lab, |_| ());
        lab.write_token("a.b.c");
        let sidecar = lab.start();
        sidecar.logs(said);
        assert!(!file.exists());
    }
}

#[test]
fn what_is_wrong_with_a_token_stands_in_the_error() {
    let mut lab = Lab::new("outbound-wrong", &["app"], "http://127.0.0.1:1", NEAR);
    with_token(&mut lab, |token| token["durationSeconds"] = json!(7200));
    let said = lab.not_ready().unwrap();
    assert!(
        said.contains("containers[0].outbound[0].durationSeconds is 7200 and should be from 60 to 3600"),
        "{said}"
    );
}
