//! URLs that AWS can reach: it reads an issuer's discovery document and keys over the public internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Domains in which no public name is: special-use names (RFC 6761, RFC 6762, RFC 7686, RFC 8375, RFC 9476, ICANN SAC113) and
/// those that clusters and private networks use.
const PRIVATE_DOMAINS: [&str; 15] = [
    "alt",
    "cluster.local",
    "corp",
    "home",
    "home.arpa",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "onion",
    "private",
    "svc",
];

/// True if the host of an https URL may be one of the public internet: a name with a public domain, or a public address.
///
/// Nobody is asked for the name or the host.
pub fn is_public_url(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(address) = host.strip_prefix('[') {
        let address = address.split(']').next().unwrap_or_default();
        return address.parse::<Ipv6Addr>().is_ok_and(is_public_v6);
    }
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => is_public_v4(address),
        Ok(IpAddr::V6(_)) => false,
        Err(_) => is_public_name(host),
    }
}

fn is_public_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let is_below = |domain: &str| {
        host.strip_suffix(domain)
            .is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    // What ends with a number is an address in another notation (URL standard, "ends in a number").
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
    host.contains('.')
        && host.split('.').all(|label| !label.is_empty())
        && !is_number
        && !PRIVATE_DOMAINS.iter().any(|domain| is_below(domain))
}

/// The IANA IPv4 special-purpose address registry, as far as it is not globally reachable.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_benchmark = a == 198 && (18..20).contains(&b);
    let is_protocol = a == 192 && b == 0 && c == 0;
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        || is_shared
        || is_benchmark
        || is_protocol)
}

/// Global unicast alone, without documentation and what maps other addresses.
fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    let [first, second, ..] = address.segments();
    first & 0xe000 == 0x2000 && !(first == 0x2001 && second == 0x0db8) && first != 0x3fff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_clusters_and_private_networks_are_not_public() {
        for url in [
            "https://kubernetes.default.svc.cluster.local",
            "https://kubernetes.default.svc",
            "https://kubernetes.default.svc.",
            "https://KUBERNETES.default.SVC.cluster.local/path",
            "https://kubernetes",
            "https://localhost:6443",
            "https://master.corp.internal",
            "https://api.home.arpa",
            "https://10.0.0.1",
            "https://172.16.3.4:6443/x",
            "https://192.168.1.1",
            "https://127.0.0.1",
            "https://169.254.169.254",
            "https://100.64.0.1",
            "https://0.0.0.0",
            "https://[::1]:6443",
            "https://[fd00::1]",
            "https://[fe80::1]",
            "https://[::ffff:10.0.0.1]",
            "https://0x7f000001",
            "https://10.1",
            "https://2130706433",
            "https://oidc.example.com@10.0.0.1",
            "https://a..com",
            "https://",
            "http://oidc.example.com",
        ] {
            assert!(!is_public_url(url), "{url}");
        }
    }

    #[test]
    fn names_and_addresses_of_the_internet_are_public() {
        for url in [
            "https://oidc.eks.eu-central-1.amazonaws.com/id/ABC",
            "https://s3.eu-west-1.amazonaws.com/bucket",
            "https://oidc.example.com.",
            "https://localhost.example.com",
            "https://mylocal.dev",
            "https://52.1.2.3",
            "https://[2606:4700::1111]/x",
        ] {
            assert!(is_public_url(url), "{url}");
        }
    }
}
