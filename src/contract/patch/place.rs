//! Where an observed path leads in a contract.

use crate::contract::{
    Column, ColumnType, Contract,
    place::{Step, steps},
};

/// One step of an observed path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::contract) enum Segment {
    /// A member of an object.
    Member(String),
    /// The elements of an array.
    Element,
}

/// One step from a contract down to a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::contract) enum Hop {
    /// The column with this number.
    Column(usize),
    /// The element of an array.
    Element,
}

/// Where an observed path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::contract) enum Place {
    /// To a column.
    Column(Vec<Hop>),
    /// To an object that is only passed through on the way to columns.
    Within,
    /// Into a column that is not opened further.
    Covered,
    /// To a member that nobody declared: in the record or in this object, with the names down to it from there.
    Unknown { parent: Vec<Hop>, way: Vec<String> },
    /// Into a member that nobody declared.
    InUnknown,
}

/// Takes an observed path apart, such as `lines[]["unit price"]`, or `lines[2]` for one element; `None` if it is no such
/// path.
pub(in crate::contract) fn segments(path: &str) -> Option<Vec<Segment>> {
    let steps = steps(path)?.into_iter();
    let segments = steps.map(|step| match step {
        Step::Member(name) => Segment::Member(name),
        Step::Element(_) => Segment::Element,
    });
    Some(segments.collect())
}

/// Follows an observed path.
pub(in crate::contract) fn find(contract: &Contract, segments: &[Segment]) -> Place {
    let mut hops = Vec::new();
    let mut columns = &contract.columns;
    let mut rest = segments;
    'object: loop {
        let names: Vec<&String> = rest
            .iter()
            .map_while(|segment| match segment {
                Segment::Member(name) => Some(name),
                Segment::Element => None,
            })
            .collect();
        let is_at = |column: &Column| {
            column.path.len() <= names.len()
                && column.path.iter().zip(&names).all(|(one, other)| one == *other)
        };
        let Some(at) = columns.iter().position(is_at) else {
            return between(columns, &names, rest.len(), hops);
        };
        hops.push(Hop::Column(at));
        rest = &rest[columns[at].path.len()..];
        let mut column = &columns[at];
        loop {
            match (&column.kind, rest) {
                (_, []) => return Place::Column(hops),
                (ColumnType::Array(element), [Segment::Element, further @ ..]) => {
                    hops.push(Hop::Element);
                    (column, rest) = (element, further);
                }
                (ColumnType::Object(members), [Segment::Member(_), ..]) => {
                    columns = members;
                    continue 'object;
                }
                _ => return Place::Covered,
            }
        }
    }
}

/// No column is on the way: the path ends among objects passed through, or leaves them.
fn between(columns: &[Column], names: &[&String], segments: usize, parent: Vec<Hop>) -> Place {
    let shared = |column: &Column| {
        column
            .path
            .iter()
            .zip(names)
            .take_while(|(one, other)| one == *other)
            .count()
    };
    let known = columns.iter().map(shared).max().unwrap_or(0);
    if known == segments {
        Place::Within
    } else if known + 1 == segments && names.len() == segments {
        let way = names.iter().map(|&name| name.clone()).collect();
        Place::Unknown { parent, way }
    } else {
        Place::InUnknown
    }
}

/// The columns of the record, or of the object at the end of some hops.
pub(in crate::contract) fn columns<'c>(contract: &'c Contract, hops: &[Hop]) -> Option<&'c [Column]> {
    let Some((Hop::Column(first), rest)) = hops.split_first() else {
        return hops.is_empty().then_some(&contract.columns);
    };
    let mut column = contract.columns.get(*first)?;
    for hop in rest {
        column = match (hop, &column.kind) {
            (Hop::Element, ColumnType::Array(element)) => element,
            (Hop::Column(at), ColumnType::Object(columns)) => columns.get(*at)?,
            _ => return None,
        };
    }
    match &column.kind {
        ColumnType::Object(columns) => Some(columns),
        _ => None,
    }
}

/// As [`columns`], to be changed.
pub(in crate::contract) fn columns_mut<'c>(
    contract: &'c mut Contract,
    hops: &[Hop],
) -> Option<&'c mut Vec<Column>> {
    if hops.is_empty() {
        return Some(&mut contract.columns);
    }
    match &mut column_mut(contract, hops)?.kind {
        ColumnType::Object(columns) => Some(columns),
        _ => None,
    }
}

/// The column at the end of some hops.
pub(in crate::contract) fn column_mut<'c>(
    contract: &'c mut Contract,
    hops: &[Hop],
) -> Option<&'c mut Column> {
    let (first, rest) = hops.split_first()?;
    let Hop::Column(at) = first else { return None };
    let mut column = contract.columns.get_mut(*at)?;
    for hop in rest {
        column = match (hop, &mut column.kind) {
            (Hop::Element, ColumnType::Array(element)) => element,
            (Hop::Column(at), ColumnType::Object(columns)) => columns.get_mut(*at)?,
            _ => return None,
        };
    }
    Some(column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{judge::tests::contract, observed::write_name};

    #[test]
    fn an_observed_path_is_taken_apart_as_it_was_put_together() {
        let names = ["a", "", "a.b", "x y", "q\"\n", "é", "[", "]", "\\"];
        for first in names {
            for second in names {
                let mut path = String::new();
                write_name(first, &mut path);
                path.push_str("[]");
                write_name(second, &mut path);
                let expected = [
                    Segment::Member(first.to_owned()),
                    Segment::Element,
                    Segment::Member(second.to_owned()),
                ];
                assert_eq!(segments(&path), Some(expected.to_vec()), "{path}");
            }
        }
        assert_eq!(segments(".a"), segments("a").filter(|_| false));
        assert_eq!(segments("[\"a"), None);
        assert_eq!(segments("a[12][3]"), segments("a[][]"));
        assert_eq!(segments("a[x]"), None);
    }

    #[test]
    fn a_path_leads_to_a_column_or_to_where_one_could_be() {
        let contract = contract("id integer; vip boolean =in.vip; a address; l list:list:integer; j json");
        let find = |path: &str| find(&contract, &segments(path).unwrap());
        let unknown = |parent: &[Hop], way: &[&str]| Place::Unknown {
            parent: parent.to_vec(),
            way: way.iter().map(|&name| name.to_owned()).collect(),
        };
        let column = |hops: &[Hop]| Place::Column(hops.to_vec());
        use Hop::{Column, Element};
        assert_eq!(find("id"), column(&[Column(0)]));
        assert_eq!(find("in.vip"), column(&[Column(1)]));
        assert_eq!(find("in"), Place::Within);
        assert_eq!(find("in.x"), unknown(&[], &["in", "x"]));
        assert_eq!(find("in.x.y"), Place::InUnknown);
        assert_eq!(find("in[]"), Place::InUnknown);
        assert_eq!(find("new"), unknown(&[], &["new"]));
        assert_eq!(find("new[]"), Place::InUnknown);
        assert_eq!(
            find("a.lines[].sku"),
            column(&[Column(2), Column(2), Element, Column(0)])
        );
        assert_eq!(
            find("a.lines[].color"),
            unknown(&[Column(2), Column(2), Element], &["color"])
        );
        assert_eq!(find("a.postal.code"), column(&[Column(2), Column(1)]));
        assert_eq!(find("a.postal.x"), unknown(&[Column(2)], &["postal", "x"]));
        assert_eq!(find("l[][]"), column(&[Column(3), Element, Element]));
        assert_eq!(find("l[].x"), Place::Covered);
        assert_eq!(find("j.x[]"), Place::Covered);
        assert_eq!(find("id.x"), Place::Covered);
    }
}
