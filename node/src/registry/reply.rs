//! Answers' headers and plain answers. Values that clients or peers chose are made harmless here.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use waystation_proto::Digest;

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A JSON answer.
pub fn json(content_type: &'static str, value: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// 201 for something that can be read at `location` and has this digest.
pub fn created(location: &str, digest: &Digest) -> Response {
    let mut response = empty(StatusCode::CREATED);
    set(response.headers_mut(), header::LOCATION, location);
    set(response.headers_mut(), CONTENT_DIGEST, &digest.to_string());
    response
}

/// Sets a header; characters that headers must not have become `?`.
pub fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    headers.insert(name, header_value(value));
}

/// A header value; characters that headers must not have become `?`.
pub fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| {
        let plain: String =
            text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
        HeaderValue::from_str(&plain).expect("printable ASCII is always a header value")
    })
}

/// The value of a `Warning` header (distribution-spec, "Warnings"), cut to 1000 characters.
pub fn warning(text: &str) -> String {
    let plain = text.chars().take(1000).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' });
    let quoted: String = plain.map(|c| if matches!(c, '"' | '\\') { '\'' } else { c }).collect();
    format!("299 - \"{quoted}\"")
}

/// A text as it stands in a query.
pub fn escape(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// That an answer may not be what it would be at other times.
pub const WARNING: HeaderName = HeaderName::from_static("warning");
/// The digest of what is answered.
pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// That this is a registry: old clients ask for it.
pub const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// Id of an upload, for old clients.
pub const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
/// That a manifest's subject was understood, so that no fallback tag is needed.
pub const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// Tags that a manifest got.
pub const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
/// By what a list of referrers was filtered.
pub const OCI_FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_in_its_header() {
        assert_eq!(header_value("a\r\nb: c"), "a??b: c");
        assert_eq!(warning("still \"being\" validated\r\n"), "299 - \"still 'being' validated??\"");
        assert!(warning(&"x".repeat(10_000)).len() < 4096);
        assert_eq!(escape("a/b+c&d é"), "a/b%2Bc%26d%20%C3%A9");
    }
}
