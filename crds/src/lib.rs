//! The API that users write, and its way into the rule's own types.
//!
//! - [`v1alpha1`]: the two kinds of policy with their schema, and their status;
//! - [`read`]: from what a watch delivers to a [`tokenscope_core::Policy`], the same way for every process;
//! - [`conditions`]: the conditions of a policy's status and the closed set of their reasons;
//! - [`definitions()`]: the custom resource definitions, as they are installed;
//! - [`files()`]: what is generated from the types, the definitions and the document about them.

mod columns;
pub mod conditions;
mod definitions;
mod messages;
mod parse;
pub mod read;
mod reference;
mod shape;
pub mod v1alpha1;
mod yaml;

pub use definitions::{FOLDER, definitions, files};
pub use yaml::CannotWriteYaml;
