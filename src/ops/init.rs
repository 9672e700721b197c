//! `landfall init`: the files of a new project.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use crate::{
    config::template,
    error::{Error, ErrorKind, Result},
};

/// Writes the files of a new project into `dir` and returns their paths. Nothing is overwritten.
///
/// # Errors
/// [`ErrorKind::Config`] naming the files that are there already; nothing is written then.
/// [`ErrorKind::Unavailable`] if one cannot be written.
pub fn init(dir: &Path) -> Result<Vec<PathBuf>> {
    write_new(dir, &template::files())
}

/// Writes `files` below `dir`, all or none as far as existing files are concerned.
fn write_new(dir: &Path, files: &[(&'static str, String)]) -> Result<Vec<PathBuf>> {
    let paths: Vec<PathBuf> = files.iter().map(|(path, _)| dir.join(path)).collect();
    let existing: Vec<String> = paths
        .iter()
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect();
    if !existing.is_empty() {
        return Err(Error::new(ErrorKind::Config, "begin project")
            .with("already there", existing.join(", "))
            .with("hint", "choose another folder with `landfall init DIR`"));
    }
    for (path, (_, text)) in paths.iter().zip(files) {
        let failed = |source: std::io::Error| {
            Error::new(ErrorKind::Unavailable, "write project file")
                .with("path", path.display())
                .caused_by(source)
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read;

    #[test]
    fn a_new_project_can_be_read_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let written = init(dir.path()).unwrap();
        assert_eq!(written.len(), template::files().len());
        read::load(dir.path()).unwrap();
        fs::write(dir.path().join("landfall.yml"), "mine").unwrap();
        let error = init(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("landfall.yml"), "{error}");
        assert_eq!(
            fs::read_to_string(dir.path().join("landfall.yml")).unwrap(),
            "mine"
        );
    }

    #[test]
    fn one_file_in_the_way_keeps_all_from_being_written() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".gitignore"), "").unwrap();
        init(dir.path()).unwrap_err();
        assert!(!dir.path().join("landfall.yml").exists());
    }
}
