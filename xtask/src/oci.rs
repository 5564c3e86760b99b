//! Writes container images without a registry or a build engine: OCI archives (image-spec 1.1, image-layout), which
//! containerd, podman and Docker load. Unpacks them again for whoever starts their programs without a container.
//!
//! The same files give the same digest: entries are sorted and carry neither time nor user names, and the layer isn't
//! compressed.
//!
//! 180 lines of code, in place of a build engine that each machine would need. The crate `oci-spec` has the types of the three
//! JSON documents, which are a small part of it (docs/adr/0009).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use tar::{Archive, Builder, EntryType, Header};

/// How many archives this process has begun: tests of one program may write the same one at once.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// The user that images run as: the "nonroot" of distroless images.
pub const NON_ROOT: u32 = 65532;

/// An image to write.
#[derive(Clone, Debug)]
pub struct Image {
    /// With its tag: `localhost/tokenscope-webhook:0.1.0`.
    pub name: String,
    /// The command that is started.
    pub entrypoint: Vec<String>,
    /// Files and their places in the image. All can be read and executed by everybody.
    pub files: Vec<(PathBuf, String)>,
    /// Environment variables, as `NAME=value`.
    pub environment: Vec<String>,
    /// Labels: name and value.
    pub labels: Vec<(String, String)>,
}

/// An image that was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its name.
    pub name: String,
    /// The archive.
    pub path: PathBuf,
    /// The layer's size in bytes.
    pub size: u64,
    /// The manifest's digest, which names the image: `sha256:…`.
    pub digest: String,
}

/// The command that starts the program of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartOf {
    /// The command: places in the image.
    pub entrypoint: Vec<String>,
    /// Environment variables, as `NAME=value`.
    pub environment: Vec<String>,
}

/// Unpacks an archive that [`Image::write`] has written. The files of the image are below `folder` then, which is made anew unless it has them
/// already; beside it are its lock and a note of what it has.
///
/// Fails if the archive is another's, or can't be read.
pub fn unpack(archive: &Path, folder: &Path) -> Result<StartOf> {
    let what = || format!("{} is no archive of ours", archive.display());
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    let lock = File::create(folder.with_extension("lock"))?;
    lock.lock()?; // another process may be unpacking it; the kernel releases it
    let file = File::open(archive).with_context(|| format!("can't read {}", archive.display()))?;
    let mut tar = Archive::new(BufReader::new(file));
    let (mut manifest, mut start) = (serde_json::Value::Null, None);
    for entry in tar.entries()? {
        let entry = entry?;
        let place = entry.path()?.display().to_string();
        if place == "manifest.json" {
            // It comes before what it names.
            manifest = serde_json::from_reader(entry)?;
        } else if manifest[0]["Config"] == place.as_str() {
            let config: serde_json::Value = serde_json::from_reader(entry)?;
            let texts = |name: &str| serde_json::from_value(config["config"][name].clone());
            start = Some(StartOf {
                entrypoint: texts("Entrypoint")?,
                environment: texts("Env")?,
            });
        } else if manifest[0]["Layers"][0] == place.as_str() {
            let note = folder.with_extension("unpacked");
            if folder.is_dir() && fs::read_to_string(&note).is_ok_and(|text| text == place) {
                continue;
            }
            fs::write(&note, "")?; // nothing is whole if this process ends meanwhile
            if folder.is_dir() {
                fs::remove_dir_all(folder)?;
            }
            Archive::new(entry).unpack(folder).with_context(what)?;
            fs::write(note, place)?;
        }
    }
    start.with_context(what)
}

impl Image {
    /// An image of one static program, which is its entrypoint.
    ///
    /// Fails if the program needs shared libraries, which the image doesn't have.
    pub fn of_program(name: &str, program: &Path) -> Result<Self> {
        ensure!(
            is_static(program)?,
            "{} isn't linked statically, so it can't be all that is in an image",
            program.display()
        );
        let file = program
            .file_name()
            .and_then(|name| name.to_str())
            .context("a program has a name")?;
        let place = format!("/{file}");
        Ok(Self {
            name: name.to_owned(),
            entrypoint: vec![place.clone()],
            files: vec![(program.to_owned(), place)],
            environment: Vec::new(),
            labels: Vec::new(),
        })
    }

    /// Writes the archive; a reader sees the old one or the whole new one.
    pub fn write(&self, archive: &Path) -> Result<Written> {
        let layer = self.layer()?;
        let layer_digest = digest(&layer);
        let config = serde_json::to_vec(&serde_json::json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {
                "User": format!("{NON_ROOT}:{NON_ROOT}"),
                "Entrypoint": self.entrypoint,
                "Env": self.environment,
                "Labels": self.labels.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            },
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
            "history": [{"created_by": "cargo xtask images"}],
        }))?;
        let manifest = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", &config),
            "layers": [descriptor("layer.v1.tar", &layer)],
        }))?;
        let mut listed = descriptor("manifest.v1+json", &manifest);
        listed["annotations"] = serde_json::json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": self.name,
        });
        let index = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [listed],
        }))?;
        // For what reads only the older layout of `docker save`.
        let docker = serde_json::to_vec(&serde_json::json!([{
            "Config": blob(&config), "RepoTags": [self.name], "Layers": [blob(&layer)],
        }]))?;

        let number = BEGUN.fetch_add(1, Ordering::Relaxed);
        let partial = PathBuf::from(format!("{}.{}-{number}.partial", archive.display(), std::process::id()));
        if let Some(folder) = archive.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut tar = Builder::new(BufWriter::new(
            File::create(&partial).with_context(|| format!("can't write {}", partial.display()))?,
        ));
        append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
        append(&mut tar, "index.json", &index, 0o644)?;
        append(&mut tar, "manifest.json", &docker, 0o644)?;
        for content in [&manifest, &config, &layer] {
            append(&mut tar, &blob(content), content, 0o644)?;
        }
        tar.into_inner()?.flush()?;
        fs::rename(&partial, archive)?;
        Ok(Written {
            name: self.name.clone(),
            path: archive.to_owned(),
            size: layer.len() as u64,
            digest: digest(&manifest),
        })
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut files: Vec<_> = self
            .files
            .iter()
            .map(|(source, place)| (place.trim_start_matches('/'), source))
            .collect();
        files.sort();
        let folders: BTreeSet<&Path> = files
            .iter()
            .flat_map(|(place, _)| Path::new(place).ancestors().skip(1))
            .filter(|folder| !folder.as_os_str().is_empty())
            .collect();
        let mut tar = Builder::new(Vec::new());
        for folder in folders {
            let mut header = header(0, 0o755);
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, folder, [].as_slice())?;
        }
        for (place, source) in files {
            let content = fs::read(source).with_context(|| format!("can't read {}", source.display()))?;
            append(&mut tar, place, &content, 0o755)?;
        }
        Ok(tar.into_inner()?)
    }
}

fn descriptor(kind: &str, content: &[u8]) -> serde_json::Value {
    serde_json::json!({
        "mediaType": format!("application/vnd.oci.image.{kind}"),
        "digest": digest(content),
        "size": content.len(),
    })
}

fn digest(content: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(content) {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn blob(content: &[u8]) -> String {
    format!("blobs/{}", digest(content).replace(':', "/"))
}

fn header(size: usize, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append(tar: &mut Builder<impl Write>, place: &str, content: &[u8], mode: u32) -> Result<()> {
    tar.append_data(&mut header(content.len(), mode), place, content)?;
    Ok(())
}

/// True if a program asks for no dynamic linker: no `PT_INTERP` among the program headers of a 64-bit ELF file.
fn is_static(program: &Path) -> Result<bool> {
    let content = fs::read(program).with_context(|| format!("can't read {}", program.display()))?;
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = content.get(at..at + size)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | usize::from(*byte)),
        )
    };
    let interpreters = || -> Option<usize> {
        let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        let kinds = (0..count).map(|index| number(start + index * size, 4));
        Some(kinds.filter(|kind| *kind == Some(3)).count())
    };
    ensure!(
        content.starts_with(b"\x7fELF\x02\x01"),
        "{} is no 64-bit little-endian ELF program",
        program.display()
    );
    Ok(interpreters().with_context(|| format!("{} is cut off", program.display()))? == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_digest_and_others_another_one() {
        let folder = std::env::temp_dir().join(format!("tokenscope-oci-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("a"), "one").unwrap();
        let image = Image {
            name: "localhost/a:1".to_owned(),
            entrypoint: vec!["/bin/a".to_owned()],
            files: vec![(folder.join("a"), "/bin/a".to_owned())],
            environment: Vec::new(),
            labels: vec![("b".to_owned(), "c".to_owned())],
        };
        let first = image.write(&folder.join("first.tar")).unwrap();
        fs::write(folder.join("a"), "one").unwrap();
        let second = image.write(&folder.join("second.tar")).unwrap();
        assert_eq!(first.digest, second.digest);
        assert_eq!(fs::read(&first.path).unwrap(), fs::read(&second.path).unwrap());
        fs::write(folder.join("a"), "two").unwrap();
        assert_ne!(image.write(&folder.join("third.tar")).unwrap().digest, first.digest);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn an_archive_is_unpacked_once_and_anew_when_it_is_another() {
        let folder = std::env::temp_dir().join(format!("tokenscope-oci-unpacked-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |text: &str| {
            fs::write(folder.join("a"), text).unwrap();
            let image = Image {
                name: "localhost/a:1".to_owned(),
                entrypoint: vec!["/bin/a".to_owned(), "b".to_owned()],
                files: vec![(folder.join("a"), "/bin/a".to_owned())],
                environment: vec!["C=d".to_owned()],
                labels: Vec::new(),
            };
            image.write(&folder.join("a.tar")).unwrap().path
        };
        let files = folder.join("files");
        let start = unpack(&write("one"), &files).unwrap();
        assert_eq!(start.entrypoint, ["/bin/a", "b"]);
        assert_eq!(start.environment, ["C=d"]);
        assert_eq!(fs::read_to_string(files.join("bin/a")).unwrap(), "one");

        fs::write(files.join("kept"), "").unwrap();
        unpack(&write("one"), &files).unwrap();
        assert!(files.join("kept").exists());
        unpack(&write("two"), &files).unwrap();
        assert_eq!(fs::read_to_string(files.join("bin/a")).unwrap(), "two");
        assert!(!files.join("kept").exists());
        fs::write(folder.join("b.tar"), "").unwrap();
        unpack(&folder.join("b.tar"), &files).unwrap_err();
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_program_that_needs_shared_libraries_is_no_image() {
        let test = std::env::current_exe().unwrap();
        let error = Image::of_program("localhost/a:1", &test).unwrap_err();
        assert!(error.to_string().contains("statically"), "{error}");
    }
}
