//! The artifacts of a scenario: those with given layers, synthetic ones, and names that the other parts of the file
//! call them by.

use std::collections::BTreeMap;

use toml::Spanned;
use waystation_topology::Problem;

use super::form::{self, File};
use crate::{
    images::{FRESH, Images},
    setup::{Artifact, Layer, Nanos},
};

/// Most artifacts of a run.
pub const ARTIFACTS_MAX: usize = 100_000;

/// Artifacts by number, and which of them a name means.
#[derive(Debug, Default)]
pub struct Library {
    /// By number.
    pub artifacts: Vec<Artifact>,
    names: BTreeMap<String, Vec<usize>>,
    /// From when on somebody has it, for those that anybody ever has.
    available: BTreeMap<usize, Nanos>,
}

impl Library {
    /// All that the file has.
    pub fn of(file: &File, seed: u64) -> Result<Self, Problem> {
        let mut library = Library::default();
        for artifact in &file.artifact {
            let number = library.artifacts.len();
            library.artifacts.push(explicit(artifact)?);
            library.name(&artifact.name, vec![number])?;
        }
        for images in &file.images {
            let (name, count) = (images.name.get_ref(), *images.count.get_ref());
            if count == 0 || library.artifacts.len() + count > ARTIFACTS_MAX {
                let text = format!("count is {count}; a scenario has 1 to {ARTIFACTS_MAX} artifacts");
                return Err(Problem::at(&images.count, text));
            }
            let fresh = images.fresh.map_or(FRESH, |part| part.ratio());
            let largest = images.largest_layer.map(|size| size.bytes());
            let first = library.artifacts.len();
            library.artifacts.extend(Images::new(name, seed, fresh, largest).take(count));
            library.name(&images.name, (first..first + count).collect())?;
        }
        Ok(library)
    }

    fn name(&mut self, name: &Spanned<String>, numbers: Vec<usize>) -> Result<(), Problem> {
        if self.names.insert(name.get_ref().clone(), numbers).is_some() {
            let text = format!(
                "there is an artifact named \"{}\" above; give this one another name",
                name.get_ref()
            );
            return Err(Problem::at(name, text));
        }
        Ok(())
    }

    /// The artifacts that a name means.
    pub fn find(&self, name: &Spanned<String>) -> Result<Vec<usize>, Problem> {
        self.names.get(name.get_ref()).cloned().ok_or_else(|| {
            let known: Vec<_> = self.names.keys().map(|name| format!("\"{name}\"")).collect();
            let known = if known.is_empty() { "there are none".to_owned() } else { known.join(", ") };
            let text = format!(
                "no [[artifact]] or [[images]] is named \"{}\"; name one of those that there are ({known})",
                name.get_ref()
            );
            Problem::at(name, text)
        })
    }

    /// Somebody has it from now on.
    pub fn appears(&mut self, artifact: usize, at: Nanos) {
        let since = self.available.entry(artifact).or_insert(at);
        *since = at.min(*since);
    }

    /// Those of some artifacts that anybody ever has, the earliest first, with the time. An error if there are none.
    pub fn available(&self, name: &Spanned<String>) -> Result<Vec<(Nanos, usize)>, Problem> {
        let mut those: Vec<_> = self
            .find(name)?
            .into_iter()
            .filter_map(|artifact| self.available.get(&artifact).map(|since| (*since, artifact)))
            .collect();
        those.sort_unstable();
        if those.is_empty() {
            let text = format!(
                "nobody has \"{}\"; add a [[workload.publish]], [[workload.publishes]] or [[workload.held]] of it",
                name.get_ref()
            );
            return Err(Problem::at(name, text));
        }
        Ok(those)
    }

    /// Adds a version of an artifact: the last layers are new, at least so much of the bytes (0 to 1).
    pub fn version(&mut self, of: usize, number: u64, changes: f64) -> usize {
        let mut artifact = self.artifacts[of].clone();
        let all = artifact.bytes() as f64;
        let mut changed = 0.0;
        for layer in artifact.layers.iter_mut().rev() {
            if changed >= all * changes && changed > 0.0 {
                break;
            }
            layer.content = format!("{} version {number}", layer.content);
            changed += layer.bytes as f64;
        }
        self.artifacts.push(artifact);
        self.artifacts.len() - 1
    }
}

fn explicit(form: &form::Artifact) -> Result<Artifact, Problem> {
    let name = form.name.get_ref();
    let problem = |text: &str| Err(Problem::at(&form.name, format!("\"{name}\" {text}")));
    let layers: Vec<Layer> = match (form.size, form.split.as_ref().map_or(1, |split| *split.get_ref())) {
        (Some(_), _) if !form.layers.is_empty() => {
            return problem("has a size and layers; write one of them");
        }
        (_, 0) => return problem("is split into 0 layers; leave split out for one"),
        (Some(size), parts) => {
            let (bytes, parts) = (size.bytes(), parts as u64);
            let part = |number: u64| Layer {
                content: format!("{name} layer {}", number + 1),
                bytes: bytes / parts + u64::from(number < bytes % parts),
            };
            (0..parts).map(part).collect()
        }
        (None, _) => {
            let layer = |(number, layer): (usize, &form::Layer)| Layer {
                content: layer.content.clone().unwrap_or_else(|| format!("{name} layer {}", number + 1)),
                bytes: layer.size.bytes(),
            };
            form.layers.iter().enumerate().map(layer).collect()
        }
    };
    if layers.is_empty() || layers.iter().any(|layer| layer.bytes == 0) {
        return problem("has no bytes; write size = \"100 MB\", or layers = [{ size = \"60 MB\" }, …]");
    }
    Ok(Artifact {
        repository: form.repository.clone().unwrap_or_else(|| format!("library/{name}")),
        tags: form.tags.clone().unwrap_or_else(|| vec!["latest".to_owned()]),
        layers,
    })
}
