//! Where signatures are made that take long: on a few threads that serve no connection.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// How many exchanges may wait for a thread. At 4,000 signatures a second that is a quarter of a second.
const LONGEST_QUEUE: usize = 1024;

/// Why work was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// Too many exchanges wait.
    #[error("too many requests at a time: try again later")]
    Queue,
    /// A fault in our own code.
    #[error("a fault in tokenscope itself")]
    Panic,
}

/// The threads for signatures.
#[derive(Debug)]
pub struct SignatureThreads {
    threads: Arc<Semaphore>,
    queue: Arc<Semaphore>,
}

impl SignatureThreads {
    /// So many at a time. It must stay under the runtime's number of blocking threads, which resolve names too.
    pub fn new(threads: usize) -> Self {
        Self {
            threads: Arc::new(Semaphore::new(threads)),
            queue: Arc::new(Semaphore::new(threads + LONGEST_QUEUE)),
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
}
