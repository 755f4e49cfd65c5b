//! The laws of parsing, with input of three kinds: kept from fuzzing, made to look right, and random.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]
#![allow(clippy::disallowed_methods, reason = "a test reads what fuzzing kept")]

mod laws;

use std::{fmt::Write as _, fs, path::Path};

use proptest::{collection::vec, prelude::*, sample::select};

use self::laws::LAWS;

/// What fuzzing found to be different from all the rest, and whatever once failed.
#[test]
fn kept_input() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, law) in LAWS {
        let files: Vec<_> =
            fs::read_dir(corpus.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty(), "fuzz/corpus/{name} is empty");
        for file in files {
            law(&fs::read(&file).unwrap());
        }
    }
}

/// What a stranger may put where a piece of text belongs.
fn piece() -> impl Strategy<Value = String> {
    let odd = [
        "", ".", "..", "%2e", "%2F", "%00", "%", "//", "v2", "\\", "\0", "ü", "_", "-", ":", "*", "+1", "-0",
    ];
    let usual = ["a", "a/b", "tags", "list", "blobs", "uploads", "manifests", "referrers", "pull", "push"];
    let digest = format!("sha256:{}", "ab".repeat(32));
    prop_oneof![
        3 => select(odd.map(str::to_owned).to_vec()),
        5 => select(usual.map(str::to_owned).to_vec()),
        2 => Just(digest),
        1 => any::<u64>().prop_map(|number| number.to_string()),
        1 => "[a-z0-9._-]{1,20}",
        1 => any::<String>(),
    ]
}

fn joined(separators: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    vec((piece(), select(separators)), 0..most).prop_map(|parts| {
        parts.into_iter().fold(String::new(), |text, (piece, separator)| text + &piece + separator)
    })
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0..100_u64, Just(u64::MAX), Just(u64::MAX - 1), Just(1 << 63)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn paths(rest in joined(&["/"], 8), prefix in select(vec!["/v2/", "/v2", "/", "", "/V2/", "/v2/%2e%2e/"])) {
        laws::path((prefix.to_owned() + &rest).as_bytes());
        laws::path((prefix.to_owned() + rest.trim_end_matches('/')).as_bytes());
    }

    #[test]
    fn names_as_long_as_can_be(parts in 1..200_usize, part in "[a-z0-9]{1,12}", end in "[a-zA-Z0-9._]{0,130}") {
        let name = vec![part.as_str(); parts].join("/");
        laws::path(format!("/v2/{name}/manifests/{end}").as_bytes());
    }

    #[test]
    fn ranges(size in number(), specs in vec((number(), number(), 0..6_u8), 0..40), odd in piece()) {
        let mut header = "bytes=".to_owned();
        for (first, last, form) in specs {
            let _ = match form {
                0 => write!(header, "{first}-,"),
                1 => write!(header, "-{last},"),
                2 => write!(header, "{first}-{first}, "),
                3 if last == 7 => write!(header, "{odd},"),
                _ => write!(header, "{}-{},", first.min(last), first.max(last)),
            };
        }
        laws::range(format!("{size}\n{header}").as_bytes());
    }

    #[test]
    fn thousands_of_ranges(count in 900..5000_usize, step in 0..3_u64, size in 0..10_000_u64) {
        let specs: Vec<String> = (0..count as u64).map(|n| format!("{}-{}", n * step, n * step + 1)).collect();
        laws::range(format!("{size}\nbytes={}", specs.join(",")).as_bytes());
    }

    #[test]
    fn uploads(length in number(), first in number(), last in number(), id in piece(), odd in piece()) {
        laws::upload(format!("{length}\n{first}-{last}\n{id}").as_bytes());
        laws::upload(format!("\n{first}-{last}\n{id}").as_bytes());
        laws::upload(format!("{length}\nbytes {first}-{last}/{odd}\n{odd}{id}").as_bytes());
        laws::upload(format!("{odd}\n{first}{odd}{last}\n").as_bytes());
    }

    #[test]
    fn scopes(text in joined(&[":", ",", " ", "\n", "(", ")"], 12), kind in select(vec!["repository:", "registry:", ""])) {
        laws::scope(text.as_bytes());
        laws::scope(format!("{kind}{text}").as_bytes());
        laws::scope(format!("{kind}a/b:pull,push {kind}{text}:* registry:catalog:*").as_bytes());
    }

    #[test]
    fn anything(bytes in vec(any::<u8>(), 0..300)) {
        for (_, law) in LAWS {
            law(&bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn manifests(document in manifest(), content_type in media_type(), cut in any::<prop::sample::Index>()) {
        laws::manifest(format!("\n{document}").as_bytes());
        let whole = format!("{content_type}\n{document}");
        laws::manifest(whole.as_bytes());
        laws::manifest(&whole.as_bytes()[..cut.index(whole.len())]);
    }

    /// One byte of an index that was valid is another, or is missing.
    #[test]
    fn indexes(document in manifest(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let Ok(parsed) = waystation_oci::manifest::parse(document.as_bytes(), None) else { return Ok(()) };
        let (digest, hash) = (waystation_proto::Digest::Sha256([1; 32]), waystation_proto::Hash([2; 32]));
        let sizes: Vec<_> = parsed.edges().iter().map(|edge| (edge.digest, edge.size)).collect();
        let size_of = |wanted| sizes.iter().find(|(digest, _)| *digest == wanted).map(|(_, size)| *size);
        let Ok(index) = parsed.into_index(digest, hash, false, |wanted| Some((hash, size_of(*wanted)?))) else {
            return Ok(());
        };
        let mut bytes = index.encode();
        laws::index(&bytes);
        let at = at.index(bytes.len());
        laws::index(&bytes[..at]);
        bytes[at] = byte;
        laws::index(&bytes);
    }
}

fn media_type() -> impl Strategy<Value = String> {
    let known = [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.artifact.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/json; charset=utf-8",
        "text/plain",
        "",
    ];
    prop_oneof![8 => select(known.map(str::to_owned).to_vec()), 1 => "[ -~]{0,300}", 1 => "[a-zü\t]{0,20}"]
}

/// JSON text of a descriptor: mostly right, sometimes absurd.
fn descriptor() -> impl Strategy<Value = String> {
    let size = prop_oneof![
        6 => (0..5_u64).prop_map(|size| size.to_string()),
        2 => select(["-1", "1e309", "1e3", "9223372036854775808", "18446744073709551616", "\"1\"", "null"].map(str::to_owned).to_vec()),
    ];
    let digest = prop_oneof![8 => (0..4_u8).prop_map(|n| format!("sha256:{}", format!("{n:02x}").repeat(32))), 1 => piece()];
    let platform = select(vec![
        "null",
        "{}",
        "{\"os\":\"linux\",\"architecture\":\"arm\",\"variant\":\"v7\"}",
        "{\"os\":\"a/b\"}",
    ]);
    (media_type(), digest, size, platform).prop_map(|(media_type, digest, size, platform)| {
        let (media_type, digest) = (json(&media_type), json(&digest));
        format!("{{\"mediaType\":{media_type},\"digest\":{digest},\"size\":{size},\"platform\":{platform}}}")
    })
}

/// JSON text of something like a manifest; keys may come twice.
fn manifest() -> impl Strategy<Value = String> {
    let list = || vec(descriptor(), 0..4).prop_map(|all| format!("[{}]", all.join(",")));
    let field = prop_oneof![
        4 => descriptor().prop_map(|one| format!("\"config\":{one}")),
        4 => list().prop_map(|all| format!("\"layers\":{all}")),
        2 => list().prop_map(|all| format!("\"manifests\":{all}")),
        1 => list().prop_map(|all| format!("\"blobs\":{all}")),
        2 => descriptor().prop_map(|one| format!("\"subject\":{one}")),
        2 => media_type().prop_map(|text| format!("\"mediaType\":{}", json(&text))),
        1 => media_type().prop_map(|text| format!("\"artifactType\":{}", json(&text))),
        1 => piece().prop_map(|text| format!("\"annotations\":{{\"org.opencontainers.image.title\":{}}}", json(&text.repeat(99)))),
        1 => (1..400_usize).prop_map(|deep| format!("\"x\":{}{}", "[".repeat(deep), "]".repeat(deep))),
        1 => Just("\"y\":1e309".to_owned()),
    ];
    vec(field, 1..6).prop_map(|fields| format!("{{\"schemaVersion\":2,{}}}", fields.join(",")))
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Text that looks like the values of a chart, or nearly.
fn values() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        4 => (0..6_usize, piece(), piece())
            .prop_map(|(deep, key, value)| format!("{}{key}: {value}", "  ".repeat(deep))),
        2 => (0..6_usize, piece()).prop_map(|(deep, name)| format!("{}image: {name}:v1", "  ".repeat(deep))),
        1 => piece().prop_map(|name| format!("x: {{ repository: {name}, tag: \"\", registry: [] }}")),
        1 => Just("a: &a [*a, *a]".to_owned()),
        1 => piece(),
    ];
    vec(line, 0..20).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn values_of_a_chart(text in values(), version in piece()) {
        let mut images = waystation_oci::chart::Images::default();
        images.read_values(&text, Some(&version));
        images.read_config(format!("{{\"annotations\":{{\"artifacthub.io/images\":{}}}}}", json(&text)).as_bytes());
        for (name, _) in images.found() {
            prop_assert!(!name.repositories().is_empty() && (name.tag.is_some() || name.digest.is_some()));
        }
    }
}
