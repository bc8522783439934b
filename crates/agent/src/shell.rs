//! The shell on the guest's console, started again whenever it ends.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::ENVIRONMENT;
use crate::log;
use crate::sys::{self, O_NOCTTY};

const CONSOLE: &str = "/dev/hvc0";

/// Between two attempts, so that a shell that ends at once costs little.
const PAUSE: Duration = Duration::from_millis(500);

/// A console that has not appeared after so many attempts is not there.
const ATTEMPTS: u32 = 20;

pub(crate) struct Shell {
    pid: Option<i32>,
    next: Option<Instant>,
    attempts: u32,
}

impl Shell {
    pub(crate) fn new() -> Self {
        Self { pid: None, next: Some(Instant::now()), attempts: 0 }
    }

    /// When to call [`look`](Self::look) next.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.next
    }

    /// Starts the shell if it is time.
    pub(crate) fn look(&mut self) {
        if self.next.is_none_or(|next| Instant::now() < next) {
            return;
        }
        self.next = None;
        match start() {
            Ok(pid) => (self.pid, self.attempts) = (Some(pid), 0),
            Err(error) if self.attempts < ATTEMPTS => {
                self.attempts += 1;
                self.next = Some(Instant::now() + PAUSE);
                if self.attempts == ATTEMPTS {
                    log::info(&format!("no shell on {CONSOLE}: {error}"));
                    self.next = None;
                }
            }
            Err(_) => {}
        }
    }

    /// Takes note if it was the shell that ended.
    pub(crate) fn ended(&mut self, pid: i32) -> bool {
        if self.pid != Some(pid) {
            return false;
        }
        self.pid = None;
        self.next = Some(Instant::now() + PAUSE);
        true
    }
}

fn start() -> io::Result<i32> {
    let console = OpenOptions::new().read(true).write(true).custom_flags(O_NOCTTY).open(CONSOLE)?;
    let mut command = if Path::new("/bin/sh").exists() {
        let mut command = Command::new("/bin/sh");
        // The dash makes it a login shell, which reads /etc/profile.
        command.arg0("-sh");
        command
    } else {
        let mut command = Command::new("/bin/busybox");
        command.arg("sh");
        command
    };
    let home = if Path::new("/root").is_dir() { "/root" } else { "/" };
    command.env_clear().envs(ENVIRONMENT).current_dir(home);
    command.stdin(Stdio::from(console.try_clone()?));
    command.stdout(Stdio::from(console.try_clone()?));
    command.stderr(Stdio::from(console));
    sys::own_session(&mut command, true);
    Ok(command.spawn()?.id() as i32)
}
