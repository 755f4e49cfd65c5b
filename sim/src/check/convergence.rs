//! Connected honest nodes end with equal catalogs.

use std::collections::{BTreeMap, BTreeSet};

use waystation_proto::{RecordId, Shared, reconcile::Within};

use crate::host::Host;

/// Whether all hosts that have not left know the same of the mesh, and all of them these; and those of each site the
/// same of the site.
pub fn equal(hosts: &[Host], planted: &[Shared]) -> Result<(), String> {
    let there: Vec<&Host> = hosts.iter().filter(|host| !host.left).collect();
    let all = alike(hosts, &there, Within::Mesh)?;
    let mut sites: BTreeMap<&str, Vec<&Host>> = BTreeMap::new();
    there.iter().for_each(|host| sites.entry(host.site()).or_default().push(host));
    for of_site in sites.values() {
        alike(hosts, of_site, Within::Site)?;
    }
    match planted.iter().find(|record| !there.is_empty() && !all.contains(&record.id())) {
        Some(record) => Err(format!("a record of kind {} is known nowhere", record.key.kind.0)),
        None => Ok(()),
    }
}

/// What these hosts know, if all of them do.
fn alike(hosts: &[Host], there: &[&Host], within: Within) -> Result<BTreeSet<RecordId>, String> {
    let catalogs: Vec<BTreeSet<RecordId>> = there.iter().map(|host| ids(host, within)).collect();
    let all: BTreeSet<RecordId> = catalogs.iter().flatten().copied().collect();
    for (host, ids) in there.iter().zip(&catalogs) {
        if *ids != all {
            let missing: Vec<&RecordId> = all.difference(ids).collect();
            return Err(format!("host {} lacks {}", host.number, kinds(hosts, &missing)));
        }
    }
    Ok(all)
}

fn ids(host: &Host, within: Within) -> BTreeSet<RecordId> {
    host.replica().into_iter().flat_map(|replica| replica.catalog().ids(within, 0..=u128::MAX)).collect()
}

/// How many of each kind these are.
fn kinds(hosts: &[Host], ids: &[&RecordId]) -> String {
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for id in ids {
        let mut replicas = hosts.iter().filter_map(Host::replica);
        let record = replicas.find_map(|replica| replica.catalog().by_id(id));
        *counts.entry(record.map_or(0, |record| record.key.kind.0)).or_default() += 1;
    }
    let texts: Vec<String> = counts.iter().map(|(kind, n)| format!("{n} of kind {kind}")).collect();
    texts.join(", ")
}
