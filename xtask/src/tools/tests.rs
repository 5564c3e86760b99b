//! Pinned versions, and versions that programs print.

use super::version::{minor, version_in};
use super::*;

#[test]
fn every_tool_has_a_pinned_version() {
    for tool in Tool::ALL {
        let version = tool.pinned_version().unwrap();
        assert!(minor(&version).is_some(), "{}: {version}", tool.name());
    }
}

#[test]
fn versions_are_found_in_what_the_tools_print() {
    let cases = [
        ("Kubernetes v1.36.3\n", "1.36.3"),
        ("etcd Version: 3.7.3\nGit SHA: Not provided\n", "3.7.3"),
        (
            "Client Version: v1.32.4-dispatcher\nKustomize Version: v5.5.0\n",
            "1.32.4-dispatcher",
        ),
        ("v4.3.1", "4.3.1"),
        ("v4.3", "4.3"),
        ("containerd github.com/containerd/containerd/v2 v2.4.2 \n", "2.4.2"),
        ("CoreDNS-1.15.0\nlinux/amd64, go1.26.8, \n", "1.15.0"),
    ];
    for (text, expected) in cases {
        assert_eq!(version_in(text).as_deref(), Some(expected), "{text}");
    }
    assert_eq!(version_in("no such thing"), None);
}

#[test]
fn only_the_same_minor_version_is_taken_from_path_and_of_kubectl_any_recent_one() {
    assert!(Tool::KubeApiserver.accepts("1.36.0", "1.36.3"));
    assert!(!Tool::KubeApiserver.accepts("1.35.3", "1.36.3"));
    assert!(!Tool::Helm.accepts("3.19.0", "4.3.1"));
    assert!(Tool::Kubectl.accepts("1.32.4-dispatcher", "1.36.3"));
    assert!(!Tool::Kubectl.accepts("1.21.0", "1.36.3"));
}
