//! The tables of cases beside this file: each case stands in them once, and the tests that they name are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tokenscope_xtask::root;

/// The crates whose tests the tables name.
const CRATES: [&str; 8] = [
    "core", "crds", "e2e", "issuer", "operator", "platform", "sidecar", "webhook",
];
const TABLES: [&str; 3] = ["README.md", "awkward.md", "own.md"];

/// Cases that the lists number; those that are missing between were none.
fn expected() -> BTreeSet<String> {
    let numbered = |letter: char, last: u8, missing: u8| {
        let numbers = (1..=last).filter(move |number| *number != missing);
        numbers.map(move |number| format!("{letter}{number}"))
    };
    numbered('F', 17, 6)
        .chain(numbered('A', 18, 15))
        .chain(numbered('O', 15, 0))
        .collect()
}

/// The sources of one crate.
#[derive(Debug, Default)]
struct Sources {
    /// The names of all functions that are tests.
    tests: BTreeSet<String>,
    /// The paths of all files, in the repository.
    files: Vec<String>,
}

#[test]
fn the_tables_of_cases_have_each_case_once_and_name_tests_that_are_there() -> Result<()> {
    let mut sources = BTreeMap::new();
    for name in CRATES {
        let mut found = Sources::default();
        read_sources(&root().join(name), &mut found)?;
        ensure!(found.tests.len() > 20, "{name} has only {} tests", found.tests.len());
        sources.insert(name, found);
    }
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for table in TABLES {
        let text = fs::read_to_string(root().join("e2e/tests/cases").join(table))?;
        for row in rows(&text)? {
            let case = row.number.as_deref().unwrap_or("a case of our own upgrade");
            if let Some(number) = &row.number {
                ensure!(seen.insert(number.clone()), "{number} stands there twice");
            }
            let faults = faults(&row.tests, &sources);
            wrong.extend(faults.into_iter().map(|fault| format!("{table}, {case}: {fault}")));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:#?}");
    let expected = expected();
    assert_eq!(seen, expected);
    Ok(())
}

/// A row of a table.
struct Row {
    /// The case's number, where the table has one.
    number: Option<String>,
    /// The text that names its tests.
    tests: String,
}

/// The rows of all tables of a text. Each table has a column `test`.
fn rows(text: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut header: Option<Vec<&str>> = None;
    for line in text.lines() {
        let Some(line) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else {
            if !line.starts_with("|---") {
                header = None;
            }
            continue;
        };
        let cells: Vec<&str> = line.split(" | ").map(str::trim).collect();
        let Some(columns) = &header else {
            header = Some(cells);
            continue;
        };
        ensure!(cells.len() == columns.len(), "{line}: {} cells", cells.len());
        let cell = |name: &str| columns.iter().position(|column| *column == name).map(|at| cells[at]);
        rows.push(Row {
            number: cell("number").map(ToOwned::to_owned),
            tests: cell("test").context("a table without the column test")?.to_owned(),
        });
    }
    Ok(rows)
}

/// What is wrong with the text that names a case's tests: after a crate, or a path in it, names of its tests in back quotes. One that ends
/// with an ellipsis stands for all that begin like this.
fn faults(text: &str, sources: &BTreeMap<&str, Sources>) -> Vec<String> {
    let mut faults = Vec::new();
    let (mut at, mut named) = (None, 0);
    let is_end = |c: char| c.is_whitespace() || ",;:()`".contains(c);
    for word in text.split(is_end).filter(|word| !word.is_empty()) {
        let first = word.split('/').next().unwrap_or_default();
        if let Some((name, found)) = sources.get_key_value(first) {
            at = Some((*name, found));
        }
        let ending = word.rsplit_once('.').map(|(_, ending)| ending);
        if ending == Some("rs") {
            let is_there = at.is_some_and(|(_, found)| found.files.iter().any(|file| file.ends_with(word)));
            faults.extend((!is_there).then(|| format!("no file {word}")));
        } else if ending == Some("md") {
            let is_there = root().join(word).is_file();
            faults.extend((!is_there).then(|| format!("no file {word}")));
        } else if word.contains('_') && text.contains(&format!("`{word}`")) {
            named += 1;
            let Some((name, found)) = at else {
                faults.push(format!("no crate is named before {word}"));
                continue;
            };
            let is_there = match word.strip_suffix('…') {
                Some(start) => found.tests.iter().any(|test| test.starts_with(start)),
                None => found.tests.contains(word),
            };
            faults.extend((!is_there).then(|| format!("{name} has no test {word}")));
        }
    }
    if named == 0 {
        faults.push("no test is named".to_owned());
    }
    faults
}

/// Reads the tests of all Rust files in a folder: functions after `#[test]` or the like, and those of property tests.
fn read_sources(folder: &Path, found: &mut Sources) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_sources(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let mut is_test = false;
            for line in fs::read_to_string(&path)?.lines().map(str::trim) {
                if line.starts_with("#[") {
                    is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
                } else if let Some((_, name)) = line.split_once("fn ") {
                    let name = name.split('(').next().unwrap_or_default();
                    found.tests.extend(is_test.then(|| name.to_owned()));
                    is_test = false;
                }
            }
            let path = path.strip_prefix(root())?.display().to_string();
            found.files.push(path);
        }
    }
    Ok(())
}
