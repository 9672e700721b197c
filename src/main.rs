//! The program: a runtime around the command line.

use std::{io::Write as _, process::ExitCode};

use landfall::{cli, failpoint};

/// Stack of a worker thread: SQL planning recurses with the depth of a statement.
const STACK_BYTES: usize = 8 * 1024 * 1024;

fn main() -> ExitCode {
    failpoint::arm();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(cli::main(std::env::args_os())).into(),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: start: {error}");
            ExitCode::FAILURE
        }
    }
}
