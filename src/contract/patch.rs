//! A new version of a contract that takes what the data did, as changes to its text.
//!
//! ```text
//! Changes ─ propose ─► Steps ─┬─► Contract                  the two must agree, or the step is left to people
//!                             └─► text ─ parse ─► Contract
//! ```
//!
//! | drift | step |
//! |---|---|
//! | unknown | an optional column, its type from what was seen |
//! | type changed, out of range | a wider type |
//! | enum grown | the new values |
//! | required missing, null in required | `required: false`, unless it is a key |
//! | missing; values read without loss | nothing |
//!
//! If everything is asked for ([`Extent::Everything`]) also text or JSON where no other type holds all values, and bounds,
//! pattern and length are dropped where values break them.
//!
//! Each step is a proposal: whether the data or the contract is wrong is for people to say.

pub(in crate::contract) mod place;
mod propose;
mod text;
pub mod unified;

use super::{
    Contract,
    compat::Bump,
    diff::{Difference, diff},
    drift::{Change, ChangeKind, Effect},
    observed::Observed,
    odcs,
};
use crate::yaml::Problem;

/// Why a step is left to people if the text is not understood well enough.
const UNEDITED: &str = "the file is written in a way that is not changed by program; change it by hand";

/// A new version of a contract.
#[derive(Clone, Debug)]
pub struct Patch {
    /// The new file. What was not changed stands as it stood, comments included.
    pub text: String,
    /// The difference to the old file, as `diff -u` writes it.
    pub unified: String,
    /// The contract in the new file.
    pub contract: Contract,
    /// The differences to the old contract. The version grew by what they ask for.
    pub differences: Vec<Difference>,
    /// Drift for which nothing was changed.
    pub left: Vec<Left>,
}

/// Drift for which nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// What happened.
    pub kind: ChangeKind,
    /// Where, as in the change.
    pub path: String,
    /// Why it is left to people.
    pub why: &'static str,
}

/// How far a patch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// New columns, wider types, more values, nothing required that is absent. Other values that do not fit are as likely
    /// wrong as new: what takes a type or a rule away is left to people.
    Lossless,
    /// That too: text or JSON where no other type holds all values, and no rule that values break.
    Everything,
}

/// What a patch is made of.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The contract file.
    pub text: &'a str,
    /// How the user knows it.
    pub file: &'a str,
    /// What the data did.
    pub changes: &'a [Change],
    /// Keys and `sequence_by` of the stream, which have to be there whatever the data does.
    pub keys: &'a [String],
    /// Records that tell more about types than the changes do, observed with [`super::infer`].
    pub sample: Option<&'a Observed>,
    /// How far it goes.
    pub extent: Extent,
}

/// Proposes a new version of a contract in which the changes are no drift any more.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn patch(request: Request<'_>) -> Result<Patch, Vec<Problem>> {
    let Request { text, file, .. } = request;
    let old = odcs::parse(text, file)?;
    let mut contract = old.clone();
    let mut new = text.to_owned();
    let mut left = Vec::new();
    for change in in_order(request.changes) {
        let leave = |why| Left {
            kind: change.kind,
            path: change.path.clone(),
            why,
        };
        let steps = match propose::steps(&contract, change, &request) {
            Ok(steps) => steps,
            Err(why) => {
                left.push(leave(why));
                continue;
            }
        };
        for step in steps {
            let mut stepped = contract.clone();
            let edited = step
                .apply(&mut stepped)
                .and_then(|()| text::edit(&new, &step, &stepped))
                .filter(|edited| odcs::parse(edited, file).is_ok_and(|read| read == stepped));
            match edited {
                Some(edited) => (new, contract) = (edited, stepped),
                None => left.push(leave(UNEDITED)),
            }
        }
    }
    let version = Bump::of(&diff(&old, &contract)).after(&old.version);
    if let Some(edited) = text::set_version(&new, &version) {
        contract.version = version;
        new = edited;
    }
    Ok(Patch {
        unified: unified::unified(text, &new, &format!("a/{file}"), &format!("b/{file}")),
        differences: diff(&old, &contract),
        text: new,
        contract,
        left,
    })
}

/// Changes of columns first, because a column that becomes JSON has no unknown members; what is around before what is in it.
fn in_order(changes: &[Change]) -> Vec<&Change> {
    let mut changes: Vec<&Change> = changes
        .iter()
        .filter(|change| change.effect != Effect::Coerced)
        .collect();
    changes.sort_by_cached_key(|change| {
        (
            change.kind == ChangeKind::Unknown,
            place::segments(&change.path).map_or(0, |segments| segments.len()),
        )
    });
    changes
}

#[cfg(test)]
mod tests;
