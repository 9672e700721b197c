//! The lines that explain a project, and how values are written in them.

use std::{fmt, time::Duration};

use crate::config::{
    read::values::{show_duration, show_size},
    request::{Place, TokenSlot},
    text::Text,
};

/// Settings in the order they are added: name, value, and whether the value holds without the file saying so.
#[derive(Default)]
pub(super) struct Lines {
    prefix: String,
    lines: Vec<(String, String, bool)>,
    /// What [`Lines::set`] calls a default: true while a whole group holds without the file saying so.
    pub(super) default: bool,
}

impl Lines {
    /// Adds the settings of a map called `name`.
    pub(super) fn within(&mut self, name: &str, add: impl FnOnce(&mut Self)) {
        let before = self.prefix.len();
        self.prefix.push_str(name);
        self.prefix.push('.');
        add(self);
        self.prefix.truncate(before);
    }

    /// A value from the file.
    pub(super) fn set(&mut self, name: &str, value: impl fmt::Display) {
        self.choose(name, value, self.default);
    }

    /// A value, and whether it is the default.
    pub(super) fn choose(&mut self, name: &str, value: impl fmt::Display, default: bool) {
        self.lines
            .push((format!("{}{name}", self.prefix), value.to_string(), default));
    }

    /// A value and the default.
    pub(super) fn value<T: fmt::Display + PartialEq>(&mut self, name: &str, value: T, default: T) {
        let same = value == default;
        self.choose(name, value, same);
    }

    /// A value that is nothing by default.
    pub(super) fn optional(&mut self, name: &str, value: Option<impl fmt::Display>) {
        match value {
            Some(value) => self.set(name, value),
            None => self.choose(name, "none", true),
        }
    }

    /// A duration and the default.
    pub(super) fn wait(&mut self, name: &str, value: Duration, default: Duration) {
        self.choose(name, show_duration(value), value == default);
    }

    /// A size and the default.
    pub(super) fn size(&mut self, name: &str, value: u64, default: u64) {
        self.choose(name, show_size(value), value == default);
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self
            .lines
            .iter()
            .map(|(name, _, _)| name.len())
            .max()
            .unwrap_or_default();
        for (name, value, default) in &self.lines {
            let mark = if *default { "  (default)" } else { "" };
            writeln!(f, "{name:names$}  {value}{mark}")?;
        }
        Ok(())
    }
}

/// A place in a response as the file would write it.
pub(super) fn show_place(place: &Place) -> String {
    match place {
        Place::Body(path) => path.to_string(),
        Place::Header(name) => format!("header:{name}"),
    }
}

/// A place in a request.
pub(super) fn show_slot(slot: &TokenSlot) -> String {
    match slot {
        TokenSlot::Query(name) => format!("parameter {name}"),
        TokenSlot::Header(name) => format!("header {name}"),
        TokenSlot::BodyField(path) => format!("body field {}", path.join(".")),
        TokenSlot::Template => "templates".to_owned(),
    }
}

/// Text that is not secret, on one line.
pub(super) fn show_text(text: &Text) -> String {
    format!("{:?}", text.as_written())
}

/// Names only: what stands under any name may be a secret.
pub(super) fn names<T>(pairs: &[(String, T)]) -> String {
    let mut names: Vec<String> = pairs.iter().map(|(name, _)| name.clone()).collect();
    names.dedup();
    list(&names)
}

/// The items, or `none`.
pub(super) fn list(items: &[String]) -> String {
    if items.is_empty() {
        "none".to_owned()
    } else {
        items.join(", ")
    }
}
