//! `berth demo`: the patent's worked example (Figs. 3A and 4A), live.
//!
//! It uses Berth as anybody would, by its commands, on a state directory of
//! its own that is gone afterwards.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

/// The host file of the worked example.
const HOST_FILE: &str = include_str!("../../../examples/worked-example/berth.toml");
/// The guest's program that checks itself; mebibytes of memory and a file.
const WORKLOAD: [&str; 3] = ["/run/berth/self-check", "64", "/data/self-check"];
/// A workload that reports nothing for so long has stopped.
const SILENCE: Duration = Duration::from_secs(60);
/// Reports to wait for before and after the move.
const REPORTS: usize = 3;

/// Why the demonstration came to no good end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error("cannot make the demonstration's directory")]
    Directory(#[source] io::Error),
    #[error("cannot run {command}")]
    Run { command: String, source: io::Error },
    #[error("{command} ended with {status}")]
    Failed { command: String, status: ExitStatus },
    #[error("the workload in lpar2 said nothing for {} s; is the guest alive? see its console", SILENCE.as_secs())]
    Silent,
    #[error("the workload in lpar2 said something else than its report: {line}")]
    Report { line: String, source: serde_json::Error },
    #[error("the guest did not come through: {0}")]
    Broken(String),
}

/// What the workload says of itself once a second.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Report {
    pid: u32,
    uptime: f64,
    pages_checked: u64,
    blocks_checked: u64,
    errors: u64,
    longest_gap_us: u64,
    gap_us: u64,
    clock_drift_us: u64,
}

/// Runs the demonstration.
pub(crate) fn run() -> Result<(), DemoError> {
    let directory =
        tempfile::Builder::new().prefix("berth-demo-").tempdir().map_err(DemoError::Directory)?;
    let host_file = directory.path().join("berth.toml");
    std::fs::write(&host_file, HOST_FILE).map_err(DemoError::Directory)?;
    let berth = Berth::new(directory.path())?;

    println!("Main storage of 509 MB with two Debian guests. Images are built the first time.\n");
    let host = Host::up(&berth, &host_file)?;
    let mut workload = Workload::start(&berth)?;
    let before = workload.reports(REPORTS)?;

    println!("\nFig. 3A, before the move:\n");
    berth.show(&["status"])?;
    println!();
    berth.show(&["move", "lpar2", "--to", "192M"])?;
    let across = workload.report()?;
    println!("\nFig. 4A, after it:\n");
    berth.show(&["status"])?;

    workload.reports(REPORTS)?;
    let after = workload.end()?;
    println!("\nThe guest's own proof, from a program that ran in lpar2 all the time:\n");
    prove(&before, &across, &after)?;
    println!();
    host.down()
}

/// Holds what the guest said before the move against what it says after it.
fn prove(before: &Report, across: &Report, after: &Report) -> Result<(), DemoError> {
    let broken = |what: String| Err(DemoError::Broken(what));
    if after.pid != before.pid {
        return broken(format!("process {} became {}", before.pid, after.pid));
    }
    if after.uptime <= before.uptime {
        return broken(format!("uptime went from {} s to {} s", before.uptime, after.uptime));
    }
    if after.errors > 0 {
        return broken(format!("{} wrong words or blocks", after.errors));
    }
    if after.pages_checked <= before.pages_checked || after.blocks_checked <= before.blocks_checked
    {
        return broken("it checked nothing after the move".into());
    }
    println!("  process     {} before and after", after.pid);
    println!(
        "  uptime      {:.2} s before, {:.2} s after: never restarted",
        before.uptime, after.uptime
    );
    println!("  memory      {} pages written and checked, none wrong", after.pages_checked);
    println!("  disk        {} blocks written and read back, none wrong", after.blocks_checked);
    println!(
        "  clocks      {} us apart after {:.1} s",
        after.clock_drift_us,
        after.uptime - before.uptime
    );
    println!(
        "  pause       longest {:.1} ms around the move; {:.1} ms before it",
        across.longest_gap_us.max(across.gap_us) as f64 / 1e3,
        before.longest_gap_us as f64 / 1e3,
    );
    Ok(())
}

/// This program, on the demonstration's state directory.
struct Berth {
    program: PathBuf,
    state: PathBuf,
}

impl Berth {
    fn new(directory: &Path) -> Result<Self, DemoError> {
        let program = std::env::current_exe()
            .map_err(|source| DemoError::Run { command: "berth".into(), source })?;
        Ok(Self { program, state: directory.join("state") })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--state-dir").arg(&self.state).args(arguments);
        command
    }

    /// Runs a command under the user's eyes.
    fn show(&self, arguments: &[&str]) -> Result<(), DemoError> {
        println!("$ berth {}", arguments.join(" "));
        self.quietly(arguments)
    }

    fn quietly(&self, arguments: &[&str]) -> Result<(), DemoError> {
        let command = format!("berth {}", arguments.join(" "));
        match self.command(arguments).status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(DemoError::Failed { command, status }),
            Err(source) => Err(DemoError::Run { command, source }),
        }
    }
}

/// The running host; dropping it brings it down.
struct Host<'a> {
    berth: &'a Berth,
    up: bool,
}

impl<'a> Host<'a> {
    fn up(berth: &'a Berth, host_file: &Path) -> Result<Self, DemoError> {
        let host = Self { berth, up: true };
        berth.quietly(&["up", "--detach", "-f", &host_file.to_string_lossy()])?;
        Ok(host)
    }

    fn down(mut self) -> Result<(), DemoError> {
        self.up = false;
        self.berth.show(&["down"])
    }
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        if self.up {
            // The reason why we are here is what the user must see.
            let down =
                self.berth.command(&["down"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
            drop(down);
        }
    }
}

/// The self-checking program in lpar2.
struct Workload {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Workload {
    fn start(berth: &Berth) -> Result<Self, DemoError> {
        let command = "berth exec lpar2".to_owned();
        let mut child = berth
            .command(&["exec", "lpar2", "--"])
            .args(WORKLOAD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| DemoError::Run { command, source })?;
        let stdin = child.stdin.take();
        let (sender, lines) = sync_channel(64);
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Self { child, stdin, lines })
    }

    fn report(&mut self) -> Result<Report, DemoError> {
        let line = self.lines.recv_timeout(SILENCE).map_err(|_| DemoError::Silent)?;
        parse(line)
    }

    /// Waits for `count` reports; the last one.
    fn reports(&mut self, count: usize) -> Result<Report, DemoError> {
        for _ in 1..count {
            self.report()?;
        }
        self.report()
    }

    /// Asks the workload to end; its last report.
    fn end(mut self) -> Result<Report, DemoError> {
        drop(self.stdin.take());
        let deadline = Instant::now() + SILENCE;
        let mut last = None;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => last = Some(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => return Err(DemoError::Silent),
            }
        }
        let command = "the workload in lpar2".to_owned();
        match self.child.wait() {
            Ok(status) if status.success() => parse(last.ok_or(DemoError::Silent)?),
            Ok(status) => Err(DemoError::Failed { command, status }),
            Err(source) => Err(DemoError::Run { command, source }),
        }
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // Ended already unless something else failed; then nobody needs it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(line: String) -> Result<Report, DemoError> {
    serde_json::from_str(&line).map_err(|source| DemoError::Report { line, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        parse(
            r#"{"pid":7,"uptime":3.5,"pages_checked":10,"blocks_checked":5,"errors":0,
                "longest_gap_us":900,"gap_us":400,"clock_drift_us":1}"#
                .into(),
        )
        .unwrap()
    }

    fn later() -> Report {
        Report { uptime: 9.0, pages_checked: 99, blocks_checked: 50, ..report() }
    }

    #[test]
    fn the_proof_holds_for_a_guest_that_went_on() {
        assert!(prove(&report(), &later(), &later()).is_ok());
    }

    #[test]
    fn the_proof_fails_for_every_loss() {
        for (broken, what) in [
            (Report { pid: 8, ..later() }, "restarted process"),
            (Report { uptime: 0.5, ..later() }, "restarted guest"),
            (Report { errors: 1, ..later() }, "wrong word"),
            (Report { pages_checked: 10, ..later() }, "stopped memory check"),
            (Report { blocks_checked: 5, ..later() }, "stopped disk check"),
        ] {
            assert!(prove(&report(), &later(), &broken).is_err(), "{what} must be noticed");
        }
    }
}
