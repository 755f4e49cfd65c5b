//! Where one request ends and the next begins: forms of HTTP/1.1 that servers and proxies read in different ways, so
//! that what one takes for a body is a request to another. Such requests are refused, or are the last on their
//! connection.

use axum::http::{Request, Version, header};

use super::error::{ApiError, Code};

/// Whether the connection is to be closed after the answer.
///
/// `Content-Length` beside `Transfer-Encoding` obliges a server to close (RFC 9112, section 6.1), but the HTTP library
/// removes it before anybody can see it. So whatever has a `Transfer-Encoding` is the last: a client that streams a
/// blob makes a new connection for its next request.
///
/// # Errors
/// For bodies that are encoded as anything but plain chunks, and for requests to several hosts.
pub fn is_last<B>(request: &Request<B>) -> Result<bool, ApiError> {
    if request.version() == Version::HTTP_2 {
        return Ok(false);
    }
    if request.headers().get_all(header::HOST).iter().count() > 1 {
        return Err(ApiError::bad(Code::Unsupported, "a request has one Host"));
    }
    let mut encodings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    match (encodings.next(), encodings.next()) {
        (None, _) => Ok(false),
        (Some(one), None) if one.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => Ok(true),
        _ => {
            let why =
                "bodies come with a Content-Length, or with Transfer-Encoding: chunked and nothing else";
            Err(ApiError::bad(Code::Unsupported, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(version: Version, headers: &[(&str, &str)]) -> Option<bool> {
        let request = headers.iter().fold(Request::builder().version(version), |request, (name, value)| {
            request.header(*name, *value)
        });
        is_last(&request.body(()).expect("valid")).ok()
    }

    #[test]
    fn only_plain_chunks_are_taken_and_they_are_the_last() {
        let encoded = |values: &[&str]| {
            let headers: Vec<_> = values.iter().map(|value| ("transfer-encoding", *value)).collect();
            judged(Version::HTTP_11, &headers)
        };
        assert_eq!(encoded(&[]), Some(false));
        for plain in ["chunked", "Chunked", " chunked "] {
            assert_eq!(encoded(&[plain]), Some(true), "{plain}");
        }
        for odd in ["identity", "gzip, chunked", "chunked, chunked", "chunked, identity", "xchunked", ""] {
            assert_eq!(encoded(&[odd]), None, "{odd}");
        }
        assert_eq!(encoded(&["chunked", "chunked"]), None);
        assert_eq!(encoded(&["identity", "chunked"]), None);
    }

    #[test]
    fn one_host() {
        assert_eq!(judged(Version::HTTP_11, &[("host", "a")]), Some(false));
        assert_eq!(judged(Version::HTTP_11, &[("host", "a"), ("host", "b")]), None);
        assert_eq!(judged(Version::HTTP_2, &[]), Some(false));
    }
}
