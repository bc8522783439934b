//! Goes on with what an earlier host left, and keeps the keeper.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use main_storage::{MovePlan, PartitionName, StorageRange};

use super::Shared;
use super::board::{Busy, CommandError};
use super::process::Process;
use super::recovery::Next;
use crate::journal::CommandId;
use crate::keeper::Keeper;

/// Between two attempts to start a keeper.
const AGAIN: Duration = Duration::from_secs(1);

impl Shared {
    /// Does what was decided for a partition. Does not wait.
    pub(super) fn resume(self: &Arc<Self>, name: &PartitionName, next: Next) {
        let process = self.board().partitions.get(name).and_then(|one| one.running().ok());
        if let (Some(process), Next::AdoptMoving(to, id)) = (&process, &next) {
            return self.resume_move(process, *to, *id);
        }
        process.iter().for_each(|process| self.watch_adopted(process));
        let (shared, owned) = (Arc::clone(self), name.clone());
        match next {
            Next::Rest(_) | Next::Adopt | Next::AdoptMoving(..) => {}
            Next::AdoptAndStop(id) => self
                .go_on(name, move || shared.stop_begun(&Busy::resumed(&shared, owned, id), false)),
            Next::AdoptAndRestart(id) => self.go_on(name, move || {
                shared.restart_begun(&Busy::resumed(&shared, owned, id), false)
            }),
            Next::Start(id) => {
                self.go_on(name, move || shared.start_begun(&Busy::resumed(&shared, owned, id)));
            }
            Next::Delete(id) => {
                self.go_on(name, move || shared.delete_begun(&Busy::resumed(&shared, owned, id)));
            }
        }
    }

    fn go_on(
        &self,
        name: &PartitionName,
        work: impl FnOnce() -> Result<(), CommandError> + Send + 'static,
    ) {
        let thread = std::thread::Builder::new().name(format!("resume-{name}"));
        let spawned = thread.spawn(move || {
            if let Err(error) = work() {
                tracing::error!("{error}");
            }
        });
        if let Err(error) = spawned {
            tracing::error!(partition = %name, %error, "no thread to go on with it");
        }
    }

    fn watch_adopted(self: &Arc<Self>, process: &Arc<Process>) {
        let (shared, watched) = (Arc::clone(self), Arc::clone(process));
        tracing::info!(partition = %process.name, pid = process.pid(), "taken over");
        self.go_on(&process.name, move || {
            shared.watch(&watched, || {});
            Ok(())
        });
    }

    /// Waits for the end of a move that an earlier host ordered.
    fn resume_move(self: &Arc<Self>, process: &Arc<Process>, to: StorageRange, id: CommandId) {
        let (mover, reports) = channel();
        // Before anything is heard of it.
        process.set_mover(Some(mover));
        self.watch_adopted(process);
        let (shared, process) = (Arc::clone(self), Arc::clone(process));
        let name = process.name.clone();
        self.go_on(&name.clone(), move || {
            let busy = Busy::resumed(&shared, name.clone(), id);
            let from = shared.board().map.get(&name).map(main_storage::Partition::range);
            let plan = from.and_then(|from| MovePlan::new(from, to.origin()).ok());
            let report = Self::await_move(&process, &reports, &mut |_| {});
            if let Some(plan) = plan {
                shared.end_move(&busy, &plan, report);
            }
            shared.close(&busy);
            Ok(())
        });
    }

    /// Starts another keeper whenever the one there is dies, until the host
    /// ends.
    pub(super) fn keep_kept(&self, keeper: &mut Keeper) {
        loop {
            keeper.wait();
            if self.board().closing {
                return;
            }
            tracing::warn!("the keeper of main storage died; starting another");
            loop {
                match Keeper::start(&self.dir, &self.storage) {
                    Ok(another) => *keeper = another,
                    Err(error) => {
                        tracing::error!(%error, "no keeper: if this host dies now, main storage is lost");
                        std::thread::sleep(AGAIN);
                        if self.board().closing {
                            return;
                        }
                        continue;
                    }
                }
                break;
            }
            // It may have been started after the others were told to end.
            if self.board().closing {
                let _ = keeper.end();
                return;
            }
        }
    }
}
