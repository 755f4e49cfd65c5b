//! What nodes say about themselves is so, and they say it; and of each site that has an artifact, everybody knows a
//! holder.

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

/// Whether every host knows, of each site with a host that has an artifact, one such host.
pub fn found(hosts: &[Host], content: &Content) -> Result<(), String> {
    let there = || hosts.iter().filter(|host| !host.left && host.is_up());
    for artifact in content.artifacts() {
        let manifest = artifact.index.manifest;
        let says = |host: &Host, whom: &Host| {
            let catalog = host.replica().map(|replica| replica.catalog());
            let mut said = catalog.into_iter().flat_map(|catalog| catalog.summaries(&manifest));
            said.any(|(node, state, _)| node == whom.id && state == HoldingState::Complete)
        };
        let holds = |host: &&Host| {
            let catalog = host.replica().map(|replica| replica.catalog());
            catalog.is_some_and(|known| known.holding(&manifest, &host.id) == Some(HoldingState::Complete))
        };
        let holders: Vec<&Host> = there().filter(holds).collect();
        let sites: BTreeSet<&str> = holders.iter().map(|host| host.site()).collect();
        for (site, host) in sites.iter().flat_map(|site| there().map(move |host| (site, host))) {
            let mut of_site = holders.iter().filter(|holder| holder.site() == *site);
            if !of_site.any(|holder| says(host, holder)) {
                let number = host.number;
                return Err(format!(
                    "host {number} knows no holder of {manifest:?} on site {site}, which has one"
                ));
            }
        }
    }
    Ok(())
}
