//! The endpoints of STS in all partitions.
//!
//! The data is that of botocore 1.44.8, `partitions.json`, and the rules those of `sts/2011-06-15/endpoint-rule-set-1.json`. A test
//! in `e2e` compares each region of each partition with botocore's own resolution.

use tokenscope_core::{Region, partition_of_region};

/// A partition: accounts and regions that have nothing to do with those of another.
struct Partition {
    name: &'static str,
    /// The end of regional host names.
    dns_suffix: &'static str,
    /// The end of those for IPv4 and IPv6.
    dual_stack_suffix: &'static str,
    /// The part before the region in the host name of the FIPS endpoint.
    fips_prefix: &'static str,
}

/// All of them support FIPS and dual stack.
const PARTITIONS: [Partition; 8] = [
    Partition::new("aws", "amazonaws.com", "api.aws"),
    Partition::new("aws-cn", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    // The regional endpoints of GovCloud are FIPS endpoints, but for dual stack.
    Partition {
        fips_prefix: "sts",
        ..Partition::new("aws-us-gov", "amazonaws.com", "api.aws")
    },
    Partition::new("aws-eusc", "amazonaws.eu", "api.amazonwebservices.eu"),
    Partition::new("aws-iso", "c2s.ic.gov", "api.aws.ic.gov"),
    Partition::new("aws-iso-b", "sc2s.sgov.gov", "api.aws.scloud"),
    Partition::new("aws-iso-e", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    Partition::new("aws-iso-f", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
];

impl Partition {
    const fn new(name: &'static str, dns_suffix: &'static str, dual_stack_suffix: &'static str) -> Self {
        Self {
            name,
            dns_suffix,
            dual_stack_suffix,
            fips_prefix: "sts-fips",
        }
    }
}

/// The kind of regional endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointFlavor {
    /// With cryptography validated for FIPS 140 (`AWS_USE_FIPS_ENDPOINT`).
    pub fips: bool,
    /// Over IPv4 and IPv6 (`AWS_USE_DUALSTACK_ENDPOINT`).
    pub dual_stack: bool,
}

/// An endpoint of STS, and the region that signatures for it name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StsEndpoint {
    https: bool,
    /// Host, and port unless it is the scheme's own.
    authority: Box<str>,
    signing_region: Box<str>,
    regional: bool,
}

/// The reason why there is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// A region that AWS doesn't have.
    #[error("{0} is not a region of AWS, so its endpoint must be given as a URL")]
    UnknownRegion(Box<str>),
    /// Not a URL with nothing but scheme, host and port.
    #[error("{0:?} is not http:// or https:// with a host and nothing behind it")]
    Url(Box<str>),
}

impl StsEndpoint {
    /// The endpoint of a region.
    pub fn regional(region: &Region, flavor: EndpointFlavor) -> Result<Self, InvalidEndpoint> {
        let region = region.as_str();
        let name = partition_of_region(region);
        let partition = PARTITIONS.iter().find(|partition| Some(partition.name) == name);
        let partition = partition.ok_or_else(|| InvalidEndpoint::UnknownRegion(region.into()))?;
        let (prefix, suffix) = match (flavor.fips, flavor.dual_stack) {
            (false, false) => ("sts", partition.dns_suffix),
            (true, false) => (partition.fips_prefix, partition.dns_suffix),
            (false, true) => ("sts", partition.dual_stack_suffix),
            (true, true) => ("sts-fips", partition.dual_stack_suffix),
        };
        Ok(Self {
            https: true,
            authority: format!("{prefix}.{region}.{suffix}").into(),
            signing_region: region.into(),
            regional: true,
        })
    }

    /// The global endpoint, which is that of partition `aws` and signs for us-east-1. [`crate::GetWebIdentityToken`] isn't there.
    pub fn global() -> Self {
        Self {
            https: true,
            authority: "sts.amazonaws.com".into(),
            signing_region: "us-east-1".into(),
            regional: false,
        }
    }

    /// An endpoint of one's own (`AWS_ENDPOINT_URL_STS`), which gets signatures for `region`.
    pub fn custom(url: &str, region: &Region) -> Result<Self, InvalidEndpoint> {
        let invalid = || InvalidEndpoint::Url(url.chars().take(200).collect::<String>().into());
        let (https, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(invalid()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = split_port(authority);
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b);
        let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
        if host.is_empty() || authority.len() > 255 || !authority.bytes().all(allowed) || !port.is_none_or(is_port) {
            return Err(invalid());
        }
        let default_port = if https { "443" } else { "80" };
        // Clients leave the scheme's own port out of the Host header, which is signed.
        let authority = if port == Some(default_port) { host } else { authority };
        Ok(Self {
            https,
            authority: authority.into(),
            signing_region: region.as_str().into(),
            regional: authority != "sts.amazonaws.com",
        })
    }

    /// True if it is to be asked over TLS.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The Host header: host, and port where it isn't the scheme's own.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host alone; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        split_port(&self.authority).0.trim_matches(['[', ']'])
    }

    /// The port.
    pub fn port(&self) -> u16 {
        let port = split_port(&self.authority).1.and_then(|port| port.parse().ok());
        port.unwrap_or(if self.https { 443 } else { 80 })
    }

    /// The region that signatures name.
    pub fn signing_region(&self) -> &str {
        &self.signing_region
    }

    /// False for the global endpoint, where some operations are not available.
    pub fn is_regional(&self) -> bool {
        self.regional
    }
}

/// Host and port; the colons of an IPv6 address in brackets are none.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(region: &str, fips: bool, dual_stack: bool) -> String {
        let flavor = EndpointFlavor { fips, dual_stack };
        let endpoint = StsEndpoint::regional(&region.parse().unwrap(), flavor).unwrap();
        assert_eq!((endpoint.signing_region(), endpoint.port()), (region, 443));
        endpoint.authority().to_owned()
    }

    #[test]
    fn each_partition_has_its_own_names() {
        for (region, plain, fips, dual_stack) in [
            (
                "eu-central-1",
                "sts.eu-central-1.amazonaws.com",
                "sts-fips.eu-central-1.amazonaws.com",
                "sts.eu-central-1.api.aws",
            ),
            (
                "us-gov-west-1",
                "sts.us-gov-west-1.amazonaws.com",
                "sts.us-gov-west-1.amazonaws.com",
                "sts.us-gov-west-1.api.aws",
            ),
            (
                "eusc-de-east-1",
                "sts.eusc-de-east-1.amazonaws.eu",
                "sts-fips.eusc-de-east-1.amazonaws.eu",
                "sts.eusc-de-east-1.api.amazonwebservices.eu",
            ),
        ] {
            assert_eq!(host(region, false, false), plain);
            assert_eq!(host(region, true, false), fips);
            assert_eq!(host(region, false, true), dual_stack);
        }
        assert_eq!(host("us-gov-west-1", true, true), "sts-fips.us-gov-west-1.api.aws");
        let unknown = StsEndpoint::regional(&"garage".parse().unwrap(), EndpointFlavor::default());
        assert_eq!(unknown, Err(InvalidEndpoint::UnknownRegion("garage".into())));
    }

    #[test]
    fn an_endpoint_of_ones_own_is_scheme_host_and_port() {
        let region: Region = "eu-central-1".parse().unwrap();
        for (url, authority, host, port) in [
            ("http://127.0.0.1:4566", "127.0.0.1:4566", "127.0.0.1", 4566),
            ("http://[::1]:4566/", "[::1]:4566", "::1", 4566),
            ("https://sts.test:443", "sts.test", "sts.test", 443),
            ("http://sts.test", "sts.test", "sts.test", 80),
        ] {
            let endpoint = StsEndpoint::custom(url, &region).unwrap();
            assert_eq!(
                (endpoint.authority(), endpoint.host(), endpoint.port()),
                (authority, host, port),
                "{url}"
            );
        }
        for url in [
            "sts.test",
            "https://",
            "https://a@sts.test",
            "https://sts.test/x",
            "https://sts.test?x",
            "http://a:0",
            "http://a:99999",
            "http://a b",
        ] {
            assert!(StsEndpoint::custom(url, &region).is_err(), "{url}");
        }
        assert!(
            !StsEndpoint::custom("https://sts.amazonaws.com", &region)
                .unwrap()
                .is_regional()
        );
    }
}
