//! The clock of the machine: what time it is, and waiting for a time of day.
//!
//! A token ends at a time of day. Timers that count how long they waited oversleep when the clock is set forward or the
//! machine was suspended, so waiting is for the time itself, and ends early when somebody sets the clock.

use std::future::Future;
use std::io;
use std::time::Duration;

use jiff::{Timestamp, TimestampArithmetic};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// The wait after the clock was set: it is often set again right after.
pub(crate) const SETTLING: Duration = Duration::from_secs(1);

/// The time after a wait, or the last that there is: only one thousands of years from now can't be stated.
pub(crate) fn later(time: Timestamp, wait: impl Into<TimestampArithmetic>) -> Timestamp {
    time.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// The reason why waiting has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The time has come.
    Due,
    /// The clock was set: what was planned by it has to be looked at anew.
    ClockWasSet,
}

/// A clock that can be waited on.
pub trait Clock: Send + Sync + 'static {
    /// The time of day.
    fn now(&self) -> Timestamp;

    /// Waits for a time; over at once if it has passed.
    fn wait_until(&self, time: Timestamp) -> impl Future<Output = Woken> + Send;
}

/// The clock of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn wait_until(&self, time: Timestamp) -> Woken {
        if let Ok(mut timer) = timer(time)
            && let Ok(woken) = expired(&mut timer).await
        {
            return woken;
        }
        // Without such timers (a strict sandbox), some that count must do; the clock is looked at each minute.
        while let Ok(left) = Duration::try_from(time.duration_since(self.now()))
            && !left.is_zero()
        {
            tokio::time::sleep(left.min(Duration::from_secs(60))).await;
        }
        Woken::Due
    }
}

fn timer(time: Timestamp) -> io::Result<pipe::Receiver> {
    let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let once = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec {
            tv_sec: time.as_second().max(1), // zero would mean never
            tv_nsec: time.subsec_nanosecond().max(0).into(),
        },
    };
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    timerfd_settime(&timer, flags, &once)?;
    // A timer is read as a pipe is; the type is the one in tokio that takes a descriptor without unsafe code.
    pipe::Receiver::from_owned_fd_unchecked(timer)
}

async fn expired(timer: &mut pipe::Receiver) -> io::Result<Woken> {
    let mut count = [0; 8];
    match timer.read(&mut count).await {
        Ok(_) => Ok(Woken::Due),
        Err(error) if error.raw_os_error() == Some(Errno::CANCELED.raw_os_error()) => Ok(Woken::ClockWasSet),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn waiting_ends_at_the_time_and_at_once_when_it_has_passed() {
        let clock = SystemClock;
        let time = clock.now() + jiff::SignedDuration::from_millis(50);

        assert_eq!(clock.wait_until(time).await, Woken::Due);
        assert!(clock.now() >= time);
        let started = Instant::now();
        assert_eq!(clock.wait_until(Timestamp::UNIX_EPOCH).await, Woken::Due);
        assert!(started.elapsed() < Duration::from_secs(60));
    }
}
