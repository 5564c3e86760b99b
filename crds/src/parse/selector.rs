//! Selectors over labels.

use tokenscope_core::{InvalidPolicy, Requirement, Selector, SelectorOperator};

use super::invalid;
use crate::messages;
use crate::v1alpha1::{LabelOperator, LabelRequirement, LabelSelector};

/// The selector that an object's field states.
pub(crate) fn selector(selector: &LabelSelector, field: &str) -> Result<Selector, InvalidPolicy> {
    let mut requirements = Vec::new();
    for (key, value) in &selector.match_labels {
        requirements.push(Requirement {
            key: label_key(key, &format!("{field}.matchLabels"))?,
            operator: SelectorOperator::In(vec![value.as_str().into()]),
        });
    }
    for (index, LabelRequirement { key, operator, values }) in selector.match_expressions.iter().enumerate() {
        let texts = || values.iter().map(|value| value.as_str().into()).collect();
        let takes_values = matches!(operator, LabelOperator::In | LabelOperator::NotIn);
        if takes_values == values.is_empty() {
            return Err(invalid(
                format!("{field}.matchExpressions[{index}].values"),
                if takes_values {
                    messages::NEEDS_VALUES
                } else {
                    messages::TAKES_NO_VALUES
                },
            ));
        }
        requirements.push(Requirement {
            key: label_key(key, &format!("{field}.matchExpressions[{index}].key"))?,
            operator: match operator {
                LabelOperator::In => SelectorOperator::In(texts()),
                LabelOperator::NotIn => SelectorOperator::NotIn(texts()),
                LabelOperator::Exists => SelectorOperator::Exists,
                LabelOperator::DoesNotExist => SelectorOperator::DoesNotExist,
            },
        });
    }
    Ok(Selector(requirements))
}

/// A key that no label can have would make a requirement that always or never holds.
fn label_key(key: &str, field: &str) -> Result<Box<str>, InvalidPolicy> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    if key.is_empty() || key.len() > 317 || !key.bytes().all(allowed) {
        return Err(invalid(field, messages::LABEL_KEY));
    }
    Ok(key.into())
}
