//! Where deliveries are kept until they are in the lake.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// How deliveries are kept until they are in the lake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// When a delivery counts as received.
    pub ack: Ack,
    /// The folder they are kept in, absolute. One server uses it.
    pub dir: PathBuf,
    /// Most bytes in it. What comes when they are there is refused.
    pub bytes_max: u64,
    /// What is taken to the lake at once, in bytes.
    pub segment_bytes: u64,
    /// The longest that a delivery waits for others to go with it.
    pub segment_age: Duration,
}

/// When a delivery counts as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// When it is safe on the local disk. It is in the lake soon after.
    Spool,
    /// When it is in the lake: for a machine without a disk that outlasts it. Slower, and what cannot be put there is
    /// refused.
    Lake,
}

impl Spool {
    /// The folder, unless the file says otherwise, relative to the project.
    pub const DIR_DEFAULT: &str = ".landfall/deliveries";
    /// What [`Spool::bytes_max`] is unless the file says otherwise.
    pub const BYTES_MAX_DEFAULT: u64 = 4 << 30;
    /// What [`Spool::segment_bytes`] is unless the file says otherwise.
    pub const SEGMENT_BYTES_DEFAULT: u64 = 32 << 20;
    /// What [`Spool::segment_age`] is unless the file says otherwise.
    pub const SEGMENT_AGE_DEFAULT: Duration = Duration::from_secs(3);

    /// What holds unless the file says otherwise, for the project in `dir`.
    pub fn usual(dir: &Path) -> Self {
        Self {
            ack: Ack::Spool,
            dir: dir.join(Self::DIR_DEFAULT),
            bytes_max: Self::BYTES_MAX_DEFAULT,
            segment_bytes: Self::SEGMENT_BYTES_DEFAULT,
            segment_age: Self::SEGMENT_AGE_DEFAULT,
        }
    }
}
