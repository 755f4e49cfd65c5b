//! What may go over links to other sites: rates by direction and class, times of the day, and a cap for the
//! month. Owns the limits, the waiting for them and what is spent. Whether to fetch is the planner's, which is
//! told what is allowed; the data plane asks before each step, so that a limit holds within a chunk.

pub mod config;
pub mod meter;
pub mod pacer;
pub mod shares;
pub mod spending;
pub mod status;
pub mod windows;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use waystation_proto::{NodeId, Wall, event::Class};

pub use self::{
    config::{BudgetChange, BudgetConfig, Cap, Limit, Scope},
    meter::{Meter, Pulse, Urgency},
    status::{Blocked, BlockedClass, BudgetStatus},
};
use self::{
    pacer::Pacer,
    spending::{Spending, SpendingError, wall},
    status::class_name,
};
use crate::metrics::{ClassLabel, ClassLabels, Direction, DirectionLabels, Metrics};

/// The node's budget. Clones are the same one.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

/// Which way bytes go, as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From others.
    Down,
    /// To others.
    Up,
}

/// On which site a node says to be; absent where that is not known.
pub type SiteOf = Arc<dyn Fn(&NodeId) -> Option<String> + Send + Sync>;

struct Inner {
    site: String,
    site_of: SiteOf,
    configured: BudgetConfig,
    /// Where what is spent is kept; absent in tests.
    path: Option<PathBuf>,
    began: Instant,
    /// Far down, far up, near down, near up.
    pacers: [Pacer; 4],
    /// Bytes moved since the last look at them, down and up.
    moved: [AtomicU64; 2],
    /// Bytes until nothing more may be fetched from other sites, by class; below zero where nothing may.
    left: [AtomicI64; 2],
    state: Mutex<State>,
}

struct State {
    /// What the node goes by.
    limits: BudgetConfig,
    spending: Spending,
    /// What is on disk.
    saved: Spending,
    /// Sessions with nodes of this site, and with others.
    sessions: (u64, u64),
}

impl Budget {
    /// The budget of a node with this data directory, with what it had spent. A file that cannot be read is put
    /// aside: a node that does not start would be worse than a month that is counted from now.
    pub fn open(config: BudgetConfig, data_dir: &Path, site: &str, site_of: SiteOf) -> Self {
        let path = data_dir.join(FILE);
        let spending = Spending::load(&path).unwrap_or_else(|why| {
            put_aside(&path, &why);
            Spending::new()
        });
        Self::new(config, Some(path), site, site_of, spending)
    }

    /// Without limits, and kept nowhere.
    pub fn unlimited() -> Self {
        Self::new(BudgetConfig::default(), None, "", Arc::new(|_| None), Spending::new())
    }

    fn new(
        config: BudgetConfig,
        path: Option<PathBuf>,
        site: &str,
        site_of: SiteOf,
        spending: Spending,
    ) -> Self {
        let state = State { limits: config.clone(), saved: spending.clone(), spending, sessions: (0, 0) };
        let budget = Budget(Arc::new(Inner {
            site: site.to_owned(),
            site_of,
            configured: config,
            path,
            began: Instant::now(),
            pacers: [Pacer::unlimited(), Pacer::unlimited(), Pacer::unlimited(), Pacer::unlimited()],
            moved: Default::default(),
            left: [AtomicI64::new(ENDLESS), AtomicI64::new(ENDLESS)],
            state: Mutex::new(state),
        }));
        budget.pace(&mut budget.state());
        budget.look(wall());
        budget
    }

    /// Counts and paces a transfer from or to a node.
    pub fn meter(&self, peer: &NodeId, way: Way, urgency: impl Into<Urgency>) -> Meter {
        let far = self.is_far(peer);
        let pacer = match (far, way) {
            (true, Way::Down) => 0,
            (true, Way::Up) => 1,
            (false, Way::Down) => 2,
            (false, Way::Up) => 3,
        };
        Meter::new(self.clone(), self.0.pacers[pacer].clone(), far, way, urgency.into())
    }

    /// Whether a node is on another site, or on none that is known.
    pub fn is_far(&self, peer: &NodeId) -> bool {
        (self.0.site_of)(peer).is_none_or(|site| site != self.0.site)
    }

    /// Why a fetch of this class from another site may not begin now.
    pub fn blocks(&self, class: Class) -> Option<Blocked> {
        self.is_blocked(class).then(|| self.state().blocked(class, self.moved(), wall())).flatten()
    }

    /// Whether a fetch of this class from another site may not begin now, quickly.
    pub fn is_blocked(&self, class: Class) -> bool {
        self.0.left[slot(class)].load(Relaxed) < 0
    }

    /// Whether a node that asks for bytes is not to get them: nobody beyond the site, once all is spent. Of which
    /// class its fetch is, it does not say.
    pub fn refuses(&self, peer: &NodeId) -> bool {
        self.is_blocked(Class::Client) && self.is_far(peer)
    }

    /// Takes note of who is connected: so many nodes of this site, and so many others.
    pub fn connected(&self, near: u64, far: u64) {
        let mut state = self.state();
        if std::mem::replace(&mut state.sessions, (near, far)).0 != near {
            self.pace(&mut state);
        }
    }

    /// Counts messages of the control plane: as much of them as there are sessions that lead to other sites.
    pub fn control(&self, down: u64, up: u64) {
        let (near, far) = self.state().sessions;
        let part = |bytes: u64| bytes.saturating_mul(far) / (near + far).max(1);
        self.count(Way::Down, part(down));
        self.count(Way::Up, part(up));
    }

    /// Looks at the clock and at what was moved. To be called every second or so.
    pub fn look(&self, wall: Wall) {
        let mut state = self.state();
        let [down, up] = self.moved();
        self.0.moved[0].fetch_sub(down, Relaxed);
        self.0.moved[1].fetch_sub(up, Relaxed);
        state.spending.down = state.spending.down.saturating_add(down);
        state.spending.up = state.spending.up.saturating_add(up);
        let day = state.limits.month_day;
        if state.spending.look(self.0.began.elapsed(), wall, day) {
            info!(since = state.spending.since(day), "a new month of the budget begins");
        }
        for class in [Class::Client, Class::Background] {
            let left = state.left(class, wall);
            self.0.left[slot(class)].store(left, Relaxed);
        }
    }

    /// Changes limits until the node stops or [`Budget::reset`]; the errors are sentences.
    pub fn change(&self, change: BudgetChange) -> Result<(), Vec<String>> {
        let mut wrong = Vec::new();
        {
            let mut state = self.state();
            let limits = state.limits.with(change);
            limits.complain(&mut wrong);
            if !wrong.is_empty() {
                return Err(wrong);
            }
            state.limits = limits;
            self.pace(&mut state);
        }
        self.look(wall());
        info!("the limits of the budget were changed");
        Ok(())
    }

    /// Goes by the configuration again; with `spent`, also forgets what was spent.
    pub fn reset(&self, spent: bool) {
        {
            let mut state = self.state();
            state.limits = self.0.configured.clone();
            self.pace(&mut state);
        }
        self.look(wall());
        if spent {
            let day = self.0.configured.month_day;
            self.state().spending.forget(wall(), day);
            self.look(wall());
        }
        info!(spent, "the budget was reset");
    }

    /// What it is and does.
    pub fn status(&self) -> BudgetStatus {
        self.look(wall());
        let blocked = [Class::Client, Class::Background].into_iter().filter_map(|class| {
            let why = self.blocks(class)?.to_string();
            Some(BlockedClass { class: class_name(class).to_owned(), why })
        });
        let blocked = blocked.collect();
        let state = self.state();
        BudgetStatus {
            limits: state.limits.clone(),
            changed: state.limits != self.0.configured,
            site_nodes: state.nodes(),
            monthly_bytes: state.limits.cap(state.nodes()).map(|(cap, _)| cap),
            since: state.spending.since(state.limits.month_day),
            spent_down: state.spending.down,
            spent_up: state.spending.up,
            blocked,
        }
    }

    /// Brings the metrics up to date.
    pub fn show(&self, metrics: &Metrics) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let state = self.state();
        let [down, up, ..] = state.limits.allowances(state.nodes());
        let ways =
            [(Direction::In, state.spending.down, down.whole), (Direction::Out, state.spending.up, up.whole)];
        for (direction, spent, rate) in ways {
            let labels = DirectionLabels { direction };
            metrics.budget_spent.get_or_create(&labels).set(gauge(spent));
            match rate {
                Some(rate) => {
                    metrics.budget_rate.get_or_create(&labels).set(gauge(rate));
                }
                None => {
                    metrics.budget_rate.remove(&labels);
                }
            }
        }
        metrics.budget_cap.set(gauge(state.limits.cap(state.nodes()).map_or(0, |(cap, _)| cap)));
        for (class, label) in
            [(Class::Client, ClassLabel::Client), (Class::Background, ClassLabel::Background)]
        {
            let blocked = metrics.budget_blocked.get_or_create(&ClassLabels { class: label }).clone();
            blocked.set(i64::from(self.is_blocked(class)));
        }
    }

    /// Writes what was spent, if anything was since the last time. Blocks.
    pub fn save(&self) {
        let Some(path) = &self.0.path else { return };
        self.look(wall());
        let spending = self.state().spending.clone();
        if self.state().saved.total() == spending.total() && self.state().saved.since(1) == spending.since(1)
        {
            return;
        }
        match spending.save(path) {
            Ok(()) => self.state().saved = spending,
            Err(why) => error!(
                path = %path.display(), %why,
                "what was spent of the budget cannot be written, and a restart would forget it; free space"
            ),
        }
    }

    /// Writes what was spent every minute, until `stop`.
    pub async fn keep(self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(SAVE_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            let budget = self.clone();
            // Fails only where it panicked, which is logged.
            let _ = tokio::task::spawn_blocking(move || budget.save()).await;
        }
    }

    /// Counts bytes that went over a link to another site.
    fn count(&self, way: Way, bytes: u64) {
        self.0.moved[usize::from(way == Way::Up)].fetch_add(bytes, Relaxed);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX / 4);
        for left in &self.0.left {
            left.fetch_sub(bytes, Relaxed);
        }
    }

    /// Not yet part of what is known to be spent.
    fn moved(&self) -> [u64; 2] {
        [self.0.moved[0].load(Relaxed), self.0.moved[1].load(Relaxed)]
    }

    fn pace(&self, state: &mut State) {
        let allowances = state.limits.allowances(state.nodes());
        for (pacer, allowance) in self.0.pacers.iter().zip(allowances) {
            pacer.allow(allowance, state.limits.client_share);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Live nodes of the site, this one included.
    fn nodes(&self) -> u64 {
        self.sessions.0 + 1
    }

    /// Bytes that a class may still move; below zero where it may not.
    fn left(&self, class: Class, wall: Wall) -> i64 {
        if self.blocked(class, [0, 0], wall).is_some() {
            return -1;
        }
        match self.limits.cap(self.nodes()) {
            Some(_) if class == Class::Client && !self.limits.hard => ENDLESS,
            Some((cap, reserve)) => {
                let cap = if class == Class::Client { cap } else { cap - reserve };
                // The last byte is spent when none is left.
                i64::try_from(cap.saturating_sub(self.spending.total())).map_or(ENDLESS, |left| left - 1)
            }
            None => ENDLESS,
        }
    }

    fn blocked(&self, class: Class, moved: [u64; 2], wall: Wall) -> Option<Blocked> {
        let spent = moved.iter().fold(self.spending.total(), |sum, bytes| sum.saturating_add(*bytes));
        if let Some((cap, reserve)) = self.limits.cap(self.nodes()) {
            let since = self.spending.since(self.limits.month_day);
            match class {
                Class::Client if spent >= cap && self.limits.hard => {
                    return Some(Blocked::Spent { spent, cap, since });
                }
                Class::Background if spent >= cap => return Some(Blocked::Spent { spent, cap, since }),
                Class::Background if spent >= cap - reserve => {
                    return Some(Blocked::Reserved { spent, cap, reserve });
                }
                _ => {}
            }
        }
        let windows = &self.limits.windows;
        if class == Class::Client || windows.is_empty() {
            return None;
        }
        if !wall.is_plausible() {
            return Some(Blocked::NoClock);
        }
        let open = windows.iter().any(|window| window.is_open(wall));
        (!open).then(|| Blocked::Closed { windows: windows.clone() })
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Budget({:?})", self.state().limits)
    }
}

/// So that what was spent may be looked up by hand.
fn put_aside(path: &Path, why: &SpendingError) {
    let aside = path.with_extension("broken");
    let kept = std::fs::rename(path, &aside).is_ok();
    warn!(
        path = %path.display(), %why, aside = kept.then(|| aside.display().to_string()),
        "what was spent of the budget cannot be read; the month is counted from now"
    );
}

fn slot(class: Class) -> usize {
    match class {
        Class::Client => 0,
        Class::Background => 1,
    }
}

/// In the data directory.
const FILE: &str = "budget.spent";
/// What a crash can forget.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);
/// Left where nothing is capped.
const ENDLESS: i64 = i64::MAX / 2;

#[cfg(test)]
mod tests;
