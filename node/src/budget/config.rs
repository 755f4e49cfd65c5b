//! `[budget]`: what may go over links to other sites, and over those of the own. The same type is what a running
//! node goes by after it was told otherwise.

use serde::{Deserialize, Serialize};

use super::{shares::Allowance, windows::Window};
use crate::units::{Rate, Size};

/// `[budget]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetConfig {
    /// From nodes of other sites.
    pub down: Limit,
    /// To nodes of other sites. What class the other's fetch is of is not known here.
    pub up: Limit,
    /// From nodes of other sites, for what clients wait for.
    pub client_down: Limit,
    /// From nodes of other sites, for what nobody waits for.
    pub background_down: Limit,
    /// From nodes of this site.
    pub lan_down: Limit,
    /// To nodes of this site.
    pub lan_up: Limit,
    /// What clients get of a limit that both classes want more of than there is, in percent.
    pub client_share: u8,
    /// When the background may fetch from other sites, in UTC; empty: always.
    pub windows: Vec<Window>,
    /// What may go over links to other sites in a month, both ways together.
    pub monthly: Cap,
    /// How much of it is kept for what clients wait for.
    pub monthly_reserve: Size,
    /// The day on which the month begins, in UTC.
    pub month_day: u8,
    /// Whether clients' fetches stop too where all is spent.
    pub hard: bool,
    /// Whether limits and cap are for this node or divided among the live nodes of its site.
    pub scope: Scope,
}

/// Whom limits are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// This node alone.
    #[default]
    Node,
    /// All live nodes of the site, each of which has the same part.
    Site,
}

/// A rate, or `""` for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Limit(pub Option<Rate>);

/// A size, or `""` for no cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cap(pub Option<Size>);

/// What of a budget is to be another from now on; absent fields stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetChange {
    /// As [`BudgetConfig::down`].
    pub down: Option<Limit>,
    /// As [`BudgetConfig::up`].
    pub up: Option<Limit>,
    /// As [`BudgetConfig::client_down`].
    pub client_down: Option<Limit>,
    /// As [`BudgetConfig::background_down`].
    pub background_down: Option<Limit>,
    /// As [`BudgetConfig::lan_down`].
    pub lan_down: Option<Limit>,
    /// As [`BudgetConfig::lan_up`].
    pub lan_up: Option<Limit>,
    /// As [`BudgetConfig::client_share`].
    pub client_share: Option<u8>,
    /// As [`BudgetConfig::windows`].
    pub windows: Option<Vec<Window>>,
    /// As [`BudgetConfig::monthly`].
    pub monthly: Option<Cap>,
    /// As [`BudgetConfig::monthly_reserve`].
    pub monthly_reserve: Option<Size>,
    /// As [`BudgetConfig::hard`].
    pub hard: Option<bool>,
}

impl BudgetConfig {
    /// Adds a sentence for everything that cannot be.
    pub fn complain(&self, wrong: &mut Vec<String>) {
        if !(1..=100).contains(&self.client_share) {
            wrong.push(format!(
                "budget.client_share: {} is not a share; give 1 to 100 percent",
                self.client_share
            ));
        }
        if !(1..=28).contains(&self.month_day) {
            wrong.push(format!("budget.month_day: {} is not in every month; give 1 to 28", self.month_day));
        }
        if self.windows.len() > WINDOWS_MAX {
            wrong.push(format!(
                "budget.windows: {} windows are too many; give at most {WINDOWS_MAX}",
                self.windows.len()
            ));
        }
        if self.monthly.0.is_some_and(|cap| self.monthly_reserve > cap) {
            wrong.push(format!(
                "budget.monthly_reserve: {} cannot be kept of {}; give at most budget.monthly",
                self.monthly_reserve,
                String::from(self.monthly)
            ));
        }
    }

    /// These with the changes.
    pub fn with(&self, change: BudgetChange) -> Self {
        fn or<T>(new: Option<T>, old: T) -> T {
            new.unwrap_or(old)
        }
        BudgetConfig {
            down: or(change.down, self.down),
            up: or(change.up, self.up),
            client_down: or(change.client_down, self.client_down),
            background_down: or(change.background_down, self.background_down),
            lan_down: or(change.lan_down, self.lan_down),
            lan_up: or(change.lan_up, self.lan_up),
            client_share: or(change.client_share, self.client_share),
            windows: or(change.windows, self.windows.clone()),
            monthly: or(change.monthly, self.monthly),
            monthly_reserve: or(change.monthly_reserve, self.monthly_reserve),
            hard: or(change.hard, self.hard),
            ..self.clone()
        }
    }

    /// What one of so many nodes may move per second: from other sites, to them, from this site, to it.
    pub(super) fn allowances(&self, nodes: u64) -> [Allowance; 4] {
        let part = |limit: Limit| {
            let rate = limit.0.map(Rate::bytes_per_second);
            if self.scope == Scope::Site { rate.map(|rate| (rate / nodes.max(1)).max(1)) } else { rate }
        };
        let whole = |limit| Allowance { whole: part(limit), ..Allowance::default() };
        let far = Allowance {
            whole: part(self.down),
            client: part(self.client_down),
            background: part(self.background_down),
        };
        [far, whole(self.up), whole(self.lan_down), whole(self.lan_up)]
    }

    /// What one of so many nodes may move in a month, and how much of it is the clients', in bytes.
    pub(super) fn cap(&self, nodes: u64) -> Option<(u64, u64)> {
        let nodes = if self.scope == Scope::Site { nodes.max(1) } else { 1 };
        self.monthly.0.map(|cap| (cap.0 / nodes, self.monthly_reserve.0 / nodes))
    }
}

impl Default for BudgetConfig {
    fn default() -> Self {
        BudgetConfig {
            down: Limit(None),
            up: Limit(None),
            client_down: Limit(None),
            background_down: Limit(None),
            lan_down: Limit(None),
            lan_up: Limit(None),
            client_share: 50,
            windows: Vec::new(),
            monthly: Cap(None),
            monthly_reserve: Size(0),
            month_day: 1,
            hard: true,
            scope: Scope::Node,
        }
    }
}

impl TryFrom<String> for Limit {
    type Error = crate::units::UnitError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() { Ok(Limit(None)) } else { text.parse().map(|rate| Limit(Some(rate))) }
    }
}

impl From<Limit> for String {
    fn from(limit: Limit) -> String {
        limit.0.map(|rate| rate.to_string()).unwrap_or_default()
    }
}

impl TryFrom<String> for Cap {
    type Error = crate::units::UnitError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() { Ok(Cap(None)) } else { text.parse().map(|size| Cap(Some(size))) }
    }
}

impl From<Cap> for String {
    fn from(cap: Cap) -> String {
        cap.0.map(|size| size.to_string()).unwrap_or_default()
    }
}

const WINDOWS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sites_limits_are_divided_and_a_nodes_are_not() {
        let text = "down = \"8 Mbit/s\"\nmonthly = \"10 GB\"\nmonthly_reserve = \"1 GB\"\nscope = \"site\"";
        let config: BudgetConfig = toml::from_str(text).expect("valid");
        assert_eq!(config.allowances(4)[0].whole, Some(250_000));
        assert_eq!(config.cap(4), Some((2_500_000_000, 250_000_000)));
        let alone = BudgetConfig { scope: Scope::Node, ..config };
        assert_eq!(alone.allowances(4)[0].whole, Some(1_000_000));
        assert_eq!(alone.allowances(4)[1], Allowance::default());
        assert_eq!(alone.cap(4), Some((10_000_000_000, 1_000_000_000)));
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let text = "client_share = 0\nmonth_day = 31\nmonthly = \"1 GB\"\nmonthly_reserve = \"2 GB\"";
        let config: BudgetConfig = toml::from_str(text).expect("reads");
        let mut wrong = Vec::new();
        config.complain(&mut wrong);
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        for bad in
            ["down = \"fast\"", "down = 5", "monthly = \"1 Mbit/s\"", "windows = [\"night\"]", "dwon = \"\""]
        {
            assert!(toml::from_str::<BudgetConfig>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let before = BudgetConfig { client_share: 70, ..BudgetConfig::default() };
        let change: BudgetChange =
            serde_json::from_str(r#"{"down":"1 Mbit/s","monthly":""}"#).expect("reads");
        let after = before.with(change);
        assert_eq!((String::from(after.down), after.client_share), ("1 Mbit/s".to_owned(), 70));
        assert_eq!(before.with(BudgetChange::default()), before);
    }
}
