//! What the unmodified SDK of Azure shows a token endpoint of its own process, which trusts issuers and subjects as the federated identity
//! credentials of an application do, and what it gets for it.

use std::fs;

use jiff::Timestamp;
use tokenscope_core::Algorithm;
use tokenscope_e2e::control_plane;
use tokenscope_e2e::pki::CertificateAuthority;
use tokenscope_e2e::token_maker::{KeySet, TokenMaker};

use super::verifiers::changed_signature;
use super::*;

const AUDIENCE: &str = "api://AzureADTokenExchange";
const CLIENT: &str = "00000000-0000-0000-0000-000000000001";
const TENANT: &str = "00000000-0000-0000-0000-000000000002";

/// A container that has a token for Azure and one for another party, and an application of Azure that trusts its service account.
struct Application {
    container: ContainerView,
    subject: String,
    /// The keys of the cluster's issuer.
    keys: Value,
}

impl Application {
    async fn of(namespace: &str) -> Self {
        let shop = shop(namespace).await;
        let tokens = json!([
            {
                "name": "azure", "audience": AUDIENCE, "preset": "Azure",
                "env": [{"name": "AZURE_CLIENT_ID", "value": CLIENT}, {"name": "AZURE_TENANT_ID", "value": TENANT}],
            },
            {"name": "other", "audience": "https://other.example"},
        ]);
        shop.policy("orders", giving(&tokens)).await.unwrap();
        shop.granted(&shop.asking("orders-1", ORDERS)).await.unwrap();
        let container = shop.control_plane.container(namespace, "orders-1", "app").await;
        Self {
            container: container.unwrap(),
            subject: format!("system:serviceaccount:{namespace}:orders"),
            keys: get_json(&shop.client, "/openid/v1/jwks").await.unwrap(),
        }
    }

    fn token(&self, name: &str) -> String {
        fs::read_to_string(self.container.file(&format!("{FOLDER}/{name}/token"))).unwrap()
    }

    /// Tokens that the application doesn't trust, each with what is wrong with it and the words of the refusal.
    fn untrusted(&self, maker: &TokenMaker) -> [(&'static str, String, &'static str); 7] {
        let now = Timestamp::now().as_second();
        let changed = |changes: Value| self.signed(maker, Algorithm::RS256, &changes);
        let (other, own) = (self.token("other"), self.token("azure"));
        let expired = changed(json!({"iat": now - 960, "exp": now - 60}));
        let other_issuer = changed(json!({"iss": "https://other.example"}));
        let clusters_name = changed(json!({"iss": control_plane::ISSUER}));
        let other_subject = changed(json!({"sub": "system:serviceaccount:shop:admin"}));
        let other_algorithm = self.signed(maker, Algorithm::ES256, &json!({}));
        [
            ("the pod's for another party", other, "Audience doesn't match"),
            ("expired", expired, "Signature has expired"),
            ("of another issuer", other_issuer, "the issuer is not trusted"),
            ("in the cluster's name", clusters_name, "the issuer has no such key"),
            ("of another subject", other_subject, "the subject is not trusted"),
            ("with ES256", other_algorithm, "not signed with RS256"),
            ("changed", changed_signature(&own), "Signature verification failed"),
        ]
    }

    /// A token of `maker` for this application, with these claims in the place of its own.
    fn signed(&self, maker: &TokenMaker, algorithm: Algorithm, changes: &Value) -> String {
        let now = Timestamp::now().as_second();
        let mut claims = json!({
            "iss": maker.url(), "sub": self.subject, "aud": AUDIENCE, "iat": now, "exp": now + 900,
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        maker.key(algorithm).unwrap().token(&claims.to_string()).unwrap()
    }

    /// What the SDK gets for the container's token, and for others, each with its name. `maker` is trusted beside the cluster's issuer.
    fn asked(&self, maker: &TokenMaker, others: &[(&str, String)]) -> Value {
        let authority = CertificateAuthority::new("entra").unwrap();
        let served = authority.server(&["127.0.0.1"]).unwrap();
        let written = |name: &str, text: &str| {
            let file = self.container.root.join(name);
            fs::write(&file, text).unwrap();
            file
        };
        let trusts = written("authority.pem", &authority.certificate());
        let identity = written("server.pem", &format!("{}\n{}", served.certificate, served.key));
        let mut files = json!({});
        for (index, (what, token)) in others.iter().enumerate() {
            files[*what] = json!(written(&format!("token-{index}"), token));
        }
        let made: Value = serde_json::from_slice(maker.keys()).unwrap();
        let input = json!({
            "audience": AUDIENCE, "identity": identity, "files": files,
            "trusted": [
                {"issuer": control_plane::ISSUER, "subject": self.subject, "keys": self.keys},
                {"issuer": maker.url(), "subject": self.subject, "keys": made},
            ],
        });
        let variables = [("REQUESTS_CA_BUNDLE", &*trusts)];
        said_to(
            &self.container,
            Tool::Azure,
            include_str!("entra.py"),
            &variables,
            &input.to_string(),
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unmodified_sdk_of_azure_shows_the_pods_token_and_takes_what_it_gets_for_it() {
    let application = Application::of("azure").await;
    let maker = TokenMaker::start(&[Algorithm::RS256], KeySet::Plain).unwrap();
    let said = application.asked(&maker, &[]);
    assert_eq!(
        said["own"],
        json!({
            "access_token": "short-lived",
            "requests": [{"path": format!("/{TENANT}/oauth2/v2.0/token"), "form": {
                "grant_type": "client_credentials", "client_id": CLIENT, "client_assertion": application.token("azure"),
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                "scope": "https://storage.azure.com/.default",
            }}],
        })
    );
}

/// The token of a trusted issuer for which the SDK gets what it asks for, so that each refusal is for what is wrong with the others.
const RIGHT: &str = "of a trusted issuer";

#[tokio::test(flavor = "multi_thread")]
async fn the_unmodified_sdk_of_azure_gets_nothing_for_a_token_that_the_application_doesnt_trust() {
    let application = Application::of("azure-refused").await;
    let maker = TokenMaker::start(&[Algorithm::RS256, Algorithm::ES256], KeySet::Plain).unwrap();
    let untrusted = application.untrusted(&maker);
    let right = application.signed(&maker, Algorithm::RS256, &json!({}));
    let mut shown = vec![(RIGHT, right)];
    shown.extend(untrusted.iter().map(|(what, token, _)| (*what, token.clone())));
    let said = application.asked(&maker, &shown);
    assert_eq!(said["others"][RIGHT], json!({"access_token": "short-lived"}));
    for (what, _, words) in &untrusted {
        let answer = &said["others"][*what];
        let refusal = answer["refused"].as_str().unwrap_or_default();
        assert!(
            refusal.contains("(invalid_client)") && refusal.contains(*words),
            "{what}: {answer}"
        );
    }
}
