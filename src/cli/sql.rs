//! `landfall sql`

use std::io::{self, Read as _};

use crate::{
    cli::{
        DONE, Ended, Global,
        output::{FormatArg, data, finish, say},
        workspace,
    },
    error::{Error, ErrorKind, Result},
    ops,
    report::{count, rows},
};

/// Longest statement read from stdin, in bytes.
const SQL_BYTES_MAX: u64 = 1024 * 1024;

/// Query tables, raw records, quarantine, drift and loads with SQL
///
/// shop.orders is the table of a stream, shop.orders__quarantine what was set aside, and
/// shop.orders__raw every record as it was landed. landfall.drift, landfall.loads and
/// landfall.quarantine cover all streams. SHOW TABLES lists them. Deleted rows stay, with
/// _deleted true.
///
/// Nothing can be changed this way. The dialect is that of Apache DataFusion: names are read
/// in lowercase unless they stand in double quotes, as columns with capital letters and names
/// with a dash must: "customerId", shop."order-lines".
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// One SELECT (or WITH, SHOW, DESCRIBE, EXPLAIN); - reads it from stdin
    sql: String,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    let text = if args.sql == "-" {
        read_stdin()?
    } else {
        args.sql.clone()
    };
    let workspace = workspace(global)?;
    let stream = ops::sql::sql(&workspace, &text).await?;
    let mut out = data();
    let printed = rows::write(stream, args.format.format, &mut out).await?;
    finish(out)?;
    if printed.cut {
        say(&format!(
            "only the first {} rows are shown: use LIMIT, or --format csv or json for all",
            count(printed.rows)
        ));
    }
    Ok(DONE)
}

fn read_stdin() -> Result<String> {
    let mut text = String::new();
    let read = io::stdin()
        .lock()
        .take(SQL_BYTES_MAX + 1)
        .read_to_string(&mut text);
    read.map_err(|source| Error::new(ErrorKind::Config, "read SQL from stdin").caused_by(source))?;
    if text.len() as u64 > SQL_BYTES_MAX {
        return Err(Error::new(ErrorKind::Limit, "read SQL from stdin").with("bytes_max", SQL_BYTES_MAX));
    }
    Ok(text)
}
