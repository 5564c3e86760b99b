//! The webhook is down, hangs, or isn't registered any more.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_e2e::admission::{accepts, rejects, try_pod};
use tokenscope_e2e::fixtures::{CARTS, ORDERS, Shop, annotation, reviewed, variable, with_annotations};
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::install::Options;
use tokenscope_e2e::pki::CertificateAuthority;
use tokenscope_e2e::{delete, eventually, get_json, put};

use crate::{CONFIGURATION, SOON, Scenario, bundles, policy_when, runs, until_after};

#[tokio::test]
async fn no_pod_that_asks_gets_past_a_missing_webhook_and_the_others_are_admitted_and_reported() {
    // As by default; the harness would let the API server wait longer for a webhook that hangs.
    let scenario = Scenario::start(Options {
        values: json!({"webhook": {"timeoutSeconds": 2}}),
        ..Options::default()
    })
    .await;
    let shops = Shops::open(&scenario).await;

    shops.everything_is_there().await;
    shops.it_crashes().await;
    shops.those_that_run_without_are_reported().await;
    shops.it_hangs().await;
    shops.it_is_back().await;
    scenario.holds(&[]);

    shops.its_registration_is_deleted().await;
    shops.it_is_registered_again().await;
    shops.its_ca_bundle_is_damaged().await;
    scenario.holds(&[]);
}

/// Namespaces of three kinds, with policies that allow a role and assign one.
struct Shops<'a> {
    scenario: &'a Scenario,
    shop: Shop<'a>,
    /// It requires a review of each pod.
    strict: Shop<'a>,
    opted_out: Shop<'a>,
}

impl<'a> Shops<'a> {
    async fn open(scenario: &'a Scenario) -> Self {
        let control_plane = &scenario.control_plane;
        let shop = Shop::open(control_plane, "shop", &[]).await.unwrap();
        let strict = Shop::open(control_plane, "strict", &[("tokenscope.io/required", "true")])
            .await
            .unwrap();
        let opted_out = Shop::open(control_plane, "opted-out", &[("tokenscope.io/inject", "false")])
            .await
            .unwrap();
        control_plane
            .create_service_account("shop", "annotated", &[("tokenscope.io/role-arn", ORDERS)])
            .await
            .unwrap();
        shop.allow_orders().await.unwrap();
        let spec = json!({
            "subjects": [{"serviceAccounts": ["annotated"]}, {"podSelector": {"matchLabels": {"app": "by-default"}}}],
            "roles": {"allowed": [ORDERS, CARTS], "default": CARTS},
        });
        shop.policy("both", spec).await.unwrap();
        Self {
            scenario,
            shop,
            strict,
            opted_out,
        }
    }

    /// A pod to which a policy assigns a role.
    fn by_default(&self, name: &str) -> Value {
        let mut pod = self.shop.pod(name);
        pod["metadata"]["labels"] = json!({"app": "by-default"});
        pod
    }

    /// A pod whose service account names a role.
    fn of_account(&self, name: &str) -> Value {
        let mut pod = self.shop.pod(name);
        pod["spec"]["serviceAccountName"] = json!("annotated");
        pod
    }

    /// Everything is there.
    async fn everything_is_there(&self) {
        let shop = &self.shop;
        let client = &self.shop.client;
        shop.granted(&shop.asking("asking", ORDERS)).await.unwrap();
        shop.granted(&self.by_default("by-default")).await.unwrap();
        shop.granted(&self.of_account("of-account")).await.unwrap();
        accepts(client, &self.strict.pod("plain")).await.unwrap();
        for pod in ["asking", "by-default", "of-account"] {
            runs(shop, pod).await;
        }
        let policy = policy_when(shop, "both", SOON, counts(2, 2, 0)).await.unwrap();
        until_after(shop, &policy["status"]["generationObservedAt"]).await;
    }

    /// It crashed: who asks is refused, nobody else is held up.
    async fn it_crashes(&self) {
        let shop = &self.shop;
        let client = &self.shop.client;
        let webhook = self.scenario.installed.webhook(0);
        webhook.kill().unwrap();
        let message = rejects(client, &shop.asking("asking-down", ORDERS)).await.unwrap();
        assert!(message.contains("'tokenscope-guard'"), "{message}");
        let message = rejects(client, &self.strict.pod("plain-down")).await.unwrap();
        assert!(message.contains("'tokenscope-guard-required'"), "{message}");
        let plain = accepts(client, &shop.pod("plain-down")).await.unwrap();
        assert_eq!(plain["metadata"]["annotations"]["tokenscope.io/grant"], Value::Null);
        for pod in [self.by_default("by-default-down"), self.of_account("of-account-down")] {
            let pod = accepts(client, &pod).await.unwrap();
            assert_eq!(variable(&pod, "app", "AWS_ROLE_ARN"), None);
        }
        // The control plane and we ourselves never wait for us, whatever a pod says.
        for namespace in ["kube-system", NAMESPACE, &self.opted_out.namespace] {
            let mut pod = with_annotations(shop.pod("asking-down"), &[("tokenscope.io/role-arn", ORDERS)]);
            pod["metadata"]["namespace"] = json!(namespace);
            pod["spec"]["serviceAccountName"] = json!("default");
            accepts(client, &pod)
                .await
                .with_context(|| namespace.to_owned())
                .unwrap();
        }
        accepts(
            client,
            &with_annotations(shop.asking("without", ORDERS), &[("tokenscope.io/inject", "false")]),
        )
        .await
        .unwrap();
    }

    /// The operator finds those that run without what they should have.
    async fn those_that_run_without_are_reported(&self) {
        let shop = &self.shop;
        runs(shop, "by-default-down").await;
        runs(shop, "of-account-down").await;
        runs(shop, "plain-down").await;
        policy_when(shop, "both", SOON, counts(4, 2, 2)).await.unwrap();
        for pod in ["by-default-down", "of-account-down"] {
            missed(shop, pod).await.unwrap();
        }
        let events = shop.events_about("Pod", "plain-down").await.unwrap();
        assert!(events.is_empty(), "{events:?}");
    }

    /// It hangs: the API server waits for it, no longer than it is told to.
    async fn it_hangs(&self) {
        let shop = &self.shop;
        let client = &self.shop.client;
        let webhook = self.scenario.installed.webhook(0);
        webhook.restart().unwrap();
        webhook.wait_ready(Duration::from_secs(180)).await.unwrap();
        webhook.signal("STOP").unwrap();
        let (asking, concerned) = (
            shop.asking("asking-hanging", ORDERS),
            self.by_default("by-default-hanging"),
        );
        let (refused, admitted) = tokio::join!(rejects(client, &asking), accepts(client, &concerned));
        let message = refused.unwrap();
        assert!(message.contains("'tokenscope-guard'"), "{message}");
        assert_eq!(reviewed(&admitted.unwrap()), None);
        webhook.signal("CONT").unwrap();
    }

    /// It is back: everything works, and making the pods anew repairs them.
    async fn it_is_back(&self) {
        let shop = &self.shop;
        let client = &self.shop.client;
        let back = eventually(SOON, "the webhook is back", async || {
            let answer = try_pod(client, &shop.asking("asking-back", ORDERS)).await?;
            ensure!(reviewed(&answer.body) == Some("granted"), "{}", answer.message());
            Ok(answer.body)
        });
        assert_eq!(
            variable(&back.await.unwrap(), "app", "AWS_ROLE_ARN").as_deref(),
            Some(ORDERS)
        );
        for pod in ["by-default-down", "of-account-down", "by-default-hanging"] {
            delete(client, &shop.path(&format!("pods/{pod}"))).await.unwrap();
        }
        for pod in [self.by_default("by-default-down"), self.of_account("of-account-down")] {
            shop.granted(&pod).await.unwrap();
        }
        runs(shop, "by-default-down").await;
        runs(shop, "of-account-down").await;
        policy_when(shop, "both", SOON, counts(4, 4, 0)).await.unwrap();
    }

    /// Somebody deletes the registration: behind it stands the guard.
    async fn its_registration_is_deleted(&self) {
        let shop = &self.shop;
        let client = &self.shop.client;
        delete(client, CONFIGURATION).await.unwrap();
        guarded(
            client,
            shop.asking("asking-unregistered", ORDERS),
            "the pod asks for an AWS role",
        )
        .await
        .unwrap();
        let of_container = with_annotations(shop.pod("asking-c"), &[("tokenscope.io/role-arn.app", ORDERS)]);
        guarded(client, of_container, "the pod asks for an AWS role")
            .await
            .unwrap();
        guarded(
            client,
            self.strict.pod("plain-unregistered"),
            "namespace strict requires a review",
        )
        .await
        .unwrap();
        accepts(client, &shop.pod("plain-unregistered")).await.unwrap();
        let by_default_unregistered = accepts(client, &self.by_default("by-default-unregistered"))
            .await
            .unwrap();
        assert_eq!(annotation(&by_default_unregistered, "tokenscope.io/grant"), None);
        runs(shop, "by-default-unregistered").await;
        policy_when(shop, "both", SOON, counts(5, 4, 1)).await.unwrap();
        missed(shop, "by-default-unregistered").await.unwrap();
        self.an_event_tells_that_the_configuration_is_missing().await;
    }

    async fn an_event_tells_that_the_configuration_is_missing(&self) {
        let client = &self.shop.client;
        eventually(SOON, "an Event tells that the configuration is missing", async || {
            let events = get_json(client, "/api/v1/namespaces/default/events").await?;
            let mut events = events["items"].as_array().context("no list")?.iter();
            let event = events.find(|event| event["reason"] == "WebhookConfigurationMissing");
            let event = event.context("there is none")?;
            ensure!(event["involvedObject"]["name"] == "tokenscope", "{event}");
            Ok(())
        })
        .await
        .unwrap();
    }

    /// It is registered again, without a caBundle, which the operator knows.
    async fn it_is_registered_again(&self) {
        let shop = &self.shop;
        let registration = self.scenario.installed.objects().iter();
        let registration: Vec<Value> = registration
            .filter(|object| object["kind"] == "MutatingWebhookConfiguration")
            .cloned()
            .collect();
        assert_eq!(registration.len(), 1);
        self.scenario
            .control_plane
            .apply(&registration, NAMESPACE)
            .await
            .unwrap();
        self.scenario
            .installed
            .wait_ready(&self.scenario.control_plane)
            .await
            .unwrap();
        shop.granted(&shop.asking("asking-registered", ORDERS)).await.unwrap();
    }

    /// Somebody wipes the caBundle, or puts another one there.
    async fn its_ca_bundle_is_damaged(&self) {
        let shop = &self.shop;
        let client = &self.shop.client;
        let healthy = bundles(client).await.unwrap();
        assert!(healthy.iter().all(|bundle| !bundle.is_empty()), "{healthy:?}");
        let foreign = {
            use base64::prelude::{BASE64_STANDARD, Engine as _};
            BASE64_STANDARD.encode(CertificateAuthority::new("foreign").unwrap().certificate())
        };
        for bundle in [Value::Null, json!(foreign)] {
            eventually(SOON, "the caBundle is damaged", async || {
                let mut configuration = get_json(client, CONFIGURATION).await?;
                for webhook in configuration["webhooks"].as_array_mut().context("it has webhooks")? {
                    webhook["clientConfig"]["caBundle"] = bundle.clone();
                }
                put(client, CONFIGURATION, &configuration).await.context("a conflict")
            })
            .await
            .unwrap();
            eventually(SOON, "the operator has healed the caBundle", async || {
                let now = bundles(client).await?;
                ensure!(now == healthy, "it is {now:?}");
                Ok(())
            })
            .await
            .unwrap();
            let name = format!("asking-healed-{}", if bundle.is_null() { "wiped" } else { "foreign" });
            shop.granted(&shop.asking(&name, ORDERS)).await.unwrap();
        }
    }
}

/// The guard refuses the pod, and says this.
async fn guarded(client: &Client, pod: Value, says: &'static str) -> Result<()> {
    eventually(SOON, format!("the guard says {says:?}"), async || {
        let answer = try_pod(client, &pod).await?;
        ensure!(
            answer.status == 403 && answer.message().contains(says),
            "{} {}",
            answer.status,
            answer.body
        );
        ensure!(answer.message().contains("tokenscope-guard"), "{}", answer.message());
        ensure!(answer.message().contains("did not review"), "{}", answer.message());
        Ok(())
    })
    .await
}

fn counts(matched: i64, injected: i64, missed: i64) -> impl Fn(&Value) -> Result<()> {
    move |policy| {
        let status = &policy["status"];
        let found = ["matchedPods", "injectedPods", "missedPods"].map(|field| status[field].as_i64().unwrap_or(-1));
        ensure!(
            found == [matched, injected, missed],
            "matched, injected and missed are {found:?}"
        );
        Ok(())
    }
}

/// The Event is on the pod, and says what to do.
async fn missed(shop: &Shop<'_>, pod: &str) -> Result<()> {
    eventually(SOON, format!("there is an Event on {pod}"), async || {
        let events = shop.events_about("Pod", pod).await?;
        let found = events.iter().find(|event| event["reason"] == "CredentialsMissed");
        let event = found.with_context(|| format!("{events:?}"))?;
        ensure!(event["type"] == "Warning", "{event}");
        let message = event["message"].as_str().unwrap_or_default();
        ensure!(message.contains("both"), "the policy isn't named: {message}");
        Ok(())
    })
    .await
}
