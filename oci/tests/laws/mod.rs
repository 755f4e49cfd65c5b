//! What holds of whatever a stranger sends, a function for each thing that is parsed. Called with chosen and
//! random input by the tests beside it, with input that is searched for by the fuzz targets in `fuzz/`.
#![allow(dead_code, reason = "a fuzz target calls one of them")]

use std::collections::BTreeSet;

use waystation_oci::{
    manifest,
    path::Route,
    range::{RangeError, Wanted},
    scope::{Action, Scopes},
    upload::{self, Chunk},
};
use waystation_proto::{
    Hash,
    index::{ArtifactIndex, EdgeKind},
};

/// A law: panics where input breaks it.
pub type Law = fn(&[u8]);

/// By the name of their fuzz target.
pub const LAWS: [(&str, Law); 6] = [
    ("path", path),
    ("range", range),
    ("upload", upload),
    ("scope", scope),
    ("manifest", manifest),
    ("index", index),
];

/// A path means one thing: written out as the specification writes it, it means the same again. Nothing that could
/// lead out of a directory is left in it, and a complaint is not longer than what it is about.
pub fn path(input: &[u8]) {
    let Ok(raw) = std::str::from_utf8(input) else { return };
    let route = match Route::parse(raw) {
        Ok(route) => route,
        Err(error) => {
            return assert!(error.to_string().len() <= 16 * 1024, "{} bytes", error.to_string().len());
        }
    };
    let plain = match &route {
        Route::Base => "/v2/".to_owned(),
        Route::Catalog => "/v2/_catalog".to_owned(),
        Route::Tags(name) => format!("/v2/{name}/tags/list"),
        Route::Manifest(name, reference) => format!("/v2/{name}/manifests/{reference}"),
        Route::Blob(name, digest) => format!("/v2/{name}/blobs/{digest}"),
        Route::Uploads(name) => format!("/v2/{name}/blobs/uploads/"),
        Route::Upload(name, id) => format!("/v2/{name}/blobs/uploads/{id}"),
        Route::Referrers(name, subject) => format!("/v2/{name}/referrers/{subject}"),
    };
    assert_eq!(Route::parse(&plain), Ok(route.clone()), "{raw:?} was read as {plain}");
    assert!(plain.split('/').all(|part| part != "." && part != ".."), "{raw:?} was read as {plain}");
    assert!(plain.bytes().all(|byte| byte.is_ascii_graphic()), "{raw:?} was read as {plain:?}");
    if let Some(name) = route.repository() {
        assert_eq!(route.clone().renamed(name.clone()), route);
    }
}

/// First line: the size of the body. Then the header. What is answered exists, and is not much more than the body.
pub fn range(input: &[u8]) {
    let Some([size, header]) = lines(input) else { return };
    let size = size.trim().parse().unwrap_or(0);
    match Wanted::of(Some(header), size) {
        Ok(Wanted::Whole) | Err(RangeError::TooMany) => {}
        Err(RangeError::Unsatisfiable { size: told }) => assert_eq!(told, size),
        Ok(Wanted::Parts(parts)) => {
            assert!((1..=1000).contains(&parts.len()), "{} parts", parts.len());
            for part in &parts {
                assert!(part.start < part.end && part.end <= size, "{part:?} of {size}");
                let told = part.content_range(size);
                assert_eq!(told, format!("bytes {}-{}/{size}", part.start, part.start + part.length() - 1));
            }
            let total: u128 = parts.iter().map(|part| u128::from(part.length())).sum();
            assert!(total <= 2 * u128::from(size), "{total} bytes of {size}");
        }
    }
}

/// First line: the `Content-Length`, if any. Then the `Content-Range`, then an id. A chunk has bounds and a length
/// that agree; an id could be the name of a file.
pub fn upload(input: &[u8]) {
    let Some([length, header, id]) = lines(input) else { return };
    let length: Option<u64> = length.trim().parse().ok();
    if let Ok(chunk) = Chunk::parse(header, length) {
        assert!(chunk.first() < chunk.end(), "{chunk:?}");
        let bytes = chunk.end() - chunk.first();
        assert!(length.is_none_or(|length| length == bytes), "{chunk:?} of {length:?}");
        let plain = format!("{}-{}", chunk.first(), chunk.end() - 1);
        assert_eq!(Chunk::parse(&plain, Some(bytes)), Ok(chunk));
    }
    if let Some(id) = upload::id(id) {
        assert!(!id.is_empty() && id.len() <= 64 && !id.contains(['/', '.', '\\', '\0']), "{id:?}");
    }
}

/// A scope in each line. What is read of them is in them, is bounded, and survives being written down.
pub fn scope(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let scopes = Scopes::parse(text.split('\n'));
    let written = scopes.text();
    assert_eq!(Scopes::parse([written.as_str()].into_iter()), scopes, "{written:?}");
    let names: BTreeSet<_> = scopes.repositories().cloned().collect();
    assert_eq!(names.len(), scopes.repositories().count(), "each repository once: {written:?}");
    assert!(names.len() <= 32, "{} repositories", names.len());
    assert!(!scopes.cover_catalog() || text.contains("registry"), "{text:?}");
    for name in &names {
        assert!(text.contains(&format!(":{name}:")), "{name} is not in {text:?}");
        for action in Action::ALL.into_iter().filter(|action| scopes.cover(*action, name)) {
            let said = [action.word(), "admin", "*"].iter().any(|word| text.contains(word));
            assert!(said, "{action:?} of {name} is not in {text:?}");
        }
    }
    let pull = scopes.clone().filter(|action, _| action == Action::Pull);
    assert!(names.iter().all(|name| !pull.cover(Action::Push, name)), "{written:?}");
    assert_eq!(scopes.filter(|_, _| false).repositories().count(), 0);
}

/// First line: the `Content-Type`, if any. Then the manifest. What is read of one fits an artifact index, and is what
/// any reader of JSON would find in it.
pub fn manifest(input: &[u8]) {
    let split = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (first, rest) = input.split_at(split);
    let bytes = rest.get(1..).unwrap_or_default();
    let content_type = std::str::from_utf8(first).ok().filter(|text| !text.is_empty());
    let parsed = match manifest::parse(bytes, content_type) {
        Ok(parsed) => parsed,
        Err(error) => return assert!(error.to_string().len() <= 4096, "{} bytes", error.to_string().len()),
    };
    let plain = |text: &str| text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    assert!(plain(parsed.media_type()), "{:?}", parsed.media_type());
    assert!(parsed.artifact_type().is_none_or(plain), "{:?}", parsed.artifact_type());
    assert!(parsed.edges().len() <= ArtifactIndex::MAX_EDGES);
    for edge in parsed.edges() {
        assert!(edge.hash.is_none() && plain(&edge.media_type), "{edge:?}");
        let child = matches!(edge.kind, EdgeKind::Child | EdgeKind::Subject);
        assert!(!parsed.is_list() || child, "a list has no {edge:?}");
    }
    // Where a general reader takes it: both see the same.
    if let Ok(document) = serde_json::from_slice::<serde_json::Value>(bytes) {
        let config = parsed.edges().iter().find(|edge| edge.kind == EdgeKind::Config);
        let digest = config.map(|edge| edge.digest.to_string());
        assert_eq!(document["config"]["digest"].as_str(), digest.as_deref());
        let subject = parsed.subject().map(|digest| digest.to_string());
        assert_eq!(document["subject"]["digest"].as_str(), subject.as_deref());
    }
    let size_of = |parsed: &manifest::Parsed, wanted| {
        parsed.edges().iter().find(|edge| edge.digest == wanted).map(|edge| (Hash([7; 32]), edge.size))
    };
    let known = parsed.clone();
    let digest = waystation_proto::Digest::Sha256([9; 32]);
    // The same blob with two sizes is the one thing that can be wrong here.
    let Ok(index) = parsed.into_index(digest, Hash([8; 32]), false, |digest| size_of(&known, *digest)) else {
        return;
    };
    let encoded = index.encode();
    assert!(encoded.len() <= ArtifactIndex::MAX_BYTES || bytes.len() > 4 << 20, "{} bytes", encoded.len());
    if encoded.len() <= ArtifactIndex::MAX_BYTES {
        assert_eq!(ArtifactIndex::decode(&encoded), Ok(index));
    }
}

/// What decodes is what was encoded: there are no two encodings of one index.
pub fn index(input: &[u8]) {
    let Ok(index) = ArtifactIndex::decode(input) else { return };
    assert_eq!(index.encode(), input);
    assert!(index.edges.len() <= ArtifactIndex::MAX_EDGES);
    assert!(index.closure().all(|(edge, hash)| edge.hash == Some(hash)));
}

/// The first lines, without their ends.
fn lines<const N: usize>(input: &[u8]) -> Option<[&str; N]> {
    let mut lines = std::str::from_utf8(input).ok()?.splitn(N, '\n');
    Some(std::array::from_fn(|_| lines.next().unwrap_or_default()))
}
