//! radosgw separates two tenants that have one role by the tags of their tokens, and refuses tags where the role does.

use std::time::Duration;

use anyhow::ensure;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokenscope_core::Algorithm;
use tokenscope_e2e::eventually;
use tokenscope_e2e::radosgw::{AccessKeys, Radosgw};
use tokenscope_e2e::token_maker::{KeySet, TokenMaker, with_claims, with_header};
use tokenscope_issuer::claims::TAGS;
use tokenscope_issuer::grant::TokenGrant;
use tokenscope_issuer::keys::{SigningKey, algorithm_name};
use tokio::sync::OnceCell;

use crate::{SUBJECT, grant, tagged_grant};

/// What radosgw takes tokens for.
pub(crate) const AUDIENCE: &str = "sts.amazonaws.com";

/// radosgw with a bucket of two tenants, and an issuer that it trusts. Of an issuer it takes the first key only, so there is
/// one for each algorithm; and it reads a key from its certificate only, so the test adds those.
struct Store {
    radosgw: Radosgw,
    issuers: Vec<(Algorithm, TokenMaker)>,
    /// One of RS256 whose key set is ours as it is served.
    plain: TokenMaker,
}

/// The tenants. Each has one object, below its name, and the object's tag `team` is its name too.
pub(crate) const TENANTS: [&str; 2] = ["a", "b"];

const BUCKET: &str = "shop";

/// The role that trusts tokens with tags.
const TENANT_ROLE: &str = "tenant";

/// The same, but it doesn't allow `sts:TagSession`.
const ROLE_WITHOUT_TAGS: &str = "without-tags";

/// The same as the first, but it allows the tag `team` to be `a` only.
const ROLE_OF_A: &str = "of-a";

/// The same as the first for the issuer whose key set is served as it is.
const ROLE_OF_KEY_SET: &str = "tenant-as-served";

/// What a role allows to tokens with tags; the first alone, to tokens without.
pub(crate) const ALL_ACTIONS: &[&str] = &["sts:AssumeRoleWithWebIdentity", "sts:TagSession"];

impl Store {
    /// One for all tests of this program.
    async fn shared() -> &'static Self {
        static SHARED: OnceCell<Result<Store, String>> = OnceCell::const_new();
        let started = SHARED.get_or_init(async || Self::start().await.map_err(|error| format!("{error:#}")));
        match started.await {
            Ok(store) => store,
            Err(message) => panic!("radosgw can't judge: {message}"),
        }
    }

    async fn start() -> anyhow::Result<Self> {
        let radosgw = Radosgw::start().await?;
        let mut issuers = Vec::new();
        for algorithm in Algorithm::ALL {
            let issuer = TokenMaker::start(&[algorithm], KeySet::WithCertificates)?;
            let host = radosgw.trust_issuer(issuer.url(), AUDIENCE)?;
            for (role, actions, tag) in [
                (TENANT_ROLE, ALL_ACTIONS, None),
                (ROLE_WITHOUT_TAGS, &ALL_ACTIONS[..1], None),
                (ROLE_OF_A, ALL_ACTIONS, Some("a")),
            ] {
                let trust_policy = trust_policy(host, &[SUBJECT], actions, tag);
                radosgw.add_role(&role_of(role, algorithm), &trust_policy, &tenants_policy())?;
            }
            issuers.push((algorithm, issuer));
        }
        let plain = TokenMaker::start(&[Algorithm::RS256], KeySet::Plain)?;
        let host = radosgw.trust_issuer(plain.url(), AUDIENCE)?;
        radosgw.add_role(
            ROLE_OF_KEY_SET,
            &trust_policy(host, &[SUBJECT], ALL_ACTIONS, None),
            &tenants_policy(),
        )?;
        fill_bucket(&radosgw)?;
        Ok(Self {
            radosgw,
            issuers,
            plain,
        })
    }

    fn issuer(&self, algorithm: Algorithm) -> &TokenMaker {
        &self.issuers.iter().find(|(of, _)| *of == algorithm).unwrap().1
    }

    fn key(&self, algorithm: Algorithm) -> &SigningKey {
        self.issuer(algorithm).key(algorithm).unwrap()
    }

    /// A token of ours.
    fn token(&self, grant: &TokenGrant) -> String {
        self.issuer(grant.algorithm).token(grant).unwrap()
    }

    /// The keys of a session that is granted.
    fn assume(&self, role: &str, algorithm: Algorithm, token: &str) -> AccessKeys {
        self.radosgw.assume(&role_of(role, algorithm), token).unwrap().unwrap()
    }

    fn refuses(&self, role: &str, algorithm: Algorithm, token: &str, what: &str) {
        match self.radosgw.assume(&role_of(role, algorithm), token).unwrap() {
            Ok(keys) => panic!("{what} was accepted: {keys:?}"),
            Err(refusal) => assert_eq!(refusal.status, 403, "{what}: {refusal:?}"),
        }
    }

    fn sees(&self, keys: &AccessKeys) -> Vec<bool> {
        sees(&self.radosgw, keys)
    }
}

/// Makes the bucket, with the object of each tenant.
pub(crate) fn fill_bucket(radosgw: &Radosgw) -> anyhow::Result<()> {
    let mut calls = vec![("s3", "create_bucket", json!({"Bucket": BUCKET}))];
    for tenant in TENANTS {
        let key = format!("{tenant}/orders");
        calls.push((
            "s3",
            "put_object",
            json!({"Bucket": BUCKET, "Key": key, "Body": tenant, "Tagging": format!("team={tenant}")}),
        ));
    }
    radosgw.administer(&calls)
}

/// True for each call that these keys are allowed, of what each tenant has: `[read a, list a, read b, list b]`.
pub(crate) fn sees(radosgw: &Radosgw, keys: &AccessKeys) -> Vec<bool> {
    let calls: Vec<_> = TENANTS
        .iter()
        .flat_map(|tenant| {
            [
                (
                    "s3",
                    "get_object",
                    json!({"Bucket": BUCKET, "Key": format!("{tenant}/orders")}),
                ),
                ("s3", "list_objects_v2", json!({"Bucket": BUCKET, "Prefix": tenant})),
            ]
        })
        .collect();
    let outcomes = radosgw.calls(keys, &calls).unwrap();
    outcomes
        .into_iter()
        .zip(&calls)
        .map(|(outcome, (_, call, arguments))| match outcome {
            Ok(answer) if *call == "get_object" => {
                let key = arguments["Key"].as_str().unwrap();
                assert_eq!(answer["Body"].as_str(), key.split('/').next());
                true
            }
            Ok(answer) => {
                assert_eq!(answer["KeyCount"], 1, "{answer}");
                true
            }
            Err(refused) => {
                assert_eq!((refused.status, refused.code.as_str()), (403, "AccessDenied"));
                false
            }
        })
        .collect()
}

fn role_of(role: &str, algorithm: Algorithm) -> String {
    format!("{role}-{}", algorithm_name(algorithm))
}

/// What is granted without tags.
fn untagged(algorithm: Algorithm) -> TokenGrant {
    grant(AUDIENCE, algorithm)
}

/// What is granted with this value of the tag `team`.
fn tagged(algorithm: Algorithm, team: &str) -> TokenGrant {
    tagged_grant(AUDIENCE, algorithm, team)
}

/// Whom a role trusts: these subjects of one issuer, and only with this value of the tag `team` if one is given.
pub(crate) fn trust_policy(host: &str, subjects: &[&str], actions: &[&str], team: Option<&str>) -> Value {
    let mut condition = json!({format!("{host}:aud"): AUDIENCE, format!("{host}:sub"): subjects});
    if let Some(team) = team {
        condition["aws:RequestTag/team"] = json!(team);
    }
    json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": actions, "Condition": {"StringEquals": condition},
        "Principal": {"Federated": [format!("arn:aws:iam:::oidc-provider/{host}")]},
    }]})
}

/// Who has the tag `team` may list what is below its value, and read the objects that have the same tag. Nothing here names
/// a tenant.
pub(crate) fn tenants_policy() -> Value {
    let team = "${aws:PrincipalTag/team}";
    let statement = |action: &str, resource: &str, key: &str| {
        json!({
            "Effect": "Allow", "Action": action, "Resource": format!("arn:aws:s3:::{resource}"),
            "Condition": {"StringEquals": {key: team}},
        })
    };
    json!({"Version": "2012-10-17", "Statement": [
        statement("s3:ListBucket", BUCKET, "s3:prefix"),
        statement("s3:GetObject", &format!("{BUCKET}/*"), "s3:ExistingObjectTag/team"),
    ]})
}

#[tokio::test]
async fn two_tenants_with_one_role_see_only_their_own_at_radosgw() {
    let store = Store::shared().await;
    for algorithm in Algorithm::ALL {
        for (tenant, expected) in [("a", [true, true, false, false]), ("b", [false, false, true, true])] {
            let token = store.token(&tagged(algorithm, tenant));
            let keys = store.assume(TENANT_ROLE, algorithm, &token);
            let name = algorithm_name(algorithm);
            assert_eq!(store.sees(&keys), expected, "tenant {tenant}, {name}");
        }
    }
    println!("radosgw: {:?}", store.radosgw.memory().unwrap());
}

#[tokio::test]
async fn radosgw_gives_nothing_to_a_session_without_the_tag_or_with_a_tag_of_nobody() {
    let store = Store::shared().await;
    let algorithm = Algorithm::RS256;
    let honest = store.token(&tagged(algorithm, "c"));
    let mut tokens = vec![store.token(&untagged(algorithm)), honest.clone()];
    for pattern in ["${aws:PrincipalTag/team}", "*"] {
        // Our issuer signs no such value: the claims of a policy can't be filled with it.
        assert!(!tokenscope_core::claims::is_tag_text(pattern));
        let changes = json!({ (TAGS): {"principal_tags": {"team": [pattern]}} });
        tokens.push(with_claims(&honest, &changes, store.key(algorithm)).unwrap());
    }
    for token in tokens {
        let keys = store.assume(TENANT_ROLE, algorithm, &token);
        assert_eq!(store.sees(&keys), [false; 4], "{token}");
    }
}

#[tokio::test]
async fn radosgw_finds_no_key_in_our_key_set_where_the_flag_x5c_is_off() {
    let store = Store::shared().await;
    let token = store.plain.token(&tagged(Algorithm::RS256, "a")).unwrap();
    let refusal = store.radosgw.assume(ROLE_OF_KEY_SET, &token).unwrap().unwrap_err();
    assert_eq!(refusal.status, 403, "{refusal:?}");
    // It writes its log a moment later, and other tests write there, too.
    eventually(Duration::from_secs(60), "the log says why", async || {
        let log = store.radosgw.log_tail(usize::MAX);
        ensure!(log.contains("x5c not present"), "{}", store.radosgw.log_tail(30));
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn radosgw_refuses_tags_for_a_role_that_does_not_allow_tag_session() {
    let store = Store::shared().await;
    for algorithm in [Algorithm::RS256, Algorithm::ES384] {
        let tagged = store.token(&tagged(algorithm, "a"));
        store.refuses(ROLE_WITHOUT_TAGS, algorithm, &tagged, "a token with tags");
        store.assume(ROLE_WITHOUT_TAGS, algorithm, &store.token(&untagged(algorithm)));
    }
}

#[tokio::test]
async fn radosgw_refuses_a_tag_that_the_trust_policy_does_not_allow() {
    let store = Store::shared().await;
    let algorithm = Algorithm::RS256;
    store.assume(ROLE_OF_A, algorithm, &store.token(&tagged(algorithm, "a")));
    let other = store.token(&tagged(algorithm, "b"));
    store.refuses(ROLE_OF_A, algorithm, &other, "another tag");
    let untagged = store.token(&untagged(algorithm));
    store.refuses(ROLE_OF_A, algorithm, &untagged, "no tag");
}

#[tokio::test]
async fn radosgw_refuses_what_the_issuer_did_not_say_of_this_subject_now() {
    let store = Store::shared().await;
    let now = Timestamp::now().as_second();
    for algorithm in [Algorithm::RS256, Algorithm::ES384] {
        let key = store.key(algorithm);
        let token = store.token(&tagged(algorithm, "a"));
        for changes in [
            json!({"aud": "other"}),
            json!({"sub": "system:serviceaccount:shop:other"}),
            json!({"iss": "http://127.0.0.1:1"}),
            json!({"iat": now - 600, "nbf": now - 600, "exp": now - 60}),
            json!({"nbf": now + 3000}),
        ] {
            let changed = with_claims(&token, &changes, key).unwrap();
            store.refuses(TENANT_ROLE, algorithm, &changed, &changes.to_string());
        }
        let other = store.token(&tagged(algorithm, "b"));
        let (head, signature) = (token.split('.').next().unwrap(), token.rsplit('.').next().unwrap());
        let tampered = format!("{head}.{}.{signature}", other.split('.').nth(1).unwrap());
        store.refuses(TENANT_ROLE, algorithm, &tampered, "a changed tag");

        let header = json!({"alg": algorithm_name(algorithm), "typ": "JWT", "kid": key.kid()});
        let unknown = SigningKey::generate(algorithm).unwrap();
        let forged = with_header(&token, &header, |message| Ok(unknown.sign(message)?)).unwrap();
        store.refuses(TENANT_ROLE, algorithm, &forged, "another key under the published ID");
        let unsigned = with_header(&token, &json!({"alg": "none"}), |_| Ok(Vec::new())).unwrap();
        store.refuses(TENANT_ROLE, algorithm, &unsigned, "alg none");

        store.assume(TENANT_ROLE, algorithm, &token);
    }
}
