//! What a node told others, or a client, survives its crash.

use waystation_proto::Shared;

use crate::host::Host;

/// Whether a node that started again still knows its own words, or something newer.
pub fn own_words(host: &Host, before: &[Shared]) -> Result<(), String> {
    let Some(replica) = host.replica() else { return Ok(()) };
    let lost = |record: &&Shared| {
        let known = replica.catalog().get(&record.key);
        !known.is_some_and(|known| known == *record || known.beats(record))
    };
    match before.iter().find(lost) {
        Some(record) => Err(format!("forgot version {} of {:?}", record.version, record.key)),
        None => Ok(()),
    }
}
