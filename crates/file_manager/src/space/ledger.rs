//! What a space holds, and how much more it may. Pure.

use std::collections::HashMap;

use rustix::io::Errno;

use crate::access::Quota;

/// What is in a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes, as the sizes of files and links say.
    pub bytes: u64,
    /// Files, directories and links.
    pub files: u64,
}

/// The account of a space. A file that was removed while it is open counts until
/// it is closed: else a guest that keeps such files could hold any number.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    usage: Usage,
    /// By inode: how often a file is open, and whether it has been removed.
    open: HashMap<u64, Open>,
}

#[derive(Debug, Default)]
struct Open {
    times: u32,
    removed: bool,
}

impl Ledger {
    pub(super) fn new(usage: Usage) -> Self {
        Self { usage, open: HashMap::new() }
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// Whether that much more may be held; nothing is counted yet.
    ///
    /// # Errors
    /// `EDQUOT`.
    pub(super) fn allow(&self, bytes: u64, files: u64, quota: Quota) -> Result<(), Errno> {
        // What only shrinks is always allowed, also beyond a quota that was lowered.
        let fits = |used: u64, more: u64, most: u64| {
            more == 0 || used.checked_add(more).is_some_and(|sum| sum <= most)
        };
        let bytes = fits(self.usage.bytes, bytes, quota.bytes);
        let files = fits(self.usage.files, files, quota.files);
        if bytes && files { Ok(()) } else { Err(Errno::DQUOT) }
    }

    /// A file was made.
    pub(super) fn made(&mut self, bytes: u64) {
        self.usage.files = self.usage.files.saturating_add(1);
        self.usage.bytes = self.usage.bytes.saturating_add(bytes);
    }

    /// A file's size is another.
    pub(super) fn resized(&mut self, before: u64, after: u64) {
        self.usage.bytes = self.usage.bytes.saturating_add(after).saturating_sub(before);
    }

    pub(super) fn opened(&mut self, inode: u64) {
        self.open.entry(inode).or_default().times += 1;
    }

    /// One that was opened is closed; `size` is asked if that was the end of it.
    pub(super) fn closed(&mut self, inode: u64, size: impl FnOnce() -> u64) {
        let Some(open) = self.open.get_mut(&inode) else { return };
        open.times = open.times.saturating_sub(1);
        if open.times == 0 {
            let removed = open.removed;
            self.open.remove(&inode);
            if removed {
                self.gone(size());
            }
        }
    }

    /// A file of `bytes` has lost its name.
    pub(super) fn removed(&mut self, inode: u64, bytes: u64) {
        match self.open.get_mut(&inode) {
            Some(open) => open.removed = true,
            None => self.gone(bytes),
        }
    }

    fn gone(&mut self, bytes: u64) {
        self.usage.files = self.usage.files.saturating_sub(1);
        self.usage.bytes = self.usage.bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_file_counts_until_it_is_closed() {
        let mut ledger = Ledger::default();
        ledger.made(10);
        ledger.opened(1);
        ledger.opened(1);
        ledger.removed(1, 10);
        ledger.resized(10, 30);
        assert_eq!(ledger.usage(), Usage { bytes: 30, files: 1 });
        ledger.closed(1, || unreachable!());
        assert_eq!(ledger.usage(), Usage { bytes: 30, files: 1 });
        ledger.closed(1, || 30);
        assert_eq!(ledger.usage(), Usage::default());
        ledger.closed(1, || 30);
    }

    #[test]
    fn a_quota_holds_at_its_edge() {
        let mut ledger = Ledger::default();
        ledger.made(10);
        let quota = Quota { bytes: 15, files: 2 };
        assert_eq!(ledger.allow(5, 1, quota), Ok(()));
        assert_eq!(ledger.allow(6, 0, quota), Err(Errno::DQUOT));
        assert_eq!(ledger.allow(0, 2, quota), Err(Errno::DQUOT));
        assert_eq!(ledger.allow(u64::MAX, 0, quota), Err(Errno::DQUOT));
        assert_eq!(ledger.allow(0, 0, Quota { bytes: 1, files: 0 }), Ok(()));
    }
}
