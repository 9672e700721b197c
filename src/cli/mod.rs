//! The command line: one file per subcommand, each a thin skin over one verb of `ops`.
//!
//! Data goes to stdout, words go to stderr. Exit codes: 0 done, 1 failed, 2 usage or configuration,
//! 3 refused by a contract's policy, 4 done but over `--max-quarantine`.

mod check;
mod contract;
mod demo;
mod diff;
mod differences;
mod drift;
mod explain;
mod extract;
mod gaps;
mod init;
mod lineage;
mod lines;
mod logging;
mod maintain;
mod output;
mod progress;
mod push;
mod quarantine;
mod rebuild;
mod run;
mod schema;
mod serve;
mod sql;
mod status;
mod streams;
mod token;
mod transform;
mod verify;

use std::{ffi::OsString, path::PathBuf};

use clap::{Parser, Subcommand};

use crate::{
    cli::{
        logging::LogFormat,
        output::{say, say_problems},
    },
    clock::Clock,
    config::{Project, read},
    error::{Error, ErrorKind},
    ops::Workspace,
    report,
    yaml::Problem,
};

/// Everything went well.
const DONE: u8 = 0;

/// Done, but more records were quarantined than the command line allows, or a server refused records.
const OVER_QUARANTINE: u8 = 4;

/// Land API responses raw, then turn them into Delta tables
///
/// Extraction stores every response byte for byte and never looks at a schema. A separate
/// transform reads what was landed, judges every record against a contract, sets aside what
/// does not fit with its evidence, and merges the rest into Delta tables by key. Every row
/// leads back to the bytes it came from.
///
/// New here? `landfall demo` shows all of it in a few seconds; `landfall init` begins a project.
#[derive(Debug, Parser)]
#[command(name = "landfall", version, verbatim_doc_comment, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Data goes to stdout, words to stderr.\n\
    Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 refused by a contract's policy,\n\
    4 done but over --max-quarantine, or with records that a server refused.";

/// What every command takes.
#[derive(Debug, clap::Args)]
struct Global {
    /// The folder with landfall.yml
    #[arg(long, value_name = "DIR", default_value = ".", global = true)]
    project: PathBuf,
    /// Say more on stderr: -v what begins and ends, -vv every page
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// How log lines are written
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "text",
        global = true
    )]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Check(check::Args),
    Schema(schema::Args),
    Extract(extract::Args),
    Transform(transform::Args),
    Run(run::Args),
    Serve(serve::Args),
    Push(push::Args),
    Token(token::Args),
    Sql(sql::Args),
    Status(status::Args),
    Gaps(gaps::Args),
    Drift(drift::Args),
    Contract(contract::Args),
    Quarantine(quarantine::Args),
    Explain(explain::Args),
    Maintain(maintain::Args),
    Rebuild(rebuild::Args),
    Verify(verify::Args),
    Diff(diff::Args),
    Demo(demo::Args),
}

/// Why a command ended before its time.
#[derive(Debug)]
enum Failure {
    /// Still to be told.
    Error(Error),
    /// The project files are wrong; still to be told.
    Problems(Vec<Problem>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// The exit code of a command, or why it ended before its time.
type Ended = Result<u8, Failure>;

/// Runs the command line `args`, the program's name first, and returns the exit code.
pub async fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are data that was asked for; everything else is a usage error.
            let _ = error.print();
            return if error.use_stderr() {
                ErrorKind::Config.exit_code()
            } else {
                DONE
            };
        }
    };
    // The demo tells its own story, in which things go wrong.
    let quiet = matches!(cli.command, Command::Demo(_));
    if let Err(error) = logging::start(cli.global.verbose, quiet, cli.global.log_format) {
        return fail(&error);
    }
    match run(cli.command, &cli.global).await {
        Ok(code) => code,
        Err(Failure::Error(error)) if report::reader_gone(&error) => DONE,
        Err(Failure::Error(error)) => fail(&error),
        Err(Failure::Problems(problems)) => {
            say_problems("error", &problems);
            ErrorKind::Config.exit_code()
        }
    }
}

async fn run(command: Command, global: &Global) -> Ended {
    match command {
        Command::Init(args) => init::run(&args, global),
        Command::Check(args) => check::run(&args, global).await,
        Command::Schema(args) => schema::run(&args),
        Command::Extract(args) => extract::run(&args, global).await,
        Command::Transform(args) => transform::run(&args, global).await,
        Command::Run(args) => run::run(&args, global).await,
        Command::Serve(args) => serve::run(&args, global).await,
        Command::Push(args) => push::run(&args).await,
        Command::Token(args) => token::run(&args),
        Command::Sql(args) => sql::run(&args, global).await,
        Command::Status(args) => status::run(&args, global).await,
        Command::Gaps(args) => gaps::run(&args, global).await,
        Command::Drift(args) => drift::run(&args, global).await,
        Command::Contract(args) => contract::run(&args, global).await,
        Command::Quarantine(args) => quarantine::run(&args, global).await,
        Command::Explain(args) => explain::run(&args, global).await,
        Command::Maintain(args) => maintain::run(&args, global).await,
        Command::Rebuild(args) => rebuild::run(&args, global).await,
        Command::Verify(args) => verify::run(&args, global).await,
        Command::Diff(args) => diff::run(&args, global).await,
        Command::Demo(args) => demo::run(&args).await,
    }
}

fn fail(error: &Error) -> u8 {
    say(&format!("error: {}", error.chain()));
    error.kind().exit_code()
}

/// Reads the project, telling its warnings.
fn project(global: &Global) -> Result<Project, Failure> {
    let loaded = read::load(&global.project).map_err(Failure::Problems)?;
    say_problems("warning", &loaded.warnings);
    Ok(loaded.project)
}

/// Reads the project and opens its lake.
fn workspace(global: &Global) -> Result<Workspace, Failure> {
    Ok(Workspace::open(project(global)?, Clock::system())?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn the_project_may_stand_before_or_behind_the_command() {
        for line in ["landfall --project x status", "landfall status --project x"] {
            assert_eq!(parse(line).unwrap().global.project, PathBuf::from("x"));
        }
    }

    #[test]
    fn r023_what_is_not_understood_is_a_usage_error() {
        for line in [
            "landfall",
            "landfall nope",
            "landfall run Shop.orders",
            "landfall sql",
            "landfall sql x --format xml",
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.use_stderr(), "{line}");
        }
    }

    #[test]
    fn max_quarantine_is_a_number() {
        assert!(parse("landfall run --max-quarantine 0").is_ok());
        assert!(parse("landfall run --max-quarantine -1").is_err());
    }
}
