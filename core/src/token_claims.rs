//! The claims of a token that tokenscope's issuer signs, by the policy that grants it.

use std::sync::Arc;

use crate::issuer_subject::{ClusterName, issuer_subject};
use crate::{Algorithm, Claims, ClaimsError, FilledClaims, Policy, PolicyName, SubjectFormat, Variables};

/// The claims of a token, by the policy that grants it. A clone shares the texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenClaims {
    /// The policy.
    pub policy: PolicyName,
    /// The UID of the policy's object, where it is known.
    pub policy_uid: Option<Arc<str>>,
    /// The format of the subject.
    pub subject_format: SubjectFormat,
    /// The algorithm of the signature.
    pub algorithm: Algorithm,
    /// The other claims, as templates.
    pub claims: Arc<Claims>,
}

impl TokenClaims {
    /// The claims that a policy demands of the tokens that it grants.
    pub fn of(policy: &Policy) -> Self {
        Self {
            policy: policy.name.clone(),
            policy_uid: policy.uid.clone(),
            subject_format: policy.token.subject_format,
            algorithm: policy.token.algorithm,
            claims: policy.claims.clone(),
        }
    }

    /// The token's subject for a workload; `cluster` tells clusters apart that have one issuer.
    pub fn subject(&self, namespace: &str, service_account: &str, cluster: Option<&ClusterName>) -> String {
        issuer_subject(self.subject_format, &self.policy, namespace, service_account, cluster)
    }

    /// The claims for a workload, or why there is no token: nothing is cut and nothing left out.
    pub fn fill(&self, facts: &impl Variables) -> Result<FilledClaims, ClaimsError> {
        self.claims.fill(facts)
    }
}
