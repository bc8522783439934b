//! The operator's side: what becomes of the machines.

use std::cell::RefCell;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use operator_api::model::{Command, MemberState, Pool, PoolMember, State};
use operator_client::Client;

use super::{COLD, MACHINES, PATIENCE, POOL, PoolBenchError};
use crate::own_host::{OwnHost, OwnHostError};

/// Between two questions to the host; also how exact a time from outside is.
const LOOK: Duration = Duration::from_millis(1);

/// What making a machine takes at least.
const SOONEST: Duration = Duration::from_millis(20);

pub(super) struct Machines {
    client: RefCell<Client>,
}

/// What it took to make a machine again what was captured.
#[derive(Debug, Clone, Copy)]
pub(super) struct PutBack {
    /// Bytes that were put back.
    pub(super) bytes: u64,
    /// Microseconds from the host's order to the worker's report.
    pub(super) micros: u64,
    /// What the machine had taken to its program's first output, in microseconds.
    pub(super) first_output_us: Option<u64>,
}

impl Machines {
    /// Those of `host`.
    pub(super) fn of(host: &OwnHost) -> Result<Self, PoolBenchError> {
        Ok(Self { client: RefCell::new(host.client()?) })
    }

    /// Waits until `count` machines are free and there is no other.
    pub(super) fn await_free(&self, count: u16) -> Result<Pool, PoolBenchError> {
        let count = usize::from(count);
        await_that("free machines", || {
            let pool = self.pool()?;
            let free =
                pool.members.iter().filter(|member| member.state == MemberState::Free).count();
            let last = format!("{pool:?}");
            Ok(if free == count && pool.members.len() == count { Ok(pool) } else { Err(last) })
        })
    }

    fn state(&self) -> Result<State, PoolBenchError> {
        Ok(self.client.borrow_mut().state().map_err(OwnHostError::from)?)
    }

    fn pool(&self) -> Result<Pool, PoolBenchError> {
        let pools = self.state()?.pools;
        let last = format!("{pools:?}");
        let found = pools.into_iter().find(|pool| pool.name == POOL);
        found.ok_or(PoolBenchError::InVain { what: "the pool", last })
    }

    /// What the host says of putting the machine back that served `session`.
    pub(super) fn reset_after(
        &self,
        session: impl FnOnce() -> Result<(), PoolBenchError>,
    ) -> Result<PutBack, PoolBenchError> {
        let before = self.await_free(MACHINES)?;
        session()?;
        let after = self.await_free(MACHINES)?;
        let times = |name: &str| {
            let member = before.members.iter().find(|member| member.name == name);
            member.map_or(0, |member| member.put_back_times)
        };
        let newer = |member: &&PoolMember| member.put_back_times > times(&member.name);
        let mut newer = after.members.iter().filter(newer).filter_map(|member| {
            let (bytes, micros) = member.put_back_bytes.zip(member.put_back_micros)?;
            Some(PutBack { bytes, micros, first_output_us: member.first_output_micros })
        });
        let last = format!("{after:?}");
        newer.next().ok_or(PoolBenchError::InVain { what: "a machine to be put back", last })
    }

    /// From the order for one machine more until it is free; microseconds.
    pub(super) fn remake(&self) -> Result<f64, PoolBenchError> {
        self.resize(MACHINES - 1)?;
        self.await_free(MACHINES - 1)?;
        let started = Instant::now();
        self.resize(MACHINES)?;
        // To look takes a part of a CPU that a machine is made by.
        thread::sleep(SOONEST);
        self.await_free(MACHINES)?;
        Ok(started.elapsed().as_secs_f64() * 1e6)
    }

    fn resize(&self, count: u16) -> Result<(), PoolBenchError> {
        self.done(&Command::PoolResize { name: POOL.into(), min: count, max: count })
    }

    /// From the order to boot a machine of the same kind until its guest serves
    /// commands; microseconds.
    pub(super) fn boot(&self) -> Result<f64, PoolBenchError> {
        let started = Instant::now();
        self.done(&Command::Start { name: COLD.into() })?;
        await_that("a guest to boot", || {
            let partitions = self.state()?.host.partitions;
            let ready = partitions.iter().any(|one| one.name == COLD && one.ready);
            Ok(if ready { Ok(()) } else { Err(format!("{partitions:?}")) })
        })?;
        let micros = started.elapsed().as_secs_f64() * 1e6;
        // Its CPU is for the pool again.
        self.done(&Command::Stop { name: COLD.into(), now: true })?;
        Ok(micros)
    }

    fn done(&self, command: &Command) -> Result<(), PoolBenchError> {
        let done = self.client.borrow_mut().carry_out(command, |_| {});
        done.map_err(OwnHostError::from)?;
        Ok(())
    }
}

/// Asks until there is an answer; an error of the question itself ends it.
fn await_that<T>(
    what: &'static str,
    mut ask: impl FnMut() -> Result<Result<T, String>, PoolBenchError>,
) -> Result<T, PoolBenchError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask()? {
            Ok(answer) => return Ok(answer),
            Err(last) if Instant::now() > deadline => {
                return Err(PoolBenchError::InVain { what, last });
            }
            Err(_) => thread::sleep(LOOK),
        }
    }
}

/// Bytes of a file that are not holes.
pub(super) fn stored(file: &Path) -> Result<u64, PoolBenchError> {
    let found = std::fs::metadata(file).map_err(PoolBenchError::Capture)?;
    Ok(found.blocks() * 512)
}
