//! One worker process, from its start to its end.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use main_storage::PartitionName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::link::{self, Ended, Introduction, LAST_WORD, Link, Order, Report, WorkerConfig};
use crate::state_dir::StateDir;

/// How long a worker may take to end after its last word.
const LAST: Duration = Duration::from_secs(5);

/// A worker that was started.
pub(super) struct Process {
    pub(super) name: PartitionName,
    pub(super) link: Link,
    pid: u32,
    ready: AtomicBool,
    /// Begun as a copy of a captured machine.
    copy: bool,
    body: Body,
    /// Who waits for reports of a relocation.
    mover: Mutex<Option<Sender<Report>>>,
    /// Who waits for what comes of capturing it.
    builder: Mutex<Option<Sender<Report>>>,
}

/// What the kernel knows a worker by.
enum Body {
    /// This host started it.
    Child(Mutex<Child>),
    /// An earlier host did: somebody else's child, whose end can be seen but
    /// not how it ended.
    Adopted(OwnedFd),
}

impl Process {
    /// Takes over the worker of an earlier host, which answers within `limit`;
    /// `None` if there is none.
    pub(super) fn adopt(
        dir: &StateDir,
        name: &PartitionName,
        limit: Duration,
    ) -> io::Result<Option<(Self, Introduction)>> {
        let link = match Link::connect(&dir.worker_socket(name)) {
            Ok(link) => link,
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => return Ok(None),
                _ => return Err(error),
            },
        };
        let pid = link.peer_pid().ok_or_else(|| io::Error::other("it has no process id"))?;
        let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
        let opened = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
        // It may be dying: then it does not answer either.
        let gone = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        };
        match link.send(&Order::Hello, &[]) {
            Err(error) if gone(&error) => return Ok(None),
            sent => sent?,
        }
        let Some(introduction) = hear_out(&link, name, limit)? else { return Ok(None) };
        // It answered after its process was looked up, so that is the one.
        let process = Self {
            name: name.clone(),
            link,
            pid: pid.as_raw_nonzero().get().unsigned_abs(),
            ready: AtomicBool::new(introduction.ready),
            copy: false,
            body: Body::Adopted(opened?),
            mover: Mutex::default(),
            builder: Mutex::default(),
        };
        Ok(Some((process, introduction)))
    }

    /// Starts a worker and orders it to make its machine. `storage` and `keys`
    /// are the files of main storage.
    pub(super) fn start(
        dir: &StateDir,
        name: &PartitionName,
        config: WorkerConfig,
        files: &[BorrowedFd<'_>],
    ) -> io::Result<Self> {
        let (socket, copy) = (dir.worker_socket(name), config.copy);
        let listener = link::listen(&socket)?;
        let log = File::create(dir.worker_log(name))?;
        // The same program, even if its file was replaced meanwhile.
        let child = Command::new("/proc/self/exe")
            .arg0(format!("berth: {name}"))
            .arg("worker")
            .env_clear()
            .stdin(Stdio::from(listener))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let pid = child.id();
        let mut guard = KillOnDrop(Some(child));
        let link = Link::connect(&socket)?;
        link.send(&Order::Start(Box::new(config)), files)?;
        let child = guard.0.take().ok_or_else(|| io::Error::other("the worker is gone"))?;
        Ok(Self {
            name: name.clone(),
            link,
            pid,
            ready: AtomicBool::new(false),
            copy,
            body: Body::Child(Mutex::new(child)),
            mover: Mutex::default(),
            builder: Mutex::default(),
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the guest serves commands.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether it began as a copy of a captured machine.
    pub(super) fn is_copy(&self) -> bool {
        self.copy
    }

    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    pub(super) fn kill(&self) {
        // It fails only for a process that has ended.
        let _ = match &self.body {
            Body::Child(child) => lock(child).kill(),
            Body::Adopted(process) => {
                let kill = rustix::process::Signal::KILL;
                rustix::process::pidfd_send_signal(process, kill).map_err(io::Error::from)
            }
        };
    }

    pub(super) fn give(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.link.send(order, fds)
    }

    /// Sends reports of a relocation to `mover` from now on.
    pub(super) fn set_mover(&self, mover: Option<Sender<Report>>) {
        *self.mover.lock().unwrap_or_else(PoisonError::into_inner) = mover;
    }

    pub(super) fn tell_mover(&self, report: Report) {
        let mover = self.mover.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody waits for what came after a relocation's end.
        let _ = mover.as_ref().map(|mover| mover.send(report));
    }

    /// Sends reports of services and captures to `builder` from now on.
    pub(super) fn set_builder(&self, builder: Option<Sender<Report>>) {
        *self.builder.lock().unwrap_or_else(PoisonError::into_inner) = builder;
    }

    /// Whether anybody wants them.
    pub(super) fn has_builder(&self) -> bool {
        self.builder.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn tell_builder(&self, report: Report) {
        let builder = self.builder.lock().unwrap_or_else(PoisonError::into_inner);
        // A service that ends later is missed when somebody converses with it.
        let _ = builder.as_ref().map(|builder| builder.send(report));
    }

    /// Waits for the end of a process that said its last word, or makes it
    /// end. How it ended is known of this host's own children only.
    pub(super) fn reap(&self) -> io::Result<Option<ExitStatus>> {
        match &self.body {
            Body::Child(child) => self.reap_child(child).map(Some),
            Body::Adopted(process) => {
                if !ended(process.as_fd(), LAST)? {
                    self.kill();
                    ended(process.as_fd(), LAST)?;
                }
                Ok(None)
            }
        }
    }

    fn reap_child(&self, child: &Mutex<Child>) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + LAST;
        loop {
            if let Some(status) = lock(child).try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                self.kill();
                return lock(child).wait();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a process ends within `limit`.
fn ended(process: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(limit).map_err(io::Error::other)?;
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(process, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

/// Waits for a worker's introduction. A worker whose range is being changed
/// carries that out by itself, and is asked again when it has: until then
/// nobody is told what is free.
fn hear_out(
    link: &Link,
    name: &PartitionName,
    limit: Duration,
) -> io::Result<Option<Introduction>> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match link.receive_within::<Report>(left)? {
            None | Some((Report::Ended(_), _)) => return Ok(None),
            Some((Report::Hello(introduction), _)) if !introduction.changing => {
                return Ok(Some(introduction));
            }
            Some((Report::Hello(_), _)) => {
                tracing::info!(partition = %name, "waiting for the end of its move or resize");
            }
            Some((
                Report::Moved(_) | Report::Resized(_) | Report::Parked(_) | Report::Broken { .. },
                _,
            )) => link.send(&Order::Hello, &[])?,
            // What matters of it is in its introduction.
            Some(_) => {}
        }
    }
}

/// A child that nobody has taken over yet.
struct KillOnDrop(Option<Child>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Why a worker ended that did not say so itself.
///
/// Its log is asked first: a worker that says its last word while it has no
/// host says it there.
pub(super) fn obituary(status: &io::Result<Option<ExitStatus>>, log: &Path) -> Ended {
    if let Some(ended) = last_word(log) {
        return ended;
    }
    let words = last_line(log).map_or(String::new(), |line| format!("; it said: {line}"));
    let reason = match status {
        Err(error) => format!("its worker process is lost: {error}"),
        Ok(None) => {
            "its worker process ended; an earlier host started it, so how is not known".to_owned()
        }
        Ok(Some(status)) => match (status.signal(), status.code()) {
            (Some(libc::SIGKILL), _) => {
                "its worker process was killed (SIGKILL), by somebody or because the host ran \
                 out of memory"
                    .to_owned()
            }
            (Some(libc::SIGSYS), _) => {
                "its worker process made a system call that it may not make (SIGSYS)".to_owned()
            }
            (Some(libc::SIGBUS), _) => {
                "its worker process found no memory for the guest (SIGBUS); free memory on the host"
                    .to_owned()
            }
            (Some(signal), _) => format!("its worker process was ended by signal {signal}"),
            (None, code) => format!("its worker process ended with status {}", code.unwrap_or(-1)),
        },
    };
    Ended::Failed { reason: reason + &words }
}

/// How the machine ended, if its worker's log says so.
pub(super) fn last_word(log: &Path) -> Option<Ended> {
    serde_json::from_str(tail(log)?.lines().last()?.strip_prefix(LAST_WORD)?).ok()
}

fn tail(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(4096))).ok()?;
    let mut bytes = Vec::new();
    file.take(4096).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn last_line(log: &Path) -> Option<String> {
    let text = tail(log)?;
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).take(300).collect())
}

/// The two files of main storage, as [`Process::start`] and a move pass them.
pub(super) fn files(storage: &storage_window::MainStorage) -> [BorrowedFd<'_>; 2] {
    [storage.storage_fd(), storage.keys_fd()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workers_death_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        std::fs::write(&log, "first\nthread 'x' panicked\n\n").unwrap();
        let died = |raw| match obituary(&Ok(Some(ExitStatus::from_raw(raw))), &log) {
            Ended::Failed { reason } => reason,
            other => panic!("{other:?}"),
        };
        assert!(died(9).contains("SIGKILL") && died(9).contains("it said: thread 'x' panicked"));
        assert!(died(31).contains("SIGSYS"));
        assert!(died(1 << 8).contains("status 1"));
        std::fs::write(&log, "words\n\nended {\"how\":\"power_off\"}\n").unwrap();
        assert_eq!(obituary(&Ok(None), &log), Ended::PowerOff);
        std::fs::write(&log, "ended {\"how\":\"power_off\"}\nand on\n").unwrap();
        assert_eq!(last_word(&log), None);
    }
}
