//! Short texts that tell one thing from another: decisions in records, audiences in names of volumes.
//!
//! Both are kept where other versions of the programs read them, so the function is FNV-1a of 64 bits, as it is published, and the
//! tests pin what comes out. They protect nothing. See docs/adr/0008.

use crate::{Audience, Grant, Hint, Region, SessionName, Spiffe, SpiffeId, TokenSource, TrustDomain};
use fnv::FnvHasher;
use std::{fmt, hash::Hasher, str::FromStr};

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

impl Audience {
    /// The part of a volume's name that tells its token from others': 16 hexadecimal digits.
    pub fn short_hash(&self) -> String {
        let mut hash = FnvHasher::default();
        hash.write(self.as_str().as_bytes());
        format!("{:016x}", hash.finish())
    }
}

/// A short text that tells lists of texts apart: 16 hexadecimal digits.
pub fn hash_of_texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = TextHasher::default();
    texts.into_iter().for_each(|text| hash.write(text));
    format!("{:016x}", hash.finish())
}

/// The hash of several texts.
#[derive(Default)]
struct TextHasher(FnvHasher);

impl TextHasher {
    fn write(&mut self, text: &str) {
        self.0.write(text.as_bytes());
        // This byte is in no UTF-8, so it ends the text.
        self.0.write(&[0xff]);
    }

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
        self.write(match &grant.session_name {
            None => "",
            Some(SessionName::PodName) => "${pod.name}",
            Some(SessionName::Text(text)) => text,
        });
        // Only then, so that the text for all other grants is that of versions without config files.
        if let Some(file) = &grant.config_file {
            self.write(&file.text("", Some("${pod.name}")));
        }
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

    fn finish(&self) -> u64 {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PolicyName, TokenExpiration};

    fn grant() -> Grant {
        Grant {
            role: "arn:aws:iam::111122223333:role/orders".parse().unwrap(),
            audience: Audience::sts(),
            source: TokenSource::ServiceAccount,
            expiration: TokenExpiration::HOUR,
            claims: None,
            spiffe: Spiffe::default(),
            region: Some("eu-central-1".parse().unwrap()),
            sts_regional_endpoints: true,
            disables_instance_metadata: true,
            session_name: Some(SessionName::PodName),
            config_file: None,
            policy: Some(PolicyName::namespaced("shop", "orders")),
        }
    }

    fn text(grant: &Grant) -> String {
        Fingerprint::of("orders", [("app", grant)]).to_string()
    }

    /// Another text for the same grant needs another version: otherwise every running pod counts as outdated after an upgrade.
    #[test]
    fn the_fingerprint_of_a_grant_is_the_same_in_every_build_of_this_version() {
        let spiffe = Grant {
            source: TokenSource::Spiffe,
            spiffe: Spiffe {
                id: Some("spiffe://example.org/ns/shop/sa/orders".parse().unwrap()),
                hint: Some("aws".parse().unwrap()),
                trust_domain: Some("example.org".parse().unwrap()),
                x509_svid: true,
                jwt_bundle: true,
            },
            region: None,
            sts_regional_endpoints: false,
            disables_instance_metadata: false,
            session_name: Some(SessionName::Text("orders".into())),
            ..grant()
        };
        assert_eq!(text(&grant()), "v2-0660ebd24d843ded");
        assert_eq!(text(&spiffe), "v2-9eb198396ba63b3c");
        assert_eq!(
            Fingerprint::of("default", []).to_string(),
            "v2-98d48645e9aec0b3",
            "a pod without any grant"
        );
    }

    /// Another name for the same audience gives a copy of a running pod a volume more. The first two are the published values of
    /// FNV-1a for these texts.
    #[test]
    fn the_hash_in_a_volumes_name_is_the_same_in_every_version() {
        for (audience, hash) in [
            ("a", "af63dc4c8601ec8c"),
            ("foobar", "85944171f73967e8"),
            ("sts.amazonaws.com", "152c9218263a3d03"),
            ("sts.amazonaws.com.cn", "56e5b6913815f616"),
            ("https://audience.example.org/?x=1", "35443756c080d9b4"),
        ] {
            assert_eq!(audience.parse::<Audience>().unwrap().short_hash(), hash, "{audience}");
        }
    }

    #[test]
    fn whatever_changes_the_pod_changes_the_fingerprint() {
        let other = |change: fn(&mut Grant)| {
            let mut grant = grant();
            change(&mut grant);
            text(&grant)
        };
        let texts = [
            text(&grant()),
            other(|grant| grant.role = "arn:aws:iam::111122223333:role/carts".parse().unwrap()),
            other(|grant| grant.audience = "other".parse().unwrap()),
            other(|grant| grant.source = TokenSource::Spiffe),
            other(|grant| grant.expiration = TokenExpiration::DAY),
            other(|grant| grant.region = None),
            other(|grant| grant.sts_regional_endpoints = false),
            other(|grant| grant.disables_instance_metadata = false),
            other(|grant| grant.session_name = None),
            Fingerprint::of("carts", [("app", &grant())]).to_string(),
            Fingerprint::of("orders", [("web", &grant())]).to_string(),
        ];
        for (index, text) in texts.iter().enumerate() {
            assert!(!texts[..index].contains(text), "{index}");
        }
        assert_eq!(other(|grant| grant.policy = None), text(&grant()));
    }

    #[test]
    fn only_a_text_of_this_version_is_a_fingerprint() {
        let fingerprint = Fingerprint::of("orders", [("app", &grant())]);
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        for other in [
            "",
            "0",
            "0011223344556677",
            "v1-0011223344556677",
            "v3-0011223344556677",
            "v2-11223344556677",
            "v2-+011223344556677",
            "v2-001122334455667A",
            "v2-00112233445566778",
        ] {
            assert_eq!(other.parse::<Fingerprint>(), Err(OtherVersion), "{other}");
        }
    }

    #[test]
    fn who_gets_which_role_does_not_depend_on_the_order() {
        let both = Fingerprint::of_roles([("app", "a"), ("web", "b")]);
        assert_eq!(both, Fingerprint::of_roles([("web", "b"), ("app", "a")]));
        assert_ne!(both, Fingerprint::of_roles([("app", "b"), ("web", "a")]));
    }
}
