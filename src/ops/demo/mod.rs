//! `landfall demo`: a sample API and the project that loads it.
//!
//! ```text
//! shop (loopback) ─ day 1 ─ extract ─ transform ─ next_day ─ extract ─ transform ─ reports ─ SQL
//! ```

pub mod shop;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    clock::Clock,
    config::{StreamName, read},
    error::{Error, ErrorKind, Result},
    ops::{
        self, Workspace,
        extract::Outcome as Extracted,
        quarantine::{self, Mask},
        transform::{self, Outcome as Transformed},
    },
    report::{self, Format, count, counted, rows},
};

/// The file that tells a demo folder from any other, and how it begins.
const MARK: (&str, &str) = ("landfall.yml", "# A sample API on this machine");

/// Most reasons of the quarantine that are listed.
const REASONS_MAX: u32 = 20;

/// What to ask the tables, with a word on each.
const QUESTIONS: [(&str, &str); 2] = [
    (
        "What is in the shop, without the orders that the API deleted?",
        "SELECT status, count(*) AS orders, sum(total) AS total\nFROM shop.orders WHERE _deleted IS NOT TRUE GROUP BY status ORDER BY orders DESC",
    ),
    (
        "What did the API say about one order, each time it was asked?",
        "SELECT r._lf_batch AS batch, r.fetched_at, r.status, r.record\nFROM shop.orders__raw r WHERE r.record LIKE '{\"id\":10004,%' ORDER BY batch",
    ),
];

/// Runs the demo in `dir` and tells it line by line.
///
/// # Errors
/// [`ErrorKind::Config`] if `dir` holds something that is not an earlier demo; else those of the verbs it runs.
pub async fn demo(dir: &Path, clock: Clock, tell: &mut (dyn FnMut(&str) + Send)) -> Result<()> {
    let dir = std::path::absolute(dir).map_err(|source| {
        Error::new(ErrorKind::Config, "find folder")
            .with("dir", dir.display())
            .caused_by(source)
    })?;
    let earlier = is_earlier(&dir)?;
    let shop = shop::start(clock.clone()).await?;
    write_project(&dir, shop.base_url())?;
    let loaded = read::load(&dir).map_err(|problems| {
        let first = problems.first().map(ToString::to_string).unwrap_or_default();
        Error::new(ErrorKind::Internal, "read demo project").caused_by(first)
    })?;
    let workspace = Workspace::open(loaded.project, clock)?;
    let streams: Vec<StreamName> = workspace
        .project
        .streams()
        .map(|(_, stream)| stream.name.clone())
        .collect();
    tell(&format!(
        "A sample shop answers at {}: with pages, an API key, a rate limit and the odd 429.",
        shop.base_url()
    ));
    tell(&format!("The project that loads it is in {}", dir.display()));
    if earlier {
        tell("An earlier demo is there: its tables stay, so most of what comes is known already.");
    }
    tell("\nDAY 1: land the pages raw, then turn them into Delta tables");
    day(&workspace, &streams, tell).await?;
    shop.next_day();
    tell(
        "\nDAY 2: orders changed, some were deleted, the shop is away for two requests, and its data drifts",
    );
    day(&workspace, &streams, tell).await?;
    shop.stop().await?;
    let session = workspace.session()?;
    tell("\nSET ASIDE: what does not fit its contract is kept with the reason; the rest was loaded");
    tell_indented(
        &report::quarantine::text(
            &quarantine::list(&workspace, &streams, REASONS_MAX, Mask::No).await?,
            REASONS_MAX,
        ),
        tell,
    );
    tell("\nDRIFT: what the data did that the contract does not say; nothing of it is lost");
    let drift = super::drift::drift(&workspace, &streams).await?;
    let open = report::drift::Filter {
        all: false,
        since: None,
    };
    tell_indented(&report::drift::text::text(drift, open)?, tell);
    for (question, sql) in QUESTIONS {
        tell(&format!("\n{question}"));
        tell(&format!("  {}", sql.replace('\n', "\n  ")));
        let frame = session.sql(sql).await?;
        let mut table = Vec::new();
        rows::write_frame(frame, Format::Table, &mut table).await?;
        tell("");
        tell_indented(&String::from_utf8_lossy(&table), tell);
    }
    tell_commands(&dir, tell);
    Ok(())
}

/// Whether an earlier demo is in `dir`. Anything else there is somebody's, and is left alone.
fn is_earlier(dir: &Path) -> Result<bool> {
    let read = |source| {
        Error::new(ErrorKind::Config, "read folder")
            .with("dir", dir.display())
            .caused_by(source)
    };
    let mut entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(read(source)),
    };
    if entries.next().is_none() {
        return Ok(false);
    }
    let text = fs::read_to_string(dir.join(MARK.0)).unwrap_or_default();
    if text.starts_with(MARK.1) {
        return Ok(true);
    }
    Err(Error::new(ErrorKind::Config, "write demo project")
        .with("dir", dir.display())
        .with("problem", "the folder is not empty and no earlier demo")
        .with("hint", "name another folder: `landfall demo DIR`"))
}

fn write_project(dir: &Path, base_url: &str) -> Result<()> {
    for (path, text) in shop::project_files(dir, base_url) {
        let path: PathBuf = dir.join(path);
        let failed = |source: std::io::Error| {
            Error::new(ErrorKind::Unavailable, "write project file")
                .with("path", path.display())
                .caused_by(source)
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        fs::write(&path, text).map_err(failed)?;
    }
    Ok(())
}

/// One day: extract, transform, a line on each stream.
async fn day(
    workspace: &Workspace,
    streams: &[StreamName],
    tell: &mut (dyn FnMut(&str) + Send),
) -> Result<()> {
    let options = ops::extract::Options::changes(streams.to_vec());
    let landed = ops::extract::extract(
        workspace,
        &ops::extract::Channels::open(workspace),
        &options,
        &|_, _| {},
    )
    .await;
    let loaded = transform::transform(workspace, streams).await;
    let width = streams
        .iter()
        .map(|name| name.to_string().len())
        .max()
        .unwrap_or(0);
    for (landed, loaded) in landed.into_iter().zip(loaded) {
        tell(&format!(
            "  {:<width$}  {}",
            landed.stream.to_string(),
            landed_words(landed)?
        ));
        tell(&format!("  {:<width$}  {}", "", loaded_words(loaded)?));
    }
    Ok(())
}

fn landed_words(outcome: Extracted) -> Result<String> {
    let extracted = outcome.result?;
    let counts = extracted.counts;
    let again = match counts.retries {
        0 => String::new(),
        retries => format!(", {} sent again", counted(retries, "request", "requests")),
    };
    Ok(format!(
        "landed {} in {} as {}{again}",
        counted(counts.records, "record", "records"),
        counted(counts.pages, "page", "pages"),
        counted(extracted.batches, "raw batch", "raw batches"),
    ))
}

fn loaded_words(outcome: Transformed) -> Result<String> {
    let done = outcome.result?;
    let deleted = if done.deleted > 0 {
        format!(", {} of them deletions", done.deleted)
    } else {
        String::new()
    };
    Ok(format!(
        "loaded {} read = {} merged + {} superseded + {} quarantined{deleted}",
        count(done.read),
        count(done.merged),
        count(done.superseded),
        count(done.quarantined),
    ))
}

fn tell_indented(text: &str, tell: &mut (dyn FnMut(&str) + Send)) {
    for line in text.lines() {
        tell(&if line.is_empty() {
            String::new()
        } else {
            format!("  {line}")
        });
    }
}

fn tell_commands(dir: &Path, tell: &mut (dyn FnMut(&str) + Send)) {
    let project = dir.display();
    tell("\nTRY IT YOURSELF");
    for (command, meaning) in [
        ("status", "how far each stream is"),
        (
            "explain shop.orders 10004",
            "from a row to the request and the bytes behind it",
        ),
        (
            "quarantine list",
            "what was set aside, and one record to look at each",
        ),
        (
            "sql \"SELECT id, _rescued FROM shop.orders WHERE _rescued IS NOT NULL LIMIT 3\"",
            "fields no contract named",
        ),
        ("sql \"SHOW TABLES\"", "everything that can be asked"),
    ] {
        tell(&format!("  # {meaning}"));
        tell(&format!("  landfall --project {project} {command}"));
    }
    tell("  # the raw zone needs nothing of ours");
    tell(&format!(
        "  zstdcat {project}/lake/raw/shop/orders/dt=*/hr=*/*.jsonl.zst | head -c 300"
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::quarantine::Mask;

    #[test]
    fn a_folder_with_something_else_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_earlier(dir.path()).unwrap());
        assert!(!is_earlier(&dir.path().join("none")).unwrap());
        fs::write(dir.path().join("thesis.txt"), "").unwrap();
        assert_eq!(is_earlier(dir.path()).unwrap_err().kind(), ErrorKind::Config);
        for (path, text) in shop::project_files(dir.path(), "http://127.0.0.1:9/v1") {
            fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            fs::write(dir.path().join(path), text).unwrap();
        }
        assert!(is_earlier(dir.path()).unwrap());
    }

    #[tokio::test]
    async fn r001_r008_r009_the_demo_lands_loads_sets_aside_and_explains() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("demo");
        let mut told = String::new();
        demo(&dir, Clock::system(), &mut |line| {
            told.push_str(line);
            told.push('\n');
        })
        .await
        .unwrap();
        for line in [
            "loaded 1,200 read = 1,200 merged + 0 superseded + 0 quarantined",
            "2 requests sent again",
            "type_mismatch at lines[].quantity",
            "shipping.carrier",
            "explain shop.orders 10004",
        ] {
            assert!(told.contains(line), "{line}\n{told}");
        }
        // The shop is closed: what follows needs no API.
        let workspace = Workspace::open(read::load(&dir).unwrap().project, Clock::system()).unwrap();
        let orders = StreamName::parse("shop.orders").unwrap();
        let statuses = ops::status::status(&workspace, std::slice::from_ref(&orders))
            .await
            .unwrap();
        assert_eq!((statuses[0].lag(), statuses[0].error.as_deref()), (0, None));
        assert_eq!(
            statuses[0].loads.as_ref().unwrap().quarantined,
            shop::ORDERS_BAD as u64
        );
        let explained = ops::explain::explain(&workspace, &orders, &["id=10004".to_owned()], Mask::No)
            .await
            .unwrap();
        let [row] = explained.as_slice() else {
            panic!("{explained:?}")
        };
        let evidence = row.evidence.as_ref().unwrap();
        assert!(evidence.record.starts_with(b"{\"id\":10004,"));
        assert!(row.text().contains("status             200"), "{}", row.text());
        assert!(
            row.values
                .iter()
                .any(|(name, value)| name == "contract_version" && value.as_deref() == Some("1.0.0"))
        );
        let findings = ops::check::offline(&workspace.project, workspace.clock.now());
        assert!(
            findings
                .iter()
                .all(|finding| finding.level == ops::check::Level::Good),
            "{findings:?}"
        );
    }

    #[tokio::test]
    async fn a_record_that_was_set_aside_is_explained_by_its_key() {
        let dir = tempfile::tempdir().unwrap();
        demo(dir.path(), Clock::system(), &mut |_| {}).await.unwrap();
        let workspace = Workspace::open(read::load(dir.path()).unwrap().project, Clock::system()).unwrap();
        let customers = StreamName::parse("shop.customers").unwrap();
        let explained = ops::explain::explain(&workspace, &customers, &["206".to_owned()], Mask::No)
            .await
            .unwrap();
        let [record] = explained.as_slice() else {
            panic!("{explained:?}")
        };
        assert!(
            record.reasons[0].starts_with("enum at tier"),
            "{:?}",
            record.reasons
        );
        let position = record.evidence.as_ref().unwrap().position;
        let shown = quarantine::show(&workspace, &customers, position, Mask::No)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&shown, record);
        let error = ops::explain::explain(&workspace, &customers, &["abc".to_owned()], Mask::No)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let error = ops::explain::explain(&workspace, &customers, &[], Mask::No)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("key columns: id"), "{error}");
    }
}
