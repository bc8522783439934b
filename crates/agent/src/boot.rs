//! From an unpacked initramfs to a system with a root, in one process.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, fmt, io, thread};

use crate::command_line::{Options, modules};
use crate::sys::{self, MS_MOVE, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY};
use crate::{log, sys::mount_at};

const ROOT_DISK: &str = "/dev/vda";
const MODULES: &str = "/modules";

/// How long a disk may take to appear after its driver was loaded.
const DISK_LIMIT: Duration = Duration::from_secs(10);

/// Why there is no system. The image or its host file is to blame.
pub(crate) struct BootError {
    doing: String,
    cause: io::Error,
    remedy: &'static str,
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.doing, self.cause, self.remedy)
    }
}

type Step = Result<(), BootError>;

fn step(doing: impl Into<String>, remedy: &'static str, result: io::Result<()>) -> Step {
    result.map_err(|cause| BootError { doing: doing.into(), cause, remedy })
}

const REBUILD: &str = "the image does not fit this agent: build it again";

/// Brings the system up as the kernel command line asks for it, and gives that.
pub(crate) fn bring_up() -> Result<Options, BootError> {
    kernel_file_systems()?;
    keep_low_descriptors();
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let options = Options::parse(&command_line);
    load_modules("order");
    if options.data_disk.is_some() {
        load_modules("order.disk");
    }
    if has_device(MEMORY_DEVICE) {
        load_modules("order.memory");
    }
    if !options.keep_initramfs {
        move_to_root_disk()?;
    }
    run_time_file_systems();
    if has_device(FILES_DEVICE) {
        // Whose files these are changes with whoever has the machine.
        let quiet = MS_NOSUID | MS_NODEV;
        let mounted = mount_new(FILES_TAG, "/files", "virtiofs", quiet, "");
        tell("mounting the users' files at /files", mounted);
    }
    if let Some(name) = &options.hostname {
        tell("setting the host name", sys::set_hostname(name));
    }
    tell("bringing up the loopback interface", sys::loopback_up());
    if let Some(disk) = &options.data_disk {
        mount_data(disk)?;
    }
    Ok(options)
}

/// A part of the system that it can do without: says what is missing.
fn tell(doing: &str, result: io::Result<()>) {
    if let Err(error) = result {
        log::error(&format!("{doing}: {error}"));
    }
}

/// Name under which the agent's program checks the guest instead.
pub(crate) const SELF_CHECK: &str = "self-check";
/// Name under which it is a load that writes memory.
pub(crate) const WRITER: &str = "writer";
/// Name under which it reads and sets storage keys.
pub(crate) const STORAGE_KEY: &str = "storage-key";

fn mount_new(source: &str, target: &str, kind: &str, flags: u64, data: &str) -> io::Result<()> {
    fs::create_dir_all(target)?;
    mount_at(source, target, kind, flags, data)
}

fn kernel_file_systems() -> Step {
    let quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    step("mounting /dev", REBUILD, mount_new("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=755"))?;
    step("mounting /proc", REBUILD, mount_new("proc", "/proc", "proc", quiet, ""))?;
    step("mounting /sys", REBUILD, mount_new("sys", "/sys", "sysfs", quiet, ""))
}

/// Fills descriptors 0 to 2 if the kernel had no console to put there, so
/// that no pipe lands on a number with a meaning of its own.
fn keep_low_descriptors() {
    while let Ok(file) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        if file.as_raw_fd() > 2 {
            break;
        }
        sys::leak(file);
    }
}

/// Loads the image's modules in the order that its file `list` gives. One that
/// does not load is told of; whether the system can do without shows in what
/// follows.
fn load_modules(list: &str) {
    let Ok(order) = fs::read_to_string(format!("{MODULES}/{list}")) else { return };
    for (file, parameters) in modules(&order) {
        let result = File::open(format!("{MODULES}/{file}"))
            .and_then(|file| sys::load_module(&file, parameters));
        tell(&format!("loading the kernel module {file}"), result);
    }
}

/// The virtio device by which the machine gives the guest memory while it runs.
const MEMORY_DEVICE: &str = "0x0018";
/// That by which it gives users their files, and the name they are mounted by.
const FILES_DEVICE: &str = "0x001a";
const FILES_TAG: &str = "berth";

/// Whether the machine has a virtio device of that type.
fn has_device(kind: &str) -> bool {
    let Ok(devices) = fs::read_dir("/sys/bus/virtio/devices") else { return false };
    devices.flatten().any(|device| {
        fs::read_to_string(device.path().join("device")).is_ok_and(|id| id.trim() == kind)
    })
}

/// Polls in steps of a millisecond until `path` exists.
fn wait_for(path: &str) -> io::Result<()> {
    let start = Instant::now();
    while !Path::new(path).exists() {
        if start.elapsed() > DISK_LIMIT {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such disk in this machine"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Lays a writable layer in memory over the root disk and makes it the root.
fn move_to_root_disk() -> Step {
    const CHECK: &str = "the partition needs its image's root disk as first disk";
    step(format!("waiting for {ROOT_DISK}"), CHECK, wait_for(ROOT_DISK))?;
    step(
        format!("mounting {ROOT_DISK}"),
        CHECK,
        mount_new(ROOT_DISK, "/root-ro", "squashfs", MS_RDONLY, ""),
    )?;
    step("mounting the writable layer", REBUILD, writable_layer())?;
    for inner in ["/dev", "/proc", "/sys"] {
        let target = format!("/root-new{inner}");
        let moved =
            fs::create_dir_all(&target).and_then(|()| mount_at(inner, &target, "", MS_MOVE, ""));
        step(format!("moving {inner}"), REBUILD, moved)?;
    }
    // The initramfs lives in memory: what is not needed any more is given back.
    let _ = fs::remove_dir_all(MODULES);
    let _ = fs::remove_file("/init");
    let change = env::set_current_dir("/root-new")
        .and_then(|()| mount_at(".", "/", "", MS_MOVE, ""))
        .and_then(|()| sys::chroot_here())
        .and_then(|()| env::set_current_dir("/"));
    step("changing to the new root", REBUILD, change)
}

fn writable_layer() -> io::Result<()> {
    mount_new("tmpfs", "/root-rw", "tmpfs", 0, "mode=755")?;
    fs::create_dir("/root-rw/upper")?;
    fs::create_dir("/root-rw/work")?;
    let layers = "lowerdir=/root-ro,upperdir=/root-rw/upper,workdir=/root-rw/work";
    mount_new("overlay", "/root-new", "overlay", 0, layers)
}

/// What a running system has besides; each can be missed.
fn run_time_file_systems() {
    let shared = MS_NOSUID | MS_NODEV;
    let terminals = "gid=5,mode=620,ptmxmode=666";
    let wanted = [
        ("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, terminals),
        ("tmpfs", "/dev/shm", "tmpfs", shared, "mode=1777"),
        ("tmpfs", "/tmp", "tmpfs", shared, "mode=1777"),
        ("tmpfs", "/run", "tmpfs", shared, "mode=755"),
    ];
    for (source, target, kind, flags, data) in wanted {
        tell(&format!("mounting {target}"), mount_new(source, target, kind, flags, data));
    }
    let links = [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")];
    for (name, target) in links {
        let target = format!("/proc/self/{target}");
        let _ = std::os::unix::fs::symlink(target, format!("/dev/{name}"));
    }
    // The agent's own file is in the initramfs, out of everybody's sight by
    // now; this way leads to it all the same.
    let linked = fs::create_dir_all("/run/berth").and_then(|()| {
        [SELF_CHECK, WRITER, STORAGE_KEY].iter().try_for_each(|name| {
            std::os::unix::fs::symlink("/proc/1/exe", format!("/run/berth/{name}"))
        })
    });
    tell("making the agent's other programs known", linked);
}

fn mount_data(disk: &str) -> Step {
    const CHECK: &str = "berth.disk must name a disk with an ext4 file system, and the image \
                         must have the modules for it";
    step(format!("waiting for the data disk {disk}"), CHECK, wait_for(disk))?;
    let mounted = mount_new(disk, "/data", "ext4", MS_NOSUID | MS_NODEV, "");
    step(format!("mounting the data disk {disk} at /data"), CHECK, mounted)
}
