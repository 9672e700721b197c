//! Where it is written down who came: lines that are appended, and never changed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    mem,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use tracing::{Level, enabled};

use crate::{
    error::{Error, ErrorKind, Result},
    receive::producer::audit::AuditEvent,
};

/// Most lines that wait to be written. What comes when there are so many is counted and not written: nobody waits for
/// this file.
const LINES_WAITING_MAX: usize = 10_000;

/// Lines are written together up to this many bytes and one line more.
const WRITE_BYTES: usize = 64 << 10;

/// Only its owner reads who came.
const MODE: u32 = 0o600;

/// Where it is written down who came.
#[derive(Debug)]
pub(crate) struct Audit {
    file: Option<Writer>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Writer {
    /// None only while it is dropped.
    lines: Option<SyncSender<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Audit {
    /// Appends to the file at `path`, if there is one, besides the program's own log.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it cannot be appended to.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let lost = Arc::default();
        let open = |path| Writer::open(path, Arc::clone(&lost));
        let file = path.map(open).transpose().map_err(|source| {
            Error::new(ErrorKind::Config, "open audit log")
                .with("path", path.unwrap_or(Path::new("")).display())
                .caused_by(source)
        })?;
        Ok(Self { file, lost })
    }

    /// Writes `event` down.
    pub(crate) fn tell(&self, event: &AuditEvent) {
        let is_logged = match event.is_granted() {
            true => enabled!(target: "audit", Level::INFO),
            false => enabled!(target: "audit", Level::WARN),
        };
        if !is_logged && self.file.is_none() {
            return;
        }
        // It has nothing that JSON has no words for.
        let Ok(line) = serde_json::to_string(event) else {
            return;
        };
        match event.is_granted() {
            true => tracing::info!(target: "audit", event = line, "let in"),
            false => tracing::warn!(target: "audit", event = line, "{}", event.outcome),
        }
        let lines = self.file.as_ref().and_then(|file| file.lines.as_ref());
        if lines.is_some_and(|lines| lines.try_send(line).is_err()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that were not written, because too many waited or the file took none.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Writer {
    fn open(path: &Path, lost: Arc<AtomicU64>) -> io::Result<Self> {
        let file = append_to(path)?;
        let (sender, lines) = sync_channel(LINES_WAITING_MAX);
        let path = path.to_owned();
        let thread = thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || write_all(&path, file, &lines, &lost))?;
        Ok(Self {
            lines: Some(sender),
            thread: Some(thread),
        })
    }
}

impl Drop for Writer {
    /// Waits until everything is written.
    fn drop(&mut self) {
        self.lines = None;
        if let Some(thread) = self.thread.take() {
            // It logs what fails.
            let _ = thread.join();
        }
    }
}

fn write_all(path: &Path, mut file: File, lines: &Receiver<String>, lost: &AtomicU64) {
    let mut is_torn = false;
    while let Ok(first) = lines.recv() {
        let (mut text, mut count) = (first + "\n", 1);
        while text.len() < WRITE_BYTES {
            let Ok(line) = lines.try_recv() else { break };
            text.push_str(&line);
            text.push('\n');
            count += 1;
        }
        let mut write = || {
            if is_torn {
                file = append_to(path)?;
            }
            in_place(path, &mut file)?;
            file.write_all(text.as_bytes())
        };
        let written = write();
        is_torn = written.is_err();
        if let Err(error) = written {
            // Of some of them there may be a part.
            lost.fetch_add(count, Ordering::Relaxed);
            tracing::error!(path = %path.display(), %error, "audit log not written");
        }
    }
    if let Err(error) = file.sync_data() {
        tracing::error!(path = %path.display(), %error, "audit log not written");
    }
}

/// Has `file` be the one at `path`: somebody may have moved the old one away.
fn in_place(path: &Path, file: &mut File) -> io::Result<()> {
    let ours = file.metadata()?;
    let is_there =
        fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
    if !is_there {
        let moved = mem::replace(file, append_to(path)?);
        moved.sync_data()?;
    }
    Ok(())
}

/// The file at `path`, whose last line is whole.
fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true).mode(MODE);
    let mut file = options.open(path)?;
    if file.metadata()?.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            // What was being written when a machine lost its power.
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Timestamp, receive::producer::audit::Occasion};

    fn event(request_id: &str) -> AuditEvent {
        let occasion = Occasion {
            at: Timestamp::UNIX_EPOCH,
            request_id,
            scope: None,
            stream: None,
            remote: None,
            certificate: None,
        };
        AuditEvent::unusual(&occasion, None, "spike", "much".to_owned())
    }

    fn ids(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        let lines = text
            .lines()
            .map(|line| match serde_json::from_str::<serde_json::Value>(line) {
                Ok(event) => event["request_id"].as_str().unwrap().to_owned(),
                Err(_) => format!("torn: {line}"),
            });
        lines.collect()
    }

    #[test]
    fn r146_the_audit_log_is_only_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = Audit::open(Some(&path)).unwrap();
        for number in 0..100 {
            audit.tell(&event(&format!("r{number}")));
        }
        drop(audit);
        let before = fs::read(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        assert_eq!(ids(&path).len(), 100);
        // A crash in the middle of a line, and another start.
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"at")
            .unwrap();
        let audit = Audit::open(Some(&path)).unwrap();
        audit.tell(&event("again"));
        drop(audit);
        let after = fs::read(&path).unwrap();
        assert!(after.starts_with(&before));
        assert_eq!(ids(&path)[100..], ["torn: {\"at", "again"]);
    }

    #[test]
    fn a_log_that_was_moved_away_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("audit.jsonl"), dir.path().join("old.jsonl"));
        let audit = Audit::open(Some(&path)).unwrap();
        audit.tell(&event("first"));
        while fs::metadata(&path).unwrap().len() == 0 {
            thread::yield_now();
        }
        fs::rename(&path, &old).unwrap();
        audit.tell(&event("second"));
        assert_eq!(audit.lost(), 0);
        drop(audit);
        assert_eq!(
            (ids(&old), ids(&path)),
            (vec!["first".to_owned()], vec!["second".to_owned()])
        );
    }

    #[test]
    fn a_log_that_cannot_be_written_is_said_at_the_start() {
        let error = Audit::open(Some(Path::new("/nowhere/audit.jsonl"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}
