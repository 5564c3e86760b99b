//! Reviews pods: facts, decision, plan, patch.
