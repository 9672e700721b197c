//! When what producers push is taken to have a gap: the settings.

use std::time::Duration;

use crate::json::JsonPath;

/// What tells that something was sent and never came. At least one of [`Self::sequence`] and [`Self::heartbeat`].
///
/// The stream is asked for what is missing then: a webhook cannot be, and nobody sends again what they think was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gaps {
    /// Where a record holds a number that is one more with each record that is sent.
    pub sequence: Option<JsonPath>,
    /// The longest time without anything sent.
    pub heartbeat: Option<Duration>,
    /// How long a number may be missing that comes late. Default [`Gaps::GRACE_DEFAULT`].
    pub grace: Duration,
}

impl Gaps {
    /// Default of [`Gaps::grace`].
    pub const GRACE_DEFAULT: Duration = Duration::from_secs(60);
}
