//! The audiences that no policy gives a pod as a token for a third party.

use crate::outbound::OutboundToken;
use crate::{Audience, Policy, Settings};

/// A token for a third party that no policy may give. `Display` names the field and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.outboundTokens[{index}].audience: {audience} {why}")]
pub struct RefusedAudience {
    /// The token's index in the policy.
    pub index: usize,
    /// Its audience.
    pub audience: Audience,
    /// The party that the audience is of.
    pub why: AudienceOwner,
}

/// The party that an audience is of, where that is no third one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AudienceOwner {
    /// AWS STS.
    #[error(
        "is one that AWS STS takes: a role, which spec.roles gives, is what such a token is for; name another party"
    )]
    Aws,
    /// The roles of the same policy.
    #[error("is one of spec.audiences, whose tokens are for the policy's roles: name another party")]
    Roles,
    /// The lock.
    #[error("is locked (lock.audiences), and pods get its tokens with a role only: name another party")]
    Lock,
    /// The API server.
    #[error(
        "is that of the API server itself, and a token for it is worth all rights of the service account: name another party"
    )]
    ApiServer,
    /// tokenscope's own issuer.
    #[error("is the URL of tokenscope's own issuer, whose tokens no workload gets: name another party")]
    Issuer,
}

impl Settings {
    /// The first of a policy's tokens for third parties that is for none. Such a policy grants nothing.
    pub fn refused_outbound(&self, policy: &Policy) -> Option<RefusedAudience> {
        let owner = |token: &OutboundToken| owner(&token.audience, policy, self);
        let mut tokens = policy.outbound.iter().enumerate();
        tokens.find_map(|(index, token)| {
            Some(RefusedAudience {
                index,
                audience: token.audience.clone(),
                why: owner(token)?,
            })
        })
    }
}

fn owner(audience: &Audience, policy: &Policy, settings: &Settings) -> Option<AudienceOwner> {
    if settings.is_exchange_audience(audience.as_str()) {
        return Some(AudienceOwner::Issuer);
    }
    if is_of_aws_sts(audience.as_str()) || settings.default_audience == *audience {
        return Some(AudienceOwner::Aws);
    }
    if is_of_api_server(audience.as_str()) || settings.api_audiences.iter().any(|own| **own == *audience.as_str()) {
        return Some(AudienceOwner::ApiServer);
    }
    if settings.lock.locks(audience.as_str()) {
        return Some(AudienceOwner::Lock);
    }
    let mut of_roles = policy.audiences.allowed.iter().chain(&policy.audiences.default);
    of_roles.any(|own| own == audience).then_some(AudienceOwner::Roles)
}

/// True if it is a name of AWS STS in any partition or region, however it is written (AWS General Reference, "AWS STS endpoints"):
/// sts.amazonaws.com, sts.eu-central-1.amazonaws.com, sts-fips.us-east-1.amazonaws.com, sts.us-east-1.api.aws.
fn is_of_aws_sts(audience: &str) -> bool {
    let audience = audience.to_ascii_lowercase();
    let host = audience.split_once("://").map_or(&*audience, |(_, rest)| rest);
    let host = host.split(['/', ':', '?', '#']).next().unwrap_or_default();
    let host = host.strip_suffix('.').unwrap_or(host);
    let ends = [
        ".amazonaws.",
        ".amazonwebservices.",
        ".api.aws",
        ".ic.gov",
        ".sgov.gov",
        ".adc-e.uk",
    ];
    let is_sts = host.starts_with("sts.") || host.starts_with("sts-fips.");
    is_sts && ends.iter().any(|end| host.contains(end))
}

/// True if it is a name that clusters give their API server: kubernetes.default.svc, with or without what stands around it
/// (kube-apiserver, default of --api-audiences: the service account issuer, which kubeadm calls so).
fn is_of_api_server(audience: &str) -> bool {
    let audience = audience.to_ascii_lowercase();
    let host = audience.split_once("://").map_or(&*audience, |(_, rest)| rest);
    let host = host.split(['/', ':']).next().unwrap_or_default();
    ["kubernetes", "kubernetes.default"].contains(&host) || host.starts_with("kubernetes.default.svc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_aws_sts_are_known_however_they_are_written() {
        for audience in [
            "sts.amazonaws.com",
            "STS.amazonaws.com",
            "sts.amazonaws.com.cn",
            "https://sts.amazonaws.com/",
            "sts.eu-central-1.amazonaws.com",
            "sts-fips.us-east-1.amazonaws.com",
            "https://sts.eusc-de-east-1.amazonaws.eu",
            "sts.us-east-1.api.aws",
            "sts.us-iso-east-1.c2s.ic.gov",
            "sts.eusc-de-east-1.api.amazonwebservices.eu",
            "sts.amazonaws.com.",
            "sts.amazonaws.com:443",
        ] {
            assert!(is_of_aws_sts(audience), "{audience}");
        }
        for audience in [
            "https://api.anthropic.com",
            "sts.example.com",
            "amazonaws.com",
            "x/sts.amazonaws.com",
        ] {
            assert!(!is_of_aws_sts(audience), "{audience}");
        }
    }

    #[test]
    fn names_of_the_api_server_are_known() {
        for audience in [
            "https://kubernetes.default.svc",
            "https://kubernetes.default.svc.cluster.local",
            "kubernetes.default.svc",
            "https://kubernetes.default.svc:443/",
            "kubernetes",
        ] {
            assert!(is_of_api_server(audience), "{audience}");
        }
        assert!(!is_of_api_server("https://kubernetes.example.com"));
    }
}
