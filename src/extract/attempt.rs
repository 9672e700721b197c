//! How one attempt to fetch a page ended.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;

use crate::{
    clock::Timestamp,
    config::{
        Source, Stream,
        errors::Action,
        format::{Container, Syntax},
        request::Body,
    },
    error::{Error, ErrorKind, Result},
    extract::{
        client::{Failure, Framing, Head, Response},
        cursor::Rank,
        graphql::{self, Problem},
        mask::Masks,
        reading::{self, Reading, Unreadable},
        retry::{self, FailureKind, Outcome},
        rules::{self, Ruling, Seen},
    },
};

/// The end of one attempt.
pub(crate) enum Attempt {
    /// There was an answer.
    Answered(Box<Response>, Said),
    /// There was none.
    Failed(Failure),
    /// Nothing was sent: every host is left alone for this long.
    Held(Duration),
}

/// What an answer says.
#[derive(Debug)]
pub(crate) enum Said {
    /// Records.
    Page(Reading),
    /// Records, and errors about some that are not among them.
    Partial(Reading),
    /// That the pages end here.
    End,
    /// What a rule of the project file says it does; the records of an answer that is accepted.
    Ruled(Ruling, Reading),
    /// That the budget is spent for so long.
    Throttled(Duration),
    /// That a smaller page may be served.
    TooMuch,
    /// Nothing that can be taken for a page, and whether asking again may change that.
    Unreadable(Unreadable, Again),
    /// A body whose end nobody told and that does not look whole.
    Cut,
    /// Nothing; the status decides.
    Status,
}

/// Whether asking again may change an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// It may.
    Worth,
    /// It would be the same.
    Pointless,
}

/// What the cursors of a page are compared with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ranks {
    /// The last cursor of the page before.
    pub(crate) previous: Option<Rank>,
    /// The lower bound of the window.
    pub(crate) bound: Option<Rank>,
}

/// What `response` says to a request of `stream`.
///
/// # Errors
/// [`ErrorKind::Config`] if a rule cannot be evaluated.
pub(crate) fn read(
    source: &Source,
    stream: &Stream,
    response: &Response,
    now: Timestamp,
    ranks: Ranks,
    jitter: f64,
) -> Result<Said> {
    let Head { status, headers, .. } = &response.head;
    let seen = Seen {
        status: *status,
        headers,
        body: &response.body,
    };
    let ruling = rules::judge(source, stream, seen, now, jitter)?;
    if ruling.is_none() && stream.paginate.stop.on_status.contains(status) {
        return Ok(Said::End);
    }
    match ruling {
        Some(ruling) if ruling.action == Action::Accept => Ok(match records(stream, response, now, ranks) {
            Ok(reading) => Said::Ruled(ruling, reading),
            Err(Unreadable::Empty | Unreadable::RecordsMissing) => Said::Ruled(ruling, Reading::default()),
            Err(reason) => Said::Unreadable(reason, Again::Worth),
        }),
        Some(ruling) => Ok(Said::Ruled(ruling, Reading::default())),
        None if !(200..=299).contains(status) || matches!(status, 204 | 205) => {
            Ok(failure(stream, response, now, ranks))
        }
        None => Ok(page(stream, response, now, ranks)),
    }
}

fn records(
    stream: &Stream,
    response: &Response,
    now: Timestamp,
    ranks: Ranks,
) -> Result<Reading, Unreadable> {
    match &response.spool {
        None => reading::read(stream, &response.body, now, ranks.previous, ranks.bound),
        Some(spool) => reading::read_spool(stream, spool, now, ranks.previous, ranks.bound),
    }
}

/// An answer of another status about which no rule says anything.
///
/// GraphQL over HTTP lets a server send the data that it has with an error status. They are worth keeping as they are
/// with status 200; without data the status says more than the errors do.
fn failure(stream: &Stream, response: &Response, now: Timestamp, ranks: Ranks) -> Said {
    let graphql = matches!(stream.request.body, Body::GraphQl { .. });
    if !graphql || graphql::problem(&response.body) != Some(Problem::Partial) {
        return Said::Status;
    }
    records(stream, response, now, ranks).map_or(Said::Status, Said::Partial)
}

/// A 2xx answer about which no rule says anything.
fn page(stream: &Stream, response: &Response, now: Timestamp, ranks: Ranks) -> Said {
    let read = records(stream, response, now, ranks);
    let graphql = matches!(stream.request.body, Body::GraphQl { .. });
    let problem = if graphql || matches!(read, Err(Unreadable::RecordsMissing)) {
        graphql::problem(&response.body)
    } else {
        None
    };
    match (problem, read) {
        (Some(Problem::Throttled { wait }), _) => Said::Throttled(wait),
        (Some(Problem::TooMuch), _) => Said::TooMuch,
        (Some(Problem::Partial), Ok(reading)) => Said::Partial(reading),
        // The data that are missing are the records.
        (Some(Problem::Partial), Err(reason)) => Said::Unreadable(reason, Again::Worth),
        (Some(Problem::Failed), _) => Said::Unreadable(Unreadable::RecordsMissing, Again::Pointless),
        (None, Ok(_)) if !is_whole(stream, response) => Said::Cut,
        (None, Ok(reading)) => Said::Page(reading),
        (None, Err(Unreadable::NotJson(_) | Unreadable::Empty)) if response.framing == Framing::Close => {
            Said::Cut
        }
        (None, Err(Unreadable::RecordsMissing)) => {
            Said::Unreadable(Unreadable::RecordsMissing, Again::Pointless)
        }
        (None, Err(reason)) => Said::Unreadable(reason, Again::Worth),
    }
}

/// Whether a body that could be read has its end. Of lines that end with the connection only the last one's end tells.
fn is_whole(stream: &Stream, response: &Response) -> bool {
    let in_lines = !matches!(stream.format.syntax, Syntax::Json | Syntax::Xml(_));
    let told = response.framing == Framing::Told;
    told || !in_lines || stream.format.container != Container::Plain || response.ends_with_newline()
}

impl Attempt {
    /// What it is to the one who decides about the next attempt.
    pub(crate) fn outcome(&self) -> Outcome<'_> {
        let (response, said) = match self {
            Self::Failed(failure) => return Outcome::Failed(failure.kind),
            Self::Held(left) => return Outcome::Held(*left),
            Self::Answered(response, said) => (response, said),
        };
        let Head { status, headers, .. } = &response.head;
        let refused = Outcome::Ruled {
            action: Action::Fail,
            wait: None,
            headers,
        };
        let accepted = Outcome::Ruled {
            action: Action::Accept,
            wait: None,
            headers,
        };
        match said {
            Said::Page(_) | Said::End => accepted,
            Said::Partial(_) => Outcome::Partial,
            Said::Ruled(ruling, _) => Outcome::Ruled {
                action: ruling.action,
                wait: ruling.wait,
                headers,
            },
            Said::Throttled(wait) => Outcome::Throttled(*wait),
            Said::TooMuch | Said::Unreadable(_, Again::Pointless) => refused,
            Said::Unreadable(_, Again::Worth) => Outcome::NotJson,
            Said::Cut => Outcome::Failed(FailureKind::Cut),
            Said::Status => Outcome::Answered {
                status: *status,
                headers,
            },
        }
    }

    /// The status of the answer, if there was one.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Answered(response, _) => Some(response.head.status),
            Self::Failed(_) | Self::Held(_) => None,
        }
    }

    /// Whether it says that the credential has expired.
    pub(crate) fn asks_for_renewal(&self) -> bool {
        match self {
            Self::Answered(response, Said::Status) => response.head.status == 401,
            Self::Answered(_, Said::Ruled(ruling, _)) => ruling.action == Action::Renew,
            _ => false,
        }
    }

    /// Whether the wait is meant for the credential and not for this request alone.
    pub(crate) fn asks_everyone(&self) -> bool {
        match self {
            Self::Answered(response, Said::Status) => {
                let Head { status, headers, .. } = &response.head;
                retry::is_throttle(*status, headers) || headers.contains_key(RETRY_AFTER)
            }
            Self::Answered(_, Said::Ruled(ruling, _)) => ruling.action == Action::Throttle,
            Self::Answered(_, said) => matches!(said, Said::Throttled(_)),
            Self::Failed(_) | Self::Held(_) => false,
        }
    }

    /// What it says about the host: that it works, that it fails, or nothing.
    pub(crate) fn health(&self) -> Option<Health> {
        match self {
            Self::Answered(_, Said::Ruled(ruling, _))
                if matches!(ruling.action, Action::Accept | Action::Ignore) =>
            {
                Some(Health::Good)
            }
            Self::Answered(_, Said::Cut) => Some(Health::Bad),
            Self::Answered(response, _) => Some(match response.head.status {
                502..=504 => Health::Bad,
                500..=599 => Health::BadForOne,
                _ => Health::Good,
            }),
            Self::Failed(failure) => match failure.kind {
                FailureKind::Connect | FailureKind::Timeout | FailureKind::Cut | FailureKind::Tls => {
                    Some(Health::Bad)
                }
                FailureKind::TooLarge | FailureKind::Unsafe => Some(Health::Good),
                FailureKind::Config | FailureKind::Unsent(_) => None,
            },
            Self::Held(_) => None,
        }
    }

    /// Why it is no page, for the log.
    pub(crate) fn reason(&self, masks: &Masks) -> String {
        match self {
            Self::Answered(_, Said::Unreadable(reason, _)) => reason.to_string(),
            Self::Answered(_, Said::Partial(_)) => "partial data".to_owned(),
            Self::Answered(_, Said::Throttled(_)) => "throttled".to_owned(),
            Self::Answered(_, Said::Cut) => FailureKind::Cut.to_string(),
            Self::Answered(response, Said::Ruled(ruling, _)) => {
                format!("status {} by {}", response.head.status, ruling.rule)
            }
            Self::Answered(response, _) => format!("status {}", response.head.status),
            Self::Failed(failure) => masks.text(&format!("{}: {}", failure.kind, failure.error.chain())),
            Self::Held(_) => "circuit open".to_owned(),
        }
    }

    /// Why it is no page, in an error that already says what was fetched.
    pub(crate) fn explain(self, error: Error, masks: &Masks) -> Error {
        let (response, said) = match self {
            Self::Failed(failure) => return error.caused_by(failure.error),
            Self::Held(left) => {
                return error
                    .with("problem", "circuit open: the host failed too often in a row")
                    .with("left_s", left.as_secs_f64());
            }
            Self::Answered(response, said) => (response, said),
        };
        let mut error = match said {
            Said::Cut => {
                let cause = Error::new(ErrorKind::Unavailable, "read the body to its end");
                error.caused_by(cause.with("problem", "neither length nor chunks, and no end in sight"))
            }
            Said::Unreadable(reason, _) => error.with("problem", reason),
            Said::TooMuch => error.with("problem", "the page is too much for the server"),
            Said::Throttled(_) => error.with("problem", "throttled"),
            Said::Ruled(ruling, _) => {
                let said = ruling.message.map(|message| masks.text(&message));
                let error = error.with("rule", ruling.rule);
                match said {
                    Some(said) => error.with("said", said),
                    None => error,
                }
            }
            Said::Page(_) | Said::Partial(_) | Said::End | Said::Status => error,
        };
        if let Some(body) = masks.excerpt(&response.body) {
            error = error.with("body", body);
        }
        error
    }
}

/// What an attempt says about the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It works.
    Good,
    /// It fails.
    Bad,
    /// It fails, or this one place of it does.
    BadForOne,
}
