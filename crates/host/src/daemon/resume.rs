//! Goes on with what an earlier host left, and keeps the keeper.

use std::sync::Arc;
use std::time::Duration;

use main_storage::PartitionName;

use super::Shared;
use super::board::{Busy, CommandError};
use super::process::Process;
use super::recovery::Next;
use crate::keeper::Keeper;

/// Between two attempts to start a keeper.
const AGAIN: Duration = Duration::from_secs(1);

/// What is done under a claim that an earlier host made.
type Work = fn(&Arc<Shared>, &Busy<'_>) -> Result<(), CommandError>;

impl Shared {
    /// Does what was decided for a partition. Does not wait.
    pub(super) fn resume(self: &Arc<Self>, name: &PartitionName, next: Next) {
        let process = self.board().partitions.get(name).and_then(|one| one.running().ok());
        process.iter().for_each(|process| self.watch_adopted(process));
        let (shared, owned) = (Arc::clone(self), name.clone());
        let (id, work): (_, Work) = match next {
            Next::Rest(_) | Next::Adopt => return,
            Next::AdoptAndStop(id) => (id, |shared, busy| shared.stop_begun(busy, false)),
            Next::AdoptAndRestart(id) => (id, |shared, busy| shared.restart_begun(busy, false)),
            Next::Start(id) => (id, Self::start_begun),
            Next::Delete(id) => (id, |shared, busy| shared.delete_begun(busy)),
        };
        self.go_on(name, move || work(&shared, &Busy::resumed(&shared, owned, id)));
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
