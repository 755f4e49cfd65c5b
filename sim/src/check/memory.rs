//! What nodes keep grows with what there is to know, and with nothing else: neither rogues nor repetition, restarts
//! or time fill catalogs and disks.

use waystation_proto::leases::Leases;

use crate::host::Host;

/// What there is to know in a world.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Nodes that ever were.
    pub nodes: usize,
    /// Artifacts that were ever pushed.
    pub artifacts: usize,
    /// Tags that were ever written.
    pub tags: usize,
    /// Records that count, of members that the world does not run.
    pub planted: usize,
}

impl Known {
    /// Most records that a catalog can have: what nodes say about themselves, grants, tags, and of each artifact
    /// where it is, in what state, and what each node has of it, as it tells its site and perhaps the mesh.
    pub fn records_max(self) -> usize {
        2 * self.nodes + self.tags + self.artifacts * (2 + 2 * self.nodes) + self.planted
    }
}

/// Whether a host keeps no more than that, in memory and on disk.
pub fn within(host: &Host, known: Known) -> Result<(), String> {
    let Some(replica) = host.replica() else { return Ok(()) };
    let (records, most) = (replica.catalog().len(), known.records_max());
    if records > most {
        return Err(format!("knows {records} records, but there are {most} at most to know"));
    }
    // Notes for itself: one for each promise that it may give, one for each artifact that was pinned.
    let (kept, notes) = (host.disk.count(), Leases::GIVEN_MAX + known.artifacts);
    if kept > most + notes {
        return Err(format!("keeps {kept} records on disk, but there are {} at most to keep", most + notes));
    }
    Ok(())
}
