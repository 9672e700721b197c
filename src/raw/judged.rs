//! What was said of a pushed body before it was acknowledged.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Most records that are named beside a body: as many as an answer names, so that one given again after a crash names them too.
pub const NAMED_MAX: usize = 400;

/// What a contract said of the records of a pushed body before it was acknowledged. Nothing in it is the value of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The version of the contract.
    pub contract: String,
    /// Records that do not fit it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub misfits: u64,
    /// How many of them by their first violation, such as `type_mismatch`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub codes: BTreeMap<String, u64>,
    /// The first of them, at most [`NAMED_MAX`]: number in the body as it was sent, from 0, and first violation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<(u64, String)>,
    /// What the request is known by, if they were left out of the body: the fingerprint of what was sent, lowercase hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
