//! Tokens as third parties are shown them, with what their issuers publish: of the cluster, of tokenscope's own issuer, and of an account
//! of AWS.

use std::path::PathBuf;

use tokenscope_e2e::issuer::{authority, document, exchange};
use tokenscope_e2e::{boto3, control_plane};
use tokenscope_issuer::issuer_url::KEYS_PATH;
use tokenscope_sts::{OutboundFederation, Permissions, Role, Server, StsConfig, User};

use super::*;

/// The account's issuer, as AWS names them.
pub(crate) const OF_AWS: &str = "https://0d2f7a5c-0000-4000-8000-000000000001.tokens.sts.global.api.aws";
const ANN: &str = "arn:aws:iam::111122223333:user/ann";
const REGION: &str = "eu-central-1";

/// Amazon's own client takes the role, and asks for a token of each algorithm with its credentials.
const ASK: &str = "
import json, sys, boto3
asked = json.load(sys.stdin)
keys = boto3.client('sts').assume_role(RoleArn=asked['role'], RoleSessionName='pod-1')['Credentials']
client = boto3.client('sts', aws_access_key_id=keys['AccessKeyId'], aws_secret_access_key=keys['SecretAccessKey'],
                      aws_session_token=keys['SessionToken'])
tokens = [client.get_web_identity_token(Audience=[asked['audience']], SigningAlgorithm=algorithm)['WebIdentityToken']
          for algorithm in ['RS256', 'ES384']]
print(json.dumps(tokens))
";

/// What the issuer of an account publishes, at the address of the stand-in.
pub(crate) fn keys_at(sts: &str) -> Value {
    const FETCH: &str = "import json, sys, urllib.request; print(urllib.request.urlopen(json.load(sys.stdin), timeout=60).read().decode())";
    let url = json!(format!("{sts}/.well-known/jwks.json"));
    tokio::task::block_in_place(|| boto3::run(FETCH, &[], &url).unwrap())
}

/// A token for [`CLAUDE`], and what its issuer publishes.
pub(crate) struct Shown {
    pub(crate) token: String,
    pub(crate) issuer: String,
    pub(crate) subject: String,
    /// The seconds that it is valid.
    pub(crate) lifetime: i64,
    pub(crate) keys: Value,
    pub(crate) folder: PathBuf,
}

impl Shown {
    /// One that the API server signed for a pod.
    pub(crate) async fn by_a_pod_of(namespace: &str) -> Self {
        let shop = shop(namespace).await;
        shop.policy("orders", giving(&claude())).await.unwrap();
        shop.granted(&shop.asking("orders-1", ORDERS)).await.unwrap();
        let container = shop
            .control_plane
            .container(namespace, "orders-1", "app")
            .await
            .unwrap();
        let token = std::fs::read_to_string(container.file(&format!("{FOLDER}/claude/token"))).unwrap();
        let keys = get_json(&shop.client, "/openid/v1/jwks").await.unwrap();
        Self {
            token,
            issuer: control_plane::ISSUER.to_owned(),
            subject: format!("system:serviceaccount:{namespace}:orders"),
            lifetime: 900,
            keys,
            folder: container.root,
        }
    }

    /// One that tokenscope's own issuer signed for a pod, which shows it the token of its kubelet.
    pub(crate) async fn of_our_issuer(namespace: &str) -> Self {
        let environment = SHARED.environment().await;
        let shop = shop(namespace).await;
        let mut tokens = claude();
        tokens[0]["source"] = json!("Issuer");
        let mut policy = giving(&tokens);
        policy["token"] = json!({"source": "Issuer"});
        shop.policy("orders", policy).await.unwrap();
        shop.granted(&shop.asking("orders-1", ORDERS)).await.unwrap();
        let own = shop.control_plane.pod_token(namespace, "orders-1", URL, 3600).await;
        let own = own.unwrap();
        let (_, port) = environment.installed.issuer(0);
        let authorities = authority(&shop.client).await.unwrap();
        let token = eventually(PROPAGATION, "the pod gets its token", async || {
            let (status, answer) = exchange(port, &authorities, &own, CLAUDE).await?;
            anyhow::ensure!(status == 200, "{status} {answer}");
            Ok(answer["access_token"].as_str().unwrap_or_default().to_owned())
        });
        let token = token.await.unwrap();
        let path = format!("{}{KEYS_PATH}", URL.trim_start_matches(&format!("https://{HOST}")));
        let (_, keys) = document(port, &authorities, &path).await.unwrap();
        Self {
            token,
            issuer: URL.to_owned(),
            subject: format!("system:serviceaccount:{namespace}:orders"),
            lifetime: 900,
            keys,
            folder: shop.control_plane.folder().join(namespace),
        }
    }

    /// Those of an account of AWS, one of each algorithm, by `sts:GetWebIdentityToken` of a strict stand-in. `name` is that of their folder.
    pub(crate) async fn of_aws(name: &str) -> Vec<Self> {
        let environment = SHARED.environment().await;
        let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let sts = Server::start(account(), loopback, None).await.unwrap();
        let url = sts.url();
        let variables = [
            ("AWS_ENDPOINT_URL_STS", &*url),
            ("AWS_DEFAULT_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", "AKIAANNANNANNANNANNA"),
            ("AWS_SECRET_ACCESS_KEY", "of-a-test-only"),
        ];
        let asked = json!({"role": ORDERS, "audience": CLAUDE});
        let given = tokio::task::block_in_place(|| boto3::run(ASK, &variables, &asked).unwrap());
        let keys = keys_at(&url);
        sts.stop().await;
        let tokens = given.as_array().unwrap().iter().enumerate();
        let shown = |(index, token): (usize, &Value)| Self {
            token: token.as_str().unwrap().to_owned(),
            issuer: OF_AWS.to_owned(),
            subject: ORDERS.to_owned(),
            lifetime: 300,
            keys: keys.clone(),
            folder: environment.control_plane.folder().join(format!("{name}-{index}")),
        };
        tokens.map(shown).collect()
    }
}

/// An account in which a user may take the role, and the role may get tokens for [`CLAUDE`] alone.
fn account() -> StsConfig {
    StsConfig {
        users: vec![User {
            arn: ANN.into(),
            access_key_id: "AKIAANNANNANNANNANNA".into(),
            secret_access_key: "of-a-test-only".into(),
        }],
        roles: vec![Role {
            arn: ORDERS.into(),
            trust_policy: json!({"Version": "2012-10-17", "Statement": [
                {"Effect": "Allow", "Principal": {"AWS": ANN}, "Action": "sts:AssumeRole"}]}),
            max_session_duration: 3600,
        }],
        permissions: vec![
            may(ANN, &json!({"Action": "sts:AssumeRole", "Resource": ORDERS})),
            may(
                ORDERS,
                &json!({"Action": "sts:GetWebIdentityToken", "Resource": "*", "Condition": {
                    "ForAllValues:StringEquals": {"sts:IdentityTokenAudience": CLAUDE}}}),
            ),
        ],
        outbound_federation: vec![OutboundFederation {
            account: tokenscope_e2e::fixtures::ACCOUNT.into(),
            issuer: OF_AWS.into(),
        }],
        region: Some(REGION.into()),
        ..StsConfig::default()
    }
}

fn may(principal: &str, statement: &Value) -> Permissions {
    let mut statement = statement.clone();
    statement["Effect"] = json!("Allow");
    Permissions {
        principal: principal.into(),
        policies: vec![json!({"Version": "2012-10-17", "Statement": [statement]})],
        ..Permissions::default()
    }
}
