//! Synthetic images and popularity, fitted to published figures. They are drawn, not recorded: nobody ever pushed
//! one of them, and whoever shows a result of them says so. `waystation-sim images` shows how well they fit.
//!
//! Source of the figures: "container-chonks" (LLNL, 2024, MIT licence): compressed sizes of layers, layers of an
//! image and sizes of images for one image of each of 1,521 repositories of Docker Hub; sharing of layers over
//! 256,970 tags. Layer sizes follow the quantiles, log-linear between them; above the 95th the two free points are
//! set so that the mean is that of the source. Layers of one image resemble each other a little (a Gaussian
//! copula); sizes of images follow from both and are within a factor of 1.7 of the source. Sharing is Simon's
//! process: a layer is new with the probability that the source has, or else a copy of any earlier reference: layers in two or three images are up to 1.4 times as frequent as in the source, those in more
//! than a hundred 3.3 times. Versions of one repository, which share the beginnings of their lists, are not modelled.

use crate::{
    random::stream,
    setup::{Artifact, Layer},
};

/// A published quantile: (part of the population, value).
pub type Quantile = (f64, f64);

/// Compressed bytes of layers: what the source says.
pub const LAYER_BYTES: &[Quantile] = &[
    (0.25, 627.0),
    (0.40, 7.1e3),
    (0.50, 474e3),
    (0.60, 2.2e6),
    (0.65, 4.2e6),
    (0.70, 10.0e6),
    (0.75, 15.6e6),
    (0.80, 28.1e6),
    (0.85, 46.1e6),
    (0.90, 75.4e6),
    (0.95, 187.7e6),
];
/// Mean of the same.
pub const LAYER_BYTES_MEAN: f64 = 50.5e6;
/// Layers of an image: what the source says.
pub const LAYERS: &[Quantile] = &[(0.25, 6.0), (0.50, 9.0), (0.75, 14.0), (0.90, 21.6), (0.95, 30.8)];
/// Mean of the same.
pub const LAYERS_MEAN: f64 = 11.8;
/// Bytes of images: what the source says. Nothing is fitted to it: it follows from the two above.
pub const IMAGE_BYTES: &[Quantile] =
    &[(0.25, 53.7e6), (0.50, 132e6), (0.75, 393e6), (0.80, 497e6), (0.90, 1.18e9), (0.95, 2.78e9)];
/// Mean of the same.
pub const IMAGE_BYTES_MEAN: f64 = 596e6;
/// Part of the layers that are in more than so many images, over all tags.
pub const SHARED: &[(u64, f64)] = &[
    (1, 216_354.0 / 528_449.0),
    (2, 136_054.0 / 528_449.0),
    (50, 9_255.0 / 528_449.0),
    (100, 3_333.0 / 528_449.0),
];
/// How often a reference to a layer is the first one, over all tags.
pub const FRESH: f64 = 528_449.0 / 6_535_425.0;

/// Ends of the curves that the source does not give: an empty layer compressed, and the tail, whose two free points
/// give the mean. The largest layer and the longest list are the source's.
const LAYER_LEAST: Quantile = (0.0, 32.0);
const LAYER_TAIL: &[Quantile] = &[(0.99, 800e6), (0.999, 3e9), (1.0, 9.07e9)];
const LAYERS_LEAST: Quantile = (0.0, 1.0);
const LAYERS_TAIL: &[Quantile] = &[(0.99, 50.0), (1.0, 163.0)];
/// How much layers of one image resemble each other, from 0 to 1.
const LIKENESS: f64 = 0.3;
/// How often a copy of a layer that the image has already is drawn anew before a new layer is made.
const ATTEMPTS: usize = 8;

/// Draws images one after the other; layers of later ones may be those of earlier ones.
#[derive(Debug)]
pub struct Images {
    rng: fastrand::Rng,
    name: String,
    fresh: f64,
    largest: Option<u64>,
    /// Every reference to a layer so far, by number of the layer.
    references: Vec<usize>,
    layers: Vec<Layer>,
    made: usize,
}

impl Images {
    /// Images of a set. The same name and seed give the same images. `fresh` is how often a layer is new, and
    /// `largest` the most bytes that a layer may have.
    pub fn new(name: &str, seed: u64, fresh: f64, largest: Option<u64>) -> Self {
        let rng = stream(seed, 0, &format!("images {name}"));
        Images { rng, name: name.to_owned(), fresh, largest, references: vec![], layers: vec![], made: 0 }
    }

    fn layer(&mut self, likeness: f64) -> usize {
        let own = normal(&mut self.rng);
        let z = LIKENESS * likeness + libm::sqrt(1.0 - LIKENESS * LIKENESS) * own;
        let part = 0.5 * libm::erfc(-z / core::f64::consts::SQRT_2);
        let bytes = at(part, LAYER_LEAST, LAYER_BYTES, LAYER_TAIL) as u64;
        let content = format!("{} layer {}", self.name, self.layers.len() + 1);
        self.layers.push(Layer { content, bytes: bytes.min(self.largest.unwrap_or(u64::MAX)) });
        self.layers.len() - 1
    }
}

impl Iterator for Images {
    type Item = Artifact;

    fn next(&mut self) -> Option<Artifact> {
        self.made += 1;
        let part = self.rng.f64();
        let count = libm::round(at(part, LAYERS_LEAST, LAYERS, LAYERS_TAIL)).max(1.0) as usize;
        let likeness = normal(&mut self.rng);
        let mut chosen: Vec<usize> = vec![];
        for _ in 0..count {
            let mut known = None;
            if !self.references.is_empty() && self.rng.f64() >= self.fresh {
                let any = (0..ATTEMPTS).map(|_| self.references[self.rng.usize(0..self.references.len())]);
                known = any.into_iter().find(|layer| !chosen.contains(layer));
            }
            let layer = known.unwrap_or_else(|| self.layer(likeness));
            chosen.push(layer);
        }
        self.references.extend(&chosen);
        Some(Artifact {
            repository: format!("synthetic/{}-{}", self.name, self.made),
            tags: vec!["latest".to_owned()],
            layers: chosen.into_iter().map(|layer| self.layers[layer].clone()).collect(),
        })
    }
}

/// The value of a curve at a part of the population, log-linear between its points.
fn at(part: f64, least: Quantile, middle: &[Quantile], tail: &[Quantile]) -> f64 {
    let mut before = least;
    for &(to, value) in middle.iter().chain(tail) {
        if part <= to {
            let way = ((part - before.0) / (to - before.0)).max(0.0);
            return before.1 * libm::exp(way * libm::log(value / before.1));
        }
        before = (to, value);
    }
    before.1
}

/// Mean 0, deviation 1 (Box and Muller).
fn normal(rng: &mut fastrand::Rng) -> f64 {
    // 1 - [0, 1) is never zero.
    let radius = libm::sqrt(-2.0 * libm::log(1.0 - rng.f64()));
    radius * libm::cos(2.0 * core::f64::consts::PI * rng.f64())
}

/// Popularity after Zipf: the thing of rank k (from 1) is asked for in proportion to k^-alpha.
#[derive(Debug)]
pub struct Zipf {
    /// Sums of the weights of the first ones.
    sums: Vec<f64>,
}

impl Zipf {
    /// Over so many things.
    pub fn new(things: usize, alpha: f64) -> Self {
        let mut sum = 0.0;
        let weight = |rank: usize| libm::pow(rank as f64, -alpha);
        let sums = (1..=things).map(|rank| {
            sum += weight(rank);
            sum
        });
        Zipf { sums: sums.collect() }
    }

    /// One of the first `of` things, from 0. Nothing where there is none.
    pub fn draw(&self, rng: &mut fastrand::Rng, of: usize) -> Option<usize> {
        let of = of.min(self.sums.len());
        let aim = rng.f64() * self.sums[..of].last()?;
        Some(self.sums[..of].partition_point(|sum| *sum <= aim).min(of - 1))
    }
}

/// Seconds until the next of something that happens at random, on average every `mean` nanoseconds.
pub fn exponential(rng: &mut fastrand::Rng, mean: u64) -> u64 {
    (-libm::log(1.0 - rng.f64()) * mean as f64) as u64
}

/// A figure of the source and what so many generated images have.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// Of what.
    pub what: &'static str,
    /// Which figure, such as `p50`.
    pub figure: String,
    /// The source's.
    pub source: f64,
    /// The generated.
    pub generated: f64,
}

/// Compares so many generated images with the source.
pub fn fit(images: usize, seed: u64) -> Vec<Fit> {
    let alone: Vec<Artifact> = Images::new("fit", seed, 1.0, None).take(images).collect();
    let sorted = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values
    };
    let layers =
        sorted(alone.iter().flat_map(|image| &image.layers).map(|layer| layer.bytes as f64).collect());
    let counts = sorted(alone.iter().map(|image| image.layers.len() as f64).collect());
    let bytes = sorted(alone.iter().map(|image| image.bytes() as f64).collect());
    let mut fits = vec![];
    for (what, values, quantiles, mean) in [
        ("bytes of a layer", layers, LAYER_BYTES, LAYER_BYTES_MEAN),
        ("layers of an image", counts, LAYERS, LAYERS_MEAN),
        ("bytes of an image", bytes, IMAGE_BYTES, IMAGE_BYTES_MEAN),
    ] {
        fits.extend(quantiles.iter().map(|(part, source)| Fit {
            what,
            figure: format!("p{:.0}", part * 100.0),
            source: *source,
            generated: crate::summary::quantile(&values, *part),
        }));
        let generated = values.iter().sum::<f64>() / values.len().max(1) as f64;
        fits.push(Fit { what, figure: "mean".to_owned(), source: mean, generated });
    }
    fits.extend(shared(images, seed));
    fits
}

fn shared(images: usize, seed: u64) -> Vec<Fit> {
    let mut times = std::collections::BTreeMap::<String, u64>::new();
    for image in Images::new("fit", seed, FRESH, None).take(images) {
        for layer in image.layers {
            *times.entry(layer.content).or_default() += 1;
        }
    }
    let part =
        |more: u64| times.values().filter(|count| **count > more).count() as f64 / times.len().max(1) as f64;
    let fit = |(more, source): &(u64, f64)| Fit {
        what: "part of layers",
        figure: format!("in more than {more}"),
        source: *source,
        generated: part(*more),
    };
    SHARED.iter().map(fit).collect()
}

/// The slope of popularity over rank on logarithmic scales, from many draws: it should be `alpha`.
pub fn fitted_alpha(alpha: f64, things: usize, draws: usize, seed: u64) -> f64 {
    let (zipf, mut rng) = (Zipf::new(things, alpha), stream(seed, 0, "zipf"));
    let mut counts = vec![0_u64; things];
    for _ in 0..draws {
        if let Some(thing) = zipf.draw(&mut rng, things) {
            counts[thing] += 1;
        }
    }
    // Least squares over the ranks that were drawn often enough to have a say.
    let points: Vec<(f64, f64)> = counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count >= 30)
        .map(|(rank, count)| (libm::log((rank + 1) as f64), libm::log(*count as f64)))
        .collect();
    let n = points.len() as f64;
    let (x, y) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let over = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum::<f64>();
    -over / points.iter().map(|p| (p.0 - x) * (p.0 - x)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_fits_the_source() {
        for fit in fit(8_000, 1) {
            let ratio = fit.generated / fit.source;
            let allowed = match (fit.what, fit.figure.as_str()) {
                // Between two points the curve is steep: 67-fold from p40 to p50.
                ("bytes of a layer", "p50" | "p40") => 1.25,
                ("bytes of a layer", _) => 1.12,
                ("layers of an image", _) => 1.06,
                // Not fitted.
                ("bytes of an image", _) => 1.7,
                (_, "in more than 1" | "in more than 2") => 1.4,
                (_, "in more than 50") => 1.8,
                // The tail is too heavy, as the head of the file says.
                _ => 3.5,
            };
            assert!(ratio < allowed && 1.0 / ratio < allowed, "{fit:?}: {ratio}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_images() {
        let draw = |seed| Images::new("set", seed, FRESH, Some(1_000_000)).take(50).collect::<Vec<_>>();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(7).iter().flat_map(|image| &image.layers).all(|layer| layer.bytes <= 1_000_000));
        let mut first = draw(7).swap_remove(0).layers;
        first.dedup();
        assert!(!first.is_empty());
    }

    #[test]
    fn popularity_has_the_slope_that_was_asked_for() {
        for alpha in [0.6, 0.9, 1.2] {
            let fitted = fitted_alpha(alpha, 200, 400_000, 3);
            assert!((fitted - alpha).abs() < 0.04, "{alpha}: {fitted}");
        }
        let mut rng = stream(1, 0, "x");
        assert_eq!(Zipf::new(0, 1.0).draw(&mut rng, 5), None);
        assert_eq!(Zipf::new(5, 1.0).draw(&mut rng, 1), Some(0));
    }
}
