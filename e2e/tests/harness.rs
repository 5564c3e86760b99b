//! The harness itself: what the other tests take for granted.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fmt::Display;
use std::process::Command;
use std::time::{Duration, Instant};

use kube::Client;
use serde_json::{Value, json};
use tokenscope_e2e::control_plane::{ControlPlane, ISSUER, Options};
use tokenscope_e2e::{admission, eventually, get_json, post};

#[tokio::test]
async fn a_control_plane_serves_gives_bound_tokens_and_leaves_nothing() {
    let control_plane = ControlPlane::start(Options::default()).await.unwrap();
    let client = control_plane.client().await.unwrap();
    control_plane
        .create_namespace("shop", &[("team", "orders")])
        .await
        .unwrap();

    admission::accepts(&client, &pod()).await.unwrap();
    let unknown_field = json!({"metadata": {"name": "typo", "namespace": "shop"}, "spec": {"contaners": []}});
    let message = admission::rejects(&client, &unknown_field).await.unwrap();
    assert!(message.contains("unknown field \"spec.contaners\""), "{message}");

    it_gives_tokens_as_a_kubelet_asks(&control_plane, &client).await;

    // A container finds its token and its variables, and the AWS SDK for Python.
    let container = control_plane.container("shop", "orders", "app").await.unwrap();
    let script = "import boto3, os; print(os.environ['POD'], open(os.environ['TOKEN_FILE']).read().count('.'))";
    assert_eq!(container.python(script, &[]).unwrap(), "orders 2\n");

    // The issuer's documents are open, and say what AWS will compare.
    let discovery = get_json(&client, "/.well-known/openid-configuration").await.unwrap();
    assert_eq!(discovery["issuer"], ISSUER);
    assert_eq!(discovery["jwks_uri"], format!("{ISSUER}/openid/v1/jwks"));

    what_rbac_refuses_is_seen(&control_plane).await;

    // kubectl works, and so does server-side apply.
    let applied = control_plane
        .apply_yaml("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: shop}\n---\n")
        .await;
    assert_eq!(applied.unwrap().len(), 1);
    let names = control_plane
        .kubectl(&["get", "configmaps", "-n", "shop", "-o", "name"], "")
        .unwrap();
    assert!(names.contains("configmap/a"), "{names}");

    // A restarted API server has lost nothing.
    control_plane.apiserver().restart().unwrap();
    eventually(Duration::from_secs(120), "the API server is back", async || {
        Ok(get_json(&control_plane.client().await?, "/api/v1/namespaces/shop/pods/orders").await?)
    })
    .await
    .unwrap();

    let folder = control_plane.folder().to_owned();
    let pids = [
        control_plane.etcd().pid().unwrap(),
        control_plane.apiserver().pid().unwrap(),
    ];
    drop(control_plane);
    assert!(!folder.exists());
    assert!(!pids.iter().any(runs));
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {
            "containers": [{
                "name": "app", "image": "app",
                "env": [
                    {"name": "TOKEN_FILE", "value": "/var/run/aws/token"},
                    {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
                "volumeMounts": [{"name": "token", "mountPath": "/var/run/aws"}],
            }],
            "volumes": [{"name": "token", "projected": {"sources": [
                {"serviceAccountToken": {"audience": "sts.amazonaws.com", "path": "token"}},
            ]}}],
        },
    })
}

/// The token is bound to the pod, and only for an audience that one of its volumes names.
async fn it_gives_tokens_as_a_kubelet_asks(control_plane: &ControlPlane, client: &Client) {
    let token = control_plane
        .pod_token("shop", "orders", "sts.amazonaws.com", 3600)
        .await
        .unwrap();
    assert_eq!(token.split('.').count(), 3);
    assert!(
        control_plane
            .pod_token("shop", "orders", "elsewhere", 3600)
            .await
            .is_err()
    );
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token, "audiences": ["sts.amazonaws.com"]},
    });
    let review = post(client, "/apis/authentication.k8s.io/v1/tokenreviews", &review)
        .await
        .unwrap();
    assert_eq!(
        review["status"]["user"]["username"], "system:serviceaccount:shop:default",
        "{review}"
    );
    assert_eq!(
        review["status"]["user"]["extra"]["authentication.kubernetes.io/pod-name"],
        json!(["orders"])
    );
}

async fn what_rbac_refuses_is_seen(control_plane: &ControlPlane) {
    let account = control_plane.client_as("shop", "default").await.unwrap();
    assert!(
        get_json(&account, "/api/v1/namespaces/shop/secrets/password")
            .await
            .is_err()
    );
    let expected = "system:serviceaccount:shop:default get secrets shop password";
    eventually(Duration::from_secs(60), "the refusal is in the audit log", async || {
        let forbidden = control_plane.forbidden()?;
        anyhow::ensure!(forbidden == [expected], "{forbidden:?}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Runs this test program again, lets it start a control plane, and kills it.
#[test]
fn a_killed_test_leaves_nothing_running() {
    let mut test = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "starts_a_control_plane_and_hangs"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let folder = std::env::temp_dir().join(format!("tokenscope-{}-0", test.id()));
    let within = |seconds, what: &str, condition: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !condition() {
            assert!(
                started.elapsed() < Duration::from_secs(seconds),
                "waited in vain until {what}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    within(300, "the control plane runs", &|| folder.join("running").exists());
    let pids: Vec<String> = std::fs::read_to_string(folder.join("running"))
        .unwrap()
        .split(' ')
        .map(str::to_owned)
        .collect();
    assert_eq!(pids.len(), 2);
    test.kill().unwrap();
    test.wait().unwrap();
    within(60, "its folder is gone", &|| !folder.exists());
    within(60, "its processes are gone", &|| !pids.iter().any(runs));
}

/// Whether a process runs. One that has ended, but that nobody has waited for yet, has an empty command line.
fn runs(pid: impl Display) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command| !command.is_empty())
}

#[tokio::test]
#[ignore = "run by a_killed_test_leaves_nothing_running"]
async fn starts_a_control_plane_and_hangs() {
    let control_plane = ControlPlane::start(Options::default()).await.unwrap();
    let pids = format!(
        "{} {}",
        control_plane.etcd().pid().unwrap(),
        control_plane.apiserver().pid().unwrap()
    );
    let running = control_plane.folder().join("running");
    std::fs::write(running.with_extension("partial"), pids).unwrap();
    std::fs::rename(running.with_extension("partial"), running).unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
}
