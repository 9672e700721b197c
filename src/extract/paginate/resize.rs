//! What to do when a page, or a whole result set, is more than the server gives.

use crate::{
    config::{
        Stream,
        paginate::{PageSize, Paginate, Paging},
    },
    error::{Error, ErrorKind, Result},
    extract::{
        cursor::Rank,
        paginate::is_url,
        request::{START, number},
    },
};

/// A page asked for again with fewer records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The page size from now on.
    pub size: u64,
    /// The token of the same place.
    pub token: String,
}

/// The page size after `now`: a half of it, or what else it is divided by, not below the least; `None` if it is the least
/// already.
///
/// ```
/// use landfall::{config::{paginate::PageSize, request::TokenSlot}, extract::paginate::resize::reduced};
/// let to = TokenSlot::Query("limit".to_owned());
/// let mut size = PageSize { to, records: 100, records_min: 30, divide_by: 2 };
/// assert_eq!(reduced(&size, 100), Some(50));
/// assert_eq!(reduced(&size, 50), Some(30));
/// assert_eq!(reduced(&size, 30), None);
/// size.divide_by = 3;
/// assert_eq!(reduced(&size, 100), Some(33));
/// ```
pub fn reduced(size: &PageSize, now: u64) -> Option<u64> {
    let least = size.records_min.max(1);
    (now > least).then(|| (now / size.divide_by.max(2)).max(least))
}

/// The same place in pages of about the size that comes after `now`; `None` if there are no smaller ones.
///
/// Page numbers count pages, so a page number changes with the size and only sizes at which a page begins at the same
/// record will do: the largest one that is not more. A link holds its size itself and cannot be split.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if the token was not written by the stream's paginator.
pub fn split(stream: &Stream, token: &str, now: u64) -> Result<Option<Split>> {
    let Paging {
        next,
        size: Some(size),
        ..
    } = &stream.paginate
    else {
        return Ok(None);
    };
    let Some(less) = reduced(size, now) else {
        return Ok(None);
    };
    let same = |size| Split {
        size,
        token: token.to_owned(),
    };
    if token == START {
        return Ok(Some(same(less)));
    }
    if is_url(next) {
        return Ok(None);
    }
    let Paginate::PageNumber { first, .. } = next else {
        return Ok(Some(same(less)));
    };
    let before = number(stream, token, *first)?.saturating_sub(*first);
    let Some(before) = before.checked_mul(now) else {
        return Ok(None);
    };
    let fitting = (size.records_min.max(1)..=less)
        .rev()
        .find(|size| before % size == 0);
    Ok(fitting.map(|size| Split {
        size,
        token: (first + before / size).to_string(),
    }))
}

/// Whether a window with `records` so far has to begin again from its greatest cursor, because the API serves no more
/// of one result set. `since` is its lower bound.
///
/// # Errors
/// [`ErrorKind::Limit`] if that would ask for the same again: more records share one cursor than the API serves.
pub fn reset(paging: &Paging, records: u64, since: Option<Rank>, cursor_max: Option<Rank>) -> Result<bool> {
    let Some(records_max) = paging.reset_after_records.filter(|most| records >= *most) else {
        return Ok(false);
    };
    if cursor_max.is_some() && cursor_max > since {
        return Ok(true);
    }
    Err(
        Error::new(ErrorKind::Limit, "begin again from the greatest cursor")
            .with("reset_after_records", records_max)
            .with("records", records)
            .with("problem", "the cursor has not moved")
            .with(
                "hint",
                "ask for shorter windows with incremental.until, or in slices",
            ),
    )
}
