//! A guest that watches itself, and what it proves.

use serde::Deserialize;

use super::DemoError;
use crate::own_host::{GuestProgram, OwnHost};

/// Reports to wait for before anything is done, and after all of it.
const REPORTS: usize = 3;

/// What the self-check says of itself once a second.
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

/// See the module.
pub(super) struct Watch {
    program: GuestProgram,
    before: Report,
    /// The last report but those not looked at yet.
    last: Report,
}

impl Watch {
    /// Starts the self-check with `mebibytes` of memory and a file in `guest`,
    /// and waits until it has looked at both.
    pub(super) fn start(host: &OwnHost, guest: &str, mebibytes: u32) -> Result<Self, DemoError> {
        let mebibytes = mebibytes.to_string();
        let arguments = ["/run/berth/self-check", &mebibytes, "/data/self-check"];
        let mut program = GuestProgram::start(host, guest, &arguments)?;
        let before = reports(&mut program)?;
        Ok(Self { program, last: before.clone(), before })
    }

    /// Has the guest say how it came through what was done since the last
    /// time, and prints it.
    fn went_on(&mut self) -> Result<(), DemoError> {
        let mut gap = 0;
        while let Some(report) = self.program.waiting::<Report>()? {
            gap = gap.max(report.gap_us);
        }
        // This one covers the end of what was done.
        let report: Report = self.program.report()?;
        gap = gap.max(report.gap_us);
        self.came_through(&self.last, &report)?;
        println!(
            "  {}: process {} up {:.1} s, {} pages and {} blocks checked, none wrong; \
             longest pause {:.1} ms",
            self.program.guest(),
            report.pid,
            report.uptime,
            report.pages_checked,
            report.blocks_checked,
            gap as f64 / 1e3
        );
        self.last = report;
        Ok(())
    }

    /// Ends the program and prints the guest's proof that nothing was lost
    /// over all the time.
    pub(super) fn prove(mut self) -> Result<(), DemoError> {
        reports(&mut self.program)?;
        let guest = self.program.guest().to_owned();
        let after: Report = self.program.end()?;
        let before = &self.before;
        came_through(before, &after)
            .map_err(|what| DemoError::Broken { guest: guest.clone(), what })?;
        println!("\nThe guest's own proof, from a program that ran in {guest} all the time:\n");
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
            "  pause       longest {:.1} ms; {:.1} ms before anything was done",
            after.longest_gap_us as f64 / 1e3,
            before.longest_gap_us as f64 / 1e3,
        );
        Ok(())
    }

    fn came_through(&self, before: &Report, after: &Report) -> Result<(), DemoError> {
        let guest = self.program.guest();
        came_through(before, after)
            .map_err(|what| DemoError::Broken { guest: guest.to_owned(), what })
    }
}

/// Has every guest say how it came through what was done since the last time.
pub(super) fn all_went_on(guests: &mut [Watch]) -> Result<(), DemoError> {
    println!();
    guests.iter_mut().try_for_each(Watch::went_on)
}

/// The last of a few reports.
fn reports(program: &mut GuestProgram) -> Result<Report, DemoError> {
    for _ in 1..REPORTS {
        let _: Report = program.report()?;
    }
    Ok(program.report()?)
}

/// Holds a guest's report against an earlier one; what is wrong, if anything.
fn came_through(before: &Report, after: &Report) -> Result<(), String> {
    if after.pid != before.pid {
        return Err(format!("process {} became {}", before.pid, after.pid));
    }
    if after.uptime <= before.uptime {
        return Err(format!("uptime went from {} s to {} s", before.uptime, after.uptime));
    }
    if after.errors > 0 {
        return Err(format!("{} wrong words or blocks", after.errors));
    }
    if after.pages_checked <= before.pages_checked || after.blocks_checked <= before.blocks_checked
    {
        return Err("it checked nothing afterwards".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        serde_json::from_str(
            r#"{"pid":7,"uptime":3.5,"pages_checked":10,"blocks_checked":5,"errors":0,
                "longest_gap_us":900,"gap_us":400,"clock_drift_us":1}"#,
        )
        .unwrap()
    }

    fn later() -> Report {
        Report { uptime: 9.0, pages_checked: 99, blocks_checked: 50, ..report() }
    }

    #[test]
    fn the_proof_holds_for_a_guest_that_went_on() {
        assert_eq!(came_through(&report(), &later()), Ok(()));
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
            assert!(came_through(&report(), &broken).is_err(), "{what} must be noticed");
        }
    }
}
