//! Tokens that the kubelet replaces while SDKs use them.
//!
//! The API server gives no token for less than 600 seconds, and the kubelet asks for another one after 80 % of that, less
//! up to ten seconds: 470 to 480 seconds, and nothing makes it shorter. So the pods start before all other tests and are
//! looked at after them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;
use tokenscope_e2e::node::STARTED;
use tokenscope_e2e::probes::Sdk;
use tokenscope_xtask::progress::say;

use crate::{Shared, as_it_is, asking, pod};

/// What runs all the time: the two SDKs that can be told that their credentials are old after a round, so that they exchange
/// the token each time.
pub(crate) const SDKS: [Sdk; 2] = [Sdk::Go, Sdk::Python];

/// Each pod and its first token.
pub(crate) type LongLived = Vec<(Sdk, Token)>;

/// Seconds between two rounds of a probe.
const EVERY: u32 = 5;

/// What a token says of itself; in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Token {
    #[serde(rename = "jti")]
    id: String,
    #[serde(rename = "iat")]
    issued: i64,
    #[serde(rename = "exp")]
    expires: i64,
}

/// Starts the pods, whose tokens live as shortly as they can.
pub(crate) fn begin(shared: &Shared) -> Result<LongLived> {
    let role = shared.workloads("refreshed")?;
    for sdk in SDKS {
        let name = sdk.name();
        let mut template = asking(
            &role,
            &json!({"containers": [sdk.staying("app", "refreshed", name, EVERY)]}),
        );
        template["metadata"]["annotations"]["tokenscope.io/token-expiration"] = "600".into();
        shared.create(&pod("refreshed", name, &template))?;
    }
    SDKS.into_iter()
        .map(|sdk| {
            let token = shared
                .node
                .eventually(STARTED, "the pod has a token", || shared.token(sdk))?;
            ensure!(token.expires - token.issued == 600, "{token:?}");
            Ok((sdk, token))
        })
        .collect()
}

impl Shared {
    /// The token that a long-lived pod has now, as the kubelet wrote it.
    fn token(&self, sdk: Sdk) -> Result<Token> {
        let path = "--output=jsonpath={.metadata.uid}";
        let uid = self.node.kubectl_in("refreshed", &["get", "pod", sdk.name(), path])?;
        let volume = format!("data/kubelet/pods/{uid}/volumes/kubernetes.io~projected/tokenscope-aws-token/token");
        let file = self.node.cluster().folder().join(volume).display().to_string();
        let token = self.node.run("cat", &[&file], "")?;
        let claims = token.split('.').nth(1).context("a token has three parts")?;
        Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?)
    }

    /// The access keys that a long-lived pod has printed, and when, one for each round.
    fn rounds(&self, sdk: Sdk) -> Result<Vec<(Timestamp, String)>> {
        let log = self
            .node
            .kubectl_in("refreshed", &["logs", sdk.name(), "--timestamps"])?;
        ensure!(!log.contains("refused: "), "{} failed: {log}", sdk.name());
        log.lines()
            .filter_map(|line| line.split_once(" key: "))
            .map(|(time, key)| Ok((time.parse()?, key.to_owned())))
            .collect()
    }

    /// Says what a long-lived pod did once it has used its newest token, which is not its first, for three exchanges.
    fn used_another_token(&self, sdk: Sdk, first: &Token) -> Result<String> {
        let newest = self.token(sdk)?;
        ensure!(newest.id != first.id, "{} has its first token", sdk.name());
        let age = newest.issued - first.issued;
        // Where the tests before this one take long, the kubelet has replaced it more than once.
        let replacements = (1..=5)
            .find(|times| (400 * times..600 * times).contains(&age))
            .unwrap_or_default();
        assert!(
            replacements > 0,
            "another token after {age} s, so not because the one before was old"
        );
        let rounds = self.rounds(sdk)?;
        // A second of the file's, and one round that may have begun before it.
        let replaced = Timestamp::from_second(newest.issued)? + SignedDuration::from_secs(2 + i64::from(EVERY));
        let keys = |after: bool| -> usize {
            let mut keys: Vec<&str> = rounds
                .iter()
                .filter(|(time, _)| (*time > replaced) == after)
                .map(|(_, key)| key.as_str())
                .collect();
            keys.dedup();
            keys.len()
        };
        ensure!(keys(true) >= 3, "{} exchanges of the last token", keys(true));
        assert!(keys(false) >= 10, "{} exchanges before the last token", keys(false));
        Ok(format!(
            "  {}: {replacements} replacements of the token in {age} s; {} rounds without a failure, {} exchanges before the last of \
             them and {} after it",
            sdk.name(),
            rounds.len(),
            keys(false),
            keys(true)
        ))
    }
}

#[test]
fn while_the_kubelet_replaces_their_tokens_sdks_never_see_a_failure() -> Result<()> {
    let Some(shared) = as_it_is()? else { return Ok(()) };
    let long_lived = shared.long_lived.clone();
    drop(shared);
    for (sdk, first) in long_lived {
        // Other tests may need the cluster meanwhile, and have it for minutes: a look after one of them may come just after a replacement.
        let started = Instant::now();
        let done = loop {
            let shared = as_it_is()?.context("there is a cluster")?;
            shared.rounds(sdk)?;
            match shared.used_another_token(sdk, &first) {
                Ok(done) => break done,
                Err(error) => ensure!(started.elapsed() < Duration::from_secs(1500), "in vain: {error:#}"),
            }
            drop(shared);
            std::thread::sleep(Duration::from_secs(2));
        };
        say(&done);
    }
    Ok(())
}
