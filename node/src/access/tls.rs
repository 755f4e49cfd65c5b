//! TLS of the registry's listener: which certificate is shown, and that a new one takes its place without a
//! connection being dropped. Certificates come from files, or from a CA of the node's own ([`self_made`]).

pub mod self_made;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use self::self_made::{Names, SelfMade};
use super::{config::TlsConfig, stamp::Stamp, token::now};
use crate::{identity::read_bounded, metrics::Metrics};

/// TLS for one listener. Clones are the same.
#[derive(Clone)]
pub struct Tls {
    inner: Arc<Inner>,
}

struct Inner {
    acceptor: TlsAcceptor,
    shown: Arc<Shown>,
    source: Source,
    metrics: Metrics,
}

enum Source {
    Files(Pair, Mutex<Stamp>),
    SelfMade(Box<Mutex<SelfMade>>),
}

/// Where a certificate and its key are.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

/// What new connections are shown.
struct Shown(RwLock<Current>);

#[derive(Clone)]
struct Current {
    key: Arc<CertifiedKey>,
    /// In seconds since 1970.
    ends: u64,
}

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there or cannot be read.
    #[error("{path} cannot be read: {why}; make it readable for the user that runs the node")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// A file cannot be written.
    #[error("{path} cannot be written: {why}; make its directory writable for the user that runs the node")]
    Unwritable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} holds no {what} in PEM form; {advice}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// Certificate and key do not fit, or are of a kind that is not supported.
    #[error(
        "the certificate {certificate} cannot be used with its key: {why}; give the key that it was made for"
    )]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// What the library said.
        why: String,
    },
}

impl Tls {
    /// What the configuration says; nothing where that is no TLS. `names` says what clients call this node.
    pub fn open(
        config: &TlsConfig,
        data_dir: &Path,
        names: Names,
        metrics: &Metrics,
    ) -> Result<Option<Self>, TlsError> {
        let (source, current) = match (&config.certificate, &config.key) {
            (Some(certificate), Some(key)) => {
                let pair = Pair { certificate: certificate.clone(), key: key.clone() };
                let stamp = pair.stamp();
                let current = pair.read()?;
                (Source::Files(pair, Mutex::new(stamp)), current)
            }
            _ if config.self_made => {
                let mut own = SelfMade::open(data_dir, names)?;
                let current = own.issue(now())?;
                (Source::SelfMade(Box::new(Mutex::new(own))), current)
            }
            _ => return Ok(None),
        };
        metrics.certificate_end.set(current.ends.cast_signed());
        if current.ends <= now() {
            warn!("the TLS certificate has ended; clients will refuse it until its files are replaced");
        }
        let shown = Arc::new(Shown(RwLock::new(current)));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for both versions")
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(server));
        Ok(Some(Tls { inner: Arc::new(Inner { acceptor, shown, source, metrics: metrics.clone() }) }))
    }

    /// For new connections.
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.inner.acceptor
    }

    /// When the certificate ends, in seconds since 1970.
    pub fn ends(&self) -> u64 {
        self.inner.shown.current().ends
    }

    /// Shows a new certificate where the files changed, or where the self-made one ends soon or lacks a name.
    /// What is broken changes nothing.
    pub fn refresh(&self) {
        let renewed = match &self.inner.source {
            Source::Files(pair, stamp) => {
                let mut stamp = stamp.lock().unwrap_or_else(PoisonError::into_inner);
                let present = pair.stamp();
                if present == *stamp {
                    return;
                }
                *stamp = present;
                pair.read()
            }
            Source::SelfMade(own) => {
                let mut own = own.lock().unwrap_or_else(PoisonError::into_inner);
                if !own.is_due(now()) {
                    return;
                }
                own.issue(now())
            }
        };
        match renewed {
            Ok(current) => {
                info!(days = days(current.ends, now()), "showing a new TLS certificate");
                self.inner.metrics.certificate_end.set(current.ends.cast_signed());
                self.inner.shown.show(current);
            }
            Err(error) => warn!("{error}; the TLS certificate stays as it was"),
        }
    }
}

impl Pair {
    fn stamp(&self) -> Stamp {
        Stamp::of(&[&self.certificate, &self.key])
    }

    fn read(&self) -> Result<Current, TlsError> {
        let read = |path: &PathBuf| {
            read_bounded(path, PEM_MAX).map_err(|why| TlsError::Unreadable { path: path.clone(), why })
        };
        let malformed = |path: &PathBuf, what| TlsError::Malformed {
            path: path.clone(),
            what,
            advice: "give another file",
        };
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(read(&self.certificate)?.as_bytes()).collect();
        let chain = chain.unwrap_or_default();
        let key_text = zeroize::Zeroizing::new(read(&self.key)?);
        let key = PrivateKeyDer::from_pem_slice(key_text.as_bytes())
            .map_err(|_| malformed(&self.key, "private key"))?;
        let ends = chain.first().and_then(ends).ok_or_else(|| malformed(&self.certificate, "certificate"))?;
        usable(chain, key, ends)
            .map_err(|why| TlsError::Unusable { certificate: self.certificate.clone(), why })
    }
}

impl Shown {
    fn current(&self) -> Current {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn show(&self, current: Current) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = current;
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().key)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shown(until {})", self.current().ends)
    }
}

/// Whole days until `ends`; below zero once it is over.
pub fn days(ends: u64, now: u64) -> i64 {
    (ends.cast_signed() - now.cast_signed()).div_euclid(24 * 3600)
}

/// A certificate with its key, if they fit.
fn usable(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    ends: u64,
) -> Result<Current, String> {
    let provider = rustls::crypto::ring::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| error.to_string())?;
    Ok(Current { key: Arc::new(key), ends })
}

/// When a certificate ends, in seconds since 1970; nothing where it is none.
fn ends(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp()).ok()
}

/// Largest PEM file in bytes.
const PEM_MAX: u64 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn write_pair(dir: &Path) -> TlsConfig {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("valid");
        let certificate = params.self_signed(&key).expect("signed");
        let config = TlsConfig {
            certificate: Some(dir.join("tls.crt")),
            key: Some(dir.join("tls.key")),
            ..TlsConfig::default()
        };
        std::fs::write(dir.join("tls.crt"), certificate.pem()).expect("written");
        std::fs::write(dir.join("tls.key"), key.serialize_pem()).expect("written");
        config
    }

    fn open(config: &TlsConfig, dir: &Path) -> Result<Option<Tls>, TlsError> {
        Tls::open(config, dir, Box::new(Vec::new), &Metrics::new())
    }

    fn shown(tls: &Tls) -> Vec<u8> {
        tls.inner.shown.current().key.cert[0].to_vec()
    }

    #[test]
    fn new_files_are_shown_and_broken_ones_are_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = write_pair(dir.path());
        let tls = open(&config, dir.path()).expect("opens").expect("is on");
        let first = shown(&tls);
        tls.refresh();
        assert_eq!(shown(&tls), first);
        // A key that does not fit the certificate, as between the two writes of a renewal.
        let (certificate, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        let old_key = std::fs::read(&key).expect("read");
        std::fs::write(&key, rcgen::KeyPair::generate().expect("a key").serialize_pem()).expect("written");
        tls.refresh();
        assert_eq!(shown(&tls), first);
        std::fs::write(&certificate, "nothing").expect("written");
        tls.refresh();
        assert_eq!(shown(&tls), first);
        std::fs::write(&key, old_key).expect("written");
        write_pair(dir.path());
        tls.refresh();
        assert_ne!(shown(&tls), first);
        assert!(tls.ends() > now());
    }

    #[test]
    fn complaints_name_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = write_pair(dir.path());
        let key = dir.path().join("tls.key");
        std::fs::write(&key, "secret stuff").expect("written");
        let error = open(&config, dir.path()).err().expect("no key").to_string();
        assert!(error.contains("tls.key holds no private key") && !error.contains("secret stuff"), "{error}");
        std::fs::remove_file(&key).expect("removed");
        assert!(matches!(open(&config, dir.path()), Err(TlsError::Unreadable { .. })));
        assert!(open(&TlsConfig::default(), dir.path()).expect("off").is_none());
    }

    #[test]
    fn days_left() {
        assert_eq!(days(10 * 86_400, 0), 10);
        assert_eq!(days(86_399, 0), 0);
        assert_eq!(days(0, 1), -1);
    }
}
