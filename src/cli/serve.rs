//! `landfall serve`

use std::sync::Arc;

use crate::{
    cli::{DONE, Ended, Global, output::say, workspace},
    config::spool::Ack,
    error::{Error, ErrorKind},
    serve::{
        listen::Drained,
        run::{self, Options},
        shutdown::Shutdown,
    },
};

/// Receive records and webhooks over HTTP and land them raw
///
/// Listens where `serve` of the project says. What is acknowledged is safe on disk, and in the lake seconds later; a
/// `landfall transform` beside it loads it, or `landfall run --watch` at the `schedule` of the stream. The first SIGTERM or SIGINT ends it in good order: requests
/// under way are answered, and what was received is taken to the lake. The second closes what is still open.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {}

pub(super) async fn run(_: &Args, global: &Global) -> Ended {
    let workspace = workspace(global)?;
    if let Err(error) = workspace.prove_store().await {
        // What a spool is for: it is taken to the lake when that is back.
        let spooled = workspace
            .project
            .serve
            .as_ref()
            .is_some_and(|serve| serve.spool.ack == Ack::Spool);
        if error.kind() != ErrorKind::Unavailable || !spooled {
            return Err(error.into());
        }
        say(&format!(
            "warning: {}; what comes is kept until the lake is back",
            error.chain()
        ));
    }
    let shutdown = Shutdown::new();
    // Before anybody can know that it is there.
    let signals = tokio::spawn(shutdown.follow_signals()?);
    let options = Options::of(&workspace.project)?;
    let serve = workspace.project.serve.as_ref();
    let scheme = |tls: bool| if tls { "https" } else { "http" };
    let producers = scheme(serve.is_some_and(|serve| serve.tls.is_some()));
    let admin = scheme(serve.is_some_and(|serve| serve.admin_tls().is_some()));
    // Port 0 is any free one: then only the socket knows.
    for (listener, scheme, whom) in [
        (&options.listener, producers, "producers"),
        (&options.admin_listener, admin, "health and metrics"),
    ] {
        let address = listener
            .local_addr()
            .map_err(|source| Error::new(ErrorKind::Internal, "read own address").caused_by(source))?;
        say(&format!("{whom}  {scheme}://{address}"));
    }
    let (store, clock) = (Arc::clone(&workspace.store), workspace.clock.clone());
    let drained = run::run(Arc::clone(&workspace.project), store, clock, options, shutdown).await?;
    signals.abort();
    Ok(match drained {
        Drained::Finished => DONE,
        Drained::Cut { connections } => {
            say(&format!(
                "{connections} connections were cut; what was acknowledged on them is safe"
            ));
            ErrorKind::Limit.exit_code()
        }
    })
}
