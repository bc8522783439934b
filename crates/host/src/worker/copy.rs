//! Captured machines: a worker's guest is captured, or begins as a copy of one
//! that was, waits parked, is woken for a user, and is made what it was again.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use machine::{Machine, MachineState};
use serde::{Deserialize, Serialize};
use storage_window::{Capture, StorageWindow};

use super::Worker;
use super::agent::Rest;
use super::hold::Held;
use crate::in_full;
use crate::link::{Captured, PutBack, Report};

/// Bytes that the state of a machine can have in its file.
const MAX_STATE: u64 = 16 << 20;

/// How long this process may take to notice that its guest is another.
const AGENT: Duration = Duration::from_secs(10);

/// What is captured of a machine beside its storage.
#[derive(Serialize, Deserialize)]
struct Saved {
    machine: MachineState,
    /// What the host's side of the agent's connection knew.
    agent: Rest,
}

/// What a copy goes back to.
pub(super) struct Origin {
    storage: Capture,
    saved: Saved,
}

impl Origin {
    /// What the files of a capture say, for a window of `size` bytes.
    pub(super) fn read(storage: OwnedFd, state: OwnedFd, size: u64) -> Result<Self, String> {
        let state = File::from(state);
        let length = state.metadata().map_err(|error| error.to_string())?.len();
        if length > MAX_STATE {
            return Err(format!("the state of a machine has {length} bytes; it is none"));
        }
        let saved = serde_json::from_reader(BufReader::new(state))
            .map_err(|error| format!("the state of the captured machine: {error}"))?;
        let storage = Capture::open(&File::from(storage), size).map_err(|e| in_full(&e))?;
        Ok(Self { storage, saved })
    }

    /// Makes a window of holes a copy of the captured storage.
    pub(super) fn fill(
        &self,
        storage: BorrowedFd<'_>,
        window: &StorageWindow,
    ) -> Result<(), String> {
        self.storage.fill(storage, window).map_err(|error| in_full(&error))
    }

    /// What the host's side of the agent's connection begins with.
    pub(super) fn agent(&self) -> Rest {
        self.saved.agent.clone()
    }

    /// Makes a machine on such a window go on from there, when it is woken.
    pub(super) fn restore(&self, machine: &Machine) -> Result<(), String> {
        machine.restore(&self.saved.machine).map_err(|error| in_full(&error))
    }
}

impl Worker {
    /// Captures the guest into two files, or three if it has a data disk, which are
    /// empty.
    pub(super) fn capture(&self, limit: Duration, fds: Vec<OwnedFd>) -> Result<Captured, String> {
        let _alone = Alone::wait(self, limit).ok_or("its move or resize does not end")?;
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or("the host passed too few files");
        let (storage, keys, target, state) = (next()?, next()?, next()?, next()?);
        let disks = self.machine.disks().iter().map(|disk| Ok((disk, File::from(next()?))));
        let disks: Vec<_> = disks.collect::<Result<_, &str>>()?;
        let started = Instant::now();
        let held = Held::hold(&self.machine, limit).map_err(|error| error.to_string())?;
        let agent = self.agent.at_rest().ok_or("the guest's agent has commands under way")?;
        let machine = self.machine.save().map_err(|error| in_full(&error))?;
        let bytes = self
            .window
            .capture(storage.as_fd(), keys.as_fd(), &File::from(target))
            .map_err(|error| in_full(&error))?;
        for (disk, target) in disks {
            let captured = disk.capture(&target);
            captured.map_err(|error| format!("the data disk cannot be captured: {error}"))?;
        }
        drop(held);
        let mut file = BufWriter::new(File::from(state));
        let written = serde_json::to_writer(&mut file, &Saved { machine, agent })
            .map_err(std::io::Error::from)
            .and_then(|()| file.flush())
            .and_then(|()| file.get_ref().sync_all());
        written.map_err(|error| format!("the captured state cannot be written: {error}"))?;
        Ok(Captured { bytes, micros: micros(started) })
    }

    /// Lets a parked copy go on.
    pub(super) fn wake(&self) -> Result<(), String> {
        let origin = self.origin.as_ref().ok_or("this machine is no copy of a captured one")?;
        self.agent.wake();
        self.machine.unpark(&origin.saved.machine).map_err(|error| in_full(&error))
    }

    /// Makes a copy what it was, and parks it. When it fails nobody may use the
    /// machine any more.
    pub(super) fn put_back(&self, limit: Duration) -> Result<PutBack, String> {
        // A move under way stops and resumes the machine by itself.
        let _alone = Alone::wait(self, limit).ok_or("its move or resize does not end")?;
        let origin = self.origin.as_ref().ok_or("this machine is no copy of a captured one")?;
        let started = Instant::now();
        let held = Held::hold(&self.machine, limit).map_err(|error| error.to_string())?;
        if let Some(files) = &self.files {
            files.disconnect();
        }
        self.agent.use_database(None);
        // Before the device begins the new session.
        self.agent.resume_from(origin.agent());
        let done = origin.storage.put_back(&self.window).map_err(|error| in_full(&error))?;
        for disk in self.machine.disks() {
            let put_back = disk.put_back();
            put_back.map_err(|error| format!("the data disk cannot be put back: {error}"))?;
        }
        let machine = self.machine.put_back(&origin.saved.machine);
        machine.map_err(|error| in_full(&error))?;
        drop(held);
        self.await_agent()?;
        Ok(PutBack { copied: done.copied, cleared: done.cleared, micros: micros(started) })
    }

    /// Waits until this side of the agent's connection is what it was, too.
    pub(super) fn await_agent(&self) -> Result<(), String> {
        if self.agent.await_resumed(Instant::now() + AGENT) {
            Ok(())
        } else {
            Err("the guest's agent cannot be reached any more".to_owned())
        }
    }

    /// Does what takes long on a thread of its own, and reports it.
    pub(super) fn report_later(
        self: &Arc<Self>,
        name: &str,
        work: impl FnOnce(&Self) -> Report + Send + 'static,
    ) {
        let worker = Arc::clone(self);
        let later = move || {
            let report = work(&worker);
            worker.host.say(&report);
        };
        if let Err(reason) = super::spawn(name, later) {
            self.host.say(&Report::Broken { reason });
        }
    }
}

/// As long as it lives, nobody else changes the machine or its range.
struct Alone<'a>(&'a Worker);

impl<'a> Alone<'a> {
    fn wait(worker: &'a Worker, limit: Duration) -> Option<Self> {
        let changing = worker.changing();
        let waited = worker.settled.wait_timeout_while(changing, limit, |changing| *changing);
        let (mut changing, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let free = !std::mem::replace(&mut *changing, true);
        drop(changing);
        free.then(|| Self(worker))
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.settle();
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
