//! A project in a temporary folder and the real program run on it.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// A folder with `landfall.yml` and contracts; gone when dropped.
pub struct TestProject {
    pub dir: tempfile::TempDir,
    env: Vec<(String, String)>,
}

/// What a run of the program printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The stream `shop.items` of [`super::api::Api`].
pub const ITEMS: &str = r"
      items:
        request: { path: /items, params: { limit: 5 } }
        records: $.data[*]
        paginate: { type: cursor, from: $.next, param: cursor }
        incremental: { cursor: $.updated, param: since, format: integer }
        table: { keys: [id], sequence_by: [updated], apply_as_deletes: deleted = true }
        commit: { pages: 2 }
";

/// The contract of `shop.items`.
pub const ITEMS_CONTRACT: &str = r"apiVersion: v3.1.0
kind: DataContract
id: shop.items
version: 1.0.0
status: active
schema:
  - name: items
    logicalType: object
    properties:
      - { name: id, logicalType: integer, required: true, primaryKey: true }
      - { name: updated, logicalType: integer, required: true }
      - { name: name, logicalType: string, required: true }
      - { name: deleted, logicalType: boolean }
";

/// A contract of `shop.items` of this version with other `columns`, one a line.
pub fn items_contract(version: &str, columns: &str) -> String {
    let (head, _) = ITEMS_CONTRACT.split_once("      - {").unwrap();
    head.replace("1.0.0", version) + columns.trim_start_matches('\n')
}

thread_local! {
    static LAKE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `test` with the lines `lake` at the head of each of its project files.
pub fn on_lake(lake: String, test: fn()) {
    LAKE.set(Some(lake));
    test();
    LAKE.set(None);
}

impl TestProject {
    /// A project whose lake is `./lake`, or where [`on_lake`] says.
    pub fn new(base_url: &str, streams: &str) -> Self {
        let lake = LAKE.with_borrow(|lake| lake.clone().unwrap_or_else(|| "lake: ./lake".to_owned()));
        Self::with_lake(base_url, streams, &lake)
    }

    /// A project with the lines `lake` at the head of its file.
    pub fn with_lake(base_url: &str, streams: &str, lake: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "{lake}\nsources:\n  shop:\n    base_url: {base_url}\n    retry: {{ attempts_max: 4, backoff_start: 1ms, backoff_max: 5ms }}\n    streams:\n{}",
            streams.trim_start_matches('\n')
        );
        std::fs::write(dir.path().join("landfall.yml"), text).unwrap();
        Self { dir, env: Vec::new() }
    }

    /// The project of [`ITEMS`] with its contract.
    pub fn items(base_url: &str) -> Self {
        let project = Self::new(base_url, ITEMS);
        project.write("contracts/shop.items.odcs.yaml", ITEMS_CONTRACT);
        project
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Sets a variable for every run from now on.
    pub fn env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
        command.arg("--project").arg(self.path()).args(args);
        command.envs(
            self.env
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }

    /// Runs with failpoints armed, as in `raw::after_put=return`.
    pub fn run_armed(&self, args: &[&str], failpoints: &str) -> Ran {
        Ran::from(self.command(args).env("FAILPOINTS", failpoints).output().unwrap())
    }

    /// Runs and expects exit code 0.
    pub fn ok(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}\n{}\n{}", ran.stdout, ran.stderr);
        ran
    }

    /// Runs and expects exit code 1 and all of `words` on stderr.
    pub fn fails(&self, args: &[&str], words: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, Some(1), "{args:?}\n{}\n{}", ran.stdout, ran.stderr);
        for word in words {
            assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
        }
        ran
    }

    /// The columns of a table that are not ours, nulls left out, by `id`.
    pub fn rows(&self, table: &str) -> Vec<Value> {
        let mut rows = self.sql(&format!("SELECT * FROM {table} ORDER BY id"));
        for row in &mut rows {
            let row = row.as_object_mut().unwrap();
            row.retain(|name, value| !name.starts_with('_') && !value.is_null());
        }
        rows
    }

    /// The rows of a query.
    pub fn sql(&self, query: &str) -> Vec<Value> {
        let ran = self.ok(&["sql", "--format", "json", query]);
        serde_json::from_str(&ran.stdout)
            .or_else(|_| {
                ran.stdout
                    .lines()
                    .map(serde_json::from_str)
                    .collect::<Result<Vec<Value>, _>>()
            })
            .unwrap()
    }

    /// Every file below `dir` of the project, sorted.
    pub fn files(&self, dir: &str) -> Vec<PathBuf> {
        fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
            let Ok(entries) = std::fs::read_dir(dir) else {
                return;
            };
            for entry in entries {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found)
                } else {
                    found.push(path)
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.path().join(dir), &mut found);
        found.sort();
        found
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
