//! Only true bytes are kept under a name, and only records that count are known.

use waystation_proto::{Digest, Hash, RecordId};

use crate::{content::Content, host::Host};

/// Whether a blob may be sealed: it exists, is all here, and the digest is its own.
pub fn seal(
    host: &Host,
    content: &Content,
    hash: &Hash,
    size: u64,
    digest: Option<Digest>,
) -> Result<(), String> {
    let Some(truth) = content.truth(hash) else {
        return Err(format!("{hash:?} is sealed, but does not exist"));
    };
    if truth.size != size || digest.is_some_and(|digest| truth.digest != Some(digest)) {
        return Err(format!("{hash:?} is sealed as {digest:?} with {size} bytes, but is {truth:?}"));
    }
    if !host.disk.have(hash).missing(size).is_empty() {
        return Err(format!("{hash:?} is sealed, but only {} bytes are here", host.disk.have(hash).len()));
    }
    Ok(())
}

/// Whether a host knows none of these records, which must not count.
pub fn clean(host: &Host, garbage: &[RecordId]) -> Result<(), String> {
    let Some(replica) = host.replica() else { return Ok(()) };
    match garbage.iter().find_map(|id| replica.catalog().by_id(id)) {
        Some(record) => {
            Err(format!("knows a record that does not count: {:?} by {:?}", record.key, record.author))
        }
        None => Ok(()),
    }
}
