//! What a worker may still ask of the host's kernel once its guest runs, and
//! the keeper once it keeps.
//!
//! No new privileges, no new program, no new file, no new connection: a worker
//! has its storage, its disks, its sockets and its threads; the keeper has two
//! files and its sockets. What they ask for beside that ends them (SIGSYS), and
//! the host says so. The file manager and the database manager have more to do
//! ([`managers`]), and do nothing else either.

mod managers;

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

pub(crate) use managers::{lock_down_database_manager, lock_down_file_manager};

/// Why the process could not be locked down; it does not go on then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockdownError {
    #[error("this host's architecture has no seccomp filter yet")]
    Architecture,
    #[error("the filter of system calls is wrong: {0}")]
    Filter(#[from] seccompiler::BackendError),
    #[error("the kernel refused the filter of system calls: {0}; does it have seccomp?")]
    Kernel(#[from] seccompiler::Error),
}

/// System calls without which a worker cannot work.
const ALLOWED: &[i64] = &[
    // Storage: mapping, moving and giving back.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_brk,
    libc::SYS_fallocate,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_statx,
    // Disks.
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    // Sockets it has or is handed, and its log.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_accept4,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_ioctl,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_close,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
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
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
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

/// System calls without which the keeper cannot work: it hands files over,
/// says what happens and ends.
const KEEPERS: &[i64] = &[
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_write,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_accept4,
    libc::SYS_getsockopt,
    libc::SYS_fcntl,
    libc::SYS_close,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Locks down every thread of this worker, for good.
pub(crate) fn lock_down() -> Result<(), LockdownError> {
    // Several filters; of their verdicts the strictest counts.
    let arch = architecture()?;
    apply([threads_only(arch)?, refused(arch)?, allow_list(ALLOWED.iter().chain(REFUSED), arch)?])
}

/// Locks down the keeper, for good.
pub(crate) fn lock_down_keeper() -> Result<(), LockdownError> {
    let arch = architecture()?;
    let calls = KEEPERS.iter().chain(REFUSED).map(|number| (*number, Vec::new())).collect();
    let (kill, allow) = (SeccompAction::KillProcess, SeccompAction::Allow);
    apply([refused(arch)?, SeccompFilter::new(calls, kill, allow, arch)?])
}

fn apply(filters: impl IntoIterator<Item = SeccompFilter>) -> Result<(), LockdownError> {
    for filter in filters {
        let program: BpfProgram = filter.try_into()?;
        seccompiler::apply_filter_all_threads(&program)?;
    }
    Ok(())
}

fn architecture() -> Result<TargetArch, LockdownError> {
    std::env::consts::ARCH.try_into().map_err(|_| LockdownError::Architecture)
}

/// Threads are made by `clone`, whose flags a filter can see; libc falls back
/// to it when `clone3` does not exist.
fn threads_only(arch: TargetArch) -> Result<SeccompFilter, seccompiler::BackendError> {
    let not_there = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    SeccompFilter::new(rules, SeccompAction::Allow, not_there, arch)
}

/// What libc tries of its own accord and can do without: it looks how many
/// CPUs there are when a thread first allocates, for one.
const REFUSED: &[i64] =
    &[libc::SYS_openat, libc::SYS_readlinkat, libc::SYS_prlimit64, libc::SYS_sysinfo];

fn refused(arch: TargetArch) -> Result<SeccompFilter, seccompiler::BackendError> {
    let rules = REFUSED.iter().map(|number| (*number, Vec::new())).collect();
    let denied = SeccompAction::Errno(libc::EACCES.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, denied, arch)
}

/// These, and what threads need; whatever else is asked for ends the process.
fn allow_list<'a>(
    calls: impl Iterator<Item = &'a i64>,
    arch: TargetArch,
) -> Result<SeccompFilter, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        calls.map(|number| (*number, Vec::new())).collect();
    let argument = |index, bits: u64| {
        let operator = SeccompCmpOp::MaskedEq(bits);
        SeccompCondition::new(index, SeccompCmpArgLen::Qword, operator, bits)
    };
    let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![argument(0, thread)?])?]);
    // Only to name threads and their memory.
    let names = [libc::PR_SET_NAME, libc::PR_SET_VMA].map(|option| {
        let equal = SeccompCmpOp::Eq;
        let option = u64::from(option.unsigned_abs());
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, equal, option)
            .and_then(|condition| SeccompRule::new(vec![condition]))
    });
    // Only a thread's own, as a relocation does.
    let own = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 0)?;
    rules.insert(libc::SYS_setpriority, vec![SeccompRule::new(vec![own])?]);
    rules.insert(libc::SYS_prctl, names.into_iter().collect::<Result<_, _>>()?);
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)
}
