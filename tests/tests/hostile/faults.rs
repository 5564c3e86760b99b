//! What an attacker makes of a fault: watches that are refused, and a webhook that is away while marks are forged.

use std::sync::Arc;

use anyhow::Result;

use crate::attack::Attack;
use crate::field::Field;

pub(crate) fn attacks() -> Vec<Attack> {
    Vec::new()
}

#[expect(dead_code, reason = "follows")]
async fn nothing(_: Arc<Field>) -> Result<()> {
    Ok(())
}
