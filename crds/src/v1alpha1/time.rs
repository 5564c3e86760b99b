//! The times when a policy is in force, and what happens to running pods afterwards.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Windows of time that open at the times of a cron expression.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveSchedule {
    /// When a window opens: minute, hour, day of month, month, day of week, such as "0 8 * * 1-5" for eight o'clock on
    /// weekdays.
    #[schemars(schema_with = "schema::cron")]
    pub cron: String,

    /// How long a window stays open, in hours and minutes from 1m to 744h, such as 10h or 1h30m.
    #[schemars(schema_with = "schema::window")]
    pub duration: String,

    /// The IANA time zone in which cron is meant, such as Europe/Berlin.
    #[serde(default = "utc")]
    #[schemars(schema_with = "schema::time_zone")]
    pub time_zone: String,
}

fn utc() -> String {
    "UTC".into()
}

/// What becomes of running pods once the policy that granted their role is no longer in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(
    missing_docs,
    reason = "the field that has it describes them, which is what users read"
)]
pub enum OnExpirySpec {
    #[default]
    Keep,
    Evict,
}
