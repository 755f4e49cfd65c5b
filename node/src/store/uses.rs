//! When artifacts were last used: what was used least recently goes first when room is needed. Kept in memory and
//! written now and then; losing it costs a worse choice, nothing else. Counted, not dated: a clock that is set
//! changes no order.

use std::{
    collections::HashMap,
    fs, io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use waystation_proto::Digest;

/// The last use of each manifest and blob that clients asked for.
pub struct Uses {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: HashMap<Digest, Use>,
    count: u64,
    changed: bool,
}

/// A use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Use {
    /// Its number: later ones are higher.
    pub count: u64,
    /// When, in seconds since 1970, by this machine's clock. For display.
    pub wall: u64,
}

impl Uses {
    /// What was written to that file, if it can be read.
    pub(super) fn open(path: PathBuf) -> Self {
        let mut state = State::default();
        if let Ok(bytes) = fs::read(&path)
            && let Some((&VERSION, body)) = bytes.split_first()
            && let Ok(last) = postcard::from_bytes::<Vec<(Digest, Use)>>(body)
        {
            state.count = last.iter().map(|(_, used)| used.count).max().unwrap_or(0);
            state.last = last.into_iter().collect();
        }
        Uses { path, state: Mutex::new(state) }
    }

    /// It is being used.
    pub fn touch(&self, digest: &Digest) {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut state = self.state();
        state.count += 1;
        let used = Use { count: state.count, wall };
        state.last.insert(*digest, used);
        state.changed = true;
        if state.last.len() > USES_MAX {
            // The older half is as good as never used.
            let oldest = state.count.saturating_sub(USES_MAX as u64 / 2);
            state.last.retain(|_, used| used.count > oldest);
        }
    }

    /// Its last use, as far as is known.
    pub fn last(&self, digest: &Digest) -> Use {
        self.state().last.get(digest).copied().unwrap_or_default()
    }

    /// It is not here any more.
    pub fn forget(&self, digest: &Digest) {
        self.state().last.remove(digest);
    }

    /// Writes what has changed since the last time. Blocks.
    ///
    /// # Errors
    /// What the disk says.
    pub fn save(&self) -> io::Result<()> {
        let last: Vec<(Digest, Use)> = {
            let mut state = self.state();
            if !std::mem::replace(&mut state.changed, false) {
                return Ok(());
            }
            state.last.iter().map(|(digest, used)| (*digest, *used)).collect()
        };
        let bytes = postcard::to_extend(&last, vec![VERSION]).map_err(io::Error::other)?;
        let new = self.path.with_extension("new");
        fs::write(&new, bytes)?;
        fs::rename(&new, &self.path)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const VERSION: u8 = 1;
/// Most uses that are remembered: about 10 MB.
const USES_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_outlives_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("used");
        let (one, two) = (Digest::Sha256([1; 32]), Digest::Sha256([2; 32]));
        let uses = Uses::open(path.clone());
        [one, two, one].iter().for_each(|digest| uses.touch(digest));
        uses.save().expect("written");
        let again = Uses::open(path.clone());
        assert!(again.last(&one) > again.last(&two));
        again.touch(&two);
        assert!(again.last(&two) > again.last(&one));
        fs::write(&path, b"garbage").expect("written");
        assert_eq!(Uses::open(path).last(&one), Use::default());
    }
}
