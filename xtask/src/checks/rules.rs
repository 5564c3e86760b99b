//! What the packages say of their test programs, in `[package.metadata.tests]`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The programs that a test program may run beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// Beside any other.
    Any,
    /// Beside any that starts no cluster with a node.
    NoOtherNode,
    /// Beside any, since it mostly waits.
    AnyWaiting,
    /// Beside none.
    None,
}

/// The rules of a package for a test program.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) beside: Beside,
    /// Whether it runs optimised programs.
    pub(super) needs_optimised: bool,
    /// Whether it runs images.
    pub(super) needs_images: bool,
    /// Its tests that are left to `--nightly`.
    pub(super) nightly: Vec<String>,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            beside: Beside::Any,
            needs_optimised: false,
            needs_images: false,
            nightly: Vec::new(),
        }
    }
}

/// By manifest and program, what is not as for all others.
#[derive(Debug, Default)]
pub(super) struct Rules(BTreeMap<(PathBuf, String), Rule>);

impl Rules {
    /// Reads what `cargo metadata` printed. A rule for a program that isn't there is an error.
    pub(super) fn of(metadata: &str) -> Result<Self> {
        let metadata: Value = serde_json::from_str(metadata)?;
        let mut rules = Self::default();
        for package in metadata["packages"].as_array().into_iter().flatten() {
            for kind in ["alone", "node", "waits", "optimised", "images", "nightly"] {
                rules.add(package, kind)?;
            }
        }
        Ok(rules)
    }

    /// The rules that apply to a program.
    pub(super) fn of_program(&self, manifest: &Path, name: &str) -> Rule {
        let rule = self.0.get(&(manifest.to_owned(), name.to_owned()));
        rule.cloned().unwrap_or_default()
    }

    /// Adds what a package says of one kind.
    fn add(&mut self, package: &Value, kind: &str) -> Result<()> {
        let manifest = text(package, "manifest_path")?;
        let targets = package["targets"].as_array().into_iter().flatten();
        for name in package["metadata"]["tests"][kind].as_array().into_iter().flatten() {
            let name = name.as_str().context("the name of a test program is a text")?;
            let (name, test) = name.split_once("::").unwrap_or((name, ""));
            ensure!(
                targets.clone().any(|target| target["name"] == *name),
                "{manifest} has a rule for {name}, which it doesn't have"
            );
            ensure!(
                (kind == "nightly") != test.is_empty(),
                "{manifest} has a rule for {name}: {kind} takes {}",
                if test.is_empty() {
                    "single tests"
                } else {
                    "whole programs"
                }
            );
            let rule = self.0.entry((PathBuf::from(manifest), name.to_owned())).or_default();
            match kind {
                "alone" => rule.beside = Beside::None,
                "node" => rule.beside = Beside::NoOtherNode,
                "waits" => rule.beside = Beside::AnyWaiting,
                "optimised" => rule.needs_optimised = true,
                "nightly" => rule.nightly.push(test.to_owned()),
                _ => rule.needs_images = true,
            }
        }
        Ok(())
    }
}

/// A text in what cargo prints.
pub(super) fn text<'a>(object: &'a Value, field: &str) -> Result<&'a str> {
    object[field].as_str().with_context(|| format!("cargo gives {field:?}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokenscope_xtask::{cargo, root};

    use super::*;

    /// All sources of a test program in one text.
    fn sources(folder: &Path, program: &str) -> String {
        let tests = folder.join("tests");
        let files = fs::read_dir(tests.join(program)).into_iter().flatten().flatten();
        let files = files
            .map(|entry| entry.path())
            .chain([tests.join(format!("{program}.rs"))]);
        files.filter_map(|file| fs::read_to_string(file).ok()).collect()
    }

    #[test]
    fn each_test_that_is_left_to_nightly_is_there() {
        let output = cargo(&["metadata", "--no-deps", "--format-version=1", "--locked"])
            .current_dir(root())
            .output()
            .unwrap();
        let rules = Rules::of(&String::from_utf8(output.stdout).unwrap()).unwrap();
        let mut seen = 0;
        for ((manifest, program), rule) in &rules.0 {
            for test in &rule.nightly {
                let name = test.rsplit("::").next().unwrap_or_default();
                let sources = sources(manifest.parent().unwrap(), program);
                assert!(sources.contains(&format!("fn {name}(")), "{program} has no test {test}");
                seen += 1;
            }
        }
        assert!(seen > 0);
    }

    #[test]
    fn a_whole_program_is_not_left_to_nightly_and_a_single_test_does_not_run_alone() {
        for (kind, name) in [("nightly", "docs"), ("alone", "docs::links")] {
            let metadata = serde_json::json!({"packages": [{
                "manifest_path": "/x/e2e/Cargo.toml", "metadata": {"tests": {kind: [name]}},
                "targets": [{"name": "docs"}],
            }]});
            let error = Rules::of(&metadata.to_string()).unwrap_err().to_string();
            assert!(error.contains(kind), "{error}");
        }
    }
}
