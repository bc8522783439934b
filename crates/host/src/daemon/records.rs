//! Partitions as the host works with them, and as the journal holds them.

use main_storage::{AccessKey, PartitionName, RangeError, StorageRange};
use storage_window::{Backing, HugePage};

use super::board::{Partition, Run};
use crate::host_file::{CpuAssignment, Engine, HostFile, PartitionSpec};
use crate::journal::{
    BackingRecord, CpusRecord, EngineRecord, MainStorageRecord, PartitionRecord, StateRecord,
};

/// Main storage as the host file wants it.
pub(super) fn main_storage(file: &HostFile) -> Result<MainStorageRecord, String> {
    let backing = match &file.backing {
        Backing::Memfd => BackingRecord::Memfd,
        Backing::Reserved => BackingRecord::Reserved,
        Backing::HugePages(HugePage::M2) => BackingRecord::Huge2M,
        Backing::HugePages(HugePage::G1) => BackingRecord::Huge1G,
        Backing::Path(path) => BackingRecord::File(path.clone()),
        other => return Err(format!("main storage of {other:?} cannot be remembered")),
    };
    Ok(MainStorageRecord { size: file.main_storage, backing, numa_node: file.numa_node })
}

/// A partition of this kind, in this place and state.
pub(super) fn partition(
    spec: &PartitionSpec,
    range: StorageRange,
    state: StateRecord,
) -> PartitionRecord {
    PartitionRecord {
        origin: range.origin(),
        size: range.size(),
        image: spec.image.clone(),
        vcpus: spec.vcpus,
        cpus: match &spec.cpus {
            CpuAssignment::Floating => CpusRecord::Floating,
            CpuAssignment::Exclusive(cpus) => CpusRecord::Exclusive(cpus.clone()),
            CpuAssignment::TimeShared(cpus) => CpusRecord::TimeShared(cpus.clone()),
        },
        disk: spec.disk,
        autostart: spec.autostart,
        engine: match spec.engine {
            Engine::Soft => EngineRecord::Soft,
        },
        io_keys: spec.io_keys.iter().map(|(name, key)| (name.clone(), key.number())).collect(),
        state,
    }
}

/// What a partition is doing.
pub(super) fn state(partition: &Partition) -> StateRecord {
    match (&partition.run, &partition.reason) {
        (Run::Running(_), _) => StateRecord::Running,
        (Run::Stopped, reason) => StateRecord::Stopped(reason.clone()),
        (Run::Failed, reason) => StateRecord::Failed(reason.clone().unwrap_or_default()),
    }
}

/// The other way.
pub(super) fn spec(
    name: &PartitionName,
    record: &PartitionRecord,
) -> Result<PartitionSpec, RangeError> {
    Ok(PartitionSpec {
        name: name.clone(),
        range: StorageRange::new(record.origin, record.size)?,
        declared: true,
        image: record.image.clone(),
        vcpus: record.vcpus,
        cpus: match &record.cpus {
            CpusRecord::Floating => CpuAssignment::Floating,
            CpusRecord::Exclusive(cpus) => CpuAssignment::Exclusive(cpus.clone()),
            CpusRecord::TimeShared(cpus) => CpuAssignment::TimeShared(cpus.clone()),
        },
        disk: record.disk,
        autostart: record.autostart,
        engine: match record.engine {
            EngineRecord::Soft => Engine::Soft,
        },
        io_keys: record
            .io_keys
            .iter()
            .filter_map(|(name, key)| Some((name.clone(), AccessKey::new(*key)?)))
            .collect(),
        line: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_comes_back_as_it_went() {
        let file = HostFile::parse(include_str!("../../../../examples/fig-1a/berth.toml")).unwrap();
        for declared in &file.partitions {
            let record = partition(declared, declared.range, StateRecord::Running);
            let back = spec(&declared.name, &record).unwrap();
            let (declared, line) = (PartitionSpec { declared: true, ..declared.clone() }, 0);
            assert_eq!(back, PartitionSpec { line, ..declared });
        }
    }
}
