//! Waiting for every partition that starts with the host.

use std::time::{Duration, Instant};

use main_storage::PartitionName;
use operator_api::Progress;

use crate::daemon::Shared;
use crate::daemon::board::{Board, CommandError, Run};

/// How long it waits for every guest.
const ALL_READY: Duration = Duration::from_secs(600);
/// Between two looks whether anybody still waits for it.
const LOOK: Duration = Duration::from_secs(1);

impl Shared {
    /// Waits until every partition that starts with the host serves commands, and
    /// tells of each.
    pub(super) fn wait_up(&self, progress: &Progress) -> Result<(), CommandError> {
        let started = Instant::now();
        let mut waiting: Option<Vec<PartitionName>> = None;
        while !progress.is_cancelled() {
            let settled = self.wait_for(Instant::now() + LOOK, |board| {
                if !board.begun {
                    return None;
                }
                let waiting = waiting.get_or_insert_with(|| board.awaited.clone());
                if waiting.is_empty() {
                    return Some(None);
                }
                let each = waiting.iter().enumerate();
                let mut each = each.filter_map(|(at, name)| Some((at, self.settled(board, name)?)));
                each.next().map(Some)
            });
            match (settled, &mut waiting) {
                (Some(Some((_, Some(error)))), _) => return Err(error),
                (Some(Some((at, None))), Some(waiting)) => {
                    let seconds = started.elapsed().as_secs_f64();
                    let name = waiting.swap_remove(at);
                    progress.note(&format!("{name} is ready ({seconds:.1} s)"));
                }
                (Some(_), _) => return Ok(()),
                (None, Some(waiting)) if started.elapsed() > ALL_READY => {
                    let name = waiting.swap_remove(0);
                    return Err(CommandError::NotReady { name, seconds: ALL_READY.as_secs() });
                }
                (None, _) => {}
            }
        }
        Err(CommandError::Refused("nobody waits for it any more".to_owned()))
    }

    /// Whether there is nothing to wait for any more, and if so, what went wrong.
    fn settled(&self, board: &Board, name: &PartitionName) -> Option<Option<CommandError>> {
        let partition = board.partitions.get(name)?;
        let pool = self.config.file.pool_of(name).is_some();
        match &partition.run {
            // A machine of a pool boots only to be captured.
            Run::Running(process) if pool && !process.is_copy() => None,
            Run::Running(process) => process.is_ready().then_some(None),
            Run::Failed => Some(Some(partition.running().err()?)),
            // Not started yet, or started and ended by itself.
            Run::Stopped if partition.reason.is_none() || pool => None,
            Run::Stopped => Some(Some(partition.running().err()?)),
        }
    }
}
