//! Whether a window is over, whatever its paginator says, and what templates about a page see.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    config::{paginate::Paginate, text::Vars},
    error::Result,
    extract::{
        link,
        paginate::{Turn, Why, token},
        request::{START, number},
    },
};

/// What an API writes for no.
const NO: [&str; 5] = ["", "0", "false", "n", "no"];

/// Whether the answer says that there is more; `None` if nobody asked where it says so.
///
/// # Errors
/// [`ErrorKind::Refused`](crate::error::ErrorKind::Refused) if the body is not JSON.
pub(super) fn more(turn: &Turn<'_>) -> Result<Option<bool>> {
    let Some(place) = &turn.stream.paginate.stop.more else {
        return Ok(None);
    };
    let text = token::text_at(place, turn.head, turn.around(place))?;
    Ok(Some(text.is_some_and(|text| {
        !NO.contains(&text.trim().to_ascii_lowercase().as_str())
    })))
}

/// The stop condition that holds after this page, if any.
///
/// # Errors
/// [`ErrorKind::Config`](crate::error::ErrorKind::Config) if the condition of the project file fails;
/// [`ErrorKind::Refused`](crate::error::ErrorKind::Refused) if the body is not JSON.
pub(super) fn ends(turn: &Turn<'_>, more: Option<bool>) -> Result<Option<Why>> {
    let stop = &turn.stream.paginate.stop;
    if more == Some(false) {
        return Ok(Some(Why::NoMore));
    }
    if let Some(when) = &stop.when
        && when.is_true(&vars(turn, &when.variables()))?
    {
        return Ok(Some(Why::Condition));
    }
    if let Some(place) = &stop.pages
        && let Some(pages) = token::count_at(place, turn.head, turn.around(place))?
        && position(turn)? >= pages
    {
        return Ok(Some(Why::LastPage));
    }
    let short = turn.size.is_some_and(|size| turn.reading.records < size);
    if stop.on_short_page && short && more != Some(true) {
        return Ok(Some(Why::ShortPage));
    }
    if stop.after_pages.is_some_and(|pages| turn.page >= pages) {
        return Ok(Some(Why::AfterPages));
    }
    Ok(None)
}

/// What templates about a page see; of the answer only what is in `used`.
pub(super) fn vars(turn: &Turn<'_>, used: &BTreeSet<String>) -> Vars {
    let named = |name: &str| used.contains(name);
    let request = turn.request;
    let token = Some(request.token.as_str()).filter(|token| *token != START);
    let mut vars = request.vars.clone().with(
        "page",
        &json!({
            "token": token,
            "number": turn.page,
            "size": turn.size,
            "records": turn.reading.records,
        }),
    );
    if named("response") {
        vars = with_json(vars, "response", Some(turn.body));
    }
    if named("last_record") {
        vars = with_json(vars, "last_record", turn.reading.last.as_ref());
    }
    if named("headers") {
        vars = vars.with("headers", &headers(turn));
    }
    if named("links") {
        vars = vars.with("links", &links(turn));
    }
    vars
}

/// What is not JSON is null.
fn with_json(vars: Vars, name: &'static str, bytes: Option<&Bytes>) -> Vars {
    let null = || vars.clone().with(name, &Value::Null);
    bytes
        .and_then(|bytes| vars.clone().with_json(name, bytes.clone()).ok())
        .unwrap_or_else(null)
}

/// The number of a page from 1, counted by its token where that is a number: the size of pages may have changed on the
/// way.
fn position(turn: &Turn<'_>) -> Result<u64> {
    match &turn.stream.paginate.next {
        Paginate::PageNumber { first, .. } => {
            let number = number(turn.stream, &turn.request.token, *first)?;
            Ok(number.saturating_sub(*first).saturating_add(1))
        }
        _ => Ok(turn.page),
    }
}

/// Headers that are text, by lowercase name; of a header sent more than once the first.
fn headers(turn: &Turn<'_>) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for (name, value) in &turn.head.headers {
        if let Ok(text) = value.to_str() {
            headers.entry(name.to_string()).or_insert(text.to_owned());
        }
    }
    headers
}

/// The targets of the Link header by relation.
fn links(turn: &Turn<'_>) -> BTreeMap<String, String> {
    let mut links = BTreeMap::new();
    for value in turn.head.headers.get_all("link") {
        let (found, _) = value.to_str().map(link::parse).unwrap_or_default();
        for link in found {
            for relation in link.relations {
                links.entry(relation).or_insert_with(|| link.target.clone());
            }
        }
    }
    links
}
