//! Budgets as a whole: what is blocked when, what a restart keeps, and how transfers are held.

use super::*;

const FAR: NodeId = NodeId([2; 32]);
const NEAR: NodeId = NodeId([3; 32]);

fn config(text: &str) -> BudgetConfig {
    toml::from_str(text).expect("valid")
}

fn open(text: &str, dir: &Path) -> Budget {
    let site_of: SiteOf = Arc::new(|node| {
        [(FAR, "there"), (NEAR, "here")].into_iter().find(|(n, _)| n == node).map(|(_, s)| s.to_owned())
    });
    Budget::open(config(text), dir, "here", site_of)
}

fn blocked(budget: &Budget) -> (bool, bool) {
    (budget.blocks(Class::Client).is_some(), budget.blocks(Class::Background).is_some())
}

#[tokio::test]
async fn the_background_stops_before_the_reserve_and_clients_at_the_cap() {
    let dir = tempfile::tempdir().expect("a directory");
    let budget = open("monthly = \"1 MB\"\nmonthly_reserve = \"400 kB\"", dir.path());
    let mut down = budget.meter(&FAR, Way::Down, Class::Background);
    assert_eq!(down.pay().await, Ok(()));
    down.moved(500_000);
    budget.meter(&FAR, Way::Up, Class::Client).moved(99_999);
    assert_eq!(blocked(&budget), (false, false));
    // Known at once, also before anybody has looked.
    down.moved(1);
    assert_eq!(blocked(&budget), (false, true));
    assert!(matches!(down.pay().await, Err(Blocked::Reserved { spent: 600_000, .. })));
    assert!(down.pulse().is_stopped() && !budget.refuses(&FAR));
    // Nothing of this goes over a link to another site.
    let mut near = budget.meter(&NEAR, Way::Down, Class::Background);
    near.moved(5_000_000);
    assert_eq!(near.pay().await, Ok(()));

    let mut client = budget.meter(&FAR, Way::Down, Class::Client);
    assert_eq!(client.pay().await, Ok(()));
    client.moved(400_000);
    assert_eq!(blocked(&budget), (true, true));
    assert!(matches!(client.pay().await, Err(Blocked::Spent { cap: 1_000_000, .. })));
    assert!(budget.refuses(&FAR) && !budget.refuses(&NEAR) && budget.refuses(&NodeId([9; 32])));
    let status = budget.status();
    assert_eq!((status.spent_down, status.spent_up), (900_001, 99_999));
    assert_eq!(status.blocked.len(), 2);

    let soft = BudgetChange { hard: Some(false), ..BudgetChange::default() };
    budget.change(soft).expect("valid");
    assert_eq!(blocked(&budget), (false, true));
    assert!(!budget.refuses(&FAR) && budget.status().changed);
    let more = serde_json::from_str(r#"{"monthly":"2 MB"}"#).expect("reads");
    budget.change(more).expect("valid");
    assert_eq!(blocked(&budget), (false, false));
    let less = serde_json::from_str(r#"{"monthly":"1 kB"}"#).expect("reads");
    assert_eq!(budget.change(less).expect_err("less than the reserve").len(), 1);
    budget.reset(true);
    assert_eq!((blocked(&budget), budget.status().spent_down), ((false, false), 0));
}

#[test]
fn a_restart_keeps_what_was_spent_and_a_broken_file_is_put_aside() {
    let dir = tempfile::tempdir().expect("a directory");
    let budget = open("", dir.path());
    budget.count(Way::Down, 5);
    budget.count(Way::Up, 7);
    budget.save();
    let before = std::fs::metadata(dir.path().join(FILE)).and_then(|meta| meta.modified()).expect("written");
    budget.save();
    let after = std::fs::metadata(dir.path().join(FILE)).and_then(|meta| meta.modified()).expect("written");
    assert_eq!(before, after, "nothing new is not written");
    let again = open("", dir.path()).status();
    assert_eq!((again.spent_down, again.spent_up, again.since), (5, 7, budget.status().since));

    std::fs::write(dir.path().join(FILE), "garbage").expect("written");
    let again = open("", dir.path());
    assert_eq!(again.status().spent_down, 0);
    assert!(dir.path().join("budget.broken").exists());
    again.save();
    assert!(dir.path().join(FILE).exists());
}

#[test]
fn windows_hold_the_background_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let budget = open("windows = [\"22:00-06:00\"]", dir.path());
    let midnight = 1_793_491_200;
    let at = |hour: u64| {
        budget.look(Wall(midnight + hour * 3600));
        (budget.is_blocked(Class::Client), budget.is_blocked(Class::Background))
    };
    assert_eq!(at(23), (false, false));
    assert_eq!(at(12), (false, true));
    assert_eq!(at(24 + 5), (false, false));
    let state = budget.state();
    assert!(matches!(
        state.blocked(Class::Background, [0; 2], Wall(midnight + 43_200)),
        Some(Blocked::Closed { .. })
    ));
    assert_eq!(state.blocked(Class::Background, [0; 2], Wall(0)), Some(Blocked::NoClock));
}

#[test]
fn a_site_shares_and_shares_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let budget = open("monthly = \"3 MB\"\nscope = \"site\"\ndown = \"24 kbit/s\"", dir.path());
    assert_eq!(budget.status().monthly_bytes, Some(3_000_000));
    budget.connected(2, 5);
    let status = budget.status();
    assert_eq!((status.monthly_bytes, status.site_nodes), (Some(1_000_000), 3));
    budget.count(Way::Down, 1_000_000);
    budget.status();
    assert_eq!(blocked(&budget), (true, true));
    budget.connected(0, 5);
    budget.status();
    assert_eq!(blocked(&budget), (false, false));
    // Messages count as far as sessions lead to other sites.
    budget.connected(1, 3);
    budget.control(1000, 2000);
    assert_eq!((budget.status().spent_down, budget.status().spent_up), (1_000_750, 1500));
}

#[tokio::test]
async fn a_transfer_that_waits_for_the_budget_is_not_quiet() {
    let dir = tempfile::tempdir().expect("a directory");
    let budget = open("down = \"8 kbit/s\"", dir.path());
    let mut first = budget.meter(&FAR, Way::Down, Class::Background);
    assert_eq!(first.pay().await, Ok(()));
    first.moved(1 << 20);
    let pulse = first.pulse();
    let waiting = tokio::spawn(async move { first.pay().await });
    while !pulse.beat().waiting {
        tokio::task::yield_now().await;
    }
    assert_eq!(pulse.quiet(), Duration::ZERO);
    // It goes on at once when the limit is lifted.
    budget.change(serde_json::from_str(r#"{"down":""}"#).expect("reads")).expect("valid");
    assert_eq!(waiting.await.expect("no panic"), Ok(()));
    assert!(!pulse.beat().waiting && !pulse.is_stopped());
}

#[tokio::test]
async fn a_transfer_that_a_client_came_to_wait_for_is_the_clients() {
    let dir = tempfile::tempdir().expect("a directory");
    let budget = open("monthly = \"1 MB\"\nmonthly_reserve = \"1 MB\"", dir.path());
    let urgency = Urgency::from(Class::Background);
    let mut transfer = budget.meter(&FAR, Way::Down, urgency.clone());
    assert!(matches!(transfer.pay().await, Err(Blocked::Reserved { spent: 0, .. })));
    urgency.raise();
    assert_eq!((transfer.pay().await, urgency.class()), (Ok(()), Class::Client));
}
