//! The charts, by the real helm: with the defaults, and with each set of values in `charts/*/ci/`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_tests::helm::{chart, helm, template};

const CHARTS: [&str; 2] = ["tokenscope", "tokenscope-crds"];

#[test]
fn helm_finds_nothing_to_complain_about() -> Result<()> {
    for name in CHARTS {
        for (file, values) in sets_of_values(name)? {
            let folder = chart(name).display().to_string();
            let said = helm(&["lint", "--strict", &folder], &values).with_context(|| file.clone())?;
            ensure!(
                said.contains("1 chart(s) linted, 0 chart(s) failed"),
                "{name} with {file}: {said}"
            );
        }
    }
    Ok(())
}

#[test]
fn every_object_is_whole_and_of_its_own_name() -> Result<()> {
    for name in CHARTS {
        for (file, values) in sets_of_values(name)? {
            let objects = template(name, &values).with_context(|| file.clone())?;
            let mut names: Vec<String> = objects
                .iter()
                .map(|object| {
                    let metadata = &object["metadata"];
                    let names = [&object["apiVersion"], &object["kind"], &metadata["name"]];
                    ensure!(
                        names.iter().all(|name| name.is_string()),
                        "{name} with {file}: {object}"
                    );
                    Ok(format!("{} {} {}", names[1], metadata["namespace"], names[2]))
                })
                .collect::<Result<_>>()?;
            ensure!(names.len() >= 2, "{name} with {file} makes only {names:?}");
            names.sort();
            let all = names.len();
            names.dedup();
            ensure!(
                names.len() == all,
                "{name} with {file} makes an object twice: {names:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_value_that_is_wrong_is_refused_by_its_name() -> Result<()> {
    let wrong = [
        ("certificates", json!({"rotationOverlap": 5})),
        ("enforcement", json!("sometimes")),
        ("webhook", json!({"replicas": "two"})),
        ("webhok", json!({})),
    ];
    for (name, value) in wrong {
        let Err(error) = template("tokenscope", &json!({ name: value })) else {
            anyhow::bail!("{name} is taken");
        };
        ensure!(format!("{error:#}").contains(name), "{name}: {error:#}");
    }
    Ok(())
}

/// The defaults, and what the files say.
fn sets_of_values(name: &str) -> Result<Vec<(String, Value)>> {
    let mut sets = vec![("the defaults".to_owned(), Value::Null)];
    let folder = chart(name).join("ci");
    let files: Vec<PathBuf> = match std::fs::read_dir(&folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?,
        Err(_) => Vec::new(),
    };
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        // A file of comments alone stands for the defaults.
        let values = serde_saphyr::from_str(&text).with_context(|| file.display().to_string())?;
        sets.push((file.display().to_string(), values));
    }
    ensure!(
        name != "tokenscope" || sets.len() > 3,
        "the chart has several sets of values"
    );
    Ok(sets)
}
