//! `berth bench move`: a stop-mode move's copy beside plain memcpy.

use storage_window::bench::{BenchError, copy};

use super::{Row, Rows};

/// Size of the worked example's second partition, and how far it moves: the
/// ranges overlap by three quarters.
const SIZE: u64 = 256 << 20;
const DISTANCE: u64 = 64 << 20;

/// Measures `rounds` rounds, medians.
pub(crate) fn run(rounds: usize) -> Result<Rows, BenchError> {
    let bench = copy(SIZE, DISTANCE, rounds)?;
    let memcpy_us = SIZE as f64 / bench.memcpy * 1e6;
    let rows = vec![
        Row {
            name: "move.stop.copy_vs_memcpy".into(),
            value: bench.relocation,
            unit: "B/s",
            reference: Some(bench.memcpy),
            ratio: Some(bench.relocation_vs_memcpy),
        },
        Row {
            name: "move.stop.pause_us".into(),
            value: bench.pause_us,
            unit: "us",
            reference: Some(memcpy_us),
            ratio: Some(bench.pause_us / memcpy_us),
        },
    ];
    Ok(Rows { rows })
}
