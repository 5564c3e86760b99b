//! Where the attacks take place: a real API server with tokenscope under the chart's memory limits, and the people.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokenscope_e2e::admission::try_pod;
use tokenscope_e2e::control_plane::{self, ControlPlane, client_of};
use tokenscope_e2e::fixtures::{PROPAGATION, Shop, orders_may};
use tokenscope_e2e::helm::NAMESPACE as RELEASE;
use tokenscope_e2e::install::{Installed, Options, install};
use tokenscope_e2e::process::ServerProcess;
use tokenscope_e2e::{delete, eventually, get_json, post, put, shapes};
use tokio::runtime::Handle;

use crate::honest::Honest;
use crate::limit::{Limit, forget_peak};

/// The namespace of the hostile users. Its ServiceAccounts are `default` and `orders`, and policy `orders` lets the latter
/// have the roles of the shop.
pub(crate) const HOSTILE: &str = "hostile";
/// Another of theirs, where every pod must be reviewed.
pub(crate) const REQUIRED: &str = "hostile-required";

/// How long a process may take to be ready again after an attack.
const READY: Duration = Duration::from_secs(30);

const POLICIES: &str = "/apis/tokenscope.io/v1alpha1/namespaces/hostile/tokenscopepolicies";

/// What the API server does at admission because somebody has configured it: bindings before what they bind.
const ADMISSION: [&str; 5] = [
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicybindings",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "mutatingadmissionpolicies",
];

/// The audience that is locked.
pub(crate) const LOCKED: &str = "sts.amazonaws.com";

/// The label of a review.
pub(crate) const MARK: &str = "tokenscope.io/reviewed";

/// Everything that the attacks need. Its programs end first, then the control plane.
pub(crate) struct Field {
    pub(crate) installed: Installed,
    limits: [Limit; 2],
    pub(crate) honest: Arc<Honest>,
    /// A cluster administrator, for what no attacker does.
    pub(crate) admin: Client,
    /// Where the attackers run.
    pub(crate) attackers: Handle,
    /// Owns namespaces, in the attackers' name.
    pub(crate) tenant: Client,
    /// The role `edit` in the hostile namespaces.
    pub(crate) author: Client,
    /// May write TokenScopePolicies there.
    pub(crate) editor: Client,
    /// Whoever is trusted to have signed the webhook's certificate, PEM. A neighbour reads it from any connection.
    pub(crate) authorities: String,
    pub(crate) control_plane: ControlPlane,
}

/// The lock on `deny`: the API server's own policies look at every pod's volumes, and tokens are refused that nobody grants.
fn options() -> Options {
    Options {
        // The API server waits as long as the chart says by default: times are judged here.
        values: json!({"lock": {"mode": "deny"}, "webhook": {"timeoutSeconds": 2}}),
        programs: std::env::var_os("TOKENSCOPE_PROGRAMS").map(PathBuf::from),
        ..Options::default()
    }
}

impl Field {
    /// `honest` is where the honest load runs, and `attackers` where the attacks do.
    pub(crate) async fn open(honest: Handle, attackers: Handle) -> Result<Self> {
        let control_plane = ControlPlane::start(control_plane::Options {
            audit: false,
            ..control_plane::Options::default()
        })
        .await?;
        let installed = install(&control_plane, options()).await?;
        let limits = [
            Limit::of_deployment(installed.objects(), "tokenscope-webhook")?,
            Limit::of_deployment(installed.objects(), "tokenscope-operator")?,
        ];
        let admin = control_plane.client().await?;
        control_plane.create_namespace("people", &[]).await?;
        let people = [
            ("author", vec!["system:aggregate-to-edit", "system:aggregate-to-view"]),
            ("editor", vec!["tokenscope-edit", "system:aggregate-to-view"]),
        ];
        for (person, _) in &people {
            control_plane.create_service_account("people", person, &[]).await?;
        }
        for (namespace, labels) in [(HOSTILE, vec![]), (REQUIRED, vec![("tokenscope.io/required", "true")])] {
            let shop = Shop::open(&control_plane, namespace, &labels).await?;
            shop.policy("orders", shop_roles()).await?;
            for (person, roles) in &people {
                for role in roles {
                    bind(&admin, namespace, person, role).await?;
                }
            }
        }
        let secret = get_json(
            &admin,
            &format!("/api/v1/namespaces/{RELEASE}/secrets/tokenscope-webhook-tls"),
        )
        .await?;
        let bundle = secret["data"]["ca.crt"].as_str().context("the Secret has a ca.crt")?;
        let field = Self {
            honest: Arc::new(Honest::open(&control_plane, honest).await?),
            author: client_in(&attackers, control_plane.config_as("people", "author").await?).await?,
            editor: client_in(&attackers, control_plane.config_as("people", "editor").await?).await?,
            tenant: client_in(&attackers, control_plane.kubeconfig()).await?,
            attackers,
            authorities: String::from_utf8(BASE64_STANDARD.decode(bundle)?)?,
            installed,
            limits,
            admin,
            control_plane,
        };
        for (process, limit) in field.processes().iter().zip(&field.limits) {
            limit.hold(process)?;
        }
        if !field.limits.iter().all(Limit::is_enforced) {
            println!("no cgroup can be made here, so the memory limits are compared and not enforced");
        }
        field.people_have_their_rights().await?;
        Ok(field)
    }

    /// The webhook, then the operator.
    pub(crate) fn processes(&self) -> [&ServerProcess; 2] {
        [self.installed.webhook(0), self.installed.operator(0)]
    }

    /// The memory limit of each process, in bytes.
    pub(crate) fn limits(&self) -> [u64; 2] {
        [self.limits[0].bytes, self.limits[1].bytes]
    }

    /// Starts a process again, under its limit.
    pub(crate) fn restart(&self, number: usize) -> Result<()> {
        let process = self.processes()[number];
        process.restart()?;
        self.limits[number].hold(process)
    }

    /// Where probes and metrics of the webhook are answered.
    pub(crate) fn observe_port(&self) -> Result<u16> {
        let url = self.installed.webhook(0).observe_url()?;
        Ok(url.rsplit(':').next().context("a URL has a port")?.parse()?)
    }

    /// Where the webhook takes reviews.
    pub(crate) fn review_port(&self) -> u16 {
        self.installed.webhook_port(0)
    }

    /// Before an attack: what was taken of memory earlier does not count.
    pub(crate) fn forget_peaks(&self) -> Result<()> {
        self.processes().into_iter().try_for_each(forget_peak)
    }

    /// After an attack: what it left is deleted, and everything works again. Says what did not come back by itself.
    pub(crate) async fn recover(&self) -> Result<Option<String>> {
        self.clean_up().await?;
        let mut stuck = None;
        for (number, process) in self.processes().into_iter().enumerate() {
            if let Err(error) = process.wait_ready(READY).await {
                stuck = Some(format!("{} did not become ready again: {error:#}", process.name()));
                self.restart(number)?;
                process.wait_ready(READY).await?;
            }
        }
        if self.honest.is_served().await.is_err() {
            stuck = Some("honest pods were not served again until the processes were restarted".to_owned());
            self.restart(0)?;
            self.restart(1)?;
            self.installed.wait_ready(&self.control_plane).await?;
            self.honest.is_served().await?;
        }
        Ok(stuck)
    }

    /// Makes the API server connect anew to the webhook, as it does after a rotation of certificates: it knows its clients by
    /// their configuration, of which a blank line is part.
    pub(crate) async fn reconnect(&self) -> Result<()> {
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tokenscope";
        let mut configuration = get_json(&self.admin, path).await?;
        for webhook in configuration["webhooks"].as_array_mut().context("it has webhooks")? {
            let bundle = webhook["clientConfig"]["caBundle"]
                .as_str()
                .context("it has a caBundle")?;
            let mut bundle = BASE64_STANDARD.decode(bundle)?;
            bundle.push(b'\n');
            webhook["clientConfig"]["caBundle"] = json!(BASE64_STANDARD.encode(bundle));
        }
        put(&self.admin, path, &configuration).await?;
        Ok(())
    }

    /// Takes tokenscope away for good: the processes, the webhook, and everything of it that the API server does at admission.
    /// The CRDs and the people stay.
    pub(crate) async fn take_tokenscope_away(&self) -> Result<()> {
        for process in self.processes() {
            process.kill()?;
        }
        let group = "/apis/admissionregistration.k8s.io/v1";
        for resource in ADMISSION {
            let list = get_json(&self.admin, &format!("{group}/{resource}")).await?;
            for object in list["items"].as_array().into_iter().flatten() {
                let name = object["metadata"]["name"].as_str().context("an object has a name")?;
                delete(&self.admin, &format!("{group}/{resource}/{name}")).await?;
            }
            let left = get_json(&self.admin, &format!("{group}/{resource}")).await?;
            let left = left["items"].as_array().map_or(0, Vec::len);
            anyhow::ensure!(left == 0, "{left} {resource} are left");
        }
        eventually(
            PROPAGATION,
            "pods are admitted as they are, without tokenscope",
            async || {
                let window = self.honest.window(Duration::from_millis(200), false).await;
                anyhow::ensure!(window.refused.is_empty(), "{}", window.refused[0]);
                // A forged mark stays: it is the last thing that anything of tokenscope would take away.
                let mut pod: Value = serde_json::from_str(&shapes::asks_too_much(HOSTILE, "marked"))?;
                pod["metadata"]["labels"] = json!({MARK: "granted"});
                let answer = try_pod(&self.author, &pod).await?;
                anyhow::ensure!(answer.body["metadata"]["labels"][MARK] == "granted", "{}", answer.body);
                Ok(())
            },
        )
        .await
    }

    /// Logs stay for whoever looks for the reason of a failure.
    pub(crate) fn keep_logs(&self) {
        self.control_plane.keep_folder();
        println!(
            "all logs stay in {}",
            self.control_plane.folder().join("logs").display()
        );
    }

    /// Deletes what an attack left, and puts back what it took.
    pub(crate) async fn clean_up(&self) -> Result<()> {
        for namespace in ["honest", HOSTILE, REQUIRED] {
            self.delete_all(&format!("/api/v1/namespaces/{namespace}/pods")).await?;
            self.delete_all(&format!("/api/v1/namespaces/{namespace}/events"))
                .await?;
        }
        self.delete_all(&format!("/api/v1/namespaces/{HOSTILE}/serviceaccounts"))
            .await?;
        self.delete_all(POLICIES).await?;
        for account in ["default", "orders"] {
            self.control_plane.create_service_account(HOSTILE, account, &[]).await?;
        }
        let policy = json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy", "metadata": {"name": "orders"},
            "spec": shop_roles(),
        });
        post(&self.admin, POLICIES, &policy).await?;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": HOSTILE}});
        put(&self.admin, &format!("/api/v1/namespaces/{HOSTILE}"), &namespace).await?;
        Ok(())
    }

    /// Deletes every object of a resource in a namespace. It may take several requests, each with a deadline of its own.
    pub(crate) async fn delete_all(&self, path: &str) -> Result<()> {
        for _ in 0..20 {
            let request = http::Request::delete(path)
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(Body::from(br#"{"gracePeriodSeconds":0}"#.to_vec()))?;
            let answer = self.admin.send(request).await?;
            let done = answer.status().is_success();
            answer.into_body().collect().await?;
            if done {
                return Ok(());
            }
        }
        anyhow::bail!("{path} can't be emptied")
    }

    async fn people_have_their_rights(&self) -> Result<()> {
        eventually(PROPAGATION, "the attackers have their rights", async || {
            let account = json!({"metadata": {"name": "is-allowed"}});
            let path = format!("/api/v1/namespaces/{HOSTILE}/serviceaccounts?dryRun=All");
            post(&self.author, &path, &account).await?;
            let policy = json!({
                "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy", "metadata": {"name": "is-allowed"},
                "spec": shop_roles(),
            });
            post(&self.editor, &format!("{POLICIES}?dryRun=All"), &policy).await?;
            Ok(())
        })
        .await
    }
}

/// A client whose connections live in that runtime.
async fn client_in(runtime: &Handle, kubeconfig: PathBuf) -> Result<Client> {
    runtime.spawn(async move { client_of(&kubeconfig).await }).await?
}

fn shop_roles() -> Value {
    orders_may(&["arn:aws:iam::111122223333:role/shop/*"])
}

async fn bind(admin: &Client, namespace: &str, person: &str, role: &str) -> Result<()> {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": format!("{person}-{}", role.replace(':', "-"))},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "namespace": "people", "name": person}],
    });
    let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings");
    post(admin, &path, &binding).await?;
    Ok(())
}
