//! The load: clients on plain sockets that keep their connections, cheap beside what they ask.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::image::{Image, MANIFEST_TYPE, digest};

/// A connection that blocks, for requests one after the other.
pub struct Client {
    address: String,
    reader: BufReader<TcpStream>,
    buffer: Vec<u8>,
}

/// An answer without its body.
pub struct Answer {
    pub status: u16,
    location: Option<String>,
}

impl Client {
    pub fn new(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        Client {
            address: address.to_owned(),
            reader: BufReader::with_capacity(16 * 1024, stream),
            buffer: vec![0; 1 << 20],
        }
    }

    /// Sends, and takes the answer's body in steps.
    pub fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &str,
        body: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<Answer> {
        let length = match method {
            "GET" | "HEAD" => String::new(),
            _ => format!("Content-Length: {}\r\n", body.len()),
        };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n{headers}{length}\r\n", self.address);
        let stream = self.reader.get_mut();
        if body.len() < 64 * 1024 {
            stream.write_all(&[head.as_bytes(), body].concat())?;
        } else {
            stream.write_all(head.as_bytes())?;
            stream.write_all(body)?;
        }
        let (answer, mut left) = self.head()?;
        if method == "HEAD" || answer.status == 204 {
            left = 0;
        }
        while left > 0 {
            let most = usize::try_from(left).unwrap().min(self.buffer.len());
            let n = self.reader.read(&mut self.buffer[..most])?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            take(&self.buffer[..n]);
            left -= n as u64;
        }
        Ok(answer)
    }

    /// GETs something and says how many bytes a second came.
    pub fn get(&mut self, target: &str) -> f64 {
        let (start, mut size) = (Instant::now(), 0);
        let answer = self.send("GET", target, "", &[], |bytes| size += bytes.len()).unwrap();
        assert_eq!(answer.status, 200, "{target}");
        size as f64 / start.elapsed().as_secs_f64()
    }

    /// GETs these parts, one after the other, and says how many bytes a second came.
    pub fn get_parts(&mut self, target: &str, starts: &[usize], length: usize) -> f64 {
        let (start, mut size) = (Instant::now(), 0);
        for from in starts {
            let range = format!("Range: bytes={from}-{}\r\n", from + length - 1);
            let answer = self.send("GET", target, &range, &[], |bytes| size += bytes.len()).unwrap();
            assert_eq!(answer.status, 206, "{target}");
        }
        size as f64 / start.elapsed().as_secs_f64()
    }

    /// GETs something and says its digest.
    pub fn digest_of(&mut self, target: &str) -> String {
        let mut sha256 = Sha256::new();
        let answer = self.send("GET", target, "", &[], |bytes| sha256.update(bytes)).unwrap();
        assert_eq!(answer.status, 200, "{target}");
        format!("sha256:{}", data_encoding::HEXLOWER.encode(&sha256.finalize()))
    }

    /// Uploads a blob as docker does: HEAD, POST, PATCH with all of it, PUT.
    pub fn push_blob(&mut self, repository: &str, name: &str, bytes: &[u8]) {
        let there = self.send("HEAD", &format!("/v2/{repository}/blobs/{name}"), "", &[], |_| {}).unwrap();
        assert_eq!(there.status, 404, "{name} is there already");
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let session = self.send("POST", &uploads, "", &[], |_| {}).unwrap().location();
        let octets = "Content-Type: application/octet-stream\r\n";
        let session = self.send("PATCH", &session, octets, bytes, |_| {}).unwrap().location();
        let separator = if session.contains('?') { '&' } else { '?' };
        let end = format!("{session}{separator}digest={name}");
        let answer = self.send("PUT", &end, "", &[], |_| {}).unwrap();
        assert_eq!(answer.status, 201, "{name}");
    }

    pub fn push_manifest(&mut self, repository: &str, tag: &str, manifest: &[u8]) {
        let target = format!("/v2/{repository}/manifests/{tag}");
        let content = format!("Content-Type: {MANIFEST_TYPE}\r\n");
        assert_eq!(self.send("PUT", &target, &content, manifest, |_| {}).unwrap().status, 201);
    }

    pub fn push_image(&mut self, repository: &str, tag: &str, image: &Image) {
        for blob in image.blobs() {
            self.push_blob(repository, &digest(blob), blob);
        }
        self.push_manifest(repository, tag, &image.manifest);
    }

    /// Reads an answer's head, and how long its body is.
    fn head(&mut self) -> io::Result<(Answer, u64)> {
        let (mut answer, mut length) = (Answer { status: 0, location: None }, 0);
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end();
            if line.is_empty() && answer.status >= 200 {
                return Ok((answer, length));
            }
            if line.starts_with("HTTP/1.1 ") {
                answer.status = line[9..12].parse().unwrap();
            } else if let Some((name, value)) = line.split_once(':') {
                match &*name.to_ascii_lowercase() {
                    "content-length" => length = value.trim().parse().unwrap(),
                    "location" => answer.location = Some(path_of(value.trim()).to_owned()),
                    "transfer-encoding" => panic!("answers of unknown length are not measured"),
                    _ => {}
                }
            }
        }
    }
}

impl Answer {
    fn location(self) -> String {
        assert_eq!(self.status, 202);
        self.location.expect("a location")
    }
}

/// A connection for many at a time in one thread.
pub struct Async {
    stream: tokio::net::TcpStream,
    buffer: Vec<u8>,
}

impl Async {
    pub async fn new(address: &str, buffer: usize) -> Self {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Async { stream, buffer: vec![0; buffer] }
    }

    /// Sends a request that is ready and reads its answer, which must be 200; says how long its body was.
    pub async fn ask(&mut self, request: &[u8]) -> u64 {
        self.stream.write_all(request).await.unwrap();
        let mut have = 0;
        let (head, length) = loop {
            let n = self.stream.read(&mut self.buffer[have..]).await.unwrap();
            assert_ne!(n, 0, "the server closed the connection");
            have += n;
            if let Some(end) = self.buffer[..have].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break (end + 4, length_in(&self.buffer[..end]));
            }
        };
        let mut left = length - (have - head) as u64;
        while left > 0 {
            let n = self.stream.read(&mut self.buffer).await.unwrap();
            assert_ne!(n, 0, "the server closed the connection");
            left -= n as u64;
        }
        length
    }
}

pub fn get_request(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: {MANIFEST_TYPE}\r\n\r\n").into_bytes()
}

/// What runs many connections: one thread, so that the servers have the rest of the machine.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn length_in(head: &[u8]) -> u64 {
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(head));
    let name = b"content-length:";
    let at = head.windows(name.len()).position(|bytes| bytes.eq_ignore_ascii_case(name)).expect("a length");
    let digits = head[at + name.len()..].iter().skip_while(|byte| **byte == b' ');
    digits.take_while(|byte| byte.is_ascii_digit()).fold(0, |all, digit| all * 10 + u64::from(digit - b'0'))
}

fn path_of(location: &str) -> &str {
    match location.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/').unwrap()..],
        None => location,
    }
}

const TIMEOUT: Duration = Duration::from_secs(120);
