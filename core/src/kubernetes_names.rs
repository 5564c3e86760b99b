//! The forms of names that Kubernetes takes. No object has another name, so the API server need not be asked for one.

/// True if a namespace or a container can have this name: a label of RFC 1123, 1 to 63 bytes.
pub fn is_label(name: &str) -> bool {
    name.len() <= 63 && !name.contains('.') && is_dns(name)
}

/// True if a service account or a controller can have this name: a subdomain of RFC 1123, 1 to 253 bytes.
pub fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_dns)
}

fn is_dns(part: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_kubernetes_allows_are_names() {
        for name in ["a", "shop", "shop-1", "0"] {
            assert!(is_label(name) && is_subdomain(name), "{name}");
        }
        assert!(is_subdomain("a.b-c.d") && !is_label("a.b"));
        for name in ["", "-a", "a-", "A", "a_b", "a/b", "..", "a..b", "ä", "a b", "../x"] {
            assert!(!is_label(name) && !is_subdomain(name), "{name:?}");
        }
        assert!(is_label(&"a".repeat(63)) && !is_label(&"a".repeat(64)));
        assert!(is_subdomain(&"a".repeat(253)) && !is_subdomain(&"a".repeat(254)));
    }
}
