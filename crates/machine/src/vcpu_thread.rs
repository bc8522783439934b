//! A vCPU's thread, seen from outside.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::channel;
use std::thread::{Builder, JoinHandle};

pub(crate) struct VcpuThread {
    handle: JoinHandle<()>,
    /// What the host's kernel says of the thread. Opened when it starts: later
    /// the process may not be allowed to. None if the host has no /proc.
    stat: Option<File>,
}

impl VcpuThread {
    pub(crate) fn start(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (opened, stat) = channel();
        let handle = Builder::new().name(name).spawn(move || {
            // Whoever started this thread waits for it.
            let _ = opened.send(File::open("/proc/thread-self/stat").ok());
            run();
        })?;
        Ok(Self { handle, stat: stat.recv().ok().flatten() })
    }

    /// The host's CPU on which the thread runs, or would if it were not kept
    /// from it; none if it sleeps.
    pub(crate) fn host_cpu(&self) -> Option<usize> {
        let mut buffer = [0; 1024];
        let length = self.stat.as_ref()?.read_at(&mut buffer, 0).ok()?;
        processor(&String::from_utf8_lossy(buffer.get(..length)?))
    }

    /// Waits for its end. A thread that panicked has said so on standard error.
    pub(crate) fn join(self) {
        let _ = self.handle.join();
    }
}

/// The processor (field 39 of proc(5)'s `stat`) of a thread whose state (field
/// 3) is running. Field 2 is a name that may hold anything, in parentheses.
fn processor(stat: &str) -> Option<usize> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    if fields.next()? != "R" {
        return None;
    }
    fields.nth(39 - 4)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn stat(name: &str, state: &str) -> String {
        let between = (4..39).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        format!("77 ({name}) {state} {between} 5 40 41")
    }

    #[test]
    fn a_running_thread_has_a_cpu() {
        assert_eq!(processor(&stat("vcpu0-a", "R")), Some(5));
        assert_eq!(processor(&stat("odd) R 1 name", "R")), Some(5));
    }

    #[test]
    fn a_sleeping_thread_or_nonsense_has_none() {
        assert_eq!(processor(&stat("vcpu0-a", "S")), None);
        assert_eq!(processor("77 (a) R 4 5"), None);
        assert_eq!(processor(""), None);
    }

    #[test]
    fn the_kernel_tells_a_threads_cpu_as_expected() {
        static END: AtomicBool = AtomicBool::new(false);
        let busy = VcpuThread::start("vcpu0-)".to_owned(), || {
            while !END.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        })
        .expect("a thread");
        assert!(busy.host_cpu().is_some());
        END.store(true, Ordering::Relaxed);
        busy.join();
    }
}
