//! What is varied: lists of values for named parameters. Every combination is a variant, and a file as if it had
//! been written with these values.

use serde::Deserialize;
use toml::Spanned;
use waystation_topology::{Part, Problem, Rate, Share, Size, file::Group};

use super::form::{Artifact, File, Layer};

/// Most variants of a scenario.
pub const VARIANTS_MAX: usize = 1000;

/// `[sweep]`. Parameters of sites are those of all sites but the origin.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sweep {
    sites: Option<Spanned<Vec<usize>>>,
    nodes: Option<Spanned<Vec<usize>>>,
    uplink: Option<Spanned<Vec<Rate>>>,
    origin_uplink: Option<Spanned<Vec<Rate>>>,
    loss: Option<Spanned<Vec<Share>>>,
    size: Option<Spanned<Vec<Size>>>,
    split: Option<Spanned<Vec<usize>>>,
    fresh: Option<Spanned<Vec<Part>>>,
    zipf: Option<Spanned<Vec<f64>>>,
}

/// One value of one parameter.
#[derive(Clone, Copy, Debug)]
enum Setting {
    Sites(usize),
    Nodes(usize),
    Uplink(Rate),
    OriginUplink(Rate),
    Loss(Share),
    Size(Size),
    Split(usize),
    Fresh(Part),
    Zipf(f64),
}

impl Setting {
    fn label(&self) -> String {
        match self {
            Setting::Sites(sites) => format!("sites={sites}"),
            Setting::Nodes(nodes) => format!("nodes={nodes}"),
            Setting::Uplink(rate) => format!("uplink={rate}"),
            Setting::OriginUplink(rate) => format!("origin-uplink={rate}"),
            Setting::Loss(loss) => format!("loss={loss}"),
            Setting::Size(size) => format!("size={size}"),
            Setting::Split(layers) => format!("split={layers}"),
            Setting::Fresh(part) => format!("fresh={part}"),
            Setting::Zipf(alpha) => format!("zipf={alpha}"),
        }
    }

    fn apply(&self, file: &mut File) {
        match self {
            Setting::Sites(sites) => others(file, |group| *group.count.get_mut() = *sites),
            Setting::Nodes(nodes) => others(file, |group| *group.nodes.get_mut() = *nodes),
            Setting::Uplink(rate) => others(file, |group| {
                (group.uplink.up, group.uplink.down) = (*rate, *rate);
            }),
            Setting::OriginUplink(rate) => {
                for group in file.site.iter_mut().filter(|group| group.origin) {
                    (group.uplink.up, group.uplink.down) = (*rate, *rate);
                }
            }
            Setting::Loss(loss) => others(file, |group| group.uplink.loss = *loss),
            Setting::Size(size) => {
                for artifact in &mut file.artifact {
                    resize(artifact, *size);
                }
            }
            Setting::Split(layers) => {
                for artifact in &mut file.artifact {
                    artifact.split = Some(Spanned::new(artifact.name.span(), *layers));
                }
            }
            Setting::Fresh(part) => file.images.iter_mut().for_each(|images| images.fresh = Some(*part)),
            Setting::Zipf(alpha) => {
                for steady in &mut file.workload.steady {
                    steady.zipf = Some(Spanned::new(steady.artifact.span(), *alpha));
                }
            }
        }
    }
}

fn others(file: &mut File, change: impl Fn(&mut Group)) {
    file.site.iter_mut().filter(|group| !group.origin).for_each(change);
}

/// All layers grow or shrink alike.
fn resize(artifact: &mut Artifact, size: Size) {
    let before: u64 = artifact.layers.iter().map(|layer| layer.size.bytes()).sum();
    if artifact.layers.is_empty() || before == 0 {
        artifact.size = Some(size);
        return;
    }
    let scaled = |bytes: u64| (u128::from(bytes) * u128::from(size.bytes()) / u128::from(before)) as u64;
    for layer in &mut artifact.layers {
        let Layer { size, content } = layer;
        *layer = Layer { size: Size::from_bytes(scaled(size.bytes())), content: content.take() };
    }
}

impl Sweep {
    /// The file once for each combination, with what is particular about it.
    pub fn variants(&self, file: &File) -> Result<Vec<(String, File)>, Problem> {
        let mut variants = vec![(String::new(), file.clone())];
        for axis in self.axes()? {
            if variants.len() * axis.len() > VARIANTS_MAX {
                let text =
                    format!("[sweep] has more than {VARIANTS_MAX} combinations; leave some values out");
                return Err(Problem::whole(text));
            }
            let with = |(label, file): &(String, File), setting: &Setting| {
                let comma = if label.is_empty() { "" } else { ", " };
                let mut file = file.clone();
                setting.apply(&mut file);
                (format!("{label}{comma}{}", setting.label()), file)
            };
            variants =
                variants.iter().flat_map(|v| axis.iter().map(move |setting| with(v, setting))).collect();
        }
        Ok(variants)
    }

    fn axes(&self) -> Result<Vec<Vec<Setting>>, Problem> {
        fn axis<T: Copy>(
            values: &Option<Spanned<Vec<T>>>,
            setting: fn(T) -> Setting,
        ) -> Result<Option<Vec<Setting>>, Problem> {
            match values {
                Some(values) if values.get_ref().is_empty() => {
                    Err(Problem::at(values, "an empty list; leave the parameter out where nothing is varied"))
                }
                values => {
                    Ok(values.as_ref().map(|values| values.get_ref().iter().copied().map(setting).collect()))
                }
            }
        }
        let axes = [
            axis(&self.size, Setting::Size)?,
            axis(&self.split, Setting::Split)?,
            axis(&self.sites, Setting::Sites)?,
            axis(&self.nodes, Setting::Nodes)?,
            axis(&self.uplink, Setting::Uplink)?,
            axis(&self.origin_uplink, Setting::OriginUplink)?,
            axis(&self.loss, Setting::Loss)?,
            axis(&self.fresh, Setting::Fresh)?,
            axis(&self.zipf, Setting::Zipf)?,
        ];
        Ok(axes.into_iter().flatten().collect())
    }
}
