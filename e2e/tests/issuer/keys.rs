//! Keys that somebody takes out of the Secret by hand, and those that `revoke-key` removes.

use std::process::{Command, Output};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::{delete, put};
use tokenscope_issuer::rotation::ENTRY;

use super::*;

const SECRET: &str = "/api/v1/namespaces/tokenscope-system/secrets/tokenscope-issuer-keys";
/// How long two replicas may take to follow the Secret, and to exchange with what is in it, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// What stands in the Secret: the identifiers of its keys.
async fn kids(client: &Client) -> Result<Vec<String>> {
    let (_, ring) = stored(client).await?;
    let keys = ring["keys"].as_array().context("keys")?;
    Ok(keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect())
}

async fn stored(client: &Client) -> Result<(Value, Value)> {
    let secret = get_json(client, SECRET).await?;
    let text = STANDARD.decode(secret["data"][ENTRY].as_str().context("an entry")?)?;
    Ok((secret, serde_json::from_slice(&text)?))
}

/// Takes all keys out, as somebody with an editor does. The Secret as it was before.
async fn take_out_by_hand(client: &Client) -> Result<Value> {
    let (mut secret, mut ring) = stored(client).await?;
    let before = secret.clone();
    ring["keys"] = json!([]);
    secret["data"][ENTRY] = STANDARD.encode(ring.to_string()).into();
    put(client, SECRET, &secret).await?;
    Ok(before)
}

async fn is_back_and_told_of(client: &Client, kids_before: &[String]) {
    eventually(SOON, "the key is back, and an Event says what to do", async || {
        anyhow::ensure!(kids(client).await? == kids_before, "it is not back");
        let events = get_json(client, &format!("/api/v1/namespaces/{NAMESPACE}/events")).await?;
        let events = events["items"].as_array().context("items")?;
        let told = events.iter().find(|event| event["reason"] == "KeyRestored");
        let message = told.context("no Event")?["message"].as_str().unwrap_or_default();
        let says_all = message.contains(&kids_before[0]) && message.contains("revoke-key");
        anyhow::ensure!(says_all, "{message}");
        Ok(())
    })
    .await
    .unwrap();
}

/// No key of this identifier is in the Secret or published, and both replicas sign with another.
async fn is_gone(environment: &Environment, client: &Client, subject: &str, kid: &str) -> Result<()> {
    let now = kids(client).await?;
    anyhow::ensure!(!now.iter().any(|other| other == kid) && !now.is_empty(), "{now:?}");
    let authorities = authority(client).await?;
    for number in 0..2 {
        let (_, port) = environment.installed.issuer(number);
        let (status, published) = document(port, &authorities, "/cluster-1/keys").await?;
        let text = published.to_string();
        anyhow::ensure!(status == 200 && !text.contains(kid) && text.contains(&now[0]), "{text}");
        exchanged(port, client, subject).await?;
    }
    Ok(())
}

/// Runs a command of `tokenscope-issuer` as an administrator does.
fn run(environment: &Environment, command_and_arguments: &[&str]) -> Output {
    let (program, _) = environment.installed.issuer(0).0.command_line();
    let kubeconfig = environment.control_plane.kubeconfig();
    let mut command = Command::new(program);
    command
        .args(command_and_arguments)
        .args(["--namespace", NAMESPACE, "--kubeconfig"])
        .arg(kubeconfig);
    command.output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_out_by_hand_comes_back_with_an_event_and_one_that_revoke_key_removes_is_gone_at_once() {
    let environment = Environment::start(Options {
        issuers: 2,
        ..options()
    })
    .await
    .unwrap();
    let tenant = Tenant::open(&environment, "keys").await;
    let client = &tenant.shop.client;
    let subject = tenant.pod("orders-1").await.unwrap();
    for number in 0..2 {
        exchanged(environment.installed.issuer(number).1, client, &subject)
            .await
            .unwrap();
    }
    let leaked = kids(client).await.unwrap();

    take_out_by_hand(client).await.unwrap();
    is_back_and_told_of(client, &leaked).await;

    // The command wins against the replicas, whether the key is in the Secret at that moment or not.
    let taken_out = eventually(SOON, "the keys are taken out", async || take_out_by_hand(client).await);
    let mut backup = taken_out.await.unwrap(); // a replica may have written in between
    let output = run(&environment, &["revoke-key", &leaked[0]]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    eventually(SOON, "no replica knows the key any more", async || {
        is_gone(&environment, client, &subject, &leaked[0]).await
    })
    .await
    .unwrap();
    delete(client, SECRET).await.unwrap();
    eventually(SOON, "a deletion does not bring it back", async || {
        is_gone(&environment, client, &subject, &leaked[0]).await
    })
    .await
    .unwrap();
    let metadata = backup["metadata"].as_object_mut().unwrap();
    metadata.retain(|key, _| key == "name" || key == "namespace");
    put(client, SECRET, &backup).await.unwrap();
    eventually(SOON, "nor does a backup", async || {
        is_gone(&environment, client, &subject, &leaked[0]).await
    })
    .await
    .unwrap();

    let slip = run(&environment, &["revoke-key", "no-such-key"]);
    assert!(!slip.status.success() && String::from_utf8_lossy(&slip.stderr).contains("there is no key"));

    // A further key waits, and a second one beside it would be of no use.
    let before = kids(client).await.unwrap();
    let rotated = run(&environment, &["rotate", "--algorithm", "RS256"]);
    let said = String::from_utf8_lossy(&rotated.stdout).into_owned();
    let after = kids(client).await.unwrap();
    let new: Vec<&String> = after.iter().filter(|kid| !before.contains(kid)).collect();
    assert!(
        rotated.status.success() && new.len() == 1 && said.contains(new[0]),
        "{rotated:?} {after:?}"
    );
    let again = run(&environment, &["rotate", "--algorithm", "RS256"]);
    assert!(!again.status.success(), "{again:?}");
    assert_eq!(kids(client).await.unwrap(), after);
}
