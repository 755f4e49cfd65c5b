//! Bodies of answers. Owns their limits in bytes and time, and that a body has the length that was announced.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use reqwest::Response;

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
    let start = (Some(body), 0_u64);
    stream::unfold(start, move |(body, seen)| {
        let breaker = Arc::clone(&breaker);
        async move {
            let mut body = body?;
            let wrong = |kind, text: String| Some((Err(io::Error::new(kind, text)), (None, seen)));
            match body.next().await {
                Some(Ok(chunk)) => {
                    let seen = seen + chunk.len() as u64;
                    if length.is_some_and(|length| seen > length) {
                        return wrong(
                            io::ErrorKind::InvalidData,
                            "the upstream sent more than it announced".into(),
                        );
                    }
                    Some((Ok(chunk), (Some(body), seen)))
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

fn broken(error: reqwest::Error) -> Failed {
    let again = (!error.is_timeout()).then_some(Duration::ZERO);
    Failed { again, ..Failed::new(UpstreamError::Unavailable(words(error))) }
}

/// For a body that is kept in memory.
const BODY_WITHIN: Duration = Duration::from_secs(300);
/// For an error in words.
const ERROR_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of an error in words.
const MAX_ERROR: usize = 64 * 1024;
