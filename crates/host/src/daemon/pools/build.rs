//! Makes the machines of pools and destroys them.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use main_storage::PartitionName;
use service_pool::{MemberId, PoolName};

use super::Input;
use crate::daemon::Shared;
use crate::daemon::board::{CommandError, Run};
use crate::host_file::PoolSpec;

/// How long a command that is under way on a machine may take.
const BUSY: Duration = Duration::from_secs(60);
/// Between two looks.
const AGAIN: Duration = Duration::from_millis(20);

impl Shared {
    /// Has `berth up` wait for the machines that are kept ready.
    pub(in crate::daemon) fn await_pools(&self) {
        let pools = self.config.file.pools.iter();
        let ready = pools.flat_map(|pool| pool.members().take(usize::from(pool.config.min)));
        self.board().awaited.extend(ready.filter_map(|member| name_of(&member).ok()));
    }

    /// Says of a pool's machines that do not run why there are none.
    pub(super) fn fail_pool(&self, pool: &PoolName, why: &str) {
        let members = self.config.file.pools.iter().filter(|spec| spec.config.name == *pool);
        let names = members.flat_map(PoolSpec::members).filter_map(|member| name_of(&member).ok());
        let mut board = self.board();
        for name in names {
            match board.partitions.get_mut(&name) {
                Some(partition) if partition.process().is_none() => {
                    (partition.run, partition.reason) = (Run::Failed, Some(why.to_owned()));
                }
                _ => {}
            }
        }
        drop(board);
        self.changed.notify_all();
    }

    /// The pool that a machine is of.
    pub(super) fn pool_of(&self, member: &MemberId) -> Option<&PoolSpec> {
        self.config.file.pools.iter().find(|pool| pool.config.name == *member.pool())
    }

    /// Makes a machine, instead of what is left of it, and says how that ended.
    pub(super) fn build_later(self: &Arc<Self>, member: MemberId) {
        let (shared, built) = (Arc::clone(self), member.clone());
        self.later("build", move || {
            let result = name_of(&built).and_then(|name| {
                let _quiet = Quiet::of(&shared, &name);
                shared.build(&built, &name)
            });
            shared.pools.tell(Input::Built { member: built, result });
        })
        .unwrap_or_else(|why| self.pools.tell(Input::Built { member, result: Err(why) }));
    }

    /// Destroys a machine, and says so. One that cannot be destroyed is said to
    /// be gone all the same: it is stopped again before it is built again.
    pub(super) fn destroy_later(self: &Arc<Self>, member: MemberId) {
        let (shared, gone) = (Arc::clone(self), member.clone());
        let spawned = self.later("destroy", move || {
            let stopped = name_of(&gone).and_then(|name| {
                let _quiet = Quiet::of(&shared, &name);
                shared.stop_for_good(&name)
            });
            if let Err(why) = stopped {
                tracing::error!(member = %gone, why, "a machine of a pool cannot be destroyed");
            }
            shared.pools.tell(Input::Destroyed(gone));
        });
        if let Err(why) = spawned {
            tracing::error!(%member, why, "a machine of a pool cannot be destroyed");
            self.pools.tell(Input::Destroyed(member));
        }
    }

    fn later(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), String> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
        thread.map(drop).map_err(|error| format!("no thread to be had: {error}"))
    }

    fn build(self: &Arc<Self>, member: &MemberId, name: &PartitionName) -> Result<(), String> {
        let pool = self.pool_of(member).ok_or("its pool is not in the host file")?;
        self.stop_for_good(name)?;
        self.ensure_capture(pool, name)?;
        let started = Instant::now();
        self.patiently(|| self.start(name.as_str()))?;
        tracing::info!(member = %name, ms = started.elapsed().as_millis(), "made from the capture");
        Ok(())
    }

    /// Stops a machine if it runs.
    pub(super) fn stop_for_good(self: &Arc<Self>, name: &PartitionName) -> Result<(), String> {
        self.patiently(|| match self.stop_partition(name.as_str(), true) {
            Err(CommandError::NotRunning { .. }) => Ok(()),
            result => result,
        })
    }

    /// Does what a command that is under way on the machine may forbid just now.
    fn patiently(&self, act: impl Fn() -> Result<(), CommandError>) -> Result<(), String> {
        let deadline = Instant::now() + BUSY;
        loop {
            match act() {
                Err(CommandError::Busy { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(AGAIN);
                }
                result => return result.map_err(|error| error.to_string()),
            }
        }
    }
}

/// As long as it lives, the end of a machine is no news for the pools.
struct Quiet<'a>(&'a Shared, PartitionName);

impl<'a> Quiet<'a> {
    fn of(shared: &'a Shared, name: &PartitionName) -> Self {
        shared.rebuilding.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        Self(shared, name.clone())
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.0.rebuilding.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// A machine's name as a partition.
fn name_of(member: &MemberId) -> Result<PartitionName, String> {
    PartitionName::new(&member.to_string()).map_err(|error| error.to_string())
}
