//! The threads that decide reviews: small ones at once, large ones on a few threads that serve no connection, and those that are slow
//! because of the policies about them on others.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use tokenscope_platform::lines::Lines;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::budget::SMALL_BYTES;

/// How many large reviews may wait for a thread. Their bytes run out before, of which each namespace and each peer has a share; so this
/// bound alone would not be fair.
pub(crate) const LONGEST_QUEUE: usize = 128;

/// The number of slow reviews of one namespace that are decided or wait, one after the other. A controller creates some hundred pods at a time.
const MOST_SLOW_OF_A_NAMESPACE: usize = 512;

/// The reason why work was not done.
#[derive(Debug, thiserror::Error)]
pub enum Undone {
    /// Too many large reviews wait.
    #[error("too many large reviews at a time")]
    Queue,
    /// Too many slow reviews of one namespace wait.
    #[error(
        "too many reviews of this namespace wait, since very many policies are about its pods: create fewer pods at a time, or have fewer policies select them"
    )]
    Namespace,
    /// A fault in our own code. The text is for the log.
    #[error("panic: {0}")]
    Panic(String),
}

/// The threads for large reviews of one route.
#[derive(Debug)]
pub struct Work {
    threads: Arc<Semaphore>,
    queue: Arc<Semaphore>,
}

impl Work {
    /// So many large reviews at a time. The sum over all routes must stay under the runtime's number of blocking threads.
    pub fn new(threads: usize) -> Self {
        Self {
            threads: Arc::new(Semaphore::new(threads)),
            queue: Arc::new(Semaphore::new(threads + LONGEST_QUEUE)),
        }
    }

    /// Does what a review of so many bytes needs. Large work that has begun is done to its end, also when nobody waits for it.
    pub async fn run<W>(&self, bytes: usize, work: W) -> Result<W::Output, Undone>
    where
        W: Future<Output: Send> + Send + 'static,
    {
        if bytes <= SMALL_BYTES {
            let done = AssertUnwindSafe(work).catch_unwind().await;
            return done.map_err(|panic| Undone::Panic(text_of(&*panic)));
        }
        let queued = self.queue.clone().try_acquire_owned().map_err(|_| Undone::Queue)?;
        let thread = self.threads.clone().acquire_owned().await.map_err(|_| Undone::Queue)?;
        let runtime = Handle::current();
        on_another_thread(move || {
            let _places = (queued, thread);
            runtime.block_on(work)
        })
        .await
    }
}

/// The threads for reviews that are slow to decide, however small they are: whoever writes the policies of a namespace makes them so. Of
/// each namespace one is decided at a time, so that it delays its own pods alone, and those of others with as many policies.
#[derive(Debug)]
pub struct SlowWork {
    threads: Arc<Semaphore>,
    lines: Lines,
}

impl SlowWork {
    /// So many slow reviews at a time. With those for large reviews they must stay under the runtime's number of blocking threads.
    pub fn new(threads: usize) -> Self {
        Self {
            threads: Arc::new(Semaphore::new(threads)),
            lines: Lines::new(MOST_SLOW_OF_A_NAMESPACE),
        }
    }

    /// Does what a review of this namespace needs. What has begun is done to its end, also when nobody waits for it.
    pub async fn run<T: Send + 'static>(
        &self,
        namespace: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Undone> {
        let turn = self.lines.turn(namespace).await.ok_or(Undone::Namespace)?;
        let thread = self.threads.clone().acquire_owned().await.map_err(|_| Undone::Queue)?;
        on_another_thread(move || {
            let _places = (turn, thread);
            work()
        })
        .await
    }
}

async fn on_another_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Undone> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| match error.try_into_panic() {
        Ok(panic) => Undone::Panic(text_of(&*panic)),
        Err(_) => Undone::Panic("the process is stopping".to_owned()),
    })
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied())
        .unwrap_or("no text")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{self, Receiver, Sender};
    use std::time::Duration;

    use tokenscope_fixtures::until;
    use tokio::time::{sleep, timeout};

    use super::*;

    const LARGE: usize = SMALL_BYTES + 1;
    /// Far more than anything takes that is not held up.
    const SOON: Duration = Duration::from_secs(60);

    /// Large work that ends once the sender is dropped.
    #[derive(Clone)]
    struct Endless {
        running: Arc<AtomicUsize>,
        ended: Arc<Mutex<Receiver<()>>>,
    }

    impl Endless {
        fn begin() -> (Sender<()>, Self) {
            let (end, ended) = mpsc::channel();
            let running = Arc::default();
            let ended = Arc::new(Mutex::new(ended));
            (end, Self { running, ended })
        }

        #[expect(clippy::unused_async, reason = "work is a future")]
        async fn work(self) {
            self.running.fetch_add(1, Ordering::Relaxed);
            let ended = self.ended.lock().unwrap().recv();
            self.running.fetch_sub(1, Ordering::Relaxed);
            ended.unwrap_err();
        }
    }

    #[tokio::test]
    async fn large_work_delays_no_other_and_only_so_much_runs_at_a_time() {
        let work = Work::new(2);
        let (end, endless) = Endless::begin();
        let large = futures::future::join_all((0..4).map(|_| work.run(LARGE, endless.clone().work())));
        let running = || endless.running.load(Ordering::Relaxed);
        let small = async {
            until(|| running() >= 2).await;
            // A third one shows by then.
            sleep(Duration::from_millis(100)).await;
            work.run(1, async {}).await.unwrap();
            assert_eq!(running(), 2);
            drop(end);
        };
        let both = futures::future::join(large, small);
        let (done, ()) = timeout(SOON, both).await.unwrap();
        assert!(done.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn the_queue_has_an_end() {
        let work = Work::new(1);
        let (end, endless) = Endless::begin();
        let crowd = (0..LONGEST_QUEUE + 3).map(|_| work.run(LARGE, endless.clone().work()));
        // All have asked before the first of them ends.
        let ends = async { drop(end) };
        let both = futures::future::join(futures::future::join_all(crowd), ends);
        let (done, ()) = timeout(SOON, both).await.unwrap();
        let refused = done.iter().filter(|done| matches!(done, Err(Undone::Queue))).count();
        assert_eq!(refused, 2);
    }

    #[tokio::test]
    async fn a_namespace_has_one_slow_review_at_a_time_and_others_have_theirs_meanwhile() {
        let slow = Arc::new(SlowWork::new(2));
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let (of_crowd, begun) = (slow.clone(), Arc::new(Semaphore::new(0)));
        let told = begun.clone();
        let first = tokio::spawn(async move {
            let work = move || {
                told.add_permits(1);
                ended.recv()
            };
            of_crowd.run("crowd", work).await
        });
        drop(begun.acquire().await);
        let mut second = Box::pin(slow.run("crowd", || {}));
        assert!(second.as_mut().now_or_never().is_none(), "the first one is not done");
        slow.run("shop", || {}).await.unwrap();
        assert!(second.as_mut().now_or_never().is_none());
        end.send(()).unwrap();
        assert_eq!(first.await.unwrap().unwrap(), Ok(()));
        second.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_caught_wherever_the_work_runs() {
        let work = Work::new(1);
        for bytes in [1, LARGE] {
            let done = work.run(bytes, async { panic!("it happens") }).await;
            assert!(matches!(done, Err::<(), _>(Undone::Panic(text)) if text == "it happens"));
        }
    }
}
