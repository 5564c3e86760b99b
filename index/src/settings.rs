//! The flags of what the installation decides for all pods, which webhook, operator and issuer must agree on. Each is also an
//! environment variable: `--lock-mode` is `TOKENSCOPE_LOCK_MODE`.

use clap::ArgAction::Set;
use tokenscope_core::lock::{Lock, LockMode};
use tokenscope_core::sidecar::SidecarSettings;
use tokenscope_core::{Audience, Enforcement, InstanceMetadata, Region, Settings, TokenExpiration};

/// The flags behind [`Settings`], which decide for all pods. A bad value is a usage error.
#[derive(Clone, Debug, clap::Args)]
pub struct SettingsArgs {
    /// Whether eks.amazonaws.com/ annotations count, with the volume and path of EKS
    #[arg(long, env = "TOKENSCOPE_EKS_COMPATIBLE", value_name = "BOOL", default_value_t = false, action = Set)]
    pub eks_compatible: bool,

    /// Require a policy that allows it for each role
    #[arg(long, env = "TOKENSCOPE_POLICY_REQUIRED", value_name = "BOOL", default_value_t = true, action = Set)]
    pub policy_required: bool,

    /// What happens to a denied pod where its namespace doesn't say: enforce, warn or audit
    #[arg(long, env = "TOKENSCOPE_ENFORCEMENT", value_name = "MODE", default_value = "enforce")]
    pub enforcement: Enforcement,

    /// A token's audience where neither workload nor policy names one
    #[arg(
        long,
        env = "TOKENSCOPE_DEFAULT_AUDIENCE",
        value_name = "AUDIENCE",
        default_value = "sts.amazonaws.com"
    )]
    pub default_audience: Audience,

    /// A token's lifetime in seconds where neither workload nor policy says [default: 3600, EKS-compatible 86400]
    #[arg(long, env = "TOKENSCOPE_DEFAULT_TOKEN_EXPIRATION", value_name = "SECONDS")]
    pub default_token_expiration: Option<TokenExpiration>,

    /// The AWS region for workloads whose policy names none [default: none is set]
    #[arg(long, env = "TOKENSCOPE_DEFAULT_REGION", value_name = "REGION")]
    pub default_region: Option<Region>,

    /// Whether workloads use the STS endpoint of their region [default: true, EKS-compatible false]
    #[arg(long, env = "TOKENSCOPE_STS_REGIONAL_ENDPOINTS", value_name = "BOOL")]
    pub sts_regional_endpoints: Option<bool>,

    /// What happens to a pod that holds a token of a locked audience which no policy grants it: off, audit, warn or deny
    #[arg(long, env = "TOKENSCOPE_LOCK_MODE", value_name = "MODE", default_value = "audit")]
    pub lock_mode: LockMode,

    /// An audience that is locked everywhere; may be given more than once [default: the default audience]
    #[arg(
        long,
        env = "TOKENSCOPE_LOCK_AUDIENCE",
        value_name = "AUDIENCE",
        value_delimiter = ','
    )]
    pub lock_audience: Vec<Audience>,

    /// Whether the audiences that policies allow are locked too, a namespaced policy's in its own namespace
    #[arg(long, env = "TOKENSCOPE_LOCK_POLICY_AUDIENCES", value_name = "BOOL", default_value_t = false, action = Set)]
    pub lock_policy_audiences: bool,

    /// A CSI driver whose inline volumes the API server's policies hold back like a locked token; may be given more than once
    #[arg(long, env = "TOKENSCOPE_LOCK_CSI_DRIVER", value_name = "NAME", value_delimiter = ',')]
    pub lock_csi_driver: Vec<String>,

    /// A namespace that the lock leaves alone; may be given more than once, and "" is none
    #[arg(
        long,
        env = "TOKENSCOPE_LOCK_EXEMPT_NAMESPACE",
        value_name = "NAMESPACE",
        value_delimiter = ',',
        default_value = "kube-system"
    )]
    pub lock_exempt_namespace: Vec<String>,

    /// A namespace whose pods are never refused; may be given more than once, and "" is none
    #[arg(
        long,
        env = "TOKENSCOPE_NEVER_DENY_NAMESPACE",
        value_name = "NAMESPACE",
        value_delimiter = ',',
        default_value = "kube-system"
    )]
    pub never_deny_namespace: Vec<String>,

    /// Which granted containers are kept from the node's metadata service: always, with-region (where the policy sets one) or never
    #[arg(
        long,
        env = "TOKENSCOPE_DISABLE_INSTANCE_METADATA",
        value_name = "WHEN",
        default_value = "with-region"
    )]
    pub disable_instance_metadata: InstanceMetadata,

    /// The image of the sidecar that keeps tokens from SPIFFE
    #[arg(long, env = "TOKENSCOPE_SIDECAR_IMAGE", value_name = "IMAGE", default_value_t = SidecarSettings::default().image.into(), value_parser = image)]
    pub sidecar_image: String,

    /// The image of the sidecar that serves credentials, for policies with delivery.type Endpoint
    #[arg(long, env = "TOKENSCOPE_ENDPOINT_SIDECAR_IMAGE", value_name = "IMAGE", default_value_t = SidecarSettings::default().endpoint_image.into(), value_parser = image)]
    pub endpoint_sidecar_image: String,
}

impl SettingsArgs {
    /// The settings, with the defaults of EKS-compatible mode where that is on.
    pub fn settings(&self) -> Settings {
        let defaults = if self.eks_compatible {
            Settings::eks_compatible()
        } else {
            Settings::default()
        };
        Settings {
            eks_compatible: self.eks_compatible,
            policy_required: self.policy_required,
            enforcement: self.enforcement,
            default_audience: self.default_audience.clone(),
            default_token_expiration: self
                .default_token_expiration
                .unwrap_or(defaults.default_token_expiration),
            default_region: self.default_region.clone(),
            sts_regional_endpoints: self.sts_regional_endpoints.unwrap_or(defaults.sts_regional_endpoints),
            sidecar: SidecarSettings {
                image: self.sidecar_image.as_str().into(),
                endpoint_image: self.endpoint_sidecar_image.as_str().into(),
                ..defaults.sidecar
            },
            lock: Lock {
                mode: self.lock_mode,
                audiences: if self.lock_audience.is_empty() {
                    vec![self.default_audience.clone()]
                } else {
                    self.lock_audience.clone()
                },
                policy_audiences: self.lock_policy_audiences,
                csi_drivers: named(&self.lock_csi_driver),
                exempt_namespaces: named(&self.lock_exempt_namespace),
            },
            instance_metadata: self.disable_instance_metadata,
            issuer: defaults.issuer,
            // What the process's own token says; it is read when the process starts.
            api_audiences: Vec::new(),
            pod_identity: defaults.pod_identity,
            never_denied: named(&self.never_deny_namespace),
        }
    }
}

/// The names that were given; an empty one stands for none.
fn named(names: &[String]) -> Vec<Box<str>> {
    let given = names.iter().filter(|name| !name.is_empty());
    given.map(|name| name.as_str().into()).collect()
}

/// Something that can be an image's name; only a registry knows more.
pub fn image(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("it should be the name of an image, such as registry.example.com/tokenscope-sidecar:1");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct TestArguments {
        #[command(flatten)]
        settings: SettingsArgs,
    }

    fn settings(flags: &[&str]) -> Settings {
        let all = ["process"].iter().chain(flags);
        TestArguments::try_parse_from(all).unwrap().settings.settings()
    }

    fn usage_error(flag: &str) -> String {
        TestArguments::try_parse_from(["process", flag])
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn without_flags_the_settings_are_the_defaults() {
        assert_eq!(settings(&[]), Settings::default());
        assert_eq!(settings(&["--eks-compatible=true"]), Settings::eks_compatible());
    }

    #[test]
    fn a_flag_beats_the_defaults_of_either_mode() {
        let flags = [
            "--eks-compatible=true",
            "--default-token-expiration=900",
            "--sts-regional-endpoints=true",
            "--policy-required",
            "false",
        ];
        let settings = settings(&flags);
        assert_eq!(settings.default_token_expiration.seconds(), 900);
        assert!(settings.sts_regional_endpoints);
        assert!(!settings.policy_required);
    }

    #[test]
    fn a_bad_value_is_a_usage_error_that_names_the_flag() {
        for flag in [
            "--enforcement=strict",
            "--default-token-expiration=5",
            "--default-region=Nowhere!",
            "--sidecar-image=a b",
        ] {
            let (name, value) = flag.split_once('=').unwrap();
            let error = usage_error(flag);
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
