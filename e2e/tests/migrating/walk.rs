//! A cluster on its way from the EKS webhook to tokenscope.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::admission::{Answer, create_pod};
use tokenscope_e2e::control_plane::{self, ControlPlane};
use tokenscope_e2e::eks_webhook::{CONFIGURATION, EksWebhook};
use tokenscope_e2e::fixtures::{PROPAGATION, without_random_names};
use tokenscope_e2e::install::Options;
use tokenscope_e2e::rollout::{Load, Rollout};
use tokenscope_e2e::second_webhook::SecondWebhook;
use tokenscope_e2e::{eventually, get_json};
use tokenscope_xtask::tools::{Tool, resolve};

use crate::document::{has_jq, needs_jq, set};
use crate::pods::{LATER, accounts, kinds, name_of};

/// How long both settings of the webhook answer side by side.
const SIDE_BY_SIDE: Duration = Duration::from_secs(1);

/// The cluster on its way.
pub(crate) struct Walk {
    pub(crate) rollout: Option<Rollout>, // before the control plane, so that it ends first
    pub(crate) control_plane: ControlPlane,
    pub(crate) client: kube::Client,
    /// The chart's values so far.
    pub(crate) values: Value,
    /// The other webhook, as long as it is there.
    pub(crate) theirs: Option<SecondWebhook>,
    pub(crate) kinds: Vec<Value>,
    /// The specification of each kind as the other webhook alone leaves it.
    pub(crate) expected: BTreeMap<String, Value>,
    /// Versions of the pods that were created.
    pub(crate) created: BTreeMap<String, String>,
    pub(crate) load: Option<Load>,
}

impl Walk {
    /// A cluster with the EKS webhook and pods of all kinds.
    pub(crate) async fn begin() -> Self {
        let control_plane = ControlPlane::start(control_plane::Options::default()).await.unwrap();
        let client = control_plane.client().await.unwrap();
        let accounts = accounts();
        control_plane.create_namespace("shop", &[]).await.unwrap();
        for (name, annotations) in &accounts {
            let annotations = annotations.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            let annotations: Vec<_> = annotations.collect();
            control_plane
                .create_service_account("shop", name, &annotations)
                .await
                .unwrap();
        }
        let webhook = EksWebhook {
            region: "eu-central-1".to_owned(),
            regional: true,
            ..EksWebhook::default()
        };
        let answer = move |pod: &Value| {
            let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
            accounts
                .get(account)
                .map_or_else(Vec::new, |annotations| webhook.patch(pod, annotations))
        };
        let theirs = SecondWebhook::start_as(&control_plane, CONFIGURATION.to_owned(), "shop", answer);
        let mut walk = Self {
            theirs: Some(theirs.await.unwrap()),
            client,
            control_plane,
            rollout: None,
            values: json!({}),
            kinds: kinds(),
            expected: BTreeMap::new(),
            created: BTreeMap::new(),
            load: None,
        };
        for pod in walk.kinds.clone() {
            let created = walk.create(&pod, 0).await.unwrap();
            walk.expected
                .insert(name_of(&pod), without_random_names(&created.body["spec"]).unwrap());
        }
        walk
    }

    /// Creates a pod of a kind at a step.
    pub(crate) async fn create(&mut self, kind: &Value, step: u8) -> Result<Answer> {
        let mut pod = kind.clone();
        let name = format!("{}-{step}-{}", name_of(kind), self.created.len());
        pod["metadata"]["name"] = json!(name);
        let answer = create_pod(&self.client, &pod).await?;
        ensure!(answer.accepted(), "{name}: {}", answer.message());
        let version = answer.body["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        self.created.insert(name, version.to_owned());
        Ok(answer)
    }

    /// Runs a command of the document: helm's values are taken over as helm and the Deployments would, and the rest runs as it stands.
    pub(crate) async fn run(&mut self, command: &str) {
        if !command.starts_with("helm ") {
            if !needs_jq(command) || has_jq() {
                self.shell(command).unwrap();
            }
            return;
        }
        let words: Vec<&str> = command.split_whitespace().collect();
        if words[2] == "tokenscope-crds" {
            return; // comes with the other chart here
        }
        let reuses = words.contains(&"--reuse-values");
        assert_eq!(words[1] == "upgrade", reuses, "{command}");
        for pair in words.windows(2).filter(|pair| pair[0] == "--set") {
            set(&mut self.values, pair[1]);
        }
        let options = Options {
            values: self.values.clone(),
            ..Options::default()
        };
        match &mut self.rollout {
            None => self.rollout = Some(Rollout::start(&self.control_plane, options).await.unwrap()),
            Some(rollout) => {
                let prefix = ["second-", "third-", "fourth-", "fifth-"];
                let number = rollout.number();
                let replaced = rollout.replace(&self.control_plane, prefix[number % 4], options, SIDE_BY_SIDE);
                replaced.await.unwrap();
            }
        }
    }

    /// Runs a command in a shell that finds this cluster.
    pub(crate) fn shell(&self, command: &str) -> Result<String> {
        let folder = self.control_plane.folder().join("bin");
        std::fs::create_dir_all(&folder)?;
        let kubectl: PathBuf = folder.join("kubectl");
        if !kubectl.exists() {
            symlink(resolve(Tool::Kubectl)?, &kubectl)?;
        }
        let path = format!("{}:{}", folder.display(), std::env::var("PATH")?);
        let output = Command::new("sh")
            .args(["-e", "-c", command])
            .env("PATH", path)
            .env("KUBECONFIG", self.control_plane.kubeconfig())
            .env("HOME", self.control_plane.folder())
            .output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command}: {errors}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Pods of all kinds come out as with the other webhook alone, and those that run are as they were.
    pub(crate) async fn nothing_changes(&mut self, step: u8) {
        for kind in self.kinds.clone() {
            let name = name_of(&kind);
            let answer = self.create(&kind, step).await.unwrap();
            let warnings = answer.warnings.iter().filter(|warning| !warning.contains(LATER));
            assert_eq!(warnings.collect::<Vec<_>>(), [""; 0], "step {step}, {name}");
            assert_eq!(
                without_random_names(&answer.body["spec"]).unwrap(),
                self.expected[&name],
                "step {step}, {name}: {}",
                answer.body["metadata"]
            );
        }
        let pods = get_json(&self.client, "/api/v1/namespaces/shop/pods").await.unwrap();
        let versions: BTreeMap<&str, &str> = pods["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|pod| {
                Some((
                    pod["metadata"]["name"].as_str()?,
                    pod["metadata"]["resourceVersion"].as_str()?,
                ))
            })
            .collect();
        for (name, version) in &self.created {
            assert_eq!(
                versions.get(name.as_str()),
                Some(&version.as_str()),
                "step {step}: {name} was written to"
            );
        }
        if let Some(load) = &self.load {
            assert_eq!(load.wrong(), [""; 0], "step {step}");
        }
    }

    /// No policy says of a pod that it missed something, and each counts those that it grants a role, if it does.
    pub(crate) async fn nothing_is_missed(&self, step: u8, grants: bool) {
        let path = "/apis/tokenscope.io/v1alpha1/namespaces/shop/tokenscopepolicies";
        let what = format!("after step {step} the policies count their pods and miss none");
        eventually(PROPAGATION, what, async || {
            let policies = get_json(&self.client, path).await?;
            for policy in policies["items"].as_array().context("a list")? {
                let status = &policy["status"];
                let count = |name: &str| status[name].as_u64().unwrap_or_default();
                ensure!((count("injectedPods") > 0) == grants, "{status}");
                ensure!(
                    count("missedPods") + count("deniedPods") + count("outdatedPods") + count("ungrantedTokenPods")
                        == 0,
                    "{status}"
                );
            }
            Ok(())
        })
        .await
        .unwrap();
    }
}
