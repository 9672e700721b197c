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

use propose::Step;

use super::{
    Contract,
    compat::Bump,
    diff::{Difference, diff},
    drift::{Change, ChangeKind, Effect},
    observed::Observed,
    odcs,
};
use crate::{config::flatten::Flatten, yaml::Problem};

/// Why a step is left to people if the text is not understood well enough.
const UNEDITED: &str = "the file is written in a way that is not changed by program; change it by hand";

/// Most edits of one patch that do not succeed; what then remains is left to people without a try.
const FAILED_MAX: usize = 64;

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
    /// As that, and a wider type also where it holds only some of the values that came.
    Partly,
    /// All of it, and text or JSON where no other type holds all values, and no rule that values break.
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
    /// Which new objects become columns of the table itself.
    pub flatten: &'a Flatten,
}

/// Proposes a new version of a contract in which the changes are no drift any more.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn patch(request: Request<'_>) -> Result<Patch, Vec<Problem>> {
    let Request { text, file, .. } = request;
    let old = odcs::parse(text, file)?;
    let mut draft = Draft {
        file,
        text: text.to_owned(),
        contract: old.clone(),
        left: Vec::new(),
        failed: 0,
    };
    // New columns of one object wait for each other: each edit reads the whole file.
    let mut waiting: Vec<(&Change, Step)> = Vec::new();
    let mut ahead = old.clone();
    for change in in_order(request.changes) {
        let mut steps = propose::steps(&ahead, change, &request);
        let joins = |steps: &[Step]| {
            let beside = waiting.first().map(|(_, first)| first);
            steps
                .iter()
                .all(|step| beside.is_none_or(|first| step.is_beside(first)))
        };
        if !waiting.is_empty() && !steps.as_ref().is_ok_and(|steps| joins(steps)) {
            draft.settle(&waiting);
            waiting.clear();
            ahead.clone_from(&draft.contract);
            steps = propose::steps(&ahead, change, &request);
        }
        for step in steps.unwrap_or_else(|why| draft.leave(change, why)) {
            if step.is_new_column() {
                if step.apply(&mut ahead).is_some() {
                    waiting.push((change, step));
                }
            } else {
                draft.settle(&[(change, step)]);
                ahead.clone_from(&draft.contract);
            }
        }
    }
    draft.settle(&waiting);
    let Draft {
        text: mut new,
        mut contract,
        left,
        ..
    } = draft;
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

/// A new version in the making: the text says what the contract says.
struct Draft<'a> {
    file: &'a str,
    text: String,
    contract: Contract,
    left: Vec<Left>,
    /// Edits that did not succeed.
    failed: usize,
}

impl Draft<'_> {
    /// Takes steps as one edit, or else half by half; what cannot be taken is left to people.
    fn settle(&mut self, steps: &[(&Change, Step)]) {
        let Some(((change, _), others)) = steps.split_first() else {
            return;
        };
        if self.failed < FAILED_MAX && self.edit(steps).is_some() {
            return;
        }
        self.failed += 1;
        if others.is_empty() {
            self.leave(change, UNEDITED);
        } else {
            let (one, other) = steps.split_at(steps.len() / 2);
            self.settle(one);
            self.settle(other);
        }
    }

    fn edit(&mut self, steps: &[(&Change, Step)]) -> Option<()> {
        let mut stepped = self.contract.clone();
        for (_, step) in steps {
            step.apply(&mut stepped)?;
        }
        let steps: Vec<&Step> = steps.iter().map(|(_, step)| step).collect();
        let edited = text::edit(&self.text, &steps, &stepped)?;
        let read = odcs::parse(&edited, self.file).ok()?;
        (read == stepped).then(|| (self.text, self.contract) = (edited, stepped))
    }

    fn leave(&mut self, change: &Change, why: &'static str) -> Vec<Step> {
        self.left.push(Left {
            kind: change.kind,
            path: change.path.clone(),
            why,
        });
        Vec::new()
    }
}

/// Changes of columns first, because a column that becomes JSON has no unknown members; what is around before what is in it;
/// new members of one object together.
fn in_order(changes: &[Change]) -> Vec<&Change> {
    let mut changes: Vec<&Change> = changes
        .iter()
        .filter(|change| change.effect != Effect::Coerced)
        .collect();
    changes.sort_by_cached_key(|change| {
        let segments = place::segments(&change.path).unwrap_or_default();
        let is_unknown = change.kind == ChangeKind::Unknown;
        let around = segments.split_last().map_or(&[][..], |(_, around)| around);
        let around = if is_unknown { around.to_vec() } else { Vec::new() };
        (is_unknown, segments.len(), around)
    });
    changes
}

#[cfg(test)]
mod tests;
