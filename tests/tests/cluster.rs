//! As users run it: Helm installs into a cluster with a node, pods run, and AWS SDKs in them get credentials from
//! somebody else's STS.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokenscope_tests::helm::{NAMESPACE, chart};
use tokenscope_tests::judge::{ACCOUNT, Judge, REGION};
use tokenscope_tests::node::Node;
use tokenscope_tests::probes::Sdk;
use tokenscope_xtask::cluster::{obstacle, warm_up};
use tokenscope_xtask::images;
use tokenscope_xtask::progress::say;

/// Asks for these tests: they take minutes, and need Node.js, a JDK with jlink, maven and package registries besides.
const WANTED: &str = "TOKENSCOPE_CLUSTER_TESTS";

/// One cluster for all tests of this file. Each has it for itself while it runs.
struct Shared {
    node: Node,
    judge: Judge,
}

/// The cluster with tokenscope installed as its defaults say; `None` where there can't be one.
fn shared() -> Result<Option<MutexGuard<'static, Shared>>> {
    static SHARED: OnceLock<Result<Option<Mutex<Shared>>, String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| start().map_err(|error| format!("{error:#}")));
    match shared {
        Ok(None) => Ok(None),
        Ok(Some(shared)) => {
            let shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.node.install(&Value::Null)?;
            Ok(Some(shared))
        }
        Err(message) => bail!("the cluster didn't start: {message}"),
    }
}

fn start() -> Result<Option<Mutex<Shared>>> {
    if std::env::var_os(WANTED).is_none() {
        say(&format!("skipped: tests in a cluster: {WANTED}=1 asks for them"));
        return Ok(None);
    }
    if let Some(reason) = obstacle() {
        bail!("{WANTED} is set, but there can be no cluster: {reason}");
    }
    warm_up()?;
    let built = images::build("dev")?;
    let name = format!("test-{}", std::process::id()); // two runs don't end each other's
    let node = Node::start(&name, Path::new(env!("CARGO_BIN_EXE_cluster_helper")))?;
    for image in &built {
        node.cluster().load(&image.path)?;
    }
    Sdk::Go.load(&node)?;
    let judge = Judge::start(&node)?;
    Ok(Some(Mutex::new(Shared { node, judge })))
}

impl Shared {
    /// A namespace whose ServiceAccount `app` may have the role of the same name, which may use the bucket of that name.
    fn workloads(&self, name: &str) -> Result<String> {
        let role = format!("arn:aws:iam::{ACCOUNT}:role/tests/{name}");
        self.node.namespace(name, "app")?;
        self.policy(name, &[&role])?;
        let trust_policy = self.node.trust_policy(name, "app", &role)?;
        self.judge.role(&self.node, name, "/tests/", &trust_policy, name)?;
        Ok(role)
    }

    fn policy(&self, namespace: &str, roles: &[&str]) -> Result<()> {
        self.node.apply(&[json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
            "metadata": {"name": "app", "namespace": namespace},
            "spec": {
                "subjects": [{"serviceAccounts": ["app"]}], "roles": {"allowed": roles},
                "audiences": {"allowed": ["sts.amazonaws.com", "somebody.else"], "default": "sts.amazonaws.com"},
                "aws": {"region": REGION},
            },
        })])?;
        self.node.kubectl_in(
            namespace,
            &["wait", "--for=condition=Ready", "--timeout=60s", "tokenscopepolicy/app"],
        )?;
        // The webhook learns of it by a watch of its own.
        std::thread::sleep(Duration::from_millis(500));
        Ok(())
    }
}

/// What a pod that asks for a role has in its template.
fn asking(role: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["serviceAccountName"] = "app".into();
    spec["terminationGracePeriodSeconds"] = 1.into();
    json!({"metadata": {"labels": {"app": "probe"}, "annotations": {"tokenscope.io/role-arn": role}}, "spec": spec})
}

fn pod(namespace: &str, name: &str, template: &Value) -> Value {
    let mut pod = template.clone();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = name.into();
    pod["metadata"]["namespace"] = namespace.into();
    pod["spec"]["restartPolicy"] = "Never".into();
    pod
}

/// A Deployment, StatefulSet or DaemonSet of a template that has the label `app: probe`.
fn set(kind: &str, namespace: &str, name: &str, template: &Value) -> Value {
    let mut template = template.clone();
    template["metadata"]["labels"] = json!({"app": name});
    json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template},
    })
}

/// A probe that goes on, for what has to stay.
fn staying(name: &str, bucket: &str, key: &str) -> Value {
    let mut container = Sdk::Go.container(name, bucket, key);
    if let Some(environment) = container["env"].as_array_mut() {
        environment.push(json!({"name": "PROBE_EVERY", "value": "2s"}));
    }
    container
}

/// A template of pods that nobody gives a node, so that there can be many.
fn without_node(role: Option<&str>) -> Value {
    let mut template = asking(
        role.unwrap_or_default(),
        &json!({"schedulerName": "nobody", "containers": [Sdk::Go.container("app", "none", "none")]}),
    );
    if role.is_none() {
        template["metadata"]["annotations"] = json!({});
    }
    template
}

#[test]
fn helm_installs_upgrades_rolls_back_and_leaves_policies_when_it_uninstalls() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let node = &shared.node;
    node.helm(&["uninstall", "tokenscope", "--namespace", NAMESPACE], &Value::Null)?;
    node.helm(
        &["uninstall", "tokenscope-crds", "--namespace", NAMESPACE],
        &Value::Null,
    )?;
    for plural in ["tokenscopepolicies", "clustertokenscopepolicies"] {
        node.kubectl(&["delete", "crd", &format!("{plural}.tokenscope.io")])?;
    }
    node.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=120s"])?;

    let started = Instant::now();
    node.install(&Value::Null)?;
    say(&format!(
        "  helm install --wait of both charts: {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    let replicas = || -> Result<String> {
        let path = "--output=jsonpath={.status.readyReplicas}";
        node.kubectl_in(NAMESPACE, &["get", "deployment", "tokenscope-webhook", path])
    };
    assert_eq!(replicas()?, "2");
    node.namespace("kept", "app")?;
    shared.policy("kept", &["arn:aws:iam::000000000000:role/kept"])?;

    node.install(&json!({"webhook": {"replicas": 3}, "enforcement": "warn", "logging": {"level": "debug"}}))?;
    assert_eq!(replicas()?, "3", "changed values are in force");
    let arguments = "--output=jsonpath={.spec.template.spec.containers[0].args}";
    let deployment = ["get", "deployment", "tokenscope-webhook", arguments];
    assert!(node.kubectl_in(NAMESPACE, &deployment)?.contains("--enforcement=warn"));
    let history = node.helm(
        &["rollback", "tokenscope", "1", "--namespace", NAMESPACE, "--wait"],
        &Value::Null,
    )?;
    assert!(history.contains("Rollback was a success"), "{history}");
    assert!(
        node.kubectl_in(NAMESPACE, &deployment)?
            .contains("--enforcement=enforce")
    );
    node.eventually(Duration::from_secs(30), "there are two again", || {
        let replicas = replicas()?;
        ensure!(replicas == "2", "{replicas}");
        Ok(())
    })?;

    let other = chart("tokenscope").display().to_string();
    let second = node.try_run(
        "helm",
        &[
            "install",
            "second",
            &other,
            "--namespace",
            "elsewhere",
            "--create-namespace",
        ],
        "",
    )?;
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success(), "a second release was installed");
    assert!(
        message.contains("tokenscope is already installed in this cluster, as release \"tokenscope\""),
        "{message}"
    );

    node.helm(
        &["uninstall", "tokenscope", "--namespace", NAMESPACE, "--wait"],
        &Value::Null,
    )?;
    node.helm(
        &["uninstall", "tokenscope-crds", "--namespace", NAMESPACE],
        &Value::Null,
    )?;
    node.kubectl_in("kept", &["get", "tokenscopepolicy", "app"])
        .context("the policy is gone")?;
    let left = node.kubectl(&[
        "get",
        "mutatingwebhookconfigurations,validatingadmissionpolicies,clusterroles",
        "--output=name",
    ])?;
    assert!(!left.contains("tokenscope"), "left behind: {left}");

    node.install(&Value::Null).context("it doesn't adopt what was left")?;
    node.kubectl_in(
        "kept",
        &["wait", "--for=condition=Ready", "--timeout=60s", "tokenscopepolicy/app"],
    )?;
    Ok(())
}

#[test]
fn unmodified_sdks_in_pods_use_s3_with_what_an_sts_gave_them_for_the_injected_token() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let (node, judge) = (&shared.node, &shared.judge);
    let role = shared.workloads("sdks")?;
    let mut loaded = Vec::new();
    for sdk in Sdk::ALL {
        match sdk.load(node) {
            Ok(()) => loaded.push(sdk),
            Err(error) if matches!(sdk, Sdk::Java | Sdk::JavaScript | Sdk::Rust) => {
                say(&format!(
                    "  {}: left out, because its image can't be built: {error:#}",
                    sdk.name()
                ));
                ensure!(std::env::var("CI").is_err(), "{error:#}");
            }
            Err(error) => return Err(error),
        }
    }
    let mut failures = Vec::new();
    for sdk in loaded {
        let name = sdk.name();
        let started = Instant::now();
        let template = asking(&role, &json!({"containers": [sdk.container("app", "sdks", name)]}));
        node.apply(&[pod("sdks", name, &template)])?;
        let (well, log) = node.ended("sdks", name)?;
        say(&format!(
            "  {name:<12} {} ({:.1} s)",
            log.lines()
                .find(|line| line.starts_with("caller: "))
                .unwrap_or("refused"),
            started.elapsed().as_secs_f64()
        ));
        if !well || !log.contains(&format!("caller: arn:aws:sts::{ACCOUNT}:assumed-role/sdks/")) {
            failures.push(format!("{name}: {log}"));
            continue;
        }
        let stored = judge.object(node, "sdks", name)?;
        assert!(log.contains(&format!("object: {stored}")), "{name}: {log}");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

#[test]
fn the_sts_refuses_a_wrong_subject_a_wrong_audience_and_a_role_that_is_not_there() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let node = &shared.node;
    let role = shared.workloads("trusted")?;
    let unlisted = format!("arn:aws:iam::{ACCOUNT}:role/tests/nobody-made-it");
    let refused = |namespace: &str, name: &str, role: &str, audience: &str| -> Result<String> {
        let mut template = asking(
            role,
            &json!({"containers": [Sdk::Go.container("app", "trusted", "never")]}),
        );
        template["metadata"]["annotations"]["tokenscope.io/audience"] = audience.into();
        node.apply(&[pod(namespace, name, &template)])?;
        let (well, log) = node.ended(namespace, name)?;
        ensure!(!well && log.contains("refused: "), "it wasn't refused: {log}");
        say(&format!(
            "  {name}: {}",
            log.rsplit_once("RequestID: ")
                .and_then(|(_, rest)| rest.split_once(", "))
                .map_or(log.as_str(), |(_, said)| said)
                .trim_start_matches("api error ")
                .trim()
        ));
        Ok(log)
    };

    shared.policy("trusted", &[&role, &unlisted])?;
    // Our policies allow this namespace the role, too; the role's trust policy doesn't know of it.
    node.namespace("untrusted", "app")?;
    shared.policy("untrusted", &[&role])?;
    let subject = refused("untrusted", "wrong-subject", &role, "sts.amazonaws.com")?;
    assert!(
        subject.contains("AccessDenied") || subject.contains("InvalidIdentityToken"),
        "{subject}"
    );
    let audience = refused("trusted", "wrong-audience", &role, "somebody.else")?;
    assert!(
        audience.contains("InvalidIdentityToken") || audience.contains("AccessDenied"),
        "{audience}"
    );
    let unlisted = refused("trusted", "unlisted-role", &unlisted, "sts.amazonaws.com")?;
    assert!(unlisted.contains("AccessDenied"), "{unlisted}");
    Ok(())
}

#[test]
fn every_kind_of_workload_and_container_gets_its_token_under_restricted_pod_security() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let (node, judge) = (&shared.node, &shared.judge);
    let role = shared.workloads("kinds")?;

    let mut sidecar = staying("sidecar", "kinds", "sidecar");
    sidecar["restartPolicy"] = "Always".into();
    let containers = asking(
        &role,
        &json!({
            "initContainers": [Sdk::Go.container("init", "kinds", "init"), sidecar],
            "containers": [Sdk::Go.container("app", "kinds", "container")],
        }),
    );
    let once = |key: &str| {
        let spec = json!({"restartPolicy": "Never", "containers": [Sdk::Go.container("app", "kinds", key)]});
        json!({"template": asking(&role, &spec), "backoffLimit": 0})
    };
    let stays = |key: &str| asking(&role, &json!({"containers": [staying("app", "kinds", key)]}));
    node.apply(&[
        pod("kinds", "containers", &containers),
        json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job", "namespace": "kinds"}, "spec": once("job"),
        }),
        json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "cronjob", "namespace": "kinds"},
            "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": once("cronjob")}},
        }),
        set("Deployment", "kinds", "deployment", &stays("deployment")),
        set("StatefulSet", "kinds", "statefulset", &stays("statefulset")),
        set("DaemonSet", "kinds", "daemonset", &stays("daemonset")),
    ])?;
    for key in [
        "init",
        "sidecar",
        "container",
        "job",
        "deployment",
        "statefulset",
        "daemonset",
        "cronjob",
    ] {
        let text = node.eventually(Duration::from_secs(100), &format!("the bucket has {key}"), || {
            judge.object(node, "kinds", key).map_err(|error| {
                let events = node.kubectl_in("kinds", &["get", "pods,events"]).unwrap_or_default();
                error.context(events)
            })
        })?;
        assert!(text.contains(":assumed-role/kinds/"), "{key}: {text}");
    }
    node.kubectl(&["delete", "namespace", "kinds", "--wait=false"])?;
    Ok(())
}

#[test]
fn without_any_webhook_pods_that_ask_wait_and_start_by_themselves_and_all_others_run() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let node = &shared.node;
    let role = shared.workloads("waiting")?;
    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        node.kubectl_in(NAMESPACE, &["scale", "deployment/tokenscope-webhook", &replicas])
    };
    scale("0")?;
    node.eventually(Duration::from_secs(60), "no webhook is left", || {
        let left = node.memory_of("tokenscope-webhook")?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;

    let stays = asking(&role, &json!({"containers": [staying("app", "waiting", "asking")]}));
    let mut plain = stays.clone();
    plain["metadata"]["annotations"] = json!({});
    node.apply(&[
        set("Deployment", "waiting", "asking", &stays),
        set("Deployment", "waiting", "plain", &plain),
    ])?;
    node.kubectl_in(
        "waiting",
        &["wait", "--for=condition=Available", "--timeout=30s", "deployment/plain"],
    )
    .context("a pod that doesn't ask was held up")?;
    node.eventually(
        Duration::from_secs(30),
        "the asking Deployment says why it waits",
        || {
            let path = "--output=jsonpath={.status.conditions[?(@.type==\"ReplicaFailure\")].message}";
            let reason = node.kubectl_in("waiting", &["get", "deployment", "asking", path])?;
            ensure!(reason.contains("tokenscope"), "{reason:?}");
            Ok(())
        },
    )?;

    // From cold: nothing of ours and no DNS server, and the webhook configuration says that pods need the webhook.
    node.kubectl_in(NAMESPACE, &["delete", "pods", "--all", "--grace-period=1"])?;
    node.kubectl_in("kube-system", &["delete", "pods", "--all", "--grace-period=1"])?;
    let started = Instant::now();
    node.kubectl_in(
        "kube-system",
        &["rollout", "status", "deployment/coredns", "--timeout=60s"],
    )?;
    scale("2")?;
    for deployment in ["deployment/tokenscope-operator", "deployment/tokenscope-webhook"] {
        node.kubectl_in(NAMESPACE, &["rollout", "status", deployment, "--timeout=90s"])?;
    }
    say(&format!(
        "  from cold until all is ready: {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    let started = Instant::now();
    node.kubectl_in(
        "waiting",
        &[
            "wait",
            "--for=condition=Available",
            "--timeout=180s",
            "deployment/asking",
        ],
    )?;
    say(&format!(
        "  the pods that waited started after {:.1} s more",
        started.elapsed().as_secs_f64()
    ));
    let text = node.eventually(Duration::from_secs(30), "it has used S3", || {
        shared.judge.object(node, "waiting", "asking")
    })?;
    assert!(text.contains(":assumed-role/waiting/"), "{text}");
    Ok(())
}

#[test]
fn no_create_fails_while_certificate_and_authority_are_rotated() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let result = shared.rotate();
    // Whatever came of it, the next test finds the chart's own Deployment.
    let folder = chart("tokenscope").display().to_string();
    let restore = [
        "upgrade",
        "tokenscope",
        &folder,
        "--namespace",
        NAMESPACE,
        "--force-conflicts",
        "--wait",
    ];
    shared.node.helm(&restore, &Value::Null)?;
    result
}

impl Shared {
    fn rotate(&self) -> Result<()> {
        let node = &self.node;
        let role = self.workloads("rotating")?;
        // The chart's shortest overlap is a minute, twice; a cluster of one API server needs less.
        let operator = node.get(&["deployment", "tokenscope-operator", "--namespace", NAMESPACE])?;
        let arguments = operator["spec"]["template"]["spec"]["containers"][0]["args"].as_array();
        let mut arguments = arguments.context("the operator has arguments")?.clone();
        for argument in &mut arguments {
            if argument
                .as_str()
                .is_some_and(|text| text.starts_with("--rotation-overlap="))
            {
                *argument = "--rotation-overlap=8".into();
            }
        }
        let change = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": arguments}]);
        let operator = "deployment/tokenscope-operator";
        node.kubectl_in(
            NAMESPACE,
            &["patch", operator, "--type=json", "--patch", &change.to_string()],
        )?;
        node.kubectl_in(NAMESPACE, &["rollout", "status", operator, "--timeout=90s"])?;

        node.apply(&[set("Deployment", "rotating", "many", &without_node(Some(&role)))])?;
        let certificate = |secret: &str, file: &str| -> Result<String> {
            let path = format!("--output=jsonpath={{.data.{}}}", file.replace('.', "\\."));
            node.kubectl_in(NAMESPACE, &["get", "secret", secret, &path])
        };
        let leaf = certificate("tokenscope-webhook-tls", "tls.crt")?;
        let authority = certificate("tokenscope-ca", "ca.crt")?;
        let (reviewed, rejected) = reviews(node)?;
        let up_and_down = || -> Result<()> {
            for wanted in ["15", "0"] {
                node.kubectl_in(
                    "rotating",
                    &["scale", "deployment/many", &format!("--replicas={wanted}")],
                )?;
                node.eventually(Duration::from_secs(20), &format!("there are {wanted} pods"), || {
                    let path = "--output=jsonpath={.status.replicas}";
                    let count = node.kubectl_in("rotating", &["get", "deployment", "many", path])?;
                    ensure!(
                        count == wanted || (count.is_empty() && wanted == "0"),
                        "there are {count}"
                    );
                    Ok(())
                })?;
            }
            Ok(())
        };
        let rotate = |secret: &str| {
            node.kubectl_in(
                NAMESPACE,
                &["annotate", "secret", secret, "tokenscope.io/rotate=now", "--overwrite"],
            )
        };
        rotate("tokenscope-webhook-tls")?;
        node.eventually(
            Duration::from_secs(60),
            "the serving certificate is another one",
            || {
                up_and_down()?;
                ensure!(certificate("tokenscope-webhook-tls", "tls.crt")? != leaf);
                Ok(())
            },
        )?;
        let started = Instant::now();
        rotate("tokenscope-ca")?;
        node.eventually(
            Duration::from_secs(120),
            "one authority is trusted, another one than before",
            || {
                up_and_down()?;
                let now = certificate("tokenscope-ca", "ca.crt")?;
                ensure!(
                    now != authority && now.len() < authority.len() * 3 / 2,
                    "still the old one, or both"
                );
                Ok(())
            },
        )?;
        for _ in 0..5 {
            up_and_down()?;
        }
        let (reviewed_then, rejected_then) = reviews(node)?;
        say(&format!(
            "  the authority was rotated in {:.1} s; {} creates were reviewed meanwhile, {} failed",
            started.elapsed().as_secs_f64(),
            reviewed_then - reviewed,
            rejected_then - rejected
        ));
        assert!(reviewed_then - reviewed > 100, "from {reviewed} to {reviewed_then}");
        assert_eq!(rejected_then, rejected, "creates failed");
        node.kubectl(&["delete", "namespace", "rotating", "--wait=false"])?;
        Ok(())
    }
}

/// How many creates the API server has asked our webhook about, and how many it refused, for whatever reason.
fn reviews(node: &Node) -> Result<(u64, u64)> {
    let metrics = node.kubectl(&["get", "--raw", "/metrics"])?;
    let sum = |metric: &str| -> u64 {
        metrics
            .lines()
            .filter(|line| line.starts_with(metric) && line.contains("name=\"pods-that-ask.tokenscope.io\""))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .map(|value| value as u64)
            .sum()
    };
    let reviewed = sum("apiserver_admission_webhook_admission_duration_seconds_count");
    Ok((reviewed, sum("apiserver_admission_webhook_rejection_count")))
}

#[test]
fn another_operator_takes_over_when_the_leaders_pod_is_deleted() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let node = &shared.node;
    let leader = || -> Result<String> {
        let path = "--output=jsonpath={.spec.holderIdentity}";
        let holder = node.kubectl_in(NAMESPACE, &["get", "lease", "tokenscope-operator", path])?;
        ensure!(!holder.is_empty(), "nobody holds the lease");
        Ok(holder)
    };
    let wait = Duration::from_secs(60);
    for force in [false, true] {
        let before = node.eventually(wait, "somebody leads", leader)?;
        let pods = node.kubectl_in(NAMESPACE, &["get", "pods", "--output=name"])?;
        let pod = pods
            .lines()
            .filter_map(|line| line.strip_prefix("pod/"))
            .find(|pod| before.contains(pod))
            .with_context(|| format!("{before} is none of {pods}"))?;
        let mut delete = vec!["delete", "pod", pod, "--wait=false"];
        if force {
            delete.extend(["--force", "--grace-period=0"]);
        }
        let started = Instant::now();
        node.kubectl_in(NAMESPACE, &delete)?;
        node.eventually(wait, "another one leads", || {
            let now = leader()?;
            ensure!(now != before, "{now}");
            Ok(())
        })?;
        say(&format!(
            "  a new leader after {:.1} s{}",
            started.elapsed().as_secs_f64(),
            if force { ", with the old one killed" } else { "" }
        ));
        let namespace = if force { "after-a-kill" } else { "after-a-delete" };
        node.namespace(namespace, "app")?;
        shared.policy(namespace, &["arn:aws:iam::000000000000:role/any"])?;
    }
    Ok(())
}

#[test]
fn a_thousand_pods_do_not_make_the_processes_grow() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let node = &shared.node;
    let role = shared.workloads("thousand")?;
    let measure = |when: &str| -> Result<u64> {
        let mut most = 0;
        for program in ["tokenscope-webhook", "tokenscope-operator"] {
            let found = node.memory_of(program)?;
            ensure!(found.len() == 2, "{program}: {found:?}");
            let figures: Vec<String> = found
                .iter()
                .map(|memory| format!("{:.1} (peak {:.1})", mebibytes(memory.resident), mebibytes(memory.peak)))
                .collect();
            say(&format!("  {program}, {when}: {} MiB resident", figures.join(", ")));
            most = found
                .iter()
                .map(|memory| memory.peak)
                .max()
                .unwrap_or_default()
                .max(most);
        }
        Ok(most)
    };
    node.eventually(Duration::from_secs(60), "two of each run", || {
        let count = |program| node.memory_of(program).map(|found| found.len());
        ensure!(count("tokenscope-webhook")? == 2 && count("tokenscope-operator")? == 2);
        Ok(())
    })?;
    measure("at rest")?;
    let started = Instant::now();
    let mut many = set("ReplicaSet", "thousand", "many", &without_node(Some(&role)));
    many["spec"]["replicas"] = 1000.into();
    node.apply(&[many])?;
    node.eventually(Duration::from_secs(240), "there are a thousand pods", || {
        let count = node.kubectl_in(
            "thousand",
            &["get", "rs", "many", "--output=jsonpath={.status.replicas}"],
        )?;
        ensure!(count == "1000", "there are {count}");
        Ok(())
    })?;
    say(&format!(
        "  1,000 pods were created in {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    let most = measure("after 1,000 pods")?;
    node.kubectl(&["delete", "namespace", "thousand", "--wait=false"])?;
    assert!(
        most < 96 << 20,
        "more than three quarters of the webhook's limit: {most} bytes"
    );
    Ok(())
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
