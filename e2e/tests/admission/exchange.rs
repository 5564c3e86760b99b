//! The audience of tokenscope's own issuer with the lock off: only the webhook gives a pod such a token, and only the sidecar has it.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::admission::{accepts, create, create_pod, try_pod};
use tokenscope_e2e::fixtures::{ORDERS, PROPAGATION, Shop, mounted_at, orders_may, reviewed, volume, with_annotations};
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::pki::CertificateAuthority;
use tokenscope_e2e::{Environment, Shared, eventually, get_json, install, put};

use crate::lock::{editor, refused, token};
use crate::stand_in::Way;
use crate::{Door, MARK, SOON, opted_out, with_label, with_token};

const ISSUER: &str = "https://tokens.example.com";

const SUBJECT_TOKEN_VOLUME: &str = "tokenscope-subject-token";

const SIDECAR: &str = "tokenscope-sidecar";

static ISSUING: Shared = Shared::new(|| {
    // The webhook passes it on and connects to nobody.
    let authorities = std::env::temp_dir().join(format!("tokenscope-exchange-{}.crt", std::process::id()));
    let certificate = CertificateAuthority::new("issuer").unwrap().certificate();
    std::fs::write(&authorities, certificate).unwrap();
    install::Options {
        values: values(),
        webhook_arguments: vec![format!("--issuer-ca-file={}", authorities.display())],
        ..install::Options::default()
    }
});

fn values() -> Value {
    json!({
        "lock": {"mode": "off", "exemptNamespaces": ["kube-system", "exempt"]},
        "issuer": {"enabled": true, "url": ISSUER},
    })
}

async fn shop(namespace: &str, labels: &[(&str, &str)]) -> Shop<'static> {
    let Environment { control_plane, .. } = ISSUING.environment().await;
    Shop::open(control_plane, namespace, labels).await.unwrap()
}

/// A pod that holds a token for the issuer, in every form in which one could pass.
fn thieves(shop: &Shop<'_>) -> Vec<Value> {
    let by_hand = with_token(shop.pod("thief"), ISSUER);
    let mut our_name = by_hand.clone();
    our_name["spec"]["volumes"][0]["name"] = json!(SUBJECT_TOKEN_VOLUME);
    our_name["spec"]["containers"][0]["volumeMounts"][0]["name"] = json!(SUBJECT_TOKEN_VOLUME);
    let marked = with_label(by_hand.clone(), MARK, "granted");
    let record = json!({"grants": [], "hash": "", "sidecar": true}).to_string();
    let recorded = with_annotations(
        with_label(our_name.clone(), MARK, "granted"),
        &[("tokenscope.io/grant", &record)],
    );
    let asking = with_annotations(by_hand.clone(), &[("tokenscope.io/role-arn", ORDERS)]);
    let mut last = by_hand.clone();
    let sources = &mut last["spec"]["volumes"][0]["projected"]["sources"];
    let fill = json!({"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}});
    for number in 0..32 {
        let mut source = fill.clone();
        source["downwardAPI"]["items"][0]["path"] = json!(format!("f{number}"));
        sources.as_array_mut().unwrap().insert(0, source);
    }
    vec![
        opted_out(by_hand.clone()),
        by_hand,
        our_name,
        marked,
        recorded,
        asking,
        last,
    ]
}

#[tokio::test]
async fn nobody_creates_a_pod_with_a_token_for_the_issuer_in_any_namespace() {
    let editors = shop("exchange", &[]).await;
    let editor = editor(&editors).await;
    let admins = [
        shop("exempt", &[]).await,
        shop("unreviewed", &[("tokenscope.io/inject", "false")]).await,
        shop("required", &[("tokenscope.io/required", "true")]).await,
    ];
    let pods = thieves(&editors).into_iter().map(|pod| (&editor, pod));
    let pods = pods.chain(
        admins
            .iter()
            .flat_map(|shop| thieves(shop).into_iter().map(|pod| (&shop.client, pod))),
    );
    let own = ["kube-system", NAMESPACE].into_iter().flat_map(|namespace| {
        thieves(&editors).into_iter().map(move |mut pod| {
            pod["metadata"]["namespace"] = json!(namespace);
            pod["spec"]["serviceAccountName"] = json!("default");
            pod
        })
    });
    let mut tried = 0;
    for (client, pod) in pods.chain(own.map(|pod| (&editors.client, pod))) {
        tried += 1;
        for answer in [
            create_pod(client, &pod).await.unwrap(),
            try_pod(client, &pod).await.unwrap(),
        ] {
            assert!(!answer.accepted(), "{pod}: {}", answer.body);
            let message = answer.message();
            let is_ours =
                message.contains("tokenscope") && (message.contains(ISSUER) || message.contains("32 sources"));
            assert!(is_ours, "{pod}: {message}");
        }
    }
    assert_eq!(tried, 6 * 7);
    // Other audiences are nobody's business with the lock off.
    accepts(&editor, &with_token(editors.pod("vault"), "vault"))
        .await
        .unwrap();
    accepts(&editor, &with_token(editors.pod("sts"), "sts.amazonaws.com"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_deployment_gets_no_pod_with_a_token_for_the_issuer_and_its_event_says_why() {
    let shop = shop("exchange-controller", &[]).await;
    let editor = editor(&shop).await;
    let names = ["deployment-controller", "replicaset-controller"];
    let _controllers = shop.control_plane.start_controllers(&names).unwrap();
    let template = json!({"metadata": {"labels": {"app": "thief"}}, "spec": with_token(shop.pod("x"), ISSUER)["spec"]});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "thief"},
        "spec": {"selector": {"matchLabels": {"app": "thief"}}, "template": template},
    });
    let path = "/apis/apps/v1/namespaces/exchange-controller/deployments";
    assert!(create(&editor, path, &deployment).await.unwrap().accepted());
    eventually(PROPAGATION, "its ReplicaSet was refused and says so", async || {
        let events = get_json(&shop.client, &shop.path("events")).await?;
        let mut events = events["items"].as_array().into_iter().flatten();
        let said = events
            .find(|event| event["reason"] == "FailedCreate")
            .context("no Event yet")?;
        let message = said["message"].as_str().unwrap_or_default();
        ensure!(message.contains(ISSUER), "{message}");
        Ok(())
    })
    .await
    .unwrap();
    let pods = get_json(&shop.client, &shop.path("pods")).await.unwrap();
    assert_eq!(pods["items"], json!([]));
}

#[tokio::test]
async fn a_token_request_for_the_issuer_is_refused_to_everybody() {
    let shop = shop("exchange-request", &[]).await;
    let editor = editor(&shop).await;
    eventually(PROPAGATION, "the API server has read its policies", async || {
        let answer = token(&shop.client, &shop.namespace, "orders", &[ISSUER]).await;
        ensure!(!answer.accepted(), "{}", answer.status);
        Ok(())
    })
    .await
    .unwrap();
    for client in [&editor, &shop.client] {
        for audiences in [&[ISSUER][..], &["vault", ISSUER]] {
            let answer = token(client, &shop.namespace, "orders", audiences).await;
            refused(&answer, "'tokenscope-exchange-tokens'");
        }
        assert!(token(client, &shop.namespace, "orders", &["vault"]).await.accepted());
    }
}

/// A pod that was granted a token of the issuer, as it is stored.
async fn granted(shop: &Shop<'_>, name: &str) -> Result<Value> {
    let mut spec = orders_may(&["arn:aws:iam::111122223333:role/shop/*"]);
    spec["token"] = json!({"source": "Issuer"});
    shop.policy("orders", spec).await?;
    let pod = shop.asking(name, ORDERS);
    eventually(PROPAGATION, "the policy grants it", async || {
        let tried = accepts(&shop.client, &pod).await?;
        ensure!(reviewed(&tried) == Some("granted"), "{tried}");
        Ok(tried)
    })
    .await
}

#[tokio::test]
async fn the_webhooks_own_pod_passes_and_so_does_its_restored_copy() {
    let shop = shop("exchange-granted", &[]).await;
    let pod = granted(&shop, "granted").await.unwrap();
    let held = &volume(&pod, SUBJECT_TOKEN_VOLUME).unwrap()["projected"]["sources"];
    assert_eq!(held.as_array().unwrap().len(), 1, "{held}");
    assert_eq!(held[0]["serviceAccountToken"]["audience"], ISSUER);
    assert_eq!(
        mounted_at(&pod, SIDECAR, SUBJECT_TOKEN_VOLUME),
        Some("/tokenscope-subject-token")
    );
    assert_eq!(mounted_at(&pod, "app", SUBJECT_TOKEN_VOLUME), None);

    let mut copy = json!({"apiVersion": "v1", "kind": "Pod", "spec": pod["spec"]});
    copy["metadata"] = json!({
        "name": "restored", "namespace": shop.namespace, "labels": pod["metadata"]["labels"],
        "annotations": pod["metadata"]["annotations"],
    });
    let restored = accepts(&shop.client, &copy).await.unwrap();
    assert_eq!(restored["spec"]["volumes"], pod["spec"]["volumes"]);

    // An application that mounts it too does not get it.
    let mounts = copy["spec"]["containers"][0]["volumeMounts"].as_array_mut().unwrap();
    mounts.push(json!({"name": SUBJECT_TOKEN_VOLUME, "mountPath": "/stolen", "readOnly": true}));
    copy["metadata"]["name"] = json!("thief");
    let answer = try_pod(&shop.client, &copy).await.unwrap();
    assert!(!answer.accepted(), "{}", answer.body);
    assert!(answer.message().contains(SUBJECT_TOKEN_VOLUME), "{}", answer.message());
}

#[tokio::test]
async fn an_ephemeral_container_gets_no_token_for_the_issuer() {
    let shop = shop("exchange-debugging", &[]).await;
    granted(&shop, "granted").await.unwrap();
    create_pod(&shop.client, &shop.asking("debugged", ORDERS))
        .await
        .unwrap();
    let path = shop.path("pods/debugged/ephemeralcontainers");
    let added = async |container: Value| {
        let mut pod = get_json(&shop.client, &shop.path("pods/debugged")).await?;
        let before = pod["spec"]["ephemeralContainers"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        pod["spec"]["ephemeralContainers"] = [before, vec![container]].concat().into();
        put(&shop.client, &path, &pod).await.context("refused")
    };
    let said = async |container: Value| format!("{:#}", added(container).await.unwrap_err());
    added(json!({"name": "shell", "image": "app"})).await.unwrap();
    let thief =
        json!({"name": "thief", "image": "app", "volumeMounts": [{"name": SUBJECT_TOKEN_VOLUME, "mountPath": "/s"}]});
    let message = said(thief).await;
    assert!(
        message.contains("may not mount a volume with a token for tokenscope's own issuer"),
        "{message}"
    );
    let beside = json!({"name": "beside", "image": "app", "targetContainerName": SIDECAR});
    let message = said(beside).await;
    assert!(
        message.contains("may not look into the container tokenscope-sidecar"),
        "{message}"
    );
    added(json!({"name": "beside-app", "image": "app", "targetContainerName": "app"}))
        .await
        .unwrap();
}

#[tokio::test]
async fn while_the_webhook_is_away_the_guard_refuses_them_and_nobody_else() {
    let door = Door::open(&values()).await;
    let shop = door.shop("shop", &[]).await;
    for way in [Way::Status(500), Way::HangsUp] {
        door.stand_in.answers(way, way);
        for pod in thieves(&shop) {
            let answer = try_pod(&door.client, &pod).await.unwrap();
            assert!(!answer.accepted(), "{way:?}: {pod}: {}", answer.body);
        }
        accepts(
            &door.client,
            &with_token(shop.pod(&format!("vault-{}", way == Way::HangsUp)), "vault"),
        )
        .await
        .unwrap();
    }
    // A webhook that lets everything pass leaves no mark, which is what the guard looks for.
    door.stand_in.answers(Way::Allows, Way::Works);
    let thief = with_token(shop.pod("thief"), ISSUER);
    eventually(SOON, "the guard refuses it", async || {
        let answer = try_pod(&door.client, &thief).await?;
        ensure!(answer.message().contains("'tokenscope-guard'"), "{}", answer.body);
        Ok(())
    })
    .await
    .unwrap();
}
