//! What becomes of drift at one place: what the nearest column around it says, else what the stream says.

use super::{
    Column, ColumnType, Contract,
    patch::place::{Hop, Place, find, segments},
    place::without_positions,
};
use crate::config::{OnMismatch, OnUnknown};

/// What columns say themselves, on the way down to a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Of values that do not fit.
    pub on_mismatch: Option<OnMismatch>,
    /// Of members that are not named.
    pub on_unknown: Option<OnUnknown>,
}

impl Policy {
    /// What holds at `path`, such as `lines[2].price`. Nothing is said of places that the contract does not lead to.
    pub fn at(contract: &Contract, path: &str) -> Self {
        let mut policy = Self::default();
        let Some(segments) = segments(&without_positions(path)) else {
            return policy;
        };
        let hops = match find(contract, &segments) {
            Place::Column(hops) | Place::Unknown { parent: hops, .. } => hops,
            Place::Within | Place::Covered | Place::InUnknown => return policy,
        };
        let mut columns: &[Column] = &contract.columns;
        let (nothing, mut element): (&[Column], _) = (&[], None);
        for hop in hops {
            let column = match hop {
                Hop::Column(at) => columns.get(at),
                Hop::Element => element,
            };
            let Some(column) = column else { break };
            policy.on_mismatch = column.on_mismatch.or(policy.on_mismatch);
            policy.on_unknown = column.on_unknown.or(policy.on_unknown);
            (columns, element) = match &column.kind {
                ColumnType::Object(members) => (members.as_slice(), None),
                ColumnType::Array(inner) => (nothing, Some(inner.as_ref())),
                _ => (nothing, None),
            };
        }
        policy
    }
}

/// Whether a column says itself what becomes of values that do not fit.
pub fn is_own(columns: &[Column]) -> bool {
    columns.iter().any(|column| {
        column.on_mismatch.is_some()
            || match &column.kind {
                ColumnType::Object(members) => is_own(members),
                ColumnType::Array(element) => is_own(std::slice::from_ref(element)),
                _ => false,
            }
    })
}
