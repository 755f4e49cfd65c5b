//! Whether a node is there on the data plane's UDP port: it is dialled anew, from a socket and by a key made for that,
//! so that neither an open connection nor what a NAT remembers of one answers for it.

use std::{net::SocketAddr, time::Duration};

use iroh::{
    Endpoint, EndpointAddr, RelayMode, TransportAddr,
    endpoint::{NetReportConfig, PortmapperConfig, VarInt, presets},
};
use waystation_proto::NodeId;

use super::ALPN;
use crate::identity;

/// Whether at this socket there is that node. Nothing is asked of it but who it is.
pub(crate) async fn answers_as(socket: SocketAddr, node: NodeId) -> bool {
    let Some(id) = identity::endpoint_id(&node) else { return false };
    let own = if socket.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let builder = Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_address_lookup()
        .portmapper_config(PortmapperConfig::Disabled)
        .net_report_config(NetReportConfig::minimal())
        .clear_ip_transports();
    let Ok(builder) = builder.bind_addr(own) else { return false };
    let Ok(endpoint) = builder.bind().await else { return false };
    let address = EndpointAddr::from_parts(id, [TransportAddr::Ip(socket)]);
    let connected = tokio::time::timeout(HANDSHAKE, endpoint.connect(address, ALPN)).await;
    let reached = match connected {
        Ok(Ok(connection)) => {
            connection.close(VarInt::from_u32(0), b"");
            identity::node_of_endpoint(&connection.remote_id()) == node
        }
        _ => false,
    };
    let _ = tokio::time::timeout(CLOSING, endpoint.close()).await;
    reached
}

/// A handshake over a satellite takes two seconds, and three where a packet is lost.
const HANDSHAKE: Duration = Duration::from_secs(4);
const CLOSING: Duration = Duration::from_secs(1);
