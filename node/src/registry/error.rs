//! What clients are told when something cannot be done: status, error code, a sentence that says what to do.
//! Every failure of the endpoint becomes one [`ApiError`].

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use waystation_oci::{manifest::ManifestError, path::PathError, range::RangeError, upload::ChunkError};
use waystation_proto::{Digest, Refusal, event::WantFailure};

use super::reply;
use crate::{access, store::IngestError};

/// An error of the distribution API.
#[derive(Clone, Debug)]
pub struct ApiError {
    status: StatusCode,
    code: Code,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Error codes (distribution-spec, "Error codes"), and `UNKNOWN` for faults of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)] // the specification explains them
pub enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Denied,
    Unauthorized,
    #[serde(rename = "TOOMANYREQUESTS")]
    TooManyRequests,
    Unsupported,
    Unknown,
}

impl ApiError {
    /// An error with this status; one that is no status becomes 500.
    pub fn new(status: u16, code: Code, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        ApiError { status, code, message: message.into(), headers: Vec::new() }
    }

    /// 400: the request is wrong in itself.
    pub fn bad(code: Code, message: impl Into<String>) -> Self {
        ApiError::new(400, code, message)
    }

    /// 403: understood and not allowed.
    pub fn denied(message: impl Into<String>) -> Self {
        ApiError::new(403, Code::Denied, message)
    }

    /// 404 for a blob.
    pub fn blob_unknown(digest: &Digest, why: impl std::fmt::Display) -> Self {
        ApiError::new(404, Code::BlobUnknown, format!("{digest}: {why}"))
    }

    /// 404 for a manifest.
    pub fn manifest_unknown(reference: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        ApiError::new(404, Code::ManifestUnknown, format!("{reference}: {why}"))
    }

    /// 500: this node's own fault.
    pub fn storage(why: impl std::fmt::Display) -> Self {
        ApiError::new(500, Code::Unknown, format!("this node's storage failed: {why}; see its log and disk"))
    }

    /// The same with one header more.
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.push((name, reply::header_value(value)));
        self
    }

    /// The answer's status code.
    #[cfg(test)]
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// A want that came to nothing; `unknown` is the code for what is not to be had.
    pub fn from_want(failure: WantFailure, unknown: Code, name: impl std::fmt::Display) -> Self {
        match failure {
            WantFailure::Unknown | WantFailure::NoHolder => {
                ApiError::new(404, unknown, format!("{name}: {failure}"))
            }
            WantFailure::Stalled => {
                ApiError::new(504, Code::Unknown, format!("{name}: {failure}; try again"))
            }
            WantFailure::Upstream(why) => ApiError::new(404, unknown, format!("{name}: {why}")),
            WantFailure::Storage(why) => ApiError::storage(why),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::NoGrant { .. } | Refusal::Expired { .. } => ApiError::denied(message),
            Refusal::Unknown(_) => ApiError::new(404, Code::ManifestUnknown, message),
            Refusal::Invalid(_) => ApiError::bad(Code::ManifestInvalid, message),
            Refusal::Storage(why) => ApiError::storage(why),
        }
    }
}

impl From<access::Refusal> for ApiError {
    fn from(refusal: access::Refusal) -> Self {
        match refusal {
            access::Refusal::Denied(message) => ApiError::denied(message),
            access::Refusal::Login { message, challenge } => ApiError::new(401, Code::Unauthorized, message)
                .with_header(header::WWW_AUTHENTICATE, &challenge),
            access::Refusal::Busy(message, wait) => ApiError::new(429, Code::TooManyRequests, message)
                .with_header(header::RETRY_AFTER, &wait.as_secs().max(1).to_string()),
        }
    }
}

impl From<IngestError> for ApiError {
    fn from(error: IngestError) -> Self {
        let message = error.to_string();
        match error {
            IngestError::DigestMismatch { .. } => ApiError::bad(Code::DigestInvalid, message),
            IngestError::TooLarge { .. } => ApiError::new(413, Code::SizeInvalid, message),
            IngestError::Interrupted(_) => ApiError::bad(Code::BlobUploadInvalid, message),
            IngestError::UnknownUpload => ApiError::new(404, Code::BlobUploadUnknown, message),
            IngestError::OutOfOrder { .. } => ApiError::new(416, Code::BlobUploadInvalid, message),
            IngestError::Busy(_) => ApiError::new(429, Code::TooManyRequests, message)
                .with_header(header::RETRY_AFTER, RETRY_AFTER_SECONDS),
            IngestError::Full(_) => ApiError::new(507, Code::Unknown, message),
            IngestError::Storage(why) => ApiError::storage(why),
        }
    }
}

impl From<ManifestError> for ApiError {
    fn from(error: ManifestError) -> Self {
        let message = error.to_string();
        match error {
            ManifestError::UnknownBlob { .. } => ApiError::new(404, Code::ManifestBlobUnknown, message),
            ManifestError::Size { .. } => ApiError::bad(Code::SizeInvalid, message),
            _ => ApiError::bad(Code::ManifestInvalid, message),
        }
    }
}

impl From<PathError> for ApiError {
    fn from(error: PathError) -> Self {
        let message = error.to_string();
        match error {
            PathError::Elsewhere(_) => ApiError::new(404, Code::Unsupported, message),
            PathError::Upload => ApiError::new(404, Code::BlobUploadUnknown, message),
            PathError::TooLong | PathError::Encoding | PathError::Repository(..) => {
                ApiError::bad(Code::NameInvalid, message)
            }
            PathError::Tag(..) => ApiError::bad(Code::ManifestInvalid, message),
            PathError::Digest(..) => ApiError::bad(Code::DigestInvalid, message),
        }
    }
}

impl From<RangeError> for ApiError {
    fn from(error: RangeError) -> Self {
        let message = error.to_string();
        match error {
            RangeError::Unsatisfiable { size } => ApiError::new(416, Code::SizeInvalid, message)
                .with_header(header::CONTENT_RANGE, &format!("bytes */{size}")),
            RangeError::TooMany => ApiError::bad(Code::Unsupported, message),
        }
    }
}

impl From<ChunkError> for ApiError {
    fn from(error: ChunkError) -> Self {
        let code = match error {
            ChunkError::Form => Code::BlobUploadInvalid,
            ChunkError::Length => Code::SizeInvalid,
        };
        ApiError::bad(code, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Errors {
            errors: [Entry; 1],
        }
        #[derive(Serialize)]
        struct Entry {
            code: Code,
            message: String,
        }
        let entry = Entry { code: self.code, message: self.message };
        let body = serde_json::to_vec(&Errors { errors: [entry] }).expect("strings always encode");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().extend(self.headers);
        response
    }
}

/// After how many seconds a client may ask again for what others are in the way of.
const RETRY_AFTER_SECONDS: &str = "5";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn body_has_the_form_of_the_specification() {
        let error = ApiError::new(404, Code::ManifestBlobUnknown, "say \"what\"");
        let response = error.into_response();
        assert_eq!(response.status(), 404);
        let body = axum::body::to_bytes(response.into_body(), 1000).await.expect("in memory");
        assert_eq!(
            String::from_utf8_lossy(&body),
            r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"say \"what\""}]}"#
        );
    }
}
