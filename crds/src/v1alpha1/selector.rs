//! Selectors over labels.

#![expect(
    unreachable_pub,
    reason = "what KubeSchema derives holds a copy of each struct inside a function"
)]

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{schema, size};
use crate::messages;

/// Labels that must all be as said. At most 1536 characters in all.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(size::SELECTOR.0).message(size::SELECTOR.1))]
pub struct LabelSelector {
    /// Labels with the value that each must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::match_labels")]
    pub match_labels: BTreeMap<String, String>,

    /// Requirements on labels, all of which must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// A requirement on one label.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(self.operator in ['In', 'NotIn']) || (has(self.values) && self.values.size() > 0)")
        .message(messages::NEEDS_VALUES)
        .field_path(".values"),
    validation = Rule::new("!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || self.values.size() == 0")
        .message(messages::TAKES_NO_VALUES)
        .field_path(".values")
)]
pub struct LabelRequirement {
    /// The label's key.
    #[schemars(schema_with = "schema::label_key")]
    pub key: String,

    /// In: the label has one of the values. NotIn: it has none of them, or is absent. Exists: it is there. DoesNotExist:
    /// it is not.
    pub operator: LabelOperator,

    /// Values for In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::label_values")]
    pub values: Vec<String>,
}

/// What a requirement demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the words of metav1.LabelSelectorRequirement")]
pub enum LabelOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}
