//! Pods of hostile shapes, as the text of a request: many or long where honest ones have few and short.

use std::fmt::Write as _;

use crate::fixtures::{ADMIN, ORDERS};

/// A pod that is hostile by its shape.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Its name in tables.
    pub name: &'static str,
    /// Its text, for a namespace and a name. It is of ServiceAccount `orders`.
    pub pod: fn(&str, &str) -> String,
}

/// One of each kind. Every one is within the API server's limit of a request, 3 MiB.
pub const SHAPES: [Shape; 14] = [
    Shape {
        name: "14,000 containers, 50,000 names to skip",
        pod: |namespace, name| containers_and_skip_list(namespace, name, 14_000, 50_000),
    },
    Shape {
        name: "35,000 containers",
        pod: |namespace, name| containers(namespace, name, 35_000),
    },
    Shape {
        name: "40,000 annotations",
        pod: |namespace, name| metadata(namespace, name, "annotations", &map(40_000, "k", "")),
    },
    Shape {
        name: "40,000 labels",
        pod: |namespace, name| metadata(namespace, name, "labels", &map(40_000, "k", "")),
    },
    Shape {
        name: "40,000 finalizers",
        pod: |namespace, name| metadata(namespace, name, "finalizers", &list(40_000, |n| format!("\"f/{n}\""))),
    },
    Shape {
        name: "4,000 roles for containers",
        pod: |namespace, name| {
            let roles = map(4000, "tokenscope.io/role-arn.c", ORDERS);
            metadata(namespace, name, "annotations", &roles)
        },
    },
    Shape {
        name: "40,000 volumes",
        pod: |namespace, name| volumes(namespace, name, 40_000),
    },
    Shape {
        name: "20,000 projected tokens",
        pod: |namespace, name| sources(namespace, name, 20_000),
    },
    Shape {
        name: "60,000 variables",
        pod: |namespace, name| variables(namespace, name, 60_000),
    },
    Shape {
        name: "a variable of 1 MB",
        pod: |namespace, name| variable(namespace, name, 1_000_000),
    },
    Shape {
        name: "15,000 owners",
        pod: |namespace, name| {
            let owners = list(15_000, |n| {
                format!("{{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"name\":\"n{n}\",\"uid\":\"u{n}\"}}")
            });
            metadata(namespace, name, "ownerReferences", &owners)
        },
    },
    Shape {
        name: "20,000 terms of affinity",
        pod: |namespace, name| affinity(namespace, name, 20_000),
    },
    Shape {
        name: "400,000 characters that JSON escapes",
        pod: |namespace, name| {
            let text = format!("{{\"k\":\"{}\"}}", "<".repeat(400_000));
            metadata(namespace, name, "annotations", &text)
        },
    },
    Shape {
        name: "120,000 commas to skip",
        pod: |namespace, name| {
            let skip = format!(
                "{{\"tokenscope.io/role-arn\":\"{ORDERS}\",\"tokenscope.io/skip-containers\":\"{}\"}}",
                ",".repeat(120_000)
            );
            metadata(namespace, name, "annotations", &skip)
        },
    },
];

/// A pod that asks, with so many containers and a list of so many names to skip, none of which is a container's.
pub fn containers_and_skip_list(namespace: &str, name: &str, containers: usize, names: usize) -> String {
    let mut skip = String::new();
    for number in 0..names {
        let _ = write!(skip, "n{number:x},");
    }
    pod(
        namespace,
        name,
        &format!(
            "\"annotations\":{{\"tokenscope.io/role-arn\":\"{ORDERS}\",\"tokenscope.io/skip-containers\":\"{skip}\"}}"
        ),
        &format!(
            "\"containers\":{}",
            list(containers, |n| format!("{{\"name\":\"c{n}\"}}"))
        ),
    )
}

/// A pod that asks for nothing itself, with so many containers and a list of so many names to skip. The API server stores it.
pub fn stored_containers_and_skip_list(namespace: &str, name: &str, containers: usize, names: usize) -> String {
    pod(
        namespace,
        name,
        &format!(
            "\"annotations\":{{\"tokenscope.io/skip-containers\":\"{}\"}}",
            "b,".repeat(names)
        ),
        &format!(
            "\"containers\":{}",
            list(containers, |n| format!("{{\"name\":\"{n}\",\"image\":\"a\"}}"))
        ),
    )
}

/// A pod that asks, with so many containers that a policy grants the role to.
pub fn containers(namespace: &str, name: &str, count: usize) -> String {
    pod(
        namespace,
        name,
        &format!("\"annotations\":{{\"tokenscope.io/role-arn\":\"{ORDERS}\"}}"),
        &format!("\"containers\":{}", list(count, |n| format!("{{\"name\":\"{n}\"}}"))),
    )
}

/// A pod with one container and a member of its metadata.
pub fn metadata(namespace: &str, name: &str, member: &str, value: &str) -> String {
    pod(namespace, name, &format!("\"{member}\":{value}"), ONE_CONTAINER)
}

/// A pod that asks for a role that nobody allows.
pub fn asks_too_much(namespace: &str, name: &str) -> String {
    metadata(
        namespace,
        name,
        "annotations",
        &format!("{{\"tokenscope.io/role-arn\":\"{ADMIN}\"}}"),
    )
}

/// A pod with so many volumes.
pub fn volumes(namespace: &str, name: &str, count: usize) -> String {
    let volumes = list(count, |n| format!("{{\"name\":\"v{n}\",\"emptyDir\":{{}}}}"));
    pod(
        namespace,
        name,
        "\"labels\":{}",
        &format!("{ONE_CONTAINER},\"volumes\":{volumes}"),
    )
}

/// A pod with a volume of so many projected tokens for AWS's audience.
pub fn sources(namespace: &str, name: &str, count: usize) -> String {
    let sources = list(count, |n| {
        format!("{{\"serviceAccountToken\":{{\"audience\":\"sts.amazonaws.com\",\"path\":\"{n}\"}}}}")
    });
    let volumes = format!("[{{\"name\":\"tokens\",\"projected\":{{\"sources\":{sources}}}}}]");
    pod(
        namespace,
        name,
        "\"labels\":{}",
        &format!("{ONE_CONTAINER},\"volumes\":{volumes}"),
    )
}

/// A pod that asks, whose container has so many variables.
pub fn variables(namespace: &str, name: &str, count: usize) -> String {
    let variables = list(count, |n| format!("{{\"name\":\"AWS_{n}\",\"value\":\"v\"}}"));
    one_container_with(namespace, name, &format!("\"env\":{variables}"))
}

/// A pod whose container has AWS_ROLE_ARN with so many bytes.
pub fn variable(namespace: &str, name: &str, bytes: usize) -> String {
    let value = "v".repeat(bytes);
    let container = format!(
        "\"containers\":[{{\"name\":\"app\",\"image\":\"app\",\"env\":[{{\"name\":\"AWS_ROLE_ARN\",\"value\":\"{value}\"}}]}}]"
    );
    pod(namespace, name, "\"labels\":{}", &container)
}

/// A pod with so many terms in its node affinity.
pub fn affinity(namespace: &str, name: &str, terms: usize) -> String {
    let terms = list(terms, |n| {
        format!("{{\"matchExpressions\":[{{\"key\":\"k\",\"operator\":\"In\",\"values\":[\"{n}\"]}}]}}")
    });
    let affinity = format!(
        "\"affinity\":{{\"nodeAffinity\":{{\"requiredDuringSchedulingIgnoredDuringExecution\":{{\"nodeSelectorTerms\":{terms}}}}}}}"
    );
    pod(namespace, name, "\"labels\":{}", &format!("{ONE_CONTAINER},{affinity}"))
}

/// A review of a new pod of this text, as the API server would send it.
pub fn review(namespace: &str, pod: &str) -> String {
    format!(
        "{{\"apiVersion\":\"admission.k8s.io/v1\",\"kind\":\"AdmissionReview\",\"request\":{{\
         \"uid\":\"00000000-0000-4000-8000-000000000000\",\"kind\":{{\"group\":\"\",\"version\":\"v1\",\"kind\":\"Pod\"}},\
         \"resource\":{{\"group\":\"\",\"version\":\"v1\",\"resource\":\"pods\"}},\"name\":\"some-pod\",\
         \"namespace\":\"{namespace}\",\"operation\":\"CREATE\",\"userInfo\":{{\"username\":\"somebody\"}},\
         \"object\":{pod},\"oldObject\":null,\"dryRun\":false,\"options\":null}}}}"
    )
}

/// A list of so many texts, as JSON.
pub fn list(count: usize, item: impl Fn(usize) -> String) -> String {
    let mut text = String::from("[");
    for number in 0..count {
        if number > 0 {
            text.push(',');
        }
        text.push_str(&item(number));
    }
    text.push(']');
    text
}

/// An object of so many members with the same value.
pub fn map(count: usize, key: &str, value: &str) -> String {
    let mut text = String::from("{");
    for number in 0..count {
        let comma = if number > 0 { "," } else { "" };
        let _ = write!(text, "{comma}\"{key}{number:x}\":\"{value}\"");
    }
    text.push('}');
    text
}

const ONE_CONTAINER: &str = "\"containers\":[{\"name\":\"app\",\"image\":\"app\"}]";

fn one_container_with(namespace: &str, name: &str, member: &str) -> String {
    pod(
        namespace,
        name,
        &format!("\"annotations\":{{\"tokenscope.io/role-arn\":\"{ORDERS}\"}}"),
        &format!("\"containers\":[{{\"name\":\"app\",\"image\":\"app\",{member}}}]"),
    )
}

fn pod(namespace: &str, name: &str, metadata: &str, spec: &str) -> String {
    format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{{\"name\":\"{name}\",\"namespace\":\"{namespace}\",{metadata}}},\
         \"spec\":{{\"serviceAccountName\":\"orders\",{spec}}}}}"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_shape_is_a_pod_within_the_limit_of_a_request() {
        for shape in SHAPES {
            let text = (shape.pod)("somewhere", "some-pod");
            let pod: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(pod["metadata"]["namespace"], "somewhere", "{}", shape.name);
            assert!(text.len() < 3 << 20, "{} has {} bytes", shape.name, text.len());
        }
    }
}
