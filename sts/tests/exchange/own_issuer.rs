//! Tokens of an issuer of our own: session tags, source identity, context for trusted identity propagation, and what their
//! sessions may do.

use tokenscope_sts::{AssumedSession, PolicyDecision};

use super::*;

const ACTIONS: [&str; 3] = [
    "sts:AssumeRoleWithWebIdentity",
    "sts:TagSession",
    "sts:SetSourceIdentity",
];
const PROVIDER_ARN: &str = "arn:aws:iam::111122223333:oidc-provider/oidc.tokenscope.test/cluster";

/// An issuer, its signer, and a server whose role allows what tags and a source identity need.
async fn setup() -> (Issuer, Signer, Server, Arc<AtomicI64>) {
    let signer = Signer::new(Algorithm::ES384, "ec");
    let issuer = Issuer::start("oidc.tokenscope.test", &[signer.jwk()]).await;
    let (server, clock) = start(StsConfig {
        roles: vec![role(ROLE, &json!(ACTIONS))],
        ..config(&issuer)
    })
    .await;
    (issuer, signer, server, clock)
}

fn team(team: &str) -> Value {
    json!({
        "https://aws.amazon.com/tags": {"principal_tags": {"team": [team]}, "transitive_tag_keys": ["team"]},
        "https://aws.amazon.com/source_identity": "shop.orders",
        "tokenscope_team": team,
        "tokenscope_namespace": "shop",
    })
}

async fn session(server: &Server, token: &str) -> (String, AssumedSession) {
    let (status, body) = assume(server, token).await;
    assert_eq!(status, 200, "{body}");
    let session = server.session(&element(&body, "AccessKeyId")).unwrap();
    (body, session)
}

#[tokio::test]
async fn a_session_has_the_tags_and_the_source_identity_of_its_token() {
    let (_issuer, signer, server, _) = setup().await;
    let (body, session) = session(&server, &signer.token(&team("blue"))).await;

    assert_eq!(element(&body, "SourceIdentity"), "shop.orders");
    assert_eq!(element(&body, "PackedPolicySize"), "1");
    assert_eq!(session.arn, "arn:aws:sts::111122223333:assumed-role/orders/pod-1");
    assert_eq!(session.role_arn, ROLE);
    assert_eq!(session.source_identity.as_deref(), Some("shop.orders"));
    assert_eq!(session.principal_tags, [("team".to_owned(), "blue".to_owned())].into());
    assert_eq!(session.transitive_tag_keys, ["team"]);
    assert!(session.propagated_context.is_empty() && !body.contains("TrustedIdentityPropagationContext"));
    assert_eq!(session.issued.as_second(), START);

    let (body, plain) = self::session(&server, &signer.token(&json!({}))).await;
    assert!(!body.contains("SourceIdentity") && !body.contains("PackedPolicySize"));
    assert!(plain.source_identity.is_none() && plain.principal_tags.is_empty());
    assert!(server.session("ASIAAAAAAAAAAAAAAAAA").is_none());
}

#[tokio::test]
async fn two_tenants_of_one_role_are_apart_and_a_revoked_session_does_nothing_any_more() {
    let (_issuer, signer, server, clock) = setup().await;
    let (_, blue) = session(&server, &signer.token(&team("blue"))).await;
    let (_, red) = session(&server, &signer.token(&team("red"))).await;
    let mut policies = vec![json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::data/${aws:PrincipalTag/team}/*"}})];
    let now = |second| Timestamp::from_second(second).unwrap();
    let get = |session: &AssumedSession, policies: &[Value], key: &str, second| {
        let resource = format!("arn:aws:s3:::data/{key}");
        session
            .decide(policies, "s3:GetObject", &resource, now(second))
            .unwrap()
    };
    for (session, own, other) in [(&blue, "blue/x", "red/x"), (&red, "red/x", "blue/x")] {
        assert_eq!(get(session, &policies, own, START), PolicyDecision::Allowed);
        assert_eq!(get(session, &policies, other, START), PolicyDecision::ImplicitDeny);
    }

    clock.store(START + 100, Ordering::SeqCst);
    policies.push(
        json!({"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "*", "Resource": "*",
        "Condition": {"DateLessThan": {"aws:TokenIssueTime": now(START + 100).to_string()}}}}),
    );
    assert_eq!(
        get(&blue, &policies, "blue/x", START + 100),
        PolicyDecision::ExplicitDeny
    );
    let (_, later) = session(&server, &signer.token(&team("blue"))).await;
    assert_eq!(get(&later, &policies, "blue/x", START + 100), PolicyDecision::Allowed);
}

#[tokio::test]
async fn a_trust_policy_decides_by_the_tags_that_are_asked_for() {
    let (_issuer, signer, server, _) = setup().await;
    let mut tagged = role(ROLE, &json!(ACTIONS));
    tagged.trust_policy["Statement"][0]["Condition"]["StringEquals"]["aws:RequestTag/team"] = json!(["blue", "green"]);
    tagged.trust_policy["Statement"][0]["Condition"]["ForAllValues:StringEquals"] =
        json!({"aws:TagKeys": ["team"], "sts:TransitiveTagKeys": ["team"]});
    tagged.trust_policy["Statement"][0]["Condition"]["StringLike"]["sts:SourceIdentity"] = json!("shop.*");
    server.set_role(&tagged).unwrap();

    let mut more = team("blue");
    more["https://aws.amazon.com/tags"]["principal_tags"]["admin"] = json!(["true"]);
    let mut spoofed = team("blue");
    spoofed["https://aws.amazon.com/source_identity"] = json!("bank.orders");
    let denied = "403 AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity";
    for (claims, expected) in [
        (team("green"), None),
        (team("red"), Some(denied)),
        (team("Blue"), Some(denied)),
        (more, Some(denied)),
        (spoofed, Some(denied)),
        (json!({}), Some(denied)),
    ] {
        let answer = assume(&server, &signer.token(&claims)).await;
        match expected {
            None => assert_eq!(answer.0, 200, "{claims}: {}", answer.1),
            Some(expected) => assert_eq!(error(answer), expected, "{claims}"),
        }
    }
}

#[tokio::test]
async fn claims_that_try_to_be_more_than_one_identity_are_refused() {
    let (_issuer, signer, server, _) = setup().await;
    let many: serde_json::Map<String, Value> = (0..51).map(|n| (format!("k{n}"), json!(["v"]))).collect();
    let long: serde_json::Map<String, Value> = (0..10).map(|n| (format!("k{n}"), json!(["v".repeat(256)]))).collect();
    let tags = |tags: Value| json!({"https://aws.amazon.com/tags": {"principal_tags": tags}});
    for (claims, expected) in [
        (tags(json!({"team": ["blue", "red"]})), "400 InvalidIdentityToken: "),
        (tags(json!({"team": [7]})), "400 InvalidIdentityToken: "),
        (
            tags(json!({"team": ["blue"], "TEAM": ["red"]})),
            "400 InvalidIdentityToken: ",
        ),
        (tags(json!({"team": ["*"]})), "400 InvalidIdentityToken: "),
        (
            tags(json!({"team": ["blue\",\"admin\":[\"true"]})),
            "400 InvalidIdentityToken: ",
        ),
        (tags(json!(many)), "400 InvalidIdentityToken: "),
        (tags(json!(long)), "400 PackedPolicyTooLarge: "),
        (
            json!({"https://aws.amazon.com/tags": "team=blue"}),
            "400 InvalidIdentityToken: ",
        ),
        (
            json!({"https://aws.amazon.com/source_identity": "aws:root"}),
            "400 InvalidIdentityToken: ",
        ),
        (
            tags(json!({"team": ["v".repeat(30_000)]})),
            "400 ValidationError: 1 validation error detected: Value at",
        ),
        (
            tags(json!({"team": ["v".repeat(200_000)]})),
            "413 RequestEntityTooLarge: ",
        ),
    ] {
        let answer = error(assume(&server, &signer.token(&claims)).await);
        assert!(answer.starts_with(expected), "{answer}");
    }
}

#[tokio::test]
async fn a_context_provider_puts_flat_claims_into_the_answer_and_before_trust_policies() {
    let (_issuer, signer, server, _) = setup().await;
    let document = json!({"SubjectSourceKey": "sub", "SubjectTypeValue": "workload", "KeyDefinitionList": [
        {"SourceKey": "tokenscope_team", "TargetKey": "team"},
        {"SourceKey": "tokenscope_pod", "TargetKey": "pod"}]});
    server.update_context_provider(PROVIDER_ARN, Some(&document)).unwrap();
    let mut by_context = role(ROLE, &json!(ACTIONS));
    by_context.trust_policy["Statement"][0]["Condition"]["StringEquals"]["aws:TransactionContext/IdentityProvider/team"] =
        json!("blue");
    server.set_role(&by_context).unwrap();

    let (body, session) = session(&server, &signer.token(&team("blue"))).await;
    assert!(
        body.contains(
            "<TrustedIdentityPropagationContext><OriginIdentity><Subject>system:serviceaccount:shop:orders</Subject>\
             <SubjectType>workload</SubjectType><Issuer>oidc.tokenscope.test/cluster</Issuer>\
             <FederatedProviderArn>arn:aws:iam::111122223333:oidc-provider/oidc.tokenscope.test/cluster\
             </FederatedProviderArn></OriginIdentity><TransactionContext><IdentityProvider><entry><key>team</key>\
             <value>blue</value></entry></IdentityProvider></TransactionContext></TrustedIdentityPropagationContext>"
        ),
        "{body}"
    );
    let key = "aws:TransactionContext/IdentityProvider/team";
    assert_eq!(session.propagated_context.get(key).map(String::as_str), Some("blue"));
    assert_eq!(session.propagated_context.len(), 5);

    let denied = "403 AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity";
    assert_eq!(error(assume(&server, &signer.token(&team("red"))).await), denied);
    let mut long = team("blue");
    long["tokenscope_pod"] = json!("p".repeat(129));
    assert_eq!(
        error(assume(&server, &signer.token(&long)).await),
        "400 InvalidIdentityToken: Invalid claim tokenscope_pod: must have at most 128 characters"
    );

    // Without the context provider the key is absent.
    server.update_context_provider(PROVIDER_ARN, None).unwrap();
    assert_eq!(error(assume(&server, &signer.token(&team("blue"))).await), denied);
    for (arn, document, problem) in [
        (
            PROVIDER_ARN,
            &json!({}),
            "ValidationError: context_provider: ContextProvider: missing field `SubjectSourceKey`",
        ),
        (
            "arn:aws:iam::111122223333:oidc-provider/b.test",
            &document,
            "NoSuchEntity: ",
        ),
    ] {
        let error = server.update_context_provider(arn, Some(document)).unwrap_err();
        assert!(error.to_string().starts_with(problem), "{error}");
    }
    let other = Provider {
        url: "https://b.test".into(),
        client_ids: Vec::new(),
        account: "111122223333".into(),
        partition: "aws".into(),
        context_provider: Some(json!({"SubjectSourceKey": " "})),
    };
    let error = server.add_provider(other).unwrap_err().to_string();
    assert!(
        error.starts_with("ValidationError: context_provider: SubjectSourceKey: "),
        "{error}"
    );
}

#[tokio::test]
async fn a_token_for_a_third_party_may_name_the_workload_and_scopes() {
    let (_issuer, signer, server, _) = setup().await;
    let document = json!({"SubjectSourceKey": "sub", "SubjectTypeValue": "workload"});
    server.update_context_provider(PROVIDER_ARN, Some(&document)).unwrap();
    let federation = tokenscope_sts::OutboundFederation {
        account: "111122223333".into(),
        issuer: "https://a.tokens.sts.global.api.aws".into(),
    };
    server.enable_outbound_federation(federation).unwrap();
    let allow = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:*", "Resource": "*",
        "Condition": {"ForAllValues:StringEquals": {"sts:IdentityTokenScope": ["read", "write"]}}}]});
    let permissions = tokenscope_sts::Permissions {
        principal: ROLE.into(),
        policies: vec![allow],
        ..Default::default()
    };
    server.set_permissions(permissions).unwrap();
    let ask = async |subject: &str, scope: &str| {
        let (body, _) = session(&server, &signer.token(&json!({"sub": subject}))).await;
        let form = format!(
            "Action=GetWebIdentityToken&Version=2011-06-15&Audience.member.1=a&SigningAlgorithm=ES384\
             &SubjectMode=OriginIdentity&Scope={scope}"
        );
        signing::signed(&server, &signing::Keys::of(&body), START, &form).await
    };
    let (status, body) = ask("system:serviceaccount:shop:orders", "read%20write").await;
    assert_eq!(status, 200, "{body}");
    let token = element(&body, "WebIdentityToken");
    let claims: Value = jsonwebtoken::dangerous::insecure_decode(&token).unwrap().claims;
    assert_eq!(
        (&claims["sub"], &claims["scope"]),
        (&json!("system:serviceaccount:shop:orders"), &json!("read write"))
    );
    let own = &claims["https://sts.amazonaws.com/"];
    assert_eq!(
        (&own["subject_mode"], &own["principal_id"]),
        (&json!("OriginIdentity"), &json!(ROLE))
    );

    for (scope, expected) in [
        ("admin", "403 AccessDenied: User: "),
        ("read%20read", "400 ValidationError: Scope repeats a value"),
        ("read%20%20write", "400 ValidationError: Scope has a space"),
        (
            "read%2Cwrite",
            "400 ValidationError: 1 validation error detected: Value 'read,write' at 'scope'",
        ),
    ] {
        let refused = error(ask("system:serviceaccount:shop:orders", scope).await);
        assert!(refused.starts_with(expected), "{refused}");
    }
}

#[tokio::test]
async fn a_claim_that_stands_twice_is_refused_whichever_of_both_would_be_let_in() {
    let (_issuer, signer, server, _) = setup().await;
    let sign = |claims: &str| {
        let header = Header {
            kid: Some(signer.key_id.to_owned()),
            ..Header::new(signer.algorithm)
        };
        let claims = serde_json::value::RawValue::from_string(claims.to_owned()).unwrap();
        jsonwebtoken::encode(&header, &claims, &signer.key).unwrap()
    };
    let claims = |more: &str| {
        let (issued, expires) = (START - 60, START + 600);
        format!(
            r#"{{"iss":"{ISSUER}","sub":"system:serviceaccount:shop:orders","aud":"sts.amazonaws.com","iat":{issued},"exp":{expires}{more}}}"#
        )
    };
    let tags = r#","https://aws.amazon.com/tags":{"principal_tags":{"team":["blue"]}}"#;
    assert_eq!(assume(&server, &sign(&claims(tags))).await.0, 200);
    for twice in [
        r#","sub":"system:serviceaccount:shop:admin""#.to_owned(),
        r#","https://aws.amazon.com/tags":{"principal_tags":{"team":["blue"],"team":["red"]}}"#.to_owned(),
        r#","https://aws.amazon.com/tags":{"principal_tags":{"team":["blue"],"te\u0061m":["red"]}}"#.to_owned(),
        tags.repeat(2),
    ] {
        let answer = error(assume(&server, &sign(&claims(&twice))).await);
        assert!(
            answer.starts_with("400 InvalidIdentityToken: The ID Token provided is not a valid JWT."),
            "{twice}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_trust_policy_may_ask_how_the_bearer_was_authenticated() {
    let (_issuer, signer, server, _) = setup().await;
    let mut attested = role(ROLE, &json!(ACTIONS));
    attested.trust_policy["Statement"][0]["Condition"]["ForAnyValue:StringLike"] =
        json!({"oidc.tokenscope.test/cluster:amr": "pod*"});
    server.set_role(&attested).unwrap();

    let denied = "403 AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity";
    assert_eq!(
        assume(&server, &signer.token(&json!({"amr": ["jwt", "pod-token"]})))
            .await
            .0,
        200
    );
    for claims in [json!({}), json!({"amr": []}), json!({"amr": ["jwt"]})] {
        assert_eq!(error(assume(&server, &signer.token(&claims)).await), denied, "{claims}");
    }
    for wrong in [json!("pod-token"), json!(["pod-token", 7]), json!({})] {
        assert_eq!(
            error(assume(&server, &signer.token(&json!({"amr": wrong}))).await),
            "400 InvalidIdentityToken: Invalid claim amr: must be a list of strings"
        );
    }
}
