//! Connected honest nodes end with equal catalogs.

use std::collections::{BTreeMap, BTreeSet};

use waystation_proto::{RecordId, Shared};

use crate::host::Host;

/// Whether all hosts that have not left know the same, and all of them these.
pub fn equal(hosts: &[Host], planted: &[Shared]) -> Result<(), String> {
    let there: Vec<&Host> = hosts.iter().filter(|host| !host.left).collect();
    let catalogs: Vec<BTreeSet<RecordId>> = there.iter().map(|host| ids(host)).collect();
    let Some(all) = catalogs.iter().cloned().reduce(|mut all, ids| {
        all.extend(ids);
        all
    }) else {
        return Ok(());
    };
    for (host, ids) in there.iter().zip(&catalogs) {
        if *ids != all {
            let missing: Vec<&RecordId> = all.difference(ids).collect();
            return Err(format!("host {} lacks {}", host.number, kinds(hosts, &missing)));
        }
    }
    match planted.iter().find(|record| !all.contains(&record.id())) {
        Some(record) => Err(format!("a record of kind {} is known nowhere", record.key.kind.0)),
        None => Ok(()),
    }
}

fn ids(host: &Host) -> BTreeSet<RecordId> {
    host.replica().into_iter().flat_map(|replica| replica.catalog().ids(0..=u128::MAX)).collect()
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
