//! Reviews pods: facts, decision, plan, patch.
//!
//! The way of one review: bytes → [`review`] → [`facts`] → [`tokenscope_core::decide`] → [`plan`] → [`patch`] → [`review`]
//! → bytes. Each of these steps is pure; only [`cache`], [`lookup`], [`events`], [`certificate`] and [`version`] touch the network, and
//! [`router`] and [`run`] put all together, within the memory of [`budget`] and the threads of [`work`]. [`strip_mark`] is the
//! other, smaller way.

pub mod answer;
pub mod args;
pub mod budget;
pub mod cache;
pub mod certificate;
pub mod check;
pub mod csi_drivers;
pub mod events;
pub mod facts;
pub mod lookup;
pub mod metrics;
mod names;
pub mod patch;
pub mod plan;
pub mod present_sidecar;
pub mod review;
pub mod router;
pub mod run;
pub mod sidecar_container;
pub mod strip_mark;
pub mod version;
pub mod work;
