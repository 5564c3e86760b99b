//! The sidecar beside a real SPIRE, through what happens to one in a year.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod served;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokenscope_e2e::published::{PublishedFolder, publish};
use tokenscope_e2e::sidecar::{FILE, Reader, Sidecar};
use tokenscope_e2e::spire::{ISSUER, Options, Spire, TRUST_DOMAIN};
use tokenscope_e2e::{boto3, eventually};
use tokenscope_sidecar::token::Token;

/// What SPIRE and two busy cores may take for anything.
const PATIENCE: Duration = Duration::from_secs(240);

const ROLE: &str = "arn:aws:iam::111122223333:role/shop/orders";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_signed_with_rsa_gets_credentials() {
    credentials("rsa-2048", "RS256").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_signed_with_an_elliptic_curve_gets_credentials() {
    credentials("ec-p256", "ES256").await;
}

/// From the file to the identity that the unmodified SDK has at a strict STS.
async fn credentials(jwt_key_type: &'static str, algorithm: &str) {
    let options = Options {
        jwt_key_type,
        ..Options::default()
    };
    let spire = Spire::start(options).await.unwrap();
    spire.register("ns/shop/sa/orders", "", 300).unwrap();
    let sidecar = start(&spire, &[]);
    let token = sidecar.wait_for(PATIENCE, "there is a token", |_| true).await.unwrap();
    assert_eq!(header(&token)["alg"], algorithm);

    let subject = format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/orders");
    let sts = spire.strict_sts(ROLE, &subject).await.unwrap();
    let who = eventually(PATIENCE, "the discovery provider has the keys", async || {
        tokio::task::block_in_place(|| who_am_i(&sidecar, &sts.url()))
    })
    .await
    .unwrap();
    assert_eq!(who, "arn:aws:sts::111122223333:assumed-role/orders/orders-1");
    sts.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_issuers_command_publishes_of_the_bundle_lets_an_sts_verify_spires_tokens() {
    let spire = Spire::start(Options::default()).await.unwrap();
    spire.register("ns/shop/sa/orders", "", 300).unwrap();
    let sidecar = start(&spire, &[]);
    sidecar.wait_for(PATIENCE, "there is a token", |_| true).await.unwrap();
    let (bundle, folder) = (spire.folder().join("bundle.json"), spire.folder().join("published"));
    fs::write(&bundle, spire.bundle().unwrap()).unwrap();
    let bundle = bundle.display().to_string();
    publish(&folder, &["--of=spiffe", "--issuer-url", ISSUER, "--bundle", &bundle]).unwrap();

    let published = PublishedFolder::serve(&folder, ISSUER).unwrap();
    let subject = format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/orders");
    let sts = published.sts(ROLE, "sts.amazonaws.com", &subject).await.unwrap();
    let who = tokio::task::block_in_place(|| who_am_i(&sidecar, &sts.url())).unwrap();
    assert_eq!(who, "arn:aws:sts::111122223333:assumed-role/orders/orders-1");
    sts.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_whose_key_is_revoked_is_replaced_long_before_it_is_due() {
    let spire = Spire::start(Options::default()).await.unwrap();
    spire.register("app", "", 3600).unwrap();
    let sidecar = start(&spire, &[]);
    let first = sidecar.wait_for(PATIENCE, "there is a token", |_| true).await.unwrap();
    let reader = Reader::start(sidecar.directory().join(FILE));

    // The agent must have told of the new key before the old one goes.
    let second_key = spire.prepare_key().unwrap();
    let first_key = spire.activate_key(&second_key).unwrap();
    assert_eq!(first.key_id.as_deref(), Some(first_key.as_str()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let unchanged = sidecar.token(FILE).unwrap();
    assert_eq!(
        unchanged, first,
        "another key that signs is no reason to replace a token"
    );

    spire.taint_key(&first_key).unwrap();
    // The agent asks each second, and throws away then what it has of that key.
    tokio::time::sleep(Duration::from_secs(10)).await;
    spire.revoke_key(&first_key).unwrap();
    let revoked = Instant::now();
    let is_second = |token: &Token| token.key_id.as_deref() == Some(&second_key);
    sidecar
        .wait_for(PATIENCE, "the token is signed with the second key", is_second)
        .await
        .unwrap();
    println!("replaced {:?} after its key was revoked", revoked.elapsed());
    assert!(sidecar.process.log().contains("the key of the token was withdrawn"));

    let seen = reader.stop().unwrap();
    assert_eq!((seen.torn, seen.expired), (0, 0), "{seen:?}");
    assert_eq!(seen.tokens, 2, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_agent_or_entry_the_probe_says_so_and_the_token_comes_as_soon_as_it_can() {
    let spire = Spire::start(Options::default()).await.unwrap();
    spire.agent.kill().unwrap();
    fs::remove_file(spire.socket()).unwrap();
    let sidecar = start(&spire, &[]);
    says(&sidecar, "there is no socket").await;
    assert!(sidecar.process.log().contains("\"reason\":\"socket_absent\""));

    spire.agent.restart().unwrap();
    says(&sidecar, "knows no identity for this pod yet").await;

    let entry = spire.register("app", "", 60).unwrap();
    sidecar.wait_for(PATIENCE, "there is a token", |_| true).await.unwrap();
    assert_eq!(sidecar.probe().unwrap(), Ok(()));
    only_the_token(&sidecar).await;

    // A workload that lost its entry keeps its token until that ends, and gets another one when the entry is back.
    spire.deregister(&entry).unwrap();
    eventually(PATIENCE, "the sidecar hears of it", async || {
        let renewed = sidecar.process.log().contains("\"reason\":\"no_identity\"");
        anyhow::ensure!(renewed, "not yet");
        Ok(())
    })
    .await
    .unwrap();
    let last = sidecar.token(FILE).unwrap();
    spire.register("app", "", 60).unwrap();
    sidecar
        .wait_for(PATIENCE, "there is a token of the new entry", |token| {
            token.issued_at > last.issued_at
        })
        .await
        .unwrap();

    let ended = sidecar.process.terminate(Duration::from_secs(20)).await.unwrap();
    assert!(ended.success(), "{ended}");
    assert_eq!(sidecar.files().unwrap(), [FILE], "the token stays for who still runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_audiences_an_x509_svid_and_the_keys_come_from_one_process_once_or_for_ever() {
    let spire = Spire::start(Options::default()).await.unwrap();
    spire.register("web", "web", 300).unwrap();
    spire.register("aws", "aws", 300).unwrap();
    let everything = [
        (
            "TOKENSCOPE_JWT_SVIDS",
            "token=sts.amazonaws.com token-vault=https://vault.example.test",
        ),
        ("TOKENSCOPE_X509_SVID", "true"),
        ("TOKENSCOPE_JWT_BUNDLE", "true"),
        ("TOKENSCOPE_HINT", "aws"),
        ("TOKENSCOPE_TRUST_DOMAIN", TRUST_DOMAIN),
    ];
    let once = start(&spire, &[&everything[..], &[("TOKENSCOPE_ONCE", "true")]].concat());
    let ended = eventually(PATIENCE, "everything is written and the process ends", async || {
        once.process
            .exit_status()?
            .ok_or_else(|| anyhow::anyhow!("it still runs:\n{}", once.process.log_tail(20)))
    })
    .await
    .unwrap();
    assert!(ended.success(), "{ended}: {}", once.process.log());
    check_everything(&once);

    let kept = start(&spire, &everything);
    eventually(PATIENCE, "everything is written", async || {
        kept.probe()?.map_err(|why| anyhow::anyhow!(why))?;
        // What said why it was not goes away right after.
        let files = kept.files()?;
        anyhow::ensure!(files == EVERYTHING, "there are {files:?}");
        Ok(())
    })
    .await
    .unwrap();
    check_everything(&kept);

    let missing = [("TOKENSCOPE_HINT", "other")];
    let wrong = start(&spire, &missing);
    says(
        &wrong,
        r#"of the 2 identities that this pod has, none has the hint "other""#,
    )
    .await;
}

/// The files of a sidecar that is told to write all that it can.
const EVERYTHING: [&str; 6] = [
    "jwt_bundle.json",
    "svid.pem",
    "svid_bundle.pem",
    "svid_key.pem",
    "token",
    "token-vault",
];

fn check_everything(sidecar: &Sidecar) {
    assert_eq!(sidecar.files().unwrap(), EVERYTHING);
    let path = |name: &str| sidecar.directory().join(name);
    for name in EVERYTHING {
        let expected = if name == "svid_key.pem" { 0o600 } else { 0o644 };
        assert_eq!(fs::metadata(path(name)).unwrap().mode() & 0o777, expected, "{name}");
    }
    for (name, audience) in [
        ("token", "sts.amazonaws.com"),
        ("token-vault", "https://vault.example.test"),
    ] {
        let token = sidecar.token(name).unwrap();
        assert_eq!(token.audiences, [audience.into()]);
        assert_eq!(*token.subject, *format!("spiffe://{TRUST_DOMAIN}/aws"));
        let bundle: Value = serde_json::from_slice(&fs::read(path("jwt_bundle.json")).unwrap()).unwrap();
        let keys = bundle[format!("spiffe://{TRUST_DOMAIN}")]["keys"].as_array().unwrap();
        assert!(
            keys.iter().any(|key| key["kid"].as_str() == token.key_id.as_deref()),
            "{bundle}"
        );
    }
    let chain: Vec<_> = CertificateDer::pem_file_iter(path("svid.pem"))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_file(path("svid_key.pem")).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    rustls::sign::CertifiedKey::from_der(chain, key, &provider)
        .unwrap()
        .keys_match()
        .unwrap();
    assert_eq!(
        CertificateDer::pem_file_iter(path("svid_bundle.pem")).unwrap().count(),
        1
    );
}

/// Faults one after another, each as soon as the token is fresh, so that SPIRE itself could be back in time; a workload
/// reads the file all the while. A round takes two to three minutes; `TOKENSCOPE_RACE_SECONDS=600` asks for ten minutes of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_the_file_all_the_time_never_finds_it_absent_torn_or_expired() {
    // Long enough that a server that is back after more than half of it signs in time also on a busy machine.
    const LIFE: u32 = 100;
    let seconds = std::env::var("TOKENSCOPE_RACE_SECONDS").map_or(1, |text| text.parse().unwrap());
    let spire = Spire::start(Options::default()).await.unwrap();
    let mut entry = spire.register("app", "", LIFE).unwrap();
    let sidecar = start(&spire, &[]);
    let fresh = async |after: Timestamp| {
        let is_fresh = |token: &Token| token.issued_at.is_some_and(|issued_at| issued_at > after);
        let token = sidecar
            .wait_for(PATIENCE, "there is a fresh token", is_fresh)
            .await
            .unwrap();
        token.issued_at.unwrap()
    };
    let mut issued_at = fresh(Timestamp::UNIX_EPOCH).await;
    let reader = Reader::start(sidecar.directory().join(FILE));
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed() < Duration::from_secs(seconds) {
        rounds += 1;
        // The server is gone for longer than half of a token's life.
        spire.server.kill().unwrap();
        tokio::time::sleep(Duration::from_secs(u64::from(LIFE) * 11 / 20)).await;
        spire.server.restart().unwrap();
        issued_at = fresh(issued_at).await;

        // The agent crashes, and its socket is another one afterwards.
        let socket = fs::metadata(spire.socket()).unwrap().modified().unwrap();
        spire.agent.restart().unwrap();
        eventually(PATIENCE, "the agent has a new socket", async || {
            let now = fs::metadata(spire.socket())?.modified()?;
            anyhow::ensure!(now != socket, "the old one");
            Ok(())
        })
        .await
        .unwrap();

        // The keys are rotated by force.
        let new_key = eventually(PATIENCE, "the server prepares a key", async || spire.prepare_key())
            .await
            .unwrap();
        let old_key = spire.activate_key(&new_key).unwrap();
        spire.taint_key(&old_key).unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        spire.revoke_key(&old_key).unwrap();
        issued_at = fresh(issued_at).await;

        // The entry is deleted, and made anew a little later. The sidecar may notice or not.
        spire.deregister(&entry).unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
        entry = spire.register("app", "", LIFE).unwrap();

        // The sidecar itself crashes.
        sidecar.process.kill().unwrap();
        sidecar.process.restart().unwrap();
        issued_at = fresh(issued_at).await;
    }
    let seen = reader.stop().unwrap();
    println!("{rounds} rounds in {:?}: {seen:?}", started.elapsed());
    assert_eq!(
        (seen.torn, seen.expired),
        (0, 0),
        "{seen:?}\n{}",
        sidecar.process.log_tail(60)
    );
    assert!(seen.tokens >= 3, "{seen:?}");
    only_the_token(&sidecar).await;
}

fn start(spire: &Spire, more: &[(&str, &str)]) -> Sidecar {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let name = format!("sidecar-{}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    Sidecar::start(spire.folder(), &name, &spire.socket(), spire.watchdog(), more).unwrap()
}

/// The reason why there was no token goes away right after the token has come, and nothing unfinished stays.
async fn only_the_token(sidecar: &Sidecar) {
    eventually(PATIENCE, "there is the token's file and no other", async || {
        let files = sidecar.files()?;
        anyhow::ensure!(files == [FILE], "there are {files:?}");
        Ok(())
    })
    .await
    .unwrap();
}

async fn says(sidecar: &Sidecar, part: &str) {
    eventually(PATIENCE, format!("the probe says {part:?}"), async || {
        let why = sidecar.probe()?.err().unwrap_or_default();
        anyhow::ensure!(why.contains(part), "it says {why:?}");
        anyhow::ensure!(why.lines().count() == 1, "in several lines: {why:?}");
        Ok(())
    })
    .await
    .unwrap();
}

fn header(token: &Token) -> Value {
    use base64::Engine as _;
    let part = token.secret().split('.').next().unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Who the unmodified AWS SDK is with the token file.
fn who_am_i(sidecar: &Sidecar, sts: &str) -> anyhow::Result<String> {
    let file = sidecar.directory().join(FILE).display().to_string();
    caller(&[
        ("AWS_ENDPOINT_URL_STS", sts),
        ("AWS_ROLE_ARN", ROLE),
        ("AWS_ROLE_SESSION_NAME", "orders-1"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &file),
    ])
}

/// Who the unmodified AWS SDK is in this environment.
fn caller(environment: &[(&str, &str)]) -> anyhow::Result<String> {
    let environment = [environment, &[("AWS_DEFAULT_REGION", "eu-central-1")]].concat();
    let script = "import json, boto3; print(json.dumps(boto3.client('sts').get_caller_identity()['Arn']))";
    let arn = boto3::run(script, &environment, &Value::Null)?;
    Ok(serde_json::from_value(arn)?)
}
