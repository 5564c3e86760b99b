//! What the documents say is true: every example is applied to a real API server, and every name that they list exists.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail as tests do")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokenscope_core::annotations;
use tokenscope_tests::{Environment, Shared, eventually, install};
use tokenscope_xtask::root;

static SHARED: Shared = Shared::new(install::Options::default);

/// The README and everything in docs/.
fn documents() -> Vec<(PathBuf, String)> {
    let in_docs = std::fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = in_docs
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    paths.sort();
    paths.insert(0, root().join("README.md"));
    paths
        .into_iter()
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect()
}

/// The fenced blocks of a language.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let parts = document.split(&fence).skip(1);
    parts.map(|part| part.split("```").next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_yaml_block_of_the_documents_is_accepted_by_a_real_api_server() {
    let Environment { control_plane, .. } = SHARED.environment().await;
    control_plane.create_namespace("shop", &[]).await.unwrap();
    for service_account in ["orders", "carts", "partner"] {
        control_plane
            .create_service_account("shop", service_account, &[])
            .await
            .unwrap();
    }
    let mut applied = 0;
    for (path, text) in documents() {
        for block in blocks(&text, "yaml") {
            // A pod may come before the webhook has heard of the policy above it.
            eventually(Duration::from_secs(10), "the example is accepted", async || {
                control_plane.apply_yaml(&block).await
            })
            .await
            .unwrap_or_else(|error| panic!("{}: {error:#}\n{block}", path.display()));
            applied += 1;
        }
    }
    assert!(applied >= 8, "only {applied} examples were found");
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
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http")) {
            let file = link.split('#').next().unwrap();
            if !path.parent().unwrap().join(file).exists() {
                broken.insert(format!("{} → {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
