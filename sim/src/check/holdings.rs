//! What nodes say about themselves is so, and they say it.

use std::collections::BTreeSet;

use waystation_proto::{Digest, body::HoldingState};

use crate::{content::Content, host::Host};

/// Whether the mesh knows a host, and exactly those artifacts as complete there that it brought there whole.
pub fn told(host: &Host, content: &Content, completed: &BTreeSet<(usize, Digest)>) -> Result<(), String> {
    let Some(catalog) = host.replica().map(|replica| replica.catalog()) else { return Ok(()) };
    if catalog.node(&host.id).is_none_or(|body| body.addresses != [host.address.as_str()]) {
        return Err("is not known by its address".into());
    }
    for artifact in content.artifacts() {
        let manifest = artifact.index.manifest;
        let said = catalog.holders(&manifest).any(|says| says == (host.id, HoldingState::Complete));
        let lacking = artifact.blobs().into_iter().find(|(hash, _)| !host.disk.holds(hash));
        match lacking {
            Some((hash, _)) if said => {
                return Err(format!("says to hold {manifest:?}, but lacks {hash:?}"));
            }
            None if !said && completed.contains(&(host.number, manifest)) => {
                return Err(format!("does not say that it holds {manifest:?}"));
            }
            _ => {}
        }
    }
    Ok(())
}
