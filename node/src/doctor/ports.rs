//! Ports: whether a running node answers on its own, and whether one that does not run could have its.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    time::Duration,
};

use super::Finding;
use crate::config::Config;

/// Whether something answers where the node says that it listens: registry, admin, mesh.
pub(super) async fn answering(listens: &[SocketAddr; 3]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (address, name) in listens.iter().zip(["clients", "health checks and metrics", "other nodes"]) {
        let target = match address.ip().is_unspecified() {
            true => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
            false => *address,
        };
        let connected = tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(target)).await;
        let todo = "see the node's log, and whether a firewall of this machine is in between";
        found.push(match connected {
            Ok(Ok(_)) => Finding::ok("ports", format!("listens on {address} for {name}")),
            Ok(Err(why)) => {
                Finding::fail("ports", format!("{address} (for {name}) cannot be connected to: {why}"), todo)
            }
            Err(_) => Finding::fail("ports", format!("{address} (for {name}) does not answer"), todo),
        });
    }
    found
}

/// Whether the ports that a node with this configuration would listen on can be had.
pub(super) fn free(config: &Config, data_dir: &Path) -> Vec<Finding> {
    let shared = data_dir.join("mesh.shared").exists();
    let (admin, any) = config.admin_listen();
    let mesh = config.mesh_listen(shared);
    let tcp = |address: SocketAddr| TcpListener::bind(address).map(drop);
    let mut found = vec![
        judge(config.registry.listen, "TCP", "clients", "--listen", tcp(config.registry.listen)),
        judge(mesh, "TCP", "other nodes", "--mesh-listen", tcp(mesh)),
        judge(mesh, "UDP", "other nodes", "--mesh-listen", UdpSocket::bind(mesh).map(drop)),
    ];
    // Another port will do where none was asked for.
    if !any {
        found.push(judge(admin, "TCP", "health checks and metrics", "--admin-listen", tcp(admin)));
    }
    found
}

fn judge(address: SocketAddr, protocol: &str, name: &str, flag: &str, bound: io::Result<()>) -> Finding {
    let Err(why) = bound else {
        return Finding::ok("ports", format!("{address} ({protocol}, for {name}) is free"));
    };
    let todo = format!("stop what uses it, or choose another address with {flag}");
    let holder = (why.kind() == io::ErrorKind::AddrInUse).then(|| holder(protocol, address.port())).flatten();
    let by = holder.map(|name| format!(" by {name}")).unwrap_or_default();
    Finding::fail("ports", format!("{address} ({protocol}, for {name}) cannot be had: {why}{by}"), todo)
}

/// Who holds a port, as far as this user may look: `/proc/net` names the socket, `/proc/PID/fd` its process.
fn holder(protocol: &str, port: u16) -> Option<String> {
    let tables: &[&str] = if protocol == "TCP" { &["tcp", "tcp6"] } else { &["udp", "udp6"] };
    let inodes: Vec<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/net/{table}")).ok())
        .flat_map(|text| inodes(&text, protocol, port))
        .collect();
    for process in fs::read_dir("/proc").ok()?.filter_map(Result::ok).take(PROCESSES_MAX) {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let links =
            files.filter_map(Result::ok).take(FILES_MAX).filter_map(|file| fs::read_link(file.path()).ok());
        let mut sockets = links
            .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()));
        if sockets.any(|inode| inodes.contains(&inode)) {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("process {pid} ({})", command.trim()));
        }
    }
    None
}

/// The sockets of a table in `/proc/net` that listen on a port.
fn inodes(table: &str, protocol: &str, port: u16) -> Vec<String> {
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let found = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (found == port && (protocol == "UDP" || *state == LISTENS)).then(|| (*inode).to_owned())
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

/// TCP_LISTEN in `/proc/net/tcp`.
const LISTENS: &str = "0A";
const PATIENCE: Duration = Duration::from_secs(2);
const PROCESSES_MAX: usize = 100_000;
const FILES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_port_that_is_taken_is_told_with_who_has_it() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("bound");
        let finding = judge(address, "TCP", "clients", "--listen", TcpListener::bind(address).map(drop));
        assert_eq!(finding.level, Level::Fail);
        assert!(finding.what.contains(&format!("process {}", std::process::id())), "{}", finding.what);
        assert_eq!(judge(address, "TCP", "clients", "--listen", Ok(())).level, Level::Ok);
    }

    #[test]
    fn tables_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1\n\
            \x20  1: 0100007F:1388 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4343 1\n";
        assert_eq!(inodes(table, "TCP", 5000), ["4242"]);
        assert!(inodes(table, "TCP", 5001).is_empty() && inodes("junk", "TCP", 1).is_empty());
    }
}
