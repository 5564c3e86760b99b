//! Images of small programs that do what an application does with an AWS SDK, made of this machine's own runtimes.
//!
//! The sources and what they print are in `tests/probes`. Packages come from their registries, at pinned versions.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokenscope_xtask::oci::Image;
use tokenscope_xtask::progress::{Step, say};
use tokenscope_xtask::tools::{Tool, resolve};
use tokenscope_xtask::{cargo, root};

use crate::judge::Judge;
use crate::node::{Node, is_ci};

/// An SDK that a probe is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sdk {
    /// boto3.
    Python,
    /// Version 1, from PyPI: version 2 isn't published there.
    AwsCli,
    /// Version 3, on Node.js.
    JavaScript,
    /// Version 2; one static program, so it is the probe for everything else as well.
    Go,
    /// Version 2.
    Java,
    /// aws-config and aws-sdk-s3, which need a newer Rust than the project does.
    Rust,
}

impl Sdk {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Go,
        Self::Python,
        Self::JavaScript,
        Self::AwsCli,
        Self::Java,
        Self::Rust,
    ];

    /// The folder of its probe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::AwsCli => "aws-cli",
            Self::JavaScript => "javascript",
            Self::Go => "go",
            Self::Java => "java",
            Self::Rust => "rust",
        }
    }

    /// The image's name.
    pub fn image(self) -> String {
        format!("localhost/tokenscope-probe-{}:1", self.name())
    }

    /// What its image is made with: programs, and Debian's packages of them. The Rust and Go that this project is built with
    /// are there.
    pub fn toolchain(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Go | Self::Rust => &[],
            Self::Python | Self::AwsCli => &[("python3", "python3-venv")],
            Self::JavaScript => &[("node", "nodejs"), ("npm", "npm")],
            // jlink makes the runtime that the image carries, of the modules that the headless JDK has.
            Self::Java => &[
                ("javac", "openjdk-17-jdk-headless"),
                ("jlink", "openjdk-17-jdk-headless"),
                ("mvn", "maven"),
            ],
        }
    }

    /// As [`Self::load`], but says so and returns false where its toolchain isn't installed; with `CI=true` that is an error.
    pub fn load_if_possible(self, node: &Node) -> Result<bool> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let is_there = |program: &str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
        let missing: Vec<String> = self
            .toolchain()
            .iter()
            .filter(|(program, _)| !is_there(program))
            .map(|(program, package)| format!("{program} (Debian: {package})"))
            .collect();
        if missing.is_empty() {
            self.load(node)?;
            return Ok(true);
        }
        let missing = missing.join(", ");
        if is_ci() {
            bail!(
                "CI=true, so no SDK is left out, and the probe of {} lacks {missing}",
                self.name()
            );
        }
        say(&format!(
            "  {}: left out, because its probe lacks {missing}",
            self.name()
        ));
        Ok(false)
    }

    /// Builds its image unless it is there already, and makes it known to the node.
    ///
    /// Fails if the machine has no such runtime.
    pub fn load(self, node: &Node) -> Result<()> {
        let archive = self.archive()?;
        node.cluster().load(&archive)
    }

    /// A container that runs the probe: as nobody in particular, on a file system that can't be written to.
    pub fn container(self, name: &str, bucket: &str, key: &str) -> Value {
        let mut environment = Judge::environment();
        environment.push(json!({"name": "PROBE_BUCKET", "value": bucket}));
        environment.push(json!({"name": "PROBE_KEY", "value": key}));
        json!({
            "name": name, "image": self.image(), "imagePullPolicy": "Never", "env": environment,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 10001, "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        })
    }

    /// The same, but it goes on with the same clients, each of these seconds.
    pub fn staying(self, name: &str, bucket: &str, key: &str, every: u32) -> Value {
        let mut container = self.container(name, bucket, key);
        if let Some(environment) = container["env"].as_array_mut() {
            environment.push(json!({"name": "PROBE_EVERY", "value": every.to_string()}));
        }
        container
    }

    fn archive(self) -> Result<PathBuf> {
        let sources = root().join("tests/probes").join(self.name());
        let built = root().join("target/probes").join(self.name());
        let archive = built.join("image.tar");
        let stamp = built.join("made-of");
        let made_of = made_of(&sources)?;
        fs::create_dir_all(root().join("target/probes"))?;
        let lock = fs::File::create(built.with_extension("lock"))?;
        lock.lock()?; // another run may be building it; the kernel releases it
        if archive.exists() && fs::read_to_string(&stamp).is_ok_and(|text| text == made_of) {
            return Ok(archive);
        }
        let step = Step::start(&format!("building the image of the {} probe", self.name()), None);
        if built.exists() {
            fs::remove_dir_all(&built)?;
        }
        fs::create_dir_all(&built)?;
        let image = match self {
            Self::Go => go(&sources, &built)?,
            Self::Python => python(&sources, &resolve(Tool::Boto3)?, "probe.py")?,
            Self::AwsCli => aws_cli(&sources, &built)?,
            Self::JavaScript => javascript(&sources, &built)?,
            Self::Java => java(&sources, &built)?,
            Self::Rust => rust(&sources)?,
        };
        let written = Image {
            name: self.image(),
            ..image
        }
        .write(&archive)?;
        fs::write(stamp, made_of)?;
        step.done(&format!("{} MiB", written.size >> 20));
        Ok(archive)
    }
}

/// The sources as one text: what the image has to be made of anew when it changes.
fn made_of(sources: &Path) -> Result<String> {
    let mut text = fs::read_to_string(root().join("tests/src/probes.rs"))?;
    text += &fs::read_to_string(root().join("tools/python/requirements.txt"))?;
    for (file, _) in files_of(sources, "/", &|_| true)? {
        text += &fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    }
    Ok(text)
}

fn go(sources: &Path, built: &Path) -> Result<Image> {
    let program = built.join("probe");
    run(Command::new("go")
        .current_dir(sources)
        .env("CGO_ENABLED", "0")
        .args(["build", "-trimpath", "-ldflags=-s -w", "-buildvcs=false", "-o"])
        .arg(&program))?;
    Image::of_program("", &program)
}

/// An image of an interpreter with its standard library and its installed packages.
fn python(sources: &Path, interpreter: &Path, script: &str) -> Result<Image> {
    let ask = "import json, os, sys, sysconfig
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

fn aws_cli(sources: &Path, built: &Path) -> Result<Image> {
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

fn javascript(sources: &Path, built: &Path) -> Result<Image> {
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

fn java(sources: &Path, built: &Path) -> Result<Image> {
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

fn rust(sources: &Path) -> Result<Image> {
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

/// The files below a folder and their places below another one.
fn files_of(folder: &Path, place: &str, wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("can't read {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() && wanted(&path) {
                let rest = path.strip_prefix(folder)?.to_str().context("a path is UTF-8")?;
                found.push((path.clone(), format!("{}/{rest}", place.trim_end_matches('/'))));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Adds the shared libraries that programs and libraries among the files are linked with, at their places on this machine.
pub(crate) fn with_libraries(files: &mut Vec<(PathBuf, String)>) -> Result<()> {
    let mut libraries = BTreeSet::new();
    for (file, place) in files.iter() {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let is_program = place.contains("/bin/");
        if !is_program && !name.ends_with(".so") && !name.contains(".so.") {
            continue;
        }
        let output = Command::new("ldd").arg(file).stdin(Stdio::null()).output()?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let path = line.split_once("=> ").map_or(line, |(_, path)| path).trim();
            if let Some((path, _)) = path.split_once(" (0x")
                && path.starts_with('/')
            {
                libraries.insert(path.to_owned());
            }
        }
    }
    let own: BTreeSet<PathBuf> = files
        .iter()
        .filter_map(|(file, _)| fs::canonicalize(file).ok())
        .collect();
    for library in libraries {
        let file = fs::canonicalize(&library)?;
        if !own.contains(&file) {
            files.push((file, library));
        }
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
