//! What other machines get: `.ci/run` installs every program that checks and tests run, the workflow runs it, and
//! the Dockerfile makes every image. And the tests that the tables of cases name are there.

#[path = "cases/table.rs"]
mod table_of_cases;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tokenscope_e2e::probes::Sdk;
use tokenscope_xtask::cluster::FROM_DISTRIBUTION;
use tokenscope_xtask::images::{IMAGES, ProgramImage};
use tokenscope_xtask::oci::NON_ROOT;
use tokenscope_xtask::tools::Tool;
use tokenscope_xtask::{cargo, root};

/// What is there before `.ci/run`, or that it asks for, or that is on every Debian.
const GIVEN: [&str; 4] = ["cargo", "rustc", "go", "apt-get"];

/// How a program is named where one is started.
const STARTS: [&str; 4] = ["Command::new(", ".command(", ".run(", ".try_run("];

#[test]
fn ci_installs_every_program_that_is_run() -> Result<()> {
    let packages = packages()?;
    for (program, package) in FROM_DISTRIBUTION {
        assert_eq!(
            packages.get(program).map(String::as_str),
            Some(package),
            "{program} of a cluster"
        );
    }
    for sdk in Sdk::ALL {
        for (program, _) in sdk.toolchain() {
            assert!(
                packages.contains_key(*program),
                "{program} of the probe of {}",
                sdk.name()
            );
        }
    }
    let mut run = BTreeSet::new();
    for folder in ["e2e", "xtask"] {
        programs(&root().join(folder), &mut run)?;
    }
    assert!(
        run.contains("nsenter") && run.contains("mvn") && run.len() > 15,
        "{run:?}"
    );
    let built: Vec<&str> = Tool::ALL.iter().map(|tool| tool.name()).collect();
    let unknown: Vec<_> = run
        .iter()
        .map(|program| program.rsplit('/').next().unwrap_or(program))
        .filter(|program| !packages.contains_key(*program) && !built.contains(program) && !GIVEN.contains(program))
        .collect();
    assert!(unknown.is_empty(), ".ci/run knows no package of {unknown:?}");
    Ok(())
}

/// The table in `.ci/run`: program and package.
fn packages() -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(root().join(".ci/run"))?;
    let (_, rest) = text
        .split_once("programs='\n")
        .context(".ci/run has a table of programs")?;
    let (table, _) = rest.split_once("'\n").context("the table ends")?;
    table
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let row = words.next().zip(words.next()).with_context(|| line.to_owned())?;
            ensure!(words.next().is_none(), "{line}");
            Ok((row.0.to_owned(), row.1.to_owned()))
        })
        .collect()
}

/// The programs that the code in a folder starts by a name that stands there.
fn programs(folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            programs(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests/ci.rs") {
            let text = fs::read_to_string(&path)?;
            for start in STARTS {
                for (at, _) in text.match_indices(start) {
                    let argument = text[at + start.len()..].trim_start().strip_prefix('"');
                    found.extend(argument.and_then(|text| text.split('"').next()).map(str::to_owned));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn the_workflow_runs_what_everybody_can_run() -> Result<()> {
    let text = fs::read_to_string(root().join(".github/workflows/ci.yml"))?;
    assert!(text.contains(" .ci/run\n"), "the workflow runs .ci/run");
    assert!(!text.contains("cargo "), "what is checked stands in .ci/run alone");
    Ok(())
}

#[test]
fn the_dockerfile_has_a_stage_for_every_image_that_is_built_and_nothing_else() -> Result<()> {
    let text = fs::read_to_string(root().join("Dockerfile"))?;
    let (builds, stages) = text
        .split_once("\nFROM scratch AS ")
        .context("a stage follows the build")?;
    assert!(
        builds.contains("RUN cargo xtask images "),
        "the same flags by being the same command"
    );
    let stages: BTreeSet<&str> = stages.split("\nFROM scratch AS ").map(str::trim_end).collect();
    let expected: Vec<String> = IMAGES.iter().map(stage).collect();
    assert_eq!(stages, expected.iter().map(|stage| stage.trim_end()).collect());
    Ok(())
}

#[test]
fn the_dockerfile_builds_for_the_platform_that_it_is_told_and_no_flag_asks_for_more_than_every_processor_has()
-> Result<()> {
    let text = fs::read_to_string(root().join("Dockerfile"))?;
    for word in ["--platform", "TARGETARCH", "amd64", "x86", "arm64", "aarch64"] {
        assert!(
            !text.contains(word),
            "the Dockerfile has {word}: docker build --platform decides"
        );
    }
    for file in [".cargo/config.toml", "Cargo.toml", ".ci/run", "xtask/src/images.rs"] {
        // Static linking is called a feature of the target, and asks nothing of the processor.
        let text = fs::read_to_string(root().join(file))?.replace("target-feature=+crt-static", "");
        for flag in ["target-cpu", "target-feature", "[build]"] {
            assert!(!text.contains(flag), "{file} has {flag}");
        }
    }
    let beyond = [
        ("ssse3", cfg!(target_feature = "ssse3")),
        ("avx", cfg!(target_feature = "avx")),
        ("sve", cfg!(target_feature = "sve")),
    ];
    let beyond: Vec<&str> = beyond
        .iter()
        .filter(|(_, is_used)| *is_used)
        .map(|(name, _)| *name)
        .collect();
    ensure!(beyond.is_empty(), "built for processors that have {beyond:?}");
    Ok(())
}

/// The one place that names architectures is the label of the images.
#[test]
fn no_code_of_the_programs_depends_on_the_architecture() -> Result<()> {
    const WORDS: [&str; 8] = [
        "target_arch",
        "target_feature",
        "target_endian",
        "target_pointer_width",
        "std::arch",
        "core::arch",
        "_feature_detected",
        "from_ne_bytes",
    ];
    fn look(folder: &Path, files: &mut usize) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                look(&path, files)?;
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                *files += 1;
                let text = fs::read_to_string(&path)?;
                let found = WORDS.iter().find(|word| text.contains(**word));
                ensure!(found.is_none(), "{} has {found:?}", path.display());
            }
        }
        Ok(())
    }
    let mut files = 0;
    for package in [
        "aws", "core", "crds", "index", "issuer", "operator", "platform", "sidecar", "webhook",
    ] {
        look(&root().join(package).join("src"), &mut files)?;
    }
    ensure!(files > 200, "only {files} files were looked at");
    Ok(())
}

/// What makes the image that `oci::Image` writes.
/// It is in every such pod, so it has to stay below 2 MB: a library for TLS alone would double it.
#[test]
fn the_sidecar_that_only_renews_svids_has_no_library_for_tls() -> Result<()> {
    let arguments = [
        "tree",
        "--locked",
        "--package=tokenscope-sidecar",
        "--edges=normal",
        "--prefix=none",
    ];
    let tree = |features: &[&str]| -> Result<String> {
        let output = cargo(&arguments).args(features).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let has_tls = |tree: &str| {
        let mut names = tree.lines().filter_map(|line| line.split(' ').next());
        names.any(|name| ["rustls", "aws-lc-rs", "aws-lc-sys", "ring", "openssl"].contains(&name))
    };
    ensure!(has_tls(&tree(&[])?), "the one with all features has one");
    let least = tree(&["--no-default-features", "--features=observe"])?;
    ensure!(!has_tls(&least), "{least}");
    Ok(())
}

fn stage(ProgramImage { name, program, .. }: &ProgramImage) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{}
LABEL org.opencontainers.image.title={name} \\
      org.opencontainers.image.version={version} \\
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /images/{name}/{program} /{program}
USER {NON_ROOT}:{NON_ROOT}
ENTRYPOINT [\"/{program}\"]",
        name.trim_start_matches("tokenscope-")
    )
}
