//! Metrics of the process, in the OpenMetrics text that Prometheus reads.
//!
//! Memory, processor time and start of the process are read from `/proc` here, because prometheus-client has no collector for them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Metric;

/// Histogram buckets, in seconds, for work that takes between 50 µs and 100 ms.
pub const SECONDS_50_MICROS_TO_100_MILLIS: [f64; 11] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
];

/// The `Content-Type` of the text of [`Registry::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The label `outcome`, of few values that we choose.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// The value.
    pub outcome: &'static str,
}

/// Every metric of the process; a clone is another handle to the same ones.
///
/// The lock is taken to register and to write out, never to count.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Mutex<prometheus_client::registry::Registry>>);

impl Registry {
    /// A registry with what every process says of itself: memory, CPU, start time, name and version.
    pub fn new() -> Self {
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(ProcessCollector));
        let build = vec![
            ("process", process_name()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        registry.register(
            "tokenscope_build",
            "Which process this is, and of which version",
            prometheus_client::metrics::info::Info::new(build),
        );
        Self(Arc::new(Mutex::new(registry)))
    }

    /// Adds a metric under the name `tokenscope_<name>`; a counter's name gets `_total` behind it by itself.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        self.with(|registry| registry.register(format!("tokenscope_{name}"), help, metric));
    }

    /// Adds something that knows its numbers only when asked, such as the size of a cache.
    pub fn register_collector(&self, collector: impl Collector) {
        self.with(|registry| registry.register_collector(Box::new(collector)));
    }

    /// All metrics as text.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        self.with(|registry| prometheus_client::encoding::text::encode(&mut text, registry))?;
        Ok(text)
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut prometheus_client::registry::Registry) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes one gauge for each value of a label, for a [`Collector`] of what is known only when asked.
pub fn encode_gauges<L: AsRef<str>, N>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    label: &str,
    values: impl IntoIterator<Item = (L, N)>,
) -> fmt::Result
where
    ConstGauge<N>: EncodeMetric,
{
    let mut descriptor = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (value_of_label, value) in values {
        ConstGauge::new(value).encode(descriptor.encode_family(&[(label, value_of_label.as_ref())])?)?;
    }
    Ok(())
}

/// Writes one gauge of a size, for a [`Collector`] of what is known only when asked.
pub fn encode_size(encoder: &mut DescriptorEncoder<'_>, (name, help): (&str, &str), size: usize) -> fmt::Result {
    let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(i64::try_from(size).unwrap_or(i64::MAX)).encode(descriptor)
}

/// The name of the executable, such as `tokenscope-webhook`.
pub(crate) fn process_name() -> String {
    let executable = std::env::current_exe().ok();
    let name = executable
        .as_deref()
        .and_then(|path| path.file_name())
        .and_then(|name| name.to_str());
    name.unwrap_or("tokenscope").to_owned()
}

/// Reads `/proc/self` at each scrape; names and meanings are those that Prometheus's own client libraries use.
#[derive(Debug)]
struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: f64| {
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        if let Some(bytes) = resident_bytes() {
            gauge("process_resident_memory_bytes", "Resident memory in bytes", bytes)?;
        }
        let Some(times) = process_times() else { return Ok(()) };
        if let Some(booted) = boot_time() {
            gauge(
                "process_start_time_seconds",
                "Start time in seconds since the Unix epoch",
                booted + times.started,
            )?;
        }
        let used = ConstCounter::new(times.used);
        let help = "User and system CPU time in seconds";
        used.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, used.metric_type())?)
    }
}

/// The kernel shows user space its times in this unit on every architecture that Rust's std supports (proc_pid_stat(5), USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

struct ProcessTimes {
    /// Seconds after boot.
    started: f64,
    /// Seconds of CPU, user and system.
    used: f64,
}

fn process_times() -> Option<ProcessTimes> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the command's name in brackets and may itself contain blanks and brackets; the next one is the third.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let seconds = |field: usize| {
        fields
            .get(field - 3)?
            .parse::<f64>()
            .ok()
            .map(|ticks| ticks / TICKS_PER_SECOND)
    };
    Some(ProcessTimes {
        started: seconds(22)?,
        used: seconds(14)? + seconds(15)?,
    })
}

/// The time at which the host booted, in seconds since the Unix epoch.
fn boot_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?
        .trim()
        .strip_suffix(" kB")?
        .parse()
        .ok()?;
    Some(kibibytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn the_text_has_the_process_its_version_and_what_was_registered() {
        let registry = Registry::new();
        let reviews: Counter = Counter::default();
        registry.register("reviews", "Reviews", reviews.clone());
        reviews.inc();

        let text = registry.encode().unwrap();
        assert!(text.contains("tokenscope_reviews_total 1\n"), "{text}");
        assert!(
            text.contains("tokenscope_build_info{process=\"tokenscope_platform"),
            "{text}"
        );
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_start_time_seconds",
        ] {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|value| value.trim().parse::<f64>());
            assert!(matches!(value, Some(Ok(_))), "{name} in {text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
