//! The elements of a list of the main table as rows of a table of their own.
//!
//! ```text
//! orders: id 7, lines [{sku a}, {sku b}]  ─►  _parent_id 7, _position 0, sku a
//!                                             _parent_id 7, _position 1, sku b
//! ```

use std::sync::Arc;

use arrow::{
    array::{
        Array as _, ArrayRef, AsArray as _, BooleanArray, Int32Array, ListArray, RecordBatch, StructArray,
        UInt32Array,
    },
    buffer::NullBuffer,
    compute::{nullif, take},
    datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef},
};

use super::{history, latest::arrow_error, merge::POSITION};
use crate::error::{Error, ErrorKind, Result};

/// What stands before the names of the parent's key columns.
const PARENT_PREFIX: &str = "_parent_";

/// The number of an element in its list, from 0. Of lists in lists each has its own: `_position_1` is the outermost.
const ELEMENT_POSITION: &str = "_position";

/// Elements made rows at once, unless one row of the main table has more.
const CHILDREN_MAX: usize = 65_536;

/// The column of elements that are no objects.
const VALUE: &str = "value";

/// When the parent was loaded.
const LOADED_AT: &str = "_lf_loaded_at";

/// Columns that say whether a row of the main table has children, if it has them.
const LIVE: [&str; 2] = ["_deleted", history::CURRENT];

/// How the elements of one list of a main table become rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explosion {
    steps: Vec<Step>,
    keys: Vec<String>,
    positions: Vec<String>,
    read: SchemaRef,
    schema: SchemaRef,
}

/// On the way from a row to the elements.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Member(String),
    Elements,
}

impl Explosion {
    /// The way along the columns `path` of a table with the columns of `main`, whose rows are identified by `keys`. Lists
    /// on the way are taken apart too. `None` if the table does not have the first of the columns yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the path does not end with a list, or if a name is taken.
    pub fn new(path: &[String], keys: &[String], main: &Schema) -> Result<Option<Self>> {
        let refused = |problem: String| {
            Error::new(ErrorKind::Config, "explode column")
                .with("column", path.join("."))
                .with("problem", problem)
        };
        let Some(root) = path.first().and_then(|name| main.field_with_name(name).ok()) else {
            return Ok(None);
        };
        let mut steps = Vec::new();
        let mut levels = 0;
        let mut element: FieldRef = Arc::new(root.clone());
        for (depth, name) in path.iter().enumerate() {
            if depth > 0 {
                let DataType::Struct(members) = element.data_type() else {
                    return Err(refused(format!("{} is no object", path[..depth].join("."))));
                };
                let Some((_, member)) = members.find(name) else {
                    return Ok(None);
                };
                element = Arc::clone(member);
            }
            steps.push(Step::Member(name.clone()));
            while let DataType::List(inner) = element.data_type() {
                element = Arc::clone(inner);
                steps.push(Step::Elements);
                levels += 1;
            }
        }
        if steps.last() != Some(&Step::Elements) {
            return Err(refused(format!("it is {}, not a list", element.data_type())));
        }
        let mut fields: Vec<FieldRef> = Vec::new();
        let column = |name: &str| main.field_with_name(name).map_err(arrow_error);
        for key in keys {
            let field = column(key)?.clone();
            fields.push(Arc::new(field.with_name(format!("{PARENT_PREFIX}{key}"))));
        }
        let positions: Vec<String> = match levels {
            1 => vec![ELEMENT_POSITION.to_owned()],
            levels => (1..=levels)
                .map(|level| format!("{ELEMENT_POSITION}_{level}"))
                .collect(),
        };
        for name in &positions {
            fields.push(Arc::new(Field::new(name, DataType::Int32, true)));
        }
        for name in POSITION.into_iter().chain([LOADED_AT]) {
            fields.push(Arc::new(column(name)?.clone()));
        }
        for field in &members(&element) {
            if fields
                .iter()
                .any(|own| own.name().eq_ignore_ascii_case(field.name()))
            {
                return Err(
                    refused(format!("its elements have a member {}", field.name())).with(
                        "hint",
                        "the name is taken; give the member another name and a `path` in the contract",
                    ),
                );
            }
            fields.push(Arc::clone(field));
        }
        let mut read: Vec<FieldRef> = Vec::new();
        let live = LIVE.into_iter().filter(|name| main.field_with_name(name).is_ok());
        let wanted = keys.iter().map(String::as_str).chain(POSITION).chain([LOADED_AT]);
        for name in wanted.chain(live).chain([path[0].as_str()]) {
            if !read.iter().any(|field| field.name() == name) {
                read.push(Arc::new(column(name)?.clone()));
            }
        }
        Ok(Some(Self {
            steps,
            keys: keys.to_vec(),
            positions,
            read: Arc::new(Schema::new(read)),
            schema: Arc::new(Schema::new(fields)),
        }))
    }

    /// The columns of the child table.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The columns of the main table that are needed.
    pub(super) fn reads(&self) -> &SchemaRef {
        &self.read
    }

    /// Those that tell which rows have children, and where they are in raw.
    pub(super) fn reads_of_life(&self) -> Vec<&str> {
        let names = self.read.fields().iter().map(|field| field.name().as_str());
        names
            .filter(|name| LIVE.contains(name) || POSITION.contains(name))
            .collect()
    }

    /// Columns that identify a row of the child table.
    pub fn identity(&self) -> Vec<String> {
        let of_parent = POSITION.map(str::to_owned).into_iter();
        of_parent.chain(self.positions.iter().cloned()).collect()
    }

    /// The rows of `main` that have elements, in neighbouring pieces of about [`CHILDREN_MAX`] elements or of one row.
    ///
    /// # Errors
    /// As [`Explosion::rows`].
    pub(super) fn pieces(&self, main: &RecordBatch) -> Result<Vec<RecordBatch>> {
        let mut ends: Vec<usize> = (0..=main.num_rows()).collect();
        let mut values: ArrayRef = Arc::new(StructArray::from(main.clone()));
        for step in &self.steps {
            match step {
                Step::Member(name) => values = member(&values, name)?,
                Step::Elements => {
                    let lists = lists(&values)?;
                    for end in &mut ends {
                        *end = lists.offsets()[*end] as usize;
                    }
                    values = Arc::clone(lists.values());
                }
            }
        }
        let mut pieces = Vec::new();
        let mut first = 0;
        for row in 0..main.num_rows() {
            let is_last = row + 1 == main.num_rows();
            if is_last || ends[row + 2] - ends[first] > CHILDREN_MAX {
                if ends[row + 1] > ends[first] {
                    pieces.push(main.slice(first, row + 1 - first));
                }
                first = row + 1;
            }
        }
        Ok(pieces)
    }

    /// The elements of the rows of `main`, which has the columns of [`Explosion::reads`], in their order.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if `main` has other columns.
    pub(super) fn rows(&self, main: &RecordBatch) -> Result<RecordBatch> {
        let mut parents: Vec<u32> = (0..main.num_rows() as u32).collect();
        let mut positions: Vec<Vec<i32>> = Vec::new();
        let mut values: ArrayRef = Arc::new(StructArray::from(main.clone()));
        for step in &self.steps {
            match step {
                Step::Member(name) => values = member(&values, name)?,
                Step::Elements => {
                    let opened = open(&values)?;
                    let through = |of: &[i32]| opened.from.iter().map(|row| of[*row as usize]).collect();
                    positions = positions.iter().map(|of: &Vec<i32>| through(of)).collect();
                    positions.push(opened.positions);
                    parents = opened.from.iter().map(|row| parents[*row as usize]).collect();
                    values = opened.elements;
                }
            }
        }
        let parents = UInt32Array::from(parents);
        let of_parent = |name: &str| take(&main[name], &parents, None).map_err(arrow_error);
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for key in &self.keys {
            columns.push(of_parent(key)?);
        }
        columns.extend(
            positions
                .into_iter()
                .map(|of| Arc::new(Int32Array::from(of)) as ArrayRef),
        );
        for name in POSITION.into_iter().chain([LOADED_AT]) {
            columns.push(of_parent(name)?);
        }
        match values.data_type() {
            DataType::Struct(fields) => {
                for field in fields {
                    columns.push(member(&values, field.name())?);
                }
            }
            _ => columns.push(values),
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(arrow_error)
    }
}

/// Which rows of a main table have children: those that are neither deleted nor past.
pub(super) fn live(main: &RecordBatch) -> Vec<bool> {
    let column = |name: &str| {
        main.column_by_name(name)
            .map(|column| column.as_boolean().clone())
    };
    let (deleted, current) = (column(LIVE[0]), column(LIVE[1]));
    let is = |column: &Option<BooleanArray>, row: usize, missing: bool| match column {
        Some(column) if column.is_valid(row) => column.value(row),
        _ => missing,
    };
    (0..main.num_rows())
        .map(|row| !is(&deleted, row, false) && is(&current, row, true))
        .collect()
}

/// The columns that an element becomes; any of them may be null, as the element may.
fn members(element: &FieldRef) -> Fields {
    match element.data_type() {
        DataType::Struct(members) => members
            .iter()
            .map(|field| Arc::new(field.as_ref().clone().with_nullable(true)))
            .collect(),
        kind => Fields::from(vec![Field::new(VALUE, kind.clone(), true)]),
    }
}

/// The member `name` of objects, null where the object is.
fn member(objects: &ArrayRef, name: &str) -> Result<ArrayRef> {
    let missing = || Error::new(ErrorKind::Internal, "find member").with("name", name);
    let objects = objects.as_struct_opt().ok_or_else(missing)?;
    let column = objects.column_by_name(name).ok_or_else(missing)?;
    match objects.nulls() {
        Some(nulls) if nulls.null_count() > 0 => {
            let absent = BooleanArray::new(!nulls.inner(), None);
            nullif(column, &absent).map_err(arrow_error)
        }
        _ => Ok(Arc::clone(column)),
    }
}

/// The elements of lists, one after the other.
struct Opened {
    elements: ArrayRef,
    /// The list of each.
    from: Vec<u32>,
    /// Its number in the list.
    positions: Vec<i32>,
}

fn lists(values: &ArrayRef) -> Result<&ListArray> {
    let missing = || Error::new(ErrorKind::Internal, "find list");
    values.as_list_opt::<i32>().ok_or_else(missing)
}

fn open(values: &ArrayRef) -> Result<Opened> {
    let lists = lists(values)?;
    let (mut from, mut positions, mut chosen) = (Vec::new(), Vec::new(), Vec::new());
    for (row, bounds) in lists.offsets().windows(2).enumerate() {
        if lists.nulls().is_none_or(|nulls: &NullBuffer| nulls.is_valid(row)) {
            for (position, element) in (bounds[0]..bounds[1]).enumerate() {
                from.push(row as u32);
                positions.push(position as i32);
                chosen.push(element as u32);
            }
        }
    }
    let elements = take(lists.values(), &UInt32Array::from(chosen), None).map_err(arrow_error)?;
    Ok(Opened {
        elements,
        from,
        positions,
    })
}

#[cfg(test)]
mod tests {
    use arrow::json::ReaderBuilder;

    use super::*;

    fn list(of: DataType) -> DataType {
        DataType::List(Arc::new(Field::new("element", of, true)))
    }

    fn main_schema(lines: DataType) -> Schema {
        Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("lines", lines, true),
            Field::new("_deleted", DataType::Boolean, true),
            Field::new("_lf_batch", DataType::Int64, false),
            Field::new("_lf_page", DataType::Int32, false),
            Field::new("_lf_record", DataType::Int32, false),
            Field::new("_lf_loaded_at", DataType::Int64, false),
        ])
    }

    fn line() -> DataType {
        let taxes = list(DataType::Struct(
            vec![Field::new("rate", DataType::Float64, true)].into(),
        ));
        DataType::Struct(
            vec![
                Field::new("sku", DataType::Utf8, true),
                Field::new("taxes", taxes, true),
            ]
            .into(),
        )
    }

    fn explode(path: &[&str], schema: &Schema, rows: &[&str]) -> Vec<String> {
        let path: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
        let explosion = Explosion::new(&path, &["id".to_owned()], schema)
            .unwrap()
            .unwrap();
        let text: String = rows
            .iter()
            .enumerate()
            .map(|(at, row)| {
                format!("{{{row},\"_lf_batch\":1,\"_lf_page\":0,\"_lf_record\":{at},\"_lf_loaded_at\":5}}\n")
            })
            .collect();
        let reader = ReaderBuilder::new(Arc::clone(explosion.reads()))
            .build(text.as_bytes())
            .unwrap();
        let batches: Vec<RecordBatch> = reader
            .map(|batch| explosion.rows(&batch.unwrap()).unwrap())
            .collect();
        let mut out = arrow::json::LineDelimitedWriter::new(Vec::new());
        out.write_batches(&batches.iter().collect::<Vec<_>>()).unwrap();
        out.finish().unwrap();
        let text = String::from_utf8(out.into_inner()).unwrap();
        let own = |line: &str| {
            line.replace("\"_lf_batch\":1,\"_lf_page\":0,", "")
                .replace("\"_lf_loaded_at\":5", "")
        };
        text.lines().map(own).collect()
    }

    #[test]
    fn r118_elements_become_rows_under_their_parents_key() {
        let rows = [
            r#""id":7,"lines":[{"sku":"a"},null,{"sku":"b","taxes":[]}]"#,
            r#""id":8,"lines":[]"#,
            r#""id":9,"lines":null"#,
            r#""id":10,"lines":[{"sku":"c"}]"#,
        ];
        insta::assert_snapshot!(explode(&["lines"], &main_schema(list(line())), &rows).join("\n"), @r#"
        {"_parent_id":7,"_position":0,"_lf_record":0,,"sku":"a"}
        {"_parent_id":7,"_position":1,"_lf_record":0,}
        {"_parent_id":7,"_position":2,"_lf_record":0,,"sku":"b","taxes":[]}
        {"_parent_id":10,"_position":0,"_lf_record":3,,"sku":"c"}
        "#);
    }

    #[test]
    fn lists_in_lists_and_plain_elements_have_every_position() {
        let rows = [
            r#""id":7,"lines":[{"sku":"a","taxes":[{"rate":1},{"rate":2}]},{"sku":"b","taxes":[{"rate":3}]}]"#,
        ];
        insta::assert_snapshot!(explode(&["lines", "taxes"], &main_schema(list(line())), &rows).join("\n"), @r#"
        {"_parent_id":7,"_position_1":0,"_position_2":0,"_lf_record":0,,"rate":1.0}
        {"_parent_id":7,"_position_1":0,"_position_2":1,"_lf_record":0,,"rate":2.0}
        {"_parent_id":7,"_position_1":1,"_position_2":0,"_lf_record":0,,"rate":3.0}
        "#);
        let rows = [r#""id":7,"lines":[[1,2],null,[3]]"#];
        insta::assert_snapshot!(explode(&["lines"], &main_schema(list(list(DataType::Int64))), &rows).join("\n"), @r#"
        {"_parent_id":7,"_position_1":0,"_position_2":0,"_lf_record":0,,"value":1}
        {"_parent_id":7,"_position_1":0,"_position_2":1,"_lf_record":0,,"value":2}
        {"_parent_id":7,"_position_1":2,"_position_2":0,"_lf_record":0,,"value":3}
        "#);
    }

    #[test]
    fn a_list_within_an_object_is_found_and_what_is_no_list_refused() {
        let within = DataType::Struct(vec![Field::new("items", list(DataType::Utf8), true)].into());
        let rows = [r#""id":7,"lines":{"items":["x"]}"#, r#""id":8,"lines":null"#];
        insta::assert_snapshot!(explode(&["lines", "items"], &main_schema(within.clone()), &rows).join("\n"), @r#"{"_parent_id":7,"_position":0,"_lf_record":0,,"value":"x"}"#);

        let refused = |path: &[&str], kind: DataType| {
            let path: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
            Explosion::new(&path, &["id".to_owned()], &main_schema(kind))
                .unwrap_err()
                .to_string()
        };
        assert!(refused(&["lines"], within).contains("not a list"));
        assert!(refused(&["lines", "sku"], list(DataType::Utf8)).contains("lines is no object"));
        let taken = DataType::Struct(vec![Field::new("_Position", DataType::Utf8, true)].into());
        assert!(refused(&["lines"], list(taken)).contains("a member _Position"));
        let later = Explosion::new(
            &["later".to_owned()],
            &["id".to_owned()],
            &main_schema(DataType::Utf8),
        );
        assert_eq!(later.unwrap(), None);
    }

    #[test]
    fn no_piece_has_more_elements_than_fit_unless_it_is_one_row() {
        let schema = main_schema(list(list(DataType::Int64)));
        let explosion = Explosion::new(&["lines".to_owned()], &["id".to_owned()], &schema)
            .unwrap()
            .unwrap();
        let (half, more) = (CHILDREN_MAX / 2, CHILDREN_MAX + 1);
        let text: String = [half, 0, half, 1, more, 0, 0]
            .iter()
            .map(|elements| {
                // In two lists.
                let (one, other) = (vec!["1"; elements / 2].join(","), vec!["2"; elements - elements / 2].join(","));
                format!("{{\"lines\":[[{one}],[{other}]],\"_lf_batch\":1,\"_lf_page\":0,\"_lf_record\":0,\"_lf_loaded_at\":5}}\n")
            })
            .collect();
        let reader = ReaderBuilder::new(Arc::clone(explosion.reads()))
            .build(text.as_bytes())
            .unwrap();
        let batches: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        let main = arrow::compute::concat_batches(explosion.reads(), &batches).unwrap();
        let pieces = explosion.pieces(&main).unwrap();
        let sizes: Vec<(usize, usize)> = pieces
            .iter()
            .map(|piece| (piece.num_rows(), explosion.rows(piece).unwrap().num_rows()))
            .collect();
        assert_eq!(sizes, [(3, CHILDREN_MAX), (1, 1), (1, more)]);
    }

    #[test]
    fn members_of_a_null_element_are_null() {
        // The child of a struct may hold anything where the struct is null.
        let sku: ArrayRef = Arc::new(arrow::array::StringArray::from(vec!["seen", "hidden"]));
        let fields: Fields = vec![Field::new("sku", DataType::Utf8, true)].into();
        let objects = arrow::array::StructArray::new(fields, vec![sku], Some(vec![true, false].into()));
        let skus = member(&(Arc::new(objects) as ArrayRef), "sku").unwrap();
        assert_eq!(
            skus.as_string::<i32>().iter().collect::<Vec<_>>(),
            [Some("seen"), None]
        );
    }
}
