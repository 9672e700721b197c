//! The parts of the program by themselves, beside peers that do the same work in the same run.
//!
//! ```sh
//! cargo bench --locked                 # all
//! cargo bench --locked -- judge        # those with `judge` in their names
//! ```

fn main() {
    divan::main();
}
