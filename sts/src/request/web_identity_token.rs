//! `GetWebIdentityToken`.

use std::collections::{BTreeMap, HashSet};

use super::Parameters;
use super::bounds::{Check, ParameterBounds};
use crate::aws_error::AwsError;
use crate::tags;

const SCOPE_PATTERN: &str = r"[\x21\x23-\x2B\x2D-\x5B\x5D-\x7E]+( [\x21\x23-\x2B\x2D-\x5B\x5D-\x7E]+)*";

/// The algorithm that a token is signed with (`jwtAlgorithmType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SigningAlgorithm {
    Rs256,
    Es384,
}

impl SigningAlgorithm {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es384 => "ES384",
        }
    }

    fn parse(name: &str) -> Result<Self, AwsError> {
        match name {
            "RS256" => Ok(Self::Rs256),
            "ES384" => Ok(Self::Es384),
            other => Err(AwsError::validation(format!(
                "SigningAlgorithm {other} is neither RS256 nor ES384"
            ))),
        }
    }
}

/// The identity that a token's `sub` has (`webIdentityTokenSubjectModeType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubjectMode {
    AwsIdentity,
    OriginIdentity,
}

impl SubjectMode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AwsIdentity => "AWSIdentity",
            Self::OriginIdentity => "OriginIdentity",
        }
    }

    fn parse(name: Option<&str>) -> Result<Self, AwsError> {
        match name {
            None | Some("AWSIdentity") => Ok(Self::AwsIdentity),
            Some("OriginIdentity") => Ok(Self::OriginIdentity),
            Some(other) => {
                let message = format!("SubjectMode {other} is neither AWSIdentity nor OriginIdentity");
                Err(AwsError::validation(message))
            }
        }
    }
}

/// `GetWebIdentityToken` with every parameter in its bounds (STS service model of November 2026,
/// `GetWebIdentityTokenRequest`).
#[derive(Debug)]
pub(crate) struct WebIdentityTokenRequest {
    pub(crate) audiences: Vec<String>,
    /// Seconds.
    pub(crate) duration: u32,
    pub(crate) algorithm: SigningAlgorithm,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) subject_mode: SubjectMode,
    pub(crate) scope: Option<String>,
}

impl WebIdentityTokenRequest {
    pub(crate) fn parse(parameters: &Parameters) -> Result<Self, AwsError> {
        let mut check = Check::new(parameters);
        let audiences = check.list(
            "Audience",
            "audience",
            10,
            &ParameterBounds::text(1, 1000, "", |_| true),
        )?;
        if audiences.is_empty() {
            check.missing("audience");
        }
        let duration = check
            .number("DurationSeconds", "durationSeconds", 60, 3600)?
            .unwrap_or(300);
        let algorithm = check.required(
            "SigningAlgorithm",
            "signingAlgorithm",
            &ParameterBounds::text(5, 5, "", |_| true),
        );
        let scope = check.optional(
            "Scope",
            "scope",
            &ParameterBounds::text(1, 256, SCOPE_PATTERN, is_scope_character),
        );
        let subject_mode = check.optional(
            "SubjectMode",
            "subjectMode",
            &ParameterBounds::text(0, 64, "", |_| true),
        );
        let pairs = check.tags()?;
        check.finish()?;

        let algorithm = SigningAlgorithm::parse(algorithm)?;
        let subject_mode = SubjectMode::parse(subject_mode)?;
        if let Some(scope) = scope {
            check_scope(scope, subject_mode, audiences.len())?;
        }
        Ok(Self {
            audiences: audiences.into_iter().map(str::to_owned).collect(),
            duration,
            algorithm,
            tags: tags::checked(&pairs).map_err(AwsError::validation)?,
            subject_mode,
            scope: scope.map(str::to_owned),
        })
    }
}

/// The parameter's doc in the model: words between single spaces, none twice; only with OriginIdentity and one audience.
fn check_scope(scope: &str, mode: SubjectMode, audiences: usize) -> Result<(), AwsError> {
    let mut seen = HashSet::new();
    let problem = if scope.split(' ').any(str::is_empty) {
        "has a space at an end or two in a row"
    } else if !scope.split(' ').all(|word| seen.insert(word)) {
        "repeats a value"
    } else if mode != SubjectMode::OriginIdentity {
        "is allowed with SubjectMode OriginIdentity only"
    } else if audiences != 1 {
        "is allowed with exactly one audience only"
    } else {
        return Ok(());
    };
    Err(AwsError::validation(format!("Scope {problem}")))
}

fn is_scope_character(c: char) -> bool {
    matches!(c, ' '..='~') && !matches!(c, '"' | ',' | '\\')
}
