//! Images of small programs that do what an application does with an AWS SDK, made of this machine's own runtimes.
//!
//! The sources and what they print are in `e2e/probes`. Packages come from their registries, at pinned versions.

mod aws_cli_2;
mod build;
mod files;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokenscope_xtask::fetching::fetch;
use tokenscope_xtask::oci::Image;
use tokenscope_xtask::progress::{Step, say};
use tokenscope_xtask::root;
use tokenscope_xtask::tools::{self, Tool, resolve};

use self::aws_cli_2::aws_cli_2;
use self::build::{aws_cli, go, java, javascript, python, rust};
use self::files::files_of;
pub(crate) use self::files::with_libraries;
use crate::aws::Aws;
use crate::node::{Node, is_ci};

/// An SDK that a probe is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sdk {
    /// boto3.
    Python,
    /// Version 1, from PyPI.
    AwsCli,
    /// Version 2, for x86-64 alone: a program with its own Python, which a package on PyPI has inside.
    AwsCli2,
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
    pub const ALL: [Self; 7] = [
        Self::Go,
        Self::Python,
        Self::JavaScript,
        Self::AwsCli,
        Self::AwsCli2,
        Self::Java,
        Self::Rust,
    ];

    /// The folder of its probe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::AwsCli => "aws-cli",
            Self::AwsCli2 => "aws-cli-2",
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

    /// The tools that its image is made with: programs, and Debian's packages of them. The Rust and Go that this project is
    /// built with are there.
    pub fn toolchain(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Go | Self::Rust => &[],
            Self::Python | Self::AwsCli => &[("python3", "python3-venv")],
            Self::AwsCli2 => &[("python3", "python3-venv"), ("unzip", "unzip")],
            Self::JavaScript => &[("node", "nodejs"), ("npm", "npm")],
            // jlink makes the runtime that the image carries, of the modules that the headless JDK has.
            Self::Java => &[
                ("javac", "openjdk-17-jdk-headless"),
                ("jlink", "openjdk-17-jdk-headless"),
                ("mvn", "maven"),
            ],
        }
    }

    /// The version that is pinned of it.
    pub fn version(self) -> Result<String> {
        let (file, before) = match self {
            Self::Python => ("tools/python/requirements.txt", "boto3=="),
            Self::AwsCli => ("e2e/probes/aws-cli/requirements.txt", "awscli=="),
            Self::AwsCli2 => ("e2e/probes/aws-cli-2/requirements.txt", "here "),
            Self::JavaScript => ("e2e/probes/javascript/package.json", "client-sts\": \""),
            Self::Go => ("e2e/probes/go/go.mod", "aws-sdk-go-v2/config v"),
            Self::Java => ("e2e/probes/java/pom.xml", "<aws.version>"),
            Self::Rust => ("e2e/probes/rust/Cargo.lock", "name = \"aws-config\"\nversion = \""),
        };
        let text = fs::read_to_string(root().join(file)).with_context(|| file.to_owned())?;
        let (_, rest) = text
            .split_once(before)
            .with_context(|| format!("{file} has no {before}"))?;
        let is_of_version = |character: &char| character.is_ascii_digit() || *character == '.';
        Ok(rest.chars().take_while(is_of_version).collect())
    }

    /// As [`Self::load`], but says so and returns false where its toolchain isn't installed; with `CI=true` that is an error.
    pub fn load_if_possible(self, node: &Node) -> Result<bool> {
        let is_possible = self.can_be_built()?;
        if is_possible {
            self.load(node)?;
        }
        Ok(is_possible)
    }

    /// True if its toolchain is installed; says so if not, and with `CI=true` that is an error. Version 2 of the AWS CLI is left out on other
    /// machines than x86-64.
    pub(crate) fn can_be_built(self) -> Result<bool> {
        if self == Self::AwsCli2 && cfg!(not(target_arch = "x86_64")) {
            say(&format!(
                "  {}: left out, because its package is for x86-64 alone",
                self.name()
            ));
            return Ok(false);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let is_there = |program: &str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
        let missing: Vec<String> = self
            .toolchain()
            .iter()
            .filter(|(program, _)| !is_there(program))
            .map(|(program, package)| format!("{program} (Debian: {package})"))
            .collect();
        if missing.is_empty() {
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
        let mut environment = Aws::environment();
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

    /// Its image's archive, which is built unless it is there already.
    pub(crate) fn archive(self) -> Result<PathBuf> {
        let sources = root().join("e2e/probes").join(self.name());
        let built = root().join("target/probes").join(self.name());
        // It is made of other people's programs at pinned versions, so it outlives the target folder as the servers do.
        let kept = tools::cache()?.join("probes");
        let archive = kept.join(format!("{}.tar", self.name()));
        let stamp = archive.with_extension("made-of");
        let mut made_of = made_of(&sources)? + &self.image();
        if self == Self::AwsCli2 {
            made_of += include_str!("aws_cli_2.rs");
        }
        fs::create_dir_all(&kept)?;
        let lock = fs::File::create(archive.with_extension("lock"))?;
        lock.lock()?; // another run may be building it; the kernel releases it
        if archive.exists() && fs::read_to_string(&stamp).is_ok_and(|text| text == made_of) {
            return Ok(archive);
        }
        let step = Step::start(&format!("building the image of the {} probe", self.name()), None);
        let image = fetch(|| self.make(&sources, &built))?;
        let written = Image {
            name: self.image(),
            ..image
        }
        .write(&archive)?;
        fs::write(stamp, made_of)?;
        step.done(&format!("{} MiB", written.size >> 20));
        Ok(archive)
    }

    /// Makes its image in a folder, of which nothing is taken that is there already.
    fn make(self, sources: &Path, built: &Path) -> Result<Image> {
        if built.exists() {
            fs::remove_dir_all(built)?;
        }
        fs::create_dir_all(built)?;
        match self {
            Self::Go => go(sources, built),
            Self::Python => python(sources, &resolve(Tool::Boto3)?, "probe.py"),
            Self::AwsCli => aws_cli(sources, built),
            Self::AwsCli2 => aws_cli_2(sources, built, &self.version()?),
            Self::JavaScript => javascript(sources, built),
            Self::Java => java(sources, built),
            Self::Rust => rust(sources),
        }
    }
}

/// The sources as one text: what the image has to be made of anew when it changes.
fn made_of(sources: &Path) -> Result<String> {
    let code = [include_str!("build.rs"), include_str!("files.rs")];
    let mut text = code.concat();
    text += &fs::read_to_string(root().join("tools/python/requirements.txt"))?;
    for (file, _) in files_of(sources, "/", &|_| true)? {
        text += &fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    }
    Ok(text)
}
