//! What a machine is made of.

use std::collections::BTreeMap;
use std::path::PathBuf;

use io_processors::DiskMode;
use main_storage::AccessKey;

/// Everything that is declared of a machine but its storage.
#[derive(Debug, Clone)]
pub struct MachineConfig {
    /// The partition's name; goes into thread names and messages.
    pub name: String,
    /// vCPUs, 1 to [`MAX_VCPUS`].
    pub vcpus: u8,
    /// Host CPUs the vCPUs run on: vCPU `i` on `host_cpus[i % len]`. `None`
    /// leaves the choice to the host's scheduler.
    pub host_cpus: Option<Vec<usize>>,
    /// Whether hot guest code is compiled for the host; else all of it is
    /// interpreted, which needs less memory.
    pub compile: bool,
    /// An uncompressed riscv64 Linux kernel image.
    pub kernel: PathBuf,
    /// Initial ramdisk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub command_line: String,
    /// Disks; the guest calls the first one `vda`.
    pub disks: Vec<DiskConfig>,
    /// Whether the guest has a device for its user's files.
    pub files: bool,
    /// Access keys of I/O processors, by name (`console`, `agent`, `blk0` for
    /// the first disk and so on, `rng`, `mem`, `files`); whoever is not named has 0 and may access every page.
    pub io_keys: BTreeMap<String, AccessKey>,
}

/// One disk of a machine.
#[derive(Debug, Clone)]
pub struct DiskConfig {
    /// The disk's contents, a raw image.
    pub path: PathBuf,
    /// How they are used.
    pub mode: DiskMode,
}

/// Most vCPUs of one machine.
pub const MAX_VCPUS: u8 = 8;
/// Most disks of one machine.
pub const MAX_DISKS: usize = 8;
