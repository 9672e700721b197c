//! What an error of delta-rs means to us.

use std::{error::Error as StdError, io};

use deltalake::DeltaTableError;
use object_store::Error as StoreError;

use crate::error::{Error, ErrorKind};

/// How errors of the Delta kernel begin whose cause is outside. They do not name it as their source, and their type has no
/// name here.
const KERNEL_OUTSIDE: [&str; 2] = ["Error interacting with object store: ", "Reqwest Error: "];

/// How errors of the Delta kernel begin that do not say that a log is damaged.
const KERNEL_UNABLE: [&str; 4] = [
    "Unsupported: ",
    "Join failure: ",
    "Internal error ",
    "Operation cancelled",
];

/// Lowers an error of delta-rs to ours.
pub(super) fn lower(source: DeltaTableError, attempt: &'static str) -> Error {
    Error::new(kind(&source), attempt).caused_by(source)
}

fn kind(error: &DeltaTableError) -> ErrorKind {
    if is_outside(error) {
        return ErrorKind::Unavailable;
    }
    match error {
        DeltaTableError::ObjectStore { .. } => ErrorKind::Unavailable,
        DeltaTableError::KernelError(kernel) => {
            let text = kernel.to_string();
            let begins = |starts: &[&str]| starts.iter().any(|start| text.starts_with(start));
            if begins(&KERNEL_OUTSIDE) {
                ErrorKind::Unavailable
            } else if begins(&KERNEL_UNABLE) {
                ErrorKind::Internal
            } else {
                ErrorKind::Corrupt
            }
        }
        DeltaTableError::InvalidJsonLog { .. }
        | DeltaTableError::MetadataError(_)
        | DeltaTableError::Parquet { .. } => ErrorKind::Corrupt,
        _ => ErrorKind::Internal,
    }
}

/// Whether what is underneath is a store or a system that did not answer, however deep. That something is not there is an
/// answer.
fn is_outside(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(store) = error.downcast_ref::<StoreError>() {
            return !matches!(
                store,
                StoreError::NotFound { .. }
                    | StoreError::AlreadyExists { .. }
                    | StoreError::Precondition { .. }
            );
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            use io::ErrorKind as Kind;
            // Decoders call bytes that they do not understand an error of I/O, too; those have no number of the system.
            let of_system = io.raw_os_error().is_some() && io.kind() != Kind::NotFound;
            let of_network = matches!(
                io.kind(),
                Kind::TimedOut
                    | Kind::Interrupted
                    | Kind::ConnectionReset
                    | Kind::ConnectionAborted
                    | Kind::ConnectionRefused
                    | Kind::NotConnected
                    | Kind::BrokenPipe
            );
            return of_system || of_network;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use parquet::errors::ParquetError;

    use super::*;

    fn generic() -> StoreError {
        StoreError::Generic {
            store: "test",
            source: "connection lost".into(),
        }
    }

    fn missing() -> StoreError {
        StoreError::NotFound {
            path: "part".to_owned(),
            source: "gone".into(),
        }
    }

    #[test]
    fn what_a_store_did_not_answer_is_no_damage() {
        let parquet = |source: Box<dyn StdError + Send + Sync>| DeltaTableError::Parquet {
            source: ParquetError::External(source),
        };
        let cases: [(DeltaTableError, ErrorKind); 6] = [
            (parquet(Box::new(generic())), ErrorKind::Unavailable),
            (parquet(Box::new(missing())), ErrorKind::Corrupt),
            (
                parquet(Box::new(io::Error::from_raw_os_error(24))),
                ErrorKind::Unavailable,
            ),
            (
                parquet(Box::new(io::Error::other("bad frame"))),
                ErrorKind::Corrupt,
            ),
            (
                DeltaTableError::KernelError(generic().into()),
                ErrorKind::Unavailable,
            ),
            (DeltaTableError::KernelError(missing().into()), ErrorKind::Corrupt),
        ];
        for (error, expected) in cases {
            let text = error.to_string();
            assert_eq!(lower(error, "open table").kind(), expected, "{text}");
        }
    }
}
