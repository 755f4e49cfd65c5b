//! Byte ranges: the `Range` of downloads (RFC 9110, section 14) and the `Content-Range` of upload chunks
//! (distribution-spec, "Pushing a blob in chunks"), which has a form of its own.

use axum::http::{HeaderMap, header};

use super::error::{ApiError, Code};

/// Which part of a body is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it, as 200.
    Whole,
    /// These bytes, end exclusive and never empty, as 206.
    Bytes {
        /// The first.
        start: u64,
        /// One after the last.
        end: u64,
    },
}

impl Part {
    /// What the headers of a GET ask of a body of `size` bytes. A `Range` in other units or of a broken form
    /// is ignored, as is one whose `If-Range` names another `etag`.
    ///
    /// # Errors
    /// 416 where no byte asked for exists; 400 for several ranges: clients that ask for them then try fewer.
    pub fn of(headers: &HeaderMap, size: u64, etag: &str) -> Result<Self, ApiError> {
        let other = headers.get(header::IF_RANGE).is_some_and(|tag| tag.as_bytes() != etag.as_bytes());
        let text = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
        let Some(set) = text.and_then(|text| text.strip_prefix("bytes=")).filter(|_| !other) else {
            return Ok(Part::Whole);
        };
        if set.contains(',') {
            return Err(ApiError::bad(Code::Unsupported, "one range at a time, please"));
        }
        match set.trim().split_once('-') {
            Some(("", suffix)) => match number(suffix) {
                None => Ok(Part::Whole),
                Some(0) => Err(unsatisfiable(size)),
                Some(_) if size == 0 => Err(unsatisfiable(size)),
                Some(length) => Ok(Part::Bytes { start: size.saturating_sub(length), end: size }),
            },
            Some((first, last)) => {
                let Some(start) = number(first) else { return Ok(Part::Whole) };
                let end = match last {
                    "" => size,
                    last => match number(last) {
                        None => return Ok(Part::Whole),
                        Some(last) => last.saturating_add(1).min(size),
                    },
                };
                if start >= end { Err(unsatisfiable(size)) } else { Ok(Part::Bytes { start, end }) }
            }
            None => Ok(Part::Whole),
        }
    }

    /// Start and length in a body of `size` bytes.
    pub fn span(self, size: u64) -> (u64, u64) {
        match self {
            Part::Whole => (0, size),
            Part::Bytes { start, end } => (start, end - start),
        }
    }
}

/// Where a chunk of an upload belongs: first byte and length. `<first>-<last>`, inclusive; the form with a
/// unit and a total, as HTTP has it, is taken too.
///
/// # Errors
/// 400 where the header has another form or the range is empty.
pub fn chunk(headers: &HeaderMap) -> Result<Option<(u64, u64)>, ApiError> {
    let Some(value) = headers.get(header::CONTENT_RANGE) else { return Ok(None) };
    let wrong = || {
        ApiError::bad(Code::BlobUploadInvalid, "Content-Range must be <first byte>-<last byte>, as in 0-1023")
    };
    let text = value.to_str().map_err(|_| wrong())?.trim();
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let text = text.split('/').next().unwrap_or(text);
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let (first, last) = (number(first).ok_or_else(wrong)?, number(last).ok_or_else(wrong)?);
    let length = last.checked_sub(first).and_then(|n| n.checked_add(1)).ok_or_else(wrong)?;
    Ok(Some((first, length)))
}

/// Digits only: `u64::from_str` would take a sign. Numbers too large for any blob are as good as the largest.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 64 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

fn unsatisfiable(size: u64) -> ApiError {
    ApiError::new(416, Code::SizeInvalid, format!("there is no such byte: the size is {size}"))
        .with_header(header::CONTENT_RANGE, &format!("bytes */{size}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(range: &str, size: u64) -> Result<Part, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().expect("valid header"));
        Part::of(&headers, size, "\"x\"").map_err(|error| error.status())
    }

    #[test]
    fn downloads() {
        let bytes = |start, end| Ok(Part::Bytes { start, end });
        let table = [
            ("bytes=0-", 10, bytes(0, 10)),
            ("bytes=0-0", 10, bytes(0, 1)),
            ("bytes=3-5", 10, bytes(3, 6)),
            ("bytes=9-", 10, bytes(9, 10)),
            ("bytes=2000-5000", 2048, bytes(2000, 2048)),
            ("bytes=0-18446744073709551615", 10, bytes(0, 10)),
            ("bytes=0-99999999999999999999999", 10, bytes(0, 10)),
            ("bytes=-4", 10, bytes(6, 10)),
            ("bytes=-40", 10, bytes(0, 10)),
            ("bytes=-0", 10, Err(416)),
            ("bytes=10-", 10, Err(416)),
            ("bytes=10-20", 10, Err(416)),
            ("bytes=500-0", 1000, Err(416)),
            ("bytes=99999999999999999999999-", 10, Err(416)),
            ("bytes=0-", 0, Err(416)),
            ("bytes=-1", 0, Err(416)),
            ("bytes=0-1,3-4", 10, Err(400)),
            ("bytes=", 10, Ok(Part::Whole)),
            ("bytes=-", 10, Ok(Part::Whole)),
            ("bytes=a-b", 10, Ok(Part::Whole)),
            ("bytes=+1-2", 10, Ok(Part::Whole)),
            ("lines=0-1", 10, Ok(Part::Whole)),
        ];
        for (range, size, expected) in table {
            assert_eq!(part(range, size), expected, "{range} of {size}");
        }
    }

    #[test]
    fn only_if_unchanged() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, "bytes=1-".parse().expect("valid header"));
        headers.insert(header::IF_RANGE, "\"x\"".parse().expect("valid header"));
        let of = |etag| Part::of(&headers, 4, etag).map_err(|error| error.status());
        assert_eq!(of("\"x\""), Ok(Part::Bytes { start: 1, end: 4 }));
        assert_eq!(of("\"y\""), Ok(Part::Whole));
    }

    #[test]
    fn uploads() {
        let chunk = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_RANGE, text.parse().expect("valid header"));
            chunk(&headers).map_err(|error| error.status())
        };
        assert_eq!(chunk("0-0"), Ok(Some((0, 1))));
        assert_eq!(chunk("10-19"), Ok(Some((10, 10))));
        assert_eq!(chunk("bytes 10-19/100"), Ok(Some((10, 10))));
        assert_eq!(chunk("bytes 10-19/*"), Ok(Some((10, 10))));
        for bad in ["", "5", "-5", "5-", "5-4", "a-b", "0-18446744073709551615", "1-2-3"] {
            assert_eq!(chunk(bad), Err(400), "{bad}");
        }
        assert_eq!(super::chunk(&HeaderMap::new()).map_err(|error| error.status()), Ok(None));
    }
}
