//! A forward proxy (RFC 9110, 7.6 and 9.3.6): takes requests in absolute form and tunnels, and keeps what it was
//! asked. It is polite to nobody else: one request a connection, no bodies of requests.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// A proxy at an address of this machine. Its threads end with the process.
pub struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// What a client asked the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    /// A whole URL, or `host:port` of a tunnel.
    pub target: String,
    /// Who the client says it is, as it says it.
    pub login: Option<String>,
}

impl Proxy {
    pub fn start(ip: &str) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::default());
        let log = Arc::clone(&asked);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let log = Arc::clone(&log);
                thread::spawn(move || serve(&client, &log));
            }
        });
        Proxy { address, asked }
    }

    /// `host:port`
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Everything up to now.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(client: &TcpStream, log: &Mutex<Vec<Asked>>) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(client.take(MAX_HEAD));
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut words = first.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (mut headers, mut login) = (String::new(), None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "proxy-authorization" => login = Some(value.trim().to_owned()),
            "connection" => {}
            _ => headers.push_str(&line),
        }
    }
    log.lock().unwrap().push(Asked { method: method.clone(), target: target.clone(), login });
    let mut out = client;
    if method == "CONNECT" {
        let server = TcpStream::connect(&target)?;
        out.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
        return tunnel(client, &server);
    }
    let Some((host, path)) = target.strip_prefix("http://").and_then(|rest| rest.split_once('/')) else {
        return out.write_all(b"HTTP/1.1 400 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let mut server = TcpStream::connect(host)?;
    server.set_read_timeout(Some(PATIENCE))?;
    server
        .write_all(format!("{method} /{path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").as_bytes())?;
    io::copy(&mut server, &mut out)?;
    client.shutdown(Shutdown::Both)
}

/// Copies both ways until both have ended.
fn tunnel(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    server.set_read_timeout(Some(PATIENCE))?;
    let copy = |mut from: &TcpStream, mut to: &TcpStream| {
        let copied = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
        copied
    };
    thread::scope(|scope| {
        scope.spawn(|| copy(client, server));
        copy(server, client).map(drop)
    })
}

/// Bytes of a request's head.
const MAX_HEAD: u64 = 64 * 1024;
/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(60);
