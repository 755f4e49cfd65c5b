//! When nothing goes wrong any more, everything that was begun comes to an end.

use waystation_proto::ReplicaConfig;

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

/// Whether every host has a session with every other, or as many as it keeps.
pub fn connected(hosts: &[Host]) -> Result<(), String> {
    let enough = (hosts.len() - 1).min(ReplicaConfig::default().far_sessions);
    let sessions = |host: &Host| host.replica().map_or(0, |replica| replica.sessions().count());
    match hosts.iter().find(|host| sessions(host) < enough) {
        Some(host) => Err(format!("host {} has {} sessions only", host.number, sessions(host))),
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
