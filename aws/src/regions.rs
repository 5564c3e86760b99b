//! The region that is asked: the first that answers, and a short memory of those that didn't.
//!
//! Pure: time is an argument, counted from any moment (`Instant::elapsed` of the process's start will do).

use std::time::Duration;

/// The time for which a region that failed is passed over: doubled with each failure in a row, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// The longest time that a region is passed over while others answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The outcome of asking a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered: with credentials, with a refusal, or with a request for patience.
    Answered,
    /// No connection, no answer within the deadline, a status of 500 and more, or an answer that isn't of STS.
    Failed,
}

/// Regions in the order of preference, with what is remembered of each.
#[derive(Clone, Debug)]
pub struct RegionChoice {
    regions: Vec<RegionMemory>,
}

#[derive(Clone, Debug, Default)]
struct RegionMemory {
    failures_in_a_row: u32,
    /// Until then others come first.
    paused_until: Duration,
}

/// The regions that one call asks, one after the other.
#[derive(Clone, Debug)]
pub struct RegionCall {
    /// Indices of regions, the next one last.
    to_ask: Vec<usize>,
    asked: Option<usize>,
}

impl RegionChoice {
    /// A choice among `count` regions; they are named by their index.
    pub fn new(count: usize) -> Self {
        Self {
            regions: vec![RegionMemory::default(); count],
        }
    }

    /// Begins a call: regions in the order of preference, and behind them those that failed a short while ago, since they are
    /// better than none.
    pub fn call(&self, now: Duration) -> RegionCall {
        let mut order: Vec<usize> = (0..self.regions.len()).collect();
        let paused = |index: &usize| {
            let until = self
                .regions
                .get(*index)
                .map_or(Duration::ZERO, |region| region.paused_until);
            // Of those, the one whose pause ends first.
            until.checked_sub(now).filter(|left| !left.is_zero())
        };
        order.sort_by_key(|index| (paused(index), *index));
        order.reverse();
        RegionCall {
            to_ask: order,
            asked: None,
        }
    }

    /// The region to ask now; `None` when there is no further one, or one has answered.
    pub fn next(&self, call: &mut RegionCall) -> Option<usize> {
        call.asked = call.to_ask.pop();
        call.asked
    }

    /// Takes note of what came of the region that [`Self::next`] gave. After an answer, whatever it says, no other region is asked: a
    /// definite refusal is the same everywhere.
    pub fn report(&mut self, call: &mut RegionCall, outcome: Outcome, now: Duration) {
        let Some(region) = call.asked.take().and_then(|index| self.regions.get_mut(index)) else {
            return;
        };
        match outcome {
            Outcome::Answered => {
                call.to_ask.clear();
                *region = RegionMemory::default();
            }
            Outcome::Failed => {
                let doublings = region.failures_in_a_row.min(8);
                region.failures_in_a_row = region.failures_in_a_row.saturating_add(1);
                let pause = FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE);
                region.paused_until = now.saturating_add(pause);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The regions that a call asks where those of `down` fail.
    fn asked(choice: &mut RegionChoice, down: &[usize], seconds: u64) -> Vec<usize> {
        let now = Duration::from_secs(seconds);
        let mut call = choice.call(now);
        let mut asked = Vec::new();
        while let Some(region) = choice.next(&mut call) {
            asked.push(region);
            let outcome = if down.contains(&region) {
                Outcome::Failed
            } else {
                Outcome::Answered
            };
            choice.report(&mut call, outcome, now);
        }
        asked
    }

    #[test]
    fn the_first_is_asked_alone_while_it_answers() {
        let mut choice = RegionChoice::new(3);
        assert_eq!(asked(&mut choice, &[], 0), [0]);
        assert_eq!(asked(&mut choice, &[], 1), [0]);
    }

    #[test]
    fn a_region_that_failed_is_passed_over_for_a_while_and_then_asked_again() {
        let mut choice = RegionChoice::new(2);
        assert_eq!(asked(&mut choice, &[0], 0), [0, 1]);
        assert_eq!(asked(&mut choice, &[0], 29), [1]);
        assert_eq!(asked(&mut choice, &[0], 30), [0, 1]);
        // The second failure in a row is remembered for a minute.
        assert_eq!(asked(&mut choice, &[0], 89), [1]);
        assert_eq!(asked(&mut choice, &[], 90), [0]);
        assert_eq!(asked(&mut choice, &[0], 91), [0, 1]);
        assert_eq!(asked(&mut choice, &[], 121), [0]);
    }

    #[test]
    fn when_all_failed_each_is_asked_once_and_the_one_whose_pause_ends_first_before_others() {
        let mut choice = RegionChoice::new(2);
        assert_eq!(asked(&mut choice, &[0, 1], 0), [0, 1]);
        assert_eq!(asked(&mut choice, &[0], 31), [0, 1]);
        assert_eq!(asked(&mut choice, &[0, 1], 32), [1, 0]);
        assert_eq!(asked(&mut choice, &[0, 1], 33), [1, 0]);
    }

    #[test]
    fn without_regions_there_is_nothing_to_ask() {
        assert_eq!(asked(&mut RegionChoice::new(0), &[], 0), Vec::<usize>::new());
    }

    proptest! {
        #[test]
        fn a_call_asks_no_region_twice_and_ends_with_one_that_answers_if_any_does(
            calls in prop::collection::vec((prop::collection::vec(any::<bool>(), 4), 0u64..600), 1..30)
        ) {
            let mut choice = RegionChoice::new(4);
            let mut now = 0;
            for (up, later) in calls {
                now += later;
                let down: Vec<usize> = (0..4).filter(|region| !up[*region]).collect();
                let asked = asked(&mut choice, &down, now);
                let mut sorted = asked.clone();
                sorted.sort_unstable();
                sorted.dedup();
                prop_assert_eq!(sorted.len(), asked.len());
                let answered = asked.iter().filter(|region| up[**region]).count();
                prop_assert_eq!(answered, usize::from(up.contains(&true)));
                prop_assert!(up.contains(&true) || asked.len() == 4);
            }
        }
    }
}
