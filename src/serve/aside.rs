//! Long work on bodies, done where it holds up nobody.

use crate::serve::problem::{Problem, code::Code};

/// Work on fewer bytes, some tens of microseconds, is done where it is.
const BYTES_MIN: usize = 64 << 10;

/// Does `work`, which looks at every one of so many bytes a few times at most.
///
/// # Errors
/// `internal` if it panicked elsewhere.
pub(crate) async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    if bytes < BYTES_MIN {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Problem::new(Code::Internal, "the log has the cause"))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn only_long_work_goes_elsewhere() {
        let here = thread::current().id();
        let place = async |bytes| aside(bytes, || thread::current().id()).await.unwrap();
        assert_eq!(place(BYTES_MIN - 1).await, here);
        assert_ne!(place(BYTES_MIN).await, here);
        let broken = aside(BYTES_MIN, || panic!("for the test")).await;
        assert_eq!(broken.unwrap_err().code(), Code::Internal);
    }
}
