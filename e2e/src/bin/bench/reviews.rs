//! Reviews straight to the servers, which take turns in short rounds so that whatever else the machine does hits all alike.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokenscope_e2e::process::ServerProcess;
use tokenscope_xtask::root;

use crate::baseline;
use crate::load::{self, Connection, ServerLoad, TlsServer};
use crate::report::Reviews;

/// The namespace whose policy has delivery.type Profile and a chain of two, and the name of its row.
pub(crate) const BY_PROFILE: &str = "shop-by-profile";
pub(crate) const PROFILE: &str = "tokenscope, Profile";

/// How long one server has its turn.
const ROUND: Duration = Duration::from_millis(500);

/// How long it is under load before anything counts.
const WARM_UP: Duration = Duration::from_millis(200);

/// A recorded review.
pub(crate) struct Recorded {
    /// The number of its pod's containers.
    pub(crate) containers: usize,
    body: Vec<u8>,
    review: Value,
    /// The same in the namespace whose policy has delivery.type Profile.
    by_profile: Vec<u8>,
}

impl Recorded {
    /// Reads the one whose pod has so many containers.
    pub(crate) fn read(containers: usize) -> Result<Self> {
        let name = match containers {
            1 => "one-container",
            3 => "three-containers",
            10 => "ten-containers",
            _ => bail!("the recorded reviews have 1, 3 and 10 containers, not {containers}"),
        };
        let file = root().join(format!("webhook/tests/data/{name}.json"));
        let text = std::fs::read(&file).with_context(|| format!("can't read {}", file.display()))?;
        let text = text.trim_ascii().to_vec();
        let review: Value = serde_json::from_slice(&text).with_context(|| format!("in {}", file.display()))?;
        let mut by_profile = review.clone();
        by_profile["request"]["namespace"] = BY_PROFILE.into();
        by_profile["request"]["object"]["metadata"]["namespace"] = BY_PROFILE.into();
        Ok(Self {
            containers,
            body: text,
            review,
            by_profile: serde_json::to_vec(&by_profile)?,
        })
    }

    /// Its pod, as somebody would create it.
    pub(crate) fn pod(&self) -> Value {
        let mut pod = self.review["request"]["object"].clone();
        if let Some(metadata) = pod["metadata"].as_object_mut() {
            metadata.retain(|key, _| {
                !["managedFields", "ownerReferences", "uid", "creationTimestamp"].contains(&key.as_str())
            });
        }
        if let Some(members) = pod.as_object_mut() {
            members.remove("status");
        }
        pod
    }

    /// Its text.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The answer's patch, if it is the answer to this review and lets the pod through.
    fn checked<'a>(&self, answer: &'a Value) -> Result<&'a str> {
        let response = &answer["response"];
        ensure!(
            response["uid"] == self.review["request"]["uid"],
            "it is the answer to another review"
        );
        ensure!(response["allowed"] == true, "the pod was refused");
        Ok(response["patch"].as_str().unwrap_or_default())
    }

    /// Whether every container of the pod gets credentials by this variable.
    fn has_credentials(&self, answer: &Value, by: &str) -> Result<()> {
        let patch: json_patch::Patch =
            serde_json::from_slice(&STANDARD.decode(self.checked(answer)?)?).context("there is no patch")?;
        let mut pod = self.review["request"]["object"].clone();
        json_patch::patch(&mut pod, &patch).context("the patch does not fit the pod")?;
        let containers = pod["spec"]["containers"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let equipped = |container: &Value| {
            let variables = container["env"].as_array().into_iter().flatten();
            variables.filter(|variable| variable["name"] == by).count() == 1
        };
        ensure!(
            containers.len() == self.containers && containers.iter().all(equipped),
            "not every container gets {by}"
        );
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Constant,
    /// Reads all of the JSON, and answers with the patch that tokenscope makes.
    ReadAndPatch,
    Tokenscope,
    /// The same where the policy has delivery.type Profile and a chain of two.
    TokenscopeProfile,
    Peer,
}

/// A server that is measured.
pub(crate) struct Target<'a> {
    kind: Kind,
    server: TlsServer,
    path: String,
    /// Its process, where it is one of ours.
    process: Option<&'a ServerProcess>,
}

impl<'a> Target<'a> {
    /// The webhook that always says the same.
    pub(crate) fn constant(server: TlsServer, process: &'a ServerProcess) -> Self {
        Self {
            kind: Kind::Constant,
            server,
            path: baseline::ANSWER.to_owned(),
            process: Some(process),
        }
    }

    /// The same process where it reads a review as JSON and answers with a constant patch.
    pub(crate) fn read_and_patch(server: TlsServer, process: &'a ServerProcess) -> Self {
        Self {
            kind: Kind::ReadAndPatch,
            server,
            path: String::new(),
            process: Some(process),
        }
    }

    /// Ours.
    pub(crate) fn tokenscope(server: TlsServer, process: &'a ServerProcess) -> Self {
        Self {
            kind: Kind::Tokenscope,
            server,
            path: "/mutate?timeout=5s".to_owned(),
            process: Some(process),
        }
    }

    /// Ours, with delivery.type Profile.
    pub(crate) fn tokenscope_profile(server: TlsServer, process: &'a ServerProcess) -> Self {
        Self {
            kind: Kind::TokenscopeProfile,
            ..Self::tokenscope(server, process)
        }
    }

    /// Somebody else's.
    pub(crate) fn peer(server: TlsServer, path: &str) -> Self {
        Self {
            kind: Kind::Peer,
            server,
            path: path.to_owned(),
            process: None,
        }
    }

    /// The server that it is.
    pub(crate) fn server(&self) -> &TlsServer {
        &self.server
    }

    /// Its name in the report.
    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Constant => "constant",
            Kind::ReadAndPatch => "read+patch",
            Kind::Tokenscope => "tokenscope",
            Kind::TokenscopeProfile => PROFILE,
            Kind::Peer => "peer",
        }
    }

    pub(crate) fn is_peer(&self) -> bool {
        self.kind == Kind::Peer
    }

    pub(crate) fn is_tokenscope(&self) -> bool {
        self.kind == Kind::Tokenscope
    }

    /// One review on a connection of its own; fails unless it is answered as it should be.
    pub(crate) async fn try_once(&self, recorded: &Recorded) -> Result<()> {
        self.connect(recorded, 1).await.map(drop)
    }

    /// The patch of its answer, in base64.
    pub(crate) async fn patch(&self, recorded: &Recorded) -> Result<String> {
        let mut connection = Connection::open(&self.server).await?;
        let (_, body) = connection.exchange(&self.request(recorded)).await?;
        let answer: Value = serde_json::from_slice(body)?;
        Ok(recorded.checked(&answer)?.to_owned())
    }

    async fn connect(&self, recorded: &Recorded, connections: usize) -> Result<ServerLoad> {
        let check = |body: &[u8]| {
            let answer: Value = serde_json::from_slice(body)?;
            match self.kind {
                Kind::Constant => recorded.checked(&answer).map(drop),
                Kind::ReadAndPatch | Kind::Tokenscope | Kind::Peer => {
                    recorded.has_credentials(&answer, "AWS_WEB_IDENTITY_TOKEN_FILE")
                }
                Kind::TokenscopeProfile => recorded.has_credentials(&answer, "AWS_CONFIG_FILE"),
            }
        };
        ServerLoad::connect(&self.server, connections, &self.request(recorded), check)
            .await
            .with_context(|| format!("{} does not answer as it should", self.name()))
    }

    fn body_of<'b>(&self, recorded: &'b Recorded) -> &'b [u8] {
        match self.kind {
            Kind::TokenscopeProfile => &recorded.by_profile,
            _ => &recorded.body,
        }
    }

    fn request(&self, recorded: &Recorded) -> Arc<[u8]> {
        let of_recorded = (self.kind == Kind::ReadAndPatch).then(|| baseline::read_path(recorded.containers));
        let path = of_recorded.as_deref().unwrap_or(&self.path);
        load::post(&self.server.address.to_string(), path, self.body_of(recorded))
    }
}

/// What one target has done in all of its rounds.
#[derive(Default)]
struct Sum {
    latencies: Vec<u32>,
    elapsed: Duration,
    processor: Duration,
    load: Option<Duration>,
}

/// Lets the targets take turns until each had `length`. The first one is what the others are compared with.
pub(crate) fn measure(
    targets: &[Target<'_>],
    recorded: &Recorded,
    connections: usize,
    length: Duration,
) -> Result<Vec<Reviews>> {
    // One thread for all of the load, so that the servers keep most of the machine.
    std::thread::scope(|scope| {
        let load = scope.spawn(|| rounds(targets, recorded, connections, length));
        load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn rounds(targets: &[Target<'_>], recorded: &Recorded, connections: usize, length: Duration) -> Result<Vec<Reviews>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut server_loads = Vec::new();
    for target in targets {
        let mut server_load = runtime.block_on(target.connect(recorded, connections))?;
        server_load.round(&runtime, WARM_UP)?;
        server_loads.push(server_load);
    }
    let mut sums: Vec<Sum> = targets.iter().map(|_| Sum::default()).collect();
    let turns = length.as_millis().div_ceil(ROUND.as_millis());
    for _ in 0..turns {
        for ((target, server_load), sum) in targets.iter().zip(&mut server_loads).zip(&mut sums) {
            let used = || {
                target
                    .process
                    .map(ServerProcess::processor_time)
                    .transpose()
                    .map(Option::unwrap_or_default)
            };
            let before = used()?;
            let round = server_load.round(&runtime, ROUND)?;
            sum.processor += used()?.saturating_sub(before);
            sum.latencies.extend(round.latencies);
            sum.elapsed += round.elapsed;
            if let Some(own) = round.own_processor_time {
                *sum.load.get_or_insert_default() += own;
            }
        }
    }
    let per_second = |sum: &Sum| sum.latencies.len() as f64 / sum.elapsed.as_secs_f64();
    let reference = sums.first().map_or(f64::NAN, per_second);
    let lines = targets
        .iter()
        .zip(&server_loads)
        .zip(&mut sums)
        .map(|((target, server_load), sum)| {
            sum.latencies.sort_unstable();
            let each = |time: Duration| time.as_secs_f64() * 1e6 / sum.latencies.len() as f64;
            Reviews {
                containers: recorded.containers,
                review_bytes: target.body_of(recorded).len(),
                answer_bytes: server_load.answer_bytes(),
                connections,
                server: target.name(),
                per_second: per_second(sum),
                ratio: per_second(sum) / reference,
                p50_us: load::percentile(&sum.latencies, 50),
                p99_us: load::percentile(&sum.latencies, 99),
                processor_us: target.process.map(|_| each(sum.processor)),
                load_processor_us: sum.load.map(each),
            }
        });
    Ok(lines.collect())
}
