//! Names of sessions, and the texts of which STS takes the same characters.

use tokenscope_core::{InvalidPolicy, Template, Variable, claims};

use super::{Placeholder, invalid, parse};
use crate::messages;

/// A session's name: a template, in which the pod's name may stand alone only.
pub(super) fn session_name(text: &str, field: &str) -> Result<Template, InvalidPolicy> {
    let template = sts_name(text, field)?;
    let is_late = |variable: &Variable| matches!(variable, Variable::PodName | Variable::PodUid);
    if template.only_variable() != Some(&Variable::PodName) && template.variables().any(is_late) {
        return Err(invalid(field, messages::SESSION_NAME));
    }
    Ok(template)
}

/// A template of what STS takes as a session name or source identity: `[\w+=,.@-]{2,64}` (AssumeRoleWithWebIdentity).
pub(super) fn sts_name(text: &str, field: &str) -> Result<Template, InvalidPolicy> {
    let template: Template = parse(text, field)?;
    let rendered = template.render(&Placeholder).unwrap_or_default();
    if !rendered.chars().all(claims::is_session_name_character) {
        return Err(invalid(field, messages::STS_NAME));
    }
    if template.literal().is_some_and(|text| !claims::fits_session_name(&text)) {
        return Err(invalid(field, messages::STS_NAME_LENGTH));
    }
    Ok(template)
}
