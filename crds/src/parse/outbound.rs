//! The tokens for third parties that a policy gives.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokenscope_core::outbound::{
    AwsAlgorithm, AwsSubject, AwsToken, LONGEST_AWS_TOKEN, MOST_OUTBOUND_TOKENS, MOST_OUTBOUND_VARIABLES,
    OutboundPreset, OutboundSource, OutboundToken, OutboundValue, OutboundVariable, is_outbound_value,
};
use tokenscope_core::{Audience, InvalidPolicy, TokenExpiration};

use super::{invalid, parse, parse_optional};
use crate::messages;
use crate::v1alpha1::{
    DeliveryTypeSpec, OutboundAlgorithmSpec, OutboundAwsSpec, OutboundPresetSpec, OutboundSourceSpec,
    OutboundTokenSpec, OutboundValueFromSpec, OutboundVariableSpec, PolicySpec, SourceSpec, SubjectModeSpec,
};

const FIELD: &str = "spec.outboundTokens";

/// The tokens of a policy.
pub(super) fn outbound(policy: &PolicySpec) -> Result<Arc<[OutboundToken]>, InvalidPolicy> {
    let tokens = &policy.outbound_tokens;
    if tokens.len() > MOST_OUTBOUND_TOKENS {
        return Err(invalid(
            FIELD,
            format!("should have at most {MOST_OUTBOUND_TOKENS} tokens"),
        ));
    }
    let (mut names, mut variables) = (BTreeSet::new(), BTreeSet::new());
    let token = |(index, token): (usize, &OutboundTokenSpec)| {
        let path = format!("{FIELD}[{index}]");
        let parsed = self::token(token, &path, policy)?;
        if !names.insert(token.name.clone()) {
            return Err(invalid(format!("{path}.name"), messages::OUTBOUND_TWICE));
        }
        let mut named = parsed.variables.iter().map(|variable| &variable.name);
        if let Some(twice) = named.find(|name| !variables.insert((*name).clone())) {
            let field = format!("{path}.env");
            return Err(invalid(field, format!("{twice} {}", messages::OUTBOUND_VARIABLE_TWICE)));
        }
        Ok(parsed)
    };
    tokens.iter().enumerate().map(token).collect()
}

fn token(token: &OutboundTokenSpec, path: &str, policy: &PolicySpec) -> Result<OutboundToken, InvalidPolicy> {
    let field = |member: &str| format!("{path}.{member}");
    let source = source(token, path, policy)?;
    let audience: Audience = parse(&token.audience, &field("audience"))?;
    if token.audience.contains(['"', '\\']) {
        return Err(invalid(field("audience"), messages::OUTBOUND_AUDIENCE));
    }
    let expiration = match token.expiration_seconds {
        None => TokenExpiration::HOUR,
        Some(seconds) => {
            TokenExpiration::from_seconds(seconds).map_err(|error| invalid(field("expirationSeconds"), error))?
        }
    };
    if matches!(source, OutboundSource::Aws(_)) && expiration.seconds() > LONGEST_AWS_TOKEN {
        return Err(invalid(field("expirationSeconds"), messages::OUTBOUND_AWS_LIFETIME));
    }
    Ok(OutboundToken {
        name: parse(&token.name, &field("name"))?,
        audience,
        source,
        expiration,
        variables: variables(token, path)?,
    })
}

fn source(token: &OutboundTokenSpec, path: &str, policy: &PolicySpec) -> Result<OutboundSource, InvalidPolicy> {
    let source = token.source.unwrap_or_default();
    if source != OutboundSourceSpec::Aws && token.aws.is_some() {
        return Err(invalid(format!("{path}.aws"), messages::OUTBOUND_WITHOUT_AWS));
    }
    match source {
        OutboundSourceSpec::ServiceAccount => Ok(OutboundSource::ServiceAccount),
        OutboundSourceSpec::Issuer if policy.token.source == SourceSpec::Issuer => Ok(OutboundSource::Issuer),
        OutboundSourceSpec::Issuer => Err(invalid(FIELD, messages::OUTBOUND_WITHOUT_ISSUER)),
        OutboundSourceSpec::Aws if policy.delivery.type_ == DeliveryTypeSpec::Endpoint => {
            aws(token.aws.as_ref(), &format!("{path}.aws")).map(OutboundSource::Aws)
        }
        OutboundSourceSpec::Aws => Err(invalid(FIELD, messages::OUTBOUND_WITHOUT_ENDPOINT)),
    }
}

fn aws(aws: Option<&OutboundAwsSpec>, path: &str) -> Result<AwsToken, InvalidPolicy> {
    let Some(aws) = aws else {
        return Ok(AwsToken::default());
    };
    let scope = parse_optional(aws.scope.as_deref(), &format!("{path}.scope"))?;
    let subject = match aws.subject_mode.unwrap_or_default() {
        SubjectModeSpec::OriginIdentity => AwsSubject::Origin { scope },
        SubjectModeSpec::AwsIdentity if scope.is_some() => {
            return Err(invalid(
                format!("{path}.scope"),
                messages::OUTBOUND_SCOPE_WITHOUT_ORIGIN,
            ));
        }
        SubjectModeSpec::AwsIdentity => AwsSubject::Role,
    };
    Ok(AwsToken {
        algorithm: match aws.algorithm.unwrap_or_default() {
            OutboundAlgorithmSpec::RS256 => AwsAlgorithm::RS256,
            OutboundAlgorithmSpec::ES384 => AwsAlgorithm::ES384,
        },
        subject,
    })
}

/// Those of the preset, and those that are written out.
fn variables(token: &OutboundTokenSpec, path: &str) -> Result<Vec<OutboundVariable>, InvalidPolicy> {
    if token.env.len() > MOST_OUTBOUND_VARIABLES {
        let most = format!("should have at most {MOST_OUTBOUND_VARIABLES} variables");
        return Err(invalid(format!("{path}.env"), most));
    }
    let preset = token.preset.map(|preset| match preset {
        OutboundPresetSpec::Anthropic => OutboundPreset::Anthropic,
        OutboundPresetSpec::Azure => OutboundPreset::Azure,
        OutboundPresetSpec::Databricks => OutboundPreset::Databricks,
        OutboundPresetSpec::Snowflake => OutboundPreset::Snowflake,
        OutboundPresetSpec::Vault => OutboundPreset::Vault,
    });
    let of_preset = preset.map_or(&[][..], OutboundPreset::variables);
    let of_preset = of_preset.iter().map(|&(name, value)| {
        Ok(OutboundVariable {
            name: parse(name, &format!("{path}.preset"))?,
            value: value.map_or(OutboundValue::File, |text| OutboundValue::Text(text.into())),
        })
    });
    let own = token.env.iter().enumerate();
    let own = own.map(|(index, own)| variable(own, &format!("{path}.env[{index}]")));
    of_preset.chain(own).collect()
}

fn variable(variable: &OutboundVariableSpec, path: &str) -> Result<OutboundVariable, InvalidPolicy> {
    let value = match (&variable.value, variable.value_from) {
        (Some(text), None) if is_outbound_value(text) => OutboundValue::Text(text.as_str().into()),
        (Some(_), None) => return Err(invalid(format!("{path}.value"), messages::OUTBOUND_LITERAL)),
        (None, Some(OutboundValueFromSpec::File)) => OutboundValue::File,
        (None, Some(OutboundValueFromSpec::Audience)) => OutboundValue::Audience,
        (Some(_), Some(_)) | (None, None) => return Err(invalid(path, messages::OUTBOUND_VALUE)),
    };
    Ok(OutboundVariable {
        name: parse(&variable.name, &format!("{path}.name"))?,
        value,
    })
}
