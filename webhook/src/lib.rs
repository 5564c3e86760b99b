//! Reviews pods: facts, decision, injection, patch.
//!
//! The steps of one review: bytes → [`review`] → [`facts`] → [`tokenscope_core::decide`] → [`injection`] → [`patch`] → [`answer`]
//! → bytes. Each of these steps is pure; only [`cache`], [`lookup`], [`events`] and [`version`] use the network, and
//! [`router`] and [`run`] put all together, within the memory of [`budget`] and the threads of [`work`]. [`strip_mark`] answers the
//! reviews of pods that bring a mark.

pub mod answer;
pub mod args;
pub mod budget;
mod budget_share;
pub mod cache;
pub mod check;
pub mod csi_drivers;
pub mod deadlines;
pub mod endpoint_args;
pub mod events;
pub mod facts;
mod few_turns;
pub mod injection;
pub mod issuer_authorities;
pub mod json;
pub mod lookup;
pub mod metrics;
mod owner;
pub mod patch;
pub mod review;
pub mod router;
pub mod run;
mod sidecar_args;
pub mod strip_mark;
pub mod version;
pub mod work;
