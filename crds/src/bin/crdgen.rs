//! Writes the custom resource definitions and their reference: `crdgen --out DIR`.

use clap::Parser;
use std::{error::Error, fs, path::PathBuf};

/// Writes the custom resource definitions of tokenscope as YAML, and reference.md about them.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The folder to write to; it is made if it isn't there.
    #[arg(long)]
    out: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { out } = Arguments::parse();
    fs::create_dir_all(&out)?;
    for (name, content) in tokenscope_crds::yaml()? {
        fs::write(out.join(name), content)?;
    }
    fs::write(out.join("reference.md"), tokenscope_crds::reference()?)?;
    Ok(())
}
