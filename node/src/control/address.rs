//! Addresses as people, libp2p and sockets write them: `host:port`, multiaddr, socket address.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use libp2p::{Multiaddr, multiaddr::Protocol};

/// The multiaddr of a TCP socket.
pub(crate) fn to_multiaddr(socket: SocketAddr) -> Multiaddr {
    Multiaddr::from(socket.ip()).with(Protocol::Tcp(socket.port()))
}

/// The TCP socket of a multiaddr, whatever follows it. None where that only leads to a relay.
pub(crate) fn to_socket(address: &Multiaddr) -> Option<SocketAddr> {
    let is_relayed = address.iter().any(|part| part == Protocol::P2pCircuit);
    to_socket_before_circuit(address).filter(|_| !is_relayed)
}

/// The same, or the relay's.
pub(crate) fn to_socket_before_circuit(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// The multiaddr of `host:port`, also where the host is a name.
pub(crate) fn endpoint(text: &str) -> Option<Multiaddr> {
    if let Ok(socket) = text.parse() {
        return Some(to_multiaddr(socket));
    }
    let (host, port) = text.rsplit_once(':')?;
    Some(Multiaddr::from(Protocol::Dns(host.to_owned().into())).with(Protocol::Tcp(port.parse().ok()?)))
}

/// Whether text of a node's record leads to it through a relay.
pub(crate) fn is_relayed(text: &str) -> bool {
    text.starts_with('/')
}

/// A relayed address with the relay's name resolved.
pub(crate) async fn resolve_relayed(text: &str) -> io::Result<Vec<Multiaddr>> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "it is not an address over a relay");
    let address: Multiaddr = text.parse().map_err(|_| invalid())?;
    let parts: Vec<Protocol<'_>> = address.iter().collect();
    let [first, Protocol::Tcp(port), rest @ ..] = &parts[..] else { return Err(invalid()) };
    if !matches!(rest, [Protocol::P2p(_), Protocol::P2pCircuit]) {
        return Err(invalid());
    }
    let sockets = match first {
        Protocol::Dns(host) => resolve(&format!("{host}:{port}")).await?,
        _ => to_socket_before_circuit(&address).into_iter().collect(),
    };
    let through = |socket| rest.iter().cloned().fold(to_multiaddr(socket), Multiaddr::with);
    Ok(sockets.into_iter().map(through).collect())
}

/// For people: `host:port` where it is a TCP socket, else as libp2p writes it.
pub(crate) fn text(address: &Multiaddr) -> String {
    to_socket(address).map_or_else(|| address.to_string(), |socket| socket.to_string())
}

/// Where `host:port` is: one or more sockets, at most [`RESOLVED_MAX`], without repetitions.
pub(crate) async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    let lookup = tokio::net::lookup_host(address);
    let found = tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("no answer from DNS within {RESOLVE_TIMEOUT:?}"))
    })??;
    let mut sockets = Vec::new();
    for socket in found {
        if sockets.len() < RESOLVED_MAX && !sockets.contains(&socket) {
            sockets.push(socket);
        }
    }
    if sockets.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(sockets)
}

/// This machine's address on the network that leads to all others, if there is one.
pub(crate) fn outward() -> Option<IpAddr> {
    // To this address (RFC 5737) nobody ever answers.
    own_towards(Ipv4Addr::new(192, 0, 2, 1).into())
}

/// This machine's address on the way to another.
pub(crate) fn own_towards(other: IpAddr) -> Option<IpAddr> {
    let any =
        if other.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
    // Only asks for the route; nothing is sent.
    socket.connect((other, 9)).ok()?;
    socket.local_addr().ok().map(|own| own.ip())
}

/// Sockets of one name that are tried.
const RESOLVED_MAX: usize = 8;

/// A dial should not wait longer for DNS than for a peer.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiaddrs_and_sockets_fit() {
        for text in ["127.0.0.1:4717", "[::1]:1"] {
            let socket: SocketAddr = text.parse().expect("valid");
            let multiaddr = to_multiaddr(socket);
            assert_eq!(to_socket(&multiaddr), Some(socket));
            assert_eq!(super::text(&multiaddr), text);
            let with_peer = multiaddr.with(Protocol::P2p(libp2p::PeerId::random()));
            assert_eq!(to_socket(&with_peer), Some(socket));
        }
        for (text, written) in
            [("192.0.2.1:80", "/ip4/192.0.2.1/tcp/80"), ("a.example:80", "/dns/a.example/tcp/80")]
        {
            assert_eq!(endpoint(text).map(|address| address.to_string()).as_deref(), Some(written));
        }
        let udp: Multiaddr = "/ip4/1.2.3.4/udp/5".parse().expect("valid");
        assert_eq!(to_socket(&udp), None);
        assert_eq!(text(&udp), "/ip4/1.2.3.4/udp/5");
    }

    #[tokio::test]
    async fn resolves_literals_and_refuses_the_rest() {
        assert_eq!(resolve("127.0.0.1:80").await.expect("literal"), ["127.0.0.1:80".parse().expect("valid")]);
        for bad in ["", "no-port", "127.0.0.1:99999"] {
            assert!(resolve(bad).await.is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn relayed_addresses_are_one_relay_and_nothing_else() {
        let relay = libp2p::PeerId::random();
        let text = format!("/ip4/192.0.2.1/tcp/4717/p2p/{relay}/p2p-circuit");
        let resolved = resolve_relayed(&text).await.expect("valid");
        assert_eq!((resolved.len(), resolved[0].to_string()), (1, text.clone()));
        assert_eq!(to_socket(&resolved[0]), None);
        let named = resolve_relayed(&text.replace("ip4/192.0.2.1", "dns/localhost")).await.expect("valid");
        assert!(
            named
                .iter()
                .all(|address| to_socket_before_circuit(address).is_some_and(|s| s.ip().is_loopback()))
        );
        for bad in
            ["", "/", "/ip4/192.0.2.1/tcp/1", &format!("{text}/p2p/{relay}"), &format!("{text}/p2p-circuit")]
        {
            assert!(resolve_relayed(bad).await.is_err(), "{bad}");
        }
    }
}
