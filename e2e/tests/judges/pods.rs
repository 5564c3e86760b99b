//! Pods of two tenants that have one role, from admission to the bucket: a real API server admits them, the issuer exchanges their
//! tokens, and radosgw reads the issuer's documents and says what each of them sees.

use anyhow::{Context as _, ensure};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_e2e::admission::{create, create_pod};
use tokenscope_e2e::fixtures::{ORDERS, PROPAGATION, Shop};
use tokenscope_e2e::forward::tunnels_to;
use tokenscope_e2e::install::Options;
use tokenscope_e2e::issuer::{authority, exchange};
use tokenscope_e2e::radosgw::Radosgw;
use tokenscope_e2e::token_maker::claims_of;
use tokenscope_e2e::{Environment, eventually, merge, post};
use tokenscope_issuer::claims::TAGS;

use crate::radosgw::{ALL_ACTIONS, AUDIENCE, TENANTS, fill_bucket, sees, tenants_policy, trust_policy};

/// The issuer. AWS allows no port in it, so the name stands for an address on 127.0.0.1.
const URL: &str = "https://tokens.tokenscope.test";
/// The role of both tenants.
const ROLE: &str = "tenant";
/// The same without a right to tags.
const ROLE_WITHOUT_TAGS: &str = "without-tags";
/// A tag that every pod has from the label of its namespace.
const TEAM: &str = "${namespace.labels['team']}";

/// A cluster and a store that trusts its issuer.
struct Market {
    environment: Environment,
    radosgw: Radosgw,
}

impl Market {
    async fn open() -> Self {
        let options = Options {
            values: json!({"issuer": {"enabled": true, "url": URL, "keys": {"x5c": true}}}),
            issuers: 1,
            ..Options::default()
        };
        let environment = Environment::start(options).await.unwrap();
        let proxy = tunnels_to(environment.installed.issuer(0).1).unwrap();
        let radosgw = Radosgw::start_behind(proxy).await.unwrap();
        let host = radosgw.trust_issuer(URL, AUDIENCE).unwrap();
        let subjects = TENANTS.map(|tenant| format!("system:serviceaccount:{tenant}:orders"));
        let subjects = subjects.each_ref().map(String::as_str);
        for (role, actions) in [(ROLE, ALL_ACTIONS), (ROLE_WITHOUT_TAGS, &ALL_ACTIONS[..1])] {
            let trusted = trust_policy(host, &subjects, actions, None);
            radosgw.add_role(role, &trusted, &tenants_policy()).unwrap();
        }
        fill_bucket(&radosgw).unwrap();
        let market = Self { environment, radosgw };
        market.rule().await;
        market
    }

    /// One policy for all tenants, and a boundary that fixes their tag to the namespace.
    async fn rule(&self) {
        let policy = json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "ClusterTokenScopePolicy", "metadata": {"name": "tenants"},
            "spec": {
                "namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]},
                "subjects": [{"serviceAccounts": ["orders"]}],
                "roles": {"allowed": [ORDERS]}, "audiences": {"allowed": [AUDIENCE]},
                "token": {"source": "Issuer"}, "claims": {"principalTags": {"team": TEAM}},
            },
        });
        let boundary = json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopeBoundary", "metadata": {"name": "tenants"},
            "spec": {"roles": ["arn:aws:iam::111122223333:role/*"], "claims": {"principalTags": {"team": TEAM}}},
        });
        let control_plane = &self.environment.control_plane;
        control_plane.apply(&[policy, boundary], "default").await.unwrap();
    }

    async fn shop(&self, tenant: &str) -> Shop<'_> {
        let control_plane = &self.environment.control_plane;
        Shop::open(control_plane, tenant, &[("team", tenant)]).await.unwrap()
    }

    /// What the issuer gives for the token that the kubelet brings a pod's sidecar.
    async fn token(&self, shop: &Shop<'_>, pod: &str) -> String {
        let namespace = &shop.namespace;
        let subject = shop.control_plane.pod_token(namespace, pod, URL, 3600).await.unwrap();
        let (authorities, (_, port)) = (
            authority(&shop.client).await.unwrap(),
            self.environment.installed.issuer(0),
        );
        let asked = eventually(PROPAGATION, "the pod gets its token", async || {
            let (status, answer) = exchange(port, &authorities, &subject, AUDIENCE).await?;
            ensure!(status == 200, "{status} {answer}");
            Ok(answer["access_token"].as_str().context("a token")?.to_owned())
        });
        asked.await.unwrap()
    }

    /// What the holder of a token sees of the tenants' objects.
    fn sees(&self, token: &str) -> Vec<bool> {
        let keys = self.radosgw.assume(ROLE, token).unwrap();
        let keys = keys.unwrap_or_else(|refused| panic!("{refused:?}\n{}", self.radosgw.log_tail(40)));
        sees(&self.radosgw, &keys)
    }
}

/// Whoever may edit a namespace's pods, policies and more, and not the namespace itself.
async fn editor(shop: &Shop<'_>) -> Client {
    let (control_plane, namespace) = (shop.control_plane, &shop.namespace);
    control_plane
        .create_service_account(namespace, "editor", &[])
        .await
        .unwrap();
    // Nobody aggregates the role `edit` where no controller runs; this is the part of it with pods.
    for role in ["system:aggregate-to-edit", "tokenscope-edit"] {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": role.replace(':', "-")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "editor", "namespace": namespace}],
        });
        let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings");
        post(&shop.client, &path, &binding).await.unwrap();
    }
    control_plane.client_as(namespace, "editor").await.unwrap()
}

/// All that an editor of a tenant may try for another tenant's tag: the name of the pod that is admitted in the end.
async fn tries_for_the_tag(shop: &Shop<'_>, other: &str) -> &'static str {
    let editor = editor(shop).await;
    let relabel = json!({"metadata": {"labels": {"team": other}}});
    let namespace = format!("/api/v1/namespaces/{}", shop.namespace);
    let error = merge(&editor, &namespace, &relabel).await.unwrap_err().to_string();
    assert!(error.contains("forbidden"), "{error}");

    // A policy of the editor's that says the other tag is outside the boundary, so a pod by it is refused.
    let policies = format!(
        "/apis/tokenscope.io/v1alpha1/namespaces/{}/tokenscopepolicies",
        shop.namespace
    );
    for (name, value) in [("literal", other), ("by-label", "${pod.labels['team']}")] {
        let policy = json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy", "metadata": {"name": name},
            "spec": {
                "subjects": [{"serviceAccounts": [name]}],
                "roles": {"allowed": [ORDERS]}, "audiences": {"allowed": [AUDIENCE], "default": AUDIENCE},
                "token": {"source": "Issuer"}, "claims": {"principalTags": {"team": value}},
            },
        });
        let answer = create(&editor, &policies, &policy).await.unwrap();
        assert!(answer.accepted(), "{}", answer.message());
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        post(&editor, &shop.path("serviceaccounts"), &account).await.unwrap();
        let mut pod = pod_of(shop, name, other);
        pod["spec"]["serviceAccountName"] = json!(name);
        let said = shop.refused(&pod, "TokenScopeBoundary tenants").await.unwrap();
        assert!(said.contains("claims"), "{said}");
    }

    // The editor may label pods at will, before and after they are admitted.
    let answer = create_pod(&editor, &pod_of(shop, "mine", other)).await.unwrap();
    assert!(answer.accepted(), "{}", answer.message());
    merge(&editor, &shop.path("pods/mine"), &relabel).await.unwrap();
    "mine"
}

/// A pod that asks for the role and says that it is of a team.
fn pod_of(shop: &Shop<'_>, name: &str, team: &str) -> Value {
    let mut pod = shop.asking(name, ORDERS);
    pod["metadata"]["labels"] = json!({"team": team});
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_two_tenants_with_one_role_see_only_their_own_and_no_editor_of_pods_gets_the_others_tag() {
    let market = Market::open().await;
    let [a, b] = [market.shop(TENANTS[0]).await, market.shop(TENANTS[1]).await];
    let mut tokens = Vec::new();
    for shop in [&a, &b] {
        shop.granted(&pod_of(shop, "orders-1", &shop.namespace)).await.unwrap();
        tokens.push(market.token(shop, "orders-1").await);
    }
    assert_eq!(market.sees(&tokens[0]), [true, true, false, false], "a pod of tenant a");
    assert_eq!(market.sees(&tokens[1]), [false, false, true, true], "a pod of tenant b");

    let refusal = market
        .radosgw
        .assume(ROLE_WITHOUT_TAGS, &tokens[0])
        .unwrap()
        .unwrap_err();
    assert_eq!(refusal.status, 403, "a role without sts:TagSession: {refusal:?}");

    let pod = tries_for_the_tag(&a, TENANTS[1]).await;
    let token = market.token(&a, pod).await;
    assert_eq!(
        claims_of(&token).unwrap()[TAGS]["principal_tags"],
        json!({"team": [TENANTS[0]]})
    );
    assert_eq!(market.sees(&token), [true, true, false, false], "the editor's pod");
}
