//! The program gives the same tables wherever it runs.

use std::{fs, path::Path, process::Command};

use landfall::clock::Clock;
use serde_json::{Value, json};

use crate::support::{
    api::Api,
    project::{ITEMS, TestProject},
};

/// What the program is started by, and variables.
type Setting<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);

/// Everything a user would ask for, and the contract that was drafted on the way.
fn flow(project: &TestProject, wrap: &[&str], set: impl Fn(&mut Command)) -> String {
    let rows = "SELECT id, updated, name, price, day, at, deleted, _deleted, _lf_batch, _lf_page, _lf_record \
                FROM shop.items ORDER BY id";
    let quarantine =
        "SELECT class, path, expected, found, record FROM shop.items__quarantine ORDER BY record";
    let drift = "SELECT path, kind, expected, found, records FROM landfall.drift ORDER BY 1, 2, 3, 4";
    let steps: [&[&str]; 7] = [
        &["run"],
        &["run", "--complete"],
        &["verify"],
        &["maintain"],
        &["sql", "--format", "json", rows],
        &["sql", "--format", "json", quarantine],
        &["sql", "--format", "json", drift],
    ];
    let mut told = String::new();
    for step in steps {
        let mut command = Command::new(wrap[0]);
        command.args(&wrap[1..]).arg(env!("CARGO_BIN_EXE_landfall"));
        command.arg("--project").arg(project.path()).args(step);
        set(&mut command);
        let output = command.output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{wrap:?} {step:?}\n{words}");
        if step[0] == "sql" {
            told.push_str(str::from_utf8(&output.stdout).unwrap());
        }
    }
    let drafted = fs::read_to_string(project.path().join("contracts/shop.items.odcs.yaml")).unwrap();
    told + &drafted
}

/// Whether `command` can do what the test wants of it here.
fn can(command: &[&str]) -> bool {
    let done = Command::new(command[0]).args(&command[1..]).arg("true").output();
    done.is_ok_and(|output| output.status.success())
}

#[test]
fn f163_zone_locale_umask_temporary_folder_home_and_user_change_nothing() {
    let record = |id: i64, name: &str| {
        json!({"id": id, "updated": 100 + id, "name": name, "price": 1.5, "day": "2026-03-29",
            "at": format!("2026-03-29T0{id}:30:00+02:00"), "deleted": id == 3})
    };
    let names = ["İstanbul", "ısı", "TITLE", "ﬁ", "ß", "ΑΣ", "e\u{301}"];
    let mut records: Vec<Value> = (1..).zip(names).map(|(id, name)| record(id, name)).collect();
    records.push(json!({"updated": 108, "name": "without a key", "price": 1.5}));
    let api = Api::start(records);
    let project = || TestProject::new(&api.base_url, ITEMS);
    let began = Clock::system().now();
    let usual = flow(&project(), &["env"], |_| {});
    assert_eq!(usual.matches("\"_lf_batch\"").count(), 7, "{usual}");

    let other = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let temporary = other.path().to_str().unwrap();
    let masked = ["sh", "-c", "umask 077 && exec \"$@\"", "sh"];
    // A user whom nobody knows, and who may do no more than the files themselves allow.
    let nobody = ["unshare", "--user"];
    let wrap: &[&str] = if can(&nobody) { &nobody } else { &["env"] };
    let settings: [Setting<'_>; 6] = [
        (&["env"], &[("TZ", "Asia/Kathmandu")]),
        (
            &["env"],
            &[
                ("TZ", "America/Los_Angeles"),
                ("LC_ALL", "tr_TR.UTF-8"),
                ("LANG", "tr_TR.UTF-8"),
            ],
        ),
        (&["env"], &[("TMPDIR", temporary)]),
        (
            &["env", "-u", "HOME", "-u", "USER", "-u", "LANG"],
            &[("LC_ALL", "C")],
        ),
        (&masked, &[]),
        (wrap, &[("HOME", "/nowhere")]),
    ];
    let mut last = None;
    for (wrap, variables) in settings {
        let project = project();
        let told = flow(&project, wrap, |command| {
            command.envs(variables.iter().copied());
        });
        assert_eq!(told, usual, "{wrap:?} {variables:?}");
        if wrap == masked {
            assert!(project.files("lake").iter().all(|path| private(path)));
        }
        last = Some(project);
    }

    // The folders of raw are hours of UTC, whatever the zone is.
    let hours = [began, Clock::system().now()].map(|at| at.format("dt=%Y-%m-%d/hr=%H/").to_string());
    for path in last.unwrap().files("lake/raw") {
        let path = path.to_str().unwrap();
        assert!(
            !path.contains("/dt=") || hours.iter().any(|hour| path.contains(hour.as_str())),
            "{path}"
        );
    }
}

fn private(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).unwrap().permissions().mode() & 0o077 == 0
}
