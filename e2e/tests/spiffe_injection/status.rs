//! What the status of a policy says about identities and sidecars.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::admission::{create_pod, try_pod};
use tokenscope_e2e::control_plane::{self, ControlPlane};
use tokenscope_e2e::fixtures::{ORDERS, PROPAGATION, Shop, reviewed};
use tokenscope_e2e::install::{Options, install};
use tokenscope_e2e::{delete, eventually, get_json};

use crate::{SPIFFE_ID, copied, from_spiffe, shop, within_rights};

#[tokio::test]
async fn the_status_says_why_there_is_no_trust_policy_where_no_identity_is_pinned() {
    let shop = shop("open", &[]).await;
    let spec = from_spiffe(&[ORDERS], &json!({"trustDomain": "example.org"}));
    shop.policy("orders", spec).await.unwrap();
    let status = status(&shop, |status| ready(status).is_some()).await.unwrap();
    let ready = ready(&status).unwrap();
    assert_eq!(ready["reason"], "UpToDate");
    let message = ready["message"].as_str().unwrap();
    assert!(message.contains("spec.token.spiffe.spiffeId is left out"), "{message}");
    assert_eq!(status["trustPolicies"], Value::Null);
}

/// As spire-controller-manager defines it, as far as it matters here.
fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "clusterspiffeids.spire.spiffe.io"},
        "spec": {
            "group": "spire.spiffe.io", "scope": "Cluster",
            "names": {"kind": "ClusterSPIFFEID", "listKind": "ClusterSPIFFEIDList", "plural": "clusterspiffeids", "singular": "clusterspiffeid"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }}}],
        },
    })
}

fn cluster_spiffe_id(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "spire.spiffe.io/v1alpha1", "kind": "ClusterSPIFFEID", "metadata": {"name": name}, "spec": spec,
    })
}

#[tokio::test]
async fn pods_that_match_no_cluster_spiffe_id_show_in_the_policys_status_while_there_are_any() {
    let control_plane = ControlPlane::start(control_plane::Options::default()).await.unwrap();
    let options = Options {
        values: json!({"spiffe": {"controllerManager": {"className": "ours"}}}),
        ..Options::default()
    };
    let _installed = install(&control_plane, options).await.unwrap();
    let shop = Shop::open(&control_plane, "shop", &[("team", "shop")]).await.unwrap();
    shop.policy("orders", from_spiffe(&[ORDERS], &json!({"spiffeId": SPIFFE_ID})))
        .await
        .unwrap();
    let mut pod = shop.asking("orders", ORDERS);
    pod["metadata"]["labels"] = json!({"app": "orders"});
    shop.granted(&pod).await.unwrap();
    reason(&shop, "UpToDate").await.unwrap();

    control_plane.apply(&[definition()], "shop").await.unwrap();
    let status = reason(&shop, "NoSpiffeIdentity").await.unwrap();
    let condition = ready(&status).unwrap();
    assert_eq!(condition["status"], "False");
    let message = condition["message"].as_str().unwrap();
    assert!(message.starts_with("1 of 1 pods match no ClusterSPIFFEID"), "{message}");

    let template = "spiffe://example.org/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}";
    let matching = json!({
        "spiffeIDTemplate": template, "className": "ours",
        "namespaceSelector": {"matchLabels": {"team": "shop"}}, "podSelector": {"matchLabels": {"app": "orders"}},
    });
    let mut of_others = matching.clone();
    of_others["className"] = json!("theirs");
    let mut of_another_team = matching.clone();
    of_another_team["namespaceSelector"] = json!({"matchLabels": {"team": "bank"}});
    let other = [
        cluster_spiffe_id("theirs", &of_others),
        cluster_spiffe_id("bank", &of_another_team),
    ];
    // The API server serves a new definition a moment later.
    eventually(PROPAGATION, "ClusterSPIFFEIDs can be made", async || {
        control_plane.apply(&other, "shop").await.map(drop)
    })
    .await
    .unwrap();
    control_plane
        .apply(&[cluster_spiffe_id("shop", &matching)], "shop")
        .await
        .unwrap();
    reason(&shop, "UpToDate").await.unwrap();
    let path = "/apis/spire.spiffe.io/v1alpha1/clusterspiffeids";
    delete(&shop.client, &format!("{path}/shop")).await.unwrap();
    reason(&shop, "NoSpiffeIdentity").await.unwrap();
    let everything = json!({"spiffeIDTemplate": template, "className": "ours", "fallback": true});
    control_plane
        .apply(&[cluster_spiffe_id("everything", &everything)], "shop")
        .await
        .unwrap();
    reason(&shop, "UpToDate").await.unwrap();
    delete(&shop.client, &format!("{path}/everything")).await.unwrap();
    reason(&shop, "NoSpiffeIdentity").await.unwrap();

    // Without spire-controller-manager there is nothing to say.
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    delete(&shop.client, &format!("{definitions}/clusterspiffeids.spire.spiffe.io"))
        .await
        .unwrap();
    reason(&shop, "UpToDate").await.unwrap();
    within_rights(&shop);
}

#[tokio::test]
async fn a_pod_that_lost_its_sidecar_on_the_way_is_missed() {
    let shop = shop("lost", &[]).await;
    shop.policy("orders", from_spiffe(&[ORDERS], &json!({}))).await.unwrap();
    let good = shop.granted(&shop.asking("good", ORDERS)).await.unwrap().body;
    // Nobody is asked in a namespace that is left out, and without this binding nobody takes the mark away; so the pod is there
    // as if another webhook had taken the sidecar.
    let binding = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings/tokenscope-marks";
    delete(&shop.client, binding).await.unwrap();
    let label = json!({"metadata": {"labels": {"tokenscope.io/inject": "false"}}});
    tokenscope_e2e::merge(&shop.client, "/api/v1/namespaces/lost", &label)
        .await
        .unwrap();
    let mut without = copied(&good, "without");
    without["spec"]["initContainers"] = json!([]);
    let mut with_another = copied(&good, "with-another");
    with_another["spec"]["initContainers"][0]["image"] = json!("localhost/tokenscope-sidecar:0.0.9");
    for pod in [&without, &with_another] {
        let what = "the label is known, and the pod and its mark left as they are";
        eventually(PROPAGATION, what, async || {
            let tried = try_pod(&shop.client, pod).await?;
            ensure!(
                tried.accepted()
                    && reviewed(&tried.body) == Some("granted")
                    && tried.body["spec"]["initContainers"][0]["image"] == pod["spec"]["initContainers"][0]["image"],
                "{}",
                tried.body
            );
            Ok(())
        })
        .await
        .unwrap();
        let created = create_pod(&shop.client, pod).await.unwrap();
        assert!(created.accepted(), "{}", created.message());
        assert_eq!(reviewed(&created.body), Some("granted"), "{}", created.body);
    }
    let label = json!({"metadata": {"labels": {"tokenscope.io/inject": null}}});
    tokenscope_e2e::merge(&shop.client, "/api/v1/namespaces/lost", &label)
        .await
        .unwrap();
    let counted =
        |status: &Value| status["missedPods"] == 1 && status["outdatedPods"] == 1 && status["injectedPods"] == 1;
    let status = status(&shop, counted).await.unwrap();
    assert_eq!(ready(&status).unwrap()["reason"], "MissedPods");
}

pub(crate) fn ready(status: &Value) -> Option<&Value> {
    let mut conditions = status["conditions"].as_array()?.iter();
    conditions.find(|condition| condition["type"] == "Ready")
}

/// The status of the policy `orders` once it is as wanted.
pub(crate) async fn status(shop: &Shop<'_>, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let path = format!(
        "/apis/tokenscope.io/v1alpha1/namespaces/{}/tokenscopepolicies/orders",
        shop.namespace
    );
    eventually(PROPAGATION * 2, "the status is as wanted", async || {
        let status = get_json(&shop.client, &path).await?["status"].take();
        ensure!(wanted(&status), "{status}");
        Ok(status)
    })
    .await
}

/// The status once the policy is or isn't ready for this reason.
pub(crate) async fn reason(shop: &Shop<'_>, reason: &str) -> Result<Value> {
    status(shop, |status| {
        ready(status).is_some_and(|ready| ready["reason"] == reason)
    })
    .await
    .with_context(|| format!("waiting for {reason}"))
}
