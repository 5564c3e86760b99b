//! Ceph's radosgw as STS, IAM and S3: it judges session tags, which VersityGW ignores.
//!
//! It fetches discovery and keys of an issuer for each token, verifies the signature and the role's trust policy, demands
//! `sts:TagSession` of it for a token with `https://aws.amazon.com/tags`, and evaluates `aws:RequestTag` there and
//! `aws:PrincipalTag` in the role's policy.
//!
//! It differs from AWS (16.2, and the tests allow for it): a policy variable such as `${aws:PrincipalTag/team}` is taken as
//! the whole value of a condition only, and refused within one and in `Resource`. It takes the first key of a JWKS only,
//! and from `x5c` only, which our issuer publishes by its flag `--x5c`. Policies may have no spaces. ARNs have no account. What is wrong with a token isn't said: every
//! refusal is a 403, so a test has to show that the same token is accepted without the fault. Neither `exp` nor `iat`, nor
//! a single audience, is demanded, and a source identity is ignored.
//!
//! Three processes, with everything in memory: a monitor, a store and the gateway. Measured on two cores beside other
//! builds: ready 1.7 s after the start, with 34, 47 and 54 MB resident, and 175 MB at the end of the tests. Each group of
//! calls starts a Python with boto3, which takes most of the time.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokenscope_fixtures::free_port;
use tokenscope_xtask::tools::{Tool, resolve};

use crate::ceph::{CLUSTER, Programs};
use crate::process::{Memory, ServerProcess};
use crate::{boto3, eventually};

/// How long starting may take on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(300);

/// The store's ID.
const STORE: &str = "11111111-2222-4333-8444-666666666666";

/// Calls of AWS APIs by the unmodified SDK, one after another: `{"keys", "calls": [[service, call, arguments]]}`. Prints what
/// came of each. Its errors of STS and IAM are no AWS errors, so for those only the status is known.
const CALLS: &str = "
import json, sys, boto3, botocore.exceptions
task = json.load(sys.stdin)
clients, outcomes = {}, []
for service, call, arguments in task['calls']:
    if service not in clients:
        clients[service] = boto3.client(service, **task['keys'])
    try:
        answer = getattr(clients[service], call)(**arguments)
        answer.pop('ResponseMetadata', None)
        if 'Body' in answer:
            answer['Body'] = answer['Body'].read().decode()
        outcomes.append({'answer': answer})
    except botocore.exceptions.ClientError as error:
        code = error.response.get('Error', {}).get('Code', '')
        outcomes.append({'status': error.response['ResponseMetadata']['HTTPStatusCode'], 'code': code})
print(json.dumps(outcomes, default=str))
";

/// A running radosgw. It ends when it is dropped.
#[derive(Debug)]
pub struct Radosgw {
    gateway: ServerProcess,
    store: ServerProcess,
    monitor: ServerProcess,
    port: u16,
    python: PathBuf,
    /// Held while a session is asked for: radosgw makes an account for a subject that it has not seen yet, and answers 409
    /// when two requests do that at once.
    assuming: Mutex<()>,
    ceph: Programs, // last: it removes the folder
}

/// AccessKeys of the administrator or of a role's session.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKeys {
    id: String,
    secret: String,
    session: Option<String>,
}

/// A call of an AWS API: service, method of boto3, arguments.
pub type Call<'a> = (&'a str, &'a str, Value);

/// A call that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The code of S3, such as `AccessDenied`; empty for STS and IAM.
    pub code: String,
}

impl Radosgw {
    /// Starts one; nothing is in it but its administrator.
    ///
    /// Its three processes take ports that were free a moment ago. Where another program took one meanwhile, a second start has
    /// others.
    pub async fn start() -> Result<Self> {
        Self::start_with(None).await
    }

    /// The same; it reaches every issuer through an HTTP proxy on this port of 127.0.0.1.
    pub async fn start_behind(proxy: u16) -> Result<Self> {
        Self::start_with(Some(proxy)).await
    }

    async fn start_with(proxy: Option<u16>) -> Result<Self> {
        match Self::start_once(proxy).await {
            Ok(radosgw) => Ok(radosgw),
            Err(first) => Self::start_once(proxy)
                .await
                .with_context(|| format!("the second start after one that failed: {first:#}")),
        }
    }

    async fn start_once(proxy: Option<u16>) -> Result<Self> {
        let python = resolve(Tool::Boto3)?;
        let (monitor_port, port) = (free_port()?, free_port()?);
        let mut ceph = Programs::in_new_folder(monitor_port, port)?;
        // Both maps are made beforehand, so that no command has to register the store.
        let address = format!("[v1:127.0.0.1:{monitor_port}]");
        ceph.finish("ceph-authtool", "--create-keyring keyring --gen-key -n mon.")?;
        ceph.finish(
            "monmaptool",
            &format!("--create --addv a {address} --fsid {CLUSTER} monmap"),
        )?;
        ceph.finish("osdmaptool", "--createsimple 1 osdmap")?;
        ceph.finish(
            "ceph-mon",
            "-i a --mkfs --monmap monmap --osdmap osdmap --keyring keyring",
        )?;
        let monitor = ceph.serve("ceph-mon", "-i a -f")?;
        ceph.finish("ceph-osd", &format!("-i 0 --mkfs --osd-uuid {STORE}"))?;
        let store = ceph.serve("ceph-osd", "-i 0 -f")?;
        if let Some(proxy) = proxy {
            ceph.fetch_by_proxy(proxy);
        }
        let gateway = ceph.serve("radosgw", "-n client.rgw -f")?;
        let radosgw = Self {
            gateway,
            store,
            monitor,
            port,
            python,
            assuming: Mutex::new(()),
            ceph,
        };
        radosgw.wait_ready().await?;
        let administrator = AccessKeys::administrator();
        radosgw.ceph.finish(
            "radosgw-admin",
            &format!(
                "user create --uid=administrator --display-name=administrator --access-key={} --secret-key={} \
                 --caps=roles=*;oidc-provider=*",
                administrator.id, administrator.secret
            ),
        )?;
        Ok(radosgw)
    }

    /// The URL at which it serves STS, IAM and S3.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The last lines that the gateway has logged.
    pub fn log_tail(&self, lines: usize) -> String {
        self.gateway.log_tail(lines)
    }

    /// The memory of its three processes together.
    pub fn memory(&self) -> Result<Memory> {
        let mut sum = Memory::default();
        for process in [&self.gateway, &self.store, &self.monitor] {
            let memory = process.memory()?;
            sum.resident += memory.resident;
            sum.anonymous += memory.anonymous;
            sum.peak += memory.peak;
        }
        Ok(sum)
    }

    /// Trusts an issuer, whose discovery document it must reach, with this audience. Returns the name that conditions of
    /// trust policies begin with.
    pub fn trust_issuer<'a>(&self, issuer: &'a str, audience: &str) -> Result<&'a str> {
        let provider = json!({
            "Url": issuer, "ClientIDList": [audience],
            "ThumbprintList": ["0000000000000000000000000000000000000000"], // demanded, and not compared
        });
        self.administer(&[("iam", "create_open_id_connect_provider", provider)])?;
        let host = issuer.split_once("://").map(|(_, host)| host);
        host.with_context(|| format!("{issuer} is no URL"))
    }

    /// Makes a role with a trust policy for an issuer's tokens and a policy of its own.
    pub fn add_role(&self, name: &str, trust_policy: &Value, policy: &Value) -> Result<()> {
        // serde_json writes no spaces, which would be refused.
        self.administer(&[
            (
                "iam",
                "create_role",
                json!({"RoleName": name, "AssumeRolePolicyDocument": trust_policy.to_string()}),
            ),
            (
                "iam",
                "put_role_policy",
                json!({"RoleName": name, "PolicyName": "policy", "PolicyDocument": policy.to_string()}),
            ),
        ])
    }

    /// Shows a token and asks for a session of a role.
    pub fn assume(&self, role: &str, token: &str) -> Result<Result<AccessKeys, ErrorAnswer>> {
        let arguments = json!({
            "RoleArn": format!("arn:aws:iam:::role/{role}"), "RoleSessionName": "session", "WebIdentityToken": token,
        });
        let _alone = self.assuming.lock().unwrap_or_else(PoisonError::into_inner);
        let outcomes = self.calls(
            &AccessKeys::administrator(),
            &[("sts", "assume_role_with_web_identity", arguments)],
        )?;
        let outcome = outcomes.into_iter().next().context("a call has an outcome")?;
        Ok(match outcome {
            Ok(answer) => Ok(AccessKeys::of_session(&answer["Credentials"])?),
            Err(refused) => Err(refused),
        })
    }

    /// Makes calls with the administrator's keys, none of which may be refused.
    pub fn administer(&self, calls: &[Call<'_>]) -> Result<()> {
        for (outcome, call) in self.calls(&AccessKeys::administrator(), calls)?.into_iter().zip(calls) {
            if let Err(refused) = outcome {
                bail!("{call:?}: {refused:?}\n{}", self.gateway.log_tail(10));
            }
        }
        Ok(())
    }

    /// Makes calls with these keys by the unmodified AWS SDK; what came of each.
    pub fn calls(&self, keys: &AccessKeys, calls: &[Call<'_>]) -> Result<Vec<Result<Value, ErrorAnswer>>> {
        let task = json!({
            "calls": calls,
            "keys": {
                "endpoint_url": self.url(), "region_name": "us-east-1", "aws_access_key_id": keys.id,
                "aws_secret_access_key": keys.secret, "aws_session_token": keys.session,
            },
        });
        let outcomes = boto3::run_by(&self.python, CALLS, &[], &task).with_context(|| self.gateway.log_tail(10))?;
        let outcomes: Vec<Value> = serde_json::from_value(outcomes)?;
        ensure!(
            outcomes.len() == calls.len(),
            "{} outcomes of {} calls",
            outcomes.len(),
            calls.len()
        );
        let outcome = |mut outcome: Value| match outcome["status"].as_u64() {
            Some(status) => Ok(Err(ErrorAnswer {
                status: u16::try_from(status)?,
                code: outcome["code"].as_str().unwrap_or_default().to_owned(),
            })),
            None => Ok(Ok(outcome["answer"].take())),
        };
        outcomes.into_iter().map(outcome).collect()
    }

    async fn wait_ready(&self) -> Result<()> {
        let ready = eventually(START_DEADLINE, "radosgw is ready", async || {
            for process in [&self.gateway, &self.store, &self.monitor] {
                if let Some(status) = process.exit_status()? {
                    return Ok(Err((process.name(), status, process.log_tail(20))));
                }
            }
            let (status, _) = crate::get(self.port, "/").await?;
            ensure!(status == 200, "it answers {status}");
            Ok(Ok(()))
        });
        match ready.await.with_context(|| self.gateway.log_tail(20))? {
            Ok(()) => Ok(()),
            Err((name, status, log)) => bail!("{name} ended with {status}:\n{log}"),
        }
    }
}

impl AccessKeys {
    /// Those of the administrator, of this server only.
    pub fn administrator() -> Self {
        Self {
            id: "administrator".to_owned(),
            secret: "of-a-test-only".to_owned(),
            session: None,
        }
    }

    fn of_session(credentials: &Value) -> Result<Self> {
        let text = |name: &str| {
            let text = credentials[name].as_str().map(str::to_owned);
            text.with_context(|| format!("the answer has no {name}"))
        };
        Ok(Self {
            id: text("AccessKeyId")?,
            secret: text("SecretAccessKey")?,
            session: Some(text("SessionToken")?),
        })
    }
}

/// Without the secrets.
impl fmt::Debug for AccessKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AccessKeys")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
