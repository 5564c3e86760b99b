//! What is read of a pod, and what it costs.

use std::borrow::Cow;

use super::*;
use crate::{HeldToken, OwnRole};

fn pod(spec: &str) -> Pod<String> {
    serde_json::from_str(&format!(r#"{{"spec":{spec}}}"#)).unwrap()
}

#[test]
fn nulls_and_missing_members_are_the_same() {
    let json = r#"{"metadata":{"labels":null,"annotations":null},"spec":{"containers":null,"volumes":null,"nodeSelector":null,"os":null}}"#;
    let pod: Pod<Text<'_>> = serde_json::from_str(json).unwrap();

    assert_eq!(pod.all_containers().count(), 0);
    assert!(!pod.needs_windows());
}

#[test]
fn texts_are_borrowed_unless_they_have_escapes() {
    let pod: Pod<Text<'_>> =
        serde_json::from_str(r#"{"spec":{"containers":[{"name":"app"},{"name":"a\u0070p"}]}}"#).unwrap();
    let names: Vec<_> = pod.all_containers().map(|container| &container.name.0).collect();

    assert!(matches!(names[0], Cow::Borrowed("app")));
    assert!(matches!(names[1], Cow::Owned(text) if text == "app"));
}

#[test]
fn windows_is_seen_in_all_three_places() {
    let affinity = |values: &str| {
        pod(&format!(
            r#"{{"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[
            {{"matchExpressions":[{{"key":"kubernetes.io/os","operator":"In","values":{values}}}]}}]}}}}}}}}"#
        ))
    };
    assert!(pod(r#"{"os":{"name":"windows"}}"#).needs_windows());
    assert!(pod(r#"{"nodeSelector":{"kubernetes.io/os":"windows"}}"#).needs_windows());
    assert!(affinity(r#"["windows"]"#).needs_windows());
    assert!(!affinity(r#"["windows","linux"]"#).needs_windows());
    assert!(!affinity("[]").needs_windows());
    assert!(!pod(r#"{"os":{"name":"linux"},"nodeSelector":{"kubernetes.io/os":"windows"}}"#).needs_windows());
    assert!(!pod("{}").needs_windows());
}

#[test]
fn windows_is_seen_by_what_linux_does_not_have() {
    let requirement = |requirement: &str| {
        pod(&format!(
            r#"{{"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[
            {{"matchExpressions":[{requirement}]}}]}}}}}}}}"#
        ))
        .needs_windows()
    };
    assert!(requirement(
        r#"{"key":"kubernetes.io/os","operator":"NotIn","values":["linux"]}"#
    ));
    assert!(requirement(
        r#"{"key":"node.kubernetes.io/windows-build","operator":"Exists"}"#
    ));
    for other in [
        r#"{"key":"kubernetes.io/os","operator":"NotIn","values":["windows"]}"#,
        r#"{"key":"kubernetes.io/os","operator":"NotIn","values":["linux","windows"]}"#,
        r#"{"key":"kubernetes.io/os","operator":"Exists"}"#,
        r#"{"key":"kubernetes.io/arch","operator":"NotIn","values":["linux"]}"#,
        r#"{"key":"node.kubernetes.io/windows-build","operator":"DoesNotExist"}"#,
    ] {
        assert!(!requirement(other), "{other}");
    }
    let host_process = r#""securityContext":{"windowsOptions":{"hostProcess":true}}"#;
    assert!(pod(r#"{"nodeSelector":{"node.kubernetes.io/windows-build":"10.0.20348"}}"#).needs_windows());
    assert!(pod(&format!("{{{host_process}}}")).needs_windows());
    assert!(pod(&format!(r#"{{"containers":[{{"name":"app",{host_process}}}]}}"#)).needs_windows());
    assert!(!pod(&format!(r#"{{"os":{{"name":"linux"}},{host_process}}}"#)).needs_windows());
    assert!(!pod(r#"{"securityContext":{"windowsOptions":{"hostProcess":false}}}"#).needs_windows());
    assert!(!pod(r#"{"securityContext":{"windowsOptions":null,"runAsUser":1}}"#).needs_windows());
}

#[test]
fn the_last_of_several_variables_with_one_name_counts() {
    let pod = pod(
        r#"{"containers":[{"name":"app","env":[{"name":"AWS_ROLE_ARN","value":"a"},{"name":"AWS_ROLE_ARN","value":"b"}]}]}"#,
    );

    assert_eq!(pod.facts(None).containers[0].own_role, OwnRole::Literal("b"));
}

#[test]
fn a_role_from_elsewhere_can_not_be_judged() {
    let pod = pod(
        r#"{"containers":[{"name":"a","env":[{"name":"AWS_ROLE_ARN","valueFrom":{"secretKeyRef":{"name":"s","key":"k"}}}]},
                          {"name":"b","env":[{"name":"AWS_ROLE_ARN","value":"$(ROLE)"}]}]}"#,
    );
    let facts = pod.facts(None);

    assert!(
        facts
            .containers
            .iter()
            .all(|container| container.own_role == OwnRole::Indirect)
    );
}

/// What is repeated, and a pod in which it stands so many times.
type PodShape = (&'static str, fn(usize) -> String);

const SHAPES: [PodShape; 14] = [
    ("containers", |n| spec("containers", r#"{"name":"b"}"#, n)),
    ("init containers", |n| {
        spec("initContainers", r#"{"name":"b","env":[],"volumeMounts":[]}"#, n)
    }),
    ("variables", |n| {
        container("env", r#"{"name":"AWS_ROLE_ARN","value":"a"}"#, n)
    }),
    ("mounts", |n| {
        container("volumeMounts", r#"{"name":"a","mountPath":"b"}"#, n)
    }),
    ("sources of variables", |n| container("envFrom", "{}", n)),
    ("volumes", |n| spec("volumes", r#"{"name":"a","emptyDir":{}}"#, n)),
    ("sources of a volume", |n| {
        let sources = repeat(r#"{"serviceAccountToken":{"path":"a"}}"#, n);
        spec(
            "volumes",
            &format!(r#"{{"name":"v","projected":{{"sources":[{sources}]}}}}"#),
            1,
        )
    }),
    ("node affinity terms", |n| {
        let term = r#"{"matchExpressions":[{"key":"kubernetes.io/os","operator":"In","values":["windows"]}]}"#;
        format!(
            r#"{{"spec":{{"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[{}]}}}}}}}}}}"#,
            repeat(term, n)
        )
    }),
    ("node labels", |n| pairs("spec", "nodeSelector", "k", n)),
    ("labels", |n| pairs("metadata", "labels", "k", n)),
    ("annotations of others", |n| pairs("metadata", "annotations", "k", n)),
    ("annotations of ours", |n| {
        pairs("metadata", "annotations", annotations::CONTAINER_ROLE_ARN, n)
    }),
    ("owners", |n| {
        let owner = r#"{"apiVersion":"v1","kind":"K","name":"n","uid":"u"}"#;
        format!(
            r#"{{"metadata":{{"ownerReferences":[{}]}},"spec":{{}}}}"#,
            repeat(owner, n)
        )
    }),
    ("finalizers", |n| {
        format!(
            r#"{{"metadata":{{"finalizers":[{}]}},"spec":{{}}}}"#,
            repeat(r#""a/b""#, n)
        )
    }),
];

fn repeat(item: &str, n: usize) -> String {
    vec![item; n].join(",")
}

fn spec(list: &str, item: &str, n: usize) -> String {
    format!(r#"{{"spec":{{"{list}":[{}]}}}}"#, repeat(item, n))
}

fn container(list: &str, item: &str, n: usize) -> String {
    let container = format!(r#"{{"name":"app","{list}":[{}]}}"#, repeat(item, n));
    spec("containers", &container, 1)
}

fn pairs(part: &str, map: &str, key: &str, n: usize) -> String {
    let pairs: Vec<_> = (0..n).map(|index| format!(r#""{key}{index}":"v""#)).collect();
    let map = format!(r#"{{"{map}":{{{}}}}}"#, pairs.join(","));
    match part {
        "spec" => format!(r#"{{"spec":{map}}}"#),
        part => format!(r#"{{"{part}":{map},"spec":{{}}}}"#),
    }
}

/// The bytes that a pod holds on to, without those of its texts, which are borrowed or as long as they are in the JSON.
fn retained(pod: &Pod<Box<str>>) -> usize {
    let containers = pod.all_containers();
    let inside = |container: &Container<Box<str>>| {
        let variables = VARIABLES.iter().filter_map(|name| container.variable(name)).count();
        let mounts = container.volume_mounts.as_ref().map_or(0, |mounts| mounts.len());
        size_of::<Container<Text<'_>>>()
            + variables * size_of::<EnvVar<Text<'_>>>()
            + mounts * size_of::<VolumeMount<Text<'_>>>()
    };
    let volumes = pod.spec.volumes.iter().flatten();
    let tokens = |volume: &Volume<Box<str>>| {
        size_of::<Volume<Text<'_>>>() + volume.tokens().len() * size_of::<ServiceAccountToken<Text<'_>>>()
    };
    let annotations = pod.metadata.annotations.iter().flat_map(|found| found.pairs().iter());
    let texts = pod.metadata.labels.pairs().iter().chain(annotations);
    let others = texts.count() * 2 * size_of::<Text<'_>>();
    containers.map(inside).sum::<usize>() + volumes.map(tokens).sum::<usize>() + others
}

#[test]
fn what_is_kept_of_a_pod_never_exceeds_three_times_its_bytes_and_one_bounded_list() {
    const LIST: usize = 128 * 1024;
    for (what, shape) in SHAPES {
        for n in [0, 1, 300, 30_000] {
            let json = shape(n);
            let pod: Pod<Box<str>> = serde_json::from_str(&json).unwrap();
            let kept = retained(&pod);
            assert!(
                kept <= LIST && kept <= 3 * json.len() + LIST,
                "{kept} bytes are kept of {n} {what}, {} bytes",
                json.len()
            );
        }
    }
    // Many lists that are all within their bounds: this is the largest that a pod can be.
    let mounts = repeat(r#"{"name":"a","mountPath":"b"}"#, 256);
    let json = spec(
        "containers",
        &format!(r#"{{"name":"b","volumeMounts":[{mounts}]}}"#),
        256,
    );
    let pod: Pod<Box<str>> = serde_json::from_str(&json).unwrap();
    assert!(
        retained(&pod) <= 3 * json.len() + LIST,
        "{} of {}",
        retained(&pod),
        json.len()
    );
}

#[test]
fn sixteen_times_the_bytes_take_no_more_than_64_times_as_long_whatever_the_shape() {
    let time = |json: &str| {
        let began = std::time::Instant::now();
        let pod: Pod<Text<'_>> = serde_json::from_str(json).unwrap();
        std::hint::black_box(pod.facts(pod.grant_record().as_ref()));
        began.elapsed()
    };
    for (what, shape) in SHAPES {
        let (few, many) = (shape(2_000), shape(32_000));
        // What grows with the square takes 256 times as long, every time. A busy machine disturbs some of the measurements.
        let is_linear = (0..20).any(|_| time(&many) < time(&few) * 64);
        assert!(is_linear, "{what}");
    }
}

#[test]
fn a_pod_says_which_bounds_it_exceeds_and_one_at_its_bounds_exceeds_none() {
    let beyond = |what: &str, n: usize| {
        let shape = SHAPES.iter().find(|(name, _)| *name == what).unwrap().1;
        let json = shape(n);
        let pod: Pod<Text<'_>> = serde_json::from_str(&json).unwrap();
        let texts: Vec<_> = pod.facts(None).beyond.iter().map(ToString::to_string).collect();
        texts.join("; ")
    };
    for (what, most, expected) in [
        (
            "containers",
            256,
            "the pod has more than 256 containers and init containers",
        ),
        (
            "init containers",
            256,
            "the pod has more than 256 containers and init containers",
        ),
        ("volumes", 256, "the pod has more than 256 volumes"),
        ("sources of a volume", 32, "projected volume v has more than 32 sources"),
        ("mounts", 256, "container app has more than 256 volume mounts"),
        ("labels", 128, "the pod has more than 128 labels"),
        (
            "annotations of ours",
            256,
            "the pod has more than 256 annotations that name roles",
        ),
    ] {
        assert_eq!(beyond(what, most), "", "{most} {what}");
        assert!(
            beyond(what, most + 1).starts_with(expected),
            "{}",
            beyond(what, most + 1)
        );
    }
    for unread in ["variables", "annotations of others", "finalizers", "owners"] {
        assert_eq!(beyond(unread, 1000), "", "{unread}");
    }
}

#[test]
fn of_annotations_only_those_that_decisions_read_are_kept_and_all_are_counted() {
    let long = "é".repeat(2000);
    let json = format!(
        r#"{{"metadata":{{"annotations":{{"a":"b","tokenscope.io/role-arn":"{long}","tokenscope.io/unknown":"c","tokenscope.io/role-arn.app":"r"}}}},"spec":{{}}}}"#
    );
    let pod: Pod<Box<str>> = serde_json::from_str(&json).unwrap();
    let facts = pod.facts(None);

    assert_eq!(facts.annotation_count, 4);
    assert_eq!(facts.annotations.iter().count(), 2);
    let kept = facts.annotations.value("tokenscope.io/role-arn").unwrap().len();
    assert!(
        (2049..2054).contains(&kept),
        "a value is cut where it is known for too long: {kept}"
    );
}

#[test]
fn a_variable_has_its_index_in_the_whole_list() {
    let pod = pod(
        r#"{"containers":[{"name":"app","env":[{"name":"A","value":"a"},{"name":"AWS_REGION","value":"a"},{"name":"AWS_REGION","value":"b"}]}]}"#,
    );
    let container = pod.all_containers().next().unwrap();

    assert_eq!(container.env.as_ref().unwrap().count(), 3);
    assert_eq!(container.variable("AWS_REGION").unwrap().index, 2);
    assert!(container.variable("A").is_none());
}

#[test]
fn a_projected_token_names_its_audience_its_lifetime_and_the_containers_that_mount_it() {
    let pod = pod(
        r#"{"initContainers":[{"name":"init","volumeMounts":[{"name":"t","mountPath":"/a"},{"name":"t","mountPath":"/b"}]}],
            "containers":[{"name":"app","volumeMounts":[{"name":"t","mountPath":"/a"}]},{"name":"other"}],
            "volumes":[{"name":"t","projected":{"sources":[{"configMap":{}},
                {"serviceAccountToken":{"audience":"sts.amazonaws.com","expirationSeconds":86400,"path":"x"}},
                {"serviceAccountToken":{"path":"y"}}]}},
              {"name":"c","csi":{"driver":"secrets-store.csi.k8s.io"}}]}"#,
    );
    let facts = pod.facts(None);

    let [tokens, driver] = facts.token_volumes.as_slice() else {
        panic!("{facts:?}")
    };
    let token = |audience, expiration_seconds| HeldToken {
        audience,
        expiration_seconds,
    };
    assert_eq!((tokens.name, tokens.containers.as_slice()), ("t", &["init", "app"][..]));
    assert_eq!(
        tokens.tokens,
        [token(Some("sts.amazonaws.com"), Some(86_400)), token(None, None)]
    );
    assert_eq!(driver.csi_driver, Some("secrets-store.csi.k8s.io"));
}

#[test]
fn of_several_volumes_of_one_name_each_has_the_containers_that_mount_the_name() {
    let pod = pod(
        r#"{"containers":[{"name":"app","volumeMounts":[{"name":"t","mountPath":"/a"},{"name":"u","mountPath":"/b"},{"name":"t","mountPath":"/c"}]}],
            "volumes":[{"name":"t","projected":{"sources":[{"serviceAccountToken":{"audience":"sts.amazonaws.com","path":"x"}}]}},
              {"name":"t","projected":{"sources":[{"serviceAccountToken":{"audience":"vault","path":"x"}}]}}]}"#,
    );
    let volumes = pod.facts(None).token_volumes;
    assert_eq!(volumes.len(), 2);
    assert!(volumes.iter().all(|volume| volume.containers == ["app"]), "{volumes:?}");
}

#[test]
fn f11_a_variable_that_leads_to_an_agent_counts_where_the_container_names_no_role() {
    use serde_json::json;
    let own_role = |env: serde_json::Value| {
        let pod: Pod<String> =
            serde_json::from_value(json!({"spec": {"containers": [{"name": "app", "env": env}]}})).unwrap();
        format!("{:?}", pod.facts(None).containers[0].own_role)
    };
    for name in [
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    ] {
        assert_eq!(
            own_role(json!([{"name": name, "value": "http://169.254.170.23/v1/credentials"}])),
            "Agent"
        );
        assert_eq!(own_role(json!([{"name": name, "value": ""}])), "Absent");
        let both = json!([{"name": name, "value": "x"}, {"name": "AWS_ROLE_ARN", "value": "r"}]);
        assert_eq!(own_role(both), "Literal(\"r\")");
    }
}
