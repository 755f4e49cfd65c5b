//! Byte ranges: the `Range` of downloads (RFC 9110, section 14). The `Content-Range` of uploads has a form of its
//! own and is [`crate::upload`]'s.

/// Which parts of a body are to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it, as 200.
    Whole,
    /// These parts in the order asked for, at least one: one by itself, several as `multipart/byteranges`, as
    /// 206. Parts that overlap or touch are not joined: clients count them.
    Parts(Vec<Part>),
}

/// Some bytes of a body, never none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The first.
    pub start: u64,
    /// One after the last.
    pub end: u64,
}

/// Why no part of a body can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// None of the bytes asked for exist.
    #[error("there is no such byte: the size is {size}")]
    Unsatisfiable {
        /// How many there are.
        size: u64,
    },
    /// More ranges than are answered at a time. Clients of zstd:chunked layers then ask for fewer.
    #[error("at most {MAX_RANGES} ranges in {MAX_RANGE_HEADER} bytes at a time; ask for fewer")]
    TooMany,
}

impl Wanted {
    /// What a `Range` header asks of a body of `size` bytes. One in other units or of a broken form is ignored.
    /// So are ranges that add up to more than twice the body: whoever asks for that is served as well by all of
    /// it once. Of several ranges, those without any byte are left out.
    ///
    /// # Errors
    /// Where no byte asked for exists, or too many ranges are asked for.
    pub fn of(range: Option<&str>, size: u64) -> Result<Self, RangeError> {
        let Some(set) = range.and_then(bytes_unit) else { return Ok(Wanted::Whole) };
        if set.len() > MAX_RANGE_HEADER || set.split(',').count() > MAX_RANGES {
            return Err(RangeError::TooMany);
        }
        let mut parts = Vec::new();
        // Empty elements of a list are to be ignored (RFC 9110, section 5.6.1).
        let mut any = false;
        for spec in set.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|spec| !spec.is_empty())
        {
            any = true;
            match Spec::parse(spec) {
                None => return Ok(Wanted::Whole),
                Some(spec) => parts.extend(spec.within(size)),
            }
        }
        if !any {
            return Ok(Wanted::Whole);
        }
        let total: u128 = parts.iter().map(|part| u128::from(part.length())).sum();
        match parts.len() {
            0 => Err(RangeError::Unsatisfiable { size }),
            2.. if total > 2 * u128::from(size) => Ok(Wanted::Whole),
            _ => Ok(Wanted::Parts(parts)),
        }
    }
}

impl Wanted {
    /// Where the bytes begin that are sent first.
    pub fn first(&self) -> u64 {
        match self {
            Wanted::Whole => 0,
            Wanted::Parts(parts) => parts.first().map_or(0, |part| part.start),
        }
    }
}

impl Part {
    /// How many bytes.
    pub fn length(self) -> u64 {
        self.end - self.start
    }

    /// The value of its `Content-Range` in a body of `size` bytes.
    pub fn content_range(self, size: u64) -> String {
        format!("bytes {}-{}/{size}", self.start, self.end - 1)
    }
}

/// One range as written.
enum Spec {
    From(u64, Option<u64>),
    Last(u64),
}

impl Spec {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once('-')? {
            ("", length) => number(length).map(Spec::Last),
            (first, "") => number(first).map(|first| Spec::From(first, None)),
            (first, last) => Some(Spec::From(number(first)?, Some(number(last)?))),
        }
    }

    fn within(self, size: u64) -> Option<Part> {
        let (start, end) = match self {
            Spec::From(first, last) => (first, last.map_or(size, |last| last.saturating_add(1).min(size))),
            Spec::Last(length) => (size.saturating_sub(length), size),
        };
        (start < end).then_some(Part { start, end })
    }
}

/// What follows `bytes=`; units are not case-sensitive.
fn bytes_unit(range: &str) -> Option<&str> {
    let (unit, set) = range.split_once('=')?;
    unit.trim().eq_ignore_ascii_case("bytes").then_some(set)
}

/// Digits only: `u64::from_str` would take a sign. Numbers too large for any blob are as good as the largest.
pub(crate) fn number(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 64 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

/// Most ranges answered at a time: clients of zstd:chunked layers ask for nearly as many.
const MAX_RANGES: usize = 1000;
/// Longest list of ranges, in bytes.
const MAX_RANGE_HEADER: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(spans: &[(u64, u64)]) -> Result<Wanted, RangeError> {
        Ok(Wanted::Parts(spans.iter().map(|(start, end)| Part { start: *start, end: *end }).collect()))
    }

    #[test]
    fn one_range() {
        let none = |size| Err(RangeError::Unsatisfiable { size });
        let table = [
            ("bytes=0-", 10, parts(&[(0, 10)])),
            ("bytes=0-0", 10, parts(&[(0, 1)])),
            ("bytes=3-5", 10, parts(&[(3, 6)])),
            ("Bytes=3-5", 10, parts(&[(3, 6)])),
            ("bytes= 3-5 ", 10, parts(&[(3, 6)])),
            ("bytes=9-", 10, parts(&[(9, 10)])),
            ("bytes=2000-5000", 2048, parts(&[(2000, 2048)])),
            ("bytes=0-18446744073709551615", 10, parts(&[(0, 10)])),
            ("bytes=0-99999999999999999999999", 10, parts(&[(0, 10)])),
            ("bytes=-4", 10, parts(&[(6, 10)])),
            ("bytes=-40", 10, parts(&[(0, 10)])),
            ("bytes=-0", 10, none(10)),
            ("bytes=10-", 10, none(10)),
            ("bytes=10-20", 10, none(10)),
            ("bytes=500-0", 1000, none(1000)),
            ("bytes=99999999999999999999999-", 10, none(10)),
            ("bytes=0-", 0, none(0)),
            ("bytes=-1", 0, none(0)),
            ("bytes=", 10, Ok(Wanted::Whole)),
            ("bytes=-", 10, Ok(Wanted::Whole)),
            ("bytes=a-b", 10, Ok(Wanted::Whole)),
            ("bytes=+1-2", 10, Ok(Wanted::Whole)),
            ("lines=0-1", 10, Ok(Wanted::Whole)),
            ("0-1", 10, Ok(Wanted::Whole)),
        ];
        for (range, size, expected) in table {
            assert_eq!(Wanted::of(Some(range), size), expected, "{range} of {size}");
        }
        assert_eq!(Wanted::of(None, 10), Ok(Wanted::Whole));
    }

    #[test]
    fn several_ranges() {
        let table = [
            ("bytes=0-1,3-4", 10, parts(&[(0, 2), (3, 5)])),
            ("bytes=5-6, 0-1 ,\t-1", 10, parts(&[(5, 7), (0, 2), (9, 10)])),
            // Touching and overlapping ones stay as they are.
            ("bytes=0-1,2-3,1-2", 10, parts(&[(0, 2), (2, 4), (1, 3)])),
            ("bytes=0-0,0-0,0-0", 10, parts(&[(0, 1), (0, 1), (0, 1)])),
            ("bytes=0-1,,3-4,", 10, parts(&[(0, 2), (3, 5)])),
            ("bytes=0-1,30-40", 10, parts(&[(0, 2)])),
            ("bytes=10-,20-30", 10, Err(RangeError::Unsatisfiable { size: 10 })),
            ("bytes=0-1,x", 10, Ok(Wanted::Whole)),
            ("bytes=,", 10, Ok(Wanted::Whole)),
            ("bytes=0-,0-", 10, parts(&[(0, 10), (0, 10)])),
            ("bytes=0-,0-,0-0", 10, Ok(Wanted::Whole)),
            ("bytes=0-,0-,0-0", u64::MAX, Ok(Wanted::Whole)),
        ];
        for (range, size, expected) in table {
            assert_eq!(Wanted::of(Some(range), size), expected, "{range} of {size}");
        }
    }

    #[test]
    fn too_many_ranges() {
        let many = |n: usize| {
            let specs: Vec<String> = (0..n).map(|i| format!("{}-{}", i * 10, i * 10 + 1)).collect();
            format!("bytes={}", specs.join(","))
        };
        let asked = Wanted::of(Some(&many(1000)), 1 << 20);
        assert!(matches!(asked, Ok(Wanted::Parts(parts)) if parts.len() == 1000));
        assert_eq!(Wanted::of(Some(&many(1001)), 1 << 20), Err(RangeError::TooMany));
        let long = format!("bytes=0-1,{}", " ".repeat(MAX_RANGE_HEADER));
        assert_eq!(Wanted::of(Some(&long), 10), Err(RangeError::TooMany));
    }
}
