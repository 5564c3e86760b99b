//! URLs that AWS can reach: it reads an issuer's discovery document and keys over the public internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Domains in which no public name of a host is: those of the IANA special-use domain name registry (RFC 6761, RFC 6762, RFC 7686,
/// RFC 9476, and below `arpa`, which is for infrastructure: RFC 3172), those that ICANN keeps out of the root (`corp`, `home`, `mail`
/// by its resolution 2018.02.04.12, `internal` by SAC113), and others that clusters and private networks use.
///
/// Two entries of the registry are left out. `test`: clusters for trials have their issuer there, as that of `cargo xtask demo`, and
/// the stand-in for AWS beside them reaches it. `example.com`, `example.net` and `example.org`, which are public names with hosts.
const PRIVATE_DOMAINS: [&str; 17] = [
    "alt",
    "arpa",
    "cluster.local",
    "corp",
    "example",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "mail",
    "onion",
    "private",
    "svc",
];

/// How the name of a cluster's own API server begins, whatever the cluster's domain (Kubernetes, "DNS for Services and Pods"). It is what
/// API servers take for their issuer where nobody names one.
const API_SERVER: &str = "kubernetes.default.svc.";

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
        && !host.starts_with(API_SERVER)
        && !PRIVATE_DOMAINS.iter().any(|domain| is_below(domain))
}

/// The IANA IPv4 special-purpose address registry (RFC 6890), as far as it is not globally reachable, with 192.0.0.0/24 as a whole,
/// whose reachable addresses are those of one service each; and the relays of 6to4, which nobody may run any more (RFC 7526).
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_benchmark = a == 198 && (18..20).contains(&b);
    let is_protocol = a == 192 && b == 0 && c == 0;
    let is_relay = a == 192 && b == 88 && c == 99;
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        || is_shared
        || is_benchmark
        || is_protocol
        || is_relay)
}

/// Global unicast alone (RFC 4291), without what the IANA IPv6 special-purpose address registry (RFC 6890) takes out of it:
/// protocol assignments as a whole, where Teredo is and the few reachable addresses are those of one service each; documentation;
/// and 6to4. What maps an IPv4 address is as public as that.
fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    let [first, second, ..] = address.segments();
    let is_protocol = first == 0x2001 && second < 0x0200;
    let is_documentation = (first == 0x2001 && second == 0x0db8) || (first == 0x3fff && second < 0x1000);
    let is_6to4 = first == 0x2002;
    first & 0xe000 == 0x2000 && !(is_protocol || is_documentation || is_6to4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks each of them.
    fn are_not_public(urls: &[&str]) {
        for url in urls {
            assert!(!is_public_url(url), "{url}");
        }
    }

    #[test]
    fn hosts_of_clusters_and_reserved_names_are_not_public() {
        are_not_public(&[
            "https://kubernetes.default.svc.cluster.local",
            "https://kubernetes.default.svc",
            "https://kubernetes.default.svc.",
            "https://KUBERNETES.default.SVC.cluster.local/path",
            "https://kubernetes.default.svc.k8s.example.com",
            "https://Kubernetes.Default.svc.prod.example.org:6443/",
            "https://kubernetes",
            "https://localhost:6443",
            "https://master.corp.internal",
            "https://api.home.arpa",
            "https://oidc.example",
            "https://OIDC.Example.",
            "https://oidc.invalid",
            "https://oidc.localhost",
            "https://oidc.alt",
            "https://oidc.onion",
            "https://oidc.mail",
            "https://1.0.0.10.in-addr.arpa",
            "https://ipv4only.arpa",
            "https://oidc.example.com@10.0.0.1",
            "https://a..com",
            "https://",
            "http://oidc.example.com",
        ]);
    }

    #[test]
    fn addresses_of_private_and_reserved_networks_are_not_public() {
        are_not_public(&[
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
            "https://[2001::1]",
            "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
            "https://[2001:2::1]",
            "https://[2001:1ff::1]",
            "https://[2001:db8::1]",
            "https://[2002:c000:204::1]",
            "https://[2002:3401:203::1]",
            "https://[3fff::1]",
            "https://[64:ff9b::3401:203]",
            "https://[100::1]",
            "https://[5f00::1]",
            "https://192.0.0.9",
            "https://192.0.2.1",
            "https://192.88.99.1",
            "https://198.18.0.1",
            "https://198.51.100.1",
            "https://203.0.113.1",
            "https://224.0.0.1",
            "https://240.0.0.1",
            "https://255.255.255.255",
            "https://0x7f000001",
            "https://10.1",
            "https://2130706433",
        ]);
    }

    #[test]
    fn names_and_addresses_of_the_internet_are_public() {
        for url in [
            "https://oidc.eks.eu-central-1.amazonaws.com/id/ABC",
            "https://s3.eu-west-1.amazonaws.com/bucket",
            "https://oidc.example.com.",
            "https://localhost.example.com",
            "https://kubernetes.example.com",
            "https://issuer.svc.example.com",
            "https://mylocal.dev",
            "https://52.1.2.3",
            "https://[2606:4700::1111]/x",
            "https://[2001:200::1]",
            "https://[2001:4860:4860::8888]",
            "https://[2003::1]",
            "https://[3fff:1000::1]",
            "https://[::ffff:52.1.2.3]",
            "https://192.0.1.1",
            "https://192.88.98.1",
            "https://192.88.100.1",
            // For trials: see `PRIVATE_DOMAINS`.
            "https://oidc.tokenscope.test",
            "https://example.com",
            "https://my-example.dev",
        ] {
            assert!(is_public_url(url), "{url}");
        }
    }
}
