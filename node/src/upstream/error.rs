//! Why an upstream did not give what was asked for. Owns the few cases that callers tell apart, and the texts.

use std::time::Duration;

use reqwest::StatusCode;

/// Why an upstream did not give what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// It says that there is no such thing.
    #[error("the upstream has no such thing")]
    NotFound,
    /// It does not give it to this node, or not to these credentials.
    #[error("the upstream refuses: {0}")]
    Denied(String),
    /// It wants to be left alone for a while.
    #[error("the upstream limits how often it may be asked; again in {} s", .retry_after.as_secs().max(1))]
    RateLimited {
        /// For how long.
        retry_after: Duration,
    },
    /// It cannot be reached, fails, takes too long, or has done so just now.
    #[error("the upstream cannot be asked: {0}")]
    Unavailable(String),
    /// It answered with what cannot be true or understood.
    #[error("the upstream's answer is wrong: {0}")]
    Invalid(String),
}

/// Why upstreams cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamConfigError {
    /// Everything that is wrong, a sentence each.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}

/// An error and what is known beside it.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    pub error: UpstreamError,
    /// How it was answered, if it was.
    pub status: Option<StatusCode>,
    /// Whether the same may work in a moment, and in how long at the earliest.
    pub again: Option<Duration>,
    /// Whether the answer came from another host, after a redirect.
    pub redirected: bool,
}

impl Failed {
    /// For good.
    pub fn new(error: UpstreamError) -> Self {
        Failed { error, status: None, again: None, redirected: false }
    }

    /// An answer that makes no sense.
    pub fn invalid(what: impl Into<String>) -> Self {
        Failed::new(UpstreamError::Invalid(what.into()))
    }
}

impl From<Failed> for UpstreamError {
    fn from(failed: Failed) -> UpstreamError {
        failed.error
    }
}

/// An error of the HTTP client in words. Without the URL, whose query may hold a signature.
pub(super) fn words(error: reqwest::Error) -> String {
    let kind = match &error {
        e if e.is_connect() && e.is_timeout() => "no connection in time",
        e if e.is_timeout() => "no answer in time",
        e if e.is_connect() => "no connection",
        e if e.is_body() || e.is_decode() => "the answer broke off",
        _ => "the request failed",
    };
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if error.is_timeout() { kind.to_owned() } else { format!("{kind}: {cause}") }
}

/// Text from outside, fit for a log line.
pub(super) fn tame(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_SAID).collect()
}

/// Characters of another's text that are repeated.
const MAX_SAID: usize = 300;
