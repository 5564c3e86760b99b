//! The authority of the issuer's certificate, which a pod is told of at admission and never again; and, of both authorities, that what
//! is distrusted stays so.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::process::ServerProcess;
use tokenscope_e2e::{merge, put};

use super::*;

/// Twice the overlap that these tests have, and the time that watches and replicas need.
const ROTATED: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_know_the_authority_before_go_on_exchanging_after_a_rotation() {
    let environment = SHARED.environment().await;
    let tenant = Tenant::open(environment, "rotated").await;
    let client = &tenant.shop.client;
    let (_, port) = environment.installed.issuer(0);
    let subject = tenant.pod("orders-1").await.unwrap();
    exchanged(port, client, &subject).await.unwrap();
    let old = authority(client).await.unwrap();

    let secret = format!("/api/v1/namespaces/{NAMESPACE}/secrets/tokenscope-issuer-ca");
    let rotate = json!({"metadata": {"annotations": {"tokenscope.io/rotate": "1"}}});
    merge(client, &secret, &rotate).await.unwrap();
    eventually(ROTATED, "new pods are told of the new authority alone", async || {
        let now = authority(client).await?;
        anyhow::ensure!(now.matches("BEGIN CERTIFICATE").count() == 1 && now != old, "{now}");
        Ok(())
    })
    .await
    .unwrap();
    let new = authority(client).await.unwrap();
    let (status, answer) = exchange(port, &old, &subject, STS).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    // The issuer learns of its new certificate by a watch of its own, which those who know both authorities don't notice.
    eventually(ROTATED, "who knows the new authority alone exchanges too", async || {
        let (status, answer) = exchange(port, &new, &subject, STS).await?;
        anyhow::ensure!(status == 200, "{answer}");
        Ok(())
    })
    .await
    .unwrap();
    let (status, answer) = exchange(port, &old, &subject, STS).await.unwrap();
    assert_eq!(status, 200, "{answer}");
}

/// How long the operator may take to see a restored Secret, after a restart of its own and the time that its Lease runs on.
const HEALED: Duration = Duration::from_secs(180);
const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tokenscope";

/// An authority and its certificate, as an administrator sees and restores them.
struct Pair<'a> {
    client: &'a Client,
    authority: &'static str,
    serving: &'static str,
    /// Where the webhook configuration says what of it is distrusted.
    annotation: &'static str,
}

impl Pair<'_> {
    fn path(name: &str) -> String {
        format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}")
    }

    async fn backup(&self) -> Result<[Value; 2]> {
        let mut secrets = [
            get_json(self.client, &Self::path(self.authority)).await?,
            get_json(self.client, &Self::path(self.serving)).await?,
        ];
        for secret in &mut secrets {
            let metadata = secret["metadata"].as_object_mut().context("metadata")?;
            metadata.retain(|key, _| ["name", "namespace", "labels", "annotations"].contains(&key.as_str()));
        }
        Ok(secrets)
    }

    async fn restore(&self, secret: &Value) -> Result<()> {
        let name = secret["metadata"]["name"].as_str().context("a name")?;
        put(self.client, &Self::path(name), secret).await?;
        Ok(())
    }

    async fn restore_without_operator(&self, operator: &ServerProcess, secrets: &[Value]) -> Result<()> {
        operator.kill()?;
        for secret in secrets {
            self.restore(secret).await?;
        }
        operator.restart()
    }

    async fn text(&self, secret: &str, member: &str) -> Result<String> {
        let secret = get_json(self.client, &Self::path(secret)).await?;
        let encoded = secret["data"][member].as_str().context("the member is there")?;
        Ok(String::from_utf8(STANDARD.decode(encoded)?)?)
    }

    /// One authority is trusted, by everybody who can be told, and it is not the leaked one.
    async fn is_settled_without(&self, leaked: &str) -> Result<String> {
        let present = self.text(self.authority, "tls.crt").await?;
        anyhow::ensure!(present != leaked, "the leaked one signs");
        for secret in [self.authority, self.serving] {
            let trusted = self.text(secret, "ca.crt").await?;
            anyhow::ensure!(trusted == present, "{secret} trusts others: {trusted}");
            let noted = get_json(self.client, &Self::path(secret)).await?;
            let noted = noted["metadata"]["annotations"]["tokenscope.io/distrusted-certificates"].is_string();
            anyhow::ensure!(noted, "{secret} does not say what is distrusted");
        }
        let configuration = get_json(self.client, CONFIGURATION).await?;
        anyhow::ensure!(
            configuration["metadata"]["annotations"][self.annotation].is_string(),
            "the configuration does not say what is distrusted"
        );
        Ok(present)
    }

    async fn settled_without(&self, leaked: &str) -> String {
        eventually(HEALED, "the leaked authority is trusted by nobody", async || {
            self.is_settled_without(leaked).await
        })
        .await
        .unwrap()
    }
}

/// The operator writes the configuration after the Secrets.
async fn api_servers_trust(client: &Client, authority: &str) {
    eventually(HEALED, "API servers trust the present authority alone", async || {
        let configuration = get_json(client, CONFIGURATION).await?;
        for webhook in configuration["webhooks"].as_array().context("a list")? {
            let bundle = webhook["clientConfig"]["caBundle"].as_str().context("a caBundle")?;
            let bundle = String::from_utf8(STANDARD.decode(bundle)?)?;
            anyhow::ensure!(bundle == authority, "{}: {bundle}", webhook["name"]);
        }
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_backup_brings_a_distrusted_authority_back_whichever_secrets_it_has_and_whether_or_not_an_operator_runs() {
    let environment = Environment::start(options()).await.unwrap();
    let tenant = Tenant::open(&environment, "distrust").await;
    let client = &tenant.shop.client;
    let operator = environment.installed.operator(0);
    let of_issuer = Pair {
        client,
        authority: "tokenscope-issuer-ca",
        serving: "tokenscope-issuer-tls",
        annotation: "tokenscope.io/distrusted-issuer-certificates",
    };
    let of_webhook = Pair {
        client,
        authority: "tokenscope-ca",
        serving: "tokenscope-webhook-tls",
        annotation: "tokenscope.io/distrusted-certificates",
    };
    for pair in [&of_issuer, &of_webhook] {
        let backup = pair.backup().await.unwrap();
        let [authority, serving] = &backup;
        let leaked = pair.text(pair.authority, "tls.crt").await.unwrap();
        let distrust = json!({"metadata": {"annotations": {"tokenscope.io/distrust": "1"}}});
        merge(client, &Pair::path(pair.authority), &distrust).await.unwrap();
        let present = pair.settled_without(&leaked).await;

        // While the operator runs: the authority alone, and both.
        pair.restore(authority).await.unwrap();
        let after = pair.settled_without(&leaked).await;
        if pair.authority == of_issuer.authority {
            assert_eq!(
                after, present,
                "pods trust no other, so it is the one before that comes back"
            );
        }
        pair.restore(serving).await.unwrap();
        pair.restore(authority).await.unwrap();
        pair.settled_without(&leaked).await;
        // While none runs, each alone and both: then only what is written down remembers.
        for secrets in [&backup[..1], &backup[1..], &backup[..]] {
            pair.restore_without_operator(operator, secrets).await.unwrap();
            pair.settled_without(&leaked).await;
        }
    }
    api_servers_trust(client, &of_webhook.text(of_webhook.authority, "tls.crt").await.unwrap()).await;
    let (_, port) = environment.installed.issuer(0);
    let subject = tenant.pod("orders-1").await.unwrap();
    exchanged(port, client, &subject).await.unwrap();
    assert_eq!(environment.control_plane.forbidden().unwrap(), [""; 0]);
}
