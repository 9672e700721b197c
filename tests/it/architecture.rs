//! The shape of the house, held true: who may use whom, what is absent, what lies where.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Each module of `src/` with the modules it may use besides itself and [`FOR_ALL`]. What is not here may not exist.
///
/// Stations (`extract`, `receive`, `transform`, `table`, `report`) never use each other; only `ops` joins them.
const MODULES: [(&str, &[&str]); 23] = [
    ("error", &[]),
    ("clock", &[]),
    ("json", &[]),
    ("yaml", &[]),
    ("failpoint", &[]),
    ("fields", &[]),
    ("spill", &[]),
    ("config", &["clock"]),
    // Of config only the drift policies of a stream.
    ("contract", &["config"]),
    ("raw", &["config", "clock"]),
    // Of config only the settings of a stream and the bounds of a source.
    ("format", &["config"]),
    ("extract", &["format", "spill", "raw", "config", "clock"]),
    ("receive", &["raw", "config", "clock"]),
    (
        "transform",
        &["format", "spill", "raw", "contract", "config", "clock"],
    ),
    ("table", &["spill", "raw", "contract", "config", "clock"]),
    // Of transform only the scan, which makes raw a table.
    (
        "query",
        &["transform", "format", "table", "raw", "config", "clock"],
    ),
    ("report", &["query", "config", "clock"]),
    (
        "ops",
        &[
            "report",
            "query",
            "table",
            "transform",
            "receive",
            "extract",
            "format",
            "spill",
            "raw",
            "contract",
            "config",
            "clock",
        ],
    ),
    (
        "serve",
        &[
            "ops", "receive", "query", "report", "format", "raw", "config", "clock",
        ],
    ),
    // The client of producers: of use without a project, a lake or DataFusion.
    ("push", &["clock"]),
    ("cli", &["ops", "serve", "push", "report", "config", "clock"]),
    ("main", &["cli", "ops", "serve", "config", "clock"]),
    ("lib", &[]),
];

/// Modules that know nothing of Landfall.
const FOR_ALL: [&str; 5] = ["error", "json", "yaml", "fields", "failpoint"];

/// Packages that only some paths below `src/` may name, so that each has one place to change.
const HOMES: [(&str, &[&str]); 4] = [
    ("deltalake", &["table/", "table.rs"]),
    (
        "reqwest",
        &[
            "extract/",
            "push/",
            "receive/producer/fetch.rs",
            "serve/tests",
            "serve/uploads/fetch.rs",
        ],
    ),
    ("axum", &["serve/", "ops/demo/"]),
    ("clap", &["cli/", "main.rs"]),
];

/// What code that only computes must not name.
const IO: [&str; 8] = [
    "tokio",
    "object_store",
    "reqwest",
    "axum",
    "std::fs",
    "fs::",
    "std::net",
    "std::env",
];

/// Paths below `src/` that only compute.
const PURE: [&str; 6] = ["contract/", "format/", "json.rs", "yaml.rs", "yaml/", "error.rs"];

/// Visible entries of the repository; all but `Cargo.lock` and the licence are named by requirement R010.
const LAYOUT: [&str; 9] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "fixtures",
    "sql",
    "src",
    "tests",
];

const PACKAGES: [&str; 9] = [
    "arrow",
    "parquet",
    "object_store",
    "datafusion",
    "reqwest",
    "tokio",
    "serde_json",
    "deltalake",
    "proptest",
];

/// A longer file hides a second subject.
const FILE_LINES_MAX: usize = 900;

/// A source file, with its path below the folder it was found in.
struct Source {
    path: String,
    text: String,
}

#[test]
fn modules_use_only_what_stands_below_them() {
    let mut broken = Vec::new();
    for source in sources("src") {
        let module = module_of(&source.path);
        let Some((_, allowed)) = MODULES.iter().find(|(name, _)| *name == module) else {
            broken.push(format!(
                "src/{}: `{module}` has no place in the table",
                source.path
            ));
            continue;
        };
        for used in uses(&code(without_tests(&source.path, &source.text))) {
            let own = used == module || FOR_ALL.contains(&used.as_str());
            if !own && !allowed.contains(&used.as_str()) {
                broken.push(format!("src/{}: `{module}` may not use `{used}`", source.path));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn packages_are_named_only_at_home() {
    let mut broken = Vec::new();
    for source in sources("src") {
        let code = code(without_tests(&source.path, &source.text));
        for (package, homes) in HOMES {
            let at_home = homes.iter().any(|home| source.path.starts_with(home));
            if !at_home && names(&code, package) {
                broken.push(format!(
                    "src/{} names {package}, which lives in {homes:?}",
                    source.path
                ));
            }
        }
        let only_cli_prints = source.path.starts_with("cli/") || source.path == "main.rs";
        for macro_name in ["println!", "eprintln!", "print!", "eprint!"] {
            if !only_cli_prints && names(&code, macro_name) {
                broken.push(format!("src/{} prints, which only cli does", source.path));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn what_only_computes_does_no_io() {
    let mut broken = Vec::new();
    for source in sources("src") {
        if !PURE.iter().any(|pure| source.path.starts_with(pure)) {
            continue;
        }
        let code = code(without_tests(&source.path, &source.text));
        for word in IO.iter().filter(|word| names(&code, word)) {
            broken.push(format!("src/{} names {word}", source.path));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn nothing_is_unfinished_or_switched_off() {
    let mut broken = Vec::new();
    for folder in ["src", "tests", "benches"] {
        for source in sources(folder) {
            let code = code(&source.text);
            for word in ["todo!", "unimplemented!", "dbg!"] {
                if names(&code, word) {
                    broken.push(format!("{folder}/{} has {word}", source.path));
                }
            }
            if code.contains("#[ignore") {
                broken.push(format!("{folder}/{} ignores a test", source.path));
            }
            if folder == "tests" && names(&code, "sleep") {
                broken.push(format!("tests/{} sleeps", source.path));
            }
            let lines = source.text.lines().count();
            if lines > FILE_LINES_MAX {
                broken.push(format!("{folder}/{} has {lines} lines", source.path));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn r010_the_layout_is_the_agreed_one() {
    let ignored = fs::read_to_string(root().join(".gitignore")).unwrap();
    let ignored: BTreeSet<&str> = ignored.lines().map(|line| line.trim_matches('/')).collect();
    let found: Vec<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && !ignored.contains(name.as_str()))
        .collect();
    for name in &found {
        assert!(
            LAYOUT.contains(&name.as_str()),
            "{name} is not part of the layout"
        );
    }
    for name in LAYOUT {
        assert!(found.iter().any(|found| found == name), "{name} is missing");
    }
}

#[test]
fn r010_the_named_packages_are_used_and_arrow_once() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for package in PACKAGES {
        let line = format!("{package} = ");
        assert!(
            manifest.lines().any(|text| text.starts_with(&line)),
            "{package} is not in Cargo.toml"
        );
    }
    // Two Arrows in one tree cannot exchange arrays, and nobody sees why.
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for package in ["arrow", "parquet", "datafusion", "object_store"] {
        let line = format!("name = \"{package}\"");
        assert_eq!(
            lock.lines().filter(|text| *text == line).count(),
            1,
            "versions of {package}"
        );
    }
}

#[test]
fn the_reader_of_source_finds_what_is_used() {
    let text = "//! [`crate::cli`]\nuse crate::{clock::Clock, raw::{log::Entry, read}, yaml};\n\
                fn f<'a>() { crate::table::merge(\"crate::cli\", '\"', r#\"crate::\"serve\"#) } /* crate::ops */\n\
                pub(crate) struct S;\n#[cfg(test)]\nmod tests { use crate::report; }\n";
    let used: Vec<String> = uses(&code(without_tests("a.rs", text))).into_iter().collect();
    assert_eq!(used, ["clock", "raw", "table", "yaml"]);
    assert!(names("use deltalake::X;", "deltalake") && !names("mydeltalake_x", "deltalake"));
    assert_eq!(module_of("raw/log.rs"), "raw");
    assert_eq!(module_of("json.rs"), "json");
}

/// The modules named after `crate::`, one by one or in a group.
fn uses(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        if code[..at].ends_with(word_character) {
            continue;
        }
        let rest = &code[at + found.len()..];
        match rest.strip_prefix('{') {
            Some(group) => used.extend(heads(group)),
            None => used.extend([word(rest)]),
        }
    }
    used
}

/// The first word of each member of a brace group whose opening brace is already behind.
fn heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut at_start = true;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_start = true,
            _ if at_start && word_character(character) => {
                heads.push(word(&group[at..]));
                at_start = false;
            }
            _ => {}
        }
    }
    heads
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|&character| word_character(character))
        .collect()
}

fn word_character(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Whether `name` stands in `code` as a word of its own.
fn names(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let after = &code[at + name.len()..];
        let longer_before = code[..at].ends_with(word_character);
        let longer_after = name.ends_with(word_character) && after.starts_with(word_character);
        !longer_before && !longer_after
    })
}

/// `text` without comments and without what stands in quotes.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest[1..].find('\'').map_or(rest.len(), |end| end + 2)
        } else if character == '"' {
            quoted(rest)
        } else if character == 'r' && !code.ends_with(word_character) {
            raw_quoted(rest)
        } else {
            0
        };
        if skipped > 0 {
            rest = &rest[skipped..];
        } else {
            code.push(character);
            rest = &rest[character.len_utf8()..];
        }
    }
    code
}

/// How long the string literal at the start is.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// How long the raw string literal at the start is; 0 if there is none.
fn raw_quoted(text: &str) -> usize {
    let hashes = text[1..]
        .chars()
        .take_while(|&character| character == '#')
        .count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let body = 2 + hashes;
    let end = format!("\"{}", "#".repeat(hashes));
    text[body..]
        .find(&end)
        .map_or(text.len(), |at| body + at + end.len())
}

/// Unit tests may use what they need: a module of tests at the end of a file, or a file of them.
fn without_tests<'a>(path: &str, text: &'a str) -> &'a str {
    if path.split('/').any(|part| part == "tests" || part == "tests.rs") {
        return "";
    }
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

fn module_of(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

/// Every `.rs` file below a folder of the repository.
fn sources(folder: &str) -> Vec<Source> {
    let base = root().join(folder);
    let mut sources = Vec::new();
    let mut folders = vec![base.clone()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path
                    .strip_prefix(&base)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .replace('\\', "/");
                sources.push(Source {
                    path: below,
                    text: fs::read_to_string(&path).unwrap(),
                });
            }
        }
    }
    assert!(
        folder == "benches" || !sources.is_empty(),
        "no source below {folder}"
    );
    sources
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}
