//! Changes configuration files so that they can be changed back exactly: what was there is kept beside each,
//! and a journal below `/etc/waystation` says what was done, written before it is done.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    super::{Failure, local::digest_of},
    snippet::File,
};

/// The files of one engine below a root.
#[derive(Debug)]
pub struct Installation {
    root: PathBuf,
    journal: PathBuf,
}

/// What happened to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is as wanted already.
    Nothing(PathBuf),
    /// It is new.
    Made(PathBuf),
    /// It was changed.
    Replaced {
        /// The file.
        path: PathBuf,
        /// Its earlier form.
        kept: PathBuf,
    },
}

/// Why files were left alone.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Somebody else's file, which cannot be merged with.
    #[error(
        "{0} is there, was not written by this command and cannot be merged; nothing was changed. \
         Print the snippet (without --write) and add it by hand"
    )]
    Foreign(PathBuf),
    /// It is not what was written any more.
    #[error(
        "{path} was changed after it was written, so it is left alone; nothing was changed. Take the node out of \
         it by hand, or put back {}",
        .kept.as_ref().map_or("nothing: remove it".into(), |kept| kept.display().to_string())
    )]
    ChangedSince {
        /// The file.
        path: PathBuf,
        /// Its form before it was written.
        kept: Option<PathBuf>,
    },
    /// A copy would overwrite another.
    #[error("{0} is there already, and would be overwritten by what is kept; move it away first")]
    KeptAlready(PathBuf),
    /// The journal is not readable.
    #[error("{path} says what was written, and is not understood ({why}); nothing was changed")]
    Journal {
        /// The journal.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file system refused.
    #[error("{path} could not be written or read ({source}){}", hint(source))]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What was done, oldest first. Paths are from the root.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Journal {
    format: u8,
    files: Vec<Entry>,
    /// Folders that were not there, outermost first.
    folders: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    path: String,
    /// The file that keeps what was there; absent where nothing was.
    kept: Option<String>,
    /// Digest of what was written.
    written: String,
}

struct Step {
    path: String,
    before: Option<Vec<u8>>,
    after: Vec<u8>,
}

impl Installation {
    /// Of this engine below this root.
    pub fn new(root: &Path, engine: &str) -> Self {
        let journal = root.join(JOURNALS.trim_start_matches('/')).join(format!("{engine}.json"));
        Installation { root: root.to_owned(), journal }
    }

    /// Brings the files to what is wanted. An earlier `write` is taken back first, so that its wishes do not
    /// pile up. Nothing is changed unless everything can be.
    pub fn write(&self, wanted: &[File]) -> Result<Vec<Change>, Refusal> {
        let journal = self.read_journal()?;
        let steps: Vec<Step> =
            wanted.iter().map(|file| self.step(file, journal.as_ref())).collect::<Result<_, _>>()?;
        if journal.as_ref().is_some_and(|journal| self.is_done(journal, &steps)) {
            return Ok(steps.iter().map(|step| Change::Nothing(self.at(&step.path))).collect());
        }
        self.undo()?;
        let (unchanged, steps): (Vec<_>, Vec<_>) =
            steps.into_iter().partition(|step| step.before.as_ref() == Some(&step.after));
        let mut changes: Vec<_> = unchanged.iter().map(|step| Change::Nothing(self.at(&step.path))).collect();
        if steps.is_empty() {
            return Ok(changes);
        }
        let journal = self.plan(&steps)?;
        self.write_journal(&journal)?;
        for (step, entry) in steps.iter().zip(&journal.files) {
            changes.push(self.apply(step, entry)?);
        }
        Ok(changes)
    }

    /// Puts everything back; the files that were touched. Nothing is changed where one of them was changed
    /// by somebody else since.
    pub fn undo(&self) -> Result<Vec<PathBuf>, Refusal> {
        let Some(journal) = self.read_journal()? else { return Ok(vec![]) };
        for entry in &journal.files {
            self.check_undo(entry)?;
        }
        let mut undone = vec![];
        for entry in journal.files.iter().rev() {
            let path = self.at(&entry.path);
            match &entry.kept {
                Some(kept) if self.at(kept).symlink_metadata().is_ok() => {
                    fs::rename(self.at(kept), &path).map_err(io_at(&path))?;
                    // Renaming one name of a file over another of the same file does nothing.
                    remove_if_there(&self.at(kept))?;
                }
                // It was not reached when it was written.
                Some(_) => continue,
                None => remove_if_there(&path)?,
            }
            undone.push(path);
        }
        remove_if_there(&self.journal)?;
        for folder in journal.folders.iter().rev() {
            // One that others use by now stays.
            let _ = fs::remove_dir(self.at(folder));
        }
        undone.reverse();
        Ok(undone)
    }

    /// What is to be done to a file, seen from before an earlier `write`.
    fn step(&self, file: &File, journal: Option<&Journal>) -> Result<Step, Refusal> {
        let entry = journal.and_then(|journal| journal.files.iter().find(|entry| entry.path == file.path));
        let path = self.at(&file.path);
        let before = match entry {
            Some(Entry { kept: None, .. }) => None,
            Some(Entry { kept: Some(kept), .. }) if self.at(kept).exists() => read_if_there(&self.at(kept))?,
            _ => read_if_there(&path)?,
        };
        let after = match &before {
            None => file.content.alone(),
            Some(before) => file.content.over(before).ok_or(Refusal::Foreign(path))?,
        };
        Ok(Step { path: file.path.clone(), before, after })
    }

    fn is_done(&self, journal: &Journal, steps: &[Step]) -> bool {
        let is_there = |step: &Step| fs::read(self.at(&step.path)).is_ok_and(|content| content == step.after);
        journal.files.iter().all(|entry| steps.iter().any(|step| step.path == entry.path))
            && steps.iter().all(is_there)
    }

    fn plan(&self, steps: &[Step]) -> Result<Journal, Refusal> {
        let mut journal = Journal { format: FORMAT, ..Journal::default() };
        let mut folders = vec![];
        for path in steps.iter().map(|step| step.path.as_str()).chain([JOURNALS_FILE]) {
            let above = Path::new(path).ancestors().skip(1);
            let missing = above.take_while(|folder| !self.at(&folder.to_string_lossy()).exists());
            folders.extend(missing.map(|folder| folder.to_string_lossy().into_owned()));
        }
        folders.sort();
        folders.dedup();
        journal.folders = folders;
        for step in steps {
            let kept = step.before.is_some().then(|| format!("{}{KEPT}", step.path));
            if let Some(kept) = kept.as_ref().map(|kept| self.at(kept))
                && kept.symlink_metadata().is_ok()
            {
                return Err(Refusal::KeptAlready(kept));
            }
            let written = digest_of(&step.after).to_string();
            journal.files.push(Entry { path: step.path.clone(), kept, written });
        }
        Ok(journal)
    }

    fn apply(&self, step: &Step, entry: &Entry) -> Result<Change, Refusal> {
        let path = self.at(&step.path);
        let Some(kept) = entry.kept.as_ref().map(|kept| self.at(kept)) else {
            replace(&path, &step.after, None)?;
            return Ok(Change::Made(path));
        };
        // The file itself, under a second name: with its owner, its mode and all else that it has.
        fs::hard_link(&path, &kept).map_err(io_at(&kept))?;
        let mode = fs::metadata(&path).map_err(io_at(&path))?.permissions();
        replace(&path, &step.after, Some(mode))?;
        Ok(Change::Replaced { path, kept })
    }

    fn check_undo(&self, entry: &Entry) -> Result<(), Refusal> {
        let path = self.at(&entry.path);
        let kept = entry.kept.as_ref().map(|kept| self.at(kept));
        if kept.as_ref().is_some_and(|kept| kept.symlink_metadata().is_err()) {
            return Ok(());
        }
        match read_if_there(&path)? {
            Some(content) if digest_of(&content).to_string() != entry.written => {
                // A crash between keeping it and changing it.
                let same = kept.as_ref().and_then(|kept| fs::read(kept).ok()).is_some_and(|k| k == content);
                if same { Ok(()) } else { Err(Refusal::ChangedSince { path, kept }) }
            }
            _ => Ok(()),
        }
    }

    fn read_journal(&self) -> Result<Option<Journal>, Refusal> {
        let Some(bytes) = read_if_there(&self.journal)? else { return Ok(None) };
        let wrong = |why: String| Refusal::Journal { path: self.journal.clone(), why };
        let journal: Journal = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        if journal.format != FORMAT {
            return Err(wrong(format!("format {} is of another version", journal.format)));
        }
        Ok(Some(journal))
    }

    fn write_journal(&self, journal: &Journal) -> Result<(), Refusal> {
        let bytes = serde_json::to_vec_pretty(journal).expect("plain data");
        replace(&self.journal, &bytes, None)
    }

    /// A path from the root, where it is.
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

impl Refusal {
    /// Files that are somebody else's are a matter of configuration; the rest failed.
    pub fn into_failure(self) -> Failure {
        match self {
            Refusal::Io { .. } => Failure::Failed(self.into()),
            other => Failure::Usage(other.to_string()),
        }
    }
}

/// Writes a file whole and synced, then puts it in place.
fn replace(path: &Path, bytes: &[u8], mode: Option<fs::Permissions>) -> Result<(), Refusal> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = path.parent().expect("below the root");
    fs::create_dir_all(folder).map_err(io_at(folder))?;
    let mode = mode.unwrap_or_else(|| fs::Permissions::from_mode(0o644));
    let mut new = tempfile::Builder::new().prefix(".waystation-").tempfile_in(folder).map_err(io_at(path))?;
    let file = new.as_file_mut();
    file.write_all(bytes)
        .and_then(|()| file.set_permissions(mode))
        .and_then(|()| file.sync_all())
        .map_err(io_at(path))?;
    new.persist(path).map_err(|e| Refusal::Io { path: path.into(), source: e.error })?;
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_at(folder))
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Refusal> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Refusal::Io { path: path.into(), source }),
    }
}

fn remove_if_there(path: &Path) -> Result<(), Refusal> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Refusal::Io { path: path.into(), source })
        }
        _ => Ok(()),
    }
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> Refusal {
    move |source| Refusal::Io { path: path.into(), source }
}

fn hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied { "; do it as root, or with --root DIR" } else { "" }
}

/// Version of the journal.
const FORMAT: u8 = 1;

const JOURNALS: &str = "/etc/waystation/client-config";

/// Any journal, for its folders.
const JOURNALS_FILE: &str = "/etc/waystation/client-config/x";

/// What the name of a kept file ends with.
const KEPT: &str = ".before-waystation";

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::MetadataExt as _, os::unix::fs::PermissionsExt as _};

    use super::{
        super::snippet::{Content, Engine, Wish},
        *,
    };

    /// Everything below a folder: path, inode, mode, content. The inode says that it is the same file.
    fn tree(root: &Path) -> BTreeMap<PathBuf, (u64, u32, Vec<u8>)> {
        let (mut all, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
                let (path, metadata) = (entry.path(), entry.metadata().unwrap());
                let content = if metadata.is_dir() { vec![] } else { fs::read(&path).unwrap() };
                if metadata.is_dir() {
                    folders.push(path.clone());
                }
                all.insert(path, (metadata.ino(), metadata.mode(), content));
            }
        }
        all
    }

    fn files(engine: Engine, endpoint: &str) -> Vec<File> {
        let ca = endpoint.starts_with("https").then(|| b"PEM".to_vec());
        let upstreams = vec!["docker.io".parse().unwrap()];
        Wish::new(engine, endpoint.parse().unwrap(), upstreams, ca).unwrap().files()
    }

    fn round_trip(engine: Engine, root: &Path) {
        let before = tree(root);
        let installation = Installation::new(root, engine.name());
        let plain = installation.write(&files(engine, "http://127.0.0.1:5000")).unwrap();
        assert!(plain.iter().all(|change| !matches!(change, Change::Nothing(_))), "{plain:?}");
        let once = tree(root);
        let again = installation.write(&files(engine, "http://127.0.0.1:5000")).unwrap();
        assert!(again.iter().all(|change| matches!(change, Change::Nothing(_))), "{again:?}");
        assert!(tree(root) == once, "the second time changed something");
        // Another wish replaces the first.
        installation.write(&files(engine, "https://cache.lan:5000")).unwrap();
        let all: String =
            tree(root).values().map(|file| String::from_utf8_lossy(&file.2).into_owned()).collect();
        assert!(all.contains("cache.lan:5000") && !all.contains("127.0.0.1"), "{all}");
        assert!(!installation.undo().unwrap().is_empty());
        assert!(tree(root) == before, "{engine:?}: not as it was");
        assert_eq!(installation.undo().unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn everything_is_put_back_where_nothing_was() {
        for engine in [Engine::Containerd, Engine::Docker, Engine::Podman, Engine::K3s] {
            let root = tempfile::tempdir().unwrap();
            round_trip(engine, root.path());
        }
    }

    #[test]
    fn what_was_there_is_put_back_itself() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("etc/docker/daemon.json");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "{\"debug\":   true}").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        round_trip(Engine::Docker, root.path());
        let changes = Installation::new(root.path(), "docker").write(&files(Engine::Docker, "n:1")).unwrap();
        let kept = root.path().join("etc/docker/daemon.json.before-waystation");
        assert_eq!(changes, [Change::Replaced { path: file.clone(), kept: kept.clone() }]);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600, "as secret as before");
        assert_eq!(fs::read_to_string(kept).unwrap(), "{\"debug\":   true}");
    }

    #[test]
    fn foreign_files_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("etc/containerd/certs.d/docker.io/hosts.toml");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "server = \"https://elsewhere\"\n").unwrap();
        let before = tree(root.path());
        let installation = Installation::new(root.path(), "containerd");
        // Also the certificate that comes before it.
        let refused = installation.write(&files(Engine::Containerd, "https://cache.lan")).unwrap_err();
        assert!(matches!(&refused, Refusal::Foreign(path) if *path == file), "{refused}");
        assert!(tree(root.path()) == before);
    }

    #[test]
    fn what_was_changed_since_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let installation = Installation::new(root.path(), "docker");
        installation.write(&files(Engine::Docker, "127.0.0.1:5000")).unwrap();
        let file = root.path().join("etc/docker/daemon.json");
        fs::write(&file, "{\"debug\": true}").unwrap();
        let before = tree(root.path());
        assert!(matches!(installation.undo(), Err(Refusal::ChangedSince { .. })));
        let again = installation.write(&files(Engine::Docker, "127.0.0.1:6000"));
        assert!(matches!(again, Err(Refusal::ChangedSince { .. })), "{again:?}");
        assert!(tree(root.path()) == before);
        // One that is gone is no reason.
        fs::remove_file(&file).unwrap();
        installation.undo().unwrap();
        assert!(tree(root.path()).is_empty());
    }

    #[test]
    fn a_crash_at_any_step_can_be_undone() {
        let content = Content::Whole("new\n".into());
        for crash in 0..3 {
            let root = tempfile::tempdir().unwrap();
            let file = root.path().join("etc/a.conf");
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "old\n").unwrap();
            let before = tree(root.path());
            let installation = Installation::new(root.path(), "test");
            let (path, after) = ("/etc/a.conf".to_owned(), content.alone());
            let steps = [Step { path, before: Some(b"old\n".to_vec()), after }];
            let journal = installation.plan(&steps).unwrap();
            installation.write_journal(&journal).unwrap();
            match crash {
                0 => {}
                1 => fs::hard_link(&file, root.path().join("etc/a.conf.before-waystation")).unwrap(),
                _ => {
                    installation.apply(&steps[0], &journal.files[0]).unwrap();
                    assert_eq!(fs::read(&file).unwrap(), b"new\n");
                }
            }
            installation.undo().unwrap();
            assert!(tree(root.path()) == before, "crash {crash}");
        }
    }

    #[test]
    fn a_kept_file_is_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("etc/docker");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("daemon.json"), "{}").unwrap();
        fs::write(folder.join("daemon.json.before-waystation"), "precious").unwrap();
        let before = tree(root.path());
        let refused =
            Installation::new(root.path(), "docker").write(&files(Engine::Docker, "127.0.0.1:5000"));
        assert!(matches!(refused, Err(Refusal::KeptAlready(_))), "{refused:?}");
        assert!(tree(root.path()) == before);
    }
}
