//! Upload sessions as clients speak of them: the id in a path, and the `Content-Range` of a chunk
//! (distribution-spec, "Pushing a blob in chunks"), which has a form of its own. What a session holds is the
//! store's business.

use crate::range::number;

/// Where the bytes of a request belong in an upload. Never empty, and both bounds are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    first: u64,
    end: u64,
}

/// Why a chunk cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The header has another form, or there are no such bytes.
    #[error("Content-Range must be <first byte>-<last byte>, as in 0-1023")]
    Form,
    /// The headers contradict each other.
    #[error("Content-Range and Content-Length disagree")]
    Length,
}

impl Chunk {
    /// Reads a `Content-Range`: `<first>-<last>`, inclusive; the form with a unit and a total, as HTTP has it, is
    /// taken too. `content_length` is that of the request, where it has one.
    ///
    /// # Errors
    /// See [`ChunkError`].
    pub fn parse(content_range: &str, content_length: Option<u64>) -> Result<Self, ChunkError> {
        let text = content_range.trim();
        let text = text.strip_prefix("bytes ").unwrap_or(text);
        let text = text.split('/').next().unwrap_or(text);
        let (first, last) = text.split_once('-').ok_or(ChunkError::Form)?;
        let (first, last) = number(first).zip(number(last)).ok_or(ChunkError::Form)?;
        // The last number that there is has none after it, so that no byte can be there.
        let end = last.checked_add(1).filter(|end| first < *end).ok_or(ChunkError::Form)?;
        if content_length.is_some_and(|length| length != end - first) {
            return Err(ChunkError::Length);
        }
        Ok(Chunk { first, end })
    }

    /// Its first byte.
    pub fn first(self) -> u64 {
        self.first
    }

    /// One after its last byte.
    pub fn end(self) -> u64 {
        self.end
    }
}

/// The id of a session, if it can be one: it may become the name of a file.
pub fn id(text: &str) -> Option<String> {
    let plain = (1..=MAX_ID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    plain.then(|| text.to_owned())
}

/// Longest id: a UUID has 36 bytes.
const MAX_ID: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(text: &str) -> Result<(u64, u64), ChunkError> {
        Chunk::parse(text, None).map(|chunk| (chunk.first(), chunk.end()))
    }

    #[test]
    fn chunks() {
        assert_eq!(bounds("0-0"), Ok((0, 1)));
        assert_eq!(bounds("10-19"), Ok((10, 20)));
        assert_eq!(bounds("bytes 10-19/100"), Ok((10, 20)));
        assert_eq!(bounds("bytes 10-19/*"), Ok((10, 20)));
        assert_eq!(bounds("0-18446744073709551614"), Ok((0, u64::MAX)));
        for bad in ["", "5", "-5", "5-", "5-4", "a-b", "+1-2", "1-2-3", "0-18446744073709551615"] {
            assert_eq!(bounds(bad), Err(ChunkError::Form), "{bad}");
        }
        // The length of these is a number, but not where they end.
        for bad in
            ["1-18446744073709551615", "18446744073709551615-18446744073709551615", "7-99999999999999999999"]
        {
            assert_eq!(bounds(bad), Err(ChunkError::Form), "{bad}");
        }
    }

    #[test]
    fn lengths_agree() {
        assert!(Chunk::parse("10-19", Some(10)).is_ok());
        for length in [0, 9, 11, u64::MAX] {
            assert_eq!(Chunk::parse("10-19", Some(length)), Err(ChunkError::Length));
        }
    }

    #[test]
    fn ids_are_plain() {
        assert_eq!(id("0-f").as_deref(), Some("0-f"));
        for bad in ["", ".", "..", "a/b", "a b", "\u{fc}", &"a".repeat(MAX_ID + 1)] {
            assert_eq!(id(bad), None, "{bad:?}");
        }
    }
}
