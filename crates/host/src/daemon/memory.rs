//! Whether the host has the memory that partitions were promised.
//!
//! Main storage that is taken from the host page by page costs an idle guest
//! no more than what it touched. So that no guest ever finds its memory
//! missing, a partition is started only if the host could give every running
//! guest all of its storage now.

use std::path::Path;

use main_storage::{PartitionName, Size, StorageRange};

use super::{Board, Shared};
use crate::in_full;

/// What a worker needs beside its guest's storage, at most, for one vCPU.
const WORKER: u64 = 16 << 20;

impl Shared {
    /// Whether the host can keep what starting `name` in `range` promises.
    pub(super) fn admit(&self, name: &PartitionName, range: StorageRange) -> Result<(), String> {
        self.admit_bytes(Some(name), range.size().saturating_add(WORKER))
    }

    /// Whether the host can give running guests `more` bytes than it promised.
    pub(super) fn admit_more(&self, more: u64) -> Result<(), String> {
        self.admit_bytes(None, more)
    }

    fn admit_bytes(&self, except: Option<&PartitionName>, wanted: u64) -> Result<(), String> {
        if !self.storage.is_lazy() {
            return Ok(());
        }
        let untouched = self.untouched(&self.board(), except).map_err(|error| in_full(&error))?;
        // A host that does not say is not asked.
        let Some(available) = available(Path::new("/proc/meminfo")) else { return Ok(()) };
        check(wanted, untouched, available)
    }

    /// Bytes that running guests other than `except` may still touch.
    fn untouched(&self, board: &Board, except: Option<&PartitionName>) -> std::io::Result<u64> {
        let running = board.map.partitions().iter().filter(|on_map| {
            let partition = board.partitions.get(on_map.name());
            Some(on_map.name()) != except && partition.is_some_and(|one| one.process().is_some())
        });
        running
            .map(|on_map| {
                let range = on_map.range();
                Ok(range.size().saturating_sub(self.storage.resident(range)?))
            })
            .sum()
    }
}

fn check(wanted: u64, promised: u64, available: u64) -> Result<(), String> {
    if wanted.saturating_add(promised) <= available {
        return Ok(());
    }
    let mib = |bytes: u64| Size(bytes >> 20 << 20);
    Err(format!(
        "the host has {} of memory available, and {} of it is promised to guests that run; {} \
         more cannot be promised. Stop a partition, or free memory on the host",
        mib(available),
        mib(promised),
        mib(wanted),
    ))
}

/// Bytes that can be had without swapping, as the kernel estimates it.
fn available(meminfo: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(meminfo).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_promised_that_the_host_does_not_have() {
        assert!(check(10, 20, 30).is_ok());
        let refused = check(11 << 20, 20 << 20, 30 << 20).unwrap_err();
        assert!(refused.contains("30M") && refused.contains("20M") && refused.contains("11M"));
        assert!(check(u64::MAX, 1, u64::MAX - 1).is_err());
    }

    #[test]
    fn what_the_kernel_says_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("meminfo");
        std::fs::write(&file, "MemTotal: 9 kB\nMemAvailable:   24099772 kB\n").unwrap();
        assert_eq!(available(&file), Some(24_099_772 * 1024));
        std::fs::write(&file, "MemAvailable: x kB\n").unwrap();
        assert_eq!(available(&file), None);
    }
}
