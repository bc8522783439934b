//! QEMU's own migration of the same guest, from one process to another on
//! this host.
//!
//! Kernel, initramfs and program are those of Berth's guest. The writer is all
//! that the guest does, and slower than in Berth: QEMU copies what is written
//! meanwhile again and again, and would not end under a load without limit.
//! A guest's clock stands still while QEMU moves it, so its pause cannot be
//! seen from inside: it ticks on its serial line, and the longest time
//! without a tick is taken here.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use storage_window::bench::median;
use tempfile::TempDir;

use super::mebibytes;
use super::qmp::{Monitor, QmpError};
use crate::bench::cpu::QEMU;

/// Pages that the guest writes in a second: 80 MB.
const PAGES_PER_SECOND: u32 = 20_000;
/// What QEMU may stop the guest for, in milliseconds. Less does not end.
const DOWNTIME_LIMIT: u32 = 10;
/// No limit: only the processors are.
const BYTES_PER_SECOND: u64 = 1 << 36;
/// How long a guest may take to boot and to write all of its memory.
const BOOT: Duration = Duration::from_secs(240);
/// How long a migration may take.
const MIGRATION: Duration = Duration::from_secs(120);
/// A guest that does not tick for so long has stopped.
const SILENCE: Duration = Duration::from_secs(30);

/// The guest to boot.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    pub(crate) command_line: String,
}

/// Medians over the rounds, in microseconds.
pub(super) struct Migration {
    /// As QEMU reports it.
    pub(super) total_us: f64,
    /// As QEMU reports it.
    pub(super) downtime_us: f64,
    /// The longest time between two ticks.
    pub(super) pause_us: f64,
    /// The same in as long a time without a migration.
    pub(super) floor_us: f64,
}

/// Why QEMU gave no numbers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MigrationError {
    #[error("cannot run {QEMU}")]
    Run(#[source] io::Error),
    #[error("cannot make a directory for QEMU's sockets")]
    Directory(#[source] io::Error),
    #[error(transparent)]
    Monitor(#[from] QmpError),
    #[error("QEMU's guest went silent; it last said: {0}")]
    Silent(String),
    #[error("QEMU's guest lost something")]
    Lost,
    #[error("QEMU's migration ended as: {0}")]
    Failed(Value),
    #[error("QEMU's migration did not end within {} s", MIGRATION.as_secs())]
    Endless,
}

/// Migrates a guest of `size` `rounds` times.
pub(super) fn run(
    guest: &Guest,
    name: &str,
    size: u64,
    rounds: usize,
    note: &dyn Fn(&str),
) -> Result<Migration, MigrationError> {
    note(&format!("{name}: booting the same guest in QEMU"));
    let directory = tempfile::Builder::new().prefix("berth-qemu-").tempdir();
    let mut fleet = Fleet {
        guest,
        size,
        directory: directory.map_err(MigrationError::Directory)?,
        started: 0,
        ticks: channel(),
    };
    let mut machine = fleet.start(false)?;
    await_writing(&mut machine, &fleet.ticks.1)?;
    let mut samples: [Vec<f64>; 4] = Default::default();
    for round in 0..rounds.max(1) {
        note(&format!("{name}: migration {} of {rounds}", round + 1));
        let (next, sample) = one_round(&mut fleet, machine)?;
        machine = next;
        for (samples, value) in samples.iter_mut().zip(sample) {
            samples.push(value);
        }
    }
    let [total_us, downtime_us, pause_us, floor_us] = samples.map(median);
    Ok(Migration { total_us, downtime_us, pause_us, floor_us })
}

/// What a guest said, and when it was here.
type Said = (Instant, Vec<u8>);

/// QEMU processes of one guest, which all tick to one place.
struct Fleet<'a> {
    guest: &'a Guest,
    size: u64,
    directory: TempDir,
    started: usize,
    ticks: (Sender<Said>, Receiver<Said>),
}

/// A QEMU process; dropping it ends it.
struct Machine {
    child: Child,
    monitor: Option<Monitor>,
    incoming: PathBuf,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Fleet<'_> {
    /// Starts a process that boots the guest, or one that waits for it.
    fn start(&mut self, waits: bool) -> Result<Machine, MigrationError> {
        self.started += 1;
        let path = |what: &str| self.directory.path().join(format!("{what}-{}", self.started));
        let (socket, incoming) = (path("monitor"), path("incoming"));
        let mut command = qemu(self.guest, self.size, &socket);
        if waits {
            command.arg("-incoming").arg(format!("unix:{}", incoming.display()));
        }
        let mut child = command.spawn().map_err(MigrationError::Run)?;
        if let Some(mut output) = child.stdout.take() {
            let ticks = self.ticks.0.clone();
            thread::spawn(move || {
                let mut buffer = [0; 256];
                while let Ok(count @ 1..) = output.read(&mut buffer) {
                    if ticks.send((Instant::now(), buffer[..count].to_vec())).is_err() {
                        break;
                    }
                }
            });
        }
        let mut machine = Machine { child, monitor: None, incoming };
        machine.monitor = Some(Monitor::connect(&socket)?);
        Ok(machine)
    }
}

fn qemu(guest: &Guest, size: u64, monitor: &Path) -> Command {
    let mut command = Command::new(QEMU);
    command
        .args(["-M", "virt", "-smp", "1", "-m", &format!("{}M", size >> 20)])
        .args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"])
        .arg("-qmp")
        .arg(format!("unix:{},server=on,wait=off", monitor.display()))
        .arg("-kernel")
        .arg(&guest.kernel)
        .arg("-initrd")
        .arg(&guest.initrd)
        .arg("-append")
        .arg(format!(
            "{} console=ttyS0 berth.root=none berth.writer={},{PAGES_PER_SECOND}",
            guest.command_line,
            mebibytes(size)
        ))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

fn await_writing(machine: &mut Machine, ticks: &Receiver<Said>) -> Result<(), MigrationError> {
    let deadline = Instant::now() + BOOT;
    let mut said = String::new();
    while !said.contains("BERTH-WRITING") {
        if let Ok((_, bytes)) = ticks.recv_timeout(Duration::from_millis(100)) {
            said += &String::from_utf8_lossy(&bytes);
            continue;
        }
        let ended = machine.child.try_wait().map_err(MigrationError::Run)?.is_some();
        if ended || Instant::now() > deadline {
            let skip = said.chars().count().saturating_sub(400);
            return Err(MigrationError::Silent(said.chars().skip(skip).collect()));
        }
    }
    Ok(())
}

/// The process where the guest is now, and total, downtime, pause and floor.
fn one_round(
    fleet: &mut Fleet<'_>,
    mut from: Machine,
) -> Result<(Machine, [f64; 4]), MigrationError> {
    let to = fleet.start(true)?;
    let monitor = from.monitor.as_mut().ok_or(QmpError::Ended)?;
    let limits = json!({ "max-bandwidth": BYTES_PER_SECOND, "downtime-limit": DOWNTIME_LIMIT });
    monitor.execute("migrate-set-parameters", &limits)?;
    fleet.ticks.1.try_iter().for_each(drop);

    let started = Instant::now();
    let uri = format!("unix:{}", to.incoming.display());
    monitor.execute("migrate", &json!({ "uri": uri }))?;
    let report = loop {
        let report = monitor.execute("query-migrate", &json!({}))?;
        match report["status"].as_str() {
            Some("completed") => break report,
            Some("failed" | "cancelled") => return Err(MigrationError::Failed(report)),
            _ if started.elapsed() > MIGRATION => return Err(MigrationError::Endless),
            _ => thread::sleep(Duration::from_millis(5)),
        }
    };
    drop(from);
    let pause = longest_silence(&fleet.ticks.1, started)?;
    let took = started.elapsed();
    let started = Instant::now();
    thread::sleep(took);
    let floor = longest_silence(&fleet.ticks.1, started)?;
    let milliseconds = |field: &str| report[field].as_f64().unwrap_or(f64::NAN) * 1e3;
    Ok((to, [milliseconds("total-time"), milliseconds("downtime"), pause, floor]))
}

/// The longest time between two ticks from `since` to the next tick from now,
/// in microseconds.
fn longest_silence(ticks: &Receiver<Said>, since: Instant) -> Result<f64, MigrationError> {
    let now = Instant::now();
    let (mut last, mut longest) = (since, Duration::ZERO);
    while last < now {
        let said = ticks.recv_timeout(SILENCE);
        let (at, bytes) = said.map_err(|_| MigrationError::Silent(String::new()))?;
        if bytes.contains(&b'X') {
            return Err(MigrationError::Lost);
        }
        longest = longest.max(at.saturating_duration_since(last));
        last = last.max(at);
    }
    Ok(longest.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_reaches_over_both_processes_to_the_next_tick() {
        let (sender, ticks) = channel();
        let since = Instant::now() - Duration::from_secs(1);
        for ms in [1, 2, 42, 43, 2000] {
            sender.send((since + Duration::from_millis(ms), b".".to_vec())).unwrap();
        }
        let longest = longest_silence(&ticks, since).unwrap();
        assert!((longest - 1_957_000.0).abs() < 1.0, "{longest}");
        sender.send((Instant::now() + Duration::from_secs(9), b"X".to_vec())).unwrap();
        let lost = longest_silence(&ticks, since);
        assert!(matches!(lost, Err(MigrationError::Lost)), "{lost:?}");
    }
}
