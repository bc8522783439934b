//! Chunks in flight: a thread that stores into one waits until it has landed.
//!
//! While a live relocation copies a chunk, the window's pages there can be
//! read but not written. A vCPU or I/O processor that stores there gets
//! SIGSEGV, and its handler, installed once for the process, sleeps until the
//! chunk shows its new place; then the store is tried again. Nobody else
//! notices anything, and who stores there needs to know nothing of it.
//!
//! What the handler does is safe at any point of a program: it reads atomics,
//! sleeps on a futex, and hands every other fault to the handler before it.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

/// Relocations at once in one process. A worker has one window; tests more.
const SLOTS: usize = 64;

/// Where the chunk of one relocation is, by host address.
struct Flight {
    taken: AtomicBool,
    /// Empty when nothing is in flight.
    start: AtomicUsize,
    end: AtomicUsize,
    /// Counts landings; whoever waits for one sleeps on it.
    landings: AtomicU32,
}

impl Flight {
    fn set(&self, range: &Range<usize>) {
        self.start.store(range.start, Ordering::SeqCst);
        self.end.store(range.end, Ordering::SeqCst);
    }

    fn contains(&self, address: usize) -> bool {
        // Seen half-set, it is taken for another chunk's: the fault is then
        // tried again, and met again if it still has a reason.
        (self.start.load(Ordering::SeqCst)..self.end.load(Ordering::SeqCst)).contains(&address)
    }
}

static FLIGHTS: [Flight; SLOTS] = [const {
    Flight {
        taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        landings: AtomicU32::new(0),
    }
}; SLOTS];

/// Counts the chunks that ever took off in this process.
static DEPARTURES: AtomicU32 = AtomicU32::new(0);

/// What was installed for SIGSEGV before.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

thread_local! {
    /// Address of this thread's last fault outside every flight, and the
    /// departures until then.
    static LAST: Cell<(usize, u32)> = const { Cell::new((0, 0)) };
}

/// A relocation's right to have one chunk in flight.
pub(crate) struct Slot(&'static Flight);

impl Slot {
    /// Claims a slot and makes sure that the handler is installed.
    pub(crate) fn claim() -> io::Result<Self> {
        install()?;
        let free = FLIGHTS.iter().find(|flight| !flight.taken.swap(true, Ordering::AcqRel));
        free.map(Self).ok_or_else(|| io::Error::other("too many relocations in one process"))
    }

    /// Stores into these addresses wait from now on, if they fault.
    pub(crate) fn depart(&self, chunk: Range<usize>) {
        self.0.set(&chunk);
        DEPARTURES.fetch_add(1, Ordering::SeqCst);
    }

    /// Lets everybody who waits try again.
    pub(crate) fn land(&self) {
        self.0.set(&(0..0));
        self.0.landings.fetch_add(1, Ordering::SeqCst);
        futex(&self.0.landings, libc::FUTEX_WAKE, i32::MAX.unsigned_abs());
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.land();
        self.0.taken.store(false, Ordering::Release);
    }
}

fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Option<i32>> = OnceLock::new();
    let failed = INSTALLED.get_or_init(|| {
        // SAFETY: an all-zero sigaction is a valid one: default action, empty
        // mask. Both calls get pointers to such values of this function's.
        // The handler has the signature that SA_SIGINFO asks for.
        unsafe {
            let mut previous: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGSEGV, ptr::null(), &raw mut previous) != 0 {
                return Some(errno());
            }
            // Before ours is in place: it looks there.
            let _ = PREVIOUS.set(previous);
            let mut ours: libc::sigaction = std::mem::zeroed();
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_fault;
            ours.sa_sigaction = handler as usize;
            // On the stack that the thread has for signals, if it has one, as
            // the handler before may need it.
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            if libc::sigaction(libc::SIGSEGV, &raw const ours, ptr::null_mut()) != 0 {
                return Some(errno());
            }
        }
        None
    });
    failed.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)
}

extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo of a fault, which has an
    // address; `__errno_location` is this thread's own and always there.
    let (address, errno) = unsafe { ((*info).si_addr() as usize, *libc::__errno_location()) };
    if !wait_for_landing(address) && !first_time(address) {
        pass_on(signal, info, context);
    }
    // SAFETY: as above. The code that was interrupted may be about to read it.
    unsafe { *libc::__errno_location() = errno };
}

/// Waits until no flight covers `address`; whether one did.
fn wait_for_landing(address: usize) -> bool {
    let mut waited = false;
    for flight in &FLIGHTS {
        loop {
            let landings = flight.landings.load(Ordering::SeqCst);
            if !flight.contains(address) {
                break;
            }
            waited = true;
            futex(&flight.landings, libc::FUTEX_WAIT, landings);
        }
    }
    waited
}

/// Whether this may be a chunk that landed between the fault and its handler:
/// then trying again is all there is to do. A fault that comes back although
/// no chunk took off meanwhile is a fault.
fn first_time(address: usize) -> bool {
    let now = (address, DEPARTURES.load(Ordering::SeqCst));
    LAST.with(|last| last.replace(now) != now)
}

fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
    let Some(previous) = PREVIOUS.get() else { return };
    let handler = previous.sa_sigaction;
    // SAFETY: what was installed with SA_SIGINFO has this signature, and gets
    // what the kernel passed. Otherwise the previous action is put back and
    // the fault, tried again on return, meets it.
    unsafe {
        if previous.sa_flags & libc::SA_SIGINFO != 0 && handler != libc::SIG_DFL {
            std::mem::transmute::<usize, Handler>(handler)(signal, info, context);
        } else {
            libc::sigaction(signal, previous, ptr::null_mut());
        }
    }
}

/// Sleeps while `word` is `value`, or wakes `value` threads that do.
fn futex(word: &AtomicU32, operation: c_int, value: u32) {
    let none: *const libc::timespec = ptr::null();
    // SAFETY: `word` is valid for the whole call; no timeout is given. Coming
    // back early (EINTR, EAGAIN) is what callers expect.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            operation | libc::FUTEX_PRIVATE_FLAG,
            value,
            none,
        );
    }
}
