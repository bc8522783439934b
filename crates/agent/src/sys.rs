//! The system calls that std does not offer, made safe.
//!
//! Types and numbers are those of 64-bit Linux with glibc on riscv64 and
//! x86-64, which agree but for the number of `finit_module`.

use std::ffi::{CString, c_char, c_int, c_long, c_short, c_ulong, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr;
use std::time::Duration;

use agent_protocol::Status;

pub(crate) const O_NOCTTY: i32 = 0o400;
pub(crate) const O_NONBLOCK: i32 = 0o4000;
const O_CLOEXEC: c_int = 0o200_0000;

pub(crate) const SIGHUP: i32 = 1;
pub(crate) const SIGKILL: i32 = 9;
pub(crate) const SIGUSR1: i32 = 10;
pub(crate) const SIGUSR2: i32 = 12;
pub(crate) const SIGPIPE: i32 = 13;
pub(crate) const SIGTERM: i32 = 15;
pub(crate) const SIGCHLD: i32 = 17;
pub(crate) const SIGCONT: i32 = 18;

pub(crate) const MS_NOSUID: u64 = 2;
pub(crate) const MS_NODEV: u64 = 4;
pub(crate) const MS_RDONLY: u64 = 1;
pub(crate) const MS_NOEXEC: u64 = 8;
pub(crate) const MS_BIND: u64 = 4096;
pub(crate) const MS_MOVE: u64 = 8192;

pub(crate) const POLLIN: i16 = 1;
pub(crate) const POLLOUT: i16 = 4;
pub(crate) const POLLERR: i16 = 8;
pub(crate) const POLLHUP: i16 = 16;

const ESRCH: i32 = 3;
const ECHILD: i32 = 10;
const EEXIST: i32 = 17;

/// glibc's `sigset_t`: 1024 bits, signal n is bit n - 1.
#[repr(C)]
#[derive(Clone, Copy)]
struct SignalSet([u64; 16]);

#[repr(C)]
struct TimeSpec {
    seconds: i64,
    nanoseconds: i64,
}

/// One descriptor to wait for; the kernel's `struct pollfd`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PollFd {
    fd: c_int,
    events: c_short,
    /// What the kernel found; `POLLIN` and so on.
    pub(crate) found: c_short,
}

impl PollFd {
    /// Waits for `events` on `fd`; hang-ups and errors come without asking.
    pub(crate) fn new(fd: &impl AsRawFd, events: i16) -> Self {
        Self { fd: fd.as_raw_fd(), events, found: 0 }
    }
}

/// `struct ifreq` as far as interface flags go.
#[repr(C)]
struct InterfaceFlags {
    name: [u8; 16],
    flags: c_short,
    rest: [u8; 22],
}

/// `struct sockaddr_un`.
#[repr(C)]
struct UnixAddress {
    family: u16,
    path: [u8; 108],
}

/// `struct rand_pool_info` with room for what a host may send.
#[repr(C)]
struct Entropy {
    bits: c_int,
    length: c_int,
    bytes: [u8; 256],
}

unsafe extern "C" {
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    fn umount(target: *const c_char) -> c_int;
    fn chroot(path: *const c_char) -> c_int;
    fn sethostname(name: *const c_char, length: usize) -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn setsid() -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn poll(fds: *mut PollFd, count: c_ulong, timeout_ms: c_int) -> c_int;
    fn signalfd(fd: c_int, mask: *const SignalSet, flags: c_int) -> c_int;
    fn sigprocmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn reboot(command: c_int) -> c_int;
    fn sync();
    fn syscall(number: c_long, ...) -> c_long;
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn connect(fd: c_int, address: *const UnixAddress, length: u32) -> c_int;
    fn mmap(
        address: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        fd: c_int,
        offset: i64,
    ) -> *mut c_void;
    fn munmap(address: *mut c_void, length: usize) -> c_int;
    fn dup2(from: c_int, to: c_int) -> c_int;
    fn clock_gettime(clock: c_int, time: *mut TimeSpec) -> c_int;
    fn clock_settime(clock: c_int, time: *const TimeSpec) -> c_int;
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Mounts `source` at `target`; `data` are the file system's own options.
pub(crate) fn mount_at(
    source: &str,
    target: &str,
    kind: &str,
    flags: u64,
    data: &str,
) -> io::Result<()> {
    let (source, target) = (c_string(source)?, c_string(target)?);
    let (kind, data) = (c_string(kind)?, c_string(data)?);
    // SAFETY: all four pointers are to zero-terminated strings that live until
    // the call returns; the kernel copies what it keeps.
    check(unsafe {
        mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast())
    })?;
    Ok(())
}

/// Unmounts what is mounted at `target`.
pub(crate) fn unmount(target: &str) -> io::Result<()> {
    let target = c_string(target)?;
    // SAFETY: a zero-terminated string that lives until the call returns.
    check(unsafe { umount(target.as_ptr()) })?;
    Ok(())
}

/// Makes the working directory the root.
pub(crate) fn chroot_here() -> io::Result<()> {
    // SAFETY: a zero-terminated string constant.
    check(unsafe { chroot(c".".as_ptr()) })?;
    Ok(())
}

/// Sets the kernel's host name.
pub(crate) fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length are those of one string.
    check(unsafe { sethostname(name.as_ptr().cast(), name.len()) })?;
    Ok(())
}

/// Loads a kernel module; one that is loaded already is no error.
pub(crate) fn load_module(file: &File, parameters: &str) -> io::Result<()> {
    const FINIT_MODULE: c_long = if cfg!(target_arch = "riscv64") { 273 } else { 313 };
    let parameters = c_string(parameters)?;
    // SAFETY: an open descriptor, a zero-terminated string that lives until
    // the call returns, no flags.
    let result = unsafe { syscall(FINIT_MODULE, file.as_raw_fd(), parameters.as_ptr(), 0) };
    match check(result as c_int) {
        Err(error) if error.raw_os_error() == Some(EEXIST) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Brings the loopback interface up.
pub(crate) fn loopback_up() -> io::Result<()> {
    const AF_INET: c_int = 2;
    const SOCK_DGRAM: c_int = 2;
    const SIOCSIFFLAGS: c_ulong = 0x8914;
    const UP: c_short = 1;
    // SAFETY: takes no pointers.
    let fd = check(unsafe { socket(AF_INET, SOCK_DGRAM | O_CLOEXEC, 0) })?;
    // SAFETY: the descriptor was opened just now and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut request = InterfaceFlags { name: [0; 16], flags: UP, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: the request is a whole `struct ifreq` of 40 bytes, only read.
    check(unsafe { ioctl(socket.as_raw_fd(), SIOCSIFFLAGS, &raw const request) })?;
    Ok(())
}

/// Sends a signal; `pid` below zero means the group of that number, -1 all
/// processes. That nobody is there any more is no error.
pub(crate) fn send_signal(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: takes no pointers.
    match check(unsafe { kill(pid, signal) }) {
        Err(error) if error.raw_os_error() == Some(ESRCH) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// What [`reap`] found.
pub(crate) enum Reaped {
    /// This child ended so.
    Child(i32, Status),
    /// There are children, none has ended.
    NoneYet,
    /// There are no children at all.
    NoChildren,
}

/// Takes up the end of one child of any kind, without waiting.
pub(crate) fn reap() -> io::Result<Reaped> {
    const WNOHANG: c_int = 1;
    let mut status = 0;
    // SAFETY: the pointer is to a live integer.
    match check(unsafe { waitpid(-1, &raw mut status, WNOHANG) }) {
        Ok(0) => Ok(Reaped::NoneYet),
        Ok(pid) => Ok(Reaped::Child(pid, decode_status(status))),
        Err(error) if error.raw_os_error() == Some(ECHILD) => Ok(Reaped::NoChildren),
        Err(error) => Err(error),
    }
}

/// The kernel's wait status: the signal in the low seven bits, or a code in
/// the second byte.
fn decode_status(status: c_int) -> Status {
    match (status & 0x7f) as u8 {
        0 => Status::Code((status >> 8) as u8),
        signal => Status::Signal(signal),
    }
}

fn signal_set(signals: &[i32]) -> SignalSet {
    let mut set = SignalSet([0; 16]);
    for signal in signals {
        set.0[0] |= 1 << (signal - 1);
    }
    set
}

const SIG_SETMASK: c_int = 2;

/// Holds these signals back from this process and returns a descriptor that
/// becomes readable when one is there.
pub(crate) fn signal_descriptor(signals: &[i32]) -> io::Result<File> {
    let set = signal_set(signals);
    // SAFETY: the set lives until both calls return; no old set is asked for.
    unsafe {
        check(sigprocmask(SIG_SETMASK, &raw const set, ptr::null_mut()))?;
        let fd = check(signalfd(-1, &raw const set, O_CLOEXEC | O_NONBLOCK))?;
        Ok(File::from_raw_fd(fd))
    }
}

/// Bytes of one record read from a signal descriptor; the signal's number is
/// the first four.
pub(crate) const SIGNAL_RECORD: usize = 128;

/// Gives the child of `command` a session of its own, an empty signal mask
/// and, if asked, its standard input as controlling terminal.
pub(crate) fn own_session(command: &mut Command, controlling_terminal: bool) {
    const TIOCSCTTY: c_ulong = 0x540e;
    let begin = move || {
        let none = signal_set(&[]);
        // SAFETY: the set is live; the other calls take no pointers.
        unsafe {
            check(sigprocmask(SIG_SETMASK, &raw const none, ptr::null_mut()))?;
            check(setsid())?;
            if controlling_terminal {
                check(ioctl(0, TIOCSCTTY, 0 as c_long))?;
            }
        }
        Ok(())
    };
    // SAFETY: the closure runs between fork and exec and only makes system
    // calls: it allocates nothing, takes no lock and touches no shared state.
    unsafe { command.pre_exec(begin) };
}

/// Waits until something happens on one of `fds` or the time is over.
pub(crate) fn wait_any(fds: &mut [PollFd], timeout: Option<Duration>) -> io::Result<()> {
    // Rounded up: a remainder below a millisecond must not become a busy wait.
    let timeout = timeout.map_or(-1, |time| {
        c_int::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
    });
    // SAFETY: pointer and count are those of one slice of `struct pollfd`.
    match check(unsafe { poll(fds.as_mut_ptr(), fds.len() as c_ulong, timeout) }) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Makes reads and writes of this descriptor return rather than wait.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    const F_GETFL: c_int = 3;
    const F_SETFL: c_int = 4;
    // SAFETY: an open descriptor; these commands take integers.
    unsafe {
        let flags = check(fcntl(fd.as_raw_fd(), F_GETFL))?;
        check(fcntl(fd.as_raw_fd(), F_SETFL, flags | O_NONBLOCK))?;
    }
    Ok(())
}

/// A second descriptor for this process's standard input.
pub(crate) fn standard_input() -> io::Result<File> {
    // SAFETY: borrowed for the duplication only; if it is closed the call
    // fails.
    let borrowed = unsafe { BorrowedFd::borrow_raw(0 as RawFd) };
    borrowed.try_clone_to_owned().map(File::from)
}

/// Leaves `file` open for the rest of this process's life.
pub(crate) fn leak(file: File) {
    std::mem::forget(file);
}

/// Nanoseconds since boot, the time asleep included.
pub(crate) fn uptime_ns() -> u64 {
    const CLOCK_BOOTTIME: c_int = 7;
    let mut time = TimeSpec { seconds: 0, nanoseconds: 0 };
    // SAFETY: the pointer is to a live `struct timespec`.
    unsafe { clock_gettime(CLOCK_BOOTTIME, &raw mut time) };
    time.seconds.unsigned_abs() * 1_000_000_000 + time.nanoseconds.unsigned_abs()
}

/// Sets the wall clock to so many nanoseconds since 1970.
pub(crate) fn set_clock(nanoseconds: u64) -> io::Result<()> {
    const CLOCK_REALTIME: c_int = 0;
    const BILLION: u64 = 1_000_000_000;
    // Both quotient and remainder of a u64 by a billion fit an i64.
    let time = TimeSpec {
        seconds: (nanoseconds / BILLION) as i64,
        nanoseconds: (nanoseconds % BILLION) as i64,
    };
    // SAFETY: the pointer is to a live `struct timespec`.
    check(unsafe { clock_settime(CLOCK_REALTIME, &raw const time) })?;
    Ok(())
}

/// Mixes up to 256 random bytes into the kernel's generator, counts them as
/// random, and has every key derived anew at once. `device` is the generator's.
pub(crate) fn add_entropy(device: &File, bytes: &[u8]) -> io::Result<()> {
    const RNDADDENTROPY: c_ulong = 0x4008_5203;
    const RNDRESEEDCRNG: c_ulong = 0x5207;
    let mut entropy = Entropy { bits: 0, length: 0, bytes: [0; 256] };
    let room = entropy.bytes.get_mut(..bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
    room.copy_from_slice(bytes);
    // At most 256.
    (entropy.bits, entropy.length) = (bytes.len() as c_int * 8, bytes.len() as c_int);
    // SAFETY: the first request reads the two numbers and `length` bytes after
    // them, which are all inside the structure; the second takes no argument.
    unsafe {
        check(ioctl(device.as_raw_fd(), RNDADDENTROPY, &raw const entropy))?;
        check(ioctl(device.as_raw_fd(), RNDRESEEDCRNG))?;
    }
    Ok(())
}

/// Connects to the Unix socket at `path` without ever waiting: a listener
/// that has too many unaccepted connections is an error.
pub(crate) fn connect_now(path: &Path) -> io::Result<UnixStream> {
    const AF_UNIX: u16 = 1;
    const SOCK_STREAM: c_int = 1;
    let mut address = UnixAddress { family: AF_UNIX, path: [0; 108] };
    let bytes = path.as_os_str().as_bytes();
    // The last byte stays zero.
    let room = address.path[..107].get_mut(..bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
    room.copy_from_slice(bytes);
    // SAFETY: takes no pointers.
    let fd = check(unsafe { socket(AF_UNIX.into(), SOCK_STREAM | O_CLOEXEC | O_NONBLOCK, 0) })?;
    // SAFETY: the descriptor was opened just now and has no other owner.
    let socket = unsafe { UnixStream::from_raw_fd(fd) };
    let length = size_of::<UnixAddress>() as u32;
    // SAFETY: pointer and length are those of one `struct sockaddr_un`.
    check(unsafe { connect(socket.as_raw_fd(), &raw const address, length) })?;
    Ok(socket)
}

/// Makes standard input descriptor `to` as well, which programs inherit.
pub(crate) fn also_at(to: i32) -> io::Result<()> {
    // SAFETY: takes no pointers. Whatever `to` was is closed by its number: the
    // caller sees to it that nothing of this process owns it.
    check(unsafe { dup2(0, to) })?;
    Ok(())
}

/// Whether a process is on its way out: it may still be waited for, but its
/// descriptors are closed or about to be.
pub(crate) fn is_ending(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat_is_ending(&stat))
}

/// `PF_EXITING` in the flags, the seventh word after the name's parenthesis.
/// The kernel sets it before it closes descriptors.
fn stat_is_ending(stat: &str) -> bool {
    const PF_EXITING: u64 = 4;
    let flags = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(6));
    flags.and_then(|flags| flags.parse::<u64>().ok()).is_none_or(|flags| flags & PF_EXITING != 0)
}

/// A register of a device, one byte wide, in this process's memory.
pub(crate) struct Register {
    mapping: *mut c_void,
    offset: usize,
}

impl Register {
    const PAGE: u64 = 4096;

    /// The register at physical `address`, by the file of the machine's memory.
    pub(crate) fn map(memory: &File, address: u64) -> io::Result<Self> {
        const READ_WRITE: c_int = 3;
        const SHARED: c_int = 1;
        let offset = (address % Self::PAGE) as usize;
        let start = i64::try_from(address - address % Self::PAGE).map_err(io::Error::other)?;
        let (length, fd) = (Self::PAGE as usize, memory.as_raw_fd());
        // SAFETY: asks for a new mapping where there is none; touches no memory.
        let mapping = unsafe { mmap(ptr::null_mut(), length, READ_WRITE, SHARED, fd, start) };
        // MAP_FAILED is -1.
        if mapping.addr() == usize::MAX {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { mapping, offset })
    }

    fn address(&self) -> *mut u8 {
        // SAFETY: the offset is within the page that is mapped.
        unsafe { self.mapping.cast::<u8>().add(self.offset) }
    }

    pub(crate) fn load(&self) -> u8 {
        // SAFETY: mapped for reading as long as `self` is.
        unsafe { self.address().read_volatile() }
    }

    pub(crate) fn store(&self, value: u8) {
        // SAFETY: mapped for writing as long as `self` is; nothing of this
        // program's own is there.
        unsafe { self.address().write_volatile(value) }
    }
}

impl Drop for Register {
    fn drop(&mut self) {
        // SAFETY: this mapping, which nobody uses after this.
        unsafe { munmap(self.mapping, Self::PAGE as usize) };
    }
}

/// Writes all file systems' changes to their disks.
pub(crate) fn sync_all() {
    // SAFETY: takes no arguments and cannot fail.
    unsafe { sync() };
}

/// Powers the machine off, or starts it again. Returns only if refused.
pub(crate) fn power(off: bool) {
    const RESTART: c_int = 0x0123_4567;
    const POWER_OFF: c_int = 0x4321_fedc;
    // SAFETY: takes no pointers.
    unsafe { reboot(if off { POWER_OFF } else { RESTART }) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_status_is_a_code_or_a_signal() {
        assert_eq!(decode_status(0x0300), Status::Code(3));
        assert_eq!(decode_status(0xff00), Status::Code(255));
        assert_eq!(decode_status(9), Status::Signal(9));
        assert_eq!(decode_status(0x80 | 11), Status::Signal(11));
    }

    #[test]
    fn a_name_with_a_zero_byte_reaches_no_system_call() {
        assert!(mount_at("a\0b", "/", "tmpfs", 0, "").is_err());
    }

    #[test]
    fn a_process_that_is_ending_shows_it_in_its_flags() {
        assert!(!stat_is_ending("12 (a) b) S 1 12 12 0 -1 4194560 1 0"));
        assert!(stat_is_ending("12 (a) b) R 1 12 12 0 -1 4194564 1 0"));
        assert!(stat_is_ending("nonsense"));
        assert!(!is_ending(std::process::id() as i32));
        assert!(is_ending(i32::MAX));
    }

    #[test]
    fn signals_stand_one_bit_below_their_number() {
        assert_eq!(signal_set(&[1, SIGCHLD]).0[0], 0x1_0001);
    }
}
