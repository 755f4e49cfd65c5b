//! When nothing goes wrong any more, everything that was begun comes to an end.

use std::collections::BTreeSet;

use crate::{content::Content, host::Host, workload::Workload};

/// Whether every request was answered and every want of content that somebody has is done.
pub fn done(hosts: &[Host], content: &Content, workload: &Workload) -> Result<(), String> {
    if let Some(request) = workload.unanswered().next() {
        return Err(format!("{} requests wait, the first: {request}", workload.unanswered().count()));
    }
    for host in hosts {
        let wants = host.replica().map_or(0, |replica| replica.counts().wants);
        if wants > 0 && everything_is_held(hosts, content) {
            return Err(format!("host {} still wants {wants} blobs, all of which others hold", host.number));
        }
    }
    Ok(())
}

/// Whether every host that runs can be reached from every other over sessions that both ends have.
pub fn connected(hosts: &[Host]) -> Result<(), String> {
    let up: Vec<usize> = hosts.iter().filter(|host| host.is_up()).map(|host| host.number).collect();
    let Some(first) = up.first() else { return Ok(()) };
    let (mut reached, mut next) = (BTreeSet::from([*first]), vec![*first]);
    while let Some(host) = next.pop() {
        for (peer, connection) in hosts[host].peers.iter() {
            if hosts[peer].peers.get(host) == Some(connection) && reached.insert(peer) {
                next.push(peer);
            }
        }
    }
    match up.iter().find(|host| !reached.contains(host)) {
        Some(host) => Err(format!("host {host} cannot be reached from host {first}")),
        None => Ok(()),
    }
}

/// Whether each blob of each artifact that the catalog still has is complete somewhere.
fn everything_is_held(hosts: &[Host], content: &Content) -> bool {
    let catalog = hosts.first().and_then(Host::replica).map(|replica| replica.catalog());
    let known = content.artifacts().iter().filter(|artifact| {
        catalog
            .is_some_and(|catalog| catalog.artifact(&artifact.repository, &artifact.index.manifest).is_some())
    });
    let mut blobs = known.flat_map(|artifact| artifact.blobs());
    blobs.all(|(hash, _)| hosts.iter().any(|host| !host.lies && host.disk.holds(&hash)))
}
