//! What holds unless the file says otherwise. A test holds the reference to the same values.

use std::time::Duration;

use crate::config::{
    CommitEvery, DriftPolicy, Limits, Maintain, OnMismatch, OnUnknown, Project, Timeouts,
    auth::{Jwt, OAuth2},
    errors::Breaker,
    errors::Retry,
    incremental::Incremental,
    rate::RateLimit,
    slice::Slicing,
};

impl Project {
    /// What [`Project::memory_bytes_max`] is unless the file says otherwise.
    pub const MEMORY_BYTES_DEFAULT: u64 = 1024 * 1024 * 1024;
}

impl Retry {
    /// Used unless the file says otherwise.
    pub const DEFAULT: Self = Self {
        attempts_max: 6,
        backoff_start: Duration::from_secs(1),
        backoff_max: Duration::from_secs(60),
        retry_after_max: Duration::from_secs(5 * 60),
    };
}

impl OAuth2 {
    /// What [`OAuth2::lifetime_default`] is unless the file says otherwise.
    pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(5 * 60);
    /// What [`OAuth2::refresh_early`] is unless the file says otherwise.
    pub const REFRESH_EARLY_DEFAULT: Duration = Duration::from_secs(60);
}

impl Jwt {
    /// What [`Jwt::lifetime`] is unless the file says otherwise.
    pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(20 * 60);
}

impl Breaker {
    /// Used unless the file says otherwise.
    pub const DEFAULT: Self = Self {
        failures: 10,
        open: Duration::from_secs(30),
        repeats_ratio: 0.1,
        repeats_free: 30,
    };
}

impl RateLimit {
    /// What [`RateLimit::processes`] is unless the file says otherwise.
    pub const PROCESSES_DEFAULT: u32 = 4;
}

impl Incremental {
    /// What [`Incremental::skew`] is unless the file says otherwise.
    pub const SKEW_DEFAULT: Duration = Duration::from_secs(5 * 60);
}

impl Slicing {
    /// What [`Slicing::at_once`] is unless the file says otherwise.
    pub const AT_ONCE_DEFAULT: u32 = 4;
    /// What [`Slicing::slices_max`] is unless the file says otherwise.
    pub const SLICES_MAX_DEFAULT: u64 = 1_000_000;
    /// What [`Slicing::kept_max`] is unless the file says otherwise.
    pub const KEPT_MAX_DEFAULT: u64 = 10_000;
}

impl Timeouts {
    /// Used unless the file says otherwise.
    pub const DEFAULT: Self = Self {
        connect: Duration::from_secs(10),
        read: Duration::from_secs(30),
        total: Duration::from_secs(5 * 60),
    };
}

impl Limits {
    /// Used unless the file says otherwise.
    pub const DEFAULT: Self = Self {
        page_bytes_max: 64 * 1024 * 1024,
        held_bytes_max: Project::MEMORY_BYTES_DEFAULT,
        part_bytes: 16 * 1024 * 1024,
        decode_ratio_max: 200,
        pages_max: 1_000_000,
        empty_pages_max: 10,
    };
}

impl Maintain {
    /// Used unless the file says otherwise.
    pub const DEFAULT: Self = Self {
        file_bytes: 128 * 1024 * 1024,
        compact_after: Duration::from_secs(60 * 60),
        vacuum_after: Duration::from_secs(7 * 24 * 60 * 60),
        log_after: Duration::from_secs(30 * 24 * 60 * 60),
        sweep_after: Duration::from_secs(24 * 60 * 60),
    };
}

impl DriftPolicy {
    /// Used unless the file says otherwise.
    pub const DEFAULT: Self = Self {
        on_unknown: OnUnknown::Rescue,
        on_mismatch: OnMismatch::Quarantine,
    };
}

impl CommitEvery {
    /// Used unless the file says otherwise.
    pub const DEFAULT: Self = Self {
        pages: 100,
        bytes: 64 * 1024 * 1024,
        elapsed: Duration::from_secs(60),
    };
}
