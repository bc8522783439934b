//! What main storage is made of, and how its files tell.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use main_storage::{BLOCK_SIZE, PAGE_SIZE, Size, StorageRange};
use rustix::fs::{FallocateFlags, FileType, FlockOperation, MemfdFlags, Mode, SealFlags, Stat};

use crate::mapping::Mapping;
use crate::storage::CreateError;

/// What main storage is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Backing {
    /// Anonymous memory of the host, given out page by page at first touch and
    /// given back when a range is discarded.
    #[default]
    Memfd,
    /// Anonymous memory of the host, all of it taken at once and kept.
    Reserved,
    /// Huge pages of the host, all of them taken at once and kept.
    HugePages(HugePage),
    /// A file, or a character device of the kind devdax. It is Berth's alone
    /// as long as main storage lives; what was in it is lost.
    Path(PathBuf),
}

/// A size of huge pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HugePage {
    /// 2 MiB.
    M2,
    /// 1 GiB.
    G1,
}

impl HugePage {
    /// Bytes of one page.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::M2 => 2 << 20,
            Self::G1 => 1 << 30,
        }
    }
}

impl Backing {
    /// What origins and sizes of partitions must be multiples of, in bytes, as
    /// far as it is known before main storage is made.
    #[must_use]
    pub const fn granularity(&self) -> u64 {
        match self {
            Self::HugePages(page) => page.bytes(),
            Self::Memfd | Self::Reserved | Self::Path(_) => BLOCK_SIZE,
        }
    }
}

/// Devdax devices are mapped in these units; larger ones are not served.
const DAX_ALIGNMENT: u64 = 2 << 20;

/// Makes the file of main storage.
pub(crate) fn make(
    size: u64,
    backing: &Backing,
    node: Option<u32>,
) -> Result<OwnedFd, CreateError> {
    let memory = |source| CreateError::Memory { size: Size(size), source };
    let granularity = backing.granularity();
    if size % granularity != 0 {
        return Err(CreateError::Granularity { size: Size(size), page: Size(granularity) });
    }
    let none = MemfdFlags::empty();
    let file = match backing {
        Backing::Memfd => {
            let file = memfd("berth-storage", size, none, false).map_err(memory)?;
            place(file.as_fd(), size, node)?;
            return Ok(file);
        }
        Backing::Reserved => memfd("berth-storage", size, none, true).map_err(memory)?,
        Backing::HugePages(page) => {
            let flag = match page {
                HugePage::M2 => MemfdFlags::HUGE_2MB,
                HugePage::G1 => MemfdFlags::HUGE_1GB,
            };
            memfd("berth-storage", size, MemfdFlags::HUGETLB | flag, true)
                .map_err(|source| no_huge_pages(size, *page, source))?
        }
        Backing::Path(path) => return of_path(path, size, node),
    };
    place(file.as_fd(), size, node)?;
    allocate(file.as_fd(), size).map_err(|source| match backing {
        Backing::HugePages(page) => no_huge_pages(size, *page, source),
        _ => memory(source),
    })?;
    Ok(file)
}

/// A sealed file in memory. `keeps`: see [`keeps_pages`].
pub(crate) fn memfd(name: &str, size: u64, flags: MemfdFlags, keeps: bool) -> io::Result<OwnedFd> {
    let flags = flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create(name, flags)?;
    rustix::fs::ftruncate(&file, size)?;
    if keeps {
        rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR | Mode::SVTX)?;
    }
    // A worker that could shrink the file would kill everybody who maps it.
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

fn allocate(file: BorrowedFd<'_>, size: u64) -> io::Result<()> {
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

fn no_huge_pages(size: u64, page: HugePage, source: io::Error) -> CreateError {
    let kib = page.bytes() >> 10;
    let dir = format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB");
    let read = |name: &str| std::fs::read_to_string(format!("{dir}/{name}")).ok();
    let free = read("free_hugepages").and_then(|text| text.trim().parse().ok());
    let set = match page {
        HugePage::M2 => "vm.nr_hugepages (or ",
        HugePage::G1 => "hugepagesz=1G hugepages=N on the host kernel's command line (or ",
    };
    CreateError::HugePages {
        wanted: size / page.bytes(),
        page: Size(page.bytes()),
        free: free.unwrap_or(0),
        set: format!("{set}{dir}/nr_hugepages)"),
        source,
    }
}

/// A file or device of the operator's.
fn of_path(path: &Path, size: u64, node: Option<u32>) -> Result<OwnedFd, CreateError> {
    let wrong = |what: String| CreateError::Path { path: path.to_owned(), what };
    let io = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| wrong(format!("{what}: {error}"))
    };
    if node.is_some() {
        return Err(wrong("numa_node is for memory, not for a file or device".to_owned()));
    }
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).open(path).map_err(io("cannot open it"))?;
    let file = OwnedFd::from(file);
    // Held by whoever has the file: the host, its keeper and its workers.
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|error| io("somebody else has it locked")(error.into()))?;
    let stat = rustix::fs::fstat(&file).map_err(|error| io("cannot look at it")(error.into()))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let granularity = granularity(file.as_fd()).map_err(io("cannot look at it"))?;
            if size % granularity != 0 {
                return Err(CreateError::Granularity { size: Size(size), page: Size(granularity) });
            }
            // Also makes it long enough.
            allocate(file.as_fd(), size)
                .map_err(io(&format!("its file system cannot set {} aside", Size(size))))?;
        }
        FileType::CharacterDevice => device(&stat, size).map_err(wrong)?,
        _ => return Err(wrong("it is neither a file nor a devdax device".to_owned())),
    }
    Ok(file)
}

/// Whether a character device is devdax, large enough and of a size of pages
/// that is served.
fn device(stat: &Stat, size: u64) -> Result<(), String> {
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let read = |name: &str| {
        let path = format!("/sys/dev/char/{major}:{minor}/{name}");
        std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
    };
    let (Some(has), Some(align)) = (read("size"), read("align")) else {
        return Err("it is not a devdax device (`ndctl create-namespace --mode=devdax`)".to_owned());
    };
    if has < size {
        return Err(format!("it has {}, less than {}", Size(has), Size(size)));
    }
    if align > DAX_ALIGNMENT {
        return Err(format!("its alignment is {}; only up to 2M is served", Size(align)));
    }
    if size % DAX_ALIGNMENT != 0 {
        return Err(format!("main storage of {} is not a multiple of 2M", Size(size)));
    }
    Ok(())
}

/// Has the pages of `file` come from NUMA node `node`, whoever touches them.
pub(crate) fn place(file: BorrowedFd<'_>, size: u64, node: Option<u32>) -> Result<(), CreateError> {
    let Some(node) = node else { return Ok(()) };
    let refused = |source| CreateError::Node { node, source };
    if node >= u64::BITS || !Path::new(&format!("/sys/devices/system/node/node{node}")).exists() {
        return Err(refused(io::Error::new(io::ErrorKind::NotFound, "there is no such node")));
    }
    let length = usize::try_from(size).map_err(|error| refused(io::Error::other(error)))?;
    // The policy of a shared mapping is the file's, and stays with it.
    Mapping::of_file(file, 0, length).and_then(|mapping| mapping.bind(node)).map_err(refused)
}

/// Whether discarded pages of `file` stay the file's (and are made zero)
/// rather than being given back to the host.
pub(crate) fn keeps_pages(file: BorrowedFd<'_>) -> io::Result<bool> {
    let ours = SealFlags::SHRINK | SealFlags::GROW;
    match rustix::fs::fcntl_get_seals(file) {
        Ok(seals) if seals.contains(ours) => {
            let stat = rustix::fs::fstat(file)?;
            // The sticky bit, in its oldest sense, is set on those that keep.
            Ok(Mode::from_raw_mode(stat.st_mode).contains(Mode::SVTX))
        }
        // A file or device of the operator's.
        Ok(_) | Err(rustix::io::Errno::INVAL) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Magic number of hugetlbfs (statfs(2)).
const HUGETLBFS: u64 = 0x9584_58f6;

/// What ranges of `file` must be multiples of.
pub(crate) fn granularity(file: BorrowedFd<'_>) -> io::Result<u64> {
    let stat = rustix::fs::fstat(file)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice {
        return Ok(DAX_ALIGNMENT);
    }
    let system = rustix::fs::fstatfs(file)?;
    if u64::try_from(system.f_type) == Ok(HUGETLBFS) {
        return Ok(u64::try_from(system.f_bsize).unwrap_or(BLOCK_SIZE).max(BLOCK_SIZE));
    }
    Ok(BLOCK_SIZE)
}

/// Makes `range` of `file` zero and keeps its pages.
pub(crate) fn zero(file: BorrowedFd<'_>, range: StorageRange) -> io::Result<()> {
    let stat = rustix::fs::fstat(file)?;
    let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    // Huge pages and devices can be mapped only. They cannot become shorter,
    // and all their pages are there, so the stores cannot fail.
    if device || u64::try_from(stat.st_blksize).is_ok_and(|size| size > BLOCK_SIZE) {
        let length = usize::try_from(range.size()).map_err(io::Error::other)?;
        Mapping::of_file(file, range.origin(), length)?.clear();
        return Ok(());
    }
    let zeros = vec![0; BLOCK_SIZE as usize];
    let mut at = range.origin();
    while at < range.end() {
        let most =
            usize::try_from((range.end() - at).min(BLOCK_SIZE)).unwrap_or(PAGE_SIZE as usize);
        match rustix::io::pwrite(file, &zeros[..most], at) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            written => at += written? as u64,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
