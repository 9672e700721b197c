//! What `landfall init` writes.

use crate::config::read::FILE_NAME;

/// The files of a new project: path within the project, and text.
///
/// The project reads without a problem as it is; its source is an example to be replaced.
pub fn files() -> Vec<(&'static str, String)> {
    vec![
        (FILE_NAME, include_str!("template/landfall.yml").to_owned()),
        (".gitignore", include_str!("template/gitignore").to_owned()),
        (
            "contracts/README.md",
            include_str!("template/contracts.md").to_owned(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::read::parse;

    #[test]
    fn a_new_project_reads_without_a_problem_or_warning() {
        let files = files();
        let (_, text) = files.iter().find(|(path, _)| *path == FILE_NAME).unwrap();
        let loaded = parse(text, Path::new("/srv/new")).unwrap();
        assert_eq!(loaded.warnings, []);
        assert_eq!(loaded.project.streams().count(), 1);
    }

    #[test]
    fn what_is_commented_out_reads_too_when_it_is_let_in() {
        let files = files();
        // `#? ` marks a line that may be let in as it stands.
        let text = files[0].1.replace("#? ", "");
        assert_ne!(text, files[0].1);
        let loaded = parse(&text, Path::new("/srv/new")).unwrap();
        assert!(loaded.project.sources[0].rate_limit.is_some());
    }

    #[test]
    fn the_local_lake_stays_out_of_version_control() {
        let files = files();
        assert!(files[0].1.contains("lake: ./lake\n"));
        assert!(files[1].1.lines().any(|line| line == "/lake/"));
    }
}
