//! Waits until the API server acts by the rights that were just given: it learns of roles and of bindings by watches, and until then refuses what is allowed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::Client;
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::helm::NAMESPACE;
use crate::{eventually, post};

/// How long the API server may take, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A right by RBAC: over resources of one kind, everywhere if it is within no namespace, and over all names if it is over none.
#[derive(Clone, Debug)]
pub struct Right {
    verb: String,
    group: String,
    resource: String,
    name: String,
    namespace: String,
}

impl Right {
    /// The right to a resource of the core group, or of another as `resource.group`, with a subresource as `resource/subresource`.
    pub fn to(verb: &str, resource: &str) -> Self {
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        Self {
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            name: String::new(),
            namespace: String::new(),
        }
    }

    /// The same within a namespace.
    #[must_use]
    pub fn within(self, namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            ..self
        }
    }
}

impl ControlPlane {
    /// Waits until RBAC gives a ServiceAccount of a namespace this right.
    pub async fn has_right(&self, namespace: &str, account: &str, right: &Right) -> Result<()> {
        has_right(&self.client().await?, namespace, account, right).await
    }
}

async fn has_right(client: &Client, namespace: &str, account: &str, right: &Right) -> Result<()> {
    let (resource, subresource) = right.resource.split_once('/').unwrap_or((right.resource.as_str(), ""));
    // An administrator asks: a question of the account's own would be among its requests in the audit log.
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": format!("system:serviceaccount:{namespace}:{account}"),
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
            "resourceAttributes": {
                "verb": right.verb, "group": right.group, "resource": resource, "subresource": subresource,
                "name": right.name, "namespace": right.namespace,
            },
        },
    });
    let what = format!("service account {account} of namespace {namespace} has the right {right:?}");
    eventually(DEADLINE, what, async || {
        let answer = post(client, "/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await?;
        ensure!(answer["status"]["allowed"] == true, "{}", answer["status"]);
        Ok(())
    })
    .await
}

/// Waits until each ServiceAccount among these objects of the chart, which were applied before, has the rights that their roles and bindings give it.
pub async fn rights_act(control_plane: &ControlPlane, applied: &[Value]) -> Result<()> {
    let client = control_plane.client().await?;
    let bindings = applied.iter().filter(|object| {
        object["kind"]
            .as_str()
            .is_some_and(|kind| kind.ends_with("RoleBinding"))
    });
    for binding in bindings {
        let role = applied.iter().find(|object| {
            object["kind"] == binding["roleRef"]["kind"] && object["metadata"]["name"] == binding["roleRef"]["name"]
        });
        let Some(role) = role else { continue };
        let namespace = match binding["kind"].as_str() {
            Some("RoleBinding") => binding["metadata"]["namespace"].as_str().unwrap_or(NAMESPACE),
            _ => "",
        };
        let subjects = binding["subjects"].as_array().into_iter().flatten();
        for subject in subjects.filter(|subject| subject["kind"] == "ServiceAccount") {
            let account = subject["name"].as_str().context("a subject has a name")?;
            let home = subject["namespace"].as_str().unwrap_or(NAMESPACE);
            for rule in role["rules"].as_array().into_iter().flatten() {
                if let Some(right) = first_of(rule, namespace) {
                    has_right(&client, home, account, &right).await?;
                }
            }
        }
    }
    Ok(())
}

/// One right of a rule: the others come with it. None of a rule that is not about resources.
fn first_of(rule: &Value, namespace: &str) -> Option<Right> {
    let first = |key: &str| rule[key][0].as_str().map(str::to_owned);
    Some(Right {
        verb: first("verbs")?,
        group: first("apiGroups")?,
        resource: first("resources")?,
        name: first("resourceNames").unwrap_or_default(),
        namespace: namespace.to_owned(),
    })
}
