//! What stands beside what in the table.

use storage_window::bench::median;

use super::machines::PutBack;
use crate::bench::Row;

/// What all machines of a start may take that has the capture on disk.
const WARM_US: f64 = 10e6;

/// What was measured, one of each in every round unless it says more.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Some in each round.
    pub(super) first_byte_us: Vec<f64>,
    /// The same of a program that is started for each conversation.
    pub(super) started_us: Vec<f64>,
    /// What of `first_byte_us` was not the machine's.
    pub(super) host_us: Vec<f64>,
    /// An empty round trip between two threads of this program before each of them.
    pub(super) socket_us: Vec<f64>,
    /// Some in each round.
    pub(super) echo_us: Vec<f64>,
    pub(super) resets: Vec<PutBack>,
    pub(super) member_us: Vec<f64>,
    pub(super) boot_us: Vec<f64>,
    /// All machines, from `berth up` on, with the capture on disk.
    pub(super) warm_us: Vec<f64>,
    pub(super) claims_per_second: Vec<f64>,
    /// Bytes per second.
    pub(super) memcpy: Vec<f64>,
    /// What the capture's storage has that is not a hole.
    pub(super) capture_bytes: u64,
}

/// The smallest value that at least `percent` of all do not exceed.
fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

pub(super) fn of(figures: &Figures) -> Vec<Row> {
    let Figures { first_byte_us, started_us, echo_us, resets, .. } = figures;
    let memcpy = median(figures.memcpy.clone());
    let memcpy_us = |bytes: f64| bytes / memcpy * 1e6;
    let reset_us = median(resets.iter().map(|reset| reset.micros as f64).collect());
    let reset_bytes = median(resets.iter().map(|reset| reset.bytes as f64).collect());
    let member_us = median(figures.member_us.clone());
    let boot_us = median(figures.boot_us.clone());
    let copied_us = memcpy_us(figures.capture_bytes as f64);
    vec![
        first_byte("pool.first_byte_p50_us", first_byte_us, echo_us, 50),
        first_byte("pool.first_byte_p99_us", first_byte_us, echo_us, 99),
        first_byte("pool.host_part_p50_us", &figures.host_us, &figures.socket_us, 50),
        first_byte("pool.first_byte_started_p50_us", started_us, echo_us, 50),
        beside("pool.reset_us", reset_us, memcpy_us(reset_bytes)),
        beside("pool.member_copy_us", member_us, boot_us),
        beside("pool.member_copy_vs_memcpy", member_us, copied_us),
        beside("pool.warm_start_us", median(figures.warm_us.clone()), WARM_US),
        Row {
            name: "pool.claims_per_second".into(),
            value: median(figures.claims_per_second.clone()),
            unit: "1/s",
            reference: None,
            ratio: None,
        },
    ]
}

fn first_byte(name: &str, times: &[f64], echoes: &[f64], percent: usize) -> Row {
    beside(name, percentile(times, percent), percentile(echoes, percent))
}

fn beside(name: &str, value: f64, reference: f64) -> Row {
    let (reference, ratio) = (Some(reference), Some(value / reference));
    Row { name: name.into(), value, unit: "us", reference, ratio }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&hundred, 50), 50.0);
        assert_eq!(percentile(&hundred, 99), 99.0);
        assert_eq!(percentile(&hundred, 100), 100.0);
        assert_eq!(percentile(&[7.0], 99), 7.0);
        assert_eq!(percentile(&[1.0, 2.0, 3.0], 99), 3.0, "few values: the worst");
        assert!(percentile(&[], 50).is_nan());
    }

    #[test]
    fn each_row_stands_beside_what_the_documentation_says() {
        let reset = |micros| PutBack { bytes: 1 << 20, micros, first_output_us: None };
        let figures = Figures {
            first_byte_us: vec![4000.0; 100],
            started_us: vec![50_000.0; 100],
            host_us: vec![300.0; 100],
            socket_us: vec![30.0; 100],
            echo_us: vec![500.0; 100],
            resets: vec![reset(4000), reset(2000), reset(3000)],
            member_us: vec![40_000.0],
            boot_us: vec![1_600_000.0],
            warm_us: vec![2e6],
            claims_per_second: vec![100.0],
            memcpy: vec![1024.0 * 1024.0 * 1000.0],
            capture_bytes: 10 << 20,
        };
        let rows = of(&figures);
        let row = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
        assert_eq!(row("pool.first_byte_p50_us").ratio, Some(8.0));
        assert_eq!(row("pool.first_byte_started_p50_us").ratio, Some(100.0));
        assert_eq!(row("pool.host_part_p50_us").ratio, Some(10.0));
        assert_eq!(row("pool.warm_start_us").ratio, Some(0.2));
        assert_eq!(row("pool.reset_us").ratio, Some(3.0), "3 ms to the 1 ms of memcpy");
        assert_eq!(row("pool.member_copy_us").ratio, Some(0.025), "below 1 is faster than a boot");
        assert_eq!(row("pool.member_copy_vs_memcpy").reference, Some(10_000.0));
        assert_eq!(row("pool.claims_per_second").reference, None);
    }
}
