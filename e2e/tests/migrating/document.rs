//! docs/migrating-from-eks.md, its sections and commands.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};
use tokenscope_xtask::root;

const DOCUMENT: &str = "docs/migrating-from-eks.md";

/// The sections of the document, by their numbers.
pub(crate) fn sections() -> BTreeMap<u8, String> {
    let text = std::fs::read_to_string(root().join(DOCUMENT)).unwrap();
    let sections = text.split("\n## ").skip(1);
    sections
        .filter_map(|section| {
            let (number, text) = section.split_once(". ")?;
            Some((number.parse().ok()?, text.to_owned()))
        })
        .collect()
}

/// A section without a number, by its title.
pub(crate) fn section(title: &str) -> String {
    let text = std::fs::read_to_string(root().join(DOCUMENT)).unwrap();
    let start = format!("{title}\n");
    let found = text.split("\n## ").find_map(|section| section.strip_prefix(&start));
    found.unwrap_or_else(|| panic!("no section {title}")).to_owned()
}

/// The first fenced block of a language.
pub(crate) fn block(section: &str, language: &str) -> String {
    let start = format!("```{language}\n");
    let (_, rest) = section.split_once(&start).unwrap();
    rest.split("```").next().unwrap().to_owned()
}

/// Something that the document says to do.
pub(crate) enum Block {
    /// A command. One that ends in a backslash goes on in the next line; one with quotation marks is a whole block.
    Command(String),
    /// Objects to apply.
    Yaml(String),
}

/// What a section says to do, in its order.
pub(crate) fn blocks(section: &str) -> Vec<Block> {
    let fenced = section.split("```").skip(1).step_by(2);
    let blocks = fenced.flat_map(|fenced| {
        let (language, text) = fenced.split_once('\n').unwrap();
        match language {
            "yaml" => vec![Block::Yaml(text.to_owned())],
            "sh" if text.contains('\'') => vec![Block::Command(text.to_owned())],
            "sh" => {
                let whole = text.replace("\\\n", " ");
                whole.lines().map(|line| Block::Command(line.to_owned())).collect()
            }
            _ => panic!("a block of {language}"),
        }
    });
    blocks.collect()
}

/// `--set KEY=VALUE`, as helm reads it.
pub(crate) fn set(values: &mut Value, assignment: &str) {
    let (key, value) = assignment.split_once('=').unwrap();
    let place = key.split('.').fold(values, |place, part| &mut place[part]);
    *place = match value {
        "true" => json!(true),
        "false" => json!(false),
        text => json!(text),
    };
}

/// True if a command reads its input with jq.
pub(crate) fn needs_jq(command: &str) -> bool {
    command.contains("| jq ")
}

/// True if jq is installed. `.ci/run` installs it, so there it must be.
pub(crate) fn has_jq() -> bool {
    let found = Command::new("jq").arg("--version").output().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "there is no jq");
    if !found {
        eprintln!("left out: there is no jq");
    }
    found
}
