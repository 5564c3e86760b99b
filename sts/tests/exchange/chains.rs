//! Chains of roles: accounts, external ids, tags, source identity, session policies, hours.

use serde_json::{Value, json};
use tokenscope_sts::{Permissions, Role, Server, StsConfig, User};

use super::signing::{Keys, signed, signed_for};
use super::{START, element, error, start};

const ANN: &str = "arn:aws:iam::111122223333:user/ann";
const NEAR: &str = "arn:aws:iam::111122223333:role/shop/near";
const FAR: &str = "arn:aws:iam::444455556666:role/far";
const FARTHER: &str = "arn:aws:iam::444455556666:role/farther";

fn ann() -> Keys {
    Keys {
        id: "AKIAANNANNANNANNANNA".into(),
        secret: "of-a-test-only".into(),
        token: None,
    }
}

fn allow(actions: &Value, resource: &str) -> Value {
    json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": resource}]})
}

fn permissions(principal: &str, policies: &[Value]) -> Permissions {
    Permissions {
        principal: principal.into(),
        policies: policies.to_vec(),
        ..Permissions::default()
    }
}

fn trusting(arn: &str, principal: &str, actions: &Value, condition: &Value) -> Role {
    Role {
        arn: arn.into(),
        trust_policy: json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": {"AWS": principal}, "Action": actions, "Condition": condition}]}),
        max_session_duration: 7200,
    }
}

/// Ann may take NEAR, NEAR may take FAR in another account with an external id, FAR may take FARTHER. All actions are allowed on both
/// sides.
fn config() -> StsConfig {
    let all = json!(["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]);
    let external = json!({"StringEquals": {"sts:ExternalId": "e-2"}});
    StsConfig {
        users: vec![User {
            arn: ANN.into(),
            access_key_id: ann().id,
            secret_access_key: ann().secret,
        }],
        permissions: vec![
            permissions(ANN, &[allow(&all, "*")]),
            permissions(NEAR, &[allow(&all, FAR)]),
            permissions(FAR, &[allow(&all, FARTHER)]),
        ],
        roles: vec![
            trusting(NEAR, ANN, &all, &json!({})),
            trusting(FAR, NEAR, &all, &external),
            trusting(FARTHER, "444455556666", &all, &json!({})),
        ],
        ..StsConfig::default()
    }
}

async fn take(server: &Server, keys: &Keys, role: &str, more: &str) -> (u16, String) {
    let role = role.replace(':', "%3A").replace('/', "%2F");
    let form = format!("Action=AssumeRole&Version=2011-06-15&RoleArn={role}&RoleSessionName=pod-1{more}");
    signed(server, keys, START, &form).await
}

async fn taken(server: &Server, keys: &Keys, role: &str, more: &str) -> Keys {
    let (status, body) = take(server, keys, role, more).await;
    assert_eq!(status, 200, "{role} {more}: {body}");
    Keys::of(&body)
}

fn not_authorized(role: &str, action: &str, resource: &str) -> String {
    let (account, name) = (&role[13..25], role.rsplit('/').next().unwrap());
    format!(
        "403 AccessDenied: User: arn:aws:sts::{account}:assumed-role/{name}/pod-1 is not authorized to perform: {action} on \
         resource: {resource}"
    )
}

#[tokio::test]
async fn a_role_of_another_account_is_taken_with_its_external_id_and_both_sides_consent() {
    let (server, _) = start(config()).await;
    let near = taken(&server, &ann(), NEAR, "").await;
    let (status, body) = take(&server, &near, FAR, "&ExternalId=e-2").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        element(&body, "Arn"),
        "arn:aws:sts::444455556666:assumed-role/far/pod-1"
    );
    assert_eq!(element(&body, "Expiration"), "2027-01-15T09:00:00Z");
    assert_eq!(
        element(&body, "SessionTokenSize"),
        Keys::of(&body).token.unwrap().len().to_string()
    );

    for more in ["", "&ExternalId=e-3"] {
        let refused = error(take(&server, &near, FAR, more).await);
        assert_eq!(refused, not_authorized(NEAR, "sts:AssumeRole", FAR));
    }
    server.set_permissions(permissions(NEAR, &[])).unwrap();
    let refused = error(take(&server, &near, FAR, "&ExternalId=e-2").await);
    assert_eq!(refused, not_authorized(NEAR, "sts:AssumeRole", FAR));
    let nowhere = "arn:aws:iam::444455556666:role/nowhere";
    let refused = error(take(&server, &near, nowhere, "").await);
    assert_eq!(refused, not_authorized(NEAR, "sts:AssumeRole", nowhere));
    server.stop().await;
}

#[tokio::test]
async fn in_one_account_a_role_that_is_named_needs_no_permission_and_an_account_that_is_named_does() {
    let (server, _) = start(config()).await;
    let far = {
        let near = taken(&server, &ann(), NEAR, "").await;
        taken(&server, &near, FAR, "&ExternalId=e-2").await
    };
    taken(&server, &far, FARTHER, "").await;
    server.set_permissions(permissions(FAR, &[])).unwrap();
    let refused = error(take(&server, &far, FARTHER, "").await);
    assert_eq!(refused, not_authorized(FAR, "sts:AssumeRole", FARTHER));

    let assume = json!("sts:AssumeRole");
    server.set_role(&trusting(FARTHER, FAR, &assume, &json!({}))).unwrap();
    taken(&server, &far, FARTHER, "").await;
    let deny = json!({"Statement": [{"Effect": "Deny", "Action": "sts:*", "Resource": "*"}]});
    server.set_permissions(permissions(FAR, &[deny])).unwrap();
    assert_eq!(take(&server, &far, FARTHER, "").await.0, 403);
    server.stop().await;
}

#[tokio::test]
async fn a_chain_lasts_an_hour_and_a_user_as_long_as_the_role_allows() {
    let (server, _) = start(config()).await;
    let near = taken(&server, &ann(), NEAR, "&DurationSeconds=7200").await;
    let refused = error(take(&server, &ann(), NEAR, "&DurationSeconds=7201").await);
    assert_eq!(
        refused,
        "400 ValidationError: The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
    );
    taken(&server, &near, FAR, "&ExternalId=e-2&DurationSeconds=3600").await;
    let refused = error(take(&server, &near, FAR, "&ExternalId=e-2&DurationSeconds=3601").await);
    assert_eq!(
        refused,
        "400 ValidationError: The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining."
    );
    server.stop().await;
}

#[tokio::test]
async fn transitive_tags_pass_through_the_chain_and_others_end_with_their_session() {
    let (server, _) = start(config()).await;
    let tags = "&Tags.member.1.Key=Team&Tags.member.1.Value=blue&Tags.member.2.Key=Job&Tags.member.2.Value=7\
                &TransitiveTagKeys.member.1=Team";
    let near = taken(&server, &ann(), NEAR, tags).await;
    let far = taken(
        &server,
        &near,
        FAR,
        "&ExternalId=e-2&Tags.member.1.Key=Zone&Tags.member.1.Value=z",
    )
    .await;
    let farther = taken(&server, &far, FARTHER, "").await;
    let tags_of = |keys: &Keys| serde_json::to_string(&server.session(&keys.id).unwrap().principal_tags).unwrap();
    assert_eq!(tags_of(&near), r#"{"Job":"7","Team":"blue"}"#);
    assert_eq!(tags_of(&far), r#"{"Team":"blue","Zone":"z"}"#);
    assert_eq!(tags_of(&farther), r#"{"Team":"blue"}"#);

    let again = "&ExternalId=e-2&Tags.member.1.Key=team&Tags.member.1.Value=red";
    let refused = error(take(&server, &near, FAR, again).await);
    assert!(
        refused.starts_with("400 InvalidParameterValue: The session tag Team conflicts"),
        "{refused}"
    );

    let untagged = json!(["sts:AssumeRole", "sts:SetSourceIdentity"]);
    server.set_role(&trusting(FAR, NEAR, &untagged, &json!({}))).unwrap();
    let refused = error(take(&server, &near, FAR, "").await);
    assert_eq!(refused, not_authorized(NEAR, "sts:TagSession", FAR));
    server.stop().await;
}

#[tokio::test]
async fn a_source_identity_lasts_through_the_chain_and_cannot_change() {
    let (server, _) = start(config()).await;
    let near = taken(&server, &ann(), NEAR, "&SourceIdentity=shop.orders").await;
    let (_, body) = take(&server, &near, FAR, "&ExternalId=e-2").await;
    assert_eq!(element(&body, "SourceIdentity"), "shop.orders");
    taken(&server, &near, FAR, "&ExternalId=e-2&SourceIdentity=shop.orders").await;
    let refused = error(take(&server, &near, FAR, "&ExternalId=e-2&SourceIdentity=bank.admin").await);
    assert_eq!(
        refused,
        "403 AccessDenied: The source identity of the calling session can't be changed."
    );

    // It must be allowed on both sides, even within one account.
    let far = Keys::of(&body);
    taken(&server, &far, FARTHER, "").await;
    server
        .set_permissions(permissions(FAR, &[allow(&json!("sts:AssumeRole"), "*")]))
        .unwrap();
    let refused = error(take(&server, &far, FARTHER, "").await);
    assert_eq!(refused, not_authorized(FAR, "sts:SetSourceIdentity", FARTHER));
    server.stop().await;
}

#[tokio::test]
async fn a_session_policy_narrows_the_next_hop_too() {
    let (server, _) = start(config()).await;
    let policy = |action: &str| {
        let statement = format!(r#"{{"Statement":{{"Effect":"Allow","Action":"{action}","Resource":"*"}}}}"#);
        let bytes: Vec<_> = statement.bytes().map(|byte| format!("%{byte:02X}")).collect();
        format!("&Policy={}", bytes.concat())
    };
    let wide = taken(&server, &ann(), NEAR, &policy("sts:*")).await;
    taken(&server, &wide, FAR, "&ExternalId=e-2").await;
    let narrow = taken(&server, &ann(), NEAR, &policy("s3:*")).await;
    let refused = error(take(&server, &narrow, FAR, "&ExternalId=e-2").await);
    assert_eq!(refused, not_authorized(NEAR, "sts:AssumeRole", FAR));
    // What an unknown managed policy says can't be decided, so it allows nothing.
    let managed = "&PolicyArns.member.1.arn=arn%3Aaws%3Aiam%3A%3Aaws%3Apolicy%2FAdministratorAccess";
    let managed = taken(&server, &ann(), NEAR, managed).await;
    assert_eq!(take(&server, &managed, FAR, "&ExternalId=e-2").await.0, 403);
    let foreign = "&PolicyArns.member.1.arn=arn%3Aaws%3Aiam%3A%3A999988887777%3Apolicy%2Fx";
    assert_eq!(take(&server, &ann(), NEAR, foreign).await.0, 400);
    server.stop().await;
}

#[tokio::test]
async fn an_endpoint_of_a_region_takes_signatures_for_no_other() {
    let form = "Action=GetCallerIdentity&Version=2011-06-15";
    let of_region = |region: &str| StsConfig {
        region: Some(region.into()),
        ..config()
    };
    let (server, _) = start(of_region("eu-central-1")).await;
    assert_eq!(signed_for(&server, &ann(), START, form, "eu-central-1").await.0, 200);
    let refused = error(signed_for(&server, &ann(), START, form, "eu-west-1").await);
    assert!(
        refused.starts_with("403 SignatureDoesNotMatch: Credential should be scoped to a valid region"),
        "{refused}"
    );
    let (global, _) = start(of_region("aws-global")).await;
    assert_eq!(signed_for(&global, &ann(), START, form, "us-east-1").await.0, 200);
    assert_eq!(signed_for(&global, &ann(), START, form, "eu-central-1").await.0, 403);
}
