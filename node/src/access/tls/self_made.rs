//! A CA of the node's own, for networks without one: its key and certificate stay in the data directory,
//! the certificate for the listener is made anew at each start, before it ends, and when names change.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, UdpSocket},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use waystation_proto::Wall;
use zeroize::Zeroizing;

use super::{Current, TlsError, ends, usable};
use crate::identity::{Existing, read_bounded, write_private};

/// Says what clients call this node: host names and addresses.
pub type Names = Box<dyn Fn() -> Vec<String> + Send + Sync>;

/// The CA, and what its present certificate was made for.
pub struct SelfMade {
    issuer: Issuer<'static, KeyPair>,
    path: PathBuf,
    names: Names,
    made: Option<Made>,
}

struct Made {
    names: BTreeSet<String>,
    /// In seconds since 1970.
    renew: u64,
    /// Whether the clock could be believed.
    dated: bool,
    looked: Instant,
}

impl SelfMade {
    /// The CA of this data directory; makes one where there is none.
    pub fn open(data_dir: &Path, names: Names) -> Result<Self, TlsError> {
        let path = ca_path(data_dir);
        let dir = path.parent().unwrap_or(data_dir);
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(why) if why.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(TlsError::Unwritable { path: dir.to_owned(), why });
            }
            _ => {}
        }
        let key_path = dir.join(CA_KEY);
        if path.exists() && !key_path.exists() {
            let advice =
                "restore it, or move the directory away to make a new CA that clients must trust anew";
            return Err(TlsError::Malformed { path: key_path, what: "private key of the node's CA", advice });
        }
        let key = ca_key(&key_path)?;
        if !path.exists() {
            // The power may have failed after the key was written: then this is its certificate.
            let text = ca_certificate(&key, &path)?;
            let unwritable = |why| TlsError::Unwritable { path: path.clone(), why };
            write_private(&path, &text, Existing::Replace).map_err(unwritable)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(unwritable)?;
        }
        let text = read_ca(data_dir)?;
        let issuer = Issuer::from_ca_cert_pem(&text, key).map_err(|_| malformed(&path))?;
        Ok(SelfMade { issuer, path, names, made: None })
    }

    /// A certificate for the present names. `now` in seconds since 1970.
    pub(super) fn issue(&mut self, now: u64) -> Result<Current, TlsError> {
        let unusable = |why: String| TlsError::Unusable { certificate: self.path.clone(), why };
        let names = self.present_names();
        let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())
            .map_err(|error| unusable(error.to_string()))?;
        params.distinguished_name.push(DnType::CommonName, "Waystation");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let dated = Wall(now).is_plausible();
        if dated {
            let day = |seconds: u64| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
            params.not_before = day(now - DAY);
            params.not_after = day(now + LIFE);
        } else {
            // A board whose clock was never set: good at any time, and made anew once the clock is right.
            (params.not_before, params.not_after) = (date_time_ymd(1970, 1, 1), date_time_ymd(CA_END, 1, 1));
        }
        let key = KeyPair::generate().map_err(|error| unusable(error.to_string()))?;
        let certificate =
            params.signed_by(&key, &self.issuer).map_err(|error| unusable(error.to_string()))?.der().clone();
        let ends = ends(&certificate).ok_or_else(|| malformed(&self.path))?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let current = usable(vec![certificate], key, ends).map_err(unusable)?;
        self.made = Some(Made { names, renew: now + LIFE / 3 * 2, dated, looked: Instant::now() });
        Ok(current)
    }

    /// Whether it is time for another certificate.
    pub fn is_due(&mut self, now: u64) -> bool {
        let Some(made) = &self.made else { return true };
        let set_since = Wall(now).is_plausible() && (!made.dated || now >= made.renew);
        if set_since {
            return true;
        }
        if made.looked.elapsed() < LOOK_INTERVAL {
            return false;
        }
        let names = self.present_names();
        let Some(made) = &mut self.made else { return true };
        made.looked = Instant::now();
        // Names that went do no harm; an interface that comes and goes must not make certificates.
        !names.is_subset(&made.names)
    }

    fn present_names(&self) -> BTreeSet<String> {
        let own = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let addresses = outward().into_iter().map(|ip| ip.to_string());
        let all = own.into_iter().chain([host]).chain(addresses).chain((self.names)());
        let nameable = |name: &String| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:*".contains(&b))
        };
        all.filter(nameable).collect()
    }
}

/// Where the certificate of a node's own CA is, for clients to trust.
pub fn ca_path(data_dir: &Path) -> PathBuf {
    data_dir.join("tls").join(CA_CERTIFICATE)
}

/// The certificate of a node's own CA, in PEM form.
pub fn read_ca(data_dir: &Path) -> Result<String, TlsError> {
    let path = ca_path(data_dir);
    read_bounded(&path, super::PEM_MAX).map_err(|why| TlsError::Unreadable { path, why })
}

/// The addresses that the system would send from. Connecting a UDP socket chooses one and sends nothing;
/// the targets are reserved for documentation.
pub fn outward() -> Vec<IpAddr> {
    let from = |bind: &str, target: &str| -> Option<IpAddr> {
        let socket = UdpSocket::bind(bind).ok()?;
        socket.connect(target).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    };
    [from("0.0.0.0:0", "192.0.2.1:9"), from("[::]:0", "[2001:db8::1]:9")].into_iter().flatten().collect()
}

fn ca_key(path: &Path) -> Result<KeyPair, TlsError> {
    let malformed = || {
        let advice = "restore it, or move the directory away to make a new CA that clients must trust anew";
        TlsError::Malformed { path: path.to_owned(), what: "private key of the node's CA", advice }
    };
    if path.exists() {
        let text = read_bounded(path, super::PEM_MAX)
            .map_err(|why| TlsError::Unreadable { path: path.to_owned(), why })?;
        return KeyPair::from_pem(&Zeroizing::new(text)).map_err(|_| malformed());
    }
    let key = KeyPair::generate().map_err(|_| malformed())?;
    let text = Zeroizing::new(key.serialize_pem());
    write_private(path, &text, Existing::Keep)
        .map_err(|why| TlsError::Unwritable { path: path.to_owned(), why })?;
    Ok(key)
}

/// Good from 1970 on, so that boards without a clock can use it from the first minute.
fn ca_certificate(key: &KeyPair, path: &Path) -> Result<String, TlsError> {
    let mut params = CertificateParams::default();
    let mark = blake3::hash(key.public_key_raw()).to_hex();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("Waystation node CA {}", &mark[..8]));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (date_time_ymd(1970, 1, 1), date_time_ymd(CA_END, 1, 1));
    params.self_signed(key).map(|certificate| certificate.pem()).map_err(|_| malformed(path))
}

fn malformed(path: &Path) -> TlsError {
    let advice = "restore it, or move the directory away to make a new CA that clients must trust anew";
    TlsError::Malformed { path: path.to_owned(), what: "certificate of the node's CA", advice }
}

const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
/// The year in which the CA ends: devices outlive plans.
const CA_END: i32 = 2099;
const DAY: u64 = 24 * 3600;
/// Of the listener's certificate. Some clients refuse more than 398 days.
const LIFE: u64 = 397 * DAY;
/// How often names are looked up.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::MetadataExt, sync::Arc};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn open(dir: &Path, names: &[&str]) -> SelfMade {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        SelfMade::open(dir, Box::new(move || names.clone())).expect("opens")
    }

    /// Whether a client that trusts this CA takes the certificate under that name.
    fn trusted(ca: &str, current: &Current, name: &str, now: u64) -> bool {
        use rustls::pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("a certificate")).expect("added");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let time = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let verifier: Arc<dyn rustls::client::danger::ServerCertVerifier> = verifier.expect("roots");
        verifier.verify_server_cert(&current.key.cert[0], &[], &name, &[], time).is_ok()
    }

    #[test]
    fn its_certificates_are_trusted_by_who_trusts_the_ca() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut own = open(dir.path(), &["node.example", "192.0.2.7", "", "bad name"]);
        let current = own.issue(NOW).expect("made");
        let ca = read_ca(dir.path()).expect("there");
        for name in ["node.example", "192.0.2.7", "localhost", "127.0.0.1", "::1"] {
            assert!(trusted(&ca, &current, name, NOW), "{name}");
        }
        assert!(!trusted(&ca, &current, "other.example", NOW));
        assert!(!trusted(&ca, &current, "localhost", NOW + LIFE + 1));
        let mode =
            |name: &str| fs::metadata(dir.path().join("tls").join(name)).expect("there").mode() & 0o777;
        assert_eq!((mode(CA_KEY), mode(CA_CERTIFICATE)), (0o600, 0o644));
        // The same CA after a restart.
        let again = open(dir.path(), &[]).issue(NOW).expect("made");
        assert_eq!(read_ca(dir.path()).expect("there"), ca);
        assert!(trusted(&ca, &again, "localhost", NOW));
    }

    #[test]
    fn is_made_anew_before_it_ends_and_once_the_clock_is_right() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut own = open(dir.path(), &[]);
        let unset = own.issue(100).expect("made");
        let ca = read_ca(dir.path()).expect("there");
        assert!(trusted(&ca, &unset, "localhost", 100) && trusted(&ca, &unset, "localhost", NOW));
        assert!(!own.is_due(200) && own.is_due(NOW));
        own.issue(NOW).expect("made");
        assert!(!own.is_due(NOW + LIFE / 2) && own.is_due(NOW + LIFE / 3 * 2));
        own.made.as_mut().expect("made").names.remove("localhost");
        own.made.as_mut().expect("made").looked -= LOOK_INTERVAL;
        assert!(own.is_due(NOW) && !own.is_due(NOW));
    }

    #[test]
    fn half_a_ca_is_completed_or_complained_about() {
        let dir = tempfile::tempdir().expect("a directory");
        open(dir.path(), &[]);
        fs::remove_file(ca_path(dir.path())).expect("removed");
        open(dir.path(), &[]).issue(NOW).expect("made");
        fs::remove_file(dir.path().join("tls").join(CA_KEY)).expect("removed");
        let error = SelfMade::open(dir.path(), Box::new(Vec::new)).err().expect("no key").to_string();
        assert!(error.contains("ca.key"), "{error}");
    }
}
