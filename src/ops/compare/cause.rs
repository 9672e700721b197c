//! Why a row of the live table is not the one that raw gives today.

use std::{collections::HashMap, fmt};

use super::{Difference, Kind, Place};

/// Why a row differs, as far as can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nobody looked.
    Unknown,
    /// The record was set aside when it was loaded, and fits today's contract.
    SetAside {
        /// Why it was set aside.
        reason: String,
    },
    /// The record is in the live table, and does not fit today's contract.
    Refused {
        /// Why it would be set aside.
        reason: String,
    },
    /// It was loaded by another contract than today's.
    Contract {
        /// The version it was loaded by.
        then: String,
        /// Today's version.
        now: String,
    },
    /// Only columns differ that one of the tables does not have, or has with another type.
    Columns {
        /// Their names.
        names: Vec<String>,
    },
    /// Keys, history or another setting of the table changed since.
    Settings {
        /// What changed.
        what: String,
    },
    /// Its batch is not among those that were replayed.
    Later,
    /// It came from raw and was changed afterwards, not by a load.
    Edited,
    /// Raw has its record, and it is not in the live table.
    Removed,
    /// It did not come from raw.
    Foreign,
}

impl Cause {
    /// One word for it, for output that is read by machines.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::SetAside { .. } => "set_aside",
            Self::Refused { .. } => "refused",
            Self::Contract { .. } => "contract",
            Self::Columns { .. } => "columns",
            Self::Settings { .. } => "settings",
            Self::Later => "later",
            Self::Edited => "edited",
            Self::Removed => "removed",
            Self::Foreign => "foreign",
        }
    }

    /// What to do about it; none where a person has to find out.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::SetAside { .. } => {
                Some("`landfall quarantine release` or `landfall rebuild --promote` brings them in")
            }
            Self::Refused { .. } | Self::Contract { .. } | Self::Columns { .. } | Self::Settings { .. } => {
                Some("`landfall rebuild --promote` makes the table what today's rules say")
            }
            Self::Edited | Self::Removed | Self::Foreign => Some(
                "find out who else writes this table; `landfall rebuild --promote` brings it back to what raw says",
            ),
            Self::Unknown | Self::Later => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::SetAside { reason } => write!(
                f,
                "was set aside when it was loaded ({reason}) and fits today's contract"
            ),
            Self::Refused { reason } => write!(f, "does not fit today's contract ({reason})"),
            Self::Contract { then, now } => write!(f, "loaded by contract {then}, today's is {now}"),
            Self::Columns { names } => write!(f, "columns changed: {}", names.join(", ")),
            Self::Settings { what } => write!(f, "table settings changed: {what}"),
            Self::Later => f.write_str("loaded from a later batch"),
            Self::Edited => f.write_str("changed by someone else after it was loaded"),
            Self::Removed => f.write_str("removed by someone else, its record is in raw"),
            Self::Foreign => f.write_str("written by someone else, it is not in raw"),
        }
    }
}

/// A load, and the contract it judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedBy {
    /// First raw batch.
    pub from: i64,
    /// Last raw batch.
    pub to: i64,
    /// Version of the contract.
    pub contract: String,
}

/// What is known about two tables and the way to them.
#[derive(Clone, Debug, Default)]
pub struct Circumstances {
    /// The version of today's contract.
    pub contract: String,
    /// The last batch that was replayed.
    pub until: i64,
    /// The loads of the live table.
    pub loads: Vec<LoadedBy>,
    /// Why records are set aside in the live quarantine.
    pub aside_then: HashMap<Place, String>,
    /// Why records are set aside by today's contract.
    pub aside_now: HashMap<Place, String>,
    /// Columns that one of the tables lacks or has with another type.
    pub columns: Vec<String>,
    /// What else changed about the table.
    pub settings: Option<String>,
}

impl Circumstances {
    /// The likely cause of `difference`.
    pub fn cause(&self, difference: &Difference) -> Cause {
        let live = difference.live.as_ref().and_then(|row| row.place);
        let rebuilt = difference.rebuilt.as_ref().and_then(|row| row.place);
        if live.is_some_and(|place| place.0 > self.until) {
            return Cause::Later;
        }
        let known = match difference.kind {
            Kind::OnlyLive => self.refused(live),
            Kind::OnlyRebuilt => self.set_aside(rebuilt),
            // A newer version of the row than the live one may have been set aside.
            Kind::Changed if live != rebuilt => self.set_aside(rebuilt),
            Kind::Changed => self.columns_of(difference),
        };
        if let Some(cause) = known {
            return cause;
        }
        if let Some(what) = &self.settings {
            return Cause::Settings { what: what.clone() };
        }
        if let Some(cause) = live.or(rebuilt).and_then(|place| self.other_contract(place)) {
            return cause;
        }
        match difference.kind {
            Kind::Changed => Cause::Edited,
            Kind::OnlyRebuilt => Cause::Removed,
            Kind::OnlyLive => Cause::Foreign,
        }
    }

    fn refused(&self, place: Option<Place>) -> Option<Cause> {
        let reason = self.aside_now.get(&place?)?.clone();
        Some(Cause::Refused { reason })
    }

    fn set_aside(&self, place: Option<Place>) -> Option<Cause> {
        let reason = self.aside_then.get(&place?)?.clone();
        Some(Cause::SetAside { reason })
    }

    /// Columns, if no others differ than those that are not the same in both tables. What one has of an undeclared field
    /// is in `_rescued` of the other.
    fn columns_of(&self, difference: &Difference) -> Option<Cause> {
        let differing = difference.columns();
        let names: Vec<String> = differing.iter().map(|(name, ..)| (*name).to_owned()).collect();
        let structural = |name: &String| self.columns.contains(name) || name == "_rescued";
        let explained = names.iter().any(|name| self.columns.contains(name)) && names.iter().all(structural);
        explained.then_some(Cause::Columns { names })
    }

    fn other_contract(&self, place: Place) -> Option<Cause> {
        let load = self
            .loads
            .iter()
            .find(|load| (load.from..=load.to).contains(&place.0))?;
        (load.contract != self.contract).then(|| Cause::Contract {
            then: load.contract.clone(),
            now: self.contract.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::compare::Row;

    fn row(place: Place, name: &str) -> Option<Row> {
        let values = vec![
            ("id".to_owned(), Some("1".to_owned())),
            ("name".to_owned(), Some(name.to_owned())),
        ];
        Some(Row {
            values,
            place: Some(place),
        })
    }

    fn difference(live: Option<Row>, rebuilt: Option<Row>) -> Difference {
        let kind = match (&live, &rebuilt) {
            (Some(_), Some(_)) => Kind::Changed,
            (Some(_), None) => Kind::OnlyLive,
            _ => Kind::OnlyRebuilt,
        };
        Difference {
            kind,
            key: Vec::new(),
            live,
            rebuilt,
            cause: Cause::Unknown,
        }
    }

    #[test]
    fn a_cause_is_the_nearest_thing_that_explains_the_difference() {
        let load = LoadedBy {
            from: 0,
            to: 4,
            contract: "1.0.0".to_owned(),
        };
        let plain = Circumstances {
            contract: "1.0.0".to_owned(),
            until: 9,
            loads: vec![load],
            ..Circumstances::default()
        };
        let here = (3, 0, 0);
        let edited = difference(row(here, "a"), row(here, "b"));
        let only_live = difference(row(here, "a"), None);
        let only_rebuilt = difference(None, row(here, "b"));
        assert_eq!(plain.cause(&edited), Cause::Edited);
        assert_eq!(plain.cause(&only_live), Cause::Foreign);
        assert_eq!(plain.cause(&only_rebuilt), Cause::Removed);
        assert_eq!(plain.cause(&difference(row((10, 0, 0), "a"), None)), Cause::Later);

        let newer = Circumstances {
            contract: "1.1.0".to_owned(),
            ..plain.clone()
        };
        assert_eq!(newer.cause(&edited).as_str(), "contract");
        let columns = Circumstances {
            columns: vec!["name".to_owned()],
            ..newer.clone()
        };
        assert_eq!(
            columns.cause(&edited),
            Cause::Columns {
                names: vec!["name".to_owned()]
            }
        );
        assert_eq!(columns.cause(&only_live).as_str(), "contract");
        let keys = Circumstances {
            settings: Some("keys".to_owned()),
            ..newer
        };
        assert_eq!(keys.cause(&edited).as_str(), "settings");

        let aside = HashMap::from([(here, "enum at state".to_owned())]);
        let then = Circumstances {
            aside_then: aside.clone(),
            ..plain.clone()
        };
        assert_eq!(then.cause(&only_rebuilt).as_str(), "set_aside");
        let now = Circumstances {
            aside_now: aside,
            ..plain
        };
        assert_eq!(now.cause(&only_live).as_str(), "refused");
    }
}
