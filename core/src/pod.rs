//! A pod's JSON, as far as anything here needs it.
//!
//! One decode serves the webhook, which borrows from the review's bytes (`Pod<Text<'_>>`), and the operator, which keeps
//! pods (`Pod<Box<str>>`). Whatever is not named here is skipped and never built, so it can't get lost either.

use crate::token_volumes::token_volumes;
use crate::{Container as ContainerFacts, GrantRecord, OwnRole, Pairs, PodFacts, annotations};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, Visitor},
};
use std::{borrow::Cow, fmt, ops::Deref};

/// A text that is borrowed from the bytes unless it has escapes in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<'a>(Cow<'a, str>);

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

/// A pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de>"))]
pub struct Pod<S> {
    /// Its metadata.
    #[serde(default)]
    pub metadata: Metadata<S>,
    /// Its specification.
    pub spec: Spec<S>,
}

/// A pod's metadata.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct Metadata<S> {
    /// Its name; absent where the API server is to generate one.
    #[serde(default)]
    pub name: Option<S>,
    /// What the generated name begins with.
    #[serde(default)]
    pub generate_name: Option<S>,
    /// Labels.
    #[serde(default)]
    pub labels: Pairs<S>,
    /// Annotations; `None` where the pod has no such member at all.
    #[serde(default)]
    pub annotations: Option<Pairs<S>>,
    /// The objects that made it.
    #[serde(default)]
    pub owner_references: Option<Vec<OwnerReference<S>>>,
}

impl<S> Default for Metadata<S> {
    fn default() -> Self {
        Self {
            name: None,
            generate_name: None,
            labels: Pairs::default(),
            annotations: None,
            owner_references: None,
        }
    }
}

/// An object that made the pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct OwnerReference<S> {
    /// Group and version.
    pub api_version: S,
    /// Kind.
    pub kind: S,
    /// Name.
    pub name: S,
    /// UID.
    pub uid: S,
    /// Whether it is the managing controller.
    #[serde(default)]
    pub controller: Option<bool>,
}

/// A pod's specification.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct Spec<S> {
    /// Its service account; the API server fills it in before any webhook sees the pod.
    #[serde(default)]
    pub service_account_name: Option<S>,
    /// The operating system that it says it needs.
    #[serde(default)]
    pub os: Option<Os<S>>,
    /// Labels of the nodes that it may run on.
    #[serde(default)]
    pub node_selector: Pairs<S>,
    /// Further rules about nodes.
    #[serde(default)]
    pub affinity: Option<Affinity<S>>,
    /// Containers.
    #[serde(default)]
    pub containers: Option<Vec<Container<S>>>,
    /// Init containers, native sidecars among them.
    #[serde(default)]
    pub init_containers: Option<Vec<Container<S>>>,
    /// Volumes.
    #[serde(default)]
    pub volumes: Option<Vec<Volume<S>>>,
}

/// `spec.os`.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de>"))]
pub struct Os<S> {
    /// `linux` or `windows`.
    #[serde(default = "Option::default")]
    pub name: Option<S>,
}

/// `spec.affinity`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct Affinity<S> {
    /// Rules about nodes.
    #[serde(default = "Option::default")]
    pub node_affinity: Option<NodeAffinity<S>>,
}

/// `spec.affinity.nodeAffinity`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct NodeAffinity<S> {
    /// The rules that must hold.
    #[serde(
        default = "Option::default",
        rename = "requiredDuringSchedulingIgnoredDuringExecution"
    )]
    pub required: Option<NodeSelector<S>>,
}

/// A node selector: any term may hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct NodeSelector<S> {
    /// Its terms.
    #[serde(default = "Option::default")]
    pub node_selector_terms: Option<Vec<NodeSelectorTerm<S>>>,
}

/// A term: every expression must hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct NodeSelectorTerm<S> {
    /// Its expressions.
    #[serde(default = "Option::default")]
    pub match_expressions: Option<Vec<NodeSelectorRequirement<S>>>,
}

/// An expression about a node's label.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de>"))]
pub struct NodeSelectorRequirement<S> {
    /// The label.
    pub key: S,
    /// `In`, `NotIn`, …
    pub operator: S,
    /// The values it speaks of.
    #[serde(default = "Option::default")]
    pub values: Option<Vec<S>>,
}

/// A container.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct Container<S> {
    /// Its name.
    pub name: S,
    /// Its environment.
    #[serde(default = "Option::default")]
    pub env: Option<Vec<EnvVar<S>>>,
    /// Where more of its environment comes from.
    #[serde(default = "Option::default")]
    pub env_from: Option<Vec<IgnoredAny>>,
    /// What is mounted in it.
    #[serde(default = "Option::default")]
    pub volume_mounts: Option<Vec<VolumeMount<S>>>,
    /// Its image.
    #[serde(default = "Option::default")]
    pub image: Option<S>,
    /// `Always` makes an init container a native sidecar.
    #[serde(default = "Option::default")]
    pub restart_policy: Option<S>,
}

/// An environment variable.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct EnvVar<S> {
    /// Its name.
    pub name: S,
    /// Its value, where it is written out.
    #[serde(default = "Option::default")]
    pub value: Option<S>,
    /// Where its value comes from, where it isn't.
    #[serde(default = "Option::default")]
    pub value_from: Option<ValueFrom<S>>,
}

/// Where a variable's value comes from.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct ValueFrom<S> {
    /// A field of the pod.
    #[serde(default = "Option::default")]
    pub field_ref: Option<FieldRef<S>>,
}

/// A field of the pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct FieldRef<S> {
    /// Its path.
    pub field_path: S,
}

/// A mount.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct VolumeMount<S> {
    /// The volume's name.
    pub name: S,
    /// Where it is mounted.
    pub mount_path: S,
    /// Whether it can't be written.
    #[serde(default)]
    pub read_only: Option<bool>,
    /// Which part of the volume.
    #[serde(default = "Option::default")]
    pub sub_path: Option<S>,
}

/// A volume.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct Volume<S> {
    /// Its name.
    pub name: S,
    /// Its sources, where it is a projected one.
    #[serde(default = "Option::default")]
    pub projected: Option<Projected<S>>,
    /// What kind of folder, where it is an empty one.
    #[serde(default = "Option::default")]
    pub empty_dir: Option<EmptyDir<S>>,
    /// Its driver, where it is one of a CSI driver.
    #[serde(default = "Option::default")]
    pub csi: Option<Csi<S>>,
    /// The node's folder, where it is one.
    #[serde(default = "Option::default")]
    pub host_path: Option<HostPath<S>>,
}

/// An empty folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de>"))]
pub struct EmptyDir<S> {
    /// `Memory` for a tmpfs.
    #[serde(default = "Option::default")]
    pub medium: Option<S>,
}

/// A volume of a CSI driver that lives as long as its pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct Csi<S> {
    /// The driver's name.
    pub driver: S,
    /// Whether it can't be written.
    #[serde(default)]
    pub read_only: Option<bool>,
}

/// A folder or file of the node.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de>"))]
pub struct HostPath<S> {
    /// Its path there.
    pub path: S,
}

/// A projected volume.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de>"))]
pub struct Projected<S> {
    /// Its sources.
    #[serde(default = "Option::default")]
    pub sources: Option<Vec<ProjectedSource<S>>>,
}

/// A source of a projected volume.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct ProjectedSource<S> {
    /// A service account token; `None` where the source is something else.
    #[serde(default = "Option::default")]
    pub service_account_token: Option<ServiceAccountToken<S>>,
}

/// A projected service account token.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
pub struct ServiceAccountToken<S> {
    /// Its audience.
    #[serde(default = "Option::default")]
    pub audience: Option<S>,
    /// Its lifetime in seconds.
    #[serde(default)]
    pub expiration_seconds: Option<i64>,
    /// Its file.
    pub path: S,
}

impl<S: AsRef<str>> Pod<S> {
    /// Init containers, then containers.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container<S>> {
        self.spec
            .init_containers
            .iter()
            .flatten()
            .chain(self.spec.containers.iter().flatten())
    }

    /// Init containers, then containers, without the sidecar that `record` says we added: each with its list's name in
    /// `spec` and its index there. These are the containers of [`Self::facts`], in the same order.
    pub fn users_containers(
        &self,
        record: Option<&GrantRecord<'_>>,
    ) -> impl Iterator<Item = (&'static str, usize, &Container<S>)> {
        let has_sidecar = record.is_some_and(|record| record.sidecar);
        let init = self.spec.init_containers.iter().flatten().enumerate();
        let init = init.filter(move |(_, container)| !has_sidecar || container.name.as_ref() != SIDECAR);
        let containers = self.spec.containers.iter().flatten().enumerate();
        let init = init.map(|(index, container)| ("initContainers", index, container));
        init.chain(containers.map(|(index, container)| ("containers", index, container)))
    }

    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.value(key)
    }

    /// What an earlier review of ours did, as far as the pod says.
    pub fn grant_record(&self) -> Option<GrantRecord<'_>> {
        GrantRecord::read(self.annotation(annotations::GRANT)?)
    }

    /// The facts that a decision looks at, without what `record` says that we added ourselves.
    pub fn facts(&self, record: Option<&GrantRecord<'_>>) -> PodFacts<'_> {
        PodFacts {
            labels: self.metadata.labels.borrowed(),
            annotations: self
                .metadata
                .annotations
                .as_ref()
                .map(Pairs::borrowed)
                .unwrap_or_default(),
            containers: self
                .users_containers(record)
                .map(|(_, _, container)| container.facts(record))
                .collect(),
            token_volumes: token_volumes(self),
        }
    }

    /// Whether it can only run on Windows nodes: by `spec.os`, node selector or required node affinity.
    pub fn needs_windows(&self) -> bool {
        if let Some(name) = self.spec.os.as_ref().and_then(|os| os.name.as_ref()) {
            return name.as_ref() == "windows";
        }
        if OS_LABELS
            .iter()
            .any(|label| self.spec.node_selector.value(label) == Some("windows"))
        {
            return true;
        }
        let required = self
            .spec
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref()?.required.as_ref());
        // Terms are alternatives: only if each of them says Windows, the pod needs it.
        required
            .and_then(|selector| selector.node_selector_terms.as_ref())
            .is_some_and(|terms| !terms.is_empty() && terms.iter().all(NodeSelectorTerm::needs_windows))
    }
}

/// The name of the container that keeps a pod's tokens where the cluster doesn't.
pub const SIDECAR: &str = "tokenscope-sidecar";

const OS_LABELS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];

impl<S: AsRef<str>> NodeSelectorTerm<S> {
    fn needs_windows(&self) -> bool {
        self.match_expressions.iter().flatten().any(|expression| {
            OS_LABELS.contains(&expression.key.as_ref())
                && expression.operator.as_ref() == "In"
                && expression
                    .values
                    .as_ref()
                    .is_some_and(|values| !values.is_empty() && values.iter().all(|value| value.as_ref() == "windows"))
        })
    }
}

impl<S: AsRef<str>> Container<S> {
    /// A variable of its environment. Of several with one name the last counts, as it does for the kubelet.
    pub fn variable(&self, name: &str) -> Option<&EnvVar<S>> {
        self.env
            .iter()
            .flatten()
            .rev()
            .find(|variable| variable.name.as_ref() == name)
    }

    fn facts(&self, record: Option<&GrantRecord<'_>>) -> ContainerFacts<'_> {
        let ours = record.map_or(&[][..], |record| record.env_of(self.name.as_ref()));
        let own = |name: &str| self.variable(name).filter(|_| !ours.iter().any(|added| added == name));
        ContainerFacts {
            name: self.name.as_ref(),
            own_role: own("AWS_ROLE_ARN").map_or(OwnRole::Absent, |variable| match &variable.value {
                Some(value) if variable.value_from.is_none() && !value.as_ref().contains("$(") => {
                    OwnRole::Literal(value.as_ref())
                }
                _ => OwnRole::Indirect,
            }),
            own_token_file: own("AWS_WEB_IDENTITY_TOKEN_FILE").is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> Pod<String> {
        serde_json::from_str(&format!(r#"{{"spec":{spec}}}"#)).unwrap()
    }

    #[test]
    fn nulls_and_missing_members_are_the_same() {
        let json = r#"{"metadata":{"labels":null,"annotations":null},"spec":{"containers":null,"volumes":null,"nodeSelector":null,"os":null}}"#;
        let pod: Pod<Text<'_>> = serde_json::from_str(json).unwrap();

        assert_eq!(pod.all_containers().count(), 0);
        assert!(!pod.needs_windows());
    }

    #[test]
    fn texts_are_borrowed_unless_they_have_escapes() {
        let pod: Pod<Text<'_>> =
            serde_json::from_str(r#"{"spec":{"containers":[{"name":"app"},{"name":"a\u0070p"}]}}"#).unwrap();
        let names: Vec<_> = pod.all_containers().map(|container| &container.name.0).collect();

        assert!(matches!(names[0], Cow::Borrowed("app")));
        assert!(matches!(names[1], Cow::Owned(text) if text == "app"));
    }

    #[test]
    fn windows_is_seen_in_all_three_places() {
        let affinity = |values: &str| {
            pod(&format!(
                r#"{{"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[
                {{"matchExpressions":[{{"key":"kubernetes.io/os","operator":"In","values":{values}}}]}}]}}}}}}}}"#
            ))
        };
        assert!(pod(r#"{"os":{"name":"windows"}}"#).needs_windows());
        assert!(pod(r#"{"nodeSelector":{"kubernetes.io/os":"windows"}}"#).needs_windows());
        assert!(affinity(r#"["windows"]"#).needs_windows());
        assert!(!affinity(r#"["windows","linux"]"#).needs_windows());
        assert!(!pod(r#"{"os":{"name":"linux"},"nodeSelector":{"kubernetes.io/os":"windows"}}"#).needs_windows());
        assert!(!pod("{}").needs_windows());
    }

    #[test]
    fn the_last_of_several_variables_with_one_name_counts() {
        let pod = pod(
            r#"{"containers":[{"name":"app","env":[{"name":"AWS_ROLE_ARN","value":"a"},{"name":"AWS_ROLE_ARN","value":"b"}]}]}"#,
        );

        assert_eq!(pod.facts(None).containers[0].own_role, OwnRole::Literal("b"));
    }

    #[test]
    fn a_role_from_elsewhere_can_not_be_judged() {
        let pod = pod(
            r#"{"containers":[{"name":"a","env":[{"name":"AWS_ROLE_ARN","valueFrom":{"secretKeyRef":{"name":"s","key":"k"}}}]},
                              {"name":"b","env":[{"name":"AWS_ROLE_ARN","value":"$(ROLE)"}]}]}"#,
        );
        let facts = pod.facts(None);

        assert!(
            facts
                .containers
                .iter()
                .all(|container| container.own_role == OwnRole::Indirect)
        );
    }
}
