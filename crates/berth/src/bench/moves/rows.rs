//! What stands beside what in the table.

use storage_window::bench::{CopyBench, ExchangeBench, SlideBench};

use super::SIZES;
use super::live::Live;
use super::migration::Migration;
use crate::bench::Row;

/// What a live move may add to the pause that its guest sees anyway.
const MOST_OVER_FLOOR_US: f64 = 1000.0;

/// The copies alone.
pub(super) struct Bare {
    pub(super) copy: CopyBench,
    pub(super) slide: SlideBench,
    pub(super) exchange: ExchangeBench,
    /// Bytes of what was copied.
    pub(super) size: u64,
}

fn row(name: impl Into<String>, value: f64, unit: &'static str, reference: f64) -> Row {
    let ratio = Some(value / reference);
    Row { name: name.into(), value, unit, reference: Some(reference), ratio }
}

pub(super) fn bare(bare: &Bare) -> Vec<Row> {
    let Bare { copy, slide, exchange, size } = bare;
    let memcpy_us = *size as f64 / copy.memcpy * 1e6;
    let with = |ratio, row: Row| Row { ratio: Some(ratio), ..row };
    vec![
        with(
            copy.relocation_vs_memcpy,
            row("move.stop.copy_vs_memcpy", copy.relocation, "B/s", copy.memcpy),
        ),
        row("move.stop.pause_us", copy.pause_us, "us", memcpy_us),
        with(
            slide.slide_vs_memcpy,
            row("move.slide.copy_vs_memcpy", slide.slide, "B/s", slide.memcpy),
        ),
        with(
            exchange.exchange_vs_loop,
            row("exchange.vs_loop", exchange.exchange, "B/s", exchange.bare_loop),
        ),
    ]
}

/// Guests in Berth, and what QEMU did with the same; `peers` may be empty.
pub(super) fn guests(live: &[Live], peers: &[Migration]) -> Vec<Row> {
    let mut rows = Vec::new();
    let speed = |name: &str, live: &Live| {
        let row = row(name, live.copy, "B/s", live.memcpy);
        Row { ratio: Some(live.copy_vs_memcpy), ..row }
    };
    let over = |name: &str, live: &Live| row(name, live.over_floor_us, "us", MOST_OVER_FLOOR_US);
    // Without a size in its name, a row is that of the worse guest.
    let slowest = live.iter().min_by(|a, b| a.copy_vs_memcpy.total_cmp(&b.copy_vs_memcpy));
    rows.extend(slowest.map(|live| speed("move.live.copy_vs_memcpy", live)));
    let longest = live.iter().max_by(|a, b| a.over_floor_us.total_cmp(&b.over_floor_us));
    rows.extend(longest.map(|live| over("move.live.pause_over_floor_us", live)));
    if let [small, large] = live {
        rows.push(row("move.live.pause_2g_vs_256m", large.pause_us, "us", small.pause_us));
    }
    for (live, (size, _)) in live.iter().zip(SIZES) {
        rows.push(speed(&format!("move.live.copy_vs_memcpy.{size}"), live));
        rows.push(row(format!("move.live.pause_us.{size}"), live.pause_us, "us", live.floor_us));
        rows.push(over(&format!("move.live.pause_over_floor_us.{size}"), live));
    }
    for (index, (live, (size, _))) in live.iter().zip(SIZES).enumerate() {
        let peer = peers.get(index);
        let mut beside = |name: &str, value: f64, reference: Option<f64>| {
            rows.push(Row {
                name: format!("move.live.{name}_vs_qemu.{size}"),
                value,
                unit: "us",
                reference,
                ratio: reference.map(|reference| value / reference),
            });
        };
        beside("total", live.total_us, peer.map(|peer| peer.total_us));
        beside("stopped", live.stopped_us, peer.map(|peer| peer.downtime_us));
        beside("pause", live.pause_us, peer.map(|peer| peer.pause_us));
        if let Some(peer) = peer {
            let name = format!("qemu.migrate.pause_us.{size}");
            rows.push(row(name, peer.pause_us, "us", peer.floor_us));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(pause_us: f64) -> Live {
        Live {
            copy: 4.0,
            memcpy: 8.0,
            copy_vs_memcpy: 0.5,
            pause_us,
            floor_us: 900.0,
            over_floor_us: pause_us - 900.0,
            stopped_us: 100.0,
            total_us: 1000.0,
        }
    }

    fn ratio(rows: &[Row], name: &str) -> Option<f64> {
        rows.iter().find(|row| row.name == name).unwrap().ratio
    }

    #[test]
    fn the_promises_can_be_read_from_the_ratios() {
        let rows = guests(&[live(1000.0), live(1500.0)], &[]);
        assert_eq!(ratio(&rows, "move.live.copy_vs_memcpy.2g"), Some(0.5), "at least 0.5");
        assert_eq!(ratio(&rows, "move.live.pause_over_floor_us.256m"), Some(0.1), "at most 1");
        assert_eq!(ratio(&rows, "move.live.pause_over_floor_us"), Some(0.6), "of the worse one");
        assert_eq!(ratio(&rows, "move.live.pause_2g_vs_256m"), Some(1.5), "at most 2");
    }

    #[test]
    fn a_peer_is_beside_berth_or_left_out() {
        let rows = guests(&[live(1000.0), live(1500.0)], &[]);
        assert_eq!(ratio(&rows, "move.live.total_vs_qemu.256m"), None);
        let peer = || Migration {
            total_us: 4000.0,
            downtime_us: 1000.0,
            pause_us: 2000.0,
            floor_us: 1000.0,
        };
        let rows = guests(&[live(1000.0), live(1500.0)], &[peer(), peer()]);
        assert_eq!(ratio(&rows, "move.live.total_vs_qemu.256m"), Some(0.25), "below 1 is less");
        assert_eq!(ratio(&rows, "move.live.pause_vs_qemu.2g"), Some(0.75));
        assert_eq!(ratio(&rows, "qemu.migrate.pause_us.2g"), Some(2.0));
    }
}
