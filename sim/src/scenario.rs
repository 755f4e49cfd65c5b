//! Scenarios: files that say what to simulate. Owns how a file becomes setups, one for each variant and seed; what
//! is done with a setup is [`crate::system`]'s. `configs/scenarios/README.md` explains the form.
//!
//! Reading order: [`form`] (the file), [`sweep`], [`content`], [`workload`], [`faults`], [`expect`].

pub mod actions;
pub mod content;
pub mod expect;
pub mod faults;
#[allow(missing_docs, reason = "configs/scenarios/README.md explains every key once")]
pub mod form;
pub mod sweep;
pub mod who;
pub mod workload;

use std::path::{Path, PathBuf};

use toml::Spanned;
use waystation_topology::{
    FileError, Problem, Topology,
    file::{groups, spread},
    source,
};

use self::{actions::Actions, content::Library, expect::Goal, form::File};
use crate::{
    setup::{Nanos, SECOND, Setup},
    system,
};

/// Most seeds of a run.
pub const SEEDS_MAX: usize = 10_000;

/// A scenario that was read.
#[derive(Debug)]
pub struct Scenario {
    /// Of the scenario, for people.
    pub name: String,
    /// Where its numbers come from.
    pub source: String,
    /// What is like for like with the source.
    pub like: Vec<String>,
    /// What is not.
    pub unlike: Vec<String>,
    /// With what everything else is drawn, one run each.
    pub seeds: Vec<u64>,
    /// What is run.
    pub systems: Vec<String>,
    /// What is expected.
    pub goals: Vec<Goal>,
    /// Catalogs to compare: (records, differences). Such a scenario has no network.
    pub reconcile: Option<(Vec<u64>, Vec<u64>)>,
    path: PathBuf,
    text: String,
    variants: Vec<(String, File)>,
}

impl Scenario {
    /// Reads a file, and all that it names.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        const HINT: &str = "give the path of a scenario, such as configs/scenarios/first.toml";
        let text = source::text_of(path, HINT)?;
        Self::parse(path, text)
    }

    /// Reads the text of a file, and all that it names, by their paths from where `path` is. Everything is checked
    /// that can be: each variant is built once.
    pub fn parse(path: &Path, text: String) -> Result<Self, FileError> {
        let problem = |problem: Problem, text: &str| problem.in_file(path, text);
        let mut file: File = source::read(&text).map_err(|p| problem(p, &text))?;
        if let Some(error) = find_sites(&mut file, path).map_err(|p| problem(p, &text))? {
            return Err(error);
        }
        let scenario = Self::check(path, text.clone(), file).map_err(|p| problem(p, &text))?;
        for variant in 0..scenario.variants.len() {
            scenario.setup(variant, scenario.seeds.first().copied().unwrap_or(1))?;
        }
        Ok(scenario)
    }

    fn check(path: &Path, text: String, file: File) -> Result<Self, Problem> {
        if file.name.get_ref().trim().is_empty() {
            return Err(Problem::at(&file.name, "no name; reports show it"));
        }
        let seeds = file.seeds.as_ref().map_or_else(|| vec![1], |seeds| seeds.get_ref().clone());
        if let Some(spanned) = &file.seeds
            && (seeds.is_empty() || seeds.len() > SEEDS_MAX)
        {
            return Err(Problem::at(spanned, format!("{} seeds; write 1 to {SEEDS_MAX}", seeds.len())));
        }
        let systems = match &file.systems {
            None => vec![system::SYSTEMS[0].to_owned()],
            Some(systems) => {
                system::check(systems.get_ref()).map_err(|error| Problem::at(systems, error))?;
                systems.get_ref().clone()
            }
        };
        let goals: Result<Vec<_>, Problem> = file.expect.iter().map(expect::Expect::goals).collect();
        let reconcile = match &file.reconcile {
            Some(reconcile) => Some(check_reconcile(reconcile)?),
            None => None,
        };
        Ok(Scenario {
            name: file.name.get_ref().clone(),
            source: file.source.clone(),
            like: file.like.clone(),
            unlike: file.unlike.clone(),
            seeds,
            systems,
            goals: goals?.concat(),
            path: path.to_owned(),
            text,
            variants: if reconcile.is_some() { vec![] } else { file.sweep.variants(&file)? },
            reconcile,
        })
    }

    /// What the variants are called; one empty name where nothing is varied.
    pub fn variants(&self) -> impl Iterator<Item = &str> {
        self.variants.iter().map(|(name, _)| name.as_str())
    }

    /// What is run for a variant, by its number, and a seed.
    pub fn setup(&self, variant: usize, seed: u64) -> Result<Setup, FileError> {
        let (_, file) = &self.variants[variant];
        self.build(file, seed).map_err(|problem| problem.in_file(&self.path, &self.text))
    }

    fn build(&self, file: &File, seed: u64) -> Result<Setup, Problem> {
        let topology = spread(&file.site)?;
        let Some(duration) = &file.duration else {
            return Err(Problem::whole(
                "no duration; write how long a run is, such as duration = \"10 min\"",
            ));
        };
        let end = duration.get_ref().nanos();
        if end == 0 {
            return Err(Problem::at(duration, "0 s; nothing happens in no time"));
        }
        let mut library = Library::of(file, seed)?;
        let mut actions = Actions::new(seed, end);
        workload::add(&file.workload, &topology, &mut library, &mut actions)?;
        faults::add(&file.fault, &topology, &library, &mut actions)?;
        let upstream = upstream(file, &topology)?;
        Ok(Setup {
            name: self.name.clone(),
            seed,
            topology,
            network: network(&file.network),
            artifacts: library.artifacts,
            upstream,
            start: file.start,
            actions: actions.sorted(),
            end,
            bucket: file.bucket.map_or_else(|| bucket(end), |bucket| bucket.nanos().max(1)),
        })
    }
}

/// The site that is no site of the mesh.
fn upstream(file: &File, topology: &Topology) -> Result<Option<usize>, Problem> {
    let Some(name) = &file.upstream else { return Ok(None) };
    let site = topology.sites.iter().position(|site| site.name == *name.get_ref());
    match site {
        None => Err(Problem::at(name, "no site has this name; write that of a site of one node")),
        Some(site) if topology.sites[site].origin => {
            Err(Problem::at(name, "is the origin, where nodes find the mesh; write another site"))
        }
        Some(site) if topology.sites[site].nodes != 1 => {
            Err(Problem::at(name, "has several nodes; a registry counts as one: write nodes = 1"))
        }
        site => Ok(site),
    }
}

/// Sites come from a file, from `[generate]` or from the file itself: afterwards they are in the file itself. The
/// inner error is one of the other file.
fn find_sites(file: &mut File, path: &Path) -> Result<Option<FileError>, Problem> {
    let named = usize::from(file.topology.is_some()) + usize::from(file.generate.is_some());
    if named + usize::from(!file.site.is_empty()) > 1 {
        return Err(Problem::whole("sites are given twice; write one of topology, [generate] and [[site]]"));
    }
    if let Some(fleet) = &file.generate {
        if fleet.get_ref().lines.is_empty() {
            return Err(Problem::at(fleet, "lines is empty; write the line of the sites"));
        }
        file.site = fleet.get_ref().groups();
    }
    if let Some(named) = &file.topology {
        let other = path.parent().unwrap_or(Path::new("")).join(named.get_ref());
        let text = match source::text_of(&other, "give the path from where the scenario is") {
            Ok(text) => text,
            Err(error) => return Err(Problem::at(named, error)),
        };
        match groups(&text).and_then(|groups| spread(&groups).map(|_| groups)) {
            Ok(groups) => file.site = groups.into_iter().map(|group| moved(group, named)).collect(),
            Err(problem) => return Ok(Some(problem.in_file(&other, &text))),
        }
    }
    if file.site.is_empty() && file.reconcile.is_none() {
        return Err(Problem::whole("no sites; write topology = \"FILE\", [generate] or [[site]]"));
    }
    Ok(None)
}

/// Later errors name where the other file is named.
fn moved(
    mut group: waystation_topology::file::Group,
    named: &Spanned<PathBuf>,
) -> waystation_topology::file::Group {
    group.name = Spanned::new(named.span(), group.name.into_inner());
    group.count = Spanned::new(named.span(), group.count.into_inner());
    group.nodes = Spanned::new(named.span(), group.nodes.into_inner());
    group
}

fn check_reconcile(form: &form::Reconcile) -> Result<(Vec<u64>, Vec<u64>), Problem> {
    const RECORDS_MAX: u64 = 10_000_000;
    if let Some(records) = form.records.get_ref().iter().find(|n| !(1..=RECORDS_MAX).contains(*n)) {
        return Err(Problem::at(&form.records, format!("{records} records; write 1 to {RECORDS_MAX}")));
    }
    for (list, what) in [(&form.records, "records"), (&form.differences, "differences")] {
        if list.get_ref().is_empty() {
            return Err(Problem::at(list, format!("no {what}; write a list of numbers")));
        }
    }
    Ok((form.records.get_ref().clone(), form.differences.get_ref().clone()))
}

fn network(form: &form::Network) -> crate::setup::Network {
    let default = crate::setup::Network::default();
    let share =
        |share: Option<waystation_topology::Share>| share.map_or(0, |share| share.millionths() as u32);
    crate::setup::Network {
        jitter: form.jitter.map_or(default.jitter, |jitter| jitter.micros() * 1000),
        lan_loss: share(form.lan_loss),
        duplication: share(form.duplication),
        reordering: share(form.reordering),
        queue: form.queue.map_or(default.queue, |queue| queue.bytes()),
        efficiency: form.efficiency.map_or(default.efficiency, |part| part.millionths() as u32),
        disk_rate: form.disk.map(|rate| rate.bits() / 8),
    }
}

/// About a hundred buckets, of whole seconds where there are any.
fn bucket(end: Nanos) -> Nanos {
    let bucket = end / 100;
    if bucket < SECOND { bucket.max(1) } else { bucket.div_ceil(SECOND) * SECOND }
}
