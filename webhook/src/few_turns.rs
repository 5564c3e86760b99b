//! Work that is mostly done within a few turns of its task, without a wait.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// The number of times that work is tried again. A body of 64 KiB comes from its connection in fewer pieces.
const TRIES: usize = 12;

/// What the work comes to, if nothing is to be waited for but the task's own next turns; otherwise nothing, and then it goes on where
/// it was.
///
/// A body that has arrived comes piece by piece, with a turn of its connection's task between two. Whatever else is needed where one
/// really waits comes after this: a timer that would be the next one to ring wakes the thread that waits for events, which is two
/// system calls for each review.
pub(crate) async fn done_in_few_turns<W: Future>(mut work: Pin<&mut W>) -> Option<W::Output> {
    let mut left = TRIES;
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    /// Work that is done with its turn of this number.
    async fn turns(number: usize) -> usize {
        let mut turn = 0;
        poll_fn(|context| {
            turn += 1;
            context.waker().wake_by_ref();
            if turn < number {
                Poll::Pending
            } else {
                Poll::Ready(turn)
            }
        })
        .await
    }

    #[tokio::test]
    async fn work_that_needs_a_few_turns_is_done_and_what_needs_more_goes_on_afterwards() {
        for number in [1, 2, TRIES + 1] {
            assert_eq!(done_in_few_turns(pin!(turns(number))).await, Some(number));
        }
        let mut work = pin!(turns(TRIES + 2));
        assert_eq!(done_in_few_turns(work.as_mut()).await, None);
        assert_eq!(work.await, TRIES + 2);
    }
}
