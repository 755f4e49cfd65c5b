//! The file of users: one `name:hash` a line, hashes of bcrypt only, as `htpasswd -B` makes them.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use crate::identity::read_bounded;
use crate::secret::Secret;

/// The users of one reading of the file.
#[derive(Default)]
pub struct Users {
    hashes: BTreeMap<Arc<str>, String>,
    /// The dearest cost of any hash: what checking an unknown user takes.
    cost: u32,
}

/// Why a file of users cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HtpasswdError {
    /// Not there, not readable, too large or not text.
    #[error(
        "the users in {path} cannot be read: {why}; make the file readable for the user that runs the node"
    )]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        why: std::io::Error,
    },
    /// A line that is not what it should be. The line itself is not shown.
    #[error("{path} line {line}: {why}")]
    Line {
        /// The file.
        path: String,
        /// Its number, from 1.
        line: usize,
        /// What is wrong and what to do.
        why: &'static str,
    },
}

impl Users {
    /// Reads a file whole or not at all.
    pub fn read(path: &Path) -> Result<Self, HtpasswdError> {
        let name = || path.display().to_string();
        let text =
            read_bounded(path, FILE_MAX).map_err(|why| HtpasswdError::Unreadable { path: name(), why })?;
        Users::parse(&text).map_err(|(line, why)| HtpasswdError::Line { path: name(), line, why })
    }

    fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let mut users = Users { hashes: BTreeMap::new(), cost: COST_USUAL };
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why| (n + 1, why);
            let (name, hash) =
                line.split_once(':').ok_or(wrong("no user:hash; make it with `htpasswd -nB USER`"))?;
            if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
                return Err(wrong("the user's name must have 1 to 255 bytes and no control characters"));
            }
            if matches!(name, super::rules::ANONYMOUS | super::rules::ANY_USER) {
                return Err(wrong("this name has a meaning of its own in rules; choose another"));
            }
            let cost = cost(hash)
                .ok_or(wrong("only bcrypt is taken ($2y$…); make the line with `htpasswd -nB USER`"))?;
            if cost > COST_MAX {
                return Err(wrong("a bcrypt cost above 15 takes seconds for each login; use 10 to 12"));
            }
            users.cost = users.cost.max(cost);
            if users.hashes.insert(name.into(), hash.to_owned()).is_some() {
                return Err(wrong("this user was named before; keep one of the lines"));
            }
        }
        Ok(users)
    }

    /// The user of that name, and its hash.
    pub fn find(&self, name: &str) -> Option<(&Arc<str>, &str)> {
        self.hashes.get_key_value(name).map(|(name, hash)| (name, hash.as_str()))
    }

    /// Whether the password is that user's. Takes tens of milliseconds of a processor, also for a user who
    /// does not exist.
    pub fn verify(&self, name: &str, password: &Secret) -> bool {
        match self.hashes.get(name) {
            Some(hash) => bcrypt::verify(password.expose(), hash).unwrap_or(false),
            None => {
                let _ = std::hint::black_box(bcrypt::hash_with_salt(password.expose(), self.cost, [0; 16]));
                false
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }
}

/// The cost of a bcrypt hash; nothing where it is none.
fn cost(hash: &str) -> Option<u32> {
    let rest = ["$2y$", "$2a$", "$2b$"].iter().find_map(|kind| hash.strip_prefix(kind))?;
    let (cost, rest) = rest.split_once('$')?;
    let plain = rest.len() == 53 && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"./".contains(&b));
    let cost: u32 = cost.parse().ok().filter(|_| cost.len() == 2)?;
    ((4..=31).contains(&cost) && plain).then_some(cost)
}

/// Largest file of users in bytes: ten thousand of them.
const FILE_MAX: u64 = 1 << 20;
const NAME_MAX: usize = super::credentials::Credentials::USER_MAX;
/// What the tools use unless told otherwise.
const COST_USUAL: u32 = 5;
const COST_MAX: u32 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    /// Cost 4, so that tests are quick.
    fn line(user: &str, password: &str) -> String {
        let hash = bcrypt::hash_with_salt(password, 4, [3; 16]).expect("hashed");
        format!("{user}:{}\n", hash.format_for_version(bcrypt::Version::TwoY))
    }

    #[test]
    fn knows_its_users() {
        let text = format!("# staff\n\n{}{}", line("ann", "one"), line("bob", "two"));
        let users = Users::parse(&text).expect("well formed");
        assert_eq!(users.len(), 2);
        for (name, password, expected) in
            [("ann", "one", true), ("ann", "two", false), ("bob", "two", true), ("eve", "one", false)]
        {
            assert_eq!(users.verify(name, &Secret::new(password)), expected, "{name}");
        }
    }

    #[test]
    fn complains_with_the_line_and_without_the_hash() {
        let good = line("ann", "one");
        let table = [
            ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "only bcrypt"),
            ("$apr1$salt$abcdefghijklmnopqrstuv", "only bcrypt"),
            ("plain", "only bcrypt"),
            ("", "only bcrypt"),
            ("$2y$31$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyz01234", "takes seconds"),
        ];
        for (hash, part) in table {
            let Err((number, why)) = Users::parse(&format!("{good}eve:{hash}\n")) else { panic!("{hash}") };
            assert!(number == 2 && why.contains(part), "{hash}: {number} {why}");
        }
        for bad in ["no-colon", ":x", "anonymous:x", "*:x", &format!("{good}{good}")] {
            assert!(Users::parse(bad).is_err(), "{bad}");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("users");
        std::fs::write(&file, "a:hunter2\n").expect("written");
        let shown = Users::read(&file).err().expect("wrong").to_string();
        assert!(shown.contains("line 1") && !shown.contains("hunter2"), "{shown}");
    }
}
