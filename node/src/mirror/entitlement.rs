//! Who may have what an upstream keeps for some: the upstream is asked with the client's own credentials, and its
//! answer is remembered for a while. Credentials are held as a keyed hash only; what outlives a restart is
//! [`super::kept`]'s.

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::Mutex;
use waystation_proto::Wall;

use super::{kept::Kept, names::Place};
use crate::{identity::random_bytes, secret::Secret, upstream::UpstreamError};

/// What upstreams said of clients.
pub struct Entitlements {
    /// Drawn at each start: what is remembered tells nothing about passwords.
    key: [u8; 32],
    known: std::sync::Mutex<BTreeMap<[u8; 32], Answer>>,
    kept: Kept,
    /// Questions at a time, and one about the same: guessing passwords through this node is slow.
    turns: [Mutex<()>; TURNS],
}

#[derive(Clone, Copy)]
struct Answer {
    yes: bool,
    since: Instant,
    /// When it was given, where that was before this run: the upstream is to be asked again.
    before: Option<Wall>,
}

/// Whether a client may have what is in an upstream's repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entitled {
    /// The upstream says so, or said so not long ago.
    Yes,
    /// The upstream refuses these credentials.
    No,
    /// The upstream cannot be asked; the text is for people.
    Unknown(String),
}

impl Entitlements {
    /// Nobody was asked yet in this run.
    pub fn new(kept: Kept) -> Self {
        let turns = std::array::from_fn(|_| Mutex::default());
        Entitlements { key: random_bytes(), known: std::sync::Mutex::default(), kept, turns }
    }

    /// Whether these credentials may pull there.
    pub async fn check(&self, place: &Place, user: &str, password: &Secret) -> Entitled {
        let name = self.name(place, user, password);
        if let Some(answer) = self.fresh(&name) {
            return answer;
        }
        let turn = self.turns[usize::from(name[0]) % TURNS].lock();
        let Ok(_turn) = tokio::time::timeout(PATIENCE, turn).await else {
            return self.without_asking(&name, "too many are waiting to be asked about");
        };
        if let Some(answer) = self.fresh(&name) {
            return answer;
        }
        match place.upstream.entitles(&place.path, user, password).await {
            Ok(yes) => {
                if !yes {
                    tracing::warn!(upstream = place.upstream.config().namespace, repository = %place.repository, user,
                        "the upstream refuses a client's credentials");
                    tokio::time::sleep(AFTER_REFUSAL).await;
                }
                self.note(name, yes);
                let (repository, password) = (place.repository.clone(), password.clone());
                let (kept, user) = (self.kept.clone(), user.to_owned());
                // The client does not wait for the disk: what is lost is asked for again.
                tokio::spawn(async move { kept.note(repository, user, password, yes).await });
                if yes { Entitled::Yes } else { Entitled::No }
            }
            Err(error @ (UpstreamError::Unavailable(_) | UpstreamError::RateLimited { .. })) => {
                match self.without_asking(&name, &error.to_string()) {
                    Entitled::Unknown(why) => self.said_before(name, (place, user, password), why).await,
                    known => known,
                }
            }
            Err(error) => Entitled::Unknown(error.to_string()),
        }
    }

    /// Whoever was entitled goes on while the upstream cannot be asked, as what it pulls does.
    fn without_asking(&self, name: &[u8; 32], why: &str) -> Entitled {
        match self.known().get(name) {
            Some(Answer { yes: true, before: Some(said), .. }) if is_recent(*said, wall()) => Entitled::Yes,
            Some(Answer { yes: true, before: None, since }) if since.elapsed() < WHILE_AWAY => Entitled::Yes,
            _ => Entitled::Unknown(why.to_owned()),
        }
    }

    /// As [`Self::without_asking`], by what an earlier run was told.
    async fn said_before(
        &self,
        name: [u8; 32],
        (place, user, password): (&Place, &str, &Secret),
        why: String,
    ) -> Entitled {
        match self.kept.entitled(&place.repository, user, password).await {
            Some(said) if is_recent(said, wall()) => {
                self.remember(name, Answer { yes: true, since: Instant::now(), before: Some(said) });
                Entitled::Yes
            }
            _ => {
                // Guessing is as slow as where the upstream answers.
                tokio::time::sleep(AFTER_REFUSAL).await;
                Entitled::Unknown(why)
            }
        }
    }

    fn fresh(&self, name: &[u8; 32]) -> Option<Entitled> {
        let answer = self.known().get(name).copied().filter(|answer| answer.before.is_none())?;
        let good_for = if answer.yes { YES_FOR } else { NO_FOR };
        (answer.since.elapsed() < good_for).then_some(if answer.yes { Entitled::Yes } else { Entitled::No })
    }

    fn note(&self, name: [u8; 32], yes: bool) {
        self.remember(name, Answer { yes, since: Instant::now(), before: None });
    }

    fn remember(&self, name: [u8; 32], answer: Answer) {
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            // Refusals go first: they are what somebody who guesses fills this with.
            known.retain(|_, answer| answer.yes);
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
        }
        known.insert(name, answer);
    }

    fn name(&self, place: &Place, user: &str, password: &Secret) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in [place.repository.as_str(), user, password.expose()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Answer>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what was said then still counts. A node whose clock cannot tell goes on.
fn is_recent(said: Wall, now: Wall) -> bool {
    !said.is_plausible() || !now.is_plausible() || now.0.saturating_sub(said.0) < WHILE_AWAY.as_secs()
}

fn wall() -> Wall {
    Wall(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// How long a client that is entitled is not asked about again.
const YES_FOR: Duration = Duration::from_secs(5 * 60);
/// How long one that is not: it may have been given the right meanwhile.
const NO_FOR: Duration = Duration::from_secs(20);
/// How long one that was entitled goes on while the upstream is away.
const WHILE_AWAY: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// After a refusal, before it is told.
const AFTER_REFUSAL: Duration = Duration::from_secs(1);
/// Questions at a time.
const TURNS: usize = 16;
/// How long a client waits for its turn.
const PATIENCE: Duration = Duration::from_secs(12);
/// Clients that are remembered.
const KNOWN_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_counts_for_a_week_where_clocks_can_tell() {
        let (now, week) = (1_800_000_000, WHILE_AWAY.as_secs());
        for (said, now, recent) in [
            (now - week + 1, now, true),
            (now - week, now, false),
            (now + 9_999_999, now, true),
            (now - week, 12, true),
            (12, now, true),
        ] {
            assert_eq!(is_recent(Wall(said), Wall(now)), recent, "{said} {now}");
        }
    }
}
