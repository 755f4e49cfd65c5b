//! Rates and amounts as whole numbers: parts of 2^-40 of a byte, and those in a nanosecond. 1 byte a second is
//! 1,099 such parts a nanosecond, so that what rounding down loses stays below 0.1 % of a byte per second.

use crate::setup::Nanos;

/// 2^-40 bytes a nanosecond.
pub type Rate = u64;
/// 2^-40 bytes.
pub type Amount = u128;

/// More than anything carries: about a million bytes a nanosecond.
pub const UNLIMITED: Rate = 1 << 60;
const PARTS: u32 = 40;
const SECOND: u128 = 1_000_000_000;

/// So many bytes a second.
pub fn of(bytes_per_second: u64) -> Rate {
    let rate = (u128::from(bytes_per_second) << PARTS) / SECOND;
    u64::try_from(rate).unwrap_or(UNLIMITED).min(UNLIMITED)
}

/// So many bytes in so long.
pub fn over(bytes: u64, time: Nanos) -> Rate {
    let rate = amount(bytes).checked_div(u128::from(time)).unwrap_or(u128::from(UNLIMITED));
    u64::try_from(rate).unwrap_or(UNLIMITED).min(UNLIMITED)
}

/// Bytes a second, rounded to the nearest.
pub fn bytes(rate: Rate) -> u64 {
    ((u128::from(rate) * SECOND + (1 << (PARTS - 1))) >> PARTS) as u64
}

/// So many bytes.
pub fn amount(bytes: u64) -> Amount {
    u128::from(bytes) << PARTS
}

/// Whole bytes.
pub fn whole(amount: Amount) -> u64 {
    (amount >> PARTS) as u64
}

/// What each of `sharers` gets in a time.
pub fn share(rate: Rate, time: Nanos, sharers: u64) -> Amount {
    let all = u128::from(rate) * u128::from(time);
    match sharers {
        0 | 1 => all,
        _ => match u64::try_from(all) {
            Ok(all) => u128::from(all / sharers),
            Err(_) => all / u128::from(sharers),
        },
    }
}

/// How long until each of `sharers` has got an amount; for ever where nothing moves.
pub fn time(amount: Amount, rate: Rate, sharers: u64) -> Nanos {
    if rate == 0 {
        return if amount == 0 { 0 } else { Nanos::MAX };
    }
    let all = amount.saturating_mul(u128::from(sharers));
    match u64::try_from(all) {
        Ok(all) => all.div_ceil(rate),
        Err(_) => u64::try_from(all.div_ceil(u128::from(rate))).unwrap_or(Nanos::MAX),
    }
}
