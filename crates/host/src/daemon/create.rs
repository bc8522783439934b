//! Partitions that come and go while the host runs.

use std::collections::BTreeMap;

use main_storage::{BLOCK_SIZE, PartitionName, Size, StorageRange};
use operator_api::model::NewPartition;

use super::Shared;
use super::board::{Board, Busy, Command, CommandError, Partition, Run};
use crate::host_file::{
    CpuAssignment, Engine, MAX_PARTITIONS, MAX_VCPUS, PartitionSpec, is_image_name,
};
use crate::in_full;
use crate::journal::{Change, CommandRecord};

impl Shared {
    /// Makes a partition; where it is.
    pub(super) fn create(&self, new: &NewPartition) -> Result<u64, CommandError> {
        let failed = |reason| CommandError::Create { name: new.name.clone(), reason };
        let mut spec = self.spec(new).map_err(failed)?;
        let mut board = self.board();
        if board.closing {
            return Err(CommandError::Closing);
        }
        spec.range = Self::place(&mut board, &spec, new.origin).map_err(failed)?;
        let (name, origin) = (spec.name.clone(), spec.range.origin());
        let (run, busy, reason) = (Run::Stopped, None, None);
        board.partitions.insert(name.clone(), Partition { spec, run, busy, reason });
        let record = board.record(&name).map(|record| Change::Partition(name.clone(), record));
        let changes: Vec<_> = record.into_iter().collect();
        if let Err(error) = self.journal.record(&changes) {
            board.partitions.remove(&name);
            let _ = board.map.remove(&name);
            return Err(CommandError::Journal(error));
        }
        tracing::info!(partition = %name, origin, size = new.size, "made");
        self.changed.notify_all();
        Ok(origin)
    }

    /// What can be said without the map.
    fn spec(&self, new: &NewPartition) -> Result<PartitionSpec, String> {
        let name = PartitionName::new(&new.name).map_err(|error| error.to_string())?;
        if !is_image_name(&new.image) {
            return Err(format!("{:?} is not an image's name; see `berth image list`", new.image));
        }
        let image = self.config.images.find(&new.image)?;
        if !(1..=MAX_VCPUS).contains(&new.vcpus) {
            return Err(format!("it can have 1 to {MAX_VCPUS} vCPUs, not {}", new.vcpus));
        }
        if let Some(disk) = new.disk {
            let scratch = std::fs::metadata(&image.scratch);
            let most = scratch.map_err(|error| format!("its disk: {error}"))?.len();
            if disk == 0 || disk % BLOCK_SIZE != 0 || disk > most {
                return Err(format!(
                    "a disk of {} is not a positive multiple of 1M up to {}",
                    Size(disk),
                    Size(most)
                ));
            }
        }
        let range = StorageRange::new(new.origin.unwrap_or(0), new.size);
        Ok(PartitionSpec {
            name,
            range: range.map_err(|error| error.to_string())?,
            declared: new.origin.is_some(),
            image: new.image.clone(),
            vcpus: new.vcpus,
            cpus: CpuAssignment::Floating,
            disk: new.disk,
            autostart: false,
            engine: Engine::Soft,
            io_keys: BTreeMap::new(),
            line: 0,
        })
    }

    fn place(
        board: &mut Board,
        spec: &PartitionSpec,
        origin: Option<u64>,
    ) -> Result<StorageRange, String> {
        if board.partitions.len() >= MAX_PARTITIONS {
            return Err(format!("a host has at most {MAX_PARTITIONS} partitions; delete one"));
        }
        let range = match origin {
            Some(_) => Ok(spec.range),
            None => board.map.best_fit(spec.range.size()),
        };
        let placed = range.and_then(|range| {
            board.map.assign(spec.name.clone(), range)?;
            Ok(range)
        });
        placed.map_err(|refusal| refusal.to_string())
    }

    /// Deletes a partition that does not run, and its data disk.
    pub(super) fn delete(&self, name: &str) -> Result<(), CommandError> {
        let busy = {
            let mut board = self.board();
            let busy = Busy::claim(self, &mut board, name, Command::Delete)?;
            let running = board.get(name).is_ok_and(|partition| partition.process().is_some());
            // A claim takes the board's lock when it is dropped.
            drop(board);
            if running {
                return Err(CommandError::StillRunning(busy.name.clone()));
            }
            busy
        };
        self.begin(&busy, CommandRecord::Delete { name: busy.name.to_string() })?;
        self.delete_begun(&busy)
    }

    /// The deletion of a claimed partition that is in the journal. Each step
    /// can be repeated.
    pub(super) fn delete_begun(&self, busy: &Busy<'_>) -> Result<(), CommandError> {
        let name = &busy.name;
        let deleted = self.clear_away(name).and_then(|()| {
            let mut board = self.board();
            let changes = [Change::Gone(name.clone()), Change::Ended(busy.id)];
            self.journal.record(&changes).map_err(|error| in_full(&error))?;
            let _ = board.map.remove(name);
            board.partitions.remove(name);
            Ok(())
        });
        if deleted.is_err() {
            self.close(busy);
        }
        self.changed.notify_all();
        deleted.map_err(|reason| CommandError::Delete { name: name.clone(), reason })
    }

    fn clear_away(&self, name: &PartitionName) -> Result<(), String> {
        let range = self.board().map.get(name).map(main_storage::Partition::range);
        if let Some(range) = range {
            self.storage.discard(range).map_err(|error| in_full(&error))?;
        }
        for path in [self.dir.disk_overlay(name), self.dir.worker_log(name)] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(format!("{}: {error}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
