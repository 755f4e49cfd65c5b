//! A link in front of a node: passes its TCP on, and its UDP as far as a test lets it. What it holds back is lost,
//! as on a link that is cut.

use std::{
    collections::BTreeMap,
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
};

/// A link. Its threads end with the process.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Where the node is.
    to: OnceLock<SocketAddr>,
    /// Bytes of UDP that have come from the node and were passed on.
    passed: AtomicU64,
    /// How many may.
    limit: AtomicU64,
}

impl Relay {
    /// An address of this machine, TCP and UDP, that leads nowhere yet. Lets all pass.
    pub fn start() -> Self {
        let (tcp, udp) = (0..100).find_map(|_| bind().ok()).expect("a free port");
        let address = tcp.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        shared.limit.store(u64::MAX, SeqCst);
        let (of_tcp, of_udp) = (shared.clone(), shared.clone());
        thread::spawn(move || pass_connections(&tcp, &of_tcp));
        thread::spawn(move || pass_datagrams(&Arc::new(udp), &of_udp));
        Relay { address, shared }
    }

    /// `host:port`
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Says where it leads. Once.
    pub fn lead_to(&self, address: &str) {
        self.shared.to.set(address.parse().unwrap()).unwrap();
    }

    /// How many more bytes of UDP come from the node; what comes after is lost.
    pub fn let_pass(&self, bytes: u64) {
        self.shared.limit.store(self.shared.passed.load(SeqCst).saturating_add(bytes), SeqCst);
    }
}

fn bind() -> io::Result<(TcpListener, UdpSocket)> {
    let tcp = TcpListener::bind("127.0.0.1:0")?;
    let udp = UdpSocket::bind(tcp.local_addr()?)?;
    Ok((tcp, udp))
}

fn pass_connections(listener: &TcpListener, shared: &Shared) {
    for client in listener.incoming().map_while(Result::ok) {
        let Some(Ok(server)) = shared.to.get().map(TcpStream::connect) else { continue };
        let ends = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
        for (from, to) in ends {
            let (mut from, mut to) = (from.unwrap(), to.unwrap());
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }
}

fn pass_datagrams(here: &Arc<UdpSocket>, shared: &Arc<Shared>) {
    let mut ways: BTreeMap<SocketAddr, UdpSocket> = BTreeMap::new();
    let mut datagram = [0; MAX_DATAGRAM];
    while let Ok((length, from)) = here.recv_from(&mut datagram) {
        let Some(to) = shared.to.get() else { continue };
        let way = ways.entry(from).or_insert_with(|| {
            let way = UdpSocket::bind("127.0.0.1:0").unwrap();
            way.connect(to).unwrap();
            let (back, here, shared) = (way.try_clone().unwrap(), here.clone(), shared.clone());
            thread::spawn(move || pass_back(&back, &here, from, &shared));
            way
        });
        // A node that has ended takes none.
        let _ = way.send(&datagram[..length]);
    }
}

fn pass_back(way: &UdpSocket, here: &UdpSocket, client: SocketAddr, shared: &Shared) {
    let mut datagram = [0; MAX_DATAGRAM];
    loop {
        // What a node that has ended refused shows here; it may come back.
        let Ok(length) = way.recv(&mut datagram) else { continue };
        if shared.passed.load(SeqCst) < shared.limit.load(SeqCst) {
            shared.passed.fetch_add(length as u64, SeqCst);
            let _ = here.send_to(&datagram[..length], client);
        }
    }
}

const MAX_DATAGRAM: usize = 65_536;
