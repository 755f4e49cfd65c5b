//! Who may move how much when, on one kind of link in one direction: a bucket for all, one for each class, and
//! a fair order between the classes. Knows no clock and no task: the time is an argument, so that long-run
//! rates are proven in tests without waiting. [`super::pacer`] lets tasks wait for it.

use std::{collections::VecDeque, time::Duration};

use waystation_proto::event::Class;

/// What is allowed, in bytes a second; without limit where absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Of both classes together.
    pub whole: Option<u64>,
    /// What clients wait for.
    pub client: Option<u64>,
    /// What nobody waits for.
    pub background: Option<u64>,
}

impl Allowance {
    /// Whether anything is limited.
    pub fn is_limited(&self) -> bool {
        self.whole.is_some() || self.client.is_some() || self.background.is_some()
    }
}

/// The buckets, and who waits for them. `T` is how a waiter is told.
#[derive(Debug)]
pub struct Shares<T> {
    whole: Bucket,
    lanes: [Lane<T>; 2],
    /// What the class served last had been given before, by weight.
    served: u128,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// This waiter may go on; so many bytes were taken for it.
    Go(Class, u64, T),
    /// Nobody may before so long from now.
    Wait(Duration),
    /// Nobody waits.
    Idle,
}

#[derive(Debug)]
struct Lane<T> {
    bucket: Bucket,
    /// Share of the whole where both classes want more than there is, in percent.
    weight: u8,
    /// Bytes given so far, divided by the weight.
    given: u128,
    waiting: VecDeque<(u64, T)>,
}

/// Bytes that may be moved. May go below zero: what was moved is paid for afterwards.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    rate: Option<u64>,
    /// In billionths of a byte.
    level: i128,
    at: Duration,
}

impl<T> Shares<T> {
    /// Without any limit.
    pub fn unlimited() -> Self {
        let lane = || Lane { bucket: Bucket::default(), weight: 50, given: 0, waiting: VecDeque::new() };
        Shares { whole: Bucket::default(), lanes: [lane(), lane()], served: 0 }
    }

    /// Changes what is allowed, also for those who wait. `reserve` is the share of clients where both classes
    /// want more than there is, in percent.
    pub fn allow(&mut self, now: Duration, allowance: Allowance, reserve: u8) {
        let [client, background] = &mut self.lanes;
        self.whole.set(now, allowance.whole);
        client.bucket.set(now, allowance.client);
        background.bucket.set(now, allowance.background);
        client.weight = reserve.min(100);
        background.weight = 100 - client.weight;
    }

    /// Whether so many bytes may be moved at once, because nobody waits; they are taken then.
    pub fn take_now(&mut self, now: Duration, class: Class, bytes: u64) -> bool {
        let idle = self.lanes.iter().all(|lane| lane.waiting.is_empty());
        let free = idle && self.ready_in(now, slot(class)).is_zero();
        if free {
            self.begin(class);
            self.serve(now, class, bytes);
        }
        free
    }

    /// Waits in line. As many wait as there are transfers.
    pub fn wait(&mut self, class: Class, bytes: u64, waiter: T) {
        if self.lanes[slot(class)].waiting.is_empty() {
            self.begin(class);
        }
        self.lanes[slot(class)].waiting.push_back((bytes, waiter));
    }

    /// Takes bytes that were moved already, without waiting.
    pub fn debit(&mut self, now: Duration, class: Class, bytes: u64) {
        self.whole.take(now, bytes);
        self.lanes[slot(class)].bucket.take(now, bytes);
    }

    /// Gives back what a waiter did not use because it is gone.
    pub fn refund(&mut self, class: Class, bytes: u64) {
        for bucket in [&mut self.whole, &mut self.lanes[slot(class)].bucket] {
            if bucket.rate.is_some() {
                bucket.level += i128::from(bytes) * NANO;
            }
        }
    }

    /// Who may go on now.
    pub fn next(&mut self, now: Duration) -> Next<T> {
        let mut wanting = Vec::with_capacity(2);
        for class in [Class::Client, Class::Background] {
            if !self.lanes[slot(class)].waiting.is_empty() {
                wanting.push((self.ready_in(now, slot(class)), class));
            }
        }
        let ready = wanting.iter().filter(|(wait, _)| wait.is_zero()).map(|(_, class)| *class);
        // Clients come first in the list, and so where both have had as much.
        let chosen = ready.min_by_key(|class| {
            let lane = &self.lanes[slot(*class)];
            (lane.weight == 0, lane.given)
        });
        let Some(class) = chosen else {
            return wanting.iter().map(|(wait, _)| *wait).min().map_or(Next::Idle, Next::Wait);
        };
        match self.lanes[slot(class)].waiting.pop_front() {
            Some((bytes, waiter)) => {
                self.serve(now, class, bytes);
                Next::Go(class, bytes, waiter)
            }
            None => Next::Idle,
        }
    }

    /// A class that wanted nothing for a while has no claim on the time before; but what a client wants first,
    /// which often is all, goes before the rest.
    fn begin(&mut self, class: Class) {
        let lane = &mut self.lanes[slot(class)];
        let ahead = match class {
            Class::Client => u128::from(AHEAD) * 100 / u128::from(lane.weight.max(1)),
            Class::Background => 0,
        };
        lane.given = lane.given.max(self.served.saturating_sub(ahead));
    }

    fn serve(&mut self, now: Duration, class: Class, bytes: u64) {
        self.debit(now, class, bytes);
        let lane = &mut self.lanes[slot(class)];
        if lane.weight > 0 {
            self.served = lane.given;
            lane.given += u128::from(bytes) * 100 / u128::from(lane.weight);
        }
    }

    fn ready_in(&mut self, now: Duration, lane: usize) -> Duration {
        self.whole.ready_in(now).max(self.lanes[lane].bucket.ready_in(now))
    }
}

impl Bucket {
    fn set(&mut self, now: Duration, rate: Option<u64>) {
        if rate == self.rate {
            return;
        }
        self.fill(now);
        // What was saved up, or owed, at another rate does not count.
        (self.rate, self.level, self.at) = (rate, 0, now);
    }

    fn fill(&mut self, now: Duration) {
        let Some(rate) = self.rate else { return };
        let gone = now.saturating_sub(self.at);
        let most = i128::from(rate) * BURST.as_nanos() as i128;
        let come = i128::from(rate) * i128::try_from(gone.as_nanos()).unwrap_or(i128::from(u64::MAX));
        self.level = self.level.saturating_add(come).min(most);
        self.at = self.at.max(now);
    }

    fn take(&mut self, now: Duration, bytes: u64) {
        if self.rate.is_some() {
            self.fill(now);
            self.level -= i128::from(bytes) * NANO;
        }
    }

    fn ready_in(&mut self, now: Duration) -> Duration {
        self.fill(now);
        let Some(rate) = self.rate else { return Duration::ZERO };
        let owed = -self.level.min(0);
        let nanos = (owed + i128::from(rate) - 1) / i128::from(rate.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

fn slot(class: Class) -> usize {
    match class {
        Class::Client => 0,
        Class::Background => 1,
    }
}

/// Bytes that a client's beginning is ahead of the background: manifests, configs, small layers.
const AHEAD: u64 = 256 * 1024;

const NANO: i128 = 1_000_000_000;

/// What may be saved up while nothing is moved, and so made up for when a task was woken late.
const BURST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PIECE: u64 = 16 * 1024;

    /// Greedy streams that each want a piece, and the next one `think` after they got it. Returns what each
    /// class moved in so much simulated time; whoever waits is woken up to `late` after its time.
    fn run(
        shares: &mut Shares<usize>,
        streams: &[(Class, Duration)],
        from: Duration,
        span: Duration,
        late: Duration,
    ) -> [u64; 2] {
        let mut moved = [0; 2];
        let mut now = from;
        let mut wants: Vec<Option<Duration>> = streams.iter().map(|_| Some(from)).collect();
        for _ in 0..10_000_000 {
            for (n, want) in wants.iter_mut().enumerate().filter(|(_, want)| want.is_some_and(|at| at <= now))
            {
                *want = None;
                shares.wait(streams[n].0, PIECE, n);
            }
            let wait = match shares.next(now) {
                Next::Go(class, bytes, n) => {
                    moved[slot(class)] += bytes;
                    wants[n] = Some(now + streams[n].1);
                    continue;
                }
                Next::Wait(wait) => Some(now + wait + late),
                Next::Idle => None,
            };
            let soonest = wants.iter().flatten().min().copied();
            now = [wait, soonest].into_iter().flatten().min().expect("somebody wants something");
            if now >= from + span {
                // Nobody waits on into the next run.
                shares.lanes.iter_mut().for_each(|lane| lane.waiting.clear());
                return moved;
            }
        }
        panic!("it does not come to an end");
    }

    fn limited(whole: u64, reserve: u8) -> Shares<usize> {
        let mut shares = Shares::unlimited();
        shares.allow(Duration::ZERO, Allowance { whole: Some(whole), ..Allowance::default() }, reserve);
        shares
    }

    fn within(got: u64, wanted: f64, percent: f64) {
        let off = (got as f64 - wanted).abs() / wanted * 100.0;
        assert!(off <= percent, "{got} instead of {wanted}: {off:.2} % off");
    }

    const SECOND: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);
    const CLIENT: (Class, Duration) = (Class::Client, Duration::from_micros(50));
    const BACKGROUND: (Class, Duration) = (Class::Background, Duration::from_micros(50));

    #[test]
    fn the_long_run_rate_is_held_within_two_percent() {
        for mbit in [1, 10, 100, 1000] {
            for streams in [1, 2, 32] {
                let rate = mbit * 125_000;
                let streams = vec![BACKGROUND; streams];
                let moved = run(&mut limited(rate, 50), &streams, Duration::ZERO, 10 * SECOND, MS);
                within(moved[1], 10.0 * rate as f64, 2.0);
            }
        }
    }

    #[test]
    fn a_limit_set_under_way_is_held_from_then_on() {
        let mut shares = Shares::unlimited();
        let mut at = Duration::ZERO;
        for mbit in [100, 10, 50, 10] {
            let rate = mbit * 125_000;
            shares.allow(at, Allowance { whole: Some(rate), ..Allowance::default() }, 50);
            let moved = run(&mut shares, &[BACKGROUND; 4], at, 8 * SECOND, MS);
            within(moved[1], 8.0 * rate as f64, 2.0);
            at += 8 * SECOND;
        }
    }

    #[test]
    fn a_client_gets_its_reserve_beside_many_in_the_background() {
        for reserve in [10, 50, 80, 99] {
            let mut streams = vec![BACKGROUND; 31];
            streams.push(CLIENT);
            let moved = run(&mut limited(1_250_000, reserve), &streams, Duration::ZERO, 100 * SECOND, MS);
            let share = 125_000_000.0 * f64::from(reserve) / 100.0;
            assert!(moved[0] as f64 >= share * 0.99, "{moved:?} at {reserve}");
            within(moved[0], share, 3.0);
            within(moved[0] + moved[1], 125_000_000.0, 2.0);
        }
    }

    #[test]
    fn what_a_client_wants_first_goes_before_the_background() {
        let mut shares = limited(1_250_000, 50);
        run(&mut shares, &[BACKGROUND; 8], Duration::ZERO, 10 * SECOND, MS);
        let at = 10 * SECOND;
        let mut streams = vec![BACKGROUND; 8];
        streams.push(CLIENT);
        let moved = run(&mut shares, &streams, at, SECOND / 5, MS);
        assert!(moved[0] >= 15 * PIECE && moved[1] <= 3 * PIECE, "{moved:?}");
        // Only at its beginning.
        let moved = run(&mut shares, &streams, at + SECOND / 5, 20 * SECOND, MS);
        within(moved[0], 12_500_000.0, 3.0);
    }

    #[test]
    fn each_class_takes_what_the_other_leaves() {
        for alone in [CLIENT, BACKGROUND] {
            let moved = run(&mut limited(1_250_000, 50), &[alone; 3], Duration::ZERO, 10 * SECOND, MS);
            within(moved[0] + moved[1], 12_500_000.0, 2.0);
        }
        // A client that wants a fifth of the link gets it, and the background the rest.
        let slow = (Class::Client, Duration::from_nanos(PIECE * 1_000_000_000 / 250_000));
        let moved = run(
            &mut limited(1_250_000, 50),
            &[slow, BACKGROUND, BACKGROUND],
            Duration::ZERO,
            20 * SECOND,
            MS,
        );
        // Each of its pieces waits for one of the background's before it is its turn.
        assert!(moved[0] as f64 >= 20.0 * 250_000.0 * 0.75, "{moved:?}");
        within(moved[0] + moved[1], 25_000_000.0, 2.0);
    }

    #[test]
    fn the_background_waits_for_ever_only_where_all_is_reserved() {
        let moved =
            run(&mut limited(1_250_000, 100), &[CLIENT, CLIENT, BACKGROUND], Duration::ZERO, 10 * SECOND, MS);
        assert!(moved[1] <= 2 * PIECE, "{moved:?}");
        let moved = run(&mut limited(1_250_000, 100), &[BACKGROUND], Duration::ZERO, 10 * SECOND, MS);
        within(moved[1], 12_500_000.0, 2.0);
    }

    #[test]
    fn a_class_has_a_limit_of_its_own() {
        let mut shares = Shares::unlimited();
        let allowance = Allowance { whole: Some(1_250_000), client: None, background: Some(125_000) };
        shares.allow(Duration::ZERO, allowance, 50);
        let moved = run(&mut shares, &[CLIENT, BACKGROUND, BACKGROUND], Duration::ZERO, 20 * SECOND, MS);
        within(moved[1], 2_500_000.0, 2.0);
        within(moved[0], 22_500_000.0, 2.0);
    }

    #[test]
    fn what_was_moved_unasked_is_paid_later_and_gifts_are_bounded() {
        let mut shares = limited(1_250_000, 50);
        shares.debit(Duration::ZERO, Class::Background, 1_250_000);
        let moved = run(&mut shares, &[BACKGROUND], Duration::ZERO, 11 * SECOND, MS);
        within(moved[1], 12_500_000.0, 2.0);
        // An hour of silence gives a tenth of a second of credit.
        let later = Duration::from_secs(3600);
        let moved = run(&mut shares, &[BACKGROUND], later, SECOND, Duration::ZERO);
        assert!(moved[1] <= 1_375_000 + PIECE, "{moved:?}");
        shares.refund(Class::Background, PIECE);
        assert!(!Shares::<()>::unlimited().next(Duration::ZERO).eq(&Next::Wait(SECOND)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_mix_of_streams_moves_more_than_allowed(
            rate in 1000_u64..50_000_000,
            reserve in 0_u8..=100,
            clients in 0_usize..5,
            others in 0_usize..9,
            late in 0_u32..20,
        ) {
            prop_assume!(clients + others > 0);
            let mut streams = vec![CLIENT; clients];
            streams.extend(vec![BACKGROUND; others]);
            let moved = run(&mut limited(rate, reserve), &streams, Duration::ZERO, SECOND, MS * late);
            // One piece may be owed at the end.
            prop_assert!(moved[0] + moved[1] <= rate + rate / 10 + PIECE);
        }
    }
}
