//! What `delivery.type: Profile` adds to the start of a pod: the init container, which writes a config file and ends.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fmt, fs};

use anyhow::{Result, ensure};
use serde::Serialize;
use tokenscope_core::sidecar::WRITE;

use super::ground::{StartCost, start_cost};
use crate::report::Budget;

/// A file with a chain and a further profile, as docs/delivery.md shows it.
const TEXT: &str = "[profile tokenscope-1]
role_arn = arn:aws:iam::111122223333:role/shop/exchange
web_identity_token_file = /var/run/secrets/tokenscope.io/aws/token
role_session_name = exchange-5c9f7d-x2k4p
region = eu-central-1
[default]
role_arn = arn:aws:iam::444455556666:role/partner
source_profile = tokenscope-1
external_id = 7f3e1c
role_session_name = exchange-5c9f7d-x2k4p
region = eu-central-1
[profile reports]
role_arn = arn:aws:iam::111122223333:role/shop/reports
web_identity_token_file = /var/run/secrets/tokenscope.io/aws/token
role_session_name = exchange-5c9f7d-x2k4p
region = us-east-1
";

/// What the init container costs, without what the container runtime takes for any container.
#[derive(Debug, Serialize)]
pub(super) struct ConfigFileCost {
    /// Of the program that writes the file.
    write: StartCost,
    /// Of the same program that prints its version alone.
    version: StartCost,
}

/// Starts the program many times. It writes below `folder`, which is in memory in a pod.
pub(super) fn measure(program: &Path, folder: &Path) -> Result<ConfigFileCost> {
    let file = folder.join("config");
    let arguments = [WRITE, &file.display().to_string(), TEXT];
    let nothing = BTreeMap::new();
    let cost = ConfigFileCost {
        write: start_cost(program, &arguments, &nothing)?,
        version: start_cost(program, &["--version"], &nothing)?,
    };
    ensure!(fs::read_to_string(&file)? == TEXT, "the file has another text");
    Ok(cost)
}

impl ConfigFileCost {
    /// Its aim.
    pub(super) fn budget(&self) -> Budget {
        Budget::at_most("ms to write a config file and end".to_owned(), self.write.ms, 10.0)
    }
}

impl fmt::Display for ConfigFileCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "a config file is written in {:.1} ms, with {:.0} µs of processor time; the program's start alone: {:.1} ms, {:.0} µs\n",
            self.write.ms, self.write.processor_us, self.version.ms, self.version.processor_us
        )
    }
}
