//! TLS of the OCI endpoint: a CA of the node's own, or certificates from files that change while it runs.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::clients::{image, write_dir};
use crate::harness::clients::{Client, run};
use crate::harness::{
    node::{Node, Options, temp_dir},
    wait::until_true,
};

/// A connection through TLS that stays open.
struct Secure(StreamOwned<ClientConnection, TcpStream>);

impl Secure {
    fn connect(address: &str, ca: &str, protocol: &str) -> std::io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut secure = Secure(StreamOwned::new(connection, stream));
        while secure.0.conn.is_handshaking() {
            secure.0.conn.complete_io(&mut secure.0.sock)?;
        }
        Ok(secure)
    }

    /// The status of `GET /v2/`.
    fn ping(&mut self) -> std::io::Result<u16> {
        self.0.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut answer = vec![];
        while !answer.ends_with(b"\r\n\r\n{}") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            answer.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&answer[9..12]).parse().unwrap())
    }
}

#[test]
fn a_node_makes_its_own_ca_that_clients_can_trust() {
    let mut node = Node::start(Options { extra: vec!["--tls-self-made".into()], ..Options::site("tls") });
    let address = node.ready("listen").to_owned();
    let ca = node.cli(&["tls", "ca"]).expect(0).stdout;
    assert_eq!(Secure::connect(&address, &ca, "http/1.1").unwrap().ping().unwrap(), 200);
    let h2 = Secure::connect(&address, &ca, "h2").unwrap();
    assert_eq!(h2.0.conn.alpn_protocol(), Some(&b"h2"[..]));
    let status = node.status();
    assert!(
        status["access"]["tls"] == true && status["access"]["certificate_days"].as_i64() > Some(300),
        "{status}"
    );
    assert!(node.metric("waystation_tls_certificate_end_seconds") > 0.0);

    // Plain HTTP is told what to do.
    let plain = node.registry().http.get("/v2/").send().expect(400);
    assert!(String::from_utf8_lossy(&plain.body).contains("https://"));

    // The same CA after a restart; another node has another.
    node.stop();
    node.start_again();
    assert_eq!(node.cli(&["tls", "ca"]).expect(0).stdout, ca);
    assert_eq!(Secure::connect(&address, &ca, "http/1.1").unwrap().ping().unwrap(), 200);
    let stranger = Node::start(Options { extra: vec!["--tls-self-made".into()], ..Options::site("tls") });
    assert!(Secure::connect(stranger.ready("listen"), &ca, "http/1.1").is_err());
    let untrusting = Node::start(Options::site("plain"));
    untrusting.cli(&["tls", "ca"]).expect(4);
}

#[test]
fn clients_push_and_pull_through_tls_with_a_login() {
    let folder = temp_dir("tls");
    let users = folder.path().join("users");
    fs::write(&users, format!("ann:{}\n", bcrypt::hash("apple-7", 5).unwrap())).unwrap();
    let extra = vec!["--tls-self-made".into(), "--htpasswd".into(), users.display().to_string()];
    let node = Node::start(Options { extra, ..Options::site("tls") });
    let address = node.ready("listen").to_owned();
    let certs = folder.path().join("certs");
    fs::create_dir(&certs).unwrap();
    fs::write(certs.join("ca.crt"), node.cli(&["tls", "ca"]).expect(0).stdout).unwrap();
    let certs = certs.display().to_string();
    if let Some(skopeo) = Client::find("skopeo", &["--version"]) {
        write_dir(&folder.path().join("in"), &image());
        let copy = ["--insecure-policy", "copy", "--dest-creds", "ann:apple-7", "--dest-cert-dir", &certs];
        let (from, to) =
            (format!("dir:{}/in", folder.path().display()), format!("docker://{address}/a/b:v1"));
        run(Command::new(skopeo.path()).args(copy).arg(&from).arg(&to));
        let untrusting = ["--insecure-policy", "inspect", "--creds", "ann:apple-7"];
        assert!(!Command::new(skopeo.path()).args(untrusting).arg(&to).output().unwrap().status.success());
        if let Some(podman) = Client::find("podman", &["--version"]) {
            podman_pulls(podman.path(), folder.path(), &address, &certs);
        }
    }
    if let Some(curl) = Client::find("curl", &["--version"]) {
        for version in ["--http1.1", "--http2"] {
            let ca = format!("{certs}/ca.crt");
            let url = format!("https://{address}/v2/_catalog");
            let arguments = ["-sS", "--max-time", "30", version, "--cacert", &ca, "-u", "ann:apple-7", &url];
            assert!(run(Command::new(curl.path()).args(arguments)).contains("repositories"), "{version}");
        }
    }
}

#[test]
fn a_new_certificate_is_shown_without_dropping_connections() {
    let folder = temp_dir("files");
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let first = write_pair(&certificate, &key);
    let extra = ["--tls-certificate", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let node = Node::start(Options { extra: extra.map(str::to_owned).to_vec(), ..Options::site("tls") });
    let address = node.ready("listen").to_owned();
    let mut open = Secure::connect(&address, &first, "http/1.1").unwrap();
    assert_eq!(open.ping().unwrap(), 200);

    fs::write(&certificate, "half a cert").unwrap();
    until_true("the broken file is complained about", || node.log().contains("stays as it was"));
    assert_eq!(Secure::connect(&address, &first, "http/1.1").unwrap().ping().unwrap(), 200);

    let second = write_pair(&certificate, &key);
    until_true("the new certificate is shown", || Secure::connect(&address, &second, "http/1.1").is_ok());
    assert!(Secure::connect(&address, &first, "http/1.1").is_err());
    assert_eq!(open.ping().unwrap(), 200);
    node.cli(&["tls", "ca"]).expect(4);
}

fn podman_pulls(podman: &Path, folder: &Path, address: &str, certs: &str) {
    let podman = |arguments: &[&str]| {
        let mut command = Command::new(podman);
        for (flag, name) in [("--root", "root"), ("--runroot", "run")] {
            command.arg(flag).arg(folder.join(name));
        }
        command.env("REGISTRY_AUTH_FILE", folder.join("auth.json"));
        run(command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]).args(arguments))
    };
    podman(&["login", "--cert-dir", certs, "-u", "ann", "-p", "apple-7", address]);
    let there = format!("{address}/a/b:v1");
    podman(&["pull", "--cert-dir", certs, &there]);
    podman(&["push", "--cert-dir", certs, &there, &format!("{address}/a/c:v1")]);
}

/// Writes a certificate for localhost that signs itself, and its key; returns the certificate.
fn write_pair(certificate: &Path, key: &Path) -> String {
    let pair = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let text = params.self_signed(&pair).unwrap().pem();
    fs::write(key, pair.serialize_pem()).unwrap();
    fs::write(certificate, &text).unwrap();
    text
}
