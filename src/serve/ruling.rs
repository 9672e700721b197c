//! What the contract of a stream makes of a body before it is kept.
//!
//! ```text
//!             ┌ accept ───────────────────────────────────► as it is, not judged
//! delivery ───┼ tag ──── judged ──────────────────────────► as it is, with a tag beside it
//!             └ reject ─ judged ─┬ all fit ───────────────► as it is
//!                                ├ some, mode=partial ────► without those that do not
//!                                └ none, or mode=atomic ──► 422, nothing is kept
//! ```

use std::{fmt::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    config::{
        Stream,
        push::{OnViolation, Push},
    },
    ops::inspect::{Inspected, Inspector, Misfit, Reason, Sent, without_misfits},
    raw::judged::{Judged, NAMED_MAX},
    receive::{Delivery, ledger::repair::fingerprint},
    serve::{
        answer::{Outcome, Standpoint},
        app::App,
        aside::aside,
        body::budget::Hold,
        check::{Checked, Form},
        inspectors::Standing,
        problem::{Fault, Problem, code::Code},
    },
};

/// How much longer a byte may be judged than it is looked at: a record of two bytes is missing every required column, and breaks
/// every rule.
const JUDGING_WEIGHT: usize = 256;

/// When a sender may come again whose records cannot be judged now.
const UNREAD_RETRY_AFTER: Duration = Duration::from_secs(5);

/// What happens to a request with records that cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The others are kept, and the answer names these.
    Partial,
    /// It is refused.
    Atomic,
}

/// What a request with records asks for.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) form: Form,
    /// The content type.
    pub(crate) media: &'a str,
    pub(crate) mode: Mode,
}

/// What is kept of a delivery, and what is said of it.
pub(crate) struct Ruling {
    pub(crate) delivery: Delivery,
    /// The memory of its body, if that became another one.
    pub(crate) hold: Option<Hold>,
    pub(crate) outcome: Outcome,
}

/// What is said of a webhook.
pub(crate) struct EventRuling {
    pub(crate) standpoint: Standpoint,
    /// What stands beside its body.
    pub(crate) judged: Option<Judged>,
    /// Records that do not fit.
    pub(crate) tagged: u64,
}

impl App {
    /// What is kept of a `delivery` of records to `stream`, of which `checked` can be read.
    ///
    /// # Errors
    /// 422 if nothing is, 503 if it is not known now what fits.
    pub(crate) async fn rule(
        &self,
        (stream, push): (&Stream, &Push),
        asked: Asked<'_>,
        checked: &Checked,
        mut delivery: Delivery,
    ) -> Result<Ruling, Problem> {
        let (standpoint, inspector) = self.standpoint(stream, push).await?;
        let is_rejecting = push.on_violation == OnViolation::Reject && inspector.is_some();
        if asked.mode == Mode::Atomic && checked.rejected > 0 && !is_rejecting {
            self.metrics.records(&stream.name, 0, checked.rejected);
            return Err(unreadable(checked));
        }
        let Some(inspector) = inspector else {
            return Ok(Ruling {
                delivery,
                hold: None,
                outcome: Outcome::of(checked, standpoint),
            });
        };
        let body = delivery.page.body.clone();
        let inspected = self
            .inspect(&inspector, Sent::Records(asked.media), &body)
            .await?;
        if is_rejecting {
            return self.reject(asked, inspected, delivery, standpoint).await;
        }
        delivery.page.facts.judged = Some(judged(inspector.version(), &inspected));
        Ok(Ruling {
            delivery,
            hold: None,
            outcome: Outcome::tagged(checked, &inspected, is_single(asked.form, &body), standpoint),
        })
    }

    /// What is said of the `body` of a webhook of `stream`.
    ///
    /// # Errors
    /// 422 if it is refused, 503 if it is not known now whether it fits.
    pub(crate) async fn rule_event(
        &self,
        stream: &Stream,
        push: &Push,
        body: &Bytes,
    ) -> Result<EventRuling, Problem> {
        let (standpoint, inspector) = self.standpoint(stream, push).await?;
        let Some(inspector) = inspector else {
            return Ok(EventRuling {
                standpoint,
                judged: None,
                tagged: 0,
            });
        };
        let inspected = self.inspect(&inspector, Sent::Event, body).await?;
        if push.on_violation == OnViolation::Reject && inspected.misfits > 0 {
            self.metrics.records(&stream.name, 0, inspected.misfits);
            let is_list = !is_single(Form::Json, body);
            let place = |misfit: &Misfit, pointer: &str| event_place(stream, is_list, misfit, pointer);
            return Err(refused(Code::ContractViolation, &inspected, &standpoint, place));
        }
        Ok(EventRuling {
            tagged: inspected.misfits,
            judged: Some(judged(inspector.version(), &inspected)),
            standpoint,
        })
    }

    /// How the contract of a stream stands towards what is sent, and what judges that, if anything does.
    async fn standpoint(
        &self,
        stream: &Stream,
        push: &Push,
    ) -> Result<(Standpoint, Option<Arc<Inspector>>), Problem> {
        if push.on_violation == OnViolation::Accept {
            return Ok((Standpoint::NotAsked, None));
        }
        match self.inspectors.standing(&stream.name).await {
            Standing::Absent => Ok((Standpoint::Absent, None)),
            Standing::Present(inspector) => {
                let version = inspector.version().to_owned();
                Ok((Standpoint::Judged(version), Some(inspector)))
            }
            Standing::Unreadable if push.on_violation == OnViolation::Reject => {
                self.metrics.refused("contract_unread");
                let detail = "the contract of the stream cannot be read now, so nothing is known to fit it";
                Err(Problem::new(Code::Unavailable, detail).retry_after(UNREAD_RETRY_AFTER))
            }
            Standing::Unreadable => {
                tracing::warn!(stream = %stream.name, "landed without a tag: the contract cannot be read");
                Ok((Standpoint::Unread, None))
            }
        }
    }

    /// Judges the records of `body`, when it is their turn.
    async fn inspect(
        &self,
        inspector: &Arc<Inspector>,
        sent: Sent<'_>,
        body: &Bytes,
    ) -> Result<Inspected, Problem> {
        let turn = Arc::clone(&self.inspectors.turns).acquire_owned().await;
        let turn = turn.map_err(|_closed| Problem::new(Code::Internal, "the log has the cause"))?;
        let (bytes, inspector, body) = (body.len(), Arc::clone(inspector), body.clone());
        let media = match sent {
            Sent::Records(media) => Some(media.to_owned()),
            Sent::Event => None,
        };
        let inspected = aside(bytes.saturating_mul(JUDGING_WEIGHT), move || {
            let inspected = inspector.inspect(media.as_deref().map_or(Sent::Event, Sent::Records), &body);
            // Not before, also if nobody waits for it any more.
            drop(turn);
            inspected
        })
        .await?;
        Ok(inspected?)
    }

    /// Leaves out what does not fit.
    async fn reject(
        &self,
        asked: Asked<'_>,
        inspected: Inspected,
        mut delivery: Delivery,
        standpoint: Standpoint,
    ) -> Result<Ruling, Problem> {
        let body = delivery.page.body.clone();
        let is_single = is_single(asked.form, &body);
        let version = standpoint.version().unwrap_or_default();
        let mut judged = judged(version, &inspected);
        if inspected.misfits == 0 {
            delivery.page.facts.judged = Some(judged);
            return Ok(Ruling {
                outcome: Outcome::rejected(&inspected, is_single, standpoint),
                delivery,
                hold: None,
            });
        }
        let fits = inspected.fits.iter().filter(|fits| **fits).count();
        if fits == 0 || asked.mode == Mode::Atomic {
            self.metrics.records(&delivery.stream, 0, inspected.misfits);
            let code = if fits == 0 {
                Code::ContractViolation
            } else {
                Code::BatchRejected
            };
            let place = |misfit: &Misfit, pointer: &str| place(is_single, misfit.index, pointer);
            return Err(refused(code, &inspected, &standpoint, place));
        }
        let mut hold = self.budget.take(body.len()).await?;
        let outcome = Outcome::rejected(&inspected, is_single, standpoint);
        let media = asked.media.to_owned();
        let (delivery, hold) = aside(body.len(), move || {
            judged.sent = Some(fingerprint(&delivery).to_hex());
            delivery.page.body = without_misfits(&media, &body, &inspected.fits);
            delivery.page.facts.judged = Some(judged);
            hold.keep(delivery.page.body.len());
            (delivery, hold)
        })
        .await?;
        Ok(Ruling {
            delivery,
            hold: Some(hold),
            outcome,
        })
    }
}

/// Whether the body is one record and no list of them.
fn is_single(form: Form, body: &[u8]) -> bool {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    form == Form::Json && first != Some(&b'[')
}

/// What stands beside the body.
fn judged(version: &str, inspected: &Inspected) -> Judged {
    let codes = inspected.codes.iter();
    let named = inspected.told.iter().take(NAMED_MAX).filter_map(|misfit| {
        let first = misfit.reasons.first()?;
        Some((misfit.index.unwrap_or(0), first.code.to_owned()))
    });
    Judged {
        contract: version.to_owned(),
        misfits: inspected.misfits,
        codes: codes.map(|(code, count)| ((*code).to_owned(), *count)).collect(),
        named: named.collect(),
        sent: None,
    }
}

/// The problem of a batch that is not kept as some of it cannot be read.
fn unreadable(checked: &Checked) -> Problem {
    let detail = format!("{} records cannot be read; nothing was kept", checked.rejected);
    let faults = checked.bad.iter().map(|bad| bad.to_fault());
    faults.fold(Problem::new(Code::BatchRejected, detail), Problem::at)
}

/// The problem of a body that is not kept as some of it does not fit.
fn refused(
    code: Code,
    inspected: &Inspected,
    standpoint: &Standpoint,
    place: impl Fn(&Misfit, &str) -> String,
) -> Problem {
    let detail = format!(
        "{} of {} records do not fit version {} of the contract; nothing was kept",
        inspected.misfits,
        inspected.fits.len(),
        standpoint.version().unwrap_or("?"),
    );
    let faults = inspected.told.iter().flat_map(|misfit| {
        let fault = |reason: &Reason| Fault {
            pointer: place(misfit, &reason.pointer),
            detail: reason.detail.clone(),
            code: Some(reason.code.to_owned()),
        };
        misfit.reasons.iter().map(fault).collect::<Vec<_>>()
    });
    faults.fold(Problem::new(code, detail), Problem::at)
}

/// A place in a body as the fragment of a URI (RFC 6901, section 6): in the only record of it, or in one of several.
pub(crate) fn place(is_single: bool, index: Option<u64>, pointer: &str) -> String {
    let mut place = String::from("#");
    if let Some(index) = index.filter(|_| !is_single) {
        let _ = write!(place, "/{index}");
    }
    for byte in pointer.bytes() {
        // What a fragment may have (RFC 3986, section 3.5), and no quotes.
        if byte.is_ascii_alphanumeric() || b"-._~!$&()*+,;=:@/?".contains(&byte) {
            place.push(char::from(byte));
        } else {
            let _ = write!(place, "%{byte:02X}");
        }
    }
    place
}

/// The same in a webhook. Where its records are is up to the stream, and known here only if it is the body or a list of them.
fn event_place(stream: &Stream, is_list: bool, misfit: &Misfit, pointer: &str) -> String {
    match (stream.records.to_string().as_str(), is_list) {
        ("$", _) | ("$[*], else $", false) => place(true, misfit.index, pointer),
        ("$[*]" | "$[*], else $", true) => place(false, misfit.index, pointer),
        _ => place(true, None, ""),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_place_is_a_fragment() {
        assert_eq!(
            place(false, Some(3), "/lines/2/unit~1price"),
            "#/3/lines/2/unit~1price"
        );
        assert_eq!(place(true, Some(0), "/a b/é\"#"), "#/a%20b/%C3%A9%22%23");
        assert_eq!(place(false, None, ""), "#");
    }

    proptest! {
        #[test]
        fn any_pointer_is_a_fragment(pointer in "(/\\PC{0,9}){0,3}") {
            let place = place(false, Some(1), &pointer);
            let url = url::Url::parse("http://a/").unwrap().join(&place).unwrap();
            prop_assert_eq!(url.fragment(), Some(&place[1..]));
        }
    }
}
