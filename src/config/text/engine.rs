//! The template engine as it is set up here.

use std::{io, sync::LazyLock};

use minijinja::{
    Environment, Error, ErrorKind, Output, State, UndefinedBehavior,
    syntax::SyntaxConfig,
    tests,
    value::{Value, ValueKind},
};

use super::{FUEL_MAX, OUTPUT_BYTES_MAX, fault::Fault, functions, json, lower::Lowered, percent_encoded};

/// Bytes one rendering may move and look at, steps aside.
const WORK_MAX: u64 = 64 << 20;

/// Where what is rendered stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// As it is.
    Plain,
    /// Each expression is one segment of a path, or part of one: whatever could end it is percent-encoded.
    Path,
}

static PLAIN: LazyLock<Environment<'static>> = LazyLock::new(|| environment(Mode::Plain));
static PATH: LazyLock<Environment<'static>> = LazyLock::new(|| environment(Mode::Path));

/// Renders a lowered template.
pub(super) fn render(source: &str, root: Value, mode: Mode) -> Result<String, Error> {
    let mut output = Capped(Vec::new());
    of(mode)
        .template_from_str(source)?
        .render_captured_to(root, &mut output)?;
    String::from_utf8(output.0).map_err(|_| Fault::new("it gives bytes that are not text").into())
}

/// The value of a lowered expression.
pub(super) fn eval(source: &str, root: Value) -> Result<Value, Error> {
    let value = of(Mode::Plain).compile_expression(source)?.eval(root)?;
    match json::weigh(&value, WORK_MAX) {
        Some(_) => Ok(value),
        None => Err(too_much().into()),
    }
}

/// Refuses filters and tests that there are not; the engine would say so only once it comes to them.
pub(super) fn check_names(lowered: &Lowered) -> Result<(), Fault> {
    let mut state = of(Mode::Plain).empty_state();
    for name in &lowered.filters {
        let tried = state.apply_filter(name, &[]);
        if tried.is_err_and(|error| error.kind() == ErrorKind::UnknownFilter) {
            return Err(Fault::new(format!("unknown filter {name}")));
        }
    }
    for name in &lowered.tests {
        let tried = state.perform_test(name, &[]);
        if tried.is_err_and(|error| error.kind() == ErrorKind::UnknownTest) {
            return Err(Fault::new(format!("unknown test {name}")));
        }
    }
    Ok(())
}

/// The environment, for as long as a template of any lifetime needs it.
pub(super) fn of<'a>(mode: Mode) -> &'a Environment<'a> {
    match mode {
        Mode::Plain => &PLAIN,
        Mode::Path => &PATH,
    }
}

fn environment(mode: Mode) -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL_MAX));
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    environment.set_formatter(match mode {
        Mode::Plain => plain,
        Mode::Path => path,
    });
    functions::add(&mut environment);
    add_tests(&mut environment);
    environment
}

fn add_tests(environment: &mut Environment<'_>) {
    environment.add_test("boolean", tests::is_boolean);
    environment.add_test("defined", tests::is_defined);
    environment.add_test("divisibleby", tests::is_divisibleby);
    environment.add_test("endingwith", tests::is_endingwith);
    environment.add_test("eq", tests::is_eq);
    environment.add_test("equalto", tests::is_eq);
    environment.add_test("even", tests::is_even);
    environment.add_test("float", tests::is_float);
    environment.add_test("ge", tests::is_ge);
    environment.add_test("gt", tests::is_gt);
    environment.add_test("in", tests::is_in);
    environment.add_test("integer", tests::is_integer);
    environment.add_test("iterable", tests::is_iterable);
    environment.add_test("le", tests::is_le);
    environment.add_test("lt", tests::is_lt);
    environment.add_test("mapping", tests::is_mapping);
    environment.add_test("ne", tests::is_ne);
    environment.add_test("none", tests::is_none);
    environment.add_test("number", tests::is_number);
    environment.add_test("odd", tests::is_odd);
    environment.add_test("sequence", tests::is_sequence);
    environment.add_test("startingwith", tests::is_startingwith);
    environment.add_test("string", tests::is_string);
    environment.add_test("undefined", tests::is_undefined);
}

/// `none` gives nothing, so that a parameter without a value can be left out.
fn plain(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => Ok(out.write_str(text)?),
        None if is_nothing(value) => Ok(()),
        None => Ok(out.write_str(&text_of(value)?)?),
    }
}

fn path(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let text = if is_nothing(value) {
        String::new()
    } else {
        text_of(value)?
    };
    if text.is_empty() {
        return Err(Fault::new("an expression in a path gives nothing")
            .hint("put {% if … %} around parts that may be missing")
            .into());
    }
    Ok(out.write_str(&percent_encoded(&text))?)
}

fn is_nothing(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::None | ValueKind::Undefined)
}

/// A value as text: `true` and `false`, lists and maps as in JSON, and nothing for `none`.
pub(super) fn text_of(value: &Value) -> Result<String, Fault> {
    match value.kind() {
        ValueKind::String | ValueKind::Number => Ok(value.to_string()),
        ValueKind::Bool => Ok(value.is_true().to_string()),
        ValueKind::Undefined => Err(Fault::undefined()),
        ValueKind::None => Ok(String::new()),
        _ => match json::weigh(value, OUTPUT_BYTES_MAX as u64) {
            Some(_) => json::write(value),
            None => Err(too_long()),
        },
    }
}

/// The elements of a list as texts; none for any other value.
pub(super) fn texts_of(value: &Value) -> Result<Option<Vec<String>>, Error> {
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(None);
    }
    if json::weigh(value, OUTPUT_BYTES_MAX as u64).is_none() {
        return Err(too_long().into());
    }
    let texts = value.try_iter()?.map(|item| text_of(&item));
    Ok(Some(texts.collect::<Result<_, Fault>>()?))
}

/// What is left to one rendering.
struct Work(u64);

/// Takes `amount` from what one rendering may do.
pub(super) fn spend(state: &mut State<'_, '_>, amount: u64) -> Result<(), Fault> {
    let work = state.get_or_insert_extension_with(|| Work(WORK_MAX));
    work.0 = work.0.checked_sub(amount).ok_or_else(too_much)?;
    Ok(())
}

/// What is left to this rendering.
pub(super) fn left(state: &mut State<'_, '_>) -> u64 {
    state.get_or_insert_extension_with(|| Work(WORK_MAX)).0
}

pub(super) fn too_much() -> Fault {
    Fault::new("it takes too much work")
}

pub(super) fn too_long() -> Fault {
    Fault::new(format!("it gives more than {OUTPUT_BYTES_MAX} bytes"))
}

/// Refuses what goes beyond [`OUTPUT_BYTES_MAX`].
struct Capped(Vec<u8>);

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::Error::other(too_long()));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
