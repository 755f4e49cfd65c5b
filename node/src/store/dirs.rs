//! The data directory's layout, its format version and its lock. What is in the files is for the modules
//! that write them.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use iroh_blobs::store::fs::options::PathOptions;
use waystation_proto::{Hash, RepoName};

use super::{OpenError, room::Room};

/// The paths below one data directory, which is locked while this lives.
pub(super) struct Dirs {
    root: PathBuf,
    paths: PathOptions,
    /// On the disk of all below.
    pub room: Room,
    _lock: File,
}

impl Dirs {
    /// Makes what is missing, locks, and checks the format version. Also says whether the directory has
    /// another path than when it was last open (the store refers to our files by absolute path).
    pub fn open(dir: &Path) -> Result<(Self, bool), OpenError> {
        let unusable = |path: &Path, error: io::Error, advice: &str| OpenError::Unusable {
            path: path.to_owned(),
            why: format!("{error}; {advice}"),
        };
        make_durable(dir).map_err(|e| unusable(dir, e, "give another --data-dir, one that can be made"))?;
        let root = fs::canonicalize(dir).map_err(|e| unusable(dir, e, "give another directory"))?;
        let writable = "make it writable for the user that runs the node, or give another --data-dir";
        let lock = lock(&root, writable)?;
        let moved = match read_version(&root)? {
            Some(path) => path != root,
            None => false,
        };
        let (paths, room) = (PathOptions::new(&root.join("blobs")), Room::new(root.clone()));
        let dirs = Dirs { root, paths, room, _lock: lock };
        dirs.make().map_err(|e| unusable(&dirs.root, e, writable))?;
        if !moved {
            dirs.write_version().map_err(|e| unusable(&dirs.root, e, writable))?;
        }
        Ok((dirs, moved))
    }

    /// Writes `VERSION`: the format's number and the directory's path, a line each.
    pub fn write_version(&self) -> io::Result<()> {
        let text = format!("{FORMAT}\n{}\n", self.root.display());
        let path = self.root.join("VERSION");
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        let new = self.root.join("VERSION.new");
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        sync_dir(&self.root)
    }

    /// The root of the iroh-blobs store.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Where the store puts what it is still writing.
    pub fn blobs_temp(&self) -> &Path {
        &self.paths.temp_path
    }

    /// Where the store keeps data and outboards of its own.
    pub fn blobs_data(&self) -> &Path {
        &self.paths.data_path
    }

    /// The data file of a blob that the store owns (it was fetched).
    pub fn data(&self, hash: &Hash) -> PathBuf {
        self.paths.data_path(&iroh_blobs::Hash::from_bytes(hash.0))
    }

    /// All that the store may have of a blob.
    pub fn of_store(&self, hash: &Hash) -> [PathBuf; 4] {
        let hash = iroh_blobs::Hash::from_bytes(hash.0);
        [
            self.paths.data_path(&hash),
            self.paths.outboard_path(&hash),
            self.paths.sizes_path(&hash),
            self.paths.bitfield_path(&hash),
        ]
    }

    /// A blob's outboard, where it is too large for the store's database.
    pub fn outboard(&self, hash: &Hash) -> PathBuf {
        self.paths.outboard_path(&iroh_blobs::Hash::from_bytes(hash.0))
    }

    /// The 256 directories of files that we own and the store refers to.
    pub fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    /// The file of a blob that was ingested.
    pub fn file(&self, hash: &Hash) -> PathBuf {
        self.files().join(format!("{:02x}", hash.0[0])).join(hash.to_string())
    }

    /// Upload sessions, a directory for each repository.
    pub fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// The upload sessions of one repository. `+` is in no repository's name.
    pub fn uploads_of(&self, repository: &RepoName) -> PathBuf {
        self.uploads().join(repository.as_str().replace('/', "+"))
    }

    /// Bodies that are being received in one go. No repository's name starts with `+`.
    pub fn incoming(&self) -> PathBuf {
        self.uploads().join("+incoming")
    }

    /// What came of downloads that were not finished. No repository's name starts with `+`.
    pub fn partial(&self) -> PathBuf {
        self.uploads().join("+partial")
    }

    /// Files whose bytes turned out not to be what they were.
    pub fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// When what is here was last used.
    pub fn uses(&self) -> PathBuf {
        self.root.join("used")
    }

    /// The catalog's index.
    pub fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    fn make(&self) -> io::Result<()> {
        for dir in [self.blobs(), self.incoming(), self.partial(), self.quarantine()] {
            fs::create_dir_all(dir)?;
        }
        // All at once, so that no write has to sync more than the directory that it puts its file into. The
        // last one says that the others are durable.
        let last = self.files().join("ff");
        if !last.is_dir() {
            for byte in 0..255u8 {
                fs::create_dir_all(self.files().join(format!("{byte:02x}")))?;
            }
            sync_dir(&self.files())?;
            fs::create_dir_all(last)?;
            sync_dir(&self.files())?;
        }
        sync_dir(&self.root)
    }
}

/// Makes a directory and those above it that are missing, durably: an entry is in the directory above. What
/// is made is private: its content is for clients of the endpoint, not for every account of the machine.
fn make_durable(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for made in missing {
        let above = made.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match sync_dir(above) {
            // Some directories let others put something in and not look.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Makes the entries of a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn lock(root: &Path, advice: &str) -> Result<File, OpenError> {
    let path = root.join("lock");
    let unusable =
        |error: io::Error| OpenError::Unusable { path: path.clone(), why: format!("{error}; {advice}") };
    let file = File::options().create(true).write(true).truncate(false).open(&path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(root.to_owned())),
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// The path that the directory had when it was last open, if it was ever.
fn read_version(root: &Path) -> Result<Option<PathBuf>, OpenError> {
    let path = root.join("VERSION");
    let unusable = |why: String| OpenError::Unusable { path: path.clone(), why };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(format!("{error}; make it readable"))),
    };
    let (number, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let found = number.trim().parse().map_err(|_| {
        unusable("is not a format number; restore the file or give another --data-dir".to_owned())
    })?;
    if found > FORMAT {
        return Err(OpenError::Newer { path: root.to_owned(), found, supported: FORMAT });
    }
    Ok(Some(PathBuf::from(rest.trim_end_matches('\n'))))
}

/// The format of the data directory that this version writes.
const FORMAT: u32 = 1;
