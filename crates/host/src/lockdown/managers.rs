//! What the file manager and the database manager may ask of the host's kernel: what
//! they are there for. Neither starts a program, becomes another user, looks at or ends
//! another process, or listens; the file manager makes no connection, the database
//! manager changes nothing but its table.

use super::{LockdownError, allow_list, apply, architecture, threads_only};

/// What both do: memory, threads, the sockets that they have, and a file of their own
/// that is written anew and renamed.
const BOTH: &[i64] = &[
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Sockets it has or is handed, and its log.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_ioctl,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_close,
    libc::SYS_poll,
    libc::SYS_ppoll,
    // The table.
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_fchmod,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    // What libc looks up by itself.
    libc::SYS_readlinkat,
    libc::SYS_prlimit64,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    // Threads, their clocks and their ends.
    libc::SYS_futex,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_tgkill,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_membarrier,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What is in the spaces.
const FILES: &[i64] = &[
    libc::SYS_openat2,
    libc::SYS_getdents64,
    libc::SYS_fstatfs,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_ftruncate,
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_utimensat,
];

/// Connections to the server, and how its host is found by name.
const DATABASE: &[i64] = &[
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
];

/// Locks down every thread of the file manager, for good.
pub(crate) fn lock_down_file_manager() -> Result<(), LockdownError> {
    lock_down(FILES)
}

/// Locks down every thread of the database manager, for good.
pub(crate) fn lock_down_database_manager() -> Result<(), LockdownError> {
    lock_down(DATABASE)
}

fn lock_down(own: &[i64]) -> Result<(), LockdownError> {
    let arch = architecture()?;
    apply([threads_only(arch)?, allow_list(BOTH.iter().chain(own), arch)?])
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    /// Says to the test below what it is to do in a process of its own.
    const DOES: &str = "BERTH_TEST_LOCKED_DOWN";

    /// The signal that ended a process that did it, locked down; none if it may.
    fn ended_by(manager: &str, what: &str) -> Option<i32> {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let name = "lockdown::managers::tests::a_process_does_what_it_was_told";
        child.args(["--exact", name]).env(DOES, format!("{manager} {what}"));
        let status = child.output().unwrap().status;
        assert!(status.success() || status.signal().is_some(), "{manager} {what}: {status}");
        status.signal()
    }

    #[test]
    fn a_process_does_what_it_was_told() {
        let Ok(told) = std::env::var(DOES) else { return };
        let (manager, what) = told.split_once(' ').unwrap();
        match manager {
            "files" => lock_down_file_manager().unwrap(),
            _ => lock_down_database_manager().unwrap(),
        }
        match what {
            "run" => drop(Command::new("/bin/true").status()),
            "thread" => std::thread::spawn(|| ()).join().unwrap(),
            "connect" => drop(TcpStream::connect("127.0.0.1:9")),
            "listen" => drop(TcpListener::bind("127.0.0.1:0")),
            "read" => drop(std::fs::read("/etc/hostname")),
            "folder" => drop(std::fs::create_dir("/proc/none")),
            "signal" => drop(rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::CONT,
            )),
            other => panic!("{other} is nothing to do"),
        }
    }

    #[test]
    fn managers_do_their_work_and_nothing_else() {
        const SIGSYS: Option<i32> = Some(libc::SIGSYS);
        for manager in ["files", "database"] {
            for may in ["thread", "read"] {
                assert_eq!(ended_by(manager, may), None, "{manager} {may}");
            }
            for may_not in ["run", "listen", "signal", "folder"] {
                assert_eq!(ended_by(manager, may_not), SIGSYS, "{manager} {may_not}");
            }
        }
        assert_eq!(ended_by("database", "connect"), None);
        assert_eq!(ended_by("files", "connect"), SIGSYS);
    }
}
