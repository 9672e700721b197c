//! `landfall check`

use crate::{
    cli::{
        DONE, Ended, Failure, Global,
        output::{FormatArg, print, rows, say},
        project,
    },
    clock::Clock,
    config::explain::explain,
    error::ErrorKind,
    ops::{
        Workspace,
        check::{self, Finding, Level},
    },
    report::{Format, grid::Grid},
};

/// Check the project: files, contracts, secrets and, with --connect, one page of every stream
///
/// Every problem is told at once, with its place. Exit code 2 if the project is wrong, 1 if
/// only the lake or an API did not answer as it should.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// Also try the lake and fetch one page per stream; nothing is landed
    #[arg(long)]
    connect: bool,
    /// Print every setting that is in force, defaults included, and end
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    let project = project(global)?;
    if args.explain {
        print(&explain(&project))?;
        return Ok(DONE);
    }
    let mut findings = check::offline(&project, Clock::system().now());
    findings.extend(check::preflight(&project));
    let wrong_offline = wrong(&findings);
    if args.connect {
        let workspace = Workspace::open(project, Clock::system()).map_err(Failure::Error)?;
        findings.extend(check::connect(&workspace).await);
    }
    match args.format.format {
        Format::Table => print(&text(&findings))?,
        format => rows(&grid(&findings), format)?,
    }
    let wrong_in_all = wrong(&findings);
    if wrong_in_all == 0 {
        return Ok(DONE);
    }
    say(&format!(
        "error: {wrong_in_all} of {} checks failed",
        findings.len()
    ));
    // An API that is away is not the project's fault.
    let kind = if wrong_offline > 0 {
        ErrorKind::Config
    } else {
        ErrorKind::Unavailable
    };
    Ok(kind.exit_code())
}

fn wrong(findings: &[Finding]) -> usize {
    findings
        .iter()
        .filter(|finding| finding.level == Level::Wrong)
        .count()
}

fn text(findings: &[Finding]) -> String {
    let lines = findings.iter().map(|finding| {
        format!(
            "{:<5}  {}  {}\n",
            finding.level.as_str(),
            finding.about,
            finding.text.replace('\n', "\n         ")
        )
    });
    lines.collect()
}

fn grid(findings: &[Finding]) -> Grid {
    let mut grid = Grid::new(&["level", "about", "text"]);
    for finding in findings {
        grid.rows.push(vec![
            finding.level.as_str().into(),
            finding.about.as_str().into(),
            finding.text.as_str().into(),
        ]);
    }
    grid
}
