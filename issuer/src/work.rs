//! Threads for slow work, which serve no connection.
//!
//! Slow are signatures with RSA keys, and decisions by policies of which somebody wrote very many. Signatures take their turn. Decisions
//! may take a second, and whoever writes policies makes them slow: of each namespace one is made at a time, and all together leave
//! threads to the signatures.

use std::sync::Arc;

use tokenscope_platform::lines::Lines;
use tokio::sync::Semaphore;

/// The most exchanges that wait for a thread. At 4,000 signatures a second that is a quarter of a second.
const LONGEST_QUEUE: usize = 1024;
/// The most slow decisions about pods of one namespace that are made or wait. They are made one after the other.
pub const MOST_OF_A_NAMESPACE: usize = 32;

/// The reason why work was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// Too many exchanges wait.
    #[error("too many requests at a time: try again later")]
    Queue,
    /// Too many exchanges of the pods of one namespace wait.
    #[error(
        "too many requests of this namespace's pods wait, since very many policies are about them: try again later"
    )]
    Namespace,
    /// A fault in our own code.
    #[error("a fault in tokenscope itself")]
    Panic,
}

/// The threads for signatures, and for decisions that take long.
#[derive(Debug)]
pub struct SignatureThreads {
    threads: Arc<Semaphore>,
    /// The part of the threads that decisions may take.
    decisions: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    /// The decisions of each namespace that are made or wait.
    lines: Lines,
}

impl SignatureThreads {
    /// So many at a time, and at least two. It must stay under the runtime's number of blocking threads, which resolve names too.
    pub fn new(threads: usize) -> Self {
        let threads = threads.max(2);
        Self {
            threads: Arc::new(Semaphore::new(threads)),
            decisions: Arc::new(Semaphore::new(threads / 2)),
            queue: Arc::new(Semaphore::new(threads + LONGEST_QUEUE)),
            lines: Lines::new(MOST_OF_A_NAMESPACE),
        }
    }

    /// Does work. What has begun is done to its end, also when nobody waits for it.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, NotDone> {
        let queued = self.queue.clone().try_acquire_owned().map_err(|_| NotDone::Queue)?;
        let thread = self.threads.clone().acquire_owned().await.map_err(|_| NotDone::Queue)?;
        let done = tokio::task::spawn_blocking(move || {
            let _places = (queued, thread);
            work()
        });
        done.await.map_err(|_| NotDone::Panic)
    }

    /// Does work of the pods of a namespace, one after the other and with no more than half of the threads, so that the signatures of
    /// others go on.
    pub async fn run_of_namespace<T: Send + 'static>(
        &self,
        namespace: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotDone> {
        let turn = self.lines.turn(namespace).await.ok_or(NotDone::Namespace)?;
        let decision = self.decisions.clone().acquire_owned().await;
        let decision = decision.map_err(|_| NotDone::Queue)?;
        // They are dropped once it is done, also where nobody waits for it any more.
        let work = move || {
            let _places = (turn, decision);
            work()
        };
        self.run(work).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{self, Receiver, Sender};
    use std::time::Duration;

    use tokenscope_fixtures::until;
    use tokio::task::JoinHandle;
    use tokio::time::{sleep, timeout};

    use super::*;

    /// Far more than anything here takes, also on a machine that others use too.
    const SOON: Duration = Duration::from_secs(60);

    /// Decisions that end when they are told to.
    struct Decisions {
        threads: Arc<SignatureThreads>,
        begun: Arc<Mutex<Vec<String>>>,
    }

    impl Decisions {
        fn new(threads: usize) -> Self {
            Self {
                threads: Arc::new(SignatureThreads::new(threads)),
                begun: Arc::default(),
            }
        }

        fn spawn(&self, namespace: &'static str) -> (Sender<()>, JoinHandle<Result<(), NotDone>>) {
            let (end, ended): (_, Receiver<()>) = mpsc::channel();
            let (threads, begun) = (self.threads.clone(), self.begun.clone());
            let decide = move || {
                begun.lock().unwrap().push(namespace.to_owned());
                let _ = ended.recv();
            };
            let decided = async move { threads.run_of_namespace(namespace, decide).await };
            (end, tokio::spawn(decided))
        }

        async fn begun(&self, count: usize) -> Vec<String> {
            until(|| self.begun.lock().unwrap().len() >= count).await;
            // One that begins too early shows by then.
            sleep(Duration::from_millis(50)).await;
            self.begun.lock().unwrap().clone()
        }

        /// The number of decisions of a namespace that are made or wait.
        fn line(&self, namespace: &str) -> usize {
            self.threads.lines.length(namespace)
        }
    }

    #[tokio::test]
    async fn a_namespace_has_one_decision_at_a_time_and_signatures_go_on_whoever_decides() {
        let decisions = Decisions::new(4);
        let (first, one) = decisions.spawn("a");
        assert_eq!(decisions.begun(1).await, ["a"]);
        let (second, other) = decisions.spawn("a");
        let (third, _of_b) = decisions.spawn("b");
        let (fourth, _of_c) = decisions.spawn("c");
        assert_eq!(
            decisions.begun(2).await,
            ["a", "b"],
            "two of four threads, and one of each"
        );
        for _ in 0..10 {
            let signed = timeout(SOON, decisions.threads.run(|| 1)).await;
            assert_eq!(signed.unwrap(), Ok(1));
        }
        first.send(()).unwrap();
        assert_eq!(one.await.unwrap(), Ok(()));
        third.send(()).unwrap();
        assert_eq!(decisions.begun(4).await.len(), 4);
        second.send(()).unwrap();
        fourth.send(()).unwrap();
        assert_eq!(other.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn the_line_of_a_namespace_is_bounded_and_whoever_gives_up_leaves_it() {
        let decisions = Decisions::new(1);
        let (end, running) = decisions.spawn("a");
        decisions.begun(1).await;
        let waiting: Vec<_> = (1..MOST_OF_A_NAMESPACE).map(|_| decisions.spawn("a")).collect();
        until(|| decisions.line("a") == MOST_OF_A_NAMESPACE).await;
        assert_eq!(decisions.spawn("a").1.await.unwrap(), Err(NotDone::Namespace));
        for (_, waits) in &waiting {
            waits.abort();
        }
        // Nobody waits for the one that runs either, but it has its place until it ends.
        running.abort();
        until(|| decisions.line("a") <= 1).await;
        sleep(Duration::from_millis(50)).await;
        assert_eq!(decisions.line("a"), 1);
        end.send(()).unwrap();
        until(|| decisions.line("a") == 0).await;
    }
}
