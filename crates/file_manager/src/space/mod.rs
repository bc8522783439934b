//! One space: a directory of the host, and the account of what is in it.

pub(crate) mod beneath;
mod count;
mod ledger;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::access::Quota;
use crate::names::{MAX_DEPTH, SpaceName, is_file_name};
use beneath::{Facts, Kind};
use ledger::Ledger;
pub use ledger::Usage;

/// What the host itself needs of every file, whatever a guest says: to open it.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// A space that is in use.
///
/// Whatever changes what is in it is done under the lock of its account, so that
/// the account is right whoever else works in the space.
pub(crate) struct Space {
    name: SpaceName,
    root: OwnedFd,
    ledger: Mutex<Ledger>,
}

/// A place in a space: names from its root. None of them is checked for more than
/// that no path leads out; new ones have to be names of files.
pub(crate) type Place<'a> = &'a [&'a [u8]];

/// An open file or directory of a space.
pub(crate) struct OpenFile {
    space: Arc<Space>,
    file: File,
    inode: u64,
}

impl Space {
    /// The space `name` in the directory `folder`, made if it is not there, and
    /// counted.
    pub(crate) fn open(folder: &Path, name: &SpaceName) -> Result<Self, Errno> {
        let spaces = rustix::fs::open(
            folder,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        match rustix::fs::mkdirat(&spaces, name.as_str(), Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let (root, facts) = beneath::open_data(spaces.as_fd(), &[name.as_str()], false)?;
        if facts.identity.kind != Kind::Folder {
            return Err(Errno::NOTDIR);
        }
        // What the operator put there deeper than a guest can is not served; it
        // is not the guest's either.
        let counted = match count::count(root.as_fd(), MAX_DEPTH) {
            Err(Errno::NAMETOOLONG) => {
                tracing::warn!(space = %name, "is deeper than {MAX_DEPTH} levels");
                return Err(Errno::NAMETOOLONG);
            }
            counted => counted?,
        };
        Ok(Self { name: name.clone(), root, ledger: Mutex::new(Ledger::new(counted.usage)) })
    }

    pub(crate) fn name(&self) -> &SpaceName {
        &self.name
    }

    pub(crate) fn usage(&self) -> Usage {
        self.ledger().usage()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// What lies at a place.
    pub(crate) fn look(&self, place: Place<'_>) -> Result<Facts, Errno> {
        Facts::of(beneath::handle(self.root(), place)?)
    }

    /// Opens the file or directory at a place.
    pub(crate) fn open_file(
        self: &Arc<Self>,
        place: Place<'_>,
        write: bool,
    ) -> Result<(OpenFile, Facts), Errno> {
        let mut ledger = self.ledger();
        let (file, facts) = beneath::open_data(self.root(), place, write)?;
        Ok((self.opened(&mut ledger, file, &facts), facts))
    }

    fn opened(self: &Arc<Self>, ledger: &mut Ledger, file: OwnedFd, facts: &Facts) -> OpenFile {
        let inode = facts.identity.inode;
        ledger.opened(inode);
        OpenFile { space: Arc::clone(self), file: file.into(), inode }
    }

    /// Makes the file `name`, which must not be there.
    pub(crate) fn make_file(
        self: &Arc<Self>,
        folder: Place<'_>,
        name: &[u8],
        permissions: u32,
        quota: Quota,
    ) -> Result<(OpenFile, Facts), Errno> {
        let mut ledger = self.ledger();
        let folder = self.folder_for(folder, name)?;
        ledger.allow(0, 1, quota)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let mode = Mode::from_raw_mode(FILE_MODE | permissions & 0o777);
        let file = beneath::open(folder.as_fd(), &[name], flags, mode)?;
        ledger.made(0);
        let facts = Facts::of(&file)?;
        Ok((self.opened(&mut ledger, file, &facts), facts))
    }

    /// Makes a directory.
    pub(crate) fn make_folder(
        &self,
        folder: Place<'_>,
        name: &[u8],
        permissions: u32,
        quota: Quota,
    ) -> Result<Facts, Errno> {
        let mut ledger = self.ledger();
        let parent = self.folder_for(folder, name)?;
        ledger.allow(0, 1, quota)?;
        let mode = Mode::from_raw_mode(FOLDER_MODE | permissions & 0o777);
        rustix::fs::mkdirat(&parent, name, mode)?;
        ledger.made(0);
        Facts::of(beneath::handle(parent.as_fd(), &[name])?)
    }

    /// Makes a symbolic link, which is a text and no more.
    pub(crate) fn make_link(
        &self,
        folder: Place<'_>,
        name: &[u8],
        target: &[u8],
        quota: Quota,
    ) -> Result<Facts, Errno> {
        let mut ledger = self.ledger();
        let parent = self.folder_for(folder, name)?;
        ledger.allow(target.len() as u64, 1, quota)?;
        rustix::fs::symlinkat(target, &parent, name)?;
        let facts = Facts::of(beneath::handle(parent.as_fd(), &[name])?);
        ledger.made(facts.as_ref().map_or(target.len() as u64, Facts::charge));
        facts
    }

    /// The text of a symbolic link.
    pub(crate) fn read_link(&self, place: Place<'_>) -> Result<Vec<u8>, Errno> {
        let link = beneath::handle(self.root(), place)?;
        if Facts::of(&link)?.identity.kind != Kind::Link {
            return Err(Errno::INVAL);
        }
        Ok(rustix::fs::readlinkat(&link, c"", Vec::new())?.into_bytes())
    }

    /// Removes a file or link, or an empty directory if `folder_only`.
    pub(crate) fn remove(
        &self,
        folder: Place<'_>,
        name: &[u8],
        folder_only: bool,
    ) -> Result<(), Errno> {
        let mut ledger = self.ledger();
        let parent = self.folder_for(folder, name)?;
        let facts = Facts::of(beneath::handle(parent.as_fd(), &[name])?)?;
        let flags = if folder_only { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        rustix::fs::unlinkat(&parent, name, flags)?;
        ledger.removed(facts.identity.inode, facts.charge());
        Ok(())
    }

    /// Gives a file another name, in the same space; with `keep` only if nothing has
    /// it. What had it before is removed.
    pub(crate) fn rename(
        &self,
        (folder, name): (Place<'_>, &[u8]),
        (new_folder, new_name): (Place<'_>, &[u8]),
        keep: bool,
    ) -> Result<(), Errno> {
        let mut ledger = self.ledger();
        let old_parent = self.folder_for(folder, name)?;
        let new_parent = self.folder_for(new_folder, new_name)?;
        let moved = Facts::of(beneath::handle(old_parent.as_fd(), &[name])?)?;
        if moved.identity.kind == Kind::Folder && new_folder.len() > folder.len() {
            let (inner, _) = beneath::open_data(old_parent.as_fd(), &[name], false)?;
            count::count(inner.as_fd(), MAX_DEPTH.saturating_sub(new_folder.len() + 1))?;
        }
        let replaced = match beneath::handle(new_parent.as_fd(), &[new_name]) {
            Ok(there) => Some(Facts::of(there)?),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error),
        };
        let flags = if keep { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
        rustix::fs::renameat_with(&old_parent, name, &new_parent, new_name, flags)?;
        // Two names of one file are left alone by the host.
        if let Some(facts) = replaced.filter(|facts| facts.identity != moved.identity) {
            ledger.removed(facts.identity.inode, facts.charge());
        }
        Ok(())
    }

    /// Sets the times of a link.
    pub(crate) fn set_link_times(
        &self,
        place: Place<'_>,
        times: &rustix::fs::Timestamps,
    ) -> Result<(), Errno> {
        let (name, folder) = place.split_last().ok_or(Errno::INVAL)?;
        let folder = self.folder_for(folder, name)?;
        rustix::fs::utimensat(&folder, *name, times, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// The directory in which something with a new or old `name` is to be changed.
    fn folder_for(&self, folder: Place<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
        if !is_file_name(name) {
            return Err(if name.len() > 255 { Errno::NAMETOOLONG } else { Errno::INVAL });
        }
        if folder.len() >= MAX_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        beneath::open(self.root(), folder, flags, Mode::empty())
    }
}

impl OpenFile {
    pub(crate) fn facts(&self) -> Result<Facts, Errno> {
        Facts::of(&self.file)
    }

    pub(crate) fn space(&self) -> &Arc<Space> {
        &self.space
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Reads as much as there is, up to `size` bytes.
    pub(crate) fn read(&self, offset: u64, size: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; size];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.checked_add(done as u64).ok_or(Errno::INVAL)?;
            match self.file.read_at(rest, at) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(errno(&error)),
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    }

    /// Writes, all of `bytes` unless the host is full; nothing if the space is. With
    /// `append` at the end, wherever others have moved that to.
    pub(crate) fn write(
        &self,
        offset: u64,
        bytes: &[u8],
        append: bool,
        quota: Quota,
    ) -> Result<usize, Errno> {
        let start = |before| if append { before } else { offset };
        let end = |before| start(before).checked_add(bytes.len() as u64).ok_or(Errno::FBIG);
        let after = |before: u64| Ok(end(before)?.max(before));
        self.resize(after, quota, |before| self.write_at(start(before), bytes))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match self.file.write_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) if done > 0 => break,
                Err(error) => return Err(errno(&error)),
            }
        }
        Ok(done)
    }

    /// Makes the file `size` bytes long.
    pub(crate) fn set_size(&self, size: u64, quota: Quota) -> Result<(), Errno> {
        self.resize(|_| Ok(size), quota, |_| rustix::fs::ftruncate(&self.file, size))
    }

    /// Does what leaves the file as long as `after` says of its length before, and
    /// counts what it did.
    fn resize<T>(
        &self,
        after: impl FnOnce(u64) -> Result<u64, Errno>,
        quota: Quota,
        change: impl FnOnce(u64) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut ledger = self.space.ledger();
        let before = self.facts()?.size;
        let after = after(before)?;
        ledger.allow(after.saturating_sub(before), 0, quota)?;
        let done = change(before);
        // What the host made of it counts, also of a change that failed.
        ledger.resized(before, self.facts().map_or(after, |facts| facts.size));
        done
    }

    /// Sets permissions: the host keeps those it needs itself, and none that change
    /// who a program runs as are set.
    pub(crate) fn set_permissions(&self, permissions: u32) -> Result<(), Errno> {
        let folder = self.facts()?.identity.kind == Kind::Folder;
        let own = if folder { FOLDER_MODE } else { FILE_MODE };
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(own | permissions & 0o777))
    }

    pub(crate) fn set_times(&self, times: &rustix::fs::Timestamps) -> Result<(), Errno> {
        rustix::fs::futimens(&self.file, times)
    }

    pub(crate) fn sync(&self, data_only: bool) -> Result<(), Errno> {
        if data_only { rustix::fs::fdatasync(&self.file) } else { rustix::fs::fsync(&self.file) }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let mut ledger = self.space.ledger();
        ledger.closed(self.inode, || self.facts().map_or(0, |facts| facts.charge()));
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
