//! Named places where a test build can be made to die.
//!
//! Nothing is compiled in unless the `fail` crate's `failpoints` feature is on, which only test builds turn on.

/// Lets the variable `FAILPOINTS` arm points in this process, as in `raw::after_put=3*off->return`.
///
/// Called once, first thing in `main`. Without the feature it does nothing.
///
/// # Panics
/// In test builds, if the variable cannot be understood.
pub fn arm() {
    if fail::has_failpoints() {
        // Dropping the scenario would disarm every point.
        std::mem::forget(fail::FailScenario::setup());
    }
}

/// A point called `name`: if it is armed with `return`, the process ends here without unwinding or flushing anything.
pub fn point(name: &str) {
    let _ = name;
    fail::fail_point!(name, |_| std::process::abort());
}
