//! Random streams: one for each (seed, node, purpose), so that asking one more question in one place
//! changes no answer in another.

/// The stream for a purpose of a node. The same arguments give the same stream.
pub fn stream(seed: u64, node: usize, purpose: &str) -> fastrand::Rng {
    let bytes = bytes(seed, node, purpose);
    let (first, _) = bytes.split_at(8);
    fastrand::Rng::with_seed(u64::from_le_bytes(first.try_into().expect("8 bytes")))
}

/// Thirty-two bytes for a purpose of a node, such as a secret key.
pub fn bytes(seed: u64, node: usize, purpose: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("waystation-sim random stream v1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&(node as u64).to_le_bytes());
    hasher.update(purpose.as_bytes());
    *hasher.finalize().as_bytes()
}

/// Whether something that happens `permille` times in a thousand happens now.
pub fn happens(rng: &mut fastrand::Rng, permille: u64) -> bool {
    rng.u64(0..1000) < permille
}

/// A waiting time around `mean` milliseconds, never zero.
pub fn around(rng: &mut fastrand::Rng, mean: u64) -> u64 {
    1 + rng.u64(0..=mean.saturating_mul(2))
}

/// Whether something that happens so many times in a million happens now.
pub fn happens_in_million(rng: &mut fastrand::Rng, millionths: u32) -> bool {
    millionths > 0 && rng.u32(0..1_000_000) < millionths
}
