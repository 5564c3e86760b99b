//! The flags that every process has. Each is also an environment variable: `--log-level` is `TOKENSCOPE_LOG_LEVEL`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::telemetry;

/// The flags of every process: its name, its logs and metrics, its way to the cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct CommonArgs {
    /// The namespace that tokenscope itself is installed in
    #[arg(
        long,
        env = "TOKENSCOPE_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "tokenscope-system"
    )]
    pub namespace: String,

    /// The name of this process in the Lease and in Events [default: the host name]
    #[arg(long, env = "TOKENSCOPE_POD_NAME", value_name = "NAME", default_value_t = host_name(), hide_default_value = true)]
    pub pod_name: String,

    /// Where /livez, /readyz and /metrics are served, in plain HTTP
    #[arg(
        long,
        env = "TOKENSCOPE_OBSERVE",
        value_name = "ADDRESS",
        default_value = "[::]:8080"
    )]
    pub observe: SocketAddr,

    /// What is logged: a level, or targets and levels as in "info,kube=debug"; audit lines of the issuer always are, unless "audit=off" is among them
    #[arg(long, env = "TOKENSCOPE_LOG_LEVEL", value_name = "FILTER", default_value = "info", value_parser = telemetry::checked_filter)]
    pub log_level: String,

    /// The form of the log, which goes to standard error
    #[arg(long, env = "TOKENSCOPE_LOG_FORMAT", value_name = "FORMAT", default_value = "json")]
    pub log_format: telemetry::Format,

    /// The kubeconfig to use outside a cluster [default: $KUBECONFIG, else the pod's own service account]
    #[arg(long, env = "TOKENSCOPE_KUBECONFIG", value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,

    /// The process is not ready once a watch has brought nothing for more than so many seconds, because its decisions may be out of date; 0 for never
    #[arg(long, env = "TOKENSCOPE_WATCH_AGE_LIMIT", value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub watch_age_limit: Duration,

    /// The number of threads that serve requests
    #[arg(long, env = "TOKENSCOPE_WORKERS", value_name = "THREADS", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,

    /// Seconds that running work has to finish after SIGTERM; keep it under the pod's termination grace period
    #[arg(long, env = "TOKENSCOPE_STOP_TIMEOUT", value_name = "SECONDS", default_value = "25", value_parser = seconds)]
    pub stop_timeout: Duration,
}

/// A whole number of seconds, for `#[arg(value_parser = seconds)]` on a [`Duration`].
pub fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}

/// The kernel's name for this host, which in a pod is the pod's name.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct TestArguments {
        #[command(flatten)]
        common: CommonArgs,
    }

    #[test]
    fn a_bad_value_is_a_usage_error_that_names_the_flag() {
        for flag in ["--log-level=a=b=c", "--workers=0"] {
            let (name, value) = flag.split_once('=').unwrap();
            let error = TestArguments::try_parse_from(["process", flag])
                .unwrap_err()
                .to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn the_host_is_the_identity_where_no_pod_is_named() {
        let parsed = TestArguments::try_parse_from(["process"]).unwrap();
        assert!(!parsed.common.pod_name.is_empty());
        assert!(!parsed.common.pod_name.contains(char::is_whitespace));
    }
}
