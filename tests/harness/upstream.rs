//! A foreign registry for nodes to pull through from, written from the distribution specification: it answers what
//! a pull needs, counts what it is asked, and fails in the ways that a test says. Shares no code with the product.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use serde_json::Value;

use super::image::{Image, MANIFEST_TYPE, digest};

/// A registry on loopback. Its threads end with the process.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    content: Mutex<Content>,
    log: Mutex<Vec<Request>>,
    /// Bytes of blobs that were sent, by their digests.
    sent: Mutex<BTreeMap<String, u64>>,
    faults: Mutex<Faults>,
    changed: Condvar,
}

#[derive(Default)]
struct Content {
    /// (repository, digest) → type and bytes.
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    blobs: BTreeMap<(String, String), Vec<u8>>,
    tags: BTreeMap<(String, String), String>,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

/// How it misbehaves.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Closes every connection without an answer.
    pub down: bool,
    /// Answers everything so.
    pub status: Option<(u16, Vec<(String, String)>)>,
    /// Closes the connection after so many bytes of a blob, as often as the second number says.
    pub cut: Option<(u64, u32)>,
    /// Sends no more than so many bytes of a blob until this is taken back.
    pub hold_at: Option<u64>,
    /// Changes one byte of each blob.
    pub wrong_byte: bool,
    /// Sends blobs without any bytes, and says so.
    pub empty: bool,
    /// Says another length than the content's.
    pub wrong_length: bool,
    /// Sends these bytes for every manifest.
    pub other_manifest: Option<Vec<u8>>,
    /// Asks for these credentials (Basic).
    pub login: Option<String>,
    /// Whose credentials (`user:password`) it takes, and for which repositories; nobody's: everybody may all.
    pub users: Vec<(String, Vec<String>)>,
    /// The entity tag of all blobs; ranges that are asked for of another (If-Range) are the whole blob.
    pub etag: Option<String>,
    /// Answers first; what it does not answer is answered as ever.
    pub lie: Option<Lie>,
}

/// Whether it answered; an error closes the connection.
pub type Told = io::Result<bool>;

/// A way to answer that no other fault has.
#[derive(Clone)]
pub struct Lie(Arc<Tell>);

type Tell = dyn Fn(&Request, &mut dyn Write) -> Told + Send + Sync;

impl fmt::Debug for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a lie")
    }
}

impl Upstream {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = serving.clone();
                thread::spawn(move || shared.serve(&stream));
            }
        });
        Upstream { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A configuration of a node that has this upstream under a name.
    pub fn config(&self, namespace: &str, more: &str) -> String {
        format!("[[upstream]]\nnamespace = \"{namespace}\"\nendpoints = [\"{}\"]\n{more}\n", self.url())
    }

    pub fn add(&self, repository: &str, tag: &str, image: &Image) {
        let mut content = self.shared.content.lock().unwrap();
        for blob in image.blobs() {
            content.blobs.insert((repository.into(), digest(blob)), blob.clone());
        }
        drop(content);
        self.add_manifest(repository, tag, MANIFEST_TYPE, &image.manifest);
    }

    pub fn add_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) {
        let mut content = self.shared.content.lock().unwrap();
        let name = digest(bytes);
        content.manifests.insert((repository.into(), name.clone()), (media_type.into(), bytes.to_vec()));
        content.tags.insert((repository.into(), tag.into()), name);
    }

    pub fn add_blob(&self, repository: &str, name: &str, bytes: &[u8]) {
        self.shared.content.lock().unwrap().blobs.insert((repository.into(), name.into()), bytes.to_vec());
    }

    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.shared.faults.lock().unwrap());
        self.shared.changed.notify_all();
    }

    /// Has it answer so, where that answers at all.
    pub fn lie(&self, tell: impl Fn(&Request, &mut dyn Write) -> Told + Send + Sync + 'static) {
        self.set(|faults| faults.lie = Some(Lie(Arc::new(tell))));
    }

    /// How often something whose path contains this was asked for so.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.asked(method, part).len()
    }

    /// How many bytes of a blob it has sent, over all connections.
    pub fn sent(&self, name: &str) -> u64 {
        self.shared.sent.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    pub fn asked(&self, method: &str, part: &str) -> Vec<Request> {
        let log = self.shared.log.lock().unwrap();
        log.iter()
            .filter(|request| request.method == method && request.path.contains(part))
            .cloned()
            .collect()
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
        let mut reader = BufReader::new(stream);
        while let Ok(Some(request)) = read(&mut reader) {
            let faults = self.faults.lock().unwrap().clone();
            if faults.down {
                return;
            }
            self.log.lock().unwrap().push(request.clone());
            if self.answer(&mut &*stream, &request, &faults).is_err() {
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
        }
    }

    fn answer(&self, out: &mut dyn Write, request: &Request, faults: &Faults) -> io::Result<()> {
        if let Some(Lie(tell)) = &faults.lie
            && tell(request, out)?
        {
            return Ok(());
        }
        if let Some((status, headers)) = &faults.status {
            return head(out, *status, headers, 0);
        }
        if let Some(login) = &faults.login {
            let wanted = format!("Basic {}", data_encoding::BASE64.encode(login.as_bytes()));
            if request.headers.get("authorization") != Some(&wanted) {
                let challenge = [("WWW-Authenticate".to_owned(), "Basic realm=\"up\"".to_owned())];
                return head(out, 401, &challenge, 0);
            }
        }
        if let Some(status) = refused(request, &faults.users) {
            let challenge = [("WWW-Authenticate".to_owned(), "Basic realm=\"up\"".to_owned())];
            return head(out, status, &challenge[..usize::from(status == 401)], 0);
        }
        let path = request.path.split('?').next().unwrap_or_default().to_owned();
        let Some(rest) = path.strip_prefix("/v2/") else { return head(out, 404, &[], 0) };
        if rest.is_empty() {
            return head(out, 200, &[], 0);
        }
        if let Some((repository, reference)) = rest.split_once("/manifests/") {
            return self.manifest(out, request, (repository, reference), faults);
        }
        if let Some((repository, name)) = rest.split_once("/blobs/") {
            let blob = self.content.lock().unwrap().blobs.get(&(repository.into(), name.into())).cloned();
            return match blob {
                Some(bytes) => self.blob(out, request, name, &bytes, faults),
                None => head(out, 404, &[], 0),
            };
        }
        if let Some(repository) = rest.strip_suffix("/tags/list") {
            let content = self.content.lock().unwrap();
            let tags: Vec<&String> =
                content.tags.keys().filter(|(of, _)| of == repository).map(|(_, tag)| tag).collect();
            return json(out, &serde_json::json!({"name": repository, "tags": tags}));
        }
        if let Some((repository, subject)) = rest.split_once("/referrers/") {
            let found = self.content.lock().unwrap().referrers(repository, subject);
            if !found.is_empty() {
                let list = "application/vnd.oci.image.index.v1+json";
                let index = serde_json::json!({"schemaVersion": 2, "mediaType": list, "manifests": found});
                let body = index.to_string();
                head(out, 200, &[("Content-Type".to_owned(), list.to_owned())], body.len() as u64)?;
                return out.write_all(body.as_bytes());
            }
        }
        head(out, 404, &[], 0)
    }

    fn manifest(
        &self,
        out: &mut dyn Write,
        request: &Request,
        (repository, reference): (&str, &str),
        faults: &Faults,
    ) -> io::Result<()> {
        let content = self.content.lock().unwrap();
        let key = |name: &str| (repository.to_owned(), name.to_owned());
        let name = content.tags.get(&key(reference)).cloned().unwrap_or(reference.to_owned());
        let Some((media_type, bytes)) = content.manifests.get(&key(&name)).cloned() else {
            drop(content);
            return head(out, 404, &[], 0);
        };
        drop(content);
        let bytes = faults.other_manifest.clone().unwrap_or(bytes);
        let headers = [("Content-Type".to_owned(), media_type), ("Docker-Content-Digest".to_owned(), name)];
        head(out, 200, &headers, bytes.len() as u64)?;
        if request.method == "HEAD" { Ok(()) } else { out.write_all(&bytes) }
    }

    fn blob(
        &self,
        out: &mut dyn Write,
        request: &Request,
        name: &str,
        bytes: &[u8],
        faults: &Faults,
    ) -> io::Result<()> {
        let mut bytes = bytes.to_vec();
        if faults.wrong_byte && !bytes.is_empty() {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        if faults.empty {
            bytes.clear();
        }
        let total = bytes.len() as u64;
        let of_another =
            request.headers.get("if-range").is_some_and(|etag| Some(etag) != faults.etag.as_ref());
        let range = request.headers.get("range").filter(|_| !of_another);
        let range = range.and_then(|range| range.strip_prefix("bytes="));
        let from: u64 = range.and_then(|range| range.split('-').next()?.parse().ok()).unwrap_or(0);
        let mut headers = vec![("Docker-Content-Digest".to_owned(), name.to_owned())];
        headers.extend(faults.etag.clone().map(|etag| ("ETag".to_owned(), etag)));
        if range.is_some() && from >= total {
            return head(out, 416, &[("Content-Range".to_owned(), format!("bytes */{total}"))], 0);
        }
        if range.is_some() {
            headers.push(("Content-Range".to_owned(), format!("bytes {from}-{}/{total}", total - 1)));
        }
        let status = if range.is_some() { 206 } else { 200 };
        let length = total - from + u64::from(faults.wrong_length);
        head(out, status, &headers, length)?;
        if request.method == "HEAD" {
            return Ok(());
        }
        let mut at = from;
        for piece in bytes[usize::try_from(from).unwrap()..].chunks(16 * 1024) {
            let end = at + piece.len() as u64;
            self.wait_for(end);
            out.write_all(piece)?;
            at = end;
            *self.sent.lock().unwrap().entry(name.to_owned()).or_default() += piece.len() as u64;
            if self.is_cut(at) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
        Ok(())
    }

    /// Waits until bytes up to there may be sent.
    fn wait_for(&self, end: u64) {
        let faults = self.faults.lock().unwrap();
        let held = |faults: &mut Faults| faults.hold_at.is_some_and(|at| end > at);
        drop(self.changed.wait_timeout_while(faults, Duration::from_secs(60), held));
    }

    fn is_cut(&self, at: u64) -> bool {
        let mut faults = self.faults.lock().unwrap();
        match &mut faults.cut {
            Some((after, times)) if *times > 0 && at >= *after => {
                *times -= 1;
                true
            }
            _ => false,
        }
    }
}

impl Content {
    /// Descriptors of the manifests that are about this one.
    fn referrers(&self, repository: &str, subject: &str) -> Vec<Value> {
        let of_repository = self.manifests.iter().filter(|((of, _), _)| of == repository);
        let about = of_repository.filter_map(|((_, name), (media_type, bytes))| {
            let document: Value = serde_json::from_slice(bytes).ok()?;
            let size = bytes.len();
            (document["subject"]["digest"] == subject).then(|| {
                serde_json::json!({"mediaType": media_type, "digest": name, "size": size,
                    "artifactType": document["artifactType"]})
            })
        });
        about.collect()
    }
}

/// How a request is refused to whoever sends it, if it is.
fn refused(request: &Request, users: &[(String, Vec<String>)]) -> Option<u16> {
    if users.is_empty() {
        return None;
    }
    let basic = |login: &str| format!("Basic {}", data_encoding::BASE64.encode(login.as_bytes()));
    let given = request.headers.get("authorization");
    let Some((_, repositories)) = users.iter().find(|(login, _)| given == Some(&basic(login))) else {
        return Some(401);
    };
    let may = |name: &String| request.path.starts_with(&format!("/v2/{name}/"));
    (request.path != "/v2/" && !repositories.iter().any(may)).then_some(403)
}

fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(Some(Request { method, path, headers }))
}

/// Sends the head of an answer.
pub fn head(out: &mut dyn Write, status: u16, headers: &[(String, String)], length: u64) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    out.write_all(format!("{text}\r\n").as_bytes())
}

fn json(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    let body = value.to_string();
    head(out, 200, &[("Content-Type".to_owned(), "application/json".to_owned())], body.len() as u64)?;
    out.write_all(body.as_bytes())
}
