//! Symbolic links in a local lake. Nothing is deleted where one could lead elsewhere.

use std::{fs, io, path::PathBuf};

use object_store::path::Path;

use crate::{
    config::Lake,
    error::{Error, ErrorKind, Result},
};

/// Deepest folder that is looked into, counted from the one asked for. Nothing of ours is nearly as deep.
const DEPTH_MAX: usize = 64;

/// The first symbolic link found on the way to `folder` or below it; `None` if there is none or the lake is not on disk.
///
/// The lake itself may be a link.
///
/// # Errors
/// Whatever the file system says, and [`ErrorKind::Limit`] for folders nested too deep.
pub async fn first(lake: &Lake, folder: &Path) -> Result<Option<PathBuf>> {
    let Some(root) = local(lake) else {
        return Ok(None);
    };
    let parts: Vec<String> = folder.parts().map(|part| part.as_ref().to_owned()).collect();
    let shown = folder.clone();
    let found = tokio::task::spawn_blocking(move || find(root, &parts)).await;
    found
        .map_err(|source| Error::new(ErrorKind::Internal, "look for symbolic links").caused_by(source))?
        .map_err(|source| {
            Error::new(ErrorKind::Unavailable, "look for symbolic links")
                .with("folder", shown)
                .caused_by(source)
        })
}

fn local(lake: &Lake) -> Option<PathBuf> {
    if lake.url.scheme() != "file" {
        return None;
    }
    lake.url.to_file_path().ok()
}

fn find(root: PathBuf, parts: &[String]) -> io::Result<Option<PathBuf>> {
    let mut folder = root;
    for part in parts {
        folder.push(part);
        match fs::symlink_metadata(&folder) {
            Ok(metadata) if metadata.is_symlink() => return Ok(Some(folder)),
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let mut folders = vec![(folder, 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Somebody else cleans up too.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                return Ok(Some(entry.path()));
            }
            if kind.is_dir() {
                if depth >= DEPTH_MAX {
                    return Err(io::Error::other(format!(
                        "folders are nested deeper than {DEPTH_MAX}"
                    )));
                }
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    Ok(None)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn f151_a_link_is_found_above_and_below() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_path_buf();
        fs::create_dir_all(root.join("raw/shop/orders/dt=1")).unwrap();
        fs::create_dir_all(root.join("elsewhere")).unwrap();
        let parts = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
        let find = |path: &str| find(root.clone(), &parts(path)).unwrap();
        assert_eq!(find("raw/shop/orders"), None);
        assert_eq!(find("not/there"), None);
        let link = root.join("raw/shop/orders/dt=1/away");
        symlink(root.join("elsewhere"), &link).unwrap();
        assert_eq!(find("raw/shop/orders"), Some(link));
        let link = root.join("tables");
        symlink(root.join("elsewhere"), &link).unwrap();
        assert_eq!(find("tables/shop/orders"), Some(link));
    }
}
