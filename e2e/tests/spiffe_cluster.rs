//! Tokens from SPIFFE as users have them: SPIRE attests the sidecars of pods on a node, and unmodified AWS SDKs beside them
//! get credentials from somebody else's STS, which asks SPIRE's own OIDC discovery provider for its keys.
//!
//! `TOKENSCOPE_CLUSTER_TESTS=0` skips these tests.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokenscope_e2e::aws::{ACCOUNT, Aws, REGION};
use tokenscope_e2e::node::{NOTICED, Node, STARTED, built_images, is_possible};
use tokenscope_e2e::probes::Sdk;
use tokenscope_e2e::spire_cluster::{Keys, SpireCluster, TRUST_DOMAIN, values};
use tokenscope_xtask::cluster::warm_up;
use tokenscope_xtask::progress::say;

const SIDECAR: &str = "tokenscope-sidecar";

/// A token of a minute may just have been renewed: the next one follows, or its end and then the kubelet's question and its Event.
const EXPIRED: Duration = Duration::from_secs(300);

struct Setup<'a> {
    node: &'a Node,
    aws: Aws,
    spire: SpireCluster<'a>,
}

#[test]
fn sdks_use_s3_with_jwt_svids_through_other_keys_a_new_agent_and_a_lost_entry() -> Result<()> {
    if !is_possible()? {
        return Ok(());
    }
    warm_up()?;
    let built = built_images()?;
    let name = format!("spiffe-{}", std::process::id()); // two runs don't end each other's
    let node = Node::start(&name, Path::new(env!("CARGO_BIN_EXE_cluster_helper")))?;
    node.load(&built)?;
    for sdk in [Sdk::Go, Sdk::Python] {
        sdk.load(&node)?;
    }
    let aws = Aws::start(&node)?;
    let started = Instant::now();
    let spire = SpireCluster::start(&node, &aws, Keys::Rsa)?;
    say(&format!("  SPIRE is ready ({:.1} s)", started.elapsed().as_secs_f64()));
    node.install(&asking_often("hostPath"))?;
    let setup = Setup {
        node: &node,
        aws,
        spire,
    };

    setup.allow("with-rsa")?;
    // Only the sidecar is that identity: the application's container could not get it by itself.
    let selectors = format!("k8s:ns:with-rsa -selector k8s:sa:app -selector k8s:container-name:{SIDECAR}");
    setup.spire.entry("with-rsa", &selectors, 300)?;
    setup.sdks_use_s3("with-rsa", Keys::Rsa)?;

    setup.waits_and_says_why()?;
    setup.lasts_through_faults()?;

    setup.spire.change_keys(Keys::EllipticCurve)?;
    setup.allow("with-ec")?;
    setup
        .spire
        .entry("with-ec", "k8s:ns:with-ec -selector k8s:sa:app", 300)?;
    setup.sdks_use_s3("with-ec", Keys::EllipticCurve)?;

    // As installed by default: the socket comes by a CSI volume, which restricted namespaces admit.
    setup.spire.start_csi()?;
    node.install(&asking_often("csi"))?;
    setup.under_restricted_pod_security()?;
    drop(setup);
    node.end()
}

/// The values that tokenscope has to be told, and probes that come so often that nobody waits long for an Event.
fn asking_often(source: &str) -> Value {
    let mut values = values(source);
    values["sidecar"] = json!({"readinessProbe": {"periodSeconds": 5}});
    values
}

impl Setup<'_> {
    /// A namespace whose ServiceAccount `app` may have the role of the same name by the SPIFFE ID of the same name; the
    /// role is made with the trust policy that stands in the policy's status.
    fn allow(&self, name: &str) -> Result<String> {
        let role = format!("arn:aws:iam::{ACCOUNT}:role/spiffe/{name}");
        self.node.apply(&[
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app", "namespace": name}}),
            json!({
                "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
                "metadata": {"name": "app", "namespace": name},
                "spec": {
                    "subjects": [{"serviceAccounts": ["app"]}], "roles": {"allowed": [role]},
                    "token": {"source": "SPIFFE", "spiffe": {
                        "spiffeId": format!("spiffe://{TRUST_DOMAIN}/{name}"), "x509Svid": true, "jwtBundle": true,
                    }},
                    "aws": {"region": REGION},
                },
            }),
        ])?;
        let trust_policy = self.node.trust_policy(name, "app", &role)?;
        ensure!(
            trust_policy.contains(&format!("spiffe://{TRUST_DOMAIN}/{name}")),
            "{trust_policy}"
        );
        self.aws.role(self.node, name, "/spiffe/", &trust_policy, name)?;
        Ok(role)
    }

    fn create(&self, namespace: &str, name: &str, container: &Value) -> Result<()> {
        let role = format!("arn:aws:iam::{ACCOUNT}:role/spiffe/{namespace}");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "annotations": {"tokenscope.io/role-arn": role}},
            "spec": {
                "serviceAccountName": "app", "restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
                "containers": [container],
            },
        });
        // Each webhook learns of a new policy by a watch of its own, a moment later.
        self.node.eventually(NOTICED, "the pod is admitted", || {
            self.node.apply(std::slice::from_ref(&pod))
        })
    }

    fn sdks_use_s3(&self, namespace: &str, keys: Keys) -> Result<()> {
        for sdk in [Sdk::Go, Sdk::Python] {
            let started = Instant::now();
            let name = sdk.name();
            self.create(namespace, name, &sdk.container("app", namespace, name))?;
            let (well, log) = self.ended(namespace, name)?;
            let caller = log
                .lines()
                .find(|line| line.starts_with("caller: "))
                .unwrap_or("refused");
            say(&format!(
                "  {name:<8} {} {caller} ({:.1} s)",
                keys.algorithm(),
                started.elapsed().as_secs_f64()
            ));
            let expected = format!("caller: arn:aws:sts::{ACCOUNT}:assumed-role/{namespace}/");
            ensure!(well && log.contains(&expected), "{name}: {log}");
            let stored = self.aws.object(self.node, namespace, name)?;
            ensure!(log.contains(&format!("object: {stored}")), "{name}: {log}");
        }
        // What the token is signed with stands in its head, which no SDK tells.
        self.create(namespace, "app", &Sdk::Go.staying("app", namespace, "stays", 5))?;
        let wait = ["wait", "pod/app", "--for=condition=Ready", "--timeout=240s"];
        self.node.kubectl_in(namespace, &wait)?;
        let token = self.token(namespace)?;
        let head = token.split('.').next().unwrap_or_default();
        let head: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(head)?)?;
        ensure!(head["alg"] == keys.algorithm(), "{head}");
        self.node.kubectl_in(namespace, &["delete", "pod", "app", "--now"])?;
        Ok(())
    }

    /// As [`Node::ended`], and what the sidecar said where it takes too long.
    fn ended(&self, namespace: &str, pod: &str) -> Result<(bool, String)> {
        self.node.ended(namespace, pod).with_context(|| {
            let arguments = ["logs", pod, "--container", SIDECAR, "--tail=30"];
            format!("the sidecar's log: {:?}", self.node.kubectl_in(namespace, &arguments))
        })
    }

    /// With the chart's defaults, in a namespace that admits only pods of the Pod Security level "restricted".
    fn under_restricted_pod_security(&self) -> Result<()> {
        self.allow("strict")?;
        let label = "pod-security.kubernetes.io/enforce=restricted";
        self.node.kubectl(&["label", "namespace", "strict", label])?;
        self.spire.entry("strict", "k8s:ns:strict -selector k8s:sa:app", 300)?;
        self.create("strict", "app", &Sdk::Go.container("app", "strict", "strict"))?;
        let pod = self.node.get(&["pod", "app", "--namespace=strict"])?;
        ensure!(pod["spec"]["volumes"].to_string().contains("csi.spiffe.io"), "{pod}");
        let (well, log) = self.ended("strict", "app")?;
        ensure!(
            well && log.contains(&format!("caller: arn:aws:sts::{ACCOUNT}:assumed-role/strict/")),
            "{log}"
        );
        // Unmounting works, too.
        self.node
            .kubectl_in("strict", &["delete", "pod", "app", "--timeout=240s"])?;
        Ok(())
    }

    /// A pod that SPIRE has no entry for doesn't start, and its sidecar says why, until there is one.
    fn waits_and_says_why(&self) -> Result<()> {
        self.allow("late")?;
        self.create("late", "app", &Sdk::Go.container("app", "late", "late"))?;
        let node = self.node;
        node.eventually(STARTED, "the sidecar says why it waits", || {
            let log = node.kubectl_in("late", &["logs", "app", "--container", SIDECAR])?;
            ensure!(
                log.to_lowercase().contains("no identity") || log.contains("entry"),
                "{log}"
            );
            Ok(())
        })?;
        let pod = node.get(&["pod", "app", "--namespace=late"])?;
        let status = &pod["status"]["initContainerStatuses"][0];
        ensure!(
            status["name"] == SIDECAR && status["started"] != json!(true),
            "{status}"
        );
        ensure!(pod["status"]["phase"] == "Pending", "{}", pod["status"]);

        self.spire.entry("late", "k8s:ns:late -selector k8s:sa:app", 300)?;
        let (well, log) = self.ended("late", "app")?;
        ensure!(well, "{log}");
        Ok(())
    }

    /// Tokens of two minutes, of which the agent has one to come back in also on a busy machine: it is restarted, which makes its socket anew; the
    /// entry is taken away and comes back. The application goes on all the while.
    fn lasts_through_faults(&self) -> Result<()> {
        const LIFE: u32 = 120;
        let (node, spire) = (self.node, &self.spire);
        self.allow("lasting")?;
        let selectors = "k8s:ns:lasting -selector k8s:sa:app";
        let entry = spire.entry("lasting", selectors, LIFE)?;
        self.create("lasting", "app", &Sdk::Go.staying("app", "lasting", "lasting", 2))?;
        let rounds = |what: &str, more: usize| -> Result<usize> {
            let done = || -> Result<usize> {
                let log = node.kubectl_in("lasting", &["logs", "app"])?;
                if let Some(refused) = log.lines().find(|line| line.starts_with("refused: ")) {
                    bail!("{what}: {refused}");
                }
                Ok(log.lines().filter(|line| line.starts_with("caller: ")).count())
            };
            let before = done().unwrap_or_default();
            node.eventually(STARTED, &format!("the application goes on ({what})"), || {
                let now = done()?;
                ensure!(now >= before + more, "{now} rounds of {}", before + more);
                Ok(now)
            })
        };
        rounds("at first", 2)?;
        let first = self.token("lasting")?;
        spire.restart_agent()?;
        self.renewed("lasting", &first, "after the agent's restart")?;
        rounds("after the agent's restart", 2)?;

        spire.remove_entry(&entry)?;
        rounds("without its entry", 2)?;
        let entry = spire.entry("lasting", selectors, LIFE)?;
        let before = self.token("lasting")?;
        self.renewed("lasting", &before, "after the entry came back")?;
        rounds("after the entry came back", 2)?;

        spire.remove_entry(&entry)?;
        self.events_say_that_the_token_has_expired("lasting")?;
        node.kubectl_in("lasting", &["delete", "pod", "app", "--now"])?;
        Ok(())
    }

    /// The kubelet writes the one line of the sidecar's probe into an Event of pod `app`: what has expired, and why there is no other.
    fn events_say_that_the_token_has_expired(&self, namespace: &str) -> Result<()> {
        let of_pod = "--field-selector=involvedObject.kind=Pod,involvedObject.name=app,reason=Unhealthy";
        let what = "the pod's own Event says that its token has expired";
        let message = self.node.eventually(EXPIRED, what, || {
            let events = self.node.get(&["events", of_pod, "--namespace", namespace])?;
            let events_of_pod = events["items"].as_array().into_iter().flatten();
            let mut messages = events_of_pod.filter_map(|event| event["message"].as_str());
            let found = messages.find(|message| message.contains("Readiness probe failed: token expired "));
            Ok(found.with_context(|| events.to_string())?.trim_end().to_owned())
        })?;
        ensure!(
            message.lines().count() == 1 && message.contains("the SPIFFE agent knows no identity for this pod yet"),
            "{message}"
        );
        say(&format!("  {message}"));
        Ok(())
    }

    /// What is in the file of pod `app`, as the node sees it.
    fn token(&self, namespace: &str) -> Result<String> {
        let pod = self.node.get(&["pod", "app", "--namespace", namespace])?;
        let uid = pod["metadata"]["uid"].as_str().context("a pod has a UID")?;
        let volumes = format!("data/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/tokenscope-aws-token/token");
        let path = self.node.cluster().folder().join(volumes);
        self.node
            .run("cat", &[&path.display().to_string()], "")
            .with_context(|| path.display().to_string())
    }

    fn renewed(&self, namespace: &str, before: &str, what: &str) -> Result<()> {
        self.node
            .eventually(EXPIRED, &format!("another token is there {what}"), || {
                ensure!(self.token(namespace)? != before, "it is the same one");
                Ok(())
            })
    }
}
