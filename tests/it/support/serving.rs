//! `landfall serve` in a process of its own.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use crate::support::project::TestProject;

/// A server of its own process; killed when dropped.
pub struct Server {
    process: Child,
    /// Where producers are let in: scheme, host and port.
    pub producers: String,
    /// Where health and metrics are told.
    pub admin: String,
    said: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts the server of `project` and waits until it listens.
    pub fn start(project: &TestProject) -> Self {
        Self::start_with(project, &["serve"])
    }

    /// As [`Server::start`], with other arguments.
    pub fn start_with(project: &TestProject, arguments: &[&str]) -> Self {
        Self::spawn(project.command(arguments))
    }

    /// As [`Server::start`], by a command.
    pub fn spawn(mut command: Command) -> Self {
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let mut address = |whom: &str| {
            let told = lines.find_map(|line| {
                let line = line.unwrap();
                let told = line.strip_prefix(whom).map(|rest| rest.trim().to_owned());
                said.push(line);
                told
            });
            told.unwrap_or_default()
        };
        let (producers, admin) = (address("producers"), address("health and metrics"));
        assert!(!admin.is_empty(), "{said:?}");
        let said = Arc::new(Mutex::new(said));
        let sink = Arc::clone(&said);
        // Read on, or the server could not say more.
        let reader = std::thread::spawn(move || {
            lines.for_each(|line| sink.lock().unwrap().push(line.unwrap_or_default()));
        });
        Self {
            process,
            producers,
            admin,
            said,
            reader: Some(reader),
        }
    }

    /// Sends it the signal of this name.
    pub fn signal(&self, name: &str) {
        // The shell's own: not every machine has a program for it.
        let kill = format!("kill -{name} {}", self.process.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end, and returns its exit code and everything it said.
    pub fn end(mut self) -> (Option<i32>, String) {
        let code = self.process.wait().unwrap().code();
        self.reader.take().unwrap().join().unwrap();
        let said = self.said.lock().unwrap().join("\n");
        (code, said)
    }

    /// Asks it to end, waits for that, and returns what it said.
    pub fn stop(self) -> String {
        self.signal("TERM");
        let (code, said) = self.end();
        assert_eq!(code, Some(0), "{said}");
        said
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
