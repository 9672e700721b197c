//! Where the records of a stream are in its bodies: the setting.

use std::{fmt, ops::Range};

use crate::json::{Defect, Found, JsonPath};

/// Where the records are in a body: at one path, or at several. At least at one.
///
/// ```
/// use landfall::{config::records::{RecordPaths, Several}, json::JsonPath};
/// let path = |text: &str| JsonPath::parse(text).unwrap();
/// let both = RecordPaths::several(Several::Union, vec![path("$.issues[*]"), path("$.pulls[*]")]).unwrap();
/// assert_eq!(both.to_string(), "$.issues[*] and $.pulls[*]");
/// assert_eq!(both.only(), None);
/// assert!(RecordPaths::several(Several::Union, Vec::new()).is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPaths {
    paths: Vec<JsonPath>,
    several: Several,
}

/// What several paths together mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Several {
    /// The records of all of them: those of the first path, then those of the second.
    Union,
    /// The records of the first path that has any.
    FirstMatch,
}

impl RecordPaths {
    /// Several paths, in their order; `None` without any.
    pub fn several(several: Several, paths: Vec<JsonPath>) -> Option<Self> {
        (!paths.is_empty()).then_some(Self { paths, several })
    }

    /// Where they are in what APIs send by themselves, unless the file says otherwise: the elements of an array, or the one
    /// object.
    ///
    /// ```
    /// use landfall::config::records::RecordPaths;
    /// let events = RecordPaths::of_events().unwrap();
    /// assert_eq!(events.to_string(), "$[*], else $");
    /// let count = |body: &[u8]| {
    ///     let mut count = 0;
    ///     events.select(body, &mut |_| count += 1).unwrap();
    ///     count
    /// };
    /// assert_eq!([count(b"[]"), count(b"[{}, {}]"), count(b"{}")], [0, 2, 1]);
    /// ```
    pub fn of_events() -> Option<Self> {
        let elements = JsonPath::parse("$[*]").ok()?;
        Self::several(Several::FirstMatch, vec![elements, JsonPath::ROOT])
    }

    /// What `read` finds at the paths that count, in their order.
    ///
    /// # Errors
    /// The first one of `read`.
    pub fn each<E>(&self, mut read: impl FnMut(&JsonPath) -> Result<Found, E>) -> Result<Found, E> {
        let mut whole = Found::Missing;
        for (number, path) in self.paths.iter().enumerate() {
            whole = match (whole, read(path)?) {
                (Found::Values(before), Found::Values(values)) => Found::Values(before + values),
                (Found::Missing, found) => found,
                (found, Found::Missing) => found,
            };
            // A list without elements is not a record itself.
            let is_whole_next = self.paths.get(number + 1) == Some(&JsonPath::ROOT);
            let is_enough = match whole {
                Found::Values(0) => is_whole_next,
                Found::Values(_) => true,
                Found::Missing => false,
            };
            if self.several == Several::FirstMatch && is_enough {
                break;
            }
        }
        Ok(whole)
    }

    /// As [`JsonPath::select`]: calls `visit` with the byte range of each record.
    ///
    /// # Errors
    /// The first [`Defect`] of the text. Records visited before it was met count for nothing.
    pub fn select(&self, json: &[u8], visit: &mut dyn FnMut(Range<usize>)) -> Result<Found, Defect> {
        self.each(|path| path.select(json, visit))
    }

    /// What they mean if there are several.
    pub fn meaning(&self) -> Several {
        self.several
    }

    /// The one path; `None` if there are several.
    pub fn only(&self) -> Option<&JsonPath> {
        match &self.paths[..] {
            [path] => Some(path),
            _ => None,
        }
    }
}

impl From<JsonPath> for RecordPaths {
    fn from(path: JsonPath) -> Self {
        Self {
            paths: vec![path],
            several: Several::Union,
        }
    }
}

impl fmt::Display for RecordPaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = match self.several {
            Several::Union => " and ",
            Several::FirstMatch => ", else ",
        };
        for (number, path) in self.paths.iter().enumerate() {
            if number > 0 {
                f.write_str(between)?;
            }
            path.fmt(f)?;
        }
        Ok(())
    }
}
