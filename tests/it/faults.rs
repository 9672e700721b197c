//! Faults of the machine and of the network that only a real file system or a real handshake can show.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::support::{
    api::Api,
    project::{ITEMS, TestProject},
};

#[test]
fn f060_a_certificate_that_nobody_vouches_for_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/python/bad_certificate.py");
    let mut server = Command::new("python3")
        .arg(script)
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let url = lines.next().unwrap().unwrap();

    let ran = TestProject::new(&url, ITEMS).run(&["extract"]);
    assert_eq!(
        lines.next().unwrap().unwrap(),
        "refused",
        "the handshake itself fails"
    );
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(
        ran.stderr.to_lowercase().contains("certificate"),
        "{}",
        ran.stderr
    );
    assert!(
        !ran.stderr.contains("sent again"),
        "one request is enough: {}",
        ran.stderr
    );
    assert!(lines.next().is_none(), "nothing was sent again");
}

#[test]
fn f060_a_host_without_an_address_is_said_by_name() {
    let ran = TestProject::new("http://nobody.invalid", ITEMS).run(&["extract"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("nobody.invalid"), "{}", ran.stderr);
}

/// A shell line that mounts 2 MB of memory over `dir`, in a mount namespace of its own, and runs `then` there.
fn on_a_small_disk(dir: &str, then: &str) -> Option<Command> {
    let line = format!("mount -t tmpfs -o size=2m tmpfs '{dir}' && {then}");
    // Root may mount; others may in a user namespace, where the system has them.
    for options in [&["--mount"][..], &["--user", "--map-root-user", "--mount"]] {
        let mut probe = Command::new("unshare");
        probe
            .args(options)
            .args(["sh", "-c", &format!("mount -t tmpfs tmpfs '{dir}'")]);
        if probe.output().is_ok_and(|output| output.status.success()) {
            let mut command = Command::new("unshare");
            command.args(options).args(["sh", "-c", &line]);
            return Some(command);
        }
    }
    None
}

#[test]
fn f010_a_full_disk_fails_loudly_and_space_is_all_it_takes() {
    let wide = |id: i64| -> Value {
        // Text that does not compress below half its size: all of it does not fit.
        let mut generator = StdRng::seed_from_u64(id as u64);
        let noise: String = (0..4000)
            .map(|_| char::from(generator.random_range(b'a'..=b'z')))
            .collect();
        json!({"id": id, "updated": id, "name": noise})
    };
    let api = Api::start((0..1500).map(wide).collect());
    let project = TestProject::items(&api.base_url);
    std::fs::create_dir(project.path().join("lake")).unwrap();
    let program = env!("CARGO_BIN_EXE_landfall");
    let root = project.path().display().to_string();
    let run = format!("'{program}' --project '{root}'");
    // The lake is gone with its file system, so all is told by one shell: fail, free space, go on where it stood.
    let script = format!(
        "{run} extract; echo \"first $?\" >&2; mount -o remount,size=64m '{root}/lake'; {run} run; echo \"second $?\" >&2; \
         {run} sql --format json 'SELECT count(*) n, count(DISTINCT id) d FROM shop.items'"
    );
    let Some(mut command) = on_a_small_disk(&format!("{root}/lake"), &script) else {
        // Nothing to mount with: the error mapping has its own test beside the store.
        return;
    };
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("first 1") && said.to_lowercase().contains("space"),
        "{said}"
    );
    assert!(said.contains("second 0"), "{said}");
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows, json!({"n": 1500, "d": 1500}));
}
