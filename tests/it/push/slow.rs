//! Input that comes slowly, pushes that are killed with records refused, and files that memory has no room for.

use std::{fmt::Write as _, path::Path, process::Output, sync::atomic::Ordering};

use landfall::push::{
    refused::RefusedFile,
    source::Source,
    upload::{self, Progress, upload},
};

use super::*;

/// Names the file to send, and to whom; without it [`sends_the_file_that_it_is_told_of`] has nothing to do.
const TOLD: &str = "LANDFALL_TEST_PUSHED";

/// Largest record of `shop.narrow`, in bytes, as its settings say.
const NARROW_BYTES: usize = 64 << 10;

/// Largest batch of the pushes whose memory is measured, in bytes.
const BATCH_BYTES: usize = 512 << 10;

/// What such a push may take more for a large file than for a small one: of each of the batches that are gathered, waiting,
/// under way and answered, five at most, the body with the room it grew into, what it is packed to, and as many bytes of
/// records that are refused, once as they are and once as text.
const WORKING_BYTES: u64 = 5 * 5 * BATCH_BYTES as u64;

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_slowly_is_sent_after_a_time_while_more_is_to_come() {
    let place = Shop::new();
    let server = place.serve();
    let args = [
        "-",
        "--channel",
        CHANNEL,
        "--batch-age",
        "50ms",
        "--format",
        "json",
    ];
    let mut command = place.command("shop.items", &args);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut push = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = push.stdin.take().unwrap();
    // Whoever writes need not end with a line.
    pipe.write_all(format!("{}{{\"id\":2,", lines(0..2)).as_bytes())
        .unwrap();
    pipe.flush().unwrap();
    place.reaches(1, &mut push).await;
    assert!(push.try_wait().unwrap().is_none(), "it did not wait for more");
    pipe.write_all(b"\"name\":\"late\"}\n").unwrap();
    pipe.flush().unwrap();
    place.reaches(2, &mut push).await;
    assert!(push.try_wait().unwrap().is_none(), "it did not wait for more");
    pipe.write_all(lines(3..5).as_bytes()).unwrap();
    drop(pipe);
    let ran = Ran::from(push.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let row = Shop::row(&ran);
    assert_eq!(row["records"], 5);
    assert!(row["batches"].as_u64() > Some(2), "{row}");
    server.stop();
    assert_eq!(place.ids("shop.items").await, once(0..5));
    let first = place.landed("shop.items").await.swap_remove(0).1;
    assert_eq!(first.split(|byte| *byte == b'\n').count(), 2);
}

/// The lines of a file of refused records, without the name of what was sent.
fn refusals(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'), "{text}");
    let lines = text.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        line.as_object_mut().unwrap().remove("file");
        line
    });
    lines.collect()
}

/// Twelve records: of four the second is refused by the server, and the last is not sent at all.
fn mixed() -> String {
    (0..12)
        .map(|id| match id % 4 {
            1 => format!("{{\"id\":\"no. {id}\"}}\n"),
            3 => format!("{{\"id\":{id}\n"),
            _ => format!("{{\"id\":{id}}}\n"),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_records_survive_kills_and_each_stands_in_the_file_once() {
    let place = Shop::new();
    let server = place.serve();
    let path = |name: &str| place.project.path().join(name);
    let push = |name: &str, failpoints: &str| {
        let (file, refused) = (format!("{name}.jsonl"), format!("{name}.refused"));
        let args = [&file, "--refused", &refused, "--batch-records", "3"];
        let mut command = place.command("shop.judged", &args);
        Ran::from(command.env("FAILPOINTS", failpoints).output().unwrap())
    };
    place.write("whole.jsonl", mixed());
    let ran = push("whole", "");
    assert_eq!(ran.code, Some(4), "{ran:?}");
    let expected = refusals(&path("whole.refused"));
    let codes: Vec<_> = expected
        .iter()
        .map(|line| line["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["type_mismatch", "not_json"].repeat(3));

    let mut pushes = 1;
    for point in ["push::before_refused", "push::after_refused"] {
        for before in 0..3 {
            for torn in [0, 9] {
                let name = format!("{}-{before}-{torn}", point.replace(':', ""));
                let refused = path(&format!("{name}.refused"));
                place.write(&format!("{name}.jsonl"), mixed());
                let killed = push(&name, &format!("{point}={before}*off->return"));
                assert_eq!(killed.code, None, "{name}: {killed:?}");
                if torn > 0 && (before > 0 || point.contains("after")) {
                    // The machine lost power before all of the last lines were on disk.
                    let text = std::fs::read(&refused).unwrap();
                    let sure = if point.contains("after") { torn } else { 0 };
                    std::fs::write(&refused, &text[..text.len() - sure]).unwrap();
                }
                let ran = push(&name, "");
                assert!(matches!(ran.code, Some(0 | 4)), "{name}: {ran:?}");
                assert_eq!(refusals(&refused), expected, "{name}");
                let again = push(&name, "");
                assert_eq!(again.code, Some(0), "{name}: {again:?}");
                assert!(again.stderr.contains("nothing to send"), "{}", again.stderr);
                assert_eq!(refusals(&refused), expected, "{name}");
                pushes += 1;
            }
        }
    }

    // What cannot be sent and stands behind all that was is told once, too.
    place.write("whole.jsonl", mixed() + "{\"id\":\n");
    for (code, count) in [(4, 7), (0, 7)] {
        let ran = push("whole", "");
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert_eq!(refusals(&path("whole.refused")).len(), count);
    }
    // All of it again is another pass, and so are its refusals.
    let mut command = place.command(
        "shop.judged",
        &["whole.jsonl", "--again", "--refused", "whole.refused"],
    );
    assert_eq!(command.output().unwrap().status.code(), Some(4));
    assert_eq!(refusals(&path("whole.refused")).len(), 14);
    pushes += 1;
    server.stop();
    let landed = place.ids("shop.judged").await;
    let good: BTreeMap<u64, usize> = (0..12).step_by(2).map(|id| (id, pushes)).collect();
    assert_eq!(landed, good);
}

/// No claim of its own: the part of the test below that runs in another process.
#[test]
fn sends_the_file_that_it_is_told_of() {
    let Some(told) = std::env::var_os(TOLD) else {
        return;
    };
    let told: Value = serde_json::from_str(told.to_str().unwrap()).unwrap();
    let text = |name: &str| told[name].as_str().unwrap();
    let options = upload::Options {
        target: "shop.narrow".parse().unwrap(),
        mode: Mode::Partial,
        records_max: None,
        bytes_max: Some(BATCH_BYTES),
        age_max: Duration::from_secs(1),
        channel: None,
        again: false,
        dry_run: false,
    };
    let client = Client::new(Options::usual(text("url"), Credential::of(text("token")))).unwrap();
    let source = Source::of(Path::new(text("file")));
    let mut refused = RefusedFile::at(Path::new(text("refused")));
    let progress = Progress::default();
    let sent = upload(&client, &source, &options, &mut refused, &progress);
    let sent = tokio::runtime::Runtime::new().unwrap().block_on(sent).unwrap();
    assert_eq!(progress.read.load(Ordering::Relaxed), source.bytes().unwrap());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let peak = peak.split_whitespace().nth(1).unwrap();
    println!("\ntold {peak} {} {}", sent.records, sent.refused);
}

/// Peak memory in bytes, and how many records were sent and refused.
fn told(output: &Output) -> [u64; 3] {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("told "));
    let line = line.unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)));
    let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
    [numbers[0] << 10, numbers[1], numbers[2]]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_any_size_is_sent_in_the_memory_of_a_few_batches() {
    let place = Shop::new();
    let server = place.serve();
    let push = |name: &str, records: usize, too_large: usize| {
        let mut text = String::new();
        let note = "note ".repeat(200);
        for id in 0..records {
            writeln!(text, "{{\"id\":{id},\"note\":\"{note}\"}}").unwrap();
        }
        // One behind the other, so that nothing is sent between them.
        for id in 0..too_large {
            writeln!(text, "{{\"id\":{id},\"note\":\"{}\"}}", "x".repeat(NARROW_BYTES)).unwrap();
        }
        let file = place.write(name, &text);
        drop(text);
        let refused = place.project.path().join(format!("{name}.refused"));
        let asked = json!({"url": place.url(), "token": place.token, "file": file, "refused": refused});
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "push::slow::sends_the_file_that_it_is_told_of",
            "--exact",
            "--nocapture",
        ]);
        let output = command.env(TOLD, asked.to_string()).output().unwrap();
        assert_eq!(refusals(&refused).len(), too_large);
        told(&output)
    };
    let [usual, ..] = push("small.jsonl", 1_000, 10);
    let [peak, sent, refused] = push("large.jsonl", 16_000, 320);
    assert_eq!((sent, refused), (16_000, 320));
    let most = usual + WORKING_BYTES;
    assert!(peak < most, "{} MiB of {} MiB", peak >> 20, most >> 20);
    server.stop();
}
