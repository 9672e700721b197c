//! Rules of a contract in SQL.
//!
//! A rule is an expression over the columns of one row that must not be false. As a `CHECK` of SQL it is kept by rows for
//! which nobody knows, because one of its values is null. It is asked of rows that fit otherwise, and not of deletions.
//!
//! ```yaml
//! quality:
//!   - type: custom
//!     engine: landfall
//!     name: paid_orders_have_a_total
//!     severity: warning              # the row is loaded, and the break counted; error (default): quarantined; critical: nothing is loaded
//!     implementation: status <> 'paid' OR total > 0
//! ```

const PATH: &str = "rule ";

/// A rule in SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QualityRule {
    /// Its name, of which there is no second one in the contract.
    pub name: String,
    /// The column it stands at; `None` if it stands at the table.
    pub column: Option<String>,
    /// A boolean expression over the columns of the table.
    pub sql: String,
    /// What happens to rows that break it.
    pub on_broken: OnBroken,
    /// What it is for.
    pub description: Option<String>,
}

/// What stands for a rule where a column has its path.
///
/// ```
/// assert_eq!(landfall::contract::quality::path("total_is_sum"), "rule total_is_sum");
/// ```
pub fn path(rule: &str) -> String {
    format!("{PATH}{rule}")
}

/// Whether `path` is that of a rule. No member has such a path: one with a space in its name is written `["a b"]`.
pub fn is_path(path: &str) -> bool {
    path.starts_with(PATH)
}

/// What happens to rows that break a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnBroken {
    /// They are loaded, and counted as drift.
    Warn,
    /// They are set aside. The default.
    Quarantine,
    /// Nothing of the load is written.
    Fail,
}

impl OnBroken {
    /// Each with the `severity` that a contract writes for it.
    pub const ALL: [(&'static str, Self); 3] = [
        ("warning", Self::Warn),
        ("error", Self::Quarantine),
        ("critical", Self::Fail),
    ];

    /// The `severity` that a contract writes for it.
    ///
    /// ```
    /// use landfall::contract::quality::OnBroken;
    /// assert_eq!(OnBroken::Fail.severity(), "critical");
    /// ```
    pub fn severity(self) -> &'static str {
        match self {
            Self::Warn => "warning",
            Self::Quarantine => "error",
            Self::Fail => "critical",
        }
    }
}
