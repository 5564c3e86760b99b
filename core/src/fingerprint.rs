//! The short text that tells one decision from another in the records of pods, which other versions of the programs read. See
//! docs/adr/0008.

use std::fmt;
use std::str::FromStr;

use crate::outbound::{OutboundToken, OutboundValue, aws_texts};
use crate::text_hash::TextHasher;
use crate::{
    Associated, Association, Grant, GrantedEndpoint, Hint, Region, SessionName, Spiffe, SpiffeId, TokenSource,
    TrustDomain,
};

/// The version that this program writes: of the function, and of what goes into it.
const VERSION: &str = "v2";

/// A number that changes whenever a decision would change the pod. `Display` is the text in a record: `v2-` and 16
/// hexadecimal digits.
///
/// Only fingerprints of one version can be compared, so a text of any other is none. Version 1 is 16 digits without a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// The fingerprint of what the containers of a pod of this service account get: their names and grants, in the pod's order.
    pub fn of<'a>(service_account: &str, grants: impl IntoIterator<Item = (&'a str, &'a Grant)>) -> Self {
        let mut hash = TextHasher::default();
        hash.write(service_account);
        for (container, grant) in grants {
            hash.write(container);
            hash.write_grant(grant);
        }
        Self(hash.finish())
    }

    /// The fingerprint of what the containers of a pod get whose role an association of EKS Pod Identity decides. `name` gives the
    /// name of a container by its index.
    pub fn of_associated<'a>(service_account: &str, associated: &Associated, name: impl Fn(usize) -> &'a str) -> Self {
        let agent = &associated.agent;
        let mut hash = TextHasher::default();
        hash.write(service_account);
        hash.write("EKS Pod Identity");
        hash.write(&associated.expiration.seconds().to_string());
        for text in [&agent.full_uri, &agent.mount_path, &agent.volume, &agent.token_path] {
            hash.write(text);
        }
        for container in &associated.containers {
            hash.write(name(container.container));
            hash.write_association(&container.association);
        }
        Self(hash.finish())
    }

    /// The fingerprint of nothing but who gets which role: containers and their roles, in the pod's order. A record names both, so
    /// this one can be made of every record, whatever its version.
    pub fn of_roles<'a>(roles: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut roles: Vec<_> = roles.into_iter().collect();
        roles.sort_unstable();
        let mut hash = TextHasher::default();
        for (container, role) in roles {
            hash.write(container);
            hash.write(role);
        }
        Self(hash.finish())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}-{:016x}", self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = OtherVersion;

    /// Reads back what `Display` wrote.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix(VERSION).and_then(|rest| rest.strip_prefix('-'));
        let digest = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        digest
            .map(Self)
            .filter(|read| read.to_string() == text)
            .ok_or(OtherVersion)
    }
}

/// A text is no fingerprint of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no fingerprint of version {VERSION}")]
pub struct OtherVersion;

/// The name as a policy writes it.
fn session_name(name: &SessionName) -> &str {
    match name {
        SessionName::PodName => "${pod.name}",
        SessionName::Text(text) => text,
    }
}

/// The text that is hashed for each part of a decision.
impl TextHasher {
    fn write_grant(&mut self, grant: &Grant) {
        self.write(grant.role.as_str());
        self.write(grant.audience.as_str());
        self.write(grant.source.as_str());
        match grant.source {
            TokenSource::Spiffe => self.write_spiffe(&grant.spiffe),
            TokenSource::ServiceAccount | TokenSource::Issuer => {
                self.write(&grant.expiration.seconds().to_string());
            }
        }
        self.write(grant.region.as_ref().map_or("", Region::as_str));
        self.write(if grant.sts_regional_endpoints { "regional" } else { "" });
        self.write(if grant.disables_instance_metadata {
            "no instance metadata"
        } else {
            ""
        });
        self.write(grant.session_name.as_ref().map_or("", session_name));
        // Only then, so that the text for all other grants is that of versions without config files.
        if let Some(file) = &grant.config_file {
            self.write(&file.text("", Some("${pod.name}")));
        }
        // Likewise.
        if let Some(endpoint) = &grant.endpoint {
            self.write_endpoint(endpoint);
        }
        for token in grant.outbound.iter() {
            self.write_outbound(token);
        }
    }

    /// Each text bears the name of what it is, so that no two lists come out as one.
    fn write_endpoint(&mut self, endpoint: &GrantedEndpoint) {
        let GrantedEndpoint {
            regions,
            chain,
            duration,
            policy,
            gives_tokens,
        } = endpoint;
        self.write("endpoint");
        for region in regions {
            self.write_named("region", region.as_str());
        }
        for hop in chain {
            self.write_named("role", hop.role.as_str());
            if let Some(id) = &hop.external_id {
                self.write_named("external id", id.as_str());
            }
            if let Some(name) = &hop.session_name {
                self.write_named("session name", session_name(name));
            }
        }
        if let Some(duration) = duration {
            self.write_named("seconds", &duration.seconds().to_string());
        }
        if let Some(document) = &policy.inline {
            self.write_named("session policy", document.as_str());
        }
        for arn in &policy.arns {
            self.write_named("session policy's ARN", arn.as_str());
        }
        // Only then, so that the text for all others is that of versions that give none.
        if *gives_tokens {
            self.write("gives tokens");
        }
    }

    fn write_named(&mut self, name: &str, value: &str) {
        self.write(name);
        self.write(value);
    }

    fn write_outbound(&mut self, token: &OutboundToken) {
        // The text of a config file begins otherwise.
        self.write("outbound");
        self.write(token.name.as_str());
        self.write(token.audience.as_str());
        self.write(token.source.signer().as_str());
        self.write(&token.expiration.seconds().to_string());
        // Only then, so that the text for all other tokens is that of versions without it.
        if let Some(aws) = token.aws() {
            for text in aws_texts(aws) {
                self.write(text);
            }
        }
        for variable in &token.variables {
            self.write(variable.name.as_str());
            match &variable.value {
                OutboundValue::File => self.write("file"),
                OutboundValue::Audience => self.write("audience"),
                OutboundValue::Text(text) => {
                    self.write("text");
                    self.write(text);
                }
            }
        }
    }

    /// The lifetime is the pod's, and not the container's.
    fn write_association(&mut self, association: &Association) {
        self.write(association.audience.as_str());
        self.write(association.region.as_ref().map_or("", Region::as_str));
        self.write(if association.sts_regional_endpoints {
            "regional"
        } else {
            ""
        });
        self.write(if association.disables_instance_metadata {
            "no instance metadata"
        } else {
            ""
        });
    }

    fn write_spiffe(&mut self, spiffe: &Spiffe) {
        let Spiffe {
            id,
            hint,
            trust_domain,
            x509_svid,
            jwt_bundle,
        } = spiffe;
        self.write(id.as_ref().map_or("", SpiffeId::as_str));
        self.write(hint.as_ref().map_or("", Hint::as_str));
        self.write(trust_domain.as_ref().map_or("", TrustDomain::as_str));
        self.write(if *x509_svid { "X.509-SVID" } else { "" });
        self.write(if *jwt_bundle { "JWT bundle" } else { "" });
    }
}

#[cfg(test)]
mod tests;
