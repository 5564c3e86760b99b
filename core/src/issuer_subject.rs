//! The subject of a token that tokenscope's issuer signs.
//!
//! AWS compares subjects in trust policies, often with `*`, so the forms differ in their first words, each has a fixed number
//! of fields, and no field can have the delimiter in it.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::arn::shortened;
use crate::{PolicyName, SubjectFormat};

/// The most characters of a subject (AWS STS API reference, SubjectFromWebIdentityToken).
pub const MOST_SUBJECT: usize = 255;

/// The name of a cluster in subjects, where several clusters have one issuer: 1 to 63 lower case letters, digits, dots and
/// hyphens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterName(Box<str>);

impl ClusterName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = InvalidClusterName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b);
        if !(1..=63).contains(&text.len()) || !text.bytes().all(allowed) {
            return Err(InvalidClusterName { text: shortened(text) });
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The reason why a text is no cluster's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a cluster's name: it should have 1 to 63 lower case letters, digits, dots and hyphens")]
pub struct InvalidClusterName {
    text: Box<str>,
}

/// The subject of a token of a workload, at most [`MOST_SUBJECT`] characters.
///
/// - `system:serviceaccount:<namespace>:<service account>`
/// - `tokenscope:tsp:<namespace>:<policy>:<service account>`, by a policy of the namespace
/// - `tokenscope:ctsp:<policy>:<namespace>:<service account>`, by a cluster policy
/// - `tokenscope:sha256:<hash>` in place of one that is too long or whose names are none of Kubernetes
///
/// With a cluster's name, that and a slash stand before it. Different workloads, policies and clusters have different
/// subjects.
pub fn issuer_subject(
    format: SubjectFormat,
    policy: &PolicyName,
    namespace: &str,
    service_account: &str,
    cluster: Option<&ClusterName>,
) -> String {
    let fields = fields(format, policy, namespace, service_account);
    let prefix = cluster.map(|cluster| format!("{cluster}/")).unwrap_or_default();
    let bytes = prefix.len() + fields.iter().map(|field| field.len() + 1).sum::<usize>() - 1;
    if bytes <= MOST_SUBJECT && fields.iter().all(|field| is_name(field)) {
        return prefix + &fields.join(":");
    }
    format!("{prefix}tokenscope:sha256:{}", hash(&fields))
}

/// A pattern with `*` that the subjects match in which `*` in namespace and service account stands for any; without those whose
/// names are too long for a subject that is written out. It matches no others, since no field has the delimiter in it.
pub(crate) fn subject_pattern(
    format: SubjectFormat,
    policy: &PolicyName,
    namespace: &str,
    service_account: &str,
    cluster: Option<&ClusterName>,
) -> String {
    let prefix = cluster.map(|cluster| format!("{cluster}/")).unwrap_or_default();
    prefix + &fields(format, policy, namespace, service_account).join(":")
}

/// The number of characters that the fields with `*` may have together in a subject that is written out. `starred` is the length of these fields as
/// they stand in the pattern.
pub(crate) fn room_in(pattern: &str, starred: usize) -> usize {
    MOST_SUBJECT.saturating_sub(pattern.len().saturating_sub(starred))
}

/// The parts between the delimiters.
fn fields<'a>(
    format: SubjectFormat,
    policy: &'a PolicyName,
    namespace: &'a str,
    service_account: &'a str,
) -> Vec<&'a str> {
    match (format, policy) {
        (SubjectFormat::ServiceAccount, _) => vec!["system", "serviceaccount", namespace, service_account],
        // A policy of a namespace grants in that namespace only, which is therefore named once.
        (SubjectFormat::Policy, PolicyName::Namespaced { namespace: own, name }) if **own == *namespace => {
            vec!["tokenscope", "tsp", namespace, name, service_account]
        }
        (SubjectFormat::Policy, PolicyName::Namespaced { namespace: own, name }) => {
            vec!["tokenscope", "tsp", own, name, namespace, service_account]
        }
        (SubjectFormat::Policy, PolicyName::Cluster { name }) => {
            vec!["tokenscope", "ctsp", name, namespace, service_account]
        }
    }
}

/// True if a field can't be mistaken for several: what names of Kubernetes are made of (RFC 1123 subdomain).
fn is_name(field: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b);
    !field.is_empty() && field.bytes().all(allowed)
}

/// Each field with its length before it, so that no two lists of fields are one text.
fn hash(fields: &[&str]) -> String {
    let mut hash = Sha256::new();
    for field in fields {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field.as_bytes());
    }
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        // Writing into a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const FORMATS: [SubjectFormat; 2] = [SubjectFormat::ServiceAccount, SubjectFormat::Policy];

    #[test]
    fn each_form_names_what_it_should() {
        let own = PolicyName::namespaced("shop", "orders");
        let cluster = PolicyName::cluster("orders");
        let eu = "eu-1".parse().unwrap();
        let subject = |format, policy, cluster| issuer_subject(format, policy, "shop", "sa", cluster);

        assert_eq!(
            subject(SubjectFormat::ServiceAccount, &own, None),
            "system:serviceaccount:shop:sa"
        );
        assert_eq!(
            subject(SubjectFormat::Policy, &own, None),
            "tokenscope:tsp:shop:orders:sa"
        );
        assert_eq!(
            subject(SubjectFormat::Policy, &cluster, Some(&eu)),
            "eu-1/tokenscope:ctsp:orders:shop:sa"
        );
    }

    #[test]
    fn the_longest_legal_names_fit_by_a_hash_and_the_longest_that_fit_are_written_out() {
        let (namespace, name) = ("n".repeat(63), "s".repeat(253));
        let cluster = "c".repeat(63).parse().unwrap();
        for format in FORMATS {
            for policy in [PolicyName::namespaced(&namespace, &name), PolicyName::cluster(&name)] {
                let subject = issuer_subject(format, &policy, &namespace, &name, Some(&cluster));
                assert!(subject.contains("/tokenscope:sha256:"), "{subject}");
                assert!(subject.len() <= MOST_SUBJECT, "{subject}");
            }
        }

        let policy = PolicyName::cluster("p");
        let of = |length| issuer_subject(SubjectFormat::ServiceAccount, &policy, "n", &"s".repeat(length), None);
        assert_eq!(of(231).len(), 255);
        assert!(of(231).ends_with('s') && of(232).starts_with("tokenscope:sha256:"));
    }

    #[test]
    fn a_name_of_a_cluster_has_no_delimiter() {
        for text in ["", "a/b", "a:b", "A", &"c".repeat(64)] {
            assert!(text.parse::<ClusterName>().is_err(), "{text}");
        }
    }

    /// Short names of the delimiters' neighbourhood collide most easily; the words of the forms are among them.
    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-c.:/-]{0,4}",
            "(system|serviceaccount|tokenscope|tsp|ctsp|sha256)",
            "[a-z0-9.-]{60,253}",
        ]
    }

    type Key = (bool, Option<(bool, String, String)>, String, String, Option<String>);

    fn subject() -> impl Strategy<Value = (Key, String)> {
        (
            any::<bool>(),
            any::<bool>(),
            name(),
            name(),
            name(),
            any::<bool>(),
            prop::option::of("[a-b]{1,2}"),
        )
            .prop_map(
                |(by_policy, is_cluster, policy, namespace, service_account, with_cluster, cluster)| {
                    let name = if is_cluster {
                        PolicyName::cluster(&policy)
                    } else {
                        PolicyName::namespaced(&namespace, &policy)
                    };
                    let cluster = cluster.filter(|_| with_cluster);
                    let parsed = cluster.as_ref().map(|name| name.parse().unwrap());
                    let format = FORMATS[usize::from(by_policy)];
                    let subject = issuer_subject(format, &name, &namespace, &service_account, parsed.as_ref());
                    let own = if is_cluster { String::new() } else { namespace.clone() };
                    let policy = by_policy.then_some((is_cluster, own, policy));
                    ((by_policy, policy, namespace, service_account, cluster), subject)
                },
            )
    }

    proptest! {
        #[test]
        fn different_workloads_policies_and_clusters_have_different_subjects(
            subjects in prop::collection::vec(subject(), 2..60),
        ) {
            let mut seen: HashMap<String, Key> = HashMap::new();
            for (key, subject) in subjects {
                prop_assert!((6..=MOST_SUBJECT).contains(&subject.len()), "{}", subject);
                if let Some(other) = seen.insert(subject.clone(), key.clone()) {
                    prop_assert_eq!(other, key, "{}", subject);
                }
            }
        }
    }
}
