//! A secret that a program prints.

use std::{
    fmt,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::error::{Error, ErrorKind, Result};

/// How long a printed secret is used before the program runs again.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// How long a program may take.
const RUN_MAX: Duration = Duration::from_secs(30);

/// Most bytes a program may print.
const OUTPUT_BYTES_MAX: u64 = 64 * 1024;

/// Between two looks whether a program that has closed its output has ended.
const END_PAUSE: Duration = Duration::from_millis(5);

/// A program with its arguments, and what it printed last. Clones share that.
#[derive(Clone)]
pub(super) struct Exec {
    command: String,
    dir: Option<PathBuf>,
    printed: Arc<Mutex<Option<Printed>>>,
}

struct Printed {
    at: Instant,
    text: String,
}

impl Exec {
    /// Program and arguments, separated by spaces.
    pub(super) fn new(command: &str) -> Self {
        Self {
            command: command.trim().to_owned(),
            dir: None,
            printed: Arc::default(),
        }
    }

    /// The same program, run in `dir`; a relative path with a slash in it is found from there too.
    pub(super) fn relative_to(&self, dir: &Path) -> Self {
        Self {
            command: self.command.clone(),
            dir: Some(dir.to_owned()),
            printed: Arc::default(),
        }
    }

    /// Program and arguments as written.
    pub(super) fn command(&self) -> &str {
        &self.command
    }

    /// The program alone.
    pub(super) fn program(&self) -> &str {
        self.command.split_whitespace().next().unwrap_or_default()
    }

    /// Lets the program run again at the next use.
    pub(super) fn forget(&self) {
        *self.printed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What the program prints, without the trailing line end; at most [`KEPT_FOR`] old.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the program, never its arguments or its words.
    pub(super) fn output(&self) -> Result<String> {
        // Held while the program runs, so that it runs once for all who wait.
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = printed.as_ref().filter(|known| known.at.elapsed() < KEPT_FOR) {
            return Ok(known.text.clone());
        }
        let text = self.run(RUN_MAX)?;
        *printed = Some(Printed {
            at: Instant::now(),
            text: text.clone(),
        });
        Ok(text)
    }

    fn run(&self, run_max: Duration) -> Result<String> {
        let deadline = Instant::now() + run_max;
        let mut child = self
            .start()
            .map_err(|cause| self.error("cannot be started").caused_by(cause))?;
        let Some(stdout) = child.stdout.take() else {
            return Err(self.error("has no output"));
        };
        let (sender, receiver) = mpsc::channel();
        // On a thread of its own, which ends with the output; a program that never closes it is not waited for.
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = stdout.take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut bytes);
            let _ = sender.send(read.map(|_| bytes));
        });
        let read = receiver.recv_timeout(run_max);
        let ended = match &read {
            Ok(Ok(bytes)) if bytes.len() as u64 <= OUTPUT_BYTES_MAX => end_of(&mut child, deadline),
            _ => None,
        };
        let Some(status) = ended else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(match read {
                Ok(Ok(bytes)) if bytes.len() as u64 > OUTPUT_BYTES_MAX => self
                    .error("prints too much")
                    .with("output_bytes_max", OUTPUT_BYTES_MAX),
                Ok(Err(cause)) => self.error("cannot be read").caused_by(cause),
                _ => self.error("takes too long").with("run_max_s", run_max.as_secs()),
            });
        };
        if !status.success() {
            return Err(self.error("fails").with("status", status).with(
                "hint",
                "run it in the project's folder by hand: what it writes to stderr is not shown here",
            ));
        }
        let text = String::from_utf8(read.ok().and_then(Result::ok).unwrap_or_default())
            .map_err(|_| self.error("prints what is not UTF-8"))?;
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            return Err(self.error("prints nothing"));
        }
        Ok(text.to_owned())
    }

    fn start(&self) -> std::io::Result<Child> {
        let program = self.program();
        let mut command = match &self.dir {
            // Where a relative program is looked for differs between systems once the folder is set.
            Some(dir) if program.contains('/') => Command::new(dir.join(program)),
            _ => Command::new(program),
        };
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
            .args(self.command.split_whitespace().skip(1))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
    }

    fn error(&self, problem: &'static str) -> Error {
        Error::new(ErrorKind::Config, "read secret from a program")
            .with("program", self.program())
            .with("problem", problem)
    }
}

/// How `child` ended, or `None` if it has not by `deadline`.
fn end_of(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    while Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        thread::sleep(END_PAUSE);
    }
    None
}

impl PartialEq for Exec {
    fn eq(&self, other: &Self) -> bool {
        (&self.command, &self.dir) == (&other.command, &other.dir)
    }
}

impl Eq for Exec {}

impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exec({})", self.program())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use tempfile::TempDir;

    use super::*;

    fn script(text: &str) -> (TempDir, Exec) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret.sh");
        fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let exec = Exec::new("./secret.sh hunter2  $HOME").relative_to(dir.path());
        (dir, exec)
    }

    #[test]
    fn r054_a_program_prints_the_secret_without_a_shell_between() {
        let (_dir, exec) = script(r#"echo "$# $2 $(ls)"; echo noise >&2"#);
        assert_eq!(exec.output().unwrap(), "2 $HOME secret.sh");
        assert_eq!(Exec::new("printf %s value").output().unwrap(), "value");
    }

    #[test]
    fn r055_a_program_runs_again_once_its_word_was_refused() {
        let (_dir, exec) = script("echo x >> runs; wc -l < runs");
        assert_eq!(exec.output().unwrap().trim(), "1");
        assert_eq!(exec.clone().output().unwrap().trim(), "1");
        exec.forget();
        assert_eq!(exec.output().unwrap().trim(), "2");
    }

    #[test]
    fn r054_a_program_that_fails_is_named_and_not_quoted() {
        let table = [
            ("echo s3cr3t; echo s3cr3t >&2; exit 3", "fails"),
            ("true", "prints nothing"),
            ("printf '\\377s3cr3t'", "not UTF-8"),
            ("head -c 100000 /dev/zero", "prints too much"),
            ("exec sleep 60", "takes too long"),
            ("exec >&-; exec sleep 60", "takes too long"),
        ];
        for (text, problem) in table {
            let (_dir, exec) = script(text);
            let error = exec.run(Duration::from_millis(200)).unwrap_err();
            let chain = error.chain();
            assert!(chain.contains(problem), "{text}: {chain}");
            assert!(
                !chain.contains("s3cr3t") && !chain.contains("hunter2"),
                "{text}: {chain}"
            );
        }
        let error = Exec::new("/no/such/program --password hunter2")
            .output()
            .unwrap_err();
        assert!(error.chain().contains("cannot be started (") || error.chain().contains("cannot be started"));
        assert!(!error.chain().contains("hunter2"), "{error}");
    }
}
