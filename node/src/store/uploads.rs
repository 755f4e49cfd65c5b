//! Upload sessions (distribution-spec, end-4 to end-6, 13, 14): `uploads/<repository>/<uuid>`, a file each.
//! A session survives a restart with what was written; its hashes are made again from the file. What a
//! power loss takes from it is noticed by the digest at the end, if not by the length.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::OwnedMutexGuard;
use uuid::Uuid;
use waystation_proto::{Digest, RepoName};

use super::{
    ByteStream, Held, IngestError, Inner,
    blobs::{blocking, remove_file},
    dirs::Dirs,
    draft::{Draft, Receiver, Step, storage},
};

/// All open sessions.
#[derive(Default)]
pub(super) struct Uploads {
    sessions: Mutex<BTreeMap<Id, Arc<Session>>>,
    /// When the sessions that rest were last looked for.
    swept: Mutex<Option<Instant>>,
}

/// A session belongs to one repository.
type Id = (RepoName, Uuid);

struct Session {
    path: PathBuf,
    length: Arc<AtomicU64>,
    used: Mutex<Instant>,
    /// The open file while someone has written; made again from the file where it is missing.
    draft: Arc<tokio::sync::Mutex<Option<Draft>>>,
}

impl Uploads {
    /// Finds the sessions of earlier runs; removes those that nobody has written to for [`EXPIRY`].
    pub fn recover(dirs: &Dirs) -> io::Result<Self> {
        let mut sessions = BTreeMap::new();
        for entry in fs::read_dir(dirs.uploads())? {
            let dir = entry?.path();
            let name = dir.file_name().and_then(|name| name.to_str()).map(|name| name.replace('+', "/"));
            let Some(repository) = name.and_then(|name| name.parse::<RepoName>().ok()) else { continue };
            for entry in fs::read_dir(&dir)? {
                let entry = entry?;
                let id = entry.file_name().to_str().and_then(|name| Uuid::try_parse(name).ok());
                let metadata = entry.metadata()?;
                match id {
                    Some(id) if rest_of(&metadata) < EXPIRY => {
                        let session = Session::new(entry.path(), metadata.len());
                        sessions.insert((repository.clone(), id), Arc::new(session));
                    }
                    _ => remove_file(&entry.path()),
                }
            }
            // Goes away only if it is empty.
            fs::remove_dir(&dir).ok();
        }
        Ok(Uploads { sessions: Mutex::new(sessions), swept: Mutex::default() })
    }

    fn find(&self, repository: &RepoName, id: &str) -> Option<(Id, Arc<Session>)> {
        self.tend(Instant::now());
        let key = (repository.clone(), Uuid::try_parse(id).ok()?);
        let session = self.sessions().get(&key).cloned()?;
        Some((key, session))
    }

    /// Whether there is room for one more session.
    pub fn has_room(&self, now: Instant) -> bool {
        self.tend(now);
        self.sessions().len() < MAX_UPLOADS
    }

    /// Sweeps, where that was not done of late.
    fn tend(&self, now: Instant) {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_none_or(|last| now.saturating_duration_since(last) > SWEEP) {
            self.sweep(now);
            *swept = Some(now);
        }
    }

    /// Removes what has expired, and closes the files of what rests: a client that went away must not keep
    /// them open for a day. Where there are many sessions, those that were left expire sooner.
    pub fn sweep(&self, now: Instant) {
        let mut sessions = self.sessions();
        let expiry = if sessions.len() > MANY_UPLOADS { EXPIRY_OF_MANY } else { EXPIRY };
        sessions.retain(|_, session| {
            // Not by the file's time: the clock may have been set since.
            let rest = now.saturating_duration_since(*session.used());
            if rest < REST || Arc::strong_count(session) > 1 {
                return true;
            }
            if let Ok(mut draft) = session.draft.try_lock() {
                *draft = None;
            }
            if rest > expiry {
                remove_file(&session.path);
            }
            rest <= expiry
        });
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<Id, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn new(path: PathBuf, length: u64) -> Self {
        let used = Mutex::new(Instant::now());
        Session { path, length: Arc::new(AtomicU64::new(length)), used, draft: Arc::default() }
    }

    /// When somebody last came to write.
    fn used(&self) -> MutexGuard<'_, Instant> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else writes: a client may come back before its broken connection is noticed.
    async fn turn(&self) -> Result<OwnedMutexGuard<Option<Draft>>, IngestError> {
        *self.used() = Instant::now();
        tokio::time::timeout(TURN, self.draft.clone().lock_owned()).await.map_err(|_| {
            IngestError::Busy("another request still writes to the upload; try again later".to_owned())
        })
    }

    /// Takes the draft out, making it again from the file where it is missing.
    async fn open(&self, draft: &mut Option<Draft>) -> Result<Draft, IngestError> {
        if let Some(draft) = draft.take() {
            return Ok(draft);
        }
        let (path, length) = (self.path.clone(), self.length.clone());
        blocking(move || Draft::reopen(path, length)).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => IngestError::UnknownUpload,
            _ => storage("the upload could not be read", error),
        })
    }
}

impl Inner {
    /// See [`super::Store::upload_start`].
    pub async fn upload_start(&self, repository: &RepoName) -> Result<String, IngestError> {
        if !self.uploads.has_room(Instant::now()) {
            return Err(IngestError::Busy(format!(
                "{MAX_UPLOADS} uploads are open already; finish or cancel some, or wait until they expire"
            )));
        }
        let id = Uuid::new_v4();
        let dir = self.dirs.uploads_of(repository);
        let path = dir.join(id.to_string());
        let file = path.clone();
        blocking(move || {
            fs::create_dir_all(dir)?;
            File::create_new(file)
        })
        .await
        .map_err(|error| storage("an upload could not be started", error))?;
        let session = Arc::new(Session::new(path, 0));
        self.uploads.sessions().insert((repository.clone(), id), session);
        Ok(id.to_string())
    }

    /// See [`super::Store::upload_append`].
    pub async fn upload_append(
        self: &Arc<Self>,
        repository: &RepoName,
        id: &str,
        offset: Option<u64>,
        limit: u64,
        body: ByteStream,
    ) -> Result<u64, IngestError> {
        let (key, session) = self.uploads.find(repository, id).ok_or(IngestError::UnknownUpload)?;
        let inner = self.clone();
        // A task of its own: if the caller goes away in the middle, what came is still accounted for before
        // anyone else writes.
        let append = async move {
            let mut slot = session.turn().await?;
            let draft = session.open(&mut slot).await?;
            let have = draft.length();
            if offset.is_some_and(|offset| offset != have) {
                *slot = Some(draft);
                return Err(IngestError::OutOfOrder { have });
            }
            let Some(room) = limit.checked_sub(have) else {
                *slot = Some(draft);
                return Err(IngestError::TooLarge { limit });
            };
            let mut body = Receiver::new(body, limit, room, &inner.active, &inner.dirs);
            let (draft, result) = draft.receive(Step::nothing(), &mut body).await;
            *slot = draft;
            // A file that could not be synced is gone.
            if result.is_err() && slot.is_none() && !session.path.exists() {
                inner.uploads.sessions().remove(&key);
            }
            result.map(|()| session.length.load(Ordering::SeqCst))
        };
        finish_task(append).await
    }

    /// See [`super::Store::upload_length`].
    pub async fn upload_length(&self, repository: &RepoName, id: &str) -> Result<u64, IngestError> {
        let (_, session) = self.uploads.find(repository, id).ok_or(IngestError::UnknownUpload)?;
        Ok(session.length.load(Ordering::SeqCst))
    }

    /// See [`super::Store::upload_finish`].
    pub async fn upload_finish(
        self: &Arc<Self>,
        repository: &RepoName,
        id: &str,
        expected: Digest,
    ) -> Result<Held, IngestError> {
        let (key, session) = self.uploads.find(repository, id).ok_or(IngestError::UnknownUpload)?;
        let inner = self.clone();
        let finish = async move {
            let mut slot = session.turn().await?;
            let draft = session.open(&mut slot).await?;
            let (draft, result) = inner.adopt(Some(&key.0), expected, draft).await;
            *slot = draft.filter(|_| result.is_err());
            if slot.is_none() {
                inner.uploads.sessions().remove(&key);
            }
            result
        };
        finish_task(finish).await
    }

    /// See [`super::Store::upload_cancel`].
    pub async fn upload_cancel(&self, repository: &RepoName, id: &str) -> Result<(), IngestError> {
        let (key, session) = self.uploads.find(repository, id).ok_or(IngestError::UnknownUpload)?;
        self.uploads.sessions().remove(&key);
        // Whoever is still writing writes into a file without a name.
        remove_file(&session.path);
        Ok(())
    }
}

/// Runs to the end even if the caller does not wait for it.
async fn finish_task<T: Send + 'static>(
    task: impl Future<Output = Result<T, IngestError>> + Send + 'static,
) -> Result<T, IngestError> {
    match tokio::spawn(task).await {
        Ok(result) => result,
        Err(error) => Err(storage("an upload", io::Error::other(error))),
    }
}

/// For how long nobody has written to a file.
fn rest_of(metadata: &fs::Metadata) -> Duration {
    let rest = metadata.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    rest.unwrap_or_default()
}

/// Most sessions open at once.
const MAX_UPLOADS: usize = 4096;
/// From how many sessions on those that were left expire sooner.
const MANY_UPLOADS: usize = MAX_UPLOADS / 2;
/// How long a session may rest where there are many.
const EXPIRY_OF_MANY: Duration = Duration::from_secs(60 * 60);
/// How long a session may rest.
const EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);
/// After which rest a session's file is closed; whoever goes on waits until it has been hashed again.
const REST: Duration = Duration::from_secs(10 * 60);
/// How often resting sessions are looked for, at most.
const SWEEP: Duration = Duration::from_secs(60);
/// How long a request waits for another one on the same session.
const TURN: Duration = Duration::from_secs(30);
