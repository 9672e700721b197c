//! A `redis-server` of the test's own: the one of the machine, or that of Debian unpacked into the cache.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::support::python::once_per_machine;

/// Longest wait until it answers.
const READY_MAX: Duration = Duration::from_secs(20);

/// Ports tried; another program may take one between our look and its start.
const PORTS_MAX: usize = 5;

/// The packages that hold the server and what it is linked with beyond the base system.
const PACKAGES: [&str; 4] = ["redis-server", "redis-tools", "liblzf1", "libjemalloc2"];

/// A server with an empty store that forgets everything when it ends.
pub struct Redis {
    port: u16,
    process: Child,
    dir: TempDir,
}

impl Redis {
    /// Starts one on a free port. Blocks until it answers.
    pub fn start() -> Self {
        let dir = TempDir::new().unwrap();
        for _ in 0..PORTS_MAX {
            let port = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            if let Some(process) = serve(&dir, port) {
                return Self { port, process, dir };
            }
        }
        panic!("redis-server does not start");
    }

    /// `redis://127.0.0.1:PORT/0`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again where it was, empty.
    pub fn restart(&mut self) {
        self.process = serve(&self.dir, self.port).unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Nothing if it ends by itself, which it does if the port is taken.
fn serve(dir: &TempDir, port: u16) -> Option<Child> {
    let mut process = command()
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--port", &port.to_string()])
        .arg("--dir")
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !answers(port) {
        if process.try_wait().unwrap().is_some() {
            return None;
        }
        assert!(begun.elapsed() < READY_MAX, "redis-server does not answer");
        thread::yield_now();
    }
    Some(process)
}

fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let mut answer = [0; 5];
    stream.write_all(b"PING\r\n").is_ok() && stream.read_exact(&mut answer).is_ok() && answer == *b"+PONG"
}

fn command() -> Command {
    let installed = ["/usr/bin/redis-server", "/usr/local/bin/redis-server"].map(PathBuf::from);
    if let Some(program) = installed.into_iter().find(|program| program.exists()) {
        return Command::new(program);
    }
    let dir = once_per_machine("redis", PACKAGES.join(" ").as_bytes(), |dir| {
        run(Command::new("apt-get").args(["-q", "update"]));
        run(Command::new("apt-get")
            .args(["-q", "download"])
            .args(PACKAGES)
            .current_dir(dir));
        let packages = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        for package in packages.filter(|path| path.extension().is_some_and(|suffix| suffix == "deb")) {
            run(Command::new("dpkg").arg("-x").arg(package).arg(dir));
        }
    });
    let libraries = dir
        .join("usr/lib")
        .join(format!("{}-linux-gnu", std::env::consts::ARCH));
    let mut command = Command::new(dir.join("usr/bin/redis-server"));
    command.env("LD_LIBRARY_PATH", libraries);
    command
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
}
