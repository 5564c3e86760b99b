//! The API that users write, and its way into the rule's own types.
