//! A disk that forgets what was not synced, under the files of a process.
//!
//! Killing a process loses nothing that it wrote, synced or not. Here its syncs are noted (`fixtures/power/unsynced.c`), and
//! after the kill its files are put back to what a disk would hold after a power cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// What a disk writes or does not write as one.
const SECTOR_BYTES: usize = 512;

/// What becomes of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// All of it is gone.
    Gone,
    /// Each name and each sector is there or not, by chance.
    ByChance,
}

/// The disk under one folder.
pub struct Disk {
    root: PathBuf,
    image: TempDir,
    library: PathBuf,
    seed: u64,
}

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    is_folder: bool,
    inode: u64,
}

type Names = BTreeMap<String, Entry>;

impl Disk {
    /// The disk under `root`, on which everything stands that is there now. The same `seed` gives the same chances.
    pub fn under(root: &Path, seed: u64) -> Self {
        let image = tempfile::tempdir().unwrap();
        let library = image.path().join("unsynced.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/power/unsynced.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(&library)
            .args([source, "-ldl"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "{said}");
        let disk = Self {
            root: root.canonicalize().unwrap(),
            image,
            library,
            seed: seed | 1,
        };
        disk.settle();
        disk
    }

    /// `command` with its syncs below the root noted.
    pub fn noting(&self, mut command: Command) -> Command {
        command
            .env("LD_PRELOAD", &self.library)
            .env("UNSYNCED_ROOT", &self.root)
            .env("UNSYNCED_IMAGE", self.kept());
        command
    }

    /// The power goes, and comes back. No process may have anything open below the root.
    pub fn cut(&mut self, unsynced: Unsynced) {
        let mut live = BTreeMap::new();
        paths(&self.root, &mut live);
        let after = TempDir::new_in(self.root.parent().unwrap()).unwrap();
        self.restore(inode(&self.root), after.path(), unsynced, &live);
        for entry in fs::read_dir(&self.root).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => fs::remove_dir_all(path).unwrap(),
                false => fs::remove_file(path).unwrap(),
            }
        }
        for entry in fs::read_dir(after.path()).unwrap() {
            let entry = entry.unwrap();
            fs::rename(entry.path(), self.root.join(entry.file_name())).unwrap();
        }
        self.settle();
    }

    /// Everything that stands below the root stands on the disk.
    fn settle(&self) {
        let kept = self.kept();
        if kept.exists() {
            fs::remove_dir_all(&kept).unwrap();
        }
        fs::create_dir(kept).unwrap();
        self.settle_folder(&self.root);
    }

    fn settle_folder(&self, folder: &Path) {
        let mut lines = String::new();
        for (name, entry) in standing(folder) {
            let path = folder.join(&name);
            let kind = if entry.is_folder { 'd' } else { 'f' };
            lines.push_str(&format!("{kind} {} {name}\n", entry.inode));
            if entry.is_folder {
                self.settle_folder(&path);
            } else {
                fs::copy(&path, self.of(entry.inode, "")).unwrap();
                fs::hard_link(&path, self.of(entry.inode, ".live")).unwrap();
            }
        }
        fs::write(self.of(inode(folder), ".names"), lines).unwrap();
    }

    /// Puts into `folder` what the disk holds of the folder with this `inode`.
    fn restore(&mut self, inode: u64, folder: &Path, unsynced: Unsynced, live: &BTreeMap<u64, PathBuf>) {
        let lines = fs::read_to_string(self.of(inode, ".names")).unwrap_or_default();
        let mut names: Names = lines.lines().map(read_line).collect();
        if unsynced == Unsynced::ByChance {
            let standing = live.get(&inode).map_or_else(Names::new, |path| standing(path));
            names = self.some_names(names, standing);
        }
        for (name, entry) in names {
            let path = folder.join(name);
            if entry.is_folder {
                fs::create_dir(&path).unwrap();
                self.restore(entry.inode, &path, unsynced, live);
                continue;
            }
            let mut bytes = fs::read(self.of(entry.inode, "")).unwrap_or_default();
            if unsynced == Unsynced::ByChance {
                let held = self.of(entry.inode, ".live");
                let written = match live.get(&entry.inode) {
                    Some(path) => fs::read(path).unwrap(),
                    None => fs::read(held).unwrap_or_default(),
                };
                bytes = self.some_bytes(bytes, &written);
            }
            fs::write(path, bytes).unwrap();
        }
    }

    /// Of two states of a folder, names that differ as in the one or the other; those that a rename connects alike.
    fn some_names(&mut self, mut synced: Names, standing: Names) -> Names {
        let differs = |name: &&String| synced.get(*name) != standing.get(*name);
        let differing: BTreeSet<String> = synced
            .keys()
            .chain(standing.keys())
            .filter(differs)
            .cloned()
            .collect();
        let mut groups: Vec<(BTreeSet<String>, BTreeSet<u64>)> = Vec::new();
        for name in differing {
            let entries = [synced.get(&name), standing.get(&name)];
            let inodes: BTreeSet<u64> = entries.into_iter().flatten().map(|entry| entry.inode).collect();
            let (connected, others): (Vec<_>, Vec<_>) = std::mem::take(&mut groups)
                .into_iter()
                .partition(|(_, of_group)| !of_group.is_disjoint(&inodes));
            groups = others;
            let mut group = (BTreeSet::from([name]), inodes);
            for (names, inodes) in connected {
                group.0.extend(names);
                group.1.extend(inodes);
            }
            groups.push(group);
        }
        for (names, _) in groups {
            if self.chance() {
                continue;
            }
            for name in names {
                match standing.get(&name) {
                    Some(entry) => synced.insert(name, *entry),
                    None => synced.remove(&name),
                };
            }
        }
        synced
    }

    /// What was synced, what was written, or some sectors of that over the other.
    fn some_bytes(&mut self, mut synced: Vec<u8>, written: &[u8]) -> Vec<u8> {
        if synced == written || self.chance() && self.chance() {
            return synced;
        }
        let all = self.chance();
        // A length is one or the other: what sets it in one step must not be found half way.
        let length = if all || self.chance() {
            written.len()
        } else {
            synced.len()
        };
        synced.resize(synced.len().max(written.len()), 0);
        for (number, sector) in written.chunks(SECTOR_BYTES).enumerate() {
            if all || self.chance() {
                let from = number * SECTOR_BYTES;
                synced[from..from + sector.len()].copy_from_slice(sector);
            }
        }
        synced.truncate(length);
        synced
    }

    fn chance(&mut self) -> bool {
        // Xorshift: what matters is that a failing case can be run again.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed & 8 == 0
    }

    fn kept(&self) -> PathBuf {
        self.image.path().join("kept")
    }

    fn of(&self, inode: u64, suffix: &str) -> PathBuf {
        self.kept().join(format!("{inode}{suffix}"))
    }
}

fn inode(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

/// The names in a folder.
fn standing(folder: &Path) -> Names {
    let entries = fs::read_dir(folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let is_folder = entry.file_type().unwrap().is_dir();
        let inode = inode(&entry.path());
        (
            entry.file_name().into_string().unwrap(),
            Entry { is_folder, inode },
        )
    });
    entries.collect()
}

/// Where everything below `folder` stands, by inode, and `folder` itself.
fn paths(folder: &Path, found: &mut BTreeMap<u64, PathBuf>) {
    found.insert(inode(folder), folder.to_owned());
    for (name, entry) in standing(folder) {
        let path = folder.join(name);
        match entry.is_folder {
            true => paths(&path, found),
            false => {
                found.insert(entry.inode, path);
            }
        }
    }
}

fn read_line(line: &str) -> (String, Entry) {
    let mut words = line.splitn(3, ' ');
    let mut word = || words.next().unwrap();
    let is_folder = word() == "d";
    let inode = word().parse().unwrap();
    (word().to_owned(), Entry { is_folder, inode })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a script of Python in `root` with its syncs noted.
    fn run(disk: &Disk, root: &Path, script: &str) {
        let mut python = Command::new("python3");
        python.current_dir(root).args(["-c", script]);
        let ran = disk.noting(python).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
    }

    const SCRIPT: &str = "
import os
def sync(path):
    it = os.open(path, os.O_RDONLY); os.fsync(it); os.close(it)
open('both', 'w').write('1'); sync('both'); sync('.')
open('both', 'w').write('22')
open('no name', 'w').write('1'); sync('no name')
open('old', 'w').write('old'); sync('old'); open('new', 'w').write('new'); sync('new')
os.mkdir('folder'); open('no bytes', 'w').write('1'); sync('.')
open('folder/lost', 'w').write('1'); sync('folder/lost')
os.rename('new', 'old'); os.remove('before')
";

    #[test]
    fn what_was_not_synced_is_gone_and_what_was_removed_unsynced_is_there() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("before"), "1").unwrap();
        let mut disk = Disk::under(dir.path(), 1);
        run(&disk, dir.path(), SCRIPT);
        disk.cut(Unsynced::Gone);
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).ok();
        assert_eq!(read("both").as_deref(), Some("1"));
        assert_eq!(read("no bytes").as_deref(), Some(""));
        assert_eq!(read("before").as_deref(), Some("1"));
        assert_eq!(
            (read("old").as_deref(), read("new").as_deref()),
            (Some("old"), Some("new"))
        );
        assert_eq!(standing(&dir.path().join("folder")).len(), 0);
        // It was named when the folder was synced last.
        assert_eq!(read("no name").as_deref(), Some("1"));
    }

    #[test]
    fn a_rename_is_there_whole_or_not_at_all() {
        let mut seen = BTreeSet::new();
        for seed in 1..60 {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path();
            fs::write(root.join("old"), "old").unwrap();
            fs::write(root.join("new"), "new").unwrap();
            let mut disk = Disk::under(root, u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
            fs::rename(root.join("new"), root.join("old")).unwrap();
            disk.cut(Unsynced::ByChance);
            let read = |name: &str| fs::read_to_string(root.join(name)).ok();
            seen.insert((read("old"), read("new")));
        }
        let text = |text: &str| Some(text.to_owned());
        let expected = [(text("new"), None), (text("old"), text("new"))];
        assert_eq!(seen, BTreeSet::from(expected));
    }
}
