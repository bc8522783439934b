//! Live moves of real guests, watched from inside.
//!
//! A guest's writer (`crates/agent/src/writer.rs`) stores into one page after
//! the other as fast as it can and keeps the longest pause of its own loop.
//! In each round it is asked around a move, and then around as long a time
//! without one: that pause is the floor, made by the guest's own kernel and by
//! whatever else this host does.

use std::thread;
use std::time::{Duration, Instant};

use operator_api::model::{Command, MoveMode, Outcome};
use operator_client::Client;
use serde::Deserialize;
use storage_window::bench::{Memcpy, median};

use super::{MoveBenchError, SIZES, mebibytes};
use crate::own_host::{GuestProgram, OwnHost, OwnHostError};

/// How far a guest moves, there and back: the ranges overlap.
const DISTANCE: u64 = 64 << 20;

/// What one guest's moves were like: medians over the rounds, of a ratio or a
/// difference the median of each round's own.
pub(super) struct Live {
    /// Bytes per second.
    pub(super) copy: f64,
    pub(super) memcpy: f64,
    pub(super) copy_vs_memcpy: f64,
    /// The longest pause seen in the guest, microseconds.
    pub(super) pause_us: f64,
    pub(super) floor_us: f64,
    pub(super) over_floor_us: f64,
    /// For how long the host says that it stopped the guest.
    pub(super) stopped_us: f64,
    /// From the request to the answer.
    pub(super) total_us: f64,
}

/// What the writer says.
#[derive(Debug, Deserialize)]
struct Report {
    gap_us: f64,
    errors: u64,
}

/// Moves a guest of each size `rounds` times.
pub(super) fn run(rounds: usize, note: &dyn Fn(&str)) -> Result<Vec<Live>, MoveBenchError> {
    note("starting a host with a guest of 256M and one of 2G");
    let host = OwnHost::up(&host_file())?;
    let mut client = host.client()?;
    let mut memcpy = Memcpy::new(SIZES[0].1)?;
    let mut origin = 0;
    let mut results = Vec::new();
    for (name, size) in SIZES {
        note(&format!("{name}: its writer takes {} MiB", mebibytes(size)));
        let guest = guest(name);
        let arguments = ["/run/berth/writer", &mebibytes(size).to_string()];
        let mut writer = GuestProgram::start(&host, &guest, &arguments)?;
        let _: Report = writer.report()?;
        let mut samples = Vec::new();
        for round in 0..rounds.max(1) {
            note(&format!("{name}: move {} of {rounds}", round + 1));
            let to = if round % 2 == 0 { origin + DISTANCE } else { origin };
            samples.push(one_round(&mut client, &mut writer, to, &mut memcpy)?);
        }
        let last: Report = writer.end()?;
        if last.errors > 0 {
            return Err(MoveBenchError::Lost(name));
        }
        results.push(summary(samples));
        origin += size + DISTANCE;
    }
    Ok(results)
}

/// Each guest with room to move up by the distance.
fn host_file() -> String {
    let total: u64 = SIZES.iter().map(|(_, size)| (size + DISTANCE) >> 20).sum();
    let mut text = format!("[main_storage]\nsize = \"{total}M\"\n");
    let mut origin = 0;
    for (name, size) in SIZES {
        text += &format!(
            "\n[[partition]]\nname = \"{}\"\norigin = \"{}M\"\nsize = \"{}M\"\nimage = \"minimal\"\n",
            guest(name),
            origin >> 20,
            size >> 20,
        );
        origin += size + DISTANCE;
    }
    text
}

fn guest(name: &str) -> String {
    format!("guest-{name}")
}

fn one_round(
    client: &mut Client,
    writer: &mut GuestProgram,
    to: u64,
    memcpy: &mut Memcpy,
) -> Result<Live, MoveBenchError> {
    let plain = memcpy.run();
    let name = writer.guest().to_owned();
    let command = Command::Move { name, to, mode: MoveMode::Live };
    let _: Report = writer.ask()?;
    let started = Instant::now();
    let outcome = client.carry_out(&command, |_| {});
    let total = started.elapsed();
    let moved: Report = writer.ask()?;
    let floor = floor(writer, total)?;
    let (stopped_us, copy) = match outcome.map_err(OwnHostError::from)? {
        Outcome::Moved { pause_us, copy_bytes_per_second, .. } => {
            (pause_us as f64, copy_bytes_per_second as f64)
        }
        other => return Err(MoveBenchError::Refused(format!("{other:?}"))),
    };
    Ok(Live {
        copy,
        memcpy: plain,
        copy_vs_memcpy: copy / plain,
        pause_us: moved.gap_us,
        floor_us: floor.gap_us,
        over_floor_us: moved.gap_us - floor.gap_us,
        stopped_us,
        total_us: total.as_secs_f64() * 1e6,
    })
}

/// As long a time in which nothing is done.
fn floor(writer: &mut GuestProgram, total: Duration) -> Result<Report, MoveBenchError> {
    thread::sleep(total);
    Ok(writer.ask()?)
}

fn summary(rounds: Vec<Live>) -> Live {
    let of = |figure: fn(&Live) -> f64| median(rounds.iter().map(figure).collect());
    Live {
        copy: of(|round| round.copy),
        memcpy: of(|round| round.memcpy),
        copy_vs_memcpy: of(|round| round.copy_vs_memcpy),
        pause_us: of(|round| round.pause_us),
        floor_us: of(|round| round.floor_us),
        over_floor_us: of(|round| round.over_floor_us),
        stopped_us: of(|round| round.stopped_us),
        total_us: of(|round| round.total_us),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_have_room_to_move_and_nothing_between_overlaps() {
        let file: toml::Value = toml::from_str(&host_file()).unwrap();
        assert_eq!(file["main_storage"]["size"].as_str(), Some("2432M"));
        let origins: Vec<_> =
            file["partition"].as_array().unwrap().iter().map(|p| p["origin"].as_str()).collect();
        assert_eq!(origins, [Some("0M"), Some("320M")]);
    }
}
