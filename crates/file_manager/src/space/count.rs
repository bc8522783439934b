//! Counting what is in a space, and how deep it is.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::RawDir;
use rustix::io::Errno;

use super::beneath::{self, Facts, Kind};
use super::ledger::Usage;

/// What lies beneath a directory, itself not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Count {
    pub(super) usage: Usage,
    /// How many directories lie in each other.
    pub(super) depth: usize,
}

/// Counts what lies beneath `folder`, an open directory, `deepest` levels deep; what
/// is deeper fails it.
///
/// # Errors
/// `ENAMETOOLONG` when it is deeper, and what the host says.
pub(super) fn count(folder: BorrowedFd<'_>, deepest: usize) -> Result<Count, Errno> {
    let mut counted = Count::default();
    level(folder, deepest, 1, &mut counted)?;
    Ok(counted)
}

// No deeper than the bound, with one descriptor for each level.
fn level(
    folder: BorrowedFd<'_>,
    deepest: usize,
    depth: usize,
    counted: &mut Count,
) -> Result<(), Errno> {
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(folder, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        if depth > deepest {
            return Err(Errno::NAMETOOLONG);
        }
        // What is another file system, vanishes, or is of another kind is not
        // a guest's and does not count.
        let Ok(facts) = beneath::handle(folder, &[name]).and_then(Facts::of) else { continue };
        counted.usage.files += 1;
        counted.usage.bytes = counted.usage.bytes.saturating_add(facts.charge());
        counted.depth = counted.depth.max(depth);
        if facts.identity.kind == Kind::Folder {
            let (inner, _) = beneath::open_data(folder, &[name], false)?;
            level(inner.as_fd(), deepest, depth + 1, counted)?;
        }
    }
    Ok(())
}
