//! Credentials as clients send them. That they are not printed is `crate::secret`'s.

use zeroize::Zeroizing;

use crate::secret::Secret;

/// A user's name and password, as a client sent them.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Who the client says to be.
    pub user: String,
    /// What is to prove it.
    pub password: Secret,
}

impl Credentials {
    /// Longest name in bytes.
    pub const USER_MAX: usize = 255;
    /// Longest password in bytes: identity providers hand out long ones.
    pub const PASSWORD_MAX: usize = 8192;

    /// Reads what follows `Basic ` in a header; nothing where it is no such thing.
    pub fn from_basic(encoded: &str) -> Option<Self> {
        let bytes = Zeroizing::new(data_encoding::BASE64.decode(encoded.trim().as_bytes()).ok()?);
        let (user, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
        Credentials::new(user.to_owned(), Secret::new(password.to_owned()))
    }

    /// Of these; nothing where one of them is too long.
    pub fn new(user: String, password: Secret) -> Option<Self> {
        let fits = user.len() <= Self::USER_MAX && password.expose().len() <= Self::PASSWORD_MAX;
        fits.then_some(Credentials { user, password })
    }

    /// Clients without credentials answer a Basic challenge with empty ones.
    pub fn is_empty(&self) -> bool {
        self.user.is_empty() && self.password.expose().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_and_never_printed() {
        let encoded = data_encoding::BASE64.encode(b"ann:pa:ss");
        let read = Credentials::from_basic(&encoded).expect("valid");
        assert_eq!((read.user.as_str(), read.password.expose()), ("ann", "pa:ss"));
        assert!(!format!("{read:?}").contains("pa:ss"));
        let none = data_encoding::BASE64.encode(b":");
        assert!(Credentials::from_basic(&none).expect("valid").is_empty());
        for bad in ["", "!!!", &data_encoding::BASE64.encode(b"no colon"), "/////w=="] {
            assert!(Credentials::from_basic(bad).is_none(), "{bad}");
        }
        let long = data_encoding::BASE64.encode("a".repeat(300).as_bytes());
        assert!(Credentials::from_basic(&long).is_none());
    }
}
