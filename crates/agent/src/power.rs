//! The end of a guest.

use std::thread;
use std::time::{Duration, Instant};

use crate::log;
use crate::sys::{self, Reaped, SIGCONT, SIGHUP, SIGKILL, SIGTERM};

/// How long processes may take to end when asked, and when killed.
const GRACE: Duration = Duration::from_millis(1500);

/// Ends every process, saves and unmounts disks, then calls `last`.
pub(crate) fn shut_down(last: fn() -> !) -> ! {
    // A shell at a terminal heeds only the hang-up; a stopped process heeds
    // nothing before it continues.
    for signal in [SIGTERM, SIGHUP, SIGCONT] {
        let _ = sys::send_signal(-1, signal);
    }
    wait_for_children();
    let _ = sys::send_signal(-1, SIGKILL);
    wait_for_children();
    sys::sync_all();
    if std::path::Path::new("/data").is_dir() {
        let _ = sys::unmount("/data");
    }
    last()
}

fn wait_for_children() {
    let start = Instant::now();
    while start.elapsed() < GRACE {
        match sys::reap() {
            Ok(Reaped::Child(..)) => {}
            Ok(Reaped::NoneYet) => thread::sleep(Duration::from_millis(1)),
            Ok(Reaped::NoChildren) | Err(_) => return,
        }
    }
}

/// Powers the machine off.
pub(crate) fn off() -> ! {
    sys::power(true);
    stay()
}

/// Starts the machine again.
pub(crate) fn restart() -> ! {
    sys::power(false);
    stay()
}

/// A first process must not end: the kernel would panic.
fn stay() -> ! {
    log::error("the machine refuses to power off");
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
