//! Tokens of this node: claims with a keyed BLAKE3 of them, opaque to clients. The key lies in the data
//! directory, so that a login outlives a restart. A token names the mark of the password that it was given
//! for: it ends with that password.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use waystation_oci::scope::Scopes;

use super::credentials::Credentials;
use crate::identity::{Existing, IdentityError, random_bytes, read_seed, seed_text, write_private};

/// Makes and reads tokens.
pub struct Tokens {
    key: [u8; 32],
    life: Duration,
    /// Credentials that only an upstream can judge, for as long as their token lives.
    foreign: Mutex<HashMap<u64, (Credentials, u64)>>,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// What it is for.
    pub kind: Kind,
    /// Whose it is.
    pub bearer: Bearer,
    /// What it is good for, if the rules agree.
    pub scopes: Scopes,
    /// Seconds since 1970.
    pub issued: u64,
    /// Seconds since 1970.
    pub expires: u64,
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Requests.
    Access,
    /// Fetching other tokens.
    Refresh,
}

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bearer {
    /// Nobody's in particular.
    Anonymous,
    /// A user's, with the mark of the password.
    User(String, [u8; 16]),
    /// Of someone whom only an upstream knows: where the credentials are kept.
    Foreign(u64),
}

impl Tokens {
    /// Reads the key from the data directory, or makes one.
    pub fn open(data_dir: &Path, life: Duration) -> Result<Self, IdentityError> {
        let path = data_dir.join(KEY_FILE);
        if let Some(key) = read_seed(&path)? {
            return Ok(Tokens::with(key, life));
        }
        let key = random_bytes();
        write_private(&path, &seed_text(&key), Existing::Keep)
            .map_err(|source| IdentityError::Write { path, source })?;
        Ok(Tokens::with(key, life))
    }

    /// With this key.
    pub fn with(key: [u8; 32], life: Duration) -> Self {
        Tokens { key, life, foreign: Mutex::default() }
    }

    /// For marks of passwords.
    pub fn mark_key(&self) -> [u8; 32] {
        blake3::derive_key("waystation 2026 mark of a password in a token", &self.key)
    }

    /// How long one for requests lives.
    pub fn life(&self) -> Duration {
        self.life
    }

    /// A token. `now` in seconds since 1970.
    pub fn issue(&self, kind: Kind, bearer: Bearer, scopes: Scopes, now: u64) -> String {
        let life = match kind {
            Kind::Access => self.life.as_secs(),
            Kind::Refresh => REFRESH_LIFE.as_secs(),
        };
        let claims = Claims { kind, bearer, scopes, issued: now, expires: now.saturating_add(life) };
        let mut bytes = vec![VERSION];
        bytes.extend(postcard::to_allocvec(&claims).expect("claims always encode"));
        let mac = self.mac(&bytes);
        bytes.extend(mac.as_bytes());
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// What a token says, if this node made it and its time is not over.
    pub fn open_token(&self, text: &str, kind: Kind, now: u64) -> Option<Claims> {
        if text.len() > TOKEN_MAX {
            return None;
        }
        let bytes = BASE64URL_NOPAD.decode(text.trim().as_bytes()).ok()?;
        let (signed, mac) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
        // Takes equally long wherever they differ.
        if self.mac(signed) != blake3::Hash::from_slice(mac).ok()? {
            return None;
        }
        let claims: Claims = postcard::from_bytes(signed.strip_prefix(&[VERSION])?).ok()?;
        // A clock that was set back would make tokens live for years.
        let early = kind == Kind::Access && claims.issued > now.saturating_add(SKEW);
        (claims.kind == kind && claims.expires > now && !early).then_some(claims)
    }

    /// Keeps credentials that only an upstream can judge while their token lives.
    pub fn keep(&self, credentials: Credentials, now: u64) -> Bearer {
        let id = u64::from_le_bytes(random_bytes()[..8].try_into().expect("eight bytes"));
        let mut kept = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (_, until)| *until > now);
        if kept.len() >= FOREIGN_MAX
            && let Some(oldest) = kept.iter().min_by_key(|(_, (_, until))| *until).map(|(id, _)| *id)
        {
            kept.remove(&oldest);
        }
        kept.insert(id, (credentials, now.saturating_add(self.life.as_secs())));
        Bearer::Foreign(id)
    }

    /// Credentials kept there, unless they had to go.
    pub fn kept(&self, id: u64) -> Option<Credentials> {
        let kept = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&id).map(|(credentials, _)| credentials.clone())
    }

    fn mac(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.key, bytes)
    }
}

/// Seconds since 1970, as this machine has it.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The key of tokens, in the data directory.
const KEY_FILE: &str = "token.key";
const VERSION: u8 = 1;
/// Until a login with a client that keeps such a token, and no password, must be repeated.
const REFRESH_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// How far a clock may be set back.
const SKEW: u64 = 60;
/// Longest token in characters: that of the most repositories with the longest names.
const TOKEN_MAX: usize = 16 * 1024;
/// Most credentials kept for upstreams.
const FOREIGN_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn tokens() -> Tokens {
        Tokens::with([5; 32], Duration::from_secs(300))
    }

    fn ann() -> Bearer {
        Bearer::User("ann".into(), [1; 16])
    }

    #[test]
    fn only_what_this_node_made_opens_and_only_in_its_time() {
        let tokens = tokens();
        let scopes = Scopes::parse(["repository:a:pull"].into_iter());
        let text = tokens.issue(Kind::Access, ann(), scopes.clone(), 1000);
        let claims = tokens.open_token(&text, Kind::Access, 1001).expect("good");
        assert_eq!((claims.bearer, claims.scopes, claims.expires), (ann(), scopes, 1300));
        for (kind, now) in [(Kind::Access, 1300), (Kind::Access, 900), (Kind::Refresh, 1001)] {
            assert!(tokens.open_token(&text, kind, now).is_none(), "{kind:?} {now}");
        }
        assert!(
            Tokens::with([6; 32], Duration::from_secs(300)).open_token(&text, Kind::Access, 1001).is_none()
        );
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).expect("well formed");
        for n in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[n] ^= 1;
            let changed = BASE64URL_NOPAD.encode(&changed);
            assert!(tokens.open_token(&changed, Kind::Access, 1001).is_none(), "byte {n}");
        }
        for bad in ["", "a", "....", &"A".repeat(40), &"A".repeat(20_000)] {
            assert!(tokens.open_token(bad, Kind::Access, 1001).is_none(), "{bad:.20}");
        }
    }

    #[test]
    fn the_largest_token_opens() {
        let long = |n: usize| format!("repository:{}{n:03}:*", "a".repeat(200));
        let texts: Vec<_> = (0..32).map(long).collect();
        let tokens = tokens();
        let text = tokens.issue(Kind::Access, ann(), Scopes::parse(texts.iter().map(String::as_str)), 0);
        assert!(tokens.open_token(&text, Kind::Access, 0).is_some(), "{} characters", text.len());
    }

    #[test]
    fn the_key_stays_and_is_private() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().expect("a directory");
        let first = Tokens::open(dir.path(), Duration::from_secs(300)).expect("made");
        let again = Tokens::open(dir.path(), Duration::from_secs(300)).expect("read");
        assert_eq!(first.key, again.key);
        let mode = std::fs::metadata(dir.path().join(KEY_FILE)).expect("there").mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn credentials_for_upstreams_are_kept_for_a_while() {
        let tokens = tokens();
        let given = |n: usize| Credentials::new(format!("u{n}"), Secret::new("p")).expect("short");
        let Bearer::Foreign(first) = tokens.keep(given(0), 0) else { panic!("foreign") };
        assert_eq!(tokens.kept(first).expect("kept").user, "u0");
        for n in 1..=FOREIGN_MAX {
            tokens.keep(given(n), 1);
        }
        assert!(tokens.kept(first).is_none());
        tokens.keep(given(0), 1000);
        assert_eq!(tokens.foreign.lock().expect("no panic").len(), 1);
    }
}
