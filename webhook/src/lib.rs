//! Reviews pods: facts, decision, plan, patch.
//!
//! The way of one review: bytes → [`review`] → [`facts`] → [`tokenscope_core::decide`] → [`plan`] → [`patch`] → [`review`]
//! → bytes. Each step is pure.

pub mod facts;
pub mod metrics;
pub mod patch;
pub mod plan;
pub mod review;
