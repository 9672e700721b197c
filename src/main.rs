//! The program: a runtime around the command line.

use std::{io::Write as _, process::ExitCode};

use landfall::{cli, failpoint};

/// The allocator of the C library keeps what threads free in an arena for each of them: after some gigabytes of loads the
/// process held three times what it uses. This one gives it back; how is said in `.cargo/config.toml`.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
