//! Whom upstreams called entitled, kept over a restart, so that a site which is cut off goes on serving its own
//! users. Owns the file: for each repository and user a bcrypt hash, which tells a password as little as a file of
//! users does, and when the upstream last said so.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use waystation_proto::{RepoName, Wall};

use crate::{
    identity::{self, Existing},
    secret::Secret,
};

/// The verdicts that are kept. Clones are the same.
#[derive(Clone)]
pub struct Kept {
    inner: Arc<Inner>,
}

struct Inner {
    /// Nowhere: nothing is kept.
    path: Option<PathBuf>,
    entries: Mutex<BTreeMap<(RepoName, String), Entry>>,
    /// One hash and one write at a time: both are slow.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    hash: String,
    /// Seconds since 1970, by this node's clock.
    said: u64,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    entitled: Vec<(RepoName, String, Entry)>,
}

impl Kept {
    /// What an earlier run kept. A file that cannot be read is begun anew: clients then wait for the upstream.
    pub fn open(path: Option<PathBuf>) -> Self {
        let entries = path.as_deref().map_or_else(BTreeMap::new, |path| match load(path) {
            Ok(entries) => entries,
            Err(why) => {
                tracing::warn!(path = %path.display(), %why,
                    "whom upstreams called entitled is not known any more; they are asked again");
                BTreeMap::new()
            }
        });
        let (entries, turn) = (Mutex::new(entries), tokio::sync::Mutex::default());
        Kept { inner: Arc::new(Inner { path, entries, turn }) }
    }

    /// When an upstream last called this client entitled; nothing where it did not, or not with this password.
    pub async fn entitled(&self, repository: &RepoName, user: &str, password: &Secret) -> Option<Wall> {
        let entry = self.entries().get(&(repository.clone(), user.to_owned())).cloned()?;
        let _turn = self.inner.turn.lock().await;
        matches(repository, user, password, entry.hash).await.then_some(Wall(entry.said))
    }

    /// Notes what an upstream just said of a client. Only what it says of the password that is kept takes an entry
    /// away: whoever guesses takes nothing from others.
    pub async fn note(&self, repository: RepoName, user: String, password: Secret, yes: bool) {
        let Some(path) = self.inner.path.clone() else { return };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let _turn = self.inner.turn.lock().await;
        let key = (repository, user);
        let old = self.entries().get(&key).cloned();
        let same = match &old {
            Some(old) => matches(&key.0, &key.1, &password, old.hash.clone()).await,
            None => false,
        };
        match (yes, same, old) {
            (true, true, Some(old)) if now.abs_diff(old.said) < RENEW_AFTER => return,
            (true, true, Some(old)) => drop(self.entries().insert(key, Entry { said: now, ..old })),
            (true, ..) => {
                let word = word(&key.0, &key.1, &password);
                let hashed = tokio::task::spawn_blocking(move || bcrypt::hash(word.expose(), COST)).await;
                let Ok(Ok(hash)) = hashed else { return };
                let mut entries = self.entries();
                if entries.len() >= KEPT_MAX && !entries.contains_key(&key) {
                    let oldest =
                        entries.iter().min_by_key(|(_, entry)| entry.said).map(|(key, _)| key.clone());
                    oldest.map(|oldest| entries.remove(&oldest));
                }
                entries.insert(key, Entry { hash, said: now });
            }
            (false, true, _) => drop(self.entries().remove(&key)),
            (false, false, _) => return,
        }
        let entries = self.entries().clone().into_iter();
        let entitled = entries.map(|((repository, user), entry)| (repository, user, entry)).collect();
        let stored = Stored { version: VERSION, entitled };
        let written = tokio::task::spawn_blocking(move || {
            let text = serde_json::to_string(&stored).map_err(io::Error::other)?;
            identity::write_private(&path, &text, Existing::Replace)
        });
        if let Err(why) = written.await.map_err(io::Error::other).flatten() {
            tracing::warn!(%why, "whom an upstream calls entitled could not be kept for the next start");
        }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<(RepoName, String), Entry>> {
        self.inner.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(path: &Path) -> io::Result<BTreeMap<(RepoName, String), Entry>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let stored: Stored = serde_json::from_slice(&text)?;
    if stored.version != VERSION {
        return Err(io::Error::other(format!("it has version {}, not {VERSION}", stored.version)));
    }
    let entitled = stored.entitled.into_iter().take(KEPT_MAX);
    Ok(entitled.map(|(repository, user, entry)| ((repository, user), entry)).collect())
}

async fn matches(repository: &RepoName, user: &str, password: &Secret, hash: String) -> bool {
    let word = word(repository, user, password);
    tokio::task::spawn_blocking(move || bcrypt::verify(word.expose(), &hash).unwrap_or(false))
        .await
        .unwrap_or(false)
}

/// What is hashed: passwords of any length, and the hash of one place is of no use for another.
fn word(repository: &RepoName, user: &str, password: &Secret) -> Secret {
    let mut hasher = blake3::Hasher::new_derive_key("waystation 2026-11 whom an upstream calls entitled");
    for part in [repository.as_str(), user, password.expose()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    // 44 characters: bcrypt looks at 72.
    Secret::new(data_encoding::BASE64.encode(hasher.finalize().as_bytes()))
}

const VERSION: u32 = 1;
/// As in files of users: 50 to 100 ms a guess.
const COST: u32 = 10;
/// Clients that are kept, the latest.
const KEPT_MAX: usize = 1000;
/// After how many seconds it is written down that the upstream still says so.
const RENEW_AFTER: u64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text)
    }

    #[tokio::test]
    async fn a_verdict_survives_and_is_for_one_password_and_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("entitled.json");
        let (here, there): (RepoName, RepoName) =
            ("a.example/x".parse().expect("a name"), "a.example/y".parse().expect("a name"));
        let kept = Kept::open(Some(path.clone()));
        kept.note(here.clone(), "ann".into(), secret("right-1"), true).await;
        let kept = Kept::open(Some(path.clone()));
        assert!(kept.entitled(&here, "ann", &secret("right-1")).await.is_some());
        for (repository, user, password) in
            [(&here, "ann", "wrong"), (&here, "ben", "right-1"), (&there, "ann", "right-1")]
        {
            assert!(kept.entitled(repository, user, &secret(password)).await.is_none());
        }
        let text = fs::read_to_string(&path).expect("written");
        assert!(!text.contains("right-1") && text.contains("$2"), "{text}");
        // A guess that was refused changes nothing; that it is refused itself takes it away.
        kept.note(here.clone(), "ann".into(), secret("wrong"), false).await;
        assert!(Kept::open(Some(path.clone())).entitled(&here, "ann", &secret("right-1")).await.is_some());
        kept.note(here.clone(), "ann".into(), secret("right-1"), false).await;
        assert!(Kept::open(Some(path.clone())).entitled(&here, "ann", &secret("right-1")).await.is_none());
        fs::write(&path, "{}").expect("written");
        assert!(Kept::open(Some(path)).entries().is_empty());
    }
}
