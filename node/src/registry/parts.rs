//! Answers with content: whole, one part, or several parts as `multipart/byteranges` (RFC 9110, section 14.6).
//! Which parts are asked for is `waystation_oci::range`'s to say; where the bytes come from, the caller's.

use std::io;

use axum::{
    body::Body,
    http::{StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use waystation_oci::range::{Part, Wanted};
use waystation_proto::Digest;

use super::{Asked, error::ApiError, reply};

/// What is served: headers are made of it, alike for HEAD and GET.
pub struct Content<'a> {
    /// Its digest, in the algorithm asked for.
    pub digest: &'a Digest,
    /// Its media type.
    pub media_type: &'a str,
    /// Its size in bytes.
    pub size: u64,
}

impl Content<'_> {
    /// What a GET asks of it. A `Range` that comes with an `If-Range` of something else is ignored.
    ///
    /// # Errors
    /// 416 where no byte asked for exists; 400 for too many ranges.
    pub fn wanted(&self, asked: &Asked) -> Result<Wanted, ApiError> {
        let etag = self.etag();
        let other = asked.headers.get(header::IF_RANGE).is_some_and(|tag| tag.as_bytes() != etag.as_bytes());
        // A header that is no text is of a broken form.
        let range = asked.headers.get(header::RANGE).filter(|_| !other).and_then(|range| range.to_str().ok());
        Ok(Wanted::of(range, self.size)?)
    }

    /// 304, if the client says to have exactly this.
    pub fn unchanged(&self, asked: &Asked) -> Option<Response> {
        let etag = self.etag();
        let known =
            asked.headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let matches = |tag: &str| tag == "*" || tag.trim_start_matches("W/") == etag;
        if !known.flat_map(|tags| tags.split(',')).any(|tag| matches(tag.trim())) {
            return None;
        }
        let mut response = reply::empty(StatusCode::NOT_MODIFIED);
        self.name(&mut response);
        Some(response)
    }

    /// The answer to HEAD.
    pub fn head(&self) -> Response {
        self.answer(StatusCode::OK, self.media_type, self.size, Body::empty())
    }

    /// The answer to a GET. `read` gives the bytes of one part; it is called for a part when those before it
    /// have been sent.
    ///
    /// # Errors
    /// Where the first bytes cannot be read.
    pub fn get(
        &self,
        wanted: &Wanted,
        mut read: impl FnMut(Part) -> io::Result<Body> + Send + 'static,
    ) -> io::Result<Response> {
        let whole = Part { start: 0, end: self.size };
        match wanted {
            Wanted::Whole => {
                let body = read(whole)?;
                Ok(self.answer(StatusCode::OK, self.media_type, self.size, body))
            }
            Wanted::Parts(parts) => match *parts.as_slice() {
                [part] => {
                    let body = read(part)?;
                    let status = StatusCode::PARTIAL_CONTENT;
                    let mut response = self.answer(status, self.media_type, part.length(), body);
                    let range = part.content_range(self.size);
                    reply::set(response.headers_mut(), header::CONTENT_RANGE, &range);
                    Ok(response)
                }
                _ => Ok(self.multipart(parts, read)),
            },
        }
    }

    fn multipart(
        &self,
        parts: &[Part],
        mut read: impl FnMut(Part) -> io::Result<Body> + Send + 'static,
    ) -> Response {
        // Drawn anew each time: nobody can publish a blob with the boundary inside.
        let boundary = uuid::Uuid::new_v4().simple().to_string();
        let head = |(n, part): (usize, &Part)| {
            let start = if n == 0 { "" } else { "\r\n" };
            let (media_type, range) = (self.media_type, part.content_range(self.size));
            format!("{start}--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: {range}\r\n\r\n")
        };
        let end = format!("\r\n--{boundary}--\r\n");
        let heads: Vec<String> = parts.iter().enumerate().map(head).collect();
        let framing = heads.iter().map(String::len).sum::<usize>() + end.len();
        let length = parts.iter().map(|part| part.length()).sum::<u64>() + framing as u64;
        let sections = stream::iter(heads.into_iter().zip(parts.to_vec())).flat_map(move |(head, part)| {
            let body = match read(part) {
                Ok(body) => body.into_data_stream().map(|bytes| bytes.map_err(io::Error::other)).boxed(),
                Err(error) => stream::iter([Err(error)]).boxed(),
            };
            stream::iter([Ok(Bytes::from(head))]).chain(body)
        });
        let body = Body::from_stream(sections.chain(stream::iter([Ok(Bytes::from(end))])));
        let media_type = format!("multipart/byteranges; boundary={boundary}");
        self.answer(StatusCode::PARTIAL_CONTENT, &media_type, length, body)
    }

    fn answer(&self, status: StatusCode, media_type: &str, length: u64, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        reply::set(headers, header::CONTENT_TYPE, media_type);
        reply::set(headers, header::CONTENT_LENGTH, &length.to_string());
        reply::set(headers, header::ACCEPT_RANGES, "bytes");
        self.name(&mut response);
        response
    }

    fn name(&self, response: &mut Response) {
        reply::set(response.headers_mut(), header::ETAG, &self.etag());
        reply::set(response.headers_mut(), reply::CONTENT_DIGEST, &self.digest.to_string());
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.digest)
    }
}
