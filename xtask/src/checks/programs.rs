//! The test programs of the workspace: how they are compiled, and which of them may run beside which.
//!
//! Everything is compiled by one call of cargo, so that no dependency is compiled twice for two sets of features. A package
//! names in `[package.metadata.tests]` its test programs that can't run beside all others: `alone` are those that judge times,
//! and `node` those that start a cluster with a node. `waits` are those that mostly wait, so that more of them run at once. `optimised` are
//! those that run optimised programs, and `images` those that run the images, which are optimised with `--nightly`. `nightly` are single
//! tests, such as `upgrade::helm::…`, that run with `--nightly` or by their name only.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokenscope_xtask::progress::Step;
use tokenscope_xtask::{cargo, root};

use super::SYSTEM_TESTS;
use super::rules::{Beside, Rule, Rules, text};
use super::selection::Selection;

/// A compiled test program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// The package's folder and the program's name, such as `platform/tls`; unit tests have the name of the crate.
    pub(super) name: String,
    /// The program and its arguments.
    pub(super) command: Vec<PathBuf>,
    /// The package's folder, in which it runs.
    pub(super) folder: PathBuf,
    /// The programs that it may run beside.
    pub(super) beside: Beside,
    /// True if it runs optimised programs, where those are built.
    pub(super) needs_optimised: bool,
}

/// Compiles the selected test programs, and for system tests every program of the workspace. The last one of the list is
/// cargo, which runs the examples in the documentation.
pub(super) fn build(selection: &Selection) -> Result<Vec<Program>> {
    let rules = Rules::of(&output(&mut cargo(&[
        "metadata",
        "--no-deps",
        "--format-version=1",
        "--locked",
    ]))?)?;
    let step = Step::start("compiling the tests", None);
    let messages = output(&mut build_command(selection))?;
    let mut programs = parse(&messages, &rules, selection)?;
    step.done(&format!("{} programs", programs.len()));
    programs.push(documentation(selection));
    Ok(programs)
}

/// The folder of [`optimise`], beside that of programs that are compiled quickly.
pub(super) const OPTIMISED_FOLDER: &str = "release";

/// Compiles programs of the workspace with Cargo's usual optimisation.
pub(super) fn optimise(programs: &[&str]) -> Result<()> {
    let mut command = cargo(&["build", "--workspace", "--locked", "--release"]);
    command.args(programs.iter().flat_map(|program| ["--bin", program]));
    output(&mut command).map(drop)
}

/// Both forms select packages with the same features, so that nothing is compiled twice for them.
fn build_command(selection: &Selection) -> Command {
    let mut command = cargo(&["build", "--tests", "--message-format=json-render-diagnostics"]);
    command.args(packages(selection));
    if !selection.unit {
        command.arg("--bins"); // system tests start them
    }
    command
}

fn packages(selection: &Selection) -> Vec<&'static str> {
    let mut arguments = vec!["--workspace", "--locked"];
    if selection.unit {
        arguments.extend(["--exclude", SYSTEM_TESTS]);
    }
    arguments
}

/// The examples in the documentation, which cargo compiles and runs.
fn documentation(selection: &Selection) -> Program {
    let cargo = cargo(&[]).get_program().into();
    let arguments = ["test", "--doc", "--quiet", "--no-fail-fast"];
    let arguments = arguments.into_iter().chain(packages(selection)).chain(["--"]);
    Program {
        name: "documentation".to_owned(),
        command: [cargo].into_iter().chain(arguments.map(PathBuf::from)).collect(),
        folder: root().to_owned(),
        beside: Beside::Any,
        needs_optimised: false,
    }
}

/// The standard output of a command; an error has its standard error.
fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// The test programs in the messages of `cargo build`.
fn parse(messages: &str, rules: &Rules, selection: &Selection) -> Result<Vec<Program>> {
    let leaves_out = !selection.nightly && selection.filter.is_none();
    let mut programs = Vec::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).context("cargo prints a JSON object a line")?;
        let Some(executable) = message["executable"].as_str() else {
            continue;
        };
        if message["profile"]["test"] != true {
            continue;
        }
        let manifest = Path::new(text(&message, "manifest_path")?);
        let folder = manifest.parent().context("a manifest is in a folder")?;
        let target = text(&message["target"], "name")?;
        let package = folder.file_name().unwrap_or_default().to_string_lossy();
        let Rule {
            beside,
            needs_optimised,
            needs_images,
            nightly,
        } = rules.of_program(manifest, target);
        let skipped = nightly.iter().filter(|_| leaves_out);
        let skipped = skipped.flat_map(|test| ["--skip".into(), test.into()]);
        programs.push(Program {
            name: format!("{package}/{target}"),
            command: [executable.into()].into_iter().chain(skipped).collect(),
            folder: folder.to_owned(),
            beside,
            needs_optimised: needs_optimised || (needs_images && selection.nightly),
        });
    }
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn arguments(selection: &Selection) -> Vec<String> {
        let command = build_command(selection);
        let arguments = command.get_args().map(|argument| argument.to_str().unwrap().to_owned());
        arguments.collect()
    }

    fn metadata(rules: &Value) -> String {
        json!({"packages": [{
            "manifest_path": "/x/e2e/Cargo.toml", "metadata": {"tests": rules},
            "targets": [{"name": "hostile"}, {"name": "cluster"}, {"name": "docs"}],
        }]})
        .to_string()
    }

    fn artifact(name: &str, test: bool, executable: Option<&str>) -> String {
        let message = json!({
            "reason": "compiler-artifact", "manifest_path": "/x/e2e/Cargo.toml", "target": {"name": name},
            "profile": {"test": test}, "executable": executable,
        });
        format!("{message}\n")
    }

    #[test]
    fn unit_tests_are_of_every_crate_but_the_one_of_system_tests() {
        let unit = Selection {
            unit: true,
            ..Selection::default()
        };
        let excluded = ["--exclude".to_owned(), SYSTEM_TESTS.to_owned()];
        assert!(arguments(&unit).contains(&"--workspace".to_owned()));
        assert!(arguments(&unit).windows(2).any(|pair| pair == excluded));
        assert!(!arguments(&Selection::default()).contains(&excluded[0]));
        assert!(arguments(&Selection::default()).contains(&"--bins".to_owned()));
    }

    #[test]
    fn the_programs_that_cargo_has_built_for_tests_are_found_with_their_rules() {
        let rules = Rules::of(&metadata(&json!({
            "alone": ["hostile"], "node": ["cluster"], "optimised": ["hostile"], "images": ["cluster"],
            "nightly": ["docs::long", "docs::of::a_year"],
        })))
        .unwrap();
        let messages = [
            artifact("docs", true, Some("/x/target/docs-1")),
            artifact("tokenscope_e2e", false, None),
            artifact("demo", false, Some("/x/target/demo")),
            artifact("hostile", true, Some("/x/target/hostile-2")),
            artifact("cluster", true, Some("/x/target/cluster-3")),
            "{\"reason\": \"build-finished\", \"success\": true}\n".to_owned(),
        ];
        let parsed = |selection: &Selection| parse(&messages.concat(), &rules, selection).unwrap();
        let programs = parsed(&Selection::default());
        let found: Vec<_> = programs
            .iter()
            .map(|program| (program.name.as_str(), program.beside))
            .collect();
        let expected = [
            ("e2e/cluster", Beside::NoOtherNode),
            ("e2e/docs", Beside::Any),
            ("e2e/hostile", Beside::None),
        ];
        assert_eq!(found, expected);
        let nightly = Selection {
            nightly: true,
            ..Selection::default()
        };
        let waiting = |selection: &Selection| {
            let waiting = parsed(selection).into_iter().filter(|program| program.needs_optimised);
            waiting.map(|program| program.name).collect::<Vec<_>>()
        };
        assert_eq!(waiting(&Selection::default()), ["e2e/hostile"]);
        assert_eq!(waiting(&nightly), ["e2e/cluster", "e2e/hostile"]);
        assert_eq!(programs[1].folder, Path::new("/x/e2e"));
        let named = Selection {
            filter: Some("year".to_owned()),
            ..Selection::default()
        };
        let command = |selection: &Selection| parsed(selection).remove(1).command;
        let skipping = ["/x/target/docs-1", "--skip", "long", "--skip", "of::a_year"].map(PathBuf::from);
        assert_eq!(command(&Selection::default()), skipping);
        assert_eq!(command(&nightly), skipping[..1]);
        assert_eq!(command(&named), skipping[..1], "by its name it runs");
    }

    #[test]
    fn a_rule_for_a_program_that_is_not_there_is_an_error() {
        let error = Rules::of(&metadata(&json!({"alone": ["gone"]})))
            .unwrap_err()
            .to_string();
        assert!(error.contains("gone"), "{error}");
    }

    /// The suite and the clusters are what matters most to keep apart, so this fails if their rules are lost.
    #[test]
    fn the_hostile_suite_runs_alone_with_optimised_programs_and_one_cluster_that_computes_at_a_time() {
        let manifest = std::fs::read_to_string(root().join(system_tests_folder()).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("alone = [\"hostile\"]"), "{manifest}");
        assert!(
            manifest.contains("node = [\"cluster\", \"cluster_lifecycle\", \"delivery_cluster\"]"),
            "{manifest}"
        );
        assert!(manifest.contains("optimised = [\"hostile\"]"), "{manifest}");
        assert!(
            manifest.contains("images = [\"cluster\", \"delivery_cluster\", \"spiffe_cluster\"]"),
            "{manifest}"
        );
    }

    /// What finds and starts servers is in xtask and in the crate of system tests.
    #[test]
    fn no_crate_with_unit_tests_depends_on_what_starts_servers() {
        let members = members();
        assert!(members.contains(&"core".to_owned()) && members.len() > 8, "{members:?}");
        for member in members.into_iter().filter(|member| *member != system_tests_folder()) {
            let manifest = std::fs::read_to_string(root().join(&member).join("Cargo.toml")).unwrap();
            let dependencies = &manifest[manifest.find("[dependencies]").unwrap()..];
            for forbidden in ["tokenscope-xtask", SYSTEM_TESTS] {
                assert!(!dependencies.contains(forbidden), "{member} depends on {forbidden}");
            }
        }
    }

    /// A program without tests has `test = false`, so that no second, empty one is linked. A test in it would never run.
    #[test]
    fn programs_that_are_not_tested_have_no_tests() {
        let metadata = output(&mut cargo(&["metadata", "--no-deps", "--format-version=1", "--locked"])).unwrap();
        let metadata: Value = serde_json::from_str(&metadata).unwrap();
        let packages = metadata["packages"].as_array().unwrap();
        let targets = packages
            .iter()
            .flat_map(|package| package["targets"].as_array().unwrap());
        let untested: Vec<_> = targets.filter(|target| target["test"] == false).collect();
        assert!(untested.len() > 5, "{untested:?}");
        for target in untested {
            let path = target["src_path"].as_str().unwrap();
            let source = std::fs::read_to_string(path).unwrap();
            assert!(
                !source.contains("#[cfg(test)]") && !source.contains("#[test]"),
                "{path} has tests that never run"
            );
        }
    }

    fn members() -> Vec<String> {
        let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        let members = workspace
            .lines()
            .find_map(|line| line.strip_prefix("members = ["))
            .unwrap();
        let members = members.trim_end_matches(']').split(", ");
        members.map(|member| member.trim_matches('"').to_owned()).collect()
    }

    fn system_tests_folder() -> String {
        let is_it = |member: &String| {
            let manifest = std::fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
            manifest.contains(&format!("name = \"{SYSTEM_TESTS}\""))
        };
        members().into_iter().find(is_it).unwrap()
    }
}
