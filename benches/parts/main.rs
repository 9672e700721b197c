//! The parts of the program by themselves, beside peers that do the same work in the same run.
//!
//! ```sh
//! cargo bench --locked                        # all but merge and frames
//! cargo bench --locked -- judge               # those with `judge` in their names
//! cargo bench --locked -- frames              # how small the frames of raw are, by level and size
//! cargo bench --locked -- merge 10000000      # into a table of ten million rows; a million if no number is given
//! ```

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a benchmark may stop at once, and nothing here is public"
)]

mod judge;
#[allow(clippy::print_stdout, reason = "it prints a table")]
mod land;
#[allow(clippy::print_stdout, reason = "it prints a table")]
mod merge;
mod orders;

use divan::AllocProfiler;
use tikv_jemallocator::Jemalloc;

/// The program's allocator, with a count, so that allocations of each record would be seen.
#[global_allocator]
static ALLOCATIONS: AllocProfiler<Jemalloc> = AllocProfiler::new(Jemalloc);

fn main() {
    // Cargo adds a word of its own.
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    match words.split_first() {
        Some((first, rest)) if first == "merge" => merge::main(rest),
        Some((first, [])) if first == "frames" => land::sizes(),
        _ => divan::main(),
    }
}
