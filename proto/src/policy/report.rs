//! What policies come to, for people: coverage by artifact and site, and why something is or is not to be held
//! somewhere. Looks at the same things as the evaluation does, through the same functions.

use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec::Vec,
};

use super::{
    Hours, Policy,
    closure::Obstacle,
    keeper::{Keeper, Kept, View},
    select,
};
use crate::{
    body::HoldingState,
    id::{Digest, NodeId, RepoName},
    placement,
};

/// What is wanted where, and how far that is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// By artifact, then by site.
    pub rows: Vec<Covered>,
    /// Whether there are more than one answer carries.
    pub truncated: bool,
}

/// How one artifact is covered at one site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Where it was selected.
    pub repository: RepoName,
    /// The artifact.
    pub manifest: Digest,
    /// The artifact that it is a part of, where it is not selected itself. Parts are known only at nodes that are
    /// to hold them.
    pub part_of: Option<Digest>,
    /// The site.
    pub site: String,
    /// Copies that are to be there.
    pub wanted: usize,
    /// Nodes there, meant by a policy, that say to have all of it; of another site how many of its nodes have, as far
    /// as it told.
    pub held: usize,
    /// Nodes there that say to have some of it.
    pub coming: usize,
    /// Copies that are neither.
    pub missing: usize,
    /// Why, where something is missing or on its way.
    pub why: String,
}

/// About whom is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// A node.
    Node(NodeId),
    /// A site.
    Site(String),
}

/// What each policy says of an artifact at a node or site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// Whether it is to be held there.
    pub wanted: bool,
    /// What is known of it there.
    pub state: String,
    /// What each policy says, by its name.
    pub reasons: Vec<(RepoName, String)>,
}

/// Coverage of one repository, or of all.
pub(crate) fn coverage(keeper: &Keeper, view: &View<'_>, repository: Option<&RepoName>) -> Coverage {
    let mut found = Coverage::default();
    for (root, choices) in keeper.roots() {
        let mut wanted: BTreeMap<(&RepoName, &str), (usize, &Kept)> = BTreeMap::new();
        for (name, within) in choices {
            let Some(kept) = keeper.kept().get(name) else { continue };
            if repository.is_some_and(|only| only != within) {
                continue;
            }
            let copies = view.copies(root, true);
            let shares = placement::shares(&kept.policy, &kept.fleet, root, &copies, keeper.away());
            for (site, share) in shares {
                let entry = wanted.entry((within, site)).or_insert((share, kept));
                if entry.0 < share {
                    *entry = (share, kept);
                }
            }
        }
        for ((within, site), (share, kept)) in wanted {
            if found.rows.len() == ROWS_MAX {
                found.truncated = true;
                return found;
            }
            found.rows.push(cover(keeper, view, (within, root), site, (share, kept)));
        }
    }
    parts(keeper, view, repository, &mut found);
    found
}

fn cover(
    keeper: &Keeper,
    view: &View<'_>,
    (repository, root): (&RepoName, &Digest),
    site: &str,
    (wanted, kept): (usize, &Kept),
) -> Covered {
    let copies = view.copies(root, true);
    let is_away =
        |node: &NodeId| keeper.away().nodes.get(node).is_some_and(|silent| *silent >= kept.policy.grace());
    let with = |state: HoldingState| {
        let nodes = kept.fleet.nodes(site).iter();
        nodes.filter(|node| copies.holders.get(*node) == Some(&state) && !is_away(node)).count()
    };
    let (mut held, mut partial) = (with(HoldingState::Complete), with(HoldingState::Partial));
    // What has only begun was told nobody, and this node knows of itself.
    let begun = site == view.config.site && view.coming.contains(root);
    partial += usize::from(begun && !copies.holders.contains_key(&view.me));
    if site != view.config.site {
        // Of another site only a few nodes are known by name, and how many there are.
        let told = copies.sites.get(site).copied().unwrap_or_default();
        held = held.max(usize::from(told).min(kept.fleet.nodes(site).len()));
    }
    let coming = partial.min(wanted.saturating_sub(held));
    let missing = wanted.saturating_sub(held + coming);
    let why = if held >= wanted { String::new() } else { reason(keeper, view, root, site, kept, missing) };
    let (repository, manifest, site) = (repository.clone(), *root, site.to_string());
    Covered { repository, manifest, part_of: None, site, wanted, held, coming, missing, why }
}

/// Why less is held than is wanted.
fn reason(
    keeper: &Keeper,
    view: &View<'_>,
    root: &Digest,
    site: &str,
    kept: &Kept,
    missing: usize,
) -> String {
    match kept.policy.hours(view.now.wall) {
        Hours::ClosedFor(seconds) => return format!("its hours begin in {}", span(seconds)),
        Hours::NoClock => return "the clock was never set, so its hours cannot be told".into(),
        Hours::Open => {}
    }
    let nodes = kept.fleet.nodes(site);
    let away = nodes.iter().filter(|node| keeper.away().nodes.contains_key(*node)).count();
    if site == view.config.site {
        if let Some(obstacle) = keeper.closure.obstacle(view, root) {
            return told(obstacle);
        }
        if missing > 0 && away > 0 && away == nodes.len() {
            return "all its nodes there are away".into();
        }
    }
    let holders = view.catalog.holders(root).filter(|(_, state)| *state == HoldingState::Complete).count();
    match (holders, missing) {
        (0, _) => "no node has all of it".into(),
        (_, 0) => "is being fetched".into(),
        _ if away > 0 => format!("{away} of {} nodes there are not heard of", nodes.len()),
        _ => "was not begun yet".into(),
    }
}

fn told(obstacle: Obstacle) -> String {
    match obstacle {
        Obstacle::Hours => "its hours are closed".into(),
        Obstacle::NoHolder => "no node that has it can be reached".into(),
        Obstacle::Metered => "the uplink is metered, and no node of the site has it".into(),
        Obstacle::Another(node) => format!("waits for {}, which fetches it for the site", node.short()),
    }
}

/// What this node is to hold of what comes along.
fn parts(keeper: &Keeper, view: &View<'_>, repository: Option<&RepoName>, found: &mut Coverage) {
    for (manifest, part) in keeper.closure.parts() {
        let other = repository.is_some_and(|only| *only != part.repository);
        if keeper.roots().contains_key(manifest) || other || !keeper.closure.wants_for_policy(manifest) {
            continue;
        }
        if found.rows.len() == ROWS_MAX {
            found.truncated = true;
            return;
        }
        let held = usize::from(view.is_here(&part.repository, manifest));
        let coming = usize::from(held == 0 && view.coming.contains(manifest));
        let why = match keeper.closure.obstacle(view, manifest) {
            _ if held == 1 => String::new(),
            _ if coming == 1 => "is being fetched".into(),
            Some(obstacle) => told(obstacle),
            None => "waits for what goes first".into(),
        };
        found.rows.push(Covered {
            repository: part.repository.clone(),
            manifest: *manifest,
            part_of: Some(part.root),
            site: view.config.site.clone(),
            wanted: 1,
            held,
            coming,
            missing: 1 - held - coming,
            why,
        });
    }
}

/// Why an artifact is, or is not, to be held somewhere.
pub(crate) fn explain(
    keeper: &Keeper,
    view: &View<'_>,
    whom: &Whom,
    repository: &RepoName,
    manifest: &Digest,
) -> Explanation {
    let mut explanation = Explanation { state: state(view, whom, manifest), ..Explanation::default() };
    for (name, kept) in keeper.kept() {
        let (wanted, text) = of_policy(keeper, view, kept, whom, (repository, manifest));
        explanation.wanted |= wanted;
        explanation.reasons.push((name.clone(), text));
    }
    let here = *whom == Whom::Node(view.me);
    if here
        && !explanation.wanted
        && let Some(part) = keeper.closure.get(manifest)
    {
        explanation.wanted = true;
        let text = format!("it comes along with {}", part.root.short());
        explanation.reasons.push((part.repository.clone(), text));
    }
    if here
        && explanation.wanted
        && !view.is_here(repository, manifest)
        && let Some(obstacle) = keeper.closure.obstacle(view, manifest)
    {
        explanation.state = format!("{}; {}", explanation.state, told(obstacle));
    }
    explanation
}

fn state(view: &View<'_>, whom: &Whom, manifest: &Digest) -> String {
    let there = |node: &NodeId| match whom {
        Whom::Node(meant) => node == meant,
        Whom::Site(site) => view.catalog.site_of(node) == Some(site.as_str()),
    };
    let with =
        |state| view.catalog.holders(manifest).filter(|(node, of)| there(node) && *of == state).count();
    let mut whole = with(HoldingState::Complete);
    let site = match whom {
        Whom::Node(node) => view.catalog.site_of(node),
        Whom::Site(site) => Some(site.as_str()),
    };
    let told = match site {
        Some(site) if site != view.config.site => view.copies(manifest, true).sites.get(site).copied(),
        _ => None,
    };
    match (told, whom) {
        (Some(told), Whom::Site(_)) => whole = whole.max(usize::from(told)),
        (Some(told), Whom::Node(_)) if whole == 0 => {
            return format!("{told} nodes of its site have it; which ones is known there");
        }
        _ => {}
    }
    match (whole, with(HoldingState::Partial), whom) {
        (0, 0, _) => "nothing of it is there".into(),
        (0, _, _) => "it is on its way there".into(),
        (_, _, Whom::Node(_)) => "it is there".into(),
        (1, _, _) => "a node there has it".into(),
        (n, _, _) => format!("{n} nodes there have it"),
    }
}

/// What one policy says.
fn of_policy(
    keeper: &Keeper,
    view: &View<'_>,
    kept: &Kept,
    whom: &Whom,
    (repository, manifest): (&RepoName, &Digest),
) -> (bool, String) {
    let Kept { policy, fleet } = kept;
    if !select::means(policy, repository) {
        return (false, format!("does not speak of {repository}"));
    }
    let tags: Vec<&select::Tagged> =
        keeper.tags_of(repository).filter(|tagged| tagged.target == *manifest).collect();
    let chosen = select::chosen(&policy.tags, keeper.tags_of(repository));
    if !chosen.iter().any(|tagged| tagged.target == *manifest) {
        return (false, not_selected(policy, &tags));
    }
    let site = match whom {
        Whom::Site(site) => site.as_str(),
        Whom::Node(node) => match view.catalog.site_of(node) {
            Some(site) => site,
            None => return (false, "that node is not known here".into()),
        },
    };
    if fleet.nodes(site).is_empty() {
        return (false, format!("means no node of site {site}"));
    }
    if let Whom::Node(node) = whom
        && !fleet.contains(site, node)
    {
        return (false, "does not mean that node".into());
    }
    let copies = view.copies(manifest, true);
    let share = placement::share(policy, fleet, site, manifest, &copies, keeper.away());
    if share == 0 {
        let in_all = policy.copies.unwrap_or_default();
        return (
            false,
            format!("wants {in_all} copies in all, and other sites come first for this artifact"),
        );
    }
    let hours = match policy.hours(view.now.wall) {
        Hours::Open => String::new(),
        Hours::ClosedFor(seconds) => format!("; its hours begin in {}", span(seconds)),
        Hours::NoClock => "; its hours cannot be told, because this node's clock was never set".into(),
    };
    let nodes = placement::chosen(policy, fleet, site, share, manifest, &copies, keeper.away());
    let names: Vec<String> = nodes.iter().map(NodeId::short).collect();
    let whose = names.join(", ");
    match whom {
        Whom::Node(node) if !nodes.contains(node) => {
            (false, format!("wants {share} on site {site}, for which others are chosen: {whose}"))
        }
        Whom::Node(_) => (true, format!("wants {share} on site {site}, and chooses this node{hours}")),
        Whom::Site(_) => (true, format!("wants {share} on site {site}, at {whose}{hours}")),
    }
}

fn not_selected(policy: &Policy, tags: &[&select::Tagged]) -> String {
    if tags.is_empty() {
        return "speaks of tags, and none points at it; what comes along with others is not listed".into();
    }
    let names: Vec<&str> = tags.iter().map(|tagged| tagged.tag.as_str()).collect();
    let names = names.join(", ");
    let unbounded =
        select::chosen(&super::TagRule { newest: None, ..policy.tags.clone() }, tags.iter().copied());
    match policy.tags.newest {
        Some(newest) if !unbounded.is_empty() => format!("{names} is not among the {newest} newest"),
        _ => format!("means none of its tags: {names}"),
    }
}

/// A span in the largest unit that fits.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Rows of one answer.
const ROWS_MAX: usize = 10_000;
