//! A small HTTP/1.1 client that can also misbehave (bodies shorter than announced, any target, slow reading).
//! One connection for each request. Shares no code with the product.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

use sha2::{Digest as _, Sha256};

/// Where requests go.
#[derive(Clone, Debug)]
pub struct Http {
    address: String,
    /// How long nothing may come.
    patience: Duration,
}

/// A request being put together.
pub struct Request<'a> {
    http: &'a Http,
    head: String,
    body: Body<'a>,
    what: String,
}

enum Body<'a> {
    None,
    Sized(&'a [u8]),
    Chunked(&'a [u8]),
    /// Announces more bytes than it sends, then closes.
    Truncated(u64, &'a [u8]),
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    what: String,
}

/// A blob's way past a client that only checks it.
pub struct Checked {
    pub status: u16,
    pub size: u64,
    pub digest: String,
}

impl Http {
    pub fn new(address: &str) -> Self {
        Http { address: address.to_owned(), patience: TIMEOUT }
    }

    /// Without a byte for this long, an answer is a failure.
    #[allow(dead_code, reason = "for measurements only")]
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Http { patience, ..self }
    }

    pub fn get(&self, target: &str) -> Request<'_> {
        self.request("GET", target)
    }

    pub fn head(&self, target: &str) -> Request<'_> {
        self.request("HEAD", target)
    }

    pub fn request(&self, method: &str, target: &str) -> Request<'_> {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        Request { http: self, head, body: Body::None, what: format!("{method} {target}") }
    }
}

impl<'a> Request<'a> {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub fn body(mut self, bytes: &'a [u8]) -> Self {
        self.body = Body::Sized(bytes);
        self
    }

    pub fn chunked(mut self, bytes: &'a [u8]) -> Self {
        self.body = Body::Chunked(bytes);
        self
    }

    pub fn truncated(mut self, announced: u64, bytes: &'a [u8]) -> Self {
        self.body = Body::Truncated(announced, bytes);
        self
    }

    /// Sends and reads the whole answer; panics where there is none.
    #[track_caller]
    pub fn send(self) -> Response {
        let what = self.what.clone();
        self.try_send().unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// Sends and reads the whole answer.
    pub fn try_send(self) -> io::Result<Response> {
        let what = self.what.clone();
        let mut body = vec![];
        let (status, headers) = self.try_send_into(&mut body)?;
        Ok(Response { status, headers, body, what })
    }

    /// Sends and hashes the answer's body while it comes.
    pub fn try_send_checked(self) -> io::Result<Checked> {
        let mut sink = Hashing { sha256: Sha256::new(), size: 0 };
        let (status, _) = self.try_send_into(&mut sink)?;
        let digest = format!("sha256:{}", data_encoding::HEXLOWER.encode(&sink.sha256.finalize()));
        Ok(Checked { status, size: sink.size, digest })
    }

    /// Sends and hands out the connection, with nothing of the answer read.
    pub fn open(self) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(&self.http.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.http.patience))?;
        stream.set_write_timeout(Some(self.http.patience))?;
        // An answer may come before the whole body was taken: then it counts, not the failed write.
        let _ = self.write_to(&mut stream);
        Ok(stream)
    }

    fn try_send_into(self, sink: &mut dyn Write) -> io::Result<(u16, Vec<(String, String)>)> {
        let no_body = self.head.starts_with("HEAD ");
        let mut reader = BufReader::with_capacity(256 * 1024, self.open()?);
        let (status, headers) = loop {
            let (status, headers) = read_head(&mut reader)?;
            if status >= 200 {
                break (status, headers);
            }
        };
        if !no_body && status != 204 && status != 304 {
            read_body(&mut reader, &headers, sink)?;
        }
        Ok((status, headers))
    }

    fn write_to(&self, stream: &mut TcpStream) -> io::Result<()> {
        let framing = match self.body {
            Body::None if self.head.starts_with("GET ") || self.head.starts_with("HEAD ") => String::new(),
            Body::None => "Content-Length: 0\r\n".to_owned(),
            Body::Sized(bytes) => format!("Content-Length: {}\r\n", bytes.len()),
            Body::Truncated(announced, _) => format!("Content-Length: {announced}\r\n"),
            Body::Chunked(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
        };
        stream.write_all(format!("{}{framing}\r\n", self.head).as_bytes())?;
        match self.body {
            Body::None => Ok(()),
            Body::Sized(bytes) => stream.write_all(bytes),
            Body::Truncated(_, bytes) => {
                stream.write_all(bytes)?;
                stream.shutdown(std::net::Shutdown::Write)
            }
            Body::Chunked(bytes) => {
                for chunk in bytes.chunks(64 * 1024) {
                    stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
                    stream.write_all(chunk)?;
                    stream.write_all(b"\r\n")?;
                }
                stream.write_all(b"0\r\n\r\n")
            }
        }
    }
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The answer itself, once its status is what it should be.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.what, String::from_utf8_lossy(&self.body));
        self
    }

    /// As [`Response::expect`], and the body is an OCI error with this code. Returns its message.
    #[track_caller]
    pub fn expect_error(self, status: u16, code: &str) -> String {
        let what = self.what.clone();
        let answer = self.expect(status);
        let error = &answer.json()["errors"][0];
        assert_eq!(error["code"], code, "{what}: {error}");
        let message = error["message"].as_str().unwrap_or_default().to_owned();
        assert!(!message.is_empty(), "{what}: the error has no message");
        message
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{}: not JSON ({error}): {}", self.what, String::from_utf8_lossy(&self.body))
        })
    }

    /// Path and query of the `Location` header.
    #[track_caller]
    pub fn location(&self) -> String {
        let location = self.header("location").unwrap_or_else(|| panic!("{}: no Location", self.what));
        match location.split_once("://") {
            Some((_, rest)) => rest[rest.find('/').unwrap()..].to_owned(),
            None => location.to_owned(),
        }
    }
}

struct Hashing {
    sha256: Sha256,
    size: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sha256.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn read_head(reader: &mut impl BufRead) -> io::Result<(u16, Vec<(String, String)>)> {
    let mut lines = vec![];
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before an answer"));
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let status = lines.first().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| bad("no status line"))?;
    let headers = lines[1..].iter().filter_map(|line| line.split_once(':'));
    Ok((status, headers.map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect()))
}

fn read_body(
    reader: &mut impl BufRead,
    headers: &[(String, String)],
    sink: &mut dyn Write,
) -> io::Result<()> {
    let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    if let Some(length) = header("content-length") {
        let length: u64 = length.parse().map_err(|_| bad("Content-Length is no number"))?;
        return copy_exactly(reader, length, sink);
    }
    if header("transfer-encoding") != Some("chunked") {
        return io::copy(reader, sink).map(|_| ());
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).map_err(|_| bad("chunk without a size"))?;
        copy_exactly(reader, size, sink)?;
        reader.read_line(&mut line)?;
        if size == 0 {
            return Ok(());
        }
    }
}

fn copy_exactly(reader: &mut impl BufRead, length: u64, sink: &mut dyn Write) -> io::Result<()> {
    let copied = io::copy(&mut reader.take(length), sink)?;
    if copied < length {
        let what = format!("body ended after {copied} of {length} bytes");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
    }
    Ok(())
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The usual patience.
const TIMEOUT: Duration = Duration::from_secs(60);
