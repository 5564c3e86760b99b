//! Somebody else's IAM and STS (MiniStack), which verify signatures and evaluate trust policies, external ids, session policies
//! and permissions, across accounts.
//!
//! Not judged there, whatever it answers: signatures of web identity tokens, how long a session may last, source identity, and what it
//! does not know of a request. `tokenscope-sts` judges those. A web identity token whose `aud` is a list, as Kubernetes writes it, is refused there
//! with AccessDenied wherever the trust policy compares the audience by `StringEquals`; AWS takes a list of one.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokenscope_fixtures::free_port;
use tokenscope_xtask::tools::{Tool, resolve};
use tokio::net::TcpStream;

use crate::process::{ServerProcess, Start, Watchdog};
use crate::{boto3, eventually};

/// The deadline of the start on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(180);

/// The secret of each account's root, whose access key id is the account's number.
const ROOT_SECRET: &str = "test";

/// Calls of IAM as an account's root, one after another; none may fail. Prints the answers.
const CALLS: &str = "
import json, sys, boto3
iam = boto3.client('iam')
print(json.dumps([getattr(iam, call)(**arguments) for call, arguments in json.load(sys.stdin)], default=str))
";

/// A running MiniStack. It ends when it is dropped.
#[derive(Debug)]
pub struct MiniStack {
    port: u16,
    python: PathBuf,
    _server: ServerProcess,
    _watchdog: Arc<Watchdog>, // last: it removes the folder
}

impl MiniStack {
    /// Starts one with nothing in it.
    pub async fn start() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "tokenscope-ministack-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder)?;
        let watchdog = Watchdog::start(&folder)?;
        let port = free_port()?;
        // Without AUTH everything is allowed, and without BIND_HOST it listens on every address.
        let environment = BTreeMap::from([
            ("AUTH".to_owned(), "true".to_owned()),
            ("BIND_HOST".to_owned(), "127.0.0.1".to_owned()),
            ("GATEWAY_PORT".to_owned(), port.to_string()),
            ("HOME".to_owned(), folder.display().to_string()),
        ]);
        let start = Start {
            name: "ministack".to_owned(),
            program: resolve(Tool::MiniStack)?,
            arguments: vec!["-m".to_owned(), "ministack".to_owned()],
            environment,
            logs: folder,
            observe_port: None,
        };
        let server = ServerProcess::start(start, &watchdog)?;
        eventually(START_DEADLINE, "MiniStack listens", async || {
            Ok(TcpStream::connect(("127.0.0.1", port)).await?)
        })
        .await
        .with_context(|| server.log_tail(20))?;
        Ok(Self {
            port,
            python: resolve(Tool::Boto3)?,
            _server: server,
            _watchdog: watchdog,
        })
    }

    /// The URL at which it serves STS, IAM and S3.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Makes calls of IAM as the root of an account: method of boto3 and arguments. It blocks its thread.
    pub fn administer(&self, account: &str, calls: &[(&str, Value)]) -> Result<Vec<Value>> {
        let url = self.url();
        let environment = [
            ("AWS_ENDPOINT_URL", &*url),
            ("AWS_DEFAULT_REGION", "eu-central-1"),
            ("AWS_ACCESS_KEY_ID", account),
            ("AWS_SECRET_ACCESS_KEY", ROOT_SECRET),
        ];
        let answers = boto3::run_by(&self.python, CALLS, &environment, &json!(calls))?;
        Ok(serde_json::from_value(answers)?)
    }

    /// Makes a role with this trust policy and this policy of its own.
    pub fn add_role(&self, account: &str, name: &str, trust_policy: &Value, policy: &Value) -> Result<()> {
        let role = json!({"RoleName": name, "AssumeRolePolicyDocument": trust_policy.to_string()});
        let own = json!({"RoleName": name, "PolicyName": "policy", "PolicyDocument": policy.to_string()});
        self.administer(account, &[("create_role", role), ("put_role_policy", own)])?;
        Ok(())
    }

    /// Makes a user with this policy: access key id and secret.
    pub fn add_user(&self, account: &str, name: &str, policy: &Value) -> Result<(String, String)> {
        let answers = self.administer(
            account,
            &[
                ("create_user", json!({"UserName": name})),
                (
                    "put_user_policy",
                    json!({"UserName": name, "PolicyName": "policy", "PolicyDocument": policy.to_string()}),
                ),
                ("create_access_key", json!({"UserName": name})),
            ],
        )?;
        let key = answers.last().map(|answer| &answer["AccessKey"]);
        let text = |field: &str| Some(key?[field].as_str()?.to_owned());
        text("AccessKeyId")
            .zip(text("SecretAccessKey"))
            .context("a user has an access key")
    }
}
