//! No two crates have a public type of one name, so that whoever searches for a name finds one thing.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::{Item, Visibility};
use tokenscope_xtask::root;

/// Names that may repeat: a module's own error and a program's arguments, which are read with the module's name; and AWS's name of a
/// parameter, which `aws` writes and `sts`, which shares no code with it, reads.
const MAY_REPEAT: [&str; 3] = ["Arguments", "Error", "SubjectMode"];

/// The sources below a folder, without those of unit tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.ends_with("tests") || path.ends_with("tests.rs") {
            continue;
        }
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The public types of a file: those of one crate alone are read in its own modules.
fn types(file: &Path) -> Vec<String> {
    let parsed = syn::parse_file(&std::fs::read_to_string(file).unwrap()).unwrap();
    let names = parsed.items.into_iter().filter_map(|item| match item {
        Item::Enum(item) => Some((item.vis, item.ident)),
        Item::Struct(item) => Some((item.vis, item.ident)),
        Item::Trait(item) => Some((item.vis, item.ident)),
        Item::Type(item) => Some((item.vis, item.ident)),
        _ => None,
    });
    let public = names.filter(|(visibility, _)| matches!(visibility, Visibility::Public(_)));
    public.map(|(_, name)| name.to_string()).collect()
}

#[test]
fn no_two_crates_have_a_public_type_of_one_name() {
    let mut crates_of: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in std::fs::read_dir(root()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        // The system tests name their helpers for themselves: no program contains them.
        if name == "e2e" {
            continue;
        }
        for file in sources(&entry.path().join("src")) {
            for found in types(&file) {
                crates_of.entry(found).or_default().insert(name.clone());
            }
        }
    }
    assert!(crates_of.len() > 300, "{}", crates_of.len());
    crates_of.retain(|name, crates| crates.len() > 1 && !MAY_REPEAT.contains(&name.as_str()));
    assert!(
        crates_of.is_empty(),
        "types of one name in several crates: {crates_of:#?}"
    );
}
