//! The names of what the webhook adds to a pod.

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

/// The name of the init container that writes the containers' AWS config files.
pub const CONFIG_WRITER: &str = "tokenscope-aws-config";

/// The volume that holds a pod's first AWS config file; each further one has a hash behind the name.
pub const CONFIG_VOLUME: &str = "tokenscope-aws-config";

/// True if an init container of this name is one that the webhook adds.
pub fn is_added_container(name: &str) -> bool {
    [SIDECAR, CONFIG_WRITER].contains(&name)
}

/// True if a volume of this name holds an AWS config file that the webhook adds.
pub fn is_config_volume(name: &str) -> bool {
    is_token_volume(name, CONFIG_VOLUME)
}

/// True if a volume of this name is one that the webhook adds for the sidecar alone.
pub fn is_sidecar_volume(name: &str) -> bool {
    [SOCKET_VOLUME, SUBJECT_TOKEN_VOLUME].contains(&name)
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
