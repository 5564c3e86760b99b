//! Credentials that the sidecar serves in a pod, taken with tokens of a real SPIRE.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use tokenscope_core::credentials_endpoint::{
    AUTHORIZATION_FILE, AUTHORIZATION_FILE_VARIABLE, CredentialsEndpoint, ENDPOINT_VARIABLE, FULL_URI_VARIABLE,
};
use tokenscope_core::sidecar::variables;
use tokenscope_e2e::eventually;
use tokenscope_e2e::sidecar::{FILE, Sidecar};
use tokenscope_e2e::spire::{Options, Spire, TRUST_DOMAIN};
use tokenscope_fixtures::free_port;
use tokenscope_sidecar::token::Token;

use crate::{PATIENCE, ROLE, caller};

/// A role that is not there at first.
const LATE_ROLE: &str = "arn:aws:iam::111122223333:role/shop/late";

/// Policies with `delivery.type: Endpoint` and `token.source: SPIFFE`: from the Workload API over STS to what containers are served. A second role
/// is not there before the token is another one, so what takes it is the renewed token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_served_that_sts_gives_for_spires_token_and_for_the_one_that_follows_it() {
    let spire = Spire::start(Options::default()).await.unwrap();
    spire.register("ns/shop/sa/orders", "", 60).unwrap();
    let subject = format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/orders");
    let sts = spire.strict_sts(ROLE, &subject).await.unwrap();
    let served = ServedPod::start(&spire, &sts.url(), &[("app", ROLE), ("late", LATE_ROLE)]);

    // STS says so only once it has found that the token is SPIRE's.
    eventually(PATIENCE, "the second role is refused, and nothing else", async || {
        let why = served.sidecar.probe()?.err().unwrap_or_default();
        let is_refused = why.starts_with("container late has no credentials: ") && why.contains("AccessDenied");
        anyhow::ensure!(is_refused, "the probe says {why:?}");
        Ok(())
    })
    .await
    .unwrap();
    let arn = |role: &str| format!("arn:aws:sts::111122223333:assumed-role/{role}/orders-1");
    let identity = |container: &str| tokio::task::block_in_place(|| served.who_am_i(container, &sts.url())).unwrap();
    assert_eq!(identity("app"), arn("orders"));

    let first = served.sidecar.token(FILE).unwrap();
    let is_another = |token: &Token| token.issued_at > first.issued_at;
    let renewed = served.sidecar.wait_for(PATIENCE, "the token is renewed", is_another);
    renewed.await.unwrap();
    sts.add_role(&spire.role(LATE_ROLE, &subject)).unwrap();
    eventually(PATIENCE, "the second role is taken", async || {
        served.sidecar.probe()?.map_err(|why| anyhow::anyhow!(why))
    })
    .await
    .unwrap();
    assert_eq!((identity("late"), identity("app")), (arn("late"), arn("orders")));
    sts.stop().await;
}

/// The sidecar of a pod whose containers are served, each with a role that is taken with one token of SPIRE.
struct ServedPod {
    sidecar: Sidecar,
    endpoint: CredentialsEndpoint,
    /// The folders of the containers' authorization tokens.
    authorizations: PathBuf,
}

impl ServedPod {
    fn start(spire: &Spire, sts: &str, roles: &[(&str, &str)]) -> Self {
        const NAME: &str = "serving";
        let authorizations = spire.folder().join("authorizations");
        let token_file = spire.folder().join(NAME).join(FILE).display().to_string();
        let containers = roles.iter().map(|(container, role)| {
            fs::create_dir_all(authorizations.join(container)).unwrap();
            let served = json!({
                "name": container, "tokenFile": token_file, "role": {"role": role}, "regions": ["eu-central-1"],
            });
            serde_json::from_value(served).unwrap()
        });
        let endpoint = CredentialsEndpoint {
            port: free_port().unwrap(),
            containers: containers.collect(),
            has_all_containers: false,
            sts_url: Some(sts.into()),
            sts_authorities: None,
        };
        let told = serde_json::to_string(&endpoint).unwrap();
        let folders = authorizations.display().to_string();
        let more = [
            (ENDPOINT_VARIABLE, told.as_str()),
            (variables::AUTHORIZATION_FOLDERS, &folders),
            (variables::POD_NAME, "orders-1"),
            (variables::INJECTED, "true"),
        ];
        let sidecar = Sidecar::start(spire.folder(), NAME, &spire.socket(), spire.watchdog(), &more).unwrap();
        Self {
            sidecar,
            endpoint,
            authorizations,
        }
    }

    /// Who the unmodified AWS SDK is in a container.
    fn who_am_i(&self, container: &str, sts: &str) -> anyhow::Result<String> {
        let authorization = self.authorizations.join(container).join(AUTHORIZATION_FILE);
        caller(&[
            ("AWS_ENDPOINT_URL_STS", sts),
            (FULL_URI_VARIABLE, &self.endpoint.url_of(container)),
            (AUTHORIZATION_FILE_VARIABLE, &authorization.display().to_string()),
        ])
    }
}
