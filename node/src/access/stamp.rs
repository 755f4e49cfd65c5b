//! Whether files have changed since they were read: by what the system says about them, without reading.

use std::{os::unix::fs::MetadataExt, path::Path};

/// What the system says about some files; differs once one of them was written, replaced or removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp(Vec<Option<[i64; 6]>>);

impl Stamp {
    /// Of these files as they are now; links are followed.
    pub fn of(paths: &[&Path]) -> Self {
        let one = |path: &&Path| {
            let found = std::fs::metadata(path).ok()?;
            let size = i64::try_from(found.size()).unwrap_or(i64::MAX);
            let inode = found.ino().cast_signed();
            Some([size, inode, found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()])
        };
        Stamp(paths.iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_writes_replacements_and_links() {
        let dir = tempfile::tempdir().expect("a directory");
        let (file, other, link) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("l"));
        let now = || Stamp::of(&[&link]);
        let absent = now();
        std::fs::write(&file, "1").expect("written");
        std::os::unix::fs::symlink(&file, &link).expect("linked");
        let first = now();
        assert!(first != absent && first == now());
        std::fs::write(&other, "2").expect("written");
        std::fs::rename(&other, &file).expect("replaced");
        assert_ne!(now(), first);
    }
}
