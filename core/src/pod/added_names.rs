//! The names of what the webhook adds to a pod.

use crate::hash_of_texts;
use crate::outbound::OutboundToken;

/// The name of the container that keeps a pod's tokens where the cluster doesn't.
pub const SIDECAR: &str = "tokenscope-sidecar";

/// The volume that holds a pod's first token.
pub const TOKEN_VOLUME: &str = "tokenscope-aws-token";

/// The same where tokenscope follows the EKS webhook: the name is that webhook's own.
pub const EKS_TOKEN_VOLUME: &str = "aws-iam-token";

/// The volume that has the Workload API's socket, where the pod brings none.
pub const SOCKET_VOLUME: &str = "tokenscope-spiffe-workload-api";

/// The volume with the token that the sidecar exchanges at tokenscope's own issuer. Only the sidecar mounts it.
pub const SUBJECT_TOKEN_VOLUME: &str = "tokenscope-subject-token";

/// The volume with the tokens that the sidecar takes roles with, of containers that see no token. Only the sidecar mounts it.
pub const SOURCE_TOKEN_VOLUME: &str = "tokenscope-source-token";

/// The beginning of the names of the volumes with the containers' authorization tokens for the sidecar's endpoint. The hash of the
/// container's name is behind it.
pub const AUTHORIZATION_VOLUME: &str = "tokenscope-authorization";

/// The name of the init container that writes the containers' AWS config files.
pub const CONFIG_WRITER: &str = "tokenscope-aws-config";

/// The volume that holds a pod's first AWS config file; each further one has a hash behind the name.
pub const CONFIG_VOLUME: &str = "tokenscope-aws-config";

/// The beginning of the names of the volumes that hold tokens for third parties; a `-` and a hash of the token follow, and of one that AWS
/// signs for a container's role a hash of the container's name with it.
pub const OUTBOUND_VOLUME: &str = "tokenscope-outbound";

/// The name of the volume of a token for a third party that a container gets. Containers share it, but for one that AWS signs: that is
/// signed for the role of this container.
pub fn outbound_volume(token: &OutboundToken, container: &str) -> String {
    let hash = token.short_hash();
    let hash = match token.aws() {
        None => hash,
        Some(_) => hash_of_texts([&*hash, container]),
    };
    [OUTBOUND_VOLUME, "-", &hash].concat()
}

/// True if a volume of this name holds a token for a third party that the webhook adds.
pub fn is_outbound_volume(name: &str) -> bool {
    name != OUTBOUND_VOLUME && is_token_volume(name, OUTBOUND_VOLUME)
}

/// True if an init container of this name is one that the webhook adds.
pub fn is_added_container(name: &str) -> bool {
    [SIDECAR, CONFIG_WRITER].contains(&name)
}

/// True if a volume of this name holds an AWS config file that the webhook adds.
pub fn is_config_volume(name: &str) -> bool {
    is_token_volume(name, CONFIG_VOLUME)
}

/// True if a volume of this name holds a container's authorization token that the webhook adds.
pub fn is_authorization_volume(name: &str) -> bool {
    name != AUTHORIZATION_VOLUME && is_token_volume(name, AUTHORIZATION_VOLUME)
}

/// True if a volume of this name is one that the webhook adds for the sidecar alone.
pub fn is_sidecar_volume(name: &str) -> bool {
    [SOCKET_VOLUME, SUBJECT_TOKEN_VOLUME, SOURCE_TOKEN_VOLUME].contains(&name)
}

/// True if a volume of this name holds a token that the webhook adds: the name is `first`, or `first` with the hash of a
/// further token's audience ([`crate::Audience::short_hash`]) behind it.
pub fn is_token_volume(name: &str, first: &str) -> bool {
    name.strip_prefix(first).is_some_and(|rest| {
        rest.is_empty()
            || rest.strip_prefix('-').is_some_and(|hash| {
                hash.len() == 16 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_volume_is_the_first_or_has_the_hash_of_an_audience() {
        for name in ["tokenscope-aws-token", "tokenscope-aws-token-0123456789abcdef"] {
            assert!(is_token_volume(name, TOKEN_VOLUME), "{name}");
        }
        for name in [
            "aws-token",
            "tokenscope-aws-tokens",
            "tokenscope-aws-token-",
            "tokenscope-aws-token-mine",
            "tokenscope-aws-token-0123456789ABCDEF",
            "tokenscope-aws-token-0123456789abcdef0",
        ] {
            assert!(!is_token_volume(name, TOKEN_VOLUME), "{name}");
        }
    }
}
