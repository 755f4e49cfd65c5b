//! Upstreams that lie about digest, length, type or place, that stall, never end or lead in circles: clients get what
//! the digest names, an error, or an answer that is cut. Nothing else is kept, and the node goes on.

use std::{
    io::{self, Write as _},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{
    http::Response,
    image::{Image, MANIFEST_TYPE, digest},
    node::{Node, Options, temp_dir},
    upstream::{Request, Told, Upstream},
    wait::until_true,
};

/// Longest that a client is kept waiting for a lie, on a loaded machine. Upstreams here have a second to say something.
const PATIENCE: Duration = Duration::from_secs(50);
/// What the node may grow by, in bytes, whatever it is sent.
const GROWTH_MAX: u64 = 192 << 20;

type Out<'a> = &'a mut dyn io::Write;
/// A lie has a name, and is told with what there is to lie about.
type Lie = (&'static str, fn(&Scene, &Request, Out<'_>) -> Told);

/// What there is to lie about.
struct Scene {
    image: Image,
    /// Another registry, which is honest.
    elsewhere: String,
    /// The node that asks, once it runs.
    node: OnceLock<String>,
}

/// One node and an upstream for each lie.
struct Liars {
    node: Node,
    upstreams: Vec<(&'static str, Upstream, Arc<Scene>)>,
    elsewhere: Upstream,
    _config: TempDir,
}

impl Liars {
    fn start(seed: u64, lies: &[Lie], more: &str) -> Self {
        let (elsewhere, config) = (Upstream::start(), temp_dir("config"));
        let mut text = String::new();
        let mut upstreams = vec![];
        for (n, (name, tell)) in lies.iter().enumerate() {
            let image = Image::random(seed * 100 + n as u64, &[300_000]);
            let upstream = Upstream::start();
            upstream.add("app", "v1", &image);
            elsewhere.add("app", &format!("v{n}"), &image);
            let scene = Arc::new(Scene { image, elsewhere: elsewhere.url(), node: OnceLock::new() });
            let (told, tell) = (scene.clone(), *tell);
            upstream.lie(move |request, out| tell(&told, request, out));
            text.push_str(
                &upstream.config(&host(n), &format!("read-timeout = \"1s\"\nrevalidate = \"0s\"\n{more}")),
            );
            upstreams.push((*name, upstream, scene));
        }
        let file = config.path().join("node.toml");
        std::fs::write(&file, text).unwrap();
        let extra = vec!["--config".to_owned(), file.to_str().unwrap().to_owned()];
        let node = Node::start(Options { extra, ..Options::default() });
        for (_, _, scene) in &upstreams {
            scene.node.set(format!("http://{}", node.ready("listen"))).unwrap();
        }
        Liars { node, upstreams, elsewhere, _config: config }
    }

    /// Pulls everything of every upstream, then again with all of them away. How many things came whole.
    fn pull_all(&self) -> usize {
        let before = rss(&self.node);
        let registry = self.node.registry();
        let mut came = vec![];
        for (n, (name, _, scene)) in self.upstreams.iter().enumerate() {
            let layer = &scene.image.layers[0];
            let wanted = [
                (format!("/v2/{}/app/manifests/v1", host(n)), &scene.image.manifest),
                (format!("/v2/{}/app/manifests/{}", host(n), scene.image.digest()), &scene.image.manifest),
                (format!("/v2/{}/app/blobs/{}", host(n), digest(layer)), layer),
            ];
            for (target, bytes) in wanted {
                let start = Instant::now();
                let answer = registry.http.get(&target).header("Accept", MANIFEST_TYPE).try_send();
                assert!(start.elapsed() < PATIENCE, "{name}: {target} took {:?}", start.elapsed());
                if is_right(name, &target, answer, bytes) {
                    came.push(target);
                }
            }
        }
        assert!(rss(&self.node) < before + GROWTH_MAX, "from {before} to {} bytes", rss(&self.node));
        for (_, upstream, _) in &self.upstreams {
            upstream.set(|faults| faults.down = true);
        }
        for (n, (name, _, scene)) in self.upstreams.iter().enumerate() {
            let layer = &scene.image.layers[0];
            let target = format!("/v2/{}/app/blobs/{}", host(n), digest(layer));
            let whole = came.contains(&target);
            let get = || registry.http.get(&target).send();
            let head = || registry.http.head(&target).send().status;
            if whole {
                assert_eq!(digest(&get().expect(200).body), digest(layer), "{name}: kept wrong");
                assert_eq!(head(), 200, "{name}: {target}");
                continue;
            }
            // What a true manifest names is promised until the upstream is known to be away.
            until_true("what never came is not promised", || {
                assert_ne!(get().status, 200, "{name}: {target} is served, but never came");
                head() == 404
            });
        }
        let kept = self.node.status()["blobs"].as_u64().unwrap();
        // Of honest answers, the config comes by itself; a manifest is asked for in two ways.
        assert!(kept <= (came.len() + self.upstreams.len()) as u64, "{kept} blobs are kept, {came:?} came");
        let own = Image::random(99, &[1000]);
        registry.push("own", "v1", &own);
        registry.assert_has("own", "v1", &own);
        came.len()
    }
}

/// Whether it is what was asked for; otherwise it must be the specification's error, or cut.
fn is_right(name: &str, target: &str, answer: io::Result<Response>, bytes: &[u8]) -> bool {
    let Ok(answer) = answer else { return false };
    if answer.status == 200 {
        assert_eq!(digest(&answer.body), digest(bytes), "{name}: {target} was served wrong");
        let wanted = if target.contains("/manifests/") { MANIFEST_TYPE } else { "application/octet-stream" };
        assert_eq!(answer.header("content-type"), Some(wanted), "{name}: {target}");
        return true;
    }
    assert!((400..600).contains(&answer.status), "{name}: {target} was answered with {}", answer.status);
    assert!(answer.json()["errors"][0]["code"].is_string(), "{name}: {target}: {}", answer.json());
    false
}

fn host(n: usize) -> String {
    format!("r{n}.example")
}

fn rss(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

fn say(out: Out<'_>, status: u16, headers: &str, body: &[u8]) -> Told {
    write!(out, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n", body.len())?;
    out.write_all(body)?;
    Ok(true)
}

fn redirect(out: Out<'_>, to: &str) -> Told {
    say(out, 307, &format!("Location: {to}\r\n"), b"")
}

/// The layer, from a byte on.
fn layer<'a>(scene: &'a Scene, request: &Request) -> Option<(&'a [u8], usize)> {
    let layer = &scene.image.layers[0];
    let from = request
        .headers
        .get("range")
        .and_then(|range| range.strip_prefix("bytes=")?.trim_end_matches('-').parse().ok());
    request.path.contains(&digest(layer)).then_some((layer.as_slice(), from.unwrap_or(0)))
}

/// Sends chunks until the other side has had enough.
fn endless(out: Out<'_>, headers: &str) -> Told {
    write!(out, "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n{headers}\r\n")?;
    let chunk = [b' '; 64 * 1024];
    loop {
        write!(out, "{:x}\r\n", chunk.len())?;
        out.write_all(&chunk)?;
        out.write_all(b"\r\n")?;
    }
}

/// Says nothing more until the test's end; the connection stays open.
fn stall(out: Out<'_>) -> Told {
    out.flush()?;
    std::thread::sleep(PATIENCE * 2);
    Ok(true)
}

#[test]
fn redirects_that_lead_nowhere() {
    let lies: &[Lie] = &[
        ("to itself", |_, request, out| redirect(out, &request.path)),
        ("in a circle", |_, request, out| {
            let other = request.path.strip_suffix("?b").map_or(format!("{}?b", request.path), str::to_owned);
            redirect(out, &other)
        }),
        ("on and on", |_, request, out| {
            redirect(out, &format!("{}x", request.path.replace("/v2/", "/v2/x")))
        }),
        ("to the node", |scene, request, out| {
            let node = scene.node.get().ok_or(io::ErrorKind::NotConnected)?;
            redirect(out, &format!("{node}{}", request.path.replace("/v2/", "/v2/r3.example/")))
        }),
        ("to a file", |_, _, out| redirect(out, "file:///etc/passwd")),
        ("with credentials", |scene, request, out| {
            redirect(out, &format!("{}{}", scene.elsewhere.replace("://", "://me:pw@"), request.path))
        }),
        ("to nowhere", |_, _, out| say(out, 307, "", b"")),
        ("to what is no URL", |_, _, out| redirect(out, "http://[::")),
        ("to a very long URL", |_, _, out| redirect(out, &format!("/v2/{}", "a".repeat(100 << 10)))),
        ("to a closed port", |_, _, out| redirect(out, "http://127.0.0.1:1/")),
    ];
    let liars = Liars::start(1, lies, "");
    assert_eq!(liars.pull_all(), 0);
    for (name, upstream, _) in &liars.upstreams {
        let asked = upstream.count("GET", "") + upstream.count("HEAD", "");
        assert!(asked < 100, "{name}: {asked} requests");
    }
}

#[test]
fn who_the_node_is_stays_with_the_host_that_it_is_for() {
    let (secret, config) = (temp_dir("secret"), "username = \"me\"");
    let file = secret.path().join("password");
    std::fs::write(&file, "pw").unwrap();
    let more = format!("{config}\npassword-file = \"{}\"\naccess = \"open\"", file.display());
    let lies: &[Lie] = &[("elsewhere", |scene, request, out| {
        if !request.headers.contains_key("authorization") {
            return say(out, 401, "WWW-Authenticate: Basic realm=\"x\"\r\n", b"");
        }
        let path = request.path.split('?').next().unwrap_or_default().replace("/v1", "/v0");
        redirect(out, &format!("{}{path}", scene.elsewhere))
    })];
    let liars = Liars::start(2, lies, &more);
    assert_eq!(liars.pull_all(), 3, "what is true is taken from anywhere");
    let asked: Vec<Request> =
        ["GET", "HEAD"].iter().flat_map(|method| liars.elsewhere.asked(method, "")).collect();
    assert!(!asked.is_empty());
    for request in asked {
        assert!(!request.headers.contains_key("authorization"), "{request:?}");
        assert!(!request.headers.contains_key("cookie"), "{request:?}");
    }
}

/// Answers to whatever is asked for.
const NO_MANIFESTS: &[Lie] = &[
    ("a page", |_, _, out| say(out, 200, "Content-Type: text/html\r\n", b"<html>log in</html>")),
    ("a page called manifest", |scene, request, out| {
        let told =
            format!("Content-Type: {MANIFEST_TYPE}\r\nDocker-Content-Digest: {}\r\n", scene.image.digest());
        say(out, 200, &told, if request.method == "HEAD" { b"" } else { b"<html>log in</html>" })
    }),
    ("another manifest", |scene, request, out| {
        let other = Image::random(7, &[10]).manifest;
        let told =
            format!("Content-Type: {MANIFEST_TYPE}\r\nDocker-Content-Digest: {}\r\n", scene.image.digest());
        say(out, 200, &told, if request.method == "HEAD" { b"" } else { &other })
    }),
    ("a digest that is none", |_, _, out| say(out, 200, "Docker-Content-Digest: sha256:../../x\r\n", b"{}")),
    ("100 MiB", |_, request, out| {
        write!(
            out,
            "HTTP/1.1 200 X\r\nContent-Type: {MANIFEST_TYPE}\r\nContent-Length: {}\r\n\r\n",
            100 << 20
        )?;
        if request.method != "HEAD" {
            (0..1600).try_for_each(|_| out.write_all(&[b' '; 64 * 1024]))?;
        }
        Ok(true)
    }),
    ("without end", |_, _, out| endless(out, &format!("Content-Type: {MANIFEST_TYPE}\r\n"))),
    ("no answer", |_, _, out| stall(out)),
    ("half a head", |_, _, out| {
        write!(out, "HTTP/1.1 200 X\r\nContent-Le")?;
        stall(out)
    }),
    ("half a manifest", |scene, _, out| {
        let told =
            format!("Content-Type: {MANIFEST_TYPE}\r\nDocker-Content-Digest: {}", scene.image.digest());
        write!(out, "HTTP/1.1 200 X\r\nContent-Length: 500\r\n{told}\r\n\r\n{{")?;
        stall(out)
    }),
    ("later, later", |_, _, out| {
        loop {
            write!(out, "HTTP/1.1 100 Continue\r\n\r\n")?;
            std::thread::sleep(Duration::from_millis(10));
        }
    }),
    ("headers without end", |_, _, out| {
        write!(out, "HTTP/1.1 200 X\r\n")?;
        loop {
            write!(out, "X-A: {}\r\n", "b".repeat(1000))?;
        }
    }),
    ("two lengths", |_, _, out| {
        write!(out, "HTTP/1.1 200 X\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}")?;
        Ok(true)
    }),
    ("no HTTP", |_, _, out| {
        out.write_all(b"\0\0\0\0SSH-2.0-x\r\n\r\n")?;
        Err(io::ErrorKind::ConnectionReset.into())
    }),
    ("an error without end", |_, _, out| {
        write!(out, "HTTP/1.1 404 X\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            write!(out, "5\r\nerror\r\n")?;
        }
    }),
    ("nothing, well said", |_, _, out| say(out, 204, "", b"")),
    ("nothing at all", |_, _, out| say(out, 200, "", b"")),
    ("a part", |_, _, out| say(out, 206, "Content-Range: bytes 0-1/2\r\n", b"{}")),
];

#[test]
fn manifests_that_are_none() {
    assert_eq!(Liars::start(3, NO_MANIFESTS, "").pull_all(), 0);
}

#[test]
fn manifests_of_another_type_are_what_they_say_themselves() {
    let lies: &[Lie] = &[("another type", |scene, request, out| {
        if !request.path.contains("/manifests/") {
            return Ok(false);
        }
        let told = format!(
            "Content-Type: application/vnd.oci.image.index.v1+json\r\nDocker-Content-Digest: {}\r\n",
            scene.image.digest()
        );
        if request.method == "HEAD" {
            write!(out, "HTTP/1.1 200 X\r\nContent-Length: {}\r\n{told}\r\n", scene.image.manifest.len())?;
            return Ok(true);
        }
        say(out, 200, &told, &scene.image.manifest)
    })];
    // What is served has its own type, which is checked; that it is refused would be right, too.
    Liars::start(4, lies, "").pull_all();
}

/// Answers to who asks for the layer; the rest is true.
const WRONG_LAYERS: &[Lie] = &[
    ("without end", |scene, request, out| match layer(scene, request) {
        Some(_) => endless(out, ""),
        None => Ok(false),
    }),
    ("far too long", |scene, request, out| match layer(scene, request) {
        Some((bytes, _)) => {
            write!(out, "HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", 1_u64 << 50)?;
            out.write_all(bytes)?;
            Ok(true)
        }
        None => Ok(false),
    }),
    ("compressed", |scene, request, out| match layer(scene, request) {
        Some((bytes, _)) => {
            let mut encoder = GzEncoder::new(vec![], Compression::fast());
            encoder.write_all(bytes)?;
            say(out, 200, "Content-Encoding: gzip\r\n", &encoder.finish()?)
        }
        None => Ok(false),
    }),
    ("stalls", |scene, request, out| match layer(scene, request) {
        Some((bytes, _)) => {
            write!(out, "HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", bytes.len())?;
            out.write_all(&bytes[..100])?;
            stall(out)
        }
        None => Ok(false),
    }),
    ("goes on elsewhere", |scene, request, out| match layer(scene, request) {
        Some((bytes, 0)) => {
            write!(out, "HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", bytes.len())?;
            out.write_all(&bytes[..100_000])?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Some((bytes, from)) => {
            let range = format!("Content-Range: bytes {}-{}/{}\r\n", from + 10, bytes.len() - 1, bytes.len());
            say(out, 206, &range, &bytes[from + 10..])
        }
        None => Ok(false),
    }),
    ("goes on with something else", |scene, request, out| match layer(scene, request) {
        Some((bytes, 0)) => {
            write!(out, "HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", bytes.len())?;
            out.write_all(&bytes[..100_000])?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Some((bytes, from)) => {
            let range = format!("Content-Range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
            say(out, 206, &range, &vec![0; bytes.len() - from])
        }
        None => Ok(false),
    }),
    ("a part of another size", |scene, request, out| match layer(scene, request) {
        Some((bytes, _)) => say(out, 206, "Content-Range: bytes 0-99/100\r\n", &bytes[..100]),
        None => Ok(false),
    }),
    ("a part that nobody asked for", |scene, request, out| match layer(scene, request) {
        Some((bytes, _)) => {
            let range = format!("Content-Range: bytes 5-{}/{}\r\n", bytes.len() - 1, bytes.len());
            say(out, 206, &range, &bytes[5..])
        }
        None => Ok(false),
    }),
    ("a part without a place", |scene, request, out| match layer(scene, request) {
        Some((bytes, _)) => say(out, 206, "", &bytes[5..]),
        None => Ok(false),
    }),
    ("a page", |scene, request, out| match layer(scene, request) {
        Some(_) => say(out, 200, "Content-Type: text/html\r\n", b"<html>log in</html>"),
        None => Ok(false),
    }),
    ("a place that cannot be", |scene, request, out| match layer(scene, request) {
        Some((bytes, _)) => {
            say(out, 206, "Content-Range: bytes 18446744073709551615-18446744073709551615/*\r\n", bytes)
        }
        None => Ok(false),
    }),
];

#[test]
fn blobs_that_are_not_what_was_asked_for() {
    let liars = Liars::start(5, WRONG_LAYERS, "");
    // The manifests are true, by tag and by digest.
    assert_eq!(liars.pull_all(), 2 * WRONG_LAYERS.len(), "a layer came that did not");
}

#[test]
fn a_part_of_what_is_coming_is_not_whole_before_all_of_it_was_checked() {
    let lies: &[Lie] = &[("the first byte", |scene, request, out| match layer(scene, request) {
        Some((bytes, _)) => {
            let mut wrong = bytes.to_vec();
            wrong[0] ^= 1;
            write!(out, "HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", wrong.len())?;
            out.write_all(&wrong[..200_000])?;
            // So that clients read along.
            std::thread::sleep(Duration::from_millis(300));
            out.write_all(&wrong[200_000..])?;
            Ok(true)
        }
        None => Ok(false),
    })];
    let liars = Liars::start(8, lies, "");
    let registry = liars.node.registry();
    registry.manifest("r0.example/app", "v1").expect(200);
    let target = format!("/v2/r0.example/app/blobs/{}", digest(&liars.upstreams[0].2.image.layers[0]));
    for range in ["bytes=0-99", "bytes=0-0,5-9", "bytes=0-100000"] {
        let answer = registry.http.get(&target).header("Range", range).try_send();
        let whole = answer.is_ok_and(|answer| (200..300).contains(&answer.status));
        assert!(!whole, "{range} of bytes that are wrong was served as if they were right");
    }
}

#[test]
fn token_servers_that_give_no_token() {
    fn challenged(request: &Request, out: Out<'_>, token: &str) -> Told {
        if request.path.starts_with("/token") {
            return say(out, 200, "Content-Type: application/json\r\n", token.as_bytes());
        }
        let realm = format!("http://{}/token", request.headers["host"]);
        say(out, 401, &format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"x\"\r\n"), b"")
    }
    let lies: &[Lie] = &[
        ("a long one", |_, request, out| {
            challenged(request, out, &json!({"token": "a".repeat(1 << 20)}).to_string())
        }),
        ("one that is two headers", |_, request, out| {
            challenged(request, out, &json!({"token": "a\r\nX-A: b"}).to_string())
        }),
        ("a page", |_, request, out| challenged(request, out, "<html></html>")),
        ("nothing", |_, request, out| challenged(request, out, "{\"token\":\"\",\"expires_in\":1e308}")),
        ("for ever refused", |_, request, out| {
            challenged(request, out, "{\"token\":\"a\",\"expires_in\":-1}")
        }),
        ("asks for a token to give one", |_, request, out| {
            let realm = format!("http://{}/token{}", request.headers["host"], request.path.len());
            say(out, 401, &format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n"), b"")
        }),
        ("sends on and on", |_, request, out| {
            if request.path.starts_with("/token") {
                return redirect(out, &format!("{}x", request.path.split('?').next().unwrap_or_default()));
            }
            challenged(request, out, "")
        }),
        ("without end", |_, request, out| {
            if request.path.starts_with("/token") { endless(out, "") } else { challenged(request, out, "") }
        }),
        ("at the node", |scene, _, out| {
            let node = scene.node.get().ok_or(io::ErrorKind::NotConnected)?;
            say(
                out,
                401,
                &format!("WWW-Authenticate: Bearer realm=\"{node}/v2/r8.example/app/tags/list\"\r\n"),
                b"",
            )
        }),
        ("a challenge without end", |_, _, out| {
            let words = "a=\"b\",".repeat(5000);
            say(out, 401, &format!("WWW-Authenticate: Bearer {words}\r\n"), b"")
        }),
    ];
    let liars = Liars::start(6, lies, "");
    assert_eq!(liars.pull_all(), 0);
    for (name, upstream, _) in &liars.upstreams {
        let asked = upstream.count("GET", "") + upstream.count("HEAD", "");
        assert!(asked < 100, "{name}: {asked} requests");
    }
}

#[test]
fn lists_that_never_end() {
    fn paged(request: &Request, out: Out<'_>, body: &str, media_type: &str, next: &str) -> Told {
        let path = request.path.split('?').next().unwrap_or_default();
        let told = format!("Content-Type: {media_type}\r\nLink: <{path}?{next}>; rel=\"next\"\r\n");
        say(out, 200, &told, body.as_bytes())
    }
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let lies: &[Lie] = &[
        ("the same again", |_, request, out| match request.path.contains("/tags/") {
            true => paged(request, out, "{\"tags\":[\"a\"]}", "application/json", "last=a"),
            false => paged(request, out, "{\"manifests\":[]}", INDEX, "token=a"),
        }),
        ("another each time", |_, request, out| {
            let more = format!("last=a{0}&token=a{0}", request.path.len());
            match request.path.contains("/tags/") {
                true => paged(request, out, "{\"tags\":[\"a\"]}", "application/json", &more),
                false => paged(request, out, "{\"manifests\":[]}", INDEX, &format!("{more}{more}")),
            }
        }),
        ("at another host", |scene, request, out| match request.path.contains("/tags/") {
            true => {
                let link = format!("Link: <{}/v2/x/tags/list?last=a>; rel=\"next\"\r\n", scene.elsewhere);
                say(out, 200, &link, b"{\"tags\":[\"a\",\"b/../c\",\"\"]}")
            }
            false => say(
                out,
                200,
                &format!("Content-Type: {INDEX}\r\n"),
                b"{\"manifests\":[1,{\"digest\":\"x\"}]}",
            ),
        }),
        ("a page", |_, _, out| say(out, 200, "Content-Type: text/html\r\n", b"<html></html>")),
        ("without end", |_, _, out| endless(out, &format!("Content-Type: {INDEX}\r\n"))),
    ];
    let liars = Liars::start(7, lies, "");
    let http = liars.node.registry().http;
    for (n, (name, upstream, scene)) in liars.upstreams.iter().enumerate() {
        for list in ["tags/list".to_owned(), format!("referrers/{}", scene.image.digest())] {
            let start = Instant::now();
            let answer = http.get(&format!("/v2/{}/app/{list}", host(n))).send();
            assert!(start.elapsed() < PATIENCE, "{name}: {list} took {:?}", start.elapsed());
            assert!(answer.status == 200 || answer.json()["errors"][0]["code"].is_string(), "{name}: {list}");
            assert!(!String::from_utf8_lossy(&answer.body).contains(".."), "{name}: {list}");
        }
        let asked = upstream.count("GET", "/tags/") + upstream.count("GET", "/referrers/");
        assert!(asked <= 40, "{name}: {asked} requests for two lists");
    }
    assert_eq!(liars.elsewhere.count("GET", ""), 0, "a list goes on where it began");
    assert_eq!(liars.node.status()["blobs"].as_u64(), Some(0));
}
