//! Replacing what is installed by another release or other values, as helm and rolling updates do, while pods are created all the time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_fixtures::free_port;

use crate::admission::{Answer, create_pod};
use crate::control_plane::ControlPlane;
use crate::eventually;
use crate::fixtures::{annotation, reviewed};
use crate::forward::Forward;
use crate::helm::NAMESPACE;
use crate::install::{Installed, Options, install};

/// How long a process may take to answer its last reviews and end.
const DRAIN: Duration = Duration::from_secs(120);
/// How long some more pods may take.
const GOES_ON: Duration = Duration::from_secs(120);

/// An installation that is replaced by others behind one address, which stands for the webhook's Service.
#[derive(Debug)]
pub struct Rollout {
    service: Forward,
    installed: Installed,
    number: usize,
}

impl Rollout {
    /// Installs into a control plane where nothing is installed.
    pub async fn start(control_plane: &ControlPlane, options: Options) -> Result<Self> {
        let service = Forward::listen(free_port()?)?;
        let options = Options {
            service: Some(service.clone()),
            prefix: "first-",
            ..options
        };
        let installed = install(control_plane, options).await?;
        Ok(Self {
            service,
            installed,
            number: 0,
        })
    }

    /// What is installed.
    pub fn installed(&self) -> &Installed {
        &self.installed
    }

    /// How often it was replaced.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Applies the objects of the next one and starts its programs beside those that run: new reviews go to both. `prefix` is that of the
    /// new processes' names.
    pub async fn begin(
        &mut self,
        control_plane: &ControlPlane,
        prefix: &'static str,
        options: Options,
    ) -> Result<Leaving> {
        let options = Options {
            service: Some(self.service.clone()),
            upgrade: true,
            prefix,
            ..options
        };
        let next = install(control_plane, options).await?;
        let old = std::mem::replace(&mut self.installed, next);
        self.number += 1;
        self.remove(control_plane, &old)?;
        Ok(Leaving(old))
    }

    /// Lets the old programs answer their last reviews and end.
    pub async fn end(&self, control_plane: &ControlPlane, Leaving(old): Leaving) -> Result<()> {
        for webhook in old.webhook_ports() {
            self.service.remove(*webhook);
        }
        for process in old.processes() {
            process.terminate(DRAIN).await?;
        }
        self.installed.wait_ready(control_plane).await
    }

    /// Both, with both versions side by side for a while.
    pub async fn replace(
        &mut self,
        control_plane: &ControlPlane,
        prefix: &'static str,
        options: Options,
        side_by_side: Duration,
    ) -> Result<()> {
        let leaving = self.begin(control_plane, prefix, options).await?;
        tokio::time::sleep(side_by_side).await;
        self.end(control_plane, leaving).await
    }

    /// Removes the objects that the release before had and this one has not.
    fn remove(&self, control_plane: &ControlPlane, old: &Installed) -> Result<()> {
        let key = |object: &Value| (object["kind"].clone(), object["metadata"]["name"].clone());
        let kept: Vec<_> = self.installed.objects().iter().map(key).collect();
        for object in old.objects().iter().filter(|object| !kept.contains(&key(object))) {
            let arguments = [
                "delete",
                "--ignore-not-found",
                "--namespace",
                NAMESPACE,
                "--filename",
                "-",
            ];
            control_plane.kubectl(&arguments, &object.to_string())?;
        }
        Ok(())
    }
}

/// An installation whose programs still run beside those that replace it.
#[derive(Debug)]
pub struct Leaving(Installed);

impl Leaving {
    /// The installation itself.
    pub fn installed(&self) -> &Installed {
        &self.0
    }
}

/// Says what is wrong with the answer to a pod.
pub type Judge = Arc<dyn Fn(&Answer) -> Result<()> + Send + Sync>;

/// Pods that are created all the time, one after the other of each kind, until [`Load::end`].
pub struct Load {
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// The most problems that are kept.
const MOST_PROBLEMS: usize = 20;

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    created: AtomicUsize,
    granted: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

impl Load {
    /// Begins, with a pause behind each pod of a kind. The pods' names are generated.
    pub fn begin(client: &Client, pods: Vec<(Value, Judge)>, pause: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let tasks = pods.into_iter().map(|(mut pod, judge)| {
            if let Some(metadata) = pod["metadata"].as_object_mut() {
                metadata.remove("name");
                metadata.insert("generateName".to_owned(), json!("load-"));
            }
            let (shared, client) = (Arc::clone(&shared), client.clone());
            tokio::spawn(async move { shared.run(&client, &pod, &judge, pause).await })
        });
        let tasks = tasks.collect();
        Self { shared, tasks }
    }

    /// How many pods were created.
    pub fn created(&self) -> usize {
        self.shared.created.load(Ordering::Relaxed)
    }

    /// Waits until so many more pods have been created, on a machine however busy.
    pub async fn goes_on(&self, more: usize) -> Result<()> {
        let wanted = self.created() + more;
        eventually(GOES_ON, format!("{more} more pods are created"), async || {
            ensure!(
                self.created() >= wanted,
                "{} of {wanted}; wrong: {:?}",
                self.created(),
                self.wrong()
            );
            Ok(())
        })
        .await
    }

    /// How many of them have the mark of a grant.
    pub fn granted(&self) -> usize {
        self.shared.granted.load(Ordering::Relaxed)
    }

    /// What went wrong so far, the first of it.
    pub fn wrong(&self) -> Vec<String> {
        self.shared.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends, and gives what went wrong.
    pub async fn end(self) -> Vec<String> {
        self.shared.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let _ = task.await; // a task that panicked has said so
        }
        self.shared.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    async fn run(&self, client: &Client, pod: &Value, judge: &Judge, pause: Duration) {
        while !self.over.load(Ordering::Relaxed) {
            let answer = create_pod(client, pod).await;
            match answer.and_then(|answer| judge(&answer).map(|()| answer)) {
                Ok(answer) => {
                    let marks = [
                        reviewed(&answer.body),
                        annotation(&answer.body, "tokenscope.io/reviewed"),
                    ];
                    let is_granted = marks.contains(&Some("granted")); // version 0.1.0 has the annotation alone
                    self.created.fetch_add(1, Ordering::Relaxed);
                    self.granted.fetch_add(usize::from(is_granted), Ordering::Relaxed);
                }
                Err(error) => {
                    let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
                    if wrong.len() < MOST_PROBLEMS {
                        wrong.push(format!("{error:#}"));
                    }
                }
            }
            tokio::time::sleep(pause).await;
        }
    }
}
