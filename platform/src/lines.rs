//! Queues of work, one for each group such as a namespace: one item of a group is worked on at a time, and the number that waits is bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The lines. A clone is the same ones; a group for which nothing is done has none.
#[derive(Clone, Debug)]
pub struct Lines {
    most: usize,
    lines: Arc<Mutex<HashMap<Box<str>, Line>>>,
}

#[derive(Debug)]
struct Line {
    length: usize,
    /// The one whose turn it is.
    turn: Arc<Semaphore>,
}

/// A turn in the line of a group. With its end the next one has its turn.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
    _place: Place,
}

/// A place in a line.
#[derive(Debug)]
struct Place {
    lines: Lines,
    group: Box<str>,
}

impl Lines {
    /// Lines in each of which at most so many have or await their turn.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            lines: Arc::default(),
        }
    }

    /// Waits for a turn in the line of a group. There is none where the line is too long already.
    pub async fn turn(&self, group: &str) -> Option<Turn> {
        let (place, turn) = self.place(group)?;
        let permit = turn.acquire_owned().await.ok()?;
        Some(Turn {
            _permit: permit,
            _place: place,
        })
    }

    /// The number of items of a group that are worked on or wait.
    pub fn length(&self, group: &str) -> usize {
        self.lock().get(group).map_or(0, |line| line.length)
    }

    /// A place, and what to wait for.
    fn place(&self, group: &str) -> Option<(Place, Arc<Semaphore>)> {
        let mut lines = self.lock();
        let line = lines.entry(group.into()).or_insert_with(|| Line {
            length: 0,
            turn: Arc::new(Semaphore::new(1)),
        });
        if line.length >= self.most {
            return None;
        }
        line.length += 1;
        let place = Place {
            lines: self.clone(),
            group: group.into(),
        };
        Some((place, line.turn.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.lines.lock();
        if let Some(line) = lines.get_mut(&self.group) {
            line.length -= 1;
            if line.length == 0 {
                lines.remove(&self.group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn each_group_has_one_turn_at_a_time_and_a_line_of_bounded_length() {
        let lines = Lines::new(2);
        let first = lines.turn("a").await.unwrap();
        let mut second = Box::pin(lines.turn("a"));
        assert!(second.as_mut().now_or_never().is_none(), "it is the turn of the first");
        assert!(lines.turn("a").await.is_none(), "the line is too long");
        assert!(lines.turn("b").await.is_some(), "another group has its own");
        drop(first);
        assert!(second.await.is_some());
    }

    #[tokio::test]
    async fn whoever_gives_up_or_is_done_leaves_the_line() {
        let lines = Lines::new(2);
        let first = lines.turn("a").await;
        let mut second = Box::pin(lines.turn("a"));
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(lines.length("a"), 2);
        drop(second);
        assert_eq!(lines.length("a"), 1);
        drop(first);
        assert_eq!(lines.length("a"), 0);
        assert!(lines.lock().is_empty(), "nothing is kept of it");
    }
}
