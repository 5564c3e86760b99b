//! Server-side apply of manifests, as strict as the API server can be.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::{Client, Resource, discovery};
use serde_json::Value;

use crate::control_plane::ControlPlane;
use crate::{eventually, get_json, request};

/// How long the API server may take to serve a kind whose definition it has accepted, on a busy machine.
const SERVED: Duration = Duration::from_secs(90);

impl ControlPlane {
    /// Applies every document of a YAML text; what has no namespace and needs one goes to `default`.
    pub async fn apply_yaml(&self, text: &str) -> Result<Vec<Value>> {
        self.apply(&documents(text)?, "default").await
    }

    /// Applies objects in their order; what has no namespace and needs one goes to `namespace`. A field that the API server
    /// doesn't know, or one that is there twice, is an error. Waits until a CustomResourceDefinition is served.
    pub async fn apply(&self, objects: &[Value], namespace: &str) -> Result<Vec<Value>> {
        let client = self.client().await?;
        let mut applied = Vec::new();
        for object in objects {
            applied.push(apply(&client, object, namespace).await?);
        }
        Ok(applied)
    }
}

/// The documents of a YAML text, empty ones left out.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("not YAML")?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

async fn apply(client: &Client, object: &Value, namespace: &str) -> Result<Value> {
    let DynamicObject { types, metadata, .. } =
        serde_json::from_value(object.clone()).context("not a Kubernetes object")?;
    let types = types.context("an object has an apiVersion and a kind")?;
    let name = metadata.name.context("an object has a name")?;
    let kind = GroupVersionKind::try_from(&types)?;
    let title = format!("{} {name}", kind.kind);
    // A kind is served some moments after its definition was accepted.
    let (resource, capabilities) = eventually(SERVED, format!("{} is served", kind.kind), async || {
        Ok(discovery::pinned_kind(client, &kind).await?)
    })
    .await?;
    let namespace = match capabilities.scope {
        discovery::Scope::Cluster => None,
        discovery::Scope::Namespaced => Some(metadata.namespace.as_deref().unwrap_or(namespace)),
    };
    let object_path = format!("{}/{name}", DynamicObject::url_path(&resource, namespace));
    let query = "fieldManager=tokenscope-e2e&force=true&fieldValidation=Strict";
    let mut patch = request(
        http::Method::PATCH,
        &format!("{object_path}?{query}"),
        object.to_string().into_bytes(),
    )?;
    let apply_patch = http::HeaderValue::from_static("application/apply-patch+yaml");
    patch.headers_mut().insert(http::header::CONTENT_TYPE, apply_patch);
    let applied = eventually(SERVED, format!("{title} is applied"), async || {
        match client.request::<Value>(patch.clone()).await {
            Err(error) if passes(&error) => Err(error.into()),
            answer => Ok(answer),
        }
    })
    .await?
    .with_context(|| format!("can't apply {title}"))?;
    if kind.kind == "CustomResourceDefinition" {
        eventually(SERVED, format!("{title} is established"), async || {
            let definition = get_json(client, &object_path).await?;
            let conditions = definition["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let established = |condition: &Value| condition["type"] == "Established" && condition["status"] == "True";
            ensure!(conditions.iter().any(established), "its conditions: {conditions:?}");
            Ok(())
        })
        .await?;
        is_served(client, &applied["spec"]).await?;
    }
    Ok(applied)
}

/// True if the API server only had no time for a request just then, or its etcd. To apply once more does no harm.
fn passes(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 429 || status.code >= 500)
}

/// Waits until what a CustomResourceDefinition defines can be asked for: its handler learns by a watch that it is established.
async fn is_served(client: &Client, spec: &Value) -> Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let versions = spec["versions"].as_array().into_iter().flatten();
    for version in versions.filter(|version| version["served"] == true) {
        let path = format!("/apis/{group}/{}/{plural}?limit=1", text(&version["name"]));
        eventually(SERVED, format!("{plural} of {group} can be listed"), async || {
            Ok(get_json(client, &path).await?)
        })
        .await?;
    }
    Ok(())
}
