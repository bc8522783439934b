//! The system calls that std does not offer, made safe. Types and numbers are
//! those of 64-bit Linux with glibc on riscv64 and x86-64.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;

const PAGE: usize = 4096;

unsafe extern "C" {
    fn getppid() -> c_int;
    fn fork() -> c_int;
    fn _exit(code: c_int) -> !;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn mmap(
        at: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        fd: c_int,
        offset: i64,
    ) -> *mut c_void;
    fn munmap(at: *mut c_void, length: usize) -> c_int;
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: u64,
        data: *const c_void,
    ) -> c_int;
    fn reboot(command: c_int) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
}

/// Mounts a new file system of this kind at a directory, which is made.
pub(crate) fn mount_new(source: &CStr, target: &CStr, kind: &CStr) -> io::Result<()> {
    mount_with(0, source, target, kind)
}

/// Mounts a file system that is only read at a directory, which is made.
pub(crate) fn mount_read_only(source: &CStr, target: &CStr, kind: &CStr) -> io::Result<()> {
    const READ_ONLY: u64 = 1;
    mount_with(READ_ONLY, source, target, kind)
}

fn mount_with(flags: u64, source: &CStr, target: &CStr, kind: &CStr) -> io::Result<()> {
    let _ = std::fs::create_dir(target.to_string_lossy().as_ref());
    // SAFETY: zero-terminated strings that live until the call returns; no data.
    let result =
        unsafe { mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, ptr::null()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Loads the kernel modules that the file `list` in `/modules` names, in its order.
pub(crate) fn load_modules(list: &str) -> io::Result<()> {
    for name in std::fs::read_to_string(list)?.lines() {
        let name = name.trim();
        if !name.is_empty() && !name.starts_with('#') {
            load_module(&File::open(Path::new("/modules").join(name))?)?;
        }
    }
    Ok(())
}

fn load_module(file: &File) -> io::Result<()> {
    const FINIT_MODULE: c_long = if cfg!(target_arch = "riscv64") { 273 } else { 313 };
    // SAFETY: an open descriptor, a zero-terminated constant, no flags.
    let result = unsafe { syscall(FINIT_MODULE, file.as_raw_fd(), c"".as_ptr(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The kernel's log for the first process, standard output for any other.
pub(crate) struct Console {
    kernel: bool,
}

impl Console {
    pub(crate) fn open(first: bool) -> Self {
        if !first {
            return Self { kernel: false };
        }
        let _ = std::fs::create_dir("/dev");
        // SAFETY: zero-terminated constants; devtmpfs takes no data.
        unsafe {
            mount(c"dev".as_ptr(), c"/dev".as_ptr(), c"devtmpfs".as_ptr(), 0, ptr::null());
        }
        Self { kernel: true }
    }

    /// One line. Nobody could be told if it failed.
    pub(crate) fn say(&self, line: &str) {
        if !self.kernel {
            let _ = writeln!(io::stdout(), "{line}");
            return;
        }
        // The kernel drops what comes too often through one open file: every
        // line has its own.
        if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
            let _ = log.write_all(format!("<2>{line}\n").as_bytes());
        }
    }
}

/// The parent's process number: a system call that does nothing else.
pub(crate) fn parent() -> i32 {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { getppid() }
}

/// Maps `count` fresh pages, writes to each, unmaps them; returns how many
/// were touched.
pub(crate) fn touch_pages(count: usize) -> u64 {
    const READ_WRITE: c_int = 3;
    const PRIVATE_ANONYMOUS: c_int = 0x22;
    // SAFETY: asks for new memory wherever the kernel likes.
    let at = unsafe { mmap(ptr::null_mut(), count * PAGE, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0) };
    if at.addr() == usize::MAX {
        return 0;
    }
    let mut touched = 0;
    for page in 0..count {
        // SAFETY: inside the mapping made above, which nobody else knows.
        unsafe {
            let cell = at.cast::<u8>().add(page * PAGE);
            cell.write_volatile(1);
            touched += u64::from(cell.read_volatile());
        }
    }
    // SAFETY: the mapping made above; no pointer into it is left.
    unsafe { munmap(at, count * PAGE) };
    touched
}

/// Starts a process that exits with `code`, and returns what its parent sees.
pub(crate) fn child_that_exits(code: u8) -> u8 {
    // SAFETY: the child does nothing but end, without running destructors.
    unsafe {
        let pid = fork();
        if pid == 0 {
            _exit(c_int::from(code));
        }
        let mut status = 0;
        waitpid(pid, &raw mut status, 0);
        (status >> 8) as u8
    }
}

/// Powers the machine off; waits for ever if it refuses.
pub(crate) fn power_off() {
    const POWER_OFF: c_int = 0x4321_fedc;
    // SAFETY: takes no pointers.
    unsafe { reboot(POWER_OFF) };
    loop {
        std::thread::park();
    }
}
