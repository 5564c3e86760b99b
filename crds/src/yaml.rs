//! The definitions as values, from which all files are generated.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::columns;
use crate::v1alpha1::{ClusterTokenScopePolicy, TokenScopeBoundary, TokenScopePolicy};

/// The reason why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum CannotWriteYaml {
    /// The types and Kubernetes disagree on what a schema is.
    #[error("the schema is not one of Kubernetes")]
    Schema(#[source] serde_json::Error),
    /// The writer of YAML failed.
    #[error("the definition can't be written as YAML")]
    Yaml(#[source] serde_saphyr::ser::Error),
}

/// The definitions as plain values, tidied and with their columns.
pub(crate) fn values() -> Result<[Value; 3], CannotWriteYaml> {
    let value = |definition: CustomResourceDefinition, columns: Value| {
        let mut value = serde_json::to_value(definition).map_err(CannotWriteYaml::Schema)?;
        tidy(&mut value);
        value["spec"]["versions"][0]["additionalPrinterColumns"] = columns;
        Ok(value)
    };
    Ok([
        value(TokenScopePolicy::crd(), columns::of_policies())?,
        value(ClusterTokenScopePolicy::crd(), columns::of_policies())?,
        value(TokenScopeBoundary::crd(), columns::of_boundaries())?,
    ])
}

/// Takes out null as a value, joins the lines of descriptions (`kubectl explain` breaks them itself), and writes whole
/// numbers as such.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| key != "nullable" || !value.is_boolean());
            if let Some(Value::Array(words)) = map.get_mut("enum") {
                words.retain(|word| !word.is_null());
            }
            if let Some(Value::String(text)) = map.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|float| float.fract() == 0.0) {
                *number = (float as i64).into();
            }
        }
        _ => {}
    }
}
