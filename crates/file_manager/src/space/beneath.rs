//! The host's files beneath a directory. This is the only module that opens
//! anything by a path, and no path of it leads out: not by `..`, not by a link,
//! not into another file system.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
use rustix::io::Errno;

/// How every path is followed.
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
/// What every open has: nothing inherited, no link.
const ALWAYS: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW);
/// What an open has that is more than a handle: no wait, no terminal.
const HARMLESS: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY);

/// What is served of the kinds of files there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    File,
    Folder,
    Link,
}

impl Kind {
    fn of(mode: u32) -> Option<Self> {
        match FileType::from_raw_mode(mode) {
            FileType::RegularFile => Some(Self::File),
            FileType::Directory => Some(Self::Folder),
            FileType::Symlink => Some(Self::Link),
            _ => None,
        }
    }

    pub(crate) fn of_type(kind: FileType) -> Option<Self> {
        Self::of(kind.as_raw_mode())
    }

    /// `S_IFMT` bits of a mode.
    pub(crate) fn mode(self) -> u32 {
        match self {
            Self::File => FileType::RegularFile.as_raw_mode(),
            Self::Folder => FileType::Directory.as_raw_mode(),
            Self::Link => FileType::Symlink.as_raw_mode(),
        }
    }
}

/// Which file it is, as long as the host runs: a number that was used before
/// comes with another time of birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) inode: u64,
    pub(crate) kind: Kind,
    born: Duration,
}

/// What the host says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) identity: Identity,
    pub(crate) size: u64,
    pub(crate) blocks: u64,
    /// Permission bits only.
    pub(crate) permissions: u32,
    pub(crate) links: u32,
    pub(crate) accessed: Duration,
    pub(crate) modified: Duration,
    pub(crate) changed: Duration,
}

impl Facts {
    /// Of an open file.
    ///
    /// # Errors
    /// `ENOENT` for one of a kind that is not served.
    pub(crate) fn of(file: impl AsFd) -> Result<Self, Errno> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let facts = statx(file, c"", AtFlags::EMPTY_PATH, wanted)?;
        let mode = u32::from(facts.stx_mode);
        let kind = Kind::of(mode).ok_or(Errno::NOENT)?;
        let time = |time: rustix::fs::StatxTimestamp| {
            // Before 1970 is 1970.
            let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
            Duration::new(seconds, time.tv_nsec.min(999_999_999))
        };
        Ok(Self {
            identity: Identity { inode: facts.stx_ino, kind, born: time(facts.stx_btime) },
            size: facts.stx_size,
            blocks: facts.stx_blocks,
            permissions: mode & 0o777,
            links: facts.stx_nlink,
            accessed: time(facts.stx_atime),
            modified: time(facts.stx_mtime),
            changed: time(facts.stx_ctime),
        })
    }

    /// Bytes that count against a quota.
    pub(crate) fn charge(&self) -> u64 {
        match self.identity.kind {
            Kind::File | Kind::Link => self.size,
            Kind::Folder => 0,
        }
    }
}

/// A name or path as the host takes it; the empty path is the directory itself.
fn text(names: &[impl AsRef<[u8]>]) -> Vec<u8> {
    if names.is_empty() {
        return b".".to_vec();
    }
    names.iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>().join(&b'/')
}

/// Opens what lies beneath `folder` by these names.
pub(crate) fn open(
    folder: BorrowedFd<'_>,
    names: &[impl AsRef<[u8]>],
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let harmless = if flags.contains(OFlags::PATH) { OFlags::empty() } else { HARMLESS };
    openat2(folder, text(names), flags | ALWAYS | harmless, mode, RESOLVE)
}

/// A handle to what lies there, good for looking at it and as a directory.
pub(crate) fn handle(folder: BorrowedFd<'_>, names: &[impl AsRef<[u8]>]) -> Result<OwnedFd, Errno> {
    open(folder, names, OFlags::PATH, Mode::empty())
}

/// Opens an existing file or directory for reading, or for both if `write`. What
/// it is is looked at before it is opened, as far as that can be: a file of
/// another kind is not.
pub(crate) fn open_data(
    folder: BorrowedFd<'_>,
    names: &[impl AsRef<[u8]>],
    write: bool,
) -> Result<(OwnedFd, Facts), Errno> {
    let before = Facts::of(handle(folder, names)?)?;
    let how = match before.identity.kind {
        Kind::Link => return Err(Errno::LOOP),
        Kind::Folder => OFlags::RDONLY | OFlags::DIRECTORY,
        Kind::File if write => OFlags::RDWR,
        Kind::File => OFlags::RDONLY,
    };
    let file = open(folder, names, how, Mode::empty())?;
    let facts = Facts::of(&file)?;
    if facts.identity == before.identity { Ok((file, facts)) } else { Err(Errno::STALE) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_path_leads_out() {
        let around = tempfile::tempdir().unwrap();
        let inside = around.path().join("inside");
        fs::create_dir_all(inside.join("folder")).unwrap();
        fs::write(around.path().join("secret"), "s").unwrap();
        symlink(around.path().join("secret"), inside.join("absolute")).unwrap();
        symlink("../secret", inside.join("relative")).unwrap();
        symlink("..", inside.join("up")).unwrap();
        symlink("folder", inside.join("within")).unwrap();
        symlink("/proc/self/root", inside.join("magic")).unwrap();
        let root = fs::File::open(&inside).unwrap();
        let try_all = |names: &[&str]| {
            [handle(root.as_fd(), names).map(drop), open_data(root.as_fd(), names, true).map(drop)]
        };
        assert_eq!(try_all(&["folder"]), [Ok(()), Ok(())]);
        // A link is a handle to itself, and nothing to open or to pass.
        assert_eq!(try_all(&["absolute"]), [Ok(()), Err(Errno::LOOP)]);
        for names in [
            &[".."][..],
            &["folder", "..", "..", "secret"],
            &["/etc/passwd"],
            &["", "etc", "passwd"],
            &["up", "secret"],
            &["within", "."],
            &["magic", "etc"],
        ] {
            for tried in try_all(names) {
                assert!(matches!(tried, Err(Errno::XDEV | Errno::LOOP)), "{names:?}: {tried:?}");
            }
        }
    }

    #[test]
    fn other_kinds_of_files_are_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::File::open(folder.path()).unwrap();
        let fifo = rustix::fs::mknodat(&root, "fifo", FileType::Fifo, Mode::RWXU, 0);
        assert_eq!(fifo, Ok(()));
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket"));
        for name in ["fifo", "socket"] {
            let opened = open_data(root.as_fd(), &[name], false).map(drop);
            assert_eq!(opened, Err(Errno::NOENT), "{name}");
        }
    }
}
