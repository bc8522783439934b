//! The operator's side: what becomes of the machines.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use host::control::{MemberPutBack, PoolStatus, Reply, Request};

use super::{COLD, MACHINES, PATIENCE, POOL, PoolBenchError};
use crate::own_host::OwnHost;

/// Between two questions to the host; also how exact a time from outside is.
const LOOK: Duration = Duration::from_millis(1);

pub(super) struct Machines<'a> {
    pub(super) host: &'a OwnHost,
}

impl Machines<'_> {
    /// Waits until `count` machines are free and there is no other.
    pub(super) fn await_free(&self, count: u16) -> Result<PoolStatus, PoolBenchError> {
        let count = usize::from(count);
        await_that("free machines", || {
            let pool = self.pool()?;
            let free = pool.members.iter().filter(|member| member.state == "free").count();
            let last = format!("{pool:?}");
            Ok(if free == count && pool.members.len() == count { Ok(pool) } else { Err(last) })
        })
    }

    fn pool(&self) -> Result<PoolStatus, PoolBenchError> {
        let reply = self.host.request(&Request::PoolStatus)?;
        let last = format!("{reply:?}");
        let found = match reply {
            Reply::Pools { pools } => pools.into_iter().find(|pool| pool.name == POOL),
            _ => None,
        };
        found.ok_or(PoolBenchError::InVain { what: "the pool", last })
    }

    /// What the host says of putting the machine back that served `session`.
    pub(super) fn reset_after(
        &self,
        session: impl FnOnce() -> Result<(), PoolBenchError>,
    ) -> Result<MemberPutBack, PoolBenchError> {
        let before = self.await_free(MACHINES)?;
        session()?;
        let after = self.await_free(MACHINES)?;
        let times = |pool: &PoolStatus, name: &str| {
            let member = pool.members.iter().find(|member| member.name == name);
            member.and_then(|member| member.put_back).map_or(0, |last| last.times)
        };
        let mut newer = after.members.iter().filter_map(|member| {
            member.put_back.filter(|last| last.times > times(&before, &member.name))
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
        self.await_free(MACHINES)?;
        Ok(started.elapsed().as_secs_f64() * 1e6)
    }

    fn resize(&self, count: u16) -> Result<(), PoolBenchError> {
        self.done(&Request::PoolResize { name: POOL.into(), min: count, max: count })
    }

    /// From the order to boot a machine of the same kind until its guest serves
    /// commands; microseconds.
    pub(super) fn boot(&self) -> Result<f64, PoolBenchError> {
        let started = Instant::now();
        self.done(&Request::Start { name: COLD.into() })?;
        await_that("a guest to boot", || {
            let reply = self.host.request(&Request::Status)?;
            let ready = matches!(&reply, Reply::Status(status)
                if status.partitions.iter().any(|one| one.name == COLD && one.ready));
            Ok(if ready { Ok(()) } else { Err(format!("{reply:?}")) })
        })?;
        let micros = started.elapsed().as_secs_f64() * 1e6;
        // Its CPU is for the pool again.
        self.done(&Request::Stop { name: COLD.into(), now: true })?;
        Ok(micros)
    }

    fn done(&self, request: &Request) -> Result<(), PoolBenchError> {
        self.host.request(request)?;
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
