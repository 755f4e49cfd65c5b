//! What may stand in the way of a fetch, as explanations ask it: the disk and the budget.

use std::sync::Arc;

use waystation_proto::event::Class;

use super::rand_seed;
use crate::{
    budget::Budget,
    config::Config,
    data::Counting,
    explain::{Blocker, Insight, Wanted},
    store::Store,
};

/// What the node knows of its own doing.
pub(super) fn insight(config: &Config, store: &Store, budget: &Budget, data: &Counting) -> Insight {
    let blockers: Vec<Arc<dyn Blocker>> = vec![Arc::new(store.clone()), Arc::new(budget.clone())];
    let (came, run) = (data.clone(), rand_seed() & 0xffff_ffff);
    let insight = Insight::new(run, config.registry.names.clone(), blockers);
    Insight { came: Arc::new(move || came.who_came()), ..insight }
}

impl Blocker for Store {
    fn blocks(&self, wanted: &Wanted<'_>) -> Option<String> {
        let full = wanted.from.is_none() && !self.has_room(wanted.size);
        full.then(|| "the disk of the data directory has no room for it; free some".to_owned())
    }
}

impl Blocker for Budget {
    fn blocks(&self, wanted: &Wanted<'_>) -> Option<String> {
        let far = wanted.from.is_some_and(|place| place.kind == "member" && place.far);
        far.then(|| self.blocks(Class::Client)).flatten().map(|blocked| blocked.to_string())
    }
}
