//! Ceph's programs in a folder of the test's own: their configuration, commands, and servers that end with the test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use tokenscope_xtask::packaged::{Ceph, Packaged, resolve};

use crate::process::{ServerProcess, Start, Watchdog};

/// The cluster's ID, which nobody else sees.
pub(crate) const CLUSTER: &str = "11111111-2222-4333-8444-555555555555";

/// How long a command may take, in seconds: without the monitor or the store it would wait for ever.
const COMMAND_DEADLINE: &str = "180";

/// The programs and the folder that they run in, which is removed at the end.
#[derive(Debug)]
pub(crate) struct Programs {
    ceph: Ceph,
    folder: PathBuf,
    environment: BTreeMap<String, String>,
    watchdog: Arc<Watchdog>,
}

impl Programs {
    /// Makes a folder with the configuration of a cluster whose monitor and gateway have these ports.
    pub(crate) fn in_new_folder(monitor_port: u16, gateway_port: u16) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let ceph = Ceph::in_folder(&resolve(Packaged::Ceph)?)?;
        let name = format!(
            "tokenscope-ceph-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let folder = std::env::temp_dir().join(name);
        for part in ["run", "logs", "monitor", "store", "gateway", "crash"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let watchdog = Watchdog::start(&folder)?;
        let file = folder.join("ceph.conf");
        fs::write(&file, configuration(&folder, &ceph, monitor_port, gateway_port))?;
        let environment = BTreeMap::from([
            ("CEPH_CONF".to_owned(), file.display().to_string()),
            ("LD_LIBRARY_PATH".to_owned(), ceph.library_path()),
        ]);
        Ok(Self {
            ceph,
            folder,
            environment,
            watchdog,
        })
    }

    /// Has programs that are started from now on fetch what they fetch by https through a proxy on this port of 127.0.0.1.
    pub(crate) fn fetch_by_proxy(&mut self, port: u16) {
        let proxy = format!("http://127.0.0.1:{port}");
        self.environment.insert("https_proxy".to_owned(), proxy);
    }

    /// Runs a program to its end, with arguments that have no spaces.
    pub(crate) fn finish(&self, program: &str, arguments: &str) -> Result<()> {
        let mut command = Command::new("timeout");
        command
            .arg(COMMAND_DEADLINE)
            .arg(self.ceph.program(program))
            .args(arguments.split(' '))
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", "/usr/bin:/bin") // of timeout
            .envs(&self.environment);
        let output = command.output().with_context(|| format!("can't run {program}"))?;
        ensure!(
            output.status.success(),
            "{program} {arguments}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Starts a server. It takes no configuration of the monitor: it would fetch that first, know the monitor's address and not
    /// the cluster's ID from it, and be refused on a busy machine for the wrong ID.
    pub(crate) fn serve(&self, program: &str, arguments: &str) -> Result<ServerProcess> {
        let start = Start {
            name: program.to_owned(),
            program: self.ceph.program(program),
            arguments: arguments
                .split(' ')
                .chain(["--no-mon-config"])
                .map(str::to_owned)
                .collect(),
            environment: self.environment.clone(),
            logs: self.folder.join("logs"),
            observe_port: None,
        };
        ServerProcess::start(start, &self.watchdog)
    }
}

/// One monitor, one store in memory without replicas, one gateway; all on loopback, nobody authenticates inside.
///
/// The monitor decides every 50 ms and not every second, as each pool that the gateway makes waits for it. The gateway fetches
/// keys without verifying who serves them: it knows the machine's authorities only, and not the test's.
fn configuration(folder: &Path, ceph: &Ceph, monitor_port: u16, gateway_port: u16) -> String {
    let (folder, libraries) = (folder.display(), ceph.libraries());
    let libraries = libraries.display();
    format!(
        "[global]
fsid = {CLUSTER}
mon_host = v1:127.0.0.1:{monitor_port}
mon_initial_members = a
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_msgr2 = false
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
osd_objectstore = memstore
memstore_device_bytes = 1073741824
run_dir = {folder}/run
admin_socket = {folder}/run/$name.asok
log_to_stderr = true
log_to_file = false
mon_cluster_log_to_file = false
mon_data = {folder}/monitor
osd_data = {folder}/store
crash_dir = {folder}/crash
keyring = {folder}/keyring
erasure_code_dir = {libraries}/ceph/erasure-code
osd_class_dir = {libraries}/rados-classes
plugin_dir = {libraries}/ceph
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{gateway_port}
rgw_data = {folder}/gateway
rgw_s3_auth_use_sts = true
rgw_sts_key = of-a-test-only-1
rgw_verify_ssl = false
"
    )
}
