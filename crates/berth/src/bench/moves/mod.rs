//! `berth bench move`: what moves and exchanges cost, bare and with guests.
//!
//! The copies alone (`storage_window::bench`), then live moves of real guests
//! that watch themselves ([`live`]), then the same guest migrated by QEMU
//! ([`migration`]). [`rows`] says what stands beside what.

mod live;
mod migration;
mod qmp;
mod rows;

use storage_window::bench::{BenchError, copy, exchange, slide};

use super::Rows;
use super::cpu::qemu_is_installed;
use crate::own_host::OwnHostError;
pub(crate) use migration::Guest;
use migration::MigrationError;
use rows::Bare;

/// Size of the worked example's second partition, and how far it moves: the
/// ranges overlap by three quarters.
const SIZE: u64 = 256 << 20;
const DISTANCE: u64 = 64 << 20;
/// The guests, as rows name them.
const SIZES: [(&str, u64); 2] = [("256m", 256 << 20), ("2g", 2 << 30)];

/// Why there are no numbers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MoveBenchError {
    #[error(transparent)]
    Bare(#[from] BenchError),
    #[error(transparent)]
    Host(#[from] OwnHostError),
    #[error("the measured move was refused: {0}")]
    Refused(String),
    #[error("the guest of {0} lost something while it was moved: its writer says so")]
    Lost(&'static str),
    #[error(transparent)]
    Migration(#[from] MigrationError),
}

/// Measures `rounds` rounds, medians; with guests if there is one to boot in
/// QEMU. `note` is told what happens.
pub(crate) fn run(
    rounds: usize,
    guest: Option<&Guest>,
    note: &dyn Fn(&str),
) -> Result<Rows, MoveBenchError> {
    note("measuring the copies alone");
    let bare = Bare {
        copy: copy(SIZE, DISTANCE, rounds)?,
        slide: slide(SIZE, DISTANCE, rounds)?,
        exchange: exchange(SIZE, rounds)?,
        size: SIZE,
    };
    let mut rows = rows::bare(&bare);
    if let Some(guest) = guest {
        let live = live::run(rounds, note)?;
        let peers = if qemu_is_installed() {
            let migrate = |(name, size)| migration::run(guest, name, size, rounds, note);
            SIZES.into_iter().map(migrate).collect::<Result<_, _>>()?
        } else {
            note("qemu-system-riscv64 is not installed (Debian: qemu-system-misc): no peer");
            Vec::new()
        };
        rows.extend(rows::guests(&live, &peers));
    }
    Ok(Rows { rows })
}

/// Memory that is written in a guest of `size`: what its kernel and a little
/// else leave.
fn mebibytes(size: u64) -> u64 {
    (size >> 20) * 7 / 8 - 96
}
