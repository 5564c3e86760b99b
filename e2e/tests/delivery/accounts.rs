//! A pod with a chain of roles over two accounts, and somebody else's IAM and STS (MiniStack) in which both are.

use std::fs;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokenscope_core::config_file::CONFIG_FILE;
use tokenscope_e2e::container::ContainerView;
use tokenscope_e2e::fixtures::{ORDERS, PROPAGATION, Shop};
use tokenscope_e2e::ministack::MiniStack;
use tokenscope_e2e::token_maker::claims_of;
use tokenscope_e2e::{eventually, get_json};

use super::{by_file, chain, shop, write_files};

/// The accounts of the chain's first role and of its second one.
const HOME: &str = "111122223333";
const ABROAD: &str = "444455556666";

/// Who an SDK is that has gone through the whole chain in pod `orders-1`.
pub(super) const AT_THE_END: &str = "arn:aws:sts::444455556666:assumed-role/target/orders-1";

/// A stored pod `orders-1` with a chain of roles, the documents of its policy's status, and its container after the init container has ended.
pub(super) struct ChainedPod {
    pub(super) shop: Shop<'static>,
    pub(super) stored: Value,
    pub(super) container: ContainerView,
    /// The permission that the first role needs.
    pub(super) permission: Value,
    /// The trust policies of the first role and of the second one.
    pub(super) trust: [Value; 2],
}

impl ChainedPod {
    /// `metadata` is what the pod has more of labels and annotations.
    pub(super) async fn create(namespace: &str, metadata: &Value) -> Self {
        let shop = shop(namespace).await;
        shop.policy("orders", by_file(&chain())).await.unwrap();
        let mut pod = shop.asking("orders-1", ORDERS);
        for map in ["labels", "annotations"] {
            for (key, value) in metadata[map].as_object().into_iter().flatten() {
                pod["metadata"][map][key] = value.clone();
            }
        }
        let stored = shop.granted(&pod).await.unwrap().body;
        let (permission, second) = documents(&shop).await;
        let first = shop.trust_policy("orders", ORDERS).await.unwrap();
        let container = container(&shop, &stored).await;
        Self {
            shop,
            stored,
            container,
            permission,
            trust: [first, second],
        }
    }

    /// The text that the init container has written.
    pub(super) fn config_file(&self) -> String {
        config_file(&self.container)
    }

    /// The token's file, as the config file names it.
    pub(super) fn token_file(&self) -> String {
        token_file(&self.container)
    }

    /// Sets the container up again, with the pod as it is stored now, and lets its init container write.
    pub(super) async fn start_again(&mut self) {
        let path = self.shop.path("pods/orders-1");
        self.stored = get_json(&self.shop.client, &path).await.unwrap();
        fs::remove_file(self.container.file(CONFIG_FILE)).unwrap();
        self.container = container(&self.shop, &self.stored).await;
    }
}

async fn container(shop: &Shop<'_>, stored: &Value) -> ContainerView {
    let container = shop
        .control_plane
        .container(&shop.namespace, "orders-1", "app")
        .await
        .unwrap();
    write_files(stored, &container).unwrap();
    with_one_audience(&container);
    container
}

fn config_file(container: &ContainerView) -> String {
    fs::read_to_string(container.file(CONFIG_FILE)).unwrap()
}

fn token_file(container: &ContainerView) -> String {
    let text = config_file(container);
    let mut lines = text.lines();
    let file = lines.find_map(|line| line.strip_prefix("web_identity_token_file = "));
    file.unwrap().to_owned()
}

/// The documents of the chain in the policy's status: the permission of the first role, and the trust policy of the second.
async fn documents(shop: &Shop<'_>) -> (Value, Value) {
    let path = format!(
        "/apis/tokenscope.io/v1alpha1/namespaces/{}/tokenscopepolicies/orders",
        shop.namespace
    );
    let roles = eventually(PROPAGATION, "the status has the policies of the chain", async || {
        let object = get_json(&shop.client, &path).await?;
        let roles = object["status"]["roleChainPolicies"].as_array().cloned();
        roles.with_context(|| object["status"].to_string())
    });
    let roles = roles.await.unwrap();
    let document = |at: usize, name: &str| serde_json::from_str(roles[at][name].as_str().unwrap()).unwrap();
    (document(0, "permissionPolicy"), document(1, "trustPolicy"))
}

/// Writes a token's only audience as a text and no longer as a list of one, which makes its signature wrong. Kubernetes writes a list, and AWS takes
/// both. MiniStack compares each condition without `ForAnyValue` or `ForAllValues` with one value alone, and doesn't look at signatures.
fn with_one_audience(container: &ContainerView) {
    let file = token_file(container);
    let token = fs::read_to_string(&file).unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let mut claims = claims_of(&token).unwrap();
    claims["aud"] = claims["aud"][0].clone();
    let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
    fs::write(file, [parts[0], &claims, parts[2]].join(".")).unwrap();
}

/// The two accounts. Their roles trust nobody and may do nothing at first.
pub(super) struct TwoAccounts {
    ministack: MiniStack,
}

impl TwoAccounts {
    pub(super) async fn start() -> Self {
        let accounts = Self {
            ministack: MiniStack::start().await.unwrap(),
        };
        let nobody = json!({"Version": "2012-10-17", "Statement": []});
        for (account, path, name) in [(HOME, "/shop/", "orders"), (ABROAD, "/", "target")] {
            let role = json!({"RoleName": name, "Path": path, "AssumeRolePolicyDocument": nobody.to_string()});
            accounts.administer(account, "create_role", &role);
        }
        accounts
    }

    /// In which the chain of a pod works.
    pub(super) async fn of(pod: &ChainedPod) -> Self {
        let accounts = Self::start().await;
        let [first, second] = &pod.trust;
        accounts.trust_first(first);
        accounts.trust_second(second);
        accounts.permit(&pod.permission);
        accounts
    }

    /// The URL of STS.
    pub(super) fn url(&self) -> String {
        self.ministack.url()
    }

    /// Sets the trust policy of the first role.
    pub(super) fn trust_first(&self, document: &Value) {
        self.trust(HOME, "orders", document);
    }

    /// Sets the trust policy of the second role.
    pub(super) fn trust_second(&self, document: &Value) {
        self.trust(ABROAD, "target", document);
    }

    /// From now on the second role wants another external id than the pod's file has.
    pub(super) fn want_another_external_id(&self, pod: &ChainedPod) {
        let mut other = pod.trust[1].clone();
        other["Statement"][0]["Condition"]["StringEquals"]["sts:ExternalId"] = json!("e3");
        self.trust_second(&other);
    }

    /// Gives the first role a permission.
    pub(super) fn permit(&self, document: &Value) {
        let arguments = json!({"RoleName": "orders", "PolicyName": "chain", "PolicyDocument": document.to_string()});
        self.administer(HOME, "put_role_policy", &arguments);
    }

    fn trust(&self, account: &str, role: &str, document: &Value) {
        let arguments = json!({"RoleName": role, "PolicyDocument": document.to_string()});
        self.administer(account, "update_assume_role_policy", &arguments);
    }

    fn administer(&self, account: &str, call: &str, arguments: &Value) {
        tokio::task::block_in_place(|| self.ministack.administer(account, &[(call, arguments.clone())])).unwrap();
    }
}
