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

/// The TCP socket of a multiaddr, whatever follows it.
pub(crate) fn to_socket(address: &Multiaddr) -> Option<SocketAddr> {
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
}
