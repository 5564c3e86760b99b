//! A namespace of a shop, its policies and its pods, as users write them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_sts::{Provider, Role, Server, StsConfig};

use crate::admission::{Answer, create, create_pod, try_pod};
use crate::control_plane::{ControlPlane, ISSUER};
use crate::{delete, eventually, get_json, post};

/// The AWS account of all roles.
pub const ACCOUNT: &str = "111122223333";
/// A role.
pub const ORDERS: &str = "arn:aws:iam::111122223333:role/shop/orders";
/// Another role on the same path.
pub const CARTS: &str = "arn:aws:iam::111122223333:role/shop/carts";
/// A role that no policy of the tests allows.
pub const ADMIN: &str = "arn:aws:iam::111122223333:role/admin";

/// The time that the webhook may take to learn of an object by its watches, and the operator to write a status. It takes well under a second, and
/// a busy machine may stand still for several; what is tried each time may start a Python with an AWS SDK.
pub const PROPAGATION: Duration = Duration::from_secs(90);

/// Prints who the AWS SDK is with what it finds by itself.
pub const WHO_AM_I: &str = "import boto3; print(boto3.client('sts').get_caller_identity()['Arn'])";

/// A namespace with ServiceAccounts `default` and `orders`.
pub struct Shop<'a> {
    /// The control plane that it is in.
    pub control_plane: &'a ControlPlane,
    /// An administrator.
    pub client: Client,
    /// The namespace's name.
    pub namespace: String,
}

impl<'a> Shop<'a> {
    /// Creates the namespace.
    pub async fn open(control_plane: &'a ControlPlane, namespace: &str, labels: &[(&str, &str)]) -> Result<Self> {
        control_plane.create_namespace(namespace, labels).await?;
        control_plane.create_service_account(namespace, "orders", &[]).await?;
        Ok(Self {
            control_plane,
            client: control_plane.client().await?,
            namespace: namespace.to_owned(),
        })
    }

    /// Applies a TokenScopePolicy.
    pub async fn policy(&self, name: &str, spec: Value) -> Result<()> {
        let policy = json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        });
        self.control_plane.apply(&[policy], &self.namespace).await?;
        Ok(())
    }

    /// Deletes a TokenScopePolicy.
    pub async fn delete_policy(&self, name: &str) -> Result<()> {
        delete(&self.client, &self.policy_path(name)).await?;
        Ok(())
    }

    /// Applies the policy that most tests need: ServiceAccount `orders` may have every role below `shop/`.
    pub async fn allow_orders(&self) -> Result<()> {
        self.policy("orders", orders_may(&["arn:aws:iam::111122223333:role/shop/*"]))
            .await
    }

    /// The trust policy that the operator wrote for a role into the status of a TokenScopePolicy.
    pub async fn trust_policy(&self, policy: &str, role: &str) -> Result<Value> {
        let path = self.policy_path(policy);
        let what = format!("the status of {policy} has a trust policy for {role}");
        let document = eventually(PROPAGATION, what, async || {
            let object = get_json(&self.client, &path).await?;
            let entries = object["status"]["trustPolicies"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let entry = entries.into_iter().find(|entry| entry["roleArn"] == role);
            let document = entry.with_context(|| object["status"].to_string())?["document"].clone();
            Ok(document.as_str().context("a document is a text")?.to_owned())
        });
        Ok(serde_json::from_str(&document.await?)?)
    }

    /// A pod of ServiceAccount `orders` with one container, `app`. It asks for nothing.
    pub fn pod(&self, name: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": self.namespace, "annotations": {}},
            "spec": {"serviceAccountName": "orders", "containers": [container("app")]},
        })
    }

    /// The same with an annotation that asks for a role.
    pub fn asking(&self, name: &str, role: &str) -> Value {
        with_annotations(self.pod(name), &[("tokenscope.io/role-arn", role)])
    }

    /// Creates a pod that must be granted what it asks for, once the webhook knows all that it needs.
    pub async fn granted(&self, pod: &Value) -> Result<Answer> {
        let what = format!("pod {} is granted its role", pod["metadata"]["name"]);
        eventually(PROPAGATION, what, async || {
            let answer = try_pod(&self.client, pod).await?;
            ensure!(answer.accepted(), "refused: {}", answer.message());
            ensure!(
                reviewed(&answer.body) == Some("granted"),
                "not granted: {}",
                answer.body
            );
            Ok(())
        })
        .await?;
        let answer = create_pod(&self.client, pod).await?;
        ensure!(answer.accepted(), "refused after it was granted: {}", answer.message());
        ensure!(
            reviewed(&answer.body) == Some("granted"),
            "not granted: {}",
            answer.body
        );
        Ok(answer)
    }

    /// Creates a pod that must be refused with `part` in the message, once the webhook knows all that it needs. Gives what
    /// the webhook said.
    pub async fn refused(&self, pod: &Value, part: &str) -> Result<String> {
        let what = format!("pod {} is refused with {part:?}", pod["metadata"]["name"]);
        eventually(PROPAGATION, what, async || {
            let answer = try_pod(&self.client, pod).await?;
            ensure!(!answer.accepted(), "accepted: {}", answer.body);
            ensure!(answer.message().contains(part), "{}", answer.message());
            Ok(())
        })
        .await?;
        let answer = create_pod(&self.client, pod).await?;
        ensure!(!answer.accepted(), "accepted after it was refused: {}", answer.body);
        let message = answer.message();
        let (_, said) = message
            .split_once("denied the request: ")
            .with_context(|| format!("not the webhook's words: {message}"))?;
        Ok(said.to_owned())
    }

    /// Creates a pod that must be accepted without anything of ours, at once: what the webhook has to know for that, it must
    /// know already.
    pub async fn untouched(&self, pod: &Value) -> Result<Answer> {
        let answer = create_pod(&self.client, pod).await?;
        ensure!(answer.accepted(), "refused: {}", answer.message());
        let text = answer.body["spec"].to_string();
        ensure!(!text.contains("tokenscope"), "something was injected: {text}");
        ensure!(
            annotation(&answer.body, "tokenscope.io/grant").is_none(),
            "{}",
            answer.body
        );
        Ok(answer)
    }

    /// Creates a ReplicaSet that makes no pods, and gives the reference by which a pod says that it is one of its own.
    pub async fn owner(&self, name: &str) -> Result<Value> {
        let labels = json!({"made-by": name});
        let replica_set = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name},
            "spec": {
                "replicas": 0, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container("app")]}},
            },
        });
        let path = format!("/apis/apps/v1/namespaces/{}/replicasets", self.namespace);
        let created = post(&self.client, &path, &replica_set).await?;
        Ok(json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "controller": true, "uid": created["metadata"]["uid"],
        }))
    }

    /// Creates an object of the core group that has a namespace, such as an event or a config map.
    pub async fn create(&self, plural: &str, object: &Value) -> Result<Answer> {
        create(&self.client, &self.path(plural), object).await
    }

    /// The Events of the namespace that are about an object.
    pub async fn events_about(&self, kind: &str, name: &str) -> Result<Vec<Value>> {
        let list = get_json(&self.client, &self.path("events")).await?;
        let about = |event: &Value| event["involvedObject"]["kind"] == kind && event["involvedObject"]["name"] == name;
        Ok(list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|event| about(event))
            .cloned()
            .collect())
    }

    /// The path of a core resource in the namespace.
    pub fn path(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.namespace)
    }

    /// A client with every right over pods, their subresources and bindings, and nothing else.
    pub async fn patcher(&self) -> Result<Client> {
        let namespace = &self.namespace;
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "patcher", "namespace": namespace},
            "rules": [{"apiGroups": [""], "verbs": ["*"], "resources": [
                "pods", "pods/status", "pods/binding", "pods/resize", "pods/ephemeralcontainers", "bindings",
            ]}],
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "patcher", "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "patcher"},
            "subjects": [{"kind": "ServiceAccount", "name": "patcher", "namespace": namespace}],
        });
        let control_plane = self.control_plane;
        control_plane.create_service_account(namespace, "patcher", &[]).await?;
        control_plane.apply(&[role, binding], namespace).await?;
        control_plane.client_as(namespace, "patcher").await
    }

    fn policy_path(&self, name: &str) -> String {
        format!(
            "/apis/tokenscope.io/v1alpha1/namespaces/{}/tokenscopepolicies/{name}",
            self.namespace
        )
    }
}

/// The spec of a policy by which ServiceAccount `orders` may have these roles.
pub fn orders_may(roles: &[&str]) -> Value {
    json!({"subjects": [{"serviceAccounts": ["orders"]}], "roles": {"allowed": roles}})
}

/// A container that brings nothing.
pub fn container(name: &str) -> Value {
    json!({"name": name, "image": "app"})
}

/// The object with more annotations.
pub fn with_annotations(mut object: Value, annotations: &[(&str, &str)]) -> Value {
    for (key, value) in annotations {
        object["metadata"]["annotations"][key] = json!(value);
    }
    object
}

/// An annotation's value.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][key].as_str()
}

/// The mark of the review.
pub fn reviewed(pod: &Value) -> Option<&str> {
    pod["metadata"]["labels"]["tokenscope.io/reviewed"].as_str()
}

/// A container or init container of a pod.
///
/// # Panics
/// If there is none of this name.
pub fn container_of<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let all = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array().into_iter().flatten());
    let found = all.into_iter().flatten().find(|container| container["name"] == name);
    #[expect(clippy::panic, reason = "the test named a container that it did not create")]
    found.unwrap_or_else(|| panic!("no container {name} in {pod}"))
}

/// The names of a pod's init containers, in their order.
pub fn init_containers(pod: &Value) -> Vec<&str> {
    let list = pod["spec"]["initContainers"].as_array();
    let names = list.into_iter().flatten().map(|container| container["name"].as_str());
    names.map(Option::unwrap_or_default).collect()
}

/// The environment of a container, in its order; a variable from elsewhere has the source's JSON.
pub fn environment(pod: &Value, container: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    container_of(pod, container)["env"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|variable| {
            let value = if variable["valueFrom"].is_null() {
                &variable["value"]
            } else {
                &variable["valueFrom"]
            };
            (text(&variable["name"]), text(value))
        })
        .collect()
}

/// A variable of a container.
pub fn variable(pod: &Value, container: &str, name: &str) -> Option<String> {
    environment(pod, container)
        .into_iter()
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// The path at which a container mounts a volume.
pub fn mounted_at<'a>(pod: &'a Value, container: &str, volume: &str) -> Option<&'a str> {
    container_of(pod, container)["volumeMounts"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|mount| mount["name"] == volume)
        .and_then(|mount| mount["mountPath"].as_str())
}

/// A volume of a pod.
pub fn volume<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    pod["spec"]["volumes"]
        .as_array()?
        .iter()
        .find(|volume| volume["name"] == name)
}

/// The stand-in for AWS STS with the cluster as an identity provider, and roles with their trust policies.
pub async fn sts(control_plane: &ControlPlane, audiences: &[&str], roles: &[(&str, &Value)]) -> Result<Server> {
    let config = StsConfig {
        providers: vec![Provider {
            url: ISSUER.to_owned(),
            client_ids: audiences.iter().map(ToString::to_string).collect(),
            account: ACCOUNT.to_owned(),
            partition: "aws".to_owned(),
            context_provider: None,
        }],
        roles: roles
            .iter()
            .map(|(arn, trust_policy)| Role {
                arn: (*arn).to_owned(),
                trust_policy: (*trust_policy).clone(),
                max_session_duration: 3600,
            })
            .collect(),
        issuer_trust_pem: control_plane.ca()?,
        connect_to: BTreeMap::from([(
            "oidc.tokenscope.test".to_owned(),
            SocketAddr::from(([127, 0, 0, 1], control_plane.port())),
        )]),
        ..StsConfig::default()
    };
    Ok(Server::start(config, SocketAddr::from(([127, 0, 0, 1], 0)), None).await?)
}

/// The identity of the unmodified AWS SDK, run as if in a container: the ARN, or the SDK's error.
///
/// It blocks its thread, so the test needs a runtime with several (`flavor = "multi_thread"`).
pub async fn who_is(
    control_plane: &ControlPlane,
    sts: &Server,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Result<String> {
    let container = control_plane.container(namespace, pod, container).await?;
    let url = sts.url();
    // The region is not under test here; without any, the SDK doesn't even begin.
    let mut more = vec![("AWS_ENDPOINT_URL_STS", url.as_str())];
    if !container.environment.contains_key("AWS_DEFAULT_REGION") {
        more.push(("AWS_DEFAULT_REGION", "eu-central-1"));
    }
    let arn = tokio::task::block_in_place(|| container.python(WHO_AM_I, &more))?;
    Ok(arn.trim().to_owned())
}

/// A pod's specification without the random end of the name that the API server gives the volume of its own token.
pub fn without_random_names(spec: &Value) -> serde_json::Result<Value> {
    const NAME: &str = "kube-api-access-";
    let text = spec.to_string();
    let mut parts = text.split(NAME);
    let mut same = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        same.push_str(NAME);
        same.push_str(part.get(5..).unwrap_or_default());
    }
    serde_json::from_str(&same)
}
