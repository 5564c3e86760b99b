//! The reasons of the Events that the webhook, the operator and the issuer write.

/// The reason of an Event: a word to search for, `kubectl get events --field-selector reason=…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventReason {
    /// A pod was refused, or not given what it asked for; on the object that creates it.
    CredentialsRefused,
    /// A running pod asked tokenscope's issuer for a token and got none; on the pod.
    TokenRefused,
    /// A signing key of tokenscope's issuer was taken out of its Secret by hand, and was put back; on the Secret.
    KeyRestored,
    /// A pod runs without the credentials that it should have; on the pod and the object that created it.
    CredentialsMissed,
    /// The status of a policy can't be written; on the policy.
    StatusNotWritten,
    /// There is no webhook configuration, so that no pod is reviewed.
    WebhookConfigurationMissing,
}

impl EventReason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::CredentialsRefused,
        Self::TokenRefused,
        Self::KeyRestored,
        Self::CredentialsMissed,
        Self::StatusNotWritten,
        Self::WebhookConfigurationMissing,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CredentialsRefused => "CredentialsRefused",
            Self::TokenRefused => "TokenRefused",
            Self::KeyRestored => "KeyRestored",
            Self::CredentialsMissed => "CredentialsMissed",
            Self::StatusNotWritten => "StatusNotWritten",
            Self::WebhookConfigurationMissing => "WebhookConfigurationMissing",
        }
    }
}
