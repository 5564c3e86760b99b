//! The shape of a specification: which of its fields are objects, maps and lists, by the schema that is installed.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde_json::Value;

use crate::v1alpha1::{ClusterTokenScopePolicy, TokenScopeBoundary};

/// The shape of `spec` in the cluster's kind of policy, which has every field of the other kind.
pub(crate) static POLICY: LazyLock<Shape> = LazyLock::new(|| Shape::of_spec(&ClusterTokenScopePolicy::crd()));

/// The shape of `spec` in a boundary.
pub(crate) static BOUNDARY: LazyLock<Shape> = LazyLock::new(|| Shape::of_spec(&TokenScopeBoundary::crd()));

/// The shape that a value must have, as far as serde can mistake it.
#[derive(Debug)]
pub(crate) enum Shape {
    /// An object with these fields.
    Object(BTreeMap<String, Self>),
    /// An object with any fields, all of one shape.
    Map(Box<Self>),
    /// A list of values of one shape.
    List(Box<Self>),
    /// A text, a number or a boolean: nothing else can be read as one.
    Scalar,
}

impl Shape {
    /// The shape of `spec` by a definition.
    fn of_spec(definition: &CustomResourceDefinition) -> Self {
        let schema = definition.spec.versions.first().and_then(|version| {
            let schema = version.schema.as_ref()?.open_api_v3_schema.as_ref()?;
            schema.properties.as_ref()?.get("spec")
        });
        schema.map_or(Self::Scalar, Self::of)
    }

    fn of(schema: &JSONSchemaProps) -> Self {
        match (schema.type_.as_deref(), &schema.properties) {
            (Some("object"), Some(properties)) => {
                let fields = properties.iter().map(|(name, schema)| (name.clone(), Self::of(schema)));
                Self::Object(fields.collect())
            }
            (Some("object"), None) => match &schema.additional_properties {
                Some(JSONSchemaPropsOrBool::Schema(values)) => Self::Map(Box::new(Self::of(values))),
                _ => Self::Map(Box::new(Self::Scalar)),
            },
            (Some("array"), _) => match &schema.items {
                Some(JSONSchemaPropsOrArray::Schema(items)) => Self::List(Box::new(Self::of(items))),
                _ => Self::List(Box::new(Self::Scalar)),
            },
            _ => Self::Scalar,
        }
    }

    /// The path of the first list that stands in place of an object; `path` is the value's own.
    ///
    /// serde reads a struct from a list too, value by value, and an empty list would be an empty selector, which selects all.
    pub(crate) fn list_for_an_object(&self, value: &Value, path: &str) -> Option<String> {
        match (self, value) {
            (Self::Object(_) | Self::Map(_), Value::Array(_)) => Some(path.to_owned()),
            (Self::Object(fields), Value::Object(values)) => values
                .iter()
                .find_map(|(name, value)| fields.get(name)?.list_for_an_object(value, &format!("{path}.{name}"))),
            (Self::Map(of), Value::Object(values)) => values
                .iter()
                .find_map(|(name, value)| of.list_for_an_object(value, &format!("{path}.{name}"))),
            (Self::List(of), Value::Array(items)) => items
                .iter()
                .enumerate()
                .find_map(|(index, item)| of.list_for_an_object(item, &format!("{path}[{index}]"))),
            _ => None,
        }
    }

    /// The path of the first field that stands in an object and not in its definition; `path` is the value's own.
    pub(crate) fn unknown_field(&self, value: &Value, path: &str) -> Option<String> {
        match (self, value) {
            (Self::Object(fields), Value::Object(values)) => values.iter().find_map(|(name, value)| {
                let path = format!("{path}.{name}");
                match fields.get(name) {
                    Some(shape) => shape.unknown_field(value, &path),
                    None => Some(path),
                }
            }),
            (Self::Map(of), Value::Object(values)) => values
                .iter()
                .find_map(|(name, value)| of.unknown_field(value, &format!("{path}.{name}"))),
            (Self::List(of), Value::Array(items)) => items
                .iter()
                .enumerate()
                .find_map(|(index, item)| of.unknown_field(item, &format!("{path}[{index}]"))),
            _ => None,
        }
    }
}
