//! Registries for tests: one that answers as a test says and remembers what it was asked, and one that writes raw
//! bytes and hangs up.

use std::sync::{Arc, Mutex};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, Method, Response, StatusCode, Version},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// What was asked.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub version: Version,
    pub path: String,
    /// Decoded.
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    /// All values of a parameter.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.query.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect()
    }
}

pub struct Fake {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Fake {
    /// Answers each request as `answer` says.
    pub async fn start(answer: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        Fake::on(listener, url, answer)
    }

    /// The same over TLS, with a certificate of an authority of its own, which is given back (PEM).
    pub async fn start_tls(
        answer: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static,
    ) -> (Fake, String) {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://{}", tcp.local_addr().expect("bound"));
        let (acceptor, ca) = tls();
        (Fake::on(TlsListener { tcp, acceptor }, url, answer), ca)
    }

    fn on<L: axum::serve::Listener>(
        listener: L,
        url: String,
        answer: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static,
    ) -> Fake
    where
        L::Addr: std::fmt::Debug,
    {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        let service = axum::Router::new().fallback(move |request: Request| {
            let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
            async move {
                let (head, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
                let target = head.uri.path_and_query().expect("a path").as_str();
                let full = reqwest::Url::parse(&format!("http://x{target}")).expect("a URL");
                let one = Seen {
                    method: head.method.clone(),
                    version: head.version,
                    path: head.uri.path().to_owned(),
                    query: full.query_pairs().map(|(k, v)| (k.into_owned(), v.into_owned())).collect(),
                    headers: head.headers,
                    body: String::from_utf8(body.to_vec()).expect("text"),
                };
                log.lock().expect("not poisoned").push(one.clone());
                answer(&one)
            }
        });
        let server = tokio::spawn(async move {
            axum::serve(listener, service).await.expect("serves");
        });
        Fake { url, seen, server }
    }

    /// What was asked so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    /// `METHOD path` of what was asked so far.
    pub fn lines(&self) -> Vec<String> {
        self.seen().iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (socket, peer) = self.tcp.accept().await.expect("a connection");
            // Clients that do not trust the certificate hang up here.
            if let Ok(stream) = self.acceptor.accept(socket).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// A server for 127.0.0.1, and the authority (PEM) that says so.
fn tls() -> (TlsAcceptor, String) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = ca.self_signed(&ca_key).expect("an authority");
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a server");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (TlsAcceptor::from(Arc::new(config)), authority.pem())
}

/// An answer.
pub fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::builder().status(StatusCode::from_u16(status).expect("a status"));
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).expect("an answer")
}

/// Answers the first connection with the first bytes, and so on, hanging up after each; the requests' heads are
/// given back. Connections after the last are not taken.
pub async fn raw(answers: Vec<Vec<u8>>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&heads);
    tokio::spawn(async move {
        for answer in answers {
            let Ok((mut socket, _)) = listener.accept().await else { return };
            let mut head = Vec::new();
            let mut buffer = [0; 4096];
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                match socket.read(&mut buffer).await {
                    Ok(n) if n > 0 => head.extend_from_slice(&buffer[..n]),
                    _ => break,
                }
            }
            log.lock().expect("not poisoned").push(String::from_utf8_lossy(&head).into_owned());
            let _ = socket.write_all(&answer).await;
            let _ = socket.shutdown().await;
        }
    });
    (url, heads)
}
