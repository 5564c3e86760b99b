//! The parts of each probe's image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tokenscope_xtask::oci::Image;
use tokenscope_xtask::{cargo, root, run_quietly as run};

use super::files::{files_of, with_libraries};

pub(super) fn go(sources: &Path, built: &Path) -> Result<Image> {
    let program = built.join("probe");
    run(Command::new("go")
        .current_dir(sources)
        .env("CGO_ENABLED", "0")
        .args(["build", "-trimpath", "-ldflags=-s -w", "-buildvcs=false", "-o"])
        .arg(&program))?;
    Image::of_program("", &program)
}

/// An image of an interpreter with its standard library and its installed packages.
pub(super) fn python(sources: &Path, interpreter: &Path, script: &str) -> Result<Image> {
    let ask = "import json, os, sys, sysconfig\n\
               print(json.dumps([os.path.realpath(sys.executable), sysconfig.get_path('stdlib'), sysconfig.get_path('purelib')]))";
    let answer = run(Command::new(interpreter).args(["-c", ask]))?;
    let [program, standard, packages]: [PathBuf; 3] = serde_json::from_str(&answer)?;
    let version = standard
        .file_name()
        .context("lib/python3.x has a name")?
        .to_string_lossy();
    // Of the descriptions of hundreds of services, these are used; the rest are most of what botocore takes.
    let services = [
        "sts",
        "s3",
        "iam",
        "endpoints.json",
        "partitions.json",
        "sdk-default-configuration.json",
        "_retry.json",
    ];
    let needed = |path: &Path| {
        let text = path.to_string_lossy();
        let of_service = text.split_once("packages/botocore/data/").is_none_or(|(_, rest)| {
            services
                .iter()
                .any(|name| rest == *name || rest.starts_with(&format!("{name}/")))
        });
        let unused = [
            "/__pycache__/",
            "/test/",
            "/idlelib/",
            "/tkinter/",
            "/ensurepip/",
            "/site-packages/pip/",
            "/awscli/examples/",
            "/config-",
        ];
        of_service && !unused.iter().any(|part| text.contains(part))
    };
    let mut files = files_of(&standard, &format!("/python/lib/{version}"), &|path| {
        needed(path) && !path.to_string_lossy().contains("site-packages")
    })?;
    files.extend(files_of(&packages, "/python/packages", &needed)?);
    files.push((program, "/python/bin/python3".to_owned()));
    files.push((sources.join(script), "/probe.py".to_owned()));
    with_libraries(&mut files)?;
    Ok(Image {
        name: String::new(),
        entrypoint: vec!["/python/bin/python3".to_owned(), "/probe.py".to_owned()],
        files,
        environment: [
            "PYTHONHOME=/python",
            "PYTHONPATH=/python/packages",
            "PYTHONDONTWRITEBYTECODE=1",
        ]
        .map(str::to_owned)
        .to_vec(),
        labels: Vec::new(),
    })
}

pub(super) fn aws_cli(sources: &Path, built: &Path) -> Result<Image> {
    let environment = built.join("venv");
    run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    run(Command::new(environment.join("bin/python"))
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
        ])
        .args(["--require-hashes", "-r"])
        .arg(sources.join("requirements.txt")))?;
    let mut image = python(sources, &environment.join("bin/python"), "probe.py")?;
    // It keeps what it got below ~/.aws; in a pod whose files can't be written to, this is memory that can.
    image.environment.push("HOME=/dev/shm".to_owned());
    Ok(image)
}

pub(super) fn javascript(sources: &Path, built: &Path) -> Result<Image> {
    for file in ["package.json", "package-lock.json"] {
        fs::copy(sources.join(file), built.join(file))?;
    }
    run(Command::new("npm").current_dir(built).args([
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ]))?;
    let node = run(Command::new("node").args(["-p", "fs.realpathSync(process.execPath)"]))?;
    let mut files = files_of(&built.join("node_modules"), "/app/node_modules", &|path| {
        // What a program that is typed or debugged would need.
        !path.to_string_lossy().ends_with(".d.ts") && !path.to_string_lossy().ends_with(".map")
    })?;
    files.push((sources.join("package.json"), "/app/package.json".to_owned()));
    files.push((sources.join("probe.mjs"), "/app/probe.mjs".to_owned()));
    files.push((PathBuf::from(node.trim()), "/bin/node".to_owned()));
    // Debian's own Node.js has these of its built-in modules beside it, and doesn't start without them.
    for name in ["acorn", "acorn-walk", "cjs-module-lexer", "undici"] {
        let folder = Path::new("/usr/share/nodejs").join(name);
        if folder.is_dir() {
            files.extend(files_of(&folder, &folder.display().to_string(), &|_| true)?);
        }
    }
    with_libraries(&mut files)?;
    Ok(Image {
        name: String::new(),
        entrypoint: vec!["/bin/node".to_owned(), "/app/probe.mjs".to_owned()],
        files,
        environment: Vec::new(),
        labels: Vec::new(),
    })
}

pub(super) fn java(sources: &Path, built: &Path) -> Result<Image> {
    let (jars, classes, runtime) = (built.join("jars"), built.join("classes"), built.join("runtime"));
    run(Command::new("mvn")
        .current_dir(sources)
        .args(["--quiet", "--batch-mode", "--strict-checksums"])
        .arg("org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", jars.display())))?;
    // Maven compares with what its repository says; this is what we say.
    let pinned = sources.join("jars.sha256");
    run(Command::new("sha256sum")
        .current_dir(&jars)
        .args(["--check", "--strict", "--quiet"])
        .arg(&pinned))?;
    let (found, expected) = (
        fs::read_dir(&jars)?.count(),
        fs::read_to_string(&pinned)?.lines().count(),
    );
    ensure!(
        found == expected,
        "{found} jars came, and {} has {expected}",
        pinned.display()
    );
    run(Command::new("javac")
        .arg("--class-path")
        .arg(jars.join("*"))
        .arg("-d")
        .arg(&classes)
        .arg(sources.join("Probe.java")))?;
    run(Command::new("jlink")
        .args([
            "--add-modules",
            "java.se,jdk.unsupported",
            "--strip-debug",
            "--no-man-pages",
            "--no-header-files",
        ])
        .arg("--output")
        .arg(&runtime))?;
    let mut files = files_of(&runtime, "/java", &|_| true)?;
    files.extend(files_of(&jars, "/jars", &|_| true)?);
    files.extend(files_of(&classes, "/classes", &|_| true)?);
    with_libraries(&mut files)?;
    Ok(Image {
        name: String::new(),
        entrypoint: [
            "/java/bin/java",
            "-XX:-UsePerfData",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            "/classes:/jars/*",
            "Probe",
        ]
        .map(str::to_owned)
        .to_vec(),
        files,
        // Its own libraries find each other by their place, but for this folder.
        environment: vec!["LD_LIBRARY_PATH=/java/lib:/java/lib/server".to_owned()],
        labels: Vec::new(),
    })
}

pub(super) fn rust(sources: &Path) -> Result<Image> {
    // Kept when the image is made anew: compiling the SDK takes minutes.
    let target = root().join("target/probes/rust-target");
    run(cargo(&["build", "--locked", "--quiet"])
        .current_dir(sources)
        .arg("--target-dir")
        .arg(&target))?;
    let mut files = vec![(target.join("debug/tokenscope-probe"), "/bin/probe".to_owned())];
    // Without any authority to trust its client for HTTPS can't be made, also if only HTTP is spoken.
    let authorities = "/etc/ssl/certs/ca-certificates.crt";
    files.push((PathBuf::from(authorities), authorities.to_owned()));
    with_libraries(&mut files)?;
    Ok(Image {
        name: String::new(),
        entrypoint: vec!["/bin/probe".to_owned()],
        files,
        environment: Vec::new(),
        labels: Vec::new(),
    })
}
