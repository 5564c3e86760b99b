//! What many pods cost.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokenscope_xtask::progress::say;

use crate::{set, shared, without_node};

#[test]
fn a_thousand_pods_do_not_make_the_processes_grow() -> Result<()> {
    let Some(shared) = shared()? else { return Ok(()) };
    let node = &shared.node;
    let role = shared.workloads("thousand")?;
    let measure = |when: &str| -> Result<u64> {
        let mut most = 0;
        for program in ["tokenscope-webhook", "tokenscope-operator"] {
            let found = node.memory_of(program)?;
            ensure!(found.len() == 2, "{program}: {found:?}");
            let figures: Vec<String> = found
                .iter()
                .map(|memory| format!("{:.1} (peak {:.1})", mebibytes(memory.resident), mebibytes(memory.peak)))
                .collect();
            say(&format!("  {program}, {when}: {} MiB resident", figures.join(", ")));
            most = found
                .iter()
                .map(|memory| memory.peak)
                .max()
                .unwrap_or_default()
                .max(most);
        }
        Ok(most)
    };
    measure("at rest")?;
    let started = Instant::now();
    let mut many = set("ReplicaSet", "thousand", "many", &without_node(Some(&role)));
    many["spec"]["replicas"] = 1000.into();
    node.apply(&[many])?;
    node.eventually(Duration::from_secs(600), "there are a thousand pods", || {
        let count = node.kubectl_in(
            "thousand",
            &["get", "rs", "many", "--output=jsonpath={.status.replicas}"],
        )?;
        ensure!(count == "1000", "there are {count}");
        Ok(())
    })?;
    say(&format!(
        "  1,000 pods were created in {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    let most = measure("after 1,000 pods")?;
    node.kubectl(&["delete", "namespace", "thousand", "--wait=false"])?;
    assert!(
        most < 96 << 20,
        "more than three quarters of the webhook's limit: {most} bytes"
    );
    Ok(())
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
