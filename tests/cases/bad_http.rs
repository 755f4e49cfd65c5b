//! Bytes that no honest client sends: each is refused or its connection closed, none makes a second request out of a
//! first one's body, nothing is kept, and other clients are served as ever.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{
    image::{Image, MANIFEST_TYPE, descriptor, digest, random_bytes, to_bytes},
    node::{Node, Options},
    registry::Upload,
};

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// What a node may grow by, in bytes, whatever it is sent: the buffers of hundreds of connections, and what an
/// allocator keeps.
const GROWTH_MAX: u64 = 192 << 20;

/// Sends bytes as they are and reads what comes back, to the end of the connection. A server that waits for more learns
/// that there is no more.
fn talk(node: &Node, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(node.ready("listen")).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    // Whoever refuses a head closes without reading the rest.
    let _ = stream.write_all(bytes);
    let (mut answer, mut buffer, mut patience) = (vec![], [0; 64 * 1024], 60);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => {
                let _ = stream.shutdown(Shutdown::Write);
                patience -= 1;
                assert!(patience > 0, "neither answered nor closed: {}", bytes.escape_ascii());
            }
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Status codes of the answers in what came back.
fn statuses(answer: &str) -> Vec<u16> {
    answer.match_indices("HTTP/1.").map(|(at, _)| answer[at + 9..at + 12].parse().unwrap()).collect()
}

#[track_caller]
fn assert_refused(node: &Node, bytes: &[u8]) {
    let found = statuses(&talk(node, bytes));
    let refused = found.iter().all(|status| (400..500).contains(status));
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]);
    assert!(refused && found.len() <= 1, "{found:?} for {shown:?}");
}

fn rss(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

/// Headers, the body before a smuggled request of `n` bytes, and whether the outer request may be answered as a good one.
fn shapes(n: usize) -> Vec<(String, &'static str, bool)> {
    vec![
        (format!("Content-Length: {}\r\nTransfer-Encoding: chunked", n + 5), "0\r\n\r\n", true),
        (format!("Transfer-Encoding: chunked\r\nContent-Length: {}", n + 5), "0\r\n\r\n", true),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked".to_owned(), "0\r\n\r\n", true),
        (format!("Content-Length: 0\r\nContent-Length: {n}"), "", false),
        (format!("Content-Length: {n}\r\nContent-Length: 0"), "", false),
        (format!("Content-Length: 0, {n}"), "", false),
        ("Content-Length: +0".to_owned(), "", false),
        ("Content-Length: -1".to_owned(), "", false),
        ("Content-Length: 0x0".to_owned(), "", false),
        ("Content-Length: 99999999999999999999999".to_owned(), "", false),
        ("Content-Length: ".to_owned(), "", false),
        ("Content-Length : 0".to_owned(), "", false),
        ("Content-Length: 0\r\nTransfer-Encoding:\r\n chunked".to_owned(), "0\r\n\r\n", false),
        ("X-A: b\r\n Content-Length: 0".to_owned(), "", false),
        ("Transfer-Encoding : chunked".to_owned(), "0\r\n\r\n", false),
        ("Transfer-Encoding: identity".to_owned(), "", false),
        ("Transfer-Encoding: chunked, identity".to_owned(), "0\r\n\r\n", false),
        ("Transfer-Encoding: chunked, chunked".to_owned(), "0\r\n\r\n", false),
        ("Transfer-Encoding: gzip, chunked".to_owned(), "0\r\n\r\n", false),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity".to_owned(), "0\r\n\r\n", false),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked".to_owned(), "0\r\n\r\n", false),
        ("Transfer-Encoding: xchunked\r\nContent-Length: 0".to_owned(), "", false),
        ("Transfer-Encoding: \u{b}chunked".to_owned(), "0\r\n\r\n", false),
        ("X-A: b\nTransfer-Encoding: chunked\r\nContent-Length: 5".to_owned(), "0\r\n\r\n", true),
        ("Transfer-Encoding: chunked".to_owned(), "-1\r\n\r\n", false),
        ("Transfer-Encoding: chunked".to_owned(), "fffffffffffffffff\r\n", false),
        ("Transfer-Encoding: chunked".to_owned(), "ffffffffffffffff\r\n", false),
        ("Transfer-Encoding: chunked".to_owned(), "0x0\r\n\r\n", false),
        ("Transfer-Encoding: chunked".to_owned(), "\r\n\r\n", false),
        ("Transfer-Encoding: chunked".to_owned(), "1\r\nab\r\n0\r\n\r\n", false),
        ("Transfer-Encoding: chunked".to_owned(), "0;a=b\r\n\r\n", true),
        ("Transfer-Encoding: chunked".to_owned(), "0;a\n\r\n\r\n", false),
        ("Transfer-Encoding: chunked".to_owned(), "0\n\n", false),
        ("Host: y\r\nContent-Length: 0".to_owned(), "", false),
    ]
}

#[test]
fn no_body_is_taken_for_a_request() {
    let node = Node::start(Options::default());
    let bytes = b"smuggled";
    let smuggled = format!(
        "POST /v2/smuggled/blobs/uploads/?digest={} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\nsmuggled",
        digest(bytes),
        bytes.len()
    );
    let n = smuggled.len();
    for (headers, before, may_pass) in shapes(n) {
        for line in ["POST /v2/app/blobs/uploads/", "GET /v2/"] {
            let request = format!("{line} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n{before}{smuggled}");
            let answer = talk(&node, request.as_bytes());
            let found = statuses(&answer);
            assert!(found.len() <= 1, "{found:?}: a body was answered as a request: {request}");
            // A request that needs no body may be answered before its body is found to be broken.
            let broken_body = headers == "Transfer-Encoding: chunked";
            let good = found.iter().any(|status| *status < 400);
            assert!(!good || may_pass || broken_body, "{found:?} for {request}");
        }
    }
    let old = format!("POST /v2/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}");
    assert_refused(&node, old.as_bytes());
    let long = format!(
        "PATCH /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;{}\r\n",
        "x".repeat(1 << 20)
    );
    assert_refused(&node, long.as_bytes());
    let registry = node.registry();
    registry.head_blob("smuggled", &digest(bytes)).expect(404);
    // The body of a GET is a body.
    let get = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: {n}\r\n\r\n{smuggled}");
    assert_eq!(statuses(&talk(&node, get.as_bytes())), [200]);
    registry.head_blob("smuggled", &digest(bytes)).expect(404);
    // Honest requests in a row are answered in a row.
    let two = "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2);
    assert_eq!(statuses(&talk(&node, two.as_bytes())), [200, 200]);
}

#[test]
fn odd_targets_and_heads_are_refused() {
    let node = Node::start(Options::default());
    let before = rss(&node);
    let targets = [
        "/v2/app\0/tags/list",
        "/v2/app\u{1}/tags/list",
        "/v2/app\u{7f}/tags/list",
        "/v2/app%00/tags/list",
        "/v2/app%0d%0aX-A:b/tags/list",
        "/v2/app%2f..%2f..%2fetc/tags/list",
        "/v2/%2e%2e/tags/list",
        "/v2/../v2/",
        "/v2/./_catalog",
        "/./v2/",
        "//v2/",
        "/v2//",
        "/V2/",
        "/v2/app/manifests/..",
        "/v2/app\\..\\x/tags/list",
        "http://evil.example/v2/../v2/",
        "http://evil.example/v2/app/manifests/%2e%2e",
        "evil.example:80",
        "*",
        "",
        "v2/",
        "/v2/ HTTP/1.1 x",
    ];
    for target in targets {
        assert_refused(&node, format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    }
    for line in
        ["CONNECT evil.example:80", "OPTIONS *", "get /v2/", "TRACE /v2/", "GE\0T /v2/", "\r\n\r\n\0", "{}"]
    {
        assert_refused(&node, format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    }
    for version in ["HTTP/9.9", "HTTP/1.1.1", "http/1.1", "HTTP/0.9", ""] {
        assert_refused(&node, format!("GET /v2/ {version}\r\nHost: x\r\n\r\n").as_bytes());
    }
    for length in [3000, 60_000, 100 << 10, 1 << 20] {
        let path = format!("/v2/{}/tags/list", "a/".repeat(length / 2));
        assert_refused(&node, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    }
    let many: String = (0..5000).map(|n| format!("X-{n}: y\r\n")).collect();
    assert_refused(&node, format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes());
    let long = "y".repeat(1 << 20);
    assert_refused(&node, format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nX-A: {long}\r\n\r\n").as_bytes());
    for value in ["a\0b", "a\u{1}b", "a\rb"] {
        assert_refused(&node, format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nX-A: {value}\r\n\r\n").as_bytes());
    }
    // A proxy's form of a target names the same thing.
    let absolute = "GET http://evil.example/v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(statuses(&talk(&node, absolute.as_bytes())), [200]);
    assert!(rss(&node) < before + GROWTH_MAX, "from {before} to {} bytes", rss(&node));
}

#[test]
fn slow_clients_keep_nobody_else_from_being_served() {
    let node = Node::start(Options::default());
    let before = rss(&node);
    let upload = digest(b"never whole");
    let heads = [
        "GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Slow: ".to_owned(),
        format!(
            "POST /v2/slow/blobs/uploads/?digest={upload} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        ),
        "PUT /v2/slow/manifests/v1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n"
            .to_owned(),
    ];
    let mut slow: Vec<TcpStream> = (0..400)
        .map(|n| {
            let mut stream = TcpStream::connect(node.ready("listen")).unwrap();
            stream.write_all(heads[n % heads.len()].as_bytes()).unwrap();
            stream
        })
        .collect();
    let registry = node.registry();
    for round in 0..4 {
        for stream in &mut slow {
            stream.write_all(b"a").unwrap();
        }
        let image = Image::random(round, &[200_000]);
        registry.push("good", &format!("v{round}"), &image);
        registry.assert_has("good", &format!("v{round}"), &image);
    }
    assert!(rss(&node) < before + GROWTH_MAX, "from {before} to {} bytes", rss(&node));
    drop(slow);
    registry.head_blob("slow", &upload).expect(404);
    registry.manifest("slow", "v1").expect(404);
    assert_eq!(node.status()["blobs"].as_u64(), Some(4 * 3), "nothing is kept but what was pushed whole");
}

#[test]
fn a_chunk_that_ends_beyond_all_numbers_is_refused() {
    let node = Node::start(Options::default());
    let registry = node.registry();
    let session = registry.http.request("POST", "/v2/app/blobs/uploads/").send().expect(202).location();
    let session = registry.http.request("PATCH", &session).body(b"a").send().expect(202).location();
    for range in
        ["1-18446744073709551615", "1-99999999999999999999999", "18446744073709551615-18446744073709551615"]
    {
        let patch =
            registry.http.request("PATCH", &session).header("Content-Range", range).chunked(b"b").send();
        patch.expect_error(400, "BLOB_UPLOAD_INVALID");
    }
    assert_eq!(registry.http.get(&session).send().expect(204).header("range"), Some("0-0"));
}

#[test]
fn manifests_that_want_too_much_are_refused() {
    let node = Node::start(Options::default());
    let registry = node.registry();
    let image = Image::random(1, &[1000]);
    registry.push("app", "v1", &image);
    let blobs = node.status()["blobs"].as_u64();
    let before = rss(&node);
    let text = String::from_utf8(image.manifest.clone()).unwrap();
    let with = |field: &str| text.replacen('{', &format!("{{{field},"), 1).into_bytes();
    let push = |bytes: &[u8]| registry.push_manifest("app", "bad", bytes);
    let invalid = |bytes: &[u8]| push(bytes).expect_error(400, "MANIFEST_INVALID");
    let nested = |open: &str, close: &str| {
        with(&format!("\"subject\":{}1{}", open.repeat(10_000), close.repeat(10_000)))
    };
    invalid(&nested("[", "]"));
    invalid(&nested("{\"subject\":", "}"));
    invalid(&with("\"config\":{}"));
    invalid(&with("\"layers\":[]"));
    invalid(&with("\"manifests\":[]"));
    invalid(&with("\"manifests\":[],\"manifests\":[]"));
    invalid(&with("\"schemaVersion\":2"));
    invalid(&with(&format!("\"artifactType\":\"{}\"", "a/".repeat(5000))));
    invalid(&with(&format!(
        "\"subject\":{{\"mediaType\":\"{}\",\"digest\":\"{}\",\"size\":1}}",
        "a".repeat(1 << 20),
        image.digest()
    )));
    let mut broken = with("\"artifactType\":\"X\"");
    let at = broken.iter().position(|byte| *byte == b'X').unwrap();
    broken[at] = 0xff;
    invalid(&broken);
    for size in ["9223372036854775808", "-1", "1e309", "1e2", "18446744073709551616", "1.5", "\"1\"", "null"]
    {
        let absurd = text.replacen("\"size\":1000", &format!("\"size\":{size}"), 1);
        assert_ne!(absurd, text);
        let answer = push(absurd.as_bytes());
        assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(&answer.body));
    }
    push(&with(&format!("\"annotations\":{{\"a\":\"{}\"}}", "b".repeat(4 << 20)))).expect(413);
    // The smallest descriptors there can be, as many as fit, and a million.
    let config = descriptor("a/b", &image.config);
    let layers = |one: &str, n: usize| {
        let text =
            format!("{{\"schemaVersion\":2,\"config\":{config},\"layers\":[{}", format!("{one},").repeat(n));
        (text.trim_end_matches(',').to_owned() + "]}").into_bytes()
    };
    push(&layers("{\"digest\":\"\",\"size\":0}", 1_000_000)).expect(413);
    invalid(&layers("{\"digest\":\"\",\"size\":0}", 180_000));
    push(&layers("{}", 1_000_000)).expect_error(400, "MANIFEST_INVALID");
    // A cycle cannot be, as digests go; an index that says it names itself does not get its way.
    let own = digest(b"own");
    let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [
        {"mediaType": INDEX_TYPE, "digest": own, "size": 1}]});
    let put = |name: &str, index: &Value| {
        let request = registry.http.request("PUT", &format!("/v2/app/manifests/{name}"));
        request.header("Content-Type", INDEX_TYPE).body(&to_bytes(index)).send()
    };
    put(&own, &index).expect_error(400, "DIGEST_INVALID");
    registry.http.get(&format!("/v2/app/manifests/{own}")).send().expect_error(404, "MANIFEST_UNKNOWN");
    registry.manifest("app", "bad").expect_error(404, "MANIFEST_UNKNOWN");
    assert_eq!(node.status()["blobs"].as_u64(), blobs, "nothing of it is kept");
    assert!(rss(&node) < before + GROWTH_MAX, "from {before} to {} bytes", rss(&node));
    registry.assert_has("app", "v1", &image);
}

#[test]
fn what_is_odd_but_allowed_does_no_harm() {
    let node = Node::start(Options::default());
    let registry = node.registry();
    let image = Image::random(2, &[1000]);
    registry.push("app", "v1", &image);
    // Deep down in what nobody here reads; a subject makes others read all of it.
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let subject = json!({"mediaType": MANIFEST_TYPE, "digest": image.digest(), "size": image.manifest.len()});
    let text = String::from_utf8(image.manifest.clone()).unwrap();
    let odd = text.replacen('{', &format!("{{\"x\":{deep},\"y\":1e309,\"subject\":{subject},"), 1);
    registry.push_manifest("app", "odd", odd.as_bytes()).expect(201);
    assert_eq!(registry.manifest("app", "odd").expect(200).body, odd.as_bytes());
    let referrers =
        registry.http.get(&format!("/v2/app/referrers/{}", image.digest())).send().expect(200).json();
    assert_eq!(referrers["manifests"][0]["digest"], digest(odd.as_bytes()));
    // An index of an index of …, each naming the one before and all of them the first.
    let mut last = (image.digest(), image.manifest.len());
    for n in 0..50 {
        let children = json!([{"mediaType": INDEX_TYPE, "digest": last.0, "size": last.1}]);
        let index = to_bytes(&json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": children}));
        let target = format!("/v2/app/manifests/nest{n}");
        registry
            .http
            .request("PUT", &target)
            .header("Content-Type", INDEX_TYPE)
            .body(&index)
            .send()
            .expect(201);
        last = (digest(&index), index.len());
    }
    registry.http.get(&format!("/v2/app/manifests/{}", last.0)).send().expect(200);
    // Ranges that overlap, and thousands of them.
    let blob = random_bytes(3, 100_000);
    registry.push_blob(Upload::Put, "app", &blob).expect(201);
    let ranged = |range: &str| {
        registry.http.get(&format!("/v2/app/blobs/{}", digest(&blob))).header("Range", range).send()
    };
    assert_eq!(ranged(&format!("bytes={}", "0-,".repeat(900))).expect(200).body, blob);
    assert_eq!(ranged("bytes=0-0,0-0").expect(206).body.windows(2).filter(|pair| pair == b"\n\r").count(), 2);
    let many: Vec<String> = (0..3000).map(|n| format!("{n}-{n}")).collect();
    ranged(&format!("bytes={}", many.join(","))).expect(400);
    ranged("bytes=18446744073709551615-").expect(416);
}
