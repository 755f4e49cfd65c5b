//! Checks names and passwords: off the async threads, few at a time, slower for who fails. Remembers for
//! a while what was right, by a keyed hash, never the password. Reads the file of users again when it changes.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};
use tracing::{info, warn};

use super::{
    credentials::Credentials,
    htpasswd::{HtpasswdError, Users},
    limits::block,
    stamp::Stamp,
    throttle::Throttle,
};
use crate::metrics::Metrics;

/// The users of this node.
pub struct Logins {
    path: PathBuf,
    /// For cached logins: only this process can tell which password made an entry.
    key: [u8; 32],
    checks: Semaphore,
    state: Mutex<State>,
    metrics: Metrics,
}

/// What became of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// The password is that user's.
    Known(Arc<str>),
    /// There is no such user.
    Unknown,
    /// The password is not that user's.
    Wrong,
    /// Too many failures or too much to check: not looked at. Try again after this.
    Busy(Duration),
}

/// Outcomes by the keyed hash of name and password, until when they count, and whether they were logged.
type Cache = HashMap<[u8; 32], (Login, Instant, bool)>;

struct State {
    users: Arc<Users>,
    stamp: Stamp,
    right: Cache,
    /// Apart, so that guesses push nobody out of the other.
    refused: Cache,
    by_user: Throttle<String>,
    by_address: Throttle<IpAddr>,
}

impl Logins {
    /// Reads the file.
    pub fn open(path: PathBuf, metrics: Metrics) -> Result<Self, HtpasswdError> {
        let stamp = Stamp::of(&[&path]);
        let users = Arc::new(Users::read(&path)?);
        info!(users = users.len(), file = %path.display(), "clients can log in");
        let state = State {
            users,
            stamp,
            right: Cache::new(),
            refused: Cache::new(),
            by_user: Throttle::new(USER_PAUSE_MAX),
            by_address: Throttle::new(ADDRESS_PAUSE_MAX),
        };
        Ok(Logins {
            path,
            key: crate::identity::random_bytes(),
            checks: Semaphore::new(CHECKS_MAX),
            state: Mutex::new(state),
            metrics,
        })
    }

    /// Who that is. Waits as long as earlier failures of that user or address make it.
    pub async fn check(&self, given: &Credentials, from: IpAddr) -> Login {
        let entry = self.entry(given);
        if let Some(known) = self.cached(&entry) {
            return known;
        }
        // A proxy on this machine stands for many clients; their names are throttled all the same.
        let address = Some(block(from)).filter(|address| !address.is_loopback());
        match self.begin(&given.user, address) {
            Ok((waiting, wait)) => self.checked(given, entry, waiting, wait).await,
            Err(wait) => Login::Busy(wait),
        }
    }

    fn begin(&self, user: &str, address: Option<IpAddr>) -> Result<(Waiting<'_>, Duration), Duration> {
        let now = Instant::now();
        let mut state = self.state();
        let by_address =
            address.map(|address| state.by_address.begin(&address, now, WAIT_MAX)).transpose()?;
        match state.by_user.begin(&user.to_owned(), now, WAIT_MAX) {
            Ok(by_user) => {
                let wait = by_user.max(by_address.unwrap_or_default());
                Ok((Waiting { logins: self, user: user.to_owned(), from: address, failed: false }, wait))
            }
            Err(wait) => {
                if let Some(address) = address {
                    state.by_address.end(&address, false, now);
                }
                Err(wait)
            }
        }
    }

    async fn checked(
        &self,
        given: &Credentials,
        entry: [u8; 32],
        mut waiting: Waiting<'_>,
        wait: Duration,
    ) -> Login {
        tokio::time::sleep(wait).await;
        let Ok(Ok(permit)) = tokio::time::timeout(WAIT_MAX, self.checks.acquire()).await else {
            return Login::Busy(RETRY);
        };
        // Requests that came with this one may have been checked meanwhile.
        if let Some(known) = self.cached(&entry) {
            return known;
        }
        let users = self.state().users.clone();
        let (looked, given_too) = (users.clone(), given.clone());
        let verified =
            tokio::task::spawn_blocking(move || looked.verify(&given_too.user, &given_too.password)).await;
        drop(permit);
        let login = match (verified, users.find(&given.user)) {
            (Ok(true), Some((user, _))) => Login::Known(user.clone()),
            (Ok(_), None) => Login::Unknown,
            _ => Login::Wrong,
        };
        waiting.failed = !matches!(login, Login::Known(_));
        self.remember(entry, &login, &users);
        if !waiting.failed {
            self.state().by_user.forgive(&waiting.user);
        }
        login
    }

    /// Counts a login that let nobody in, and logs it unless it is only repeated: clients do that with each
    /// request.
    pub fn refused(&self, given: &Credentials, from: IpAddr) {
        self.metrics.logins_failed.inc();
        let entry = self.entry(given);
        let repeated = self
            .state()
            .refused
            .get_mut(&entry)
            .is_some_and(|(_, _, logged)| std::mem::replace(logged, true));
        if repeated {
            return;
        }
        let shown: String = given.user.chars().take(64).collect();
        warn!(user = ?shown, address = %from, "a login failed");
    }

    /// A mark of the user's present password, keyed: it changes with the password. Nothing for who is no
    /// user any more.
    pub fn mark(&self, user: &str, key: &[u8; 32]) -> Option<[u8; 16]> {
        let users = self.state().users.clone();
        let (name, hash) = users.find(user)?;
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes()).update(hash.as_bytes());
        let mut mark = [0; 16];
        mark.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Some(mark)
    }

    /// The user of that name as it is kept here.
    pub fn name(&self, user: &str) -> Option<Arc<str>> {
        self.state().users.find(user).map(|(name, _)| name.clone())
    }

    /// Reads the file again if it changed. A broken one changes nothing.
    pub fn refresh(&self) {
        let stamp = Stamp::of(&[&self.path]);
        if stamp == self.state().stamp {
            return;
        }
        let read = Users::read(&self.path);
        let mut state = self.state();
        state.stamp = stamp;
        match read {
            Ok(users) => {
                info!(users = users.len(), file = %self.path.display(), "the users have changed");
                state.users = Arc::new(users);
                state.right.clear();
                state.refused.clear();
            }
            Err(error) => warn!("{error}; the users stay as they were"),
        }
    }

    fn cached(&self, entry: &[u8; 32]) -> Option<Login> {
        let state = self.state();
        let (login, until, _) = state.right.get(entry).or_else(|| state.refused.get(entry))?;
        (*until > Instant::now()).then(|| login.clone())
    }

    fn remember(&self, entry: [u8; 32], login: &Login, by: &Arc<Users>) {
        let mut state = self.state();
        // Checked against users that are not the present ones: that says nothing about these.
        if !Arc::ptr_eq(&state.users, by) {
            return;
        }
        let now = Instant::now();
        let known = matches!(login, Login::Known(_));
        // Who is unknown and who is wrong is remembered alike: the time of an answer tells them not apart.
        let (cache, span) =
            if known { (&mut state.right, CACHED) } else { (&mut state.refused, REFUSED_CACHED) };
        if cache.len() >= CACHE_MAX {
            cache.retain(|_, (_, until, _)| *until > now);
        }
        if cache.len() >= CACHE_MAX {
            cache.clear();
        }
        cache.insert(entry, (login.clone(), now + span, false));
    }

    fn entry(&self, given: &Credentials) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&(given.user.len() as u64).to_le_bytes()).update(given.user.as_bytes());
        *hasher.update(given.password.expose().as_bytes()).finalize().as_bytes()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A try under way; it ends when this is dropped, also where the client goes away meanwhile.
struct Waiting<'a> {
    logins: &'a Logins,
    user: String,
    from: Option<IpAddr>,
    failed: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.logins.state();
        state.by_user.end(&self.user, self.failed, now);
        if let Some(from) = &self.from {
            state.by_address.end(from, self.failed, now);
        }
    }
}

/// Passwords checked at a time: the rest of the processors is for who is in.
const CHECKS_MAX: usize = 2;
/// How long a login that was right is not checked again.
const CACHED: Duration = Duration::from_secs(300);
/// How long one that was not is not checked again: clients repeat it with each request.
const REFUSED_CACHED: Duration = Duration::from_secs(30);
/// Most logins of either kind remembered, about 100 bytes each.
const CACHE_MAX: usize = 1024;
/// A stranger who guesses must not lock the user out, so this stays below [`WAIT_MAX`].
const USER_PAUSE_MAX: Duration = Duration::from_secs(2);
const ADDRESS_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Longer waits are answered with when to try again.
const WAIT_MAX: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn write(path: &std::path::Path, users: &[(&str, &str)]) {
        let line = |(user, password): &(&str, &str)| {
            let hash = bcrypt::hash_with_salt(password, 4, [9; 16]).expect("hashed");
            format!("{user}:{}\n", hash.format_for_version(bcrypt::Version::TwoY))
        };
        std::fs::write(path, users.iter().map(line).collect::<String>()).expect("written");
    }

    fn given(user: &str, password: &str) -> Credentials {
        Credentials::new(user.into(), Secret::new(password)).expect("short")
    }

    fn home() -> IpAddr {
        [192, 0, 2, 1].into()
    }

    #[tokio::test]
    async fn remembers_until_the_file_changes_and_never_the_password() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("users");
        write(&path, &[("ann", "one"), ("bob", "two")]);
        let logins = Logins::open(path.clone(), Metrics::new()).expect("opens");
        let ann = given("ann", "one");
        assert_eq!(logins.check(&ann, home()).await, Login::Known("ann".into()));
        assert_eq!(logins.check(&given("ann", "two"), home()).await, Login::Wrong);
        assert_eq!(logins.check(&given("eve", "one"), home()).await, Login::Unknown);
        let remembered = |state: &State| (state.right.len(), state.refused.len());
        assert_eq!(remembered(&logins.state()), (1, 2));
        let mark = logins.mark("ann", &[1; 32]);
        write(&path, &[("ann", "three"), ("bob", "two")]);
        logins.refresh();
        assert_eq!(logins.check(&ann, home()).await, Login::Wrong);
        assert_ne!(logins.mark("ann", &[1; 32]), mark);
        // A broken file changes nothing.
        std::fs::write(&path, "ann:plain\n").expect("written");
        logins.refresh();
        assert_eq!(logins.check(&given("ann", "three"), home()).await, Login::Known("ann".into()));
        write(&path, &[("bob", "two")]);
        logins.refresh();
        assert_eq!(logins.mark("ann", &[1; 32]), None);
        assert_eq!(logins.check(&given("ann", "three"), home()).await, Login::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_ends_in_waiting() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("users");
        write(&path, &[("ann", "one")]);
        let logins = Logins::open(path, Metrics::new()).expect("opens");
        let mut seen = vec![];
        for n in 0..20 {
            seen.push(logins.check(&given("ann", &format!("guess {n}")), home()).await);
        }
        assert_eq!(seen[0], Login::Wrong);
        assert!(matches!(seen[19], Login::Busy(_)), "{seen:?}");
        // From elsewhere the user comes in, after a moment.
        let elsewhere = [198, 51, 100, 1].into();
        assert_eq!(logins.check(&given("ann", "one"), elsewhere).await, Login::Known("ann".into()));
        // And is in at once where it was remembered.
        assert_eq!(logins.check(&given("ann", "one"), home()).await, Login::Known("ann".into()));
    }
}
