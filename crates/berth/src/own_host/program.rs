//! A program in a guest that reports a line of JSON now and then.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::{OwnHost, OwnHostError};

/// A program that reports nothing for so long has stopped.
const SILENCE: Duration = Duration::from_secs(60);

/// See the module; dropping it ends the program.
pub(crate) struct GuestProgram {
    guest: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl GuestProgram {
    /// Starts `arguments` in `guest`.
    pub(crate) fn start(
        host: &OwnHost,
        guest: &str,
        arguments: &[&str],
    ) -> Result<Self, OwnHostError> {
        let mut child = host
            .command(&["exec", guest, "--"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| run(guest, source))?;
        let stdin = child.stdin.take();
        let (sender, lines) = sync_channel(64);
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Self { guest: guest.into(), child, stdin, lines })
    }

    /// The guest it runs in.
    pub(crate) fn guest(&self) -> &str {
        &self.guest
    }

    /// The next report, waited for.
    pub(crate) fn report<T: DeserializeOwned>(&mut self) -> Result<T, OwnHostError> {
        let line = self.lines.recv_timeout(SILENCE).map_err(|_| self.silent())?;
        self.parse(&line)
    }

    /// A report that is here already.
    pub(crate) fn waiting<T: DeserializeOwned>(&mut self) -> Result<Option<T>, OwnHostError> {
        match self.lines.try_recv() {
            Ok(line) => self.parse(&line).map(Some),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => Ok(None),
        }
    }

    /// Asks for a report with an empty line.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self) -> Result<T, OwnHostError> {
        if let Some(stdin) = &mut self.stdin {
            let asked = stdin.write_all(b"\n").and_then(|()| stdin.flush());
            asked.map_err(|source| run(&self.guest, source))?;
        }
        self.report()
    }

    /// Ends the program by the end of its input; its last report.
    pub(crate) fn end<T: DeserializeOwned>(mut self) -> Result<T, OwnHostError> {
        drop(self.stdin.take());
        let deadline = Instant::now() + SILENCE;
        let mut last = None;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => last = Some(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => return Err(self.silent()),
            }
        }
        match self.child.wait() {
            Ok(status) if status.success() => {
                let last = last.ok_or_else(|| self.silent())?;
                self.parse(&last)
            }
            Ok(status) => {
                let command = format!("the program in {}", self.guest);
                Err(OwnHostError::Failed { command, status })
            }
            Err(source) => Err(run(&self.guest, source)),
        }
    }

    fn parse<T: DeserializeOwned>(&self, line: &str) -> Result<T, OwnHostError> {
        serde_json::from_str(line).map_err(|source| OwnHostError::Report {
            guest: self.guest.clone(),
            line: line.to_owned(),
            source,
        })
    }

    fn silent(&self) -> OwnHostError {
        OwnHostError::Silent { guest: self.guest.clone(), seconds: SILENCE.as_secs() }
    }
}

impl Drop for GuestProgram {
    fn drop(&mut self) {
        // Ended already unless something else failed; then nobody needs it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(guest: &str, source: io::Error) -> OwnHostError {
    OwnHostError::Run { command: format!("berth exec {guest}"), source }
}
