//! What the documents say is true: every example is applied to a real API server, and every file and name that they list
//! exists.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail as tests do")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokenscope_core::annotations;
use tokenscope_e2e::{Environment, Shared, eventually, install};
use tokenscope_issuer::issuer_url::IssuerUrl;
use tokenscope_xtask::root;

static SHARED: Shared = Shared::new(install::Options::default);

/// Folders whose Markdown files belong to the documentation.
const FOLDERS: [&str; 7] = [
    "",
    "charts/tokenscope",
    "docs",
    "docs/adr",
    "e2e/tests/cases",
    "e2e/tests/issuer",
    "examples",
];

/// The documents: Markdown in [`FOLDERS`], the README first.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths: Vec<_> = FOLDERS.into_iter().flat_map(|folder| files(folder, "md")).collect();
    paths.sort_by_key(|path| (path != &root().join("README.md"), path.clone()));
    paths.into_iter().map(read).collect()
}

/// The examples: policies first, since pods need them.
fn examples() -> Vec<(PathBuf, String)> {
    let mut examples: Vec<_> = files("examples", "yaml").into_iter().map(read).collect();
    examples.sort_by_key(|(path, text)| (!text.contains("Policy\n"), path.clone()));
    examples
}

/// The files of a folder of the repository with this extension.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect()
}

fn read(path: PathBuf) -> (PathBuf, String) {
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

/// The fenced blocks of a language. One that belongs to an item of a list is indented there, and not here.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let parts = document.split(&fence).skip(1);
    parts
        .map(|part| {
            let block = part.split("```").next().unwrap();
            let indentation = &block[..block.len() - block.trim_start_matches(' ').len()];
            let lines = block.trim_end().lines();
            let lines: Vec<&str> = lines
                .map(|line| line.strip_prefix(indentation).unwrap_or(line))
                .collect();
            lines.join("\n") + "\n"
        })
        .collect()
}

/// An example without the comment that it begins with.
fn without_comment(example: &str) -> String {
    let lines = example.split_inclusive('\n');
    lines.skip_while(|line| line.starts_with('#')).collect()
}

/// The targets of a document's links within the repository, each with the link's text.
fn links(document: &str) -> Vec<(&str, &str)> {
    let parts = document.split("](");
    parts
        .clone()
        .zip(parts.skip(1))
        .filter_map(|(before, after)| Some((before.rsplit('[').next()?, after.split(')').next()?)))
        .filter(|(_, target)| !target.starts_with("http"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_accepted_by_a_real_api_server() {
    let Environment { control_plane, .. } = SHARED.environment().await;
    control_plane.create_namespace("shop", &[]).await.unwrap();
    for service_account in ["orders", "carts", "partner"] {
        control_plane
            .create_service_account("shop", service_account, &[])
            .await
            .unwrap();
    }
    control_plane.apply_yaml(&gateway_kinds()).await.unwrap();
    let examples = examples();
    assert!(examples.len() >= 10, "only {} examples were found", examples.len());
    for (path, text) in examples {
        // A pod may come before the webhook has heard of the policy that grants its role.
        eventually(Duration::from_secs(90), "the example is accepted", async || {
            control_plane.apply_yaml(&text).await
        })
        .await
        .unwrap_or_else(|error| panic!("{}: {error:#}\n{text}", path.display()));
    }
}

/// The kinds of the Gateway API that an example has. They are no part of Kubernetes, and here they are known by name alone.
fn gateway_kinds() -> String {
    let kinds = [("HTTPRoute", "httproutes"), ("BackendTLSPolicy", "backendtlspolicies")];
    let definition = |(kind, plural): (&str, &str)| {
        let singular = kind.to_lowercase();
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{plural}.gateway.networking.k8s.io"),
                "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in for tests"},
            },
            "spec": {
                "group": "gateway.networking.k8s.io", "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": singular},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                }}],
            },
        })
        .to_string()
    };
    kinds.map(definition).join("\n---\n")
}

#[test]
fn the_examples_publish_the_two_documents_of_the_issuer_and_nothing_else() {
    let issuer: IssuerUrl = "https://tokens.example.com/cluster-1".parse().unwrap();
    let public = BTreeSet::from([issuer.discovery_path(), issuer.keys_path()]);
    let text = |name: &str| std::fs::read_to_string(root().join("examples").join(name)).unwrap();
    let (ingress, gateway) = (text("issuer-ingress.yaml"), text("issuer-gateway.yaml"));
    let ingress: Value = serde_saphyr::from_str(&ingress).unwrap();
    let rules = ingress["spec"]["rules"].as_array().unwrap();
    let paths = rules.iter().flat_map(|rule| rule["http"]["paths"].as_array().unwrap());
    let published = paths.map(|path| {
        assert_eq!(path["pathType"], "Exact");
        path["path"].as_str().unwrap().to_owned()
    });
    assert_eq!(published.collect::<BTreeSet<_>>(), public);

    let route: Value = serde_saphyr::from_str(gateway.split("---\n").next().unwrap()).unwrap();
    let rules = route["spec"]["rules"].as_array().unwrap();
    let matches = rules.iter().flat_map(|rule| rule["matches"].as_array().unwrap());
    let published = matches.map(|found| {
        assert_eq!(
            (&found["path"]["type"], &found["method"]),
            (&json!("Exact"), &json!("GET"))
        );
        found["path"]["value"].as_str().unwrap().to_owned()
    });
    assert_eq!(published.collect::<BTreeSet<_>>(), public);
}

#[test]
fn every_yaml_block_of_the_documents_is_an_example() {
    let examples: BTreeSet<String> = examples().iter().map(|(_, text)| without_comment(text)).collect();
    let mut found = 0;
    for (path, text) in documents() {
        for block in blocks(&text, "yaml") {
            assert!(
                examples.contains(&block),
                "{}: no file in examples/ has this text, so nothing applies it:\n{block}",
                path.display()
            );
            found += 1;
        }
    }
    assert!(found >= 8, "only {found} blocks were found");
}

#[test]
fn the_list_of_examples_is_complete() {
    let list = std::fs::read_to_string(root().join("examples/README.md")).unwrap();
    for (path, text) in examples() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            links(&list).contains(&(name, name)),
            "{name} is not in examples/README.md"
        );
        assert!(
            text.starts_with("# "),
            "{name} does not begin with a comment that says what it shows"
        );
    }
}

#[test]
fn the_readme_names_every_annotation_and_label() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for name in [
        annotations::ROLE_ARN,
        annotations::CONTAINER_ROLE_ARN,
        annotations::AUDIENCE,
        annotations::TOKEN_EXPIRATION,
        annotations::CONTAINERS,
        annotations::SKIP_CONTAINERS,
        annotations::INJECT,
        annotations::GRANT,
        annotations::REVIEWED,
        annotations::REQUIRED,
        annotations::ENFORCE,
        annotations::WARN,
        annotations::AUDIT,
    ] {
        let short = name.trim_start_matches("tokenscope.io");
        assert!(readme.contains(name) || readme.contains(&format!("`{short}")), "{name}");
    }
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let mut broken = BTreeSet::new();
    for (path, text) in documents() {
        for (_, link) in links(&text) {
            let file = link.split('#').next().unwrap();
            if !path.parent().unwrap().join(file).exists() {
                broken.insert(format!("{} → {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Walks through the code go out of date with it, so a link such as `[`decide`](core/src/decide/mod.rs)` is checked.
#[test]
fn every_name_that_links_to_a_source_file_is_in_that_file() {
    let mut wrong = BTreeSet::new();
    let mut found = 0;
    for (path, text) in documents() {
        for (name, link) in links(&text) {
            let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else {
                continue;
            };
            if Path::new(link).extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            found += 1;
            let last = name.rsplit("::").next().unwrap();
            let file = path.parent().unwrap().join(link);
            let source = std::fs::read_to_string(&file).unwrap_or_default();
            let is_path = link.contains(&format!("/{last}")); // a module's name
            if !is_path && !source.contains(last) {
                wrong.insert(format!("{}: {name} is not in {link}", path.display()));
            }
        }
    }
    assert!(found >= 20, "only {found} names were found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_index_of_decisions_is_complete() {
    let index = std::fs::read_to_string(root().join("docs/adr/README.md")).unwrap();
    for path in files("docs/adr", "md") {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name != "README.md" {
            assert!(
                index.contains(&format!("({name})")),
                "{name} is not in docs/adr/README.md"
            );
        }
    }
}
