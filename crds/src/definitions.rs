//! The custom resource definitions, and the files that are generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use crate::reference::reference;
use crate::yaml::{CannotWriteYaml, values};

/// The folder of the definitions, from the root of the checkout. It has no other files.
pub const FOLDER: &str = "charts/tokenscope-crds/files";
/// The document about them, from the root of the checkout.
const REFERENCE: &str = "docs/reference.md";

/// The definitions of policies of a namespace, of the cluster and of boundaries, as they are installed.
///
/// They differ from what `CustomResourceExt::crd` gives in that no field is nullable: a field that says nothing is left
/// out, and the rules need not ask for null.
pub fn definitions() -> Result<[CustomResourceDefinition; 3], CannotWriteYaml> {
    let [namespaced, cluster, boundary] = values()?;
    let typed = |value| serde_json::from_value(value).map_err(CannotWriteYaml::Schema);
    Ok([typed(namespaced)?, typed(cluster)?, typed(boundary)?])
}

/// Every generated file: its path from the root of the checkout and what it holds, the same on every run.
pub fn files() -> Result<Vec<(String, String)>, CannotWriteYaml> {
    let mut files = Vec::new();
    for definition in values()? {
        files.push(file(&definition)?);
    }
    files.push((REFERENCE.to_owned(), reference()?));
    Ok(files)
}

fn file(definition: &Value) -> Result<(String, String), CannotWriteYaml> {
    let name = definition["metadata"]["name"].as_str().unwrap_or_default();
    let body = serde_saphyr::to_string(definition).map_err(CannotWriteYaml::Yaml)?;
    Ok((
        format!("{FOLDER}/{name}.yaml"),
        format!(
            "# Generated from the types in crds/src by `cargo xtask crds`. Changes here are lost.\n{}\n",
            body.trim_end()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_committed_files_are_what_the_types_say() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let files = files().unwrap();
        for (path, content) in &files {
            let committed = fs::read_to_string(root.join(path)).unwrap_or_default();
            assert!(
                committed == *content,
                "{path} differs from the types: run `cargo xtask crds` and commit the result"
            );
        }
        let definitions = files.iter().filter(|(path, _)| path.starts_with(FOLDER)).count();
        let present = fs::read_dir(root.join(FOLDER)).unwrap().count();
        assert_eq!(present, definitions, "{FOLDER} has files that nothing generates");
    }

    #[test]
    fn every_field_is_described_and_bounded() {
        fn check(schema: &Value, path: &str) {
            let bound = match schema["type"].as_str() {
                Some("string") if schema["enum"].is_null() && schema["format"].is_null() => "maxLength",
                Some("array") => "maxItems",
                Some("object") if schema["additionalProperties"].is_object() => "maxProperties",
                _ => "type",
            };
            assert!(!schema[bound].is_null(), "{path} has no {bound}");
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{name}");
                let described = property["description"].as_str().is_some_and(|text| text.len() > 10);
                assert!(described, "{path} has no description");
                check(property, &path);
            }
            for key in ["items", "additionalProperties"] {
                if schema[key].is_object() {
                    check(&schema[key], &format!("{path}[]"));
                }
            }
        }
        for definition in values().unwrap() {
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            check(&schema["properties"]["spec"], "spec");
        }
    }

    #[test]
    fn both_kinds_say_the_same_but_for_the_namespace_selector() {
        let [namespaced, cluster, _] = values().unwrap().map(|definition| {
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let mut spec = schema["properties"]["spec"].clone();
            let selector = spec["properties"].as_object_mut().unwrap().remove("namespaceSelector");
            spec.as_object_mut().unwrap().remove("description");
            (spec, selector.is_some())
        });

        assert!(!namespaced.1 && cluster.1);
        assert!(namespaced.0 == cluster.0);
    }

    #[test]
    fn the_yaml_reads_back_as_what_was_written() {
        for ((_, content), definition) in files().unwrap().iter().zip(values().unwrap()) {
            assert!(serde_saphyr::from_str::<Value>(content).unwrap() == definition);
        }
    }
}
