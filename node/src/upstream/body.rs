//! Bodies of answers. Owns their limits in bytes and time, and that a body has the length that was announced.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use reqwest::Response;
use tokio::time::Instant;

use super::{
    breaker::Breaker,
    error::{Failed, UpstreamError, tame, words},
};
use crate::store::ByteStream;

/// The whole body.
///
/// # Errors
/// Invalid where it is larger than `max`, Unavailable where it breaks off or takes too long.
pub async fn bounded(mut answer: Response, max: usize) -> Result<Bytes, Failed> {
    let too_large = || Failed::invalid(format!("it is larger than {max} bytes"));
    if answer.content_length().is_some_and(|length| length > max as u64) {
        return Err(too_large());
    }
    let read = async {
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > max {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    };
    tokio::time::timeout(BODY_WITHIN, read).await.unwrap_or_else(|_| {
        Err(Failed::new(UpstreamError::Unavailable("the answer did not end in time".into())))
    })
}

/// What an error's body says (distribution-spec, "Error Codes"), else its status.
pub async fn said(answer: Response) -> String {
    let status = answer.status();
    let read = bounded(answer, MAX_ERROR);
    let body = match tokio::time::timeout(ERROR_WITHIN, read).await {
        Ok(Ok(body)) => body,
        _ => return status.to_string(),
    };
    let document: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let first = &document["errors"][0];
    let words = [&first["message"], &first["code"], &document["message"], &document["details"]]
        .into_iter()
        .find_map(|value| value.as_str().filter(|text| !text.is_empty()));
    words.map_or_else(|| status.to_string(), |text| format!("{} ({})", tame(text), status.as_u16()))
}

/// The body as it comes, of `length` bytes where that is known. It ends with an error where it breaks off, is
/// shorter or longer; the host's health learns of it.
pub fn stream(answer: Response, length: Option<u64>, breaker: Arc<Breaker>) -> ByteStream {
    let body = answer.bytes_stream().boxed();
    let start = (Some(body), 0_u64, Pace::new());
    stream::unfold(start, move |(body, seen, mut pace)| {
        let breaker = Arc::clone(&breaker);
        async move {
            let mut body = body?;
            let wrong =
                |kind, text: String| Some((Err(io::Error::new(kind, text)), (None, seen, Pace::new())));
            let Ok(next) = tokio::time::timeout_at(pace.until, body.next()).await else {
                let why = format!("the upstream sends too slowly: less than {LEAST} bytes in {PATIENCE:?}");
                breaker.broke(why.clone());
                return wrong(io::ErrorKind::TimedOut, why);
            };
            match next {
                Some(Ok(chunk)) => {
                    let seen = seen + chunk.len() as u64;
                    pace.came(chunk.len() as u64);
                    if length.is_some_and(|length| seen > length) {
                        return wrong(
                            io::ErrorKind::InvalidData,
                            "the upstream sent more than it announced".into(),
                        );
                    }
                    Some((Ok(chunk), (Some(body), seen, pace)))
                }
                Some(Err(error)) => {
                    let slow = error.is_timeout();
                    let why = words(error);
                    breaker.broke(why.clone());
                    let kind = if slow { io::ErrorKind::TimedOut } else { io::ErrorKind::ConnectionReset };
                    wrong(kind, format!("the upstream's answer broke off after {seen} bytes: {why}"))
                }
                None => match length.filter(|length| seen < *length) {
                    None => None,
                    Some(length) => wrong(
                        io::ErrorKind::UnexpectedEof,
                        format!("the upstream's answer ended after {seen} of {length} bytes"),
                    ),
                },
            }
        }
    })
    .boxed()
}

/// That a body comes at all: read time-outs begin anew with each byte.
struct Pace {
    came: u64,
    until: Instant,
}

impl Pace {
    fn new() -> Self {
        Pace { came: 0, until: Instant::now() + PATIENCE }
    }

    fn came(&mut self, bytes: u64) {
        self.came += bytes;
        if self.came >= LEAST {
            *self = Pace::new();
        }
    }
}

fn broken(error: reqwest::Error) -> Failed {
    let again = (!error.is_timeout()).then_some(Duration::ZERO);
    Failed { again, ..Failed::new(UpstreamError::Unavailable(words(error))) }
}

/// Bytes of a blob that make it worth to go on: they come within [`PATIENCE`], and over each connection.
pub const LEAST: u64 = 4096;
/// How long [`LEAST`] bytes may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// For a body that is kept in memory.
const BODY_WITHIN: Duration = Duration::from_secs(300);
/// For an error in words.
const ERROR_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of an error in words.
const MAX_ERROR: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of drops of so many bytes every five seconds.
    fn drip(bytes: usize, times: usize) -> ByteStream {
        let drops = stream::iter(0..times).then(move |_| async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok::<_, io::Error>(Bytes::from(vec![0; bytes]))
        });
        let body = reqwest::Body::wrap_stream(drops);
        let answer = Response::from(axum::http::Response::new(body));
        stream(answer, None, Arc::default())
    }

    #[tokio::test(start_paused = true)]
    async fn drips_are_given_up_and_slow_links_are_not() {
        let came: Vec<_> = drip(1, 1000).collect().await;
        let last = came.last().expect("something came");
        assert!(last.as_ref().is_err_and(|why| why.kind() == io::ErrorKind::TimedOut), "{last:?}");
        assert!(came.len() < 20, "{} drops were waited for", came.len());
        let slow: Vec<_> = drip(1024, 100).collect().await;
        assert_eq!(slow.iter().filter(|piece| piece.is_ok()).count(), 100);
        // The rest of a blob may be short.
        assert!(drip(10, 3).all(|piece| std::future::ready(piece.is_ok())).await);
    }
}
