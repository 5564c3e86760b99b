//! The mistakes of a configuration.

/// The reason why a provider, a role or an address was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StsConfigError {
    /// A field breaks a rule of IAM or of this stand-in.
    #[error("ValidationError: {field}: {problem}")]
    Invalid {
        /// The field as the configuration writes it.
        field: &'static str,
        /// The rule and the value that breaks it.
        problem: String,
    },
    /// The trust policy is not one that IAM accepts.
    #[error("MalformedPolicyDocument: {role}: trust_policy: {problem}")]
    MalformedPolicyDocument {
        /// The role's ARN.
        role: String,
        /// The place in the document and what is wrong there.
        problem: String,
    },
    /// `add_role` or `add_provider` of one that is there already.
    #[error("EntityAlreadyExists: {0}")]
    EntityAlreadyExists(String),
    /// A change of a provider that isn't there.
    #[error("NoSuchEntity: {0}")]
    NoSuchEntity(String),
}

impl StsConfigError {
    pub(crate) fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            problem: problem.into(),
        }
    }
}
