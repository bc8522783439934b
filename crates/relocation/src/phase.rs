//! The phases of a relocation.
//!
//! ```text
//!                guest runs                  :              guest is stopped              : guest runs
//!                                            :                                            :
//! Reserving ──► Preparing ──► Stopping ──► Quiescing ──► Checking ──► Copying ──► Telling ──► Finishing ──► Ended
//!     │             │            │             │             │           │           │                     moved
//!     │refused      │failed      │too late     │too late:    │refused    │failed     │refused, too late
//!     │             │            │             │names       │           │           ▼
//!     │             │            │             │             │           │       TakingBack ──lost──► Ended
//!     │             │            │             │             │           │           ▼                lost
//!     │             │            │             │             │           │       Restoring (who cannot be told
//!     ▼             ▼            ▼             ▼             ▼           ▼           ▼    is out of service)
//!     └─────────────┴────────────┴── ResumeIo, ResumeVcpus ──┴───────────┴───────────┴─────► Ended
//!                                                                                   resumed where it was
//! ```
//!
//! That is the stop mode. In the live mode the guest runs on while its storage
//! slides; it is stopped last, and only for the new address limits:
//!
//! ```text
//!                   guest runs                            :  guest is stopped       : guest runs
//! Reserving ──► Preparing ──► Sliding ──► Settling ──► Closing ──► Telling ──► Finishing ──► Ended
//!     │             │            │failed      │too late:   │too late    │refused, too late   moved
//!     │             │            │            │names       │            ▼
//!     │             │            │            ▼            ▼        TakingBack, Restoring
//!     │             │            │          SlidingBack ◄──┘            │
//!     └─────────────┴────────────┴──────────────┴───────────────────────┴──────────► Ended
//!                                                                       resumed where it was
//! ```
//!
//! What holds whatever order events come in (the tests hold it against a world
//! of devices that are slow, refuse, or answer late):
//! - vCPUs do not run between `StopVcpus` and `ResumeVcpus`, each said once.
//! - In the stop mode, nothing is copied before every I/O processor is idle.
//! - Nothing is resumed before every I/O processor acknowledged the range in
//!   force, or was taken out of service. An acknowledgement names its range, so
//!   a late one of the new range is not taken for one of the old.
//! - There is one report, and it is the last action.

use std::collections::BTreeSet;
use std::time::Duration;

use main_storage::{MovePlan, StorageRange};

mod live;

use crate::words::{Action, Copied, Device, Event, Mode, Outcome, Reason, Report, Request};

/// One relocation, from request to report. Its one owner steps it.
#[derive(Debug)]
pub struct Relocation {
    request: Request,
    phase: Phase,
    deadline: Option<Duration>,
    // When the vCPUs were told to stop.
    stopped: Duration,
    pause: Duration,
}

#[derive(Debug)]
enum Phase {
    Reserving,
    Preparing(MovePlan),
    Stopping(MovePlan),
    Quiescing(MovePlan, BTreeSet<Device>),
    Checking(MovePlan),
    Copying(MovePlan),
    Sliding(MovePlan),
    /// Devices that still have a request in hand; the guest runs.
    Settling(MovePlan, Copied, BTreeSet<Device>),
    /// The vCPUs are being stopped.
    Closing(MovePlan, Copied),
    /// The guest runs, its I/O processors wait.
    SlidingBack(Reason),
    /// Devices that have not acknowledged the new range yet.
    Telling(MovePlan, Copied, BTreeSet<Device>),
    TakingBack(Reason),
    /// Devices that have not acknowledged the old range again yet, and those
    /// that refused to.
    Restoring(Reason, BTreeSet<Device>, BTreeSet<Device>),
    Finishing(MovePlan, Copied),
    Ended,
}

impl Relocation {
    /// Begins; the actions are the first to carry out.
    #[must_use]
    pub fn new(request: Request) -> (Self, Vec<Action>) {
        let first = vec![Action::Reserve { origin: request.origin }];
        let zero = Duration::ZERO;
        let (phase, deadline) = (Phase::Reserving, None);
        (Self { request, phase, deadline, stopped: zero, pause: zero }, first)
    }

    /// When the next [`Event::Tick`] is due at the latest, if at all.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Whether the report was made.
    #[must_use]
    pub fn ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Names of the I/O processors that are waited for at present.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<String> {
        match &self.phase {
            Phase::Quiescing(_, devices)
            | Phase::Settling(_, _, devices)
            | Phase::Telling(_, _, devices)
            | Phase::Restoring(_, devices, _) => self.names(devices),
            _ => Vec::new(),
        }
    }

    /// Takes in what happened at `now` and says what to do. An event that does
    /// not belong to the present phase changes nothing: it is late.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let phase = std::mem::replace(&mut self.phase, Phase::Ended);
        let expired = self.deadline.is_some_and(|deadline| now >= deadline);
        let mut actions = Vec::new();
        self.phase = self.advance(phase, now, event, &mut actions);
        // An event that came at the deadline still counts; then it is over.
        if expired && self.deadline.is_some_and(|deadline| now >= deadline) {
            let phase = std::mem::replace(&mut self.phase, Phase::Ended);
            self.phase = self.expire(phase, now, &mut actions);
        }
        actions
    }

    fn advance(
        &mut self,
        phase: Phase,
        now: Duration,
        event: Event,
        out: &mut Vec<Action>,
    ) -> Phase {
        match (phase, event) {
            (Phase::Reserving, Event::Reserved(plan)) => {
                out.push(Action::Prepare(plan));
                Phase::Preparing(plan)
            }
            (Phase::Reserving, Event::RangeRefused(refused)) => {
                self.end(Outcome::not_moved(Reason::Range(refused)), out)
            }
            (Phase::Preparing(plan), Event::Prepared) if self.request.mode == Mode::Live => {
                out.push(Action::Slide);
                Phase::Sliding(plan)
            }
            (Phase::Preparing(plan), Event::Prepared) => {
                self.stopped = now;
                self.deadline = Some(now.saturating_add(self.request.limits.quiesce));
                out.push(Action::StopVcpus);
                Phase::Stopping(plan)
            }
            (Phase::Preparing(_), Event::StorageFailed(message)) => {
                self.end(Outcome::not_moved(Reason::Storage(message)), out)
            }
            (Phase::Stopping(plan), Event::VcpusStopped) => {
                out.extend(self.devices().map(Action::Quiesce));
                self.quiescing(plan, self.devices().collect(), out)
            }
            (Phase::Quiescing(plan, mut busy), Event::Idle(device)) => {
                busy.remove(&device);
                self.quiescing(plan, busy, out)
            }
            (Phase::Checking(plan), Event::RangeGranted) => {
                out.push(Action::Copy);
                Phase::Copying(plan)
            }
            (Phase::Checking(_), Event::RangeRefused(refused)) => {
                out.push(Action::Unprepare);
                self.resume_where_it_was(now, Reason::Range(refused), out)
            }
            (phase, event) => self.advance_live(phase, now, event, out),
        }
    }

    /// The phases from the copy on.
    fn advance_stopped(
        &mut self,
        phase: Phase,
        now: Duration,
        event: Event,
        out: &mut Vec<Action>,
    ) -> Phase {
        match (phase, event) {
            (Phase::Copying(plan), Event::Copied(copied)) => {
                self.begin_telling(now, plan, copied, out)
            }
            (Phase::Copying(_), Event::StorageFailed(message)) => {
                self.resume_where_it_was(now, Reason::Storage(message), out)
            }
            (Phase::Copying(_) | Phase::TakingBack(_), Event::StorageLost(message)) => {
                self.pause = now.saturating_sub(self.stopped);
                self.end(Outcome::Lost(message), out)
            }
            (Phase::Telling(plan, copied, mut silent), Event::Acknowledged(device, range)) => {
                if range == plan.to() {
                    silent.remove(&device);
                }
                self.telling(now, plan, copied, silent, out)
            }
            (Phase::Telling(plan, _, _), Event::LimitsFailed(device, range, message))
                if range == plan.to() =>
            {
                let name = self.names(&BTreeSet::from([device])).concat();
                self.take_back(Reason::AddressLimits(vec![format!("{name}: {message}")]), out)
            }
            (Phase::TakingBack(reason), Event::TakenBack) => {
                self.deadline = Some(now.saturating_add(self.request.limits.acknowledge));
                self.tell(self.request.from, out);
                self.restoring(now, reason, self.devices().collect(), BTreeSet::new(), out)
            }
            (Phase::Restoring(reason, mut silent, refused), Event::Acknowledged(device, range)) => {
                if range == self.request.from {
                    silent.remove(&device);
                }
                self.restoring(now, reason, silent, refused, out)
            }
            (
                Phase::Restoring(reason, mut silent, mut refused),
                Event::LimitsFailed(device, range, _),
            ) => {
                if range == self.request.from && silent.remove(&device) {
                    refused.insert(device);
                }
                self.restoring(now, reason, silent, refused, out)
            }
            (Phase::Finishing(plan, copied), Event::Finished(result)) => {
                let not_cleared = result.err();
                self.end(Outcome::Moved { plan, copied, not_cleared }, out)
            }
            (phase, _) => phase,
        }
    }

    /// The limit of the present phase has run out.
    fn expire(&mut self, phase: Phase, now: Duration, out: &mut Vec<Action>) -> Phase {
        let limits = self.request.limits;
        match phase {
            Phase::Stopping(_) => {
                out.push(Action::Unprepare);
                self.resume_where_it_was(now, Reason::VcpusRunning(limits.quiesce), out)
            }
            Phase::Quiescing(_, busy) => {
                out.push(Action::Unprepare);
                let (devices, limit) = (self.names(&busy), limits.quiesce);
                self.resume_where_it_was(now, Reason::Busy { devices, limit }, out)
            }
            Phase::Telling(_, _, silent) => {
                let names = self.names(&silent).into_iter();
                let silent = names.map(|name| format!("{name}: no answer")).collect();
                self.take_back(Reason::AddressLimits(silent), out)
            }
            Phase::Restoring(reason, silent, mut refused) => {
                refused.extend(silent);
                self.restoring(now, reason, BTreeSet::new(), refused, out)
            }
            phase => self.expire_live(phase, now, out),
        }
    }

    fn quiescing(
        &mut self,
        plan: MovePlan,
        busy: BTreeSet<Device>,
        out: &mut Vec<Action>,
    ) -> Phase {
        if !busy.is_empty() {
            return Phase::Quiescing(plan, busy);
        }
        self.deadline = None;
        out.push(Action::CheckRange(plan));
        Phase::Checking(plan)
    }

    fn begin_telling(
        &mut self,
        now: Duration,
        plan: MovePlan,
        copied: Copied,
        out: &mut Vec<Action>,
    ) -> Phase {
        self.deadline = Some(now.saturating_add(self.request.limits.acknowledge));
        self.tell(plan.to(), out);
        self.telling(now, plan, copied, self.devices().collect(), out)
    }

    fn telling(
        &mut self,
        now: Duration,
        plan: MovePlan,
        copied: Copied,
        silent: BTreeSet<Device>,
        out: &mut Vec<Action>,
    ) -> Phase {
        if !silent.is_empty() {
            return Phase::Telling(plan, copied, silent);
        }
        self.resume(now, &BTreeSet::new(), out);
        out.push(Action::Finish);
        Phase::Finishing(plan, copied)
    }

    fn take_back(&mut self, reason: Reason, out: &mut Vec<Action>) -> Phase {
        self.deadline = None;
        out.push(Action::TakeBack);
        Phase::TakingBack(reason)
    }

    fn restoring(
        &mut self,
        now: Duration,
        reason: Reason,
        silent: BTreeSet<Device>,
        refused: BTreeSet<Device>,
        out: &mut Vec<Action>,
    ) -> Phase {
        if !silent.is_empty() {
            return Phase::Restoring(reason, silent, refused);
        }
        out.extend(refused.iter().copied().map(Action::TakeOutOfService));
        self.resume(now, &refused, out);
        let out_of_service = self.names(&refused);
        self.end(Outcome::ResumedWhereItWas { reason, out_of_service }, out)
    }

    /// From a phase in which every device still has its old range.
    fn resume_where_it_was(
        &mut self,
        now: Duration,
        reason: Reason,
        out: &mut Vec<Action>,
    ) -> Phase {
        self.resume(now, &BTreeSet::new(), out);
        self.end(Outcome::not_moved(reason), out)
    }

    /// I/O processors first: a guest that runs may need them at once.
    fn resume(&mut self, now: Duration, without: &BTreeSet<Device>, out: &mut Vec<Action>) {
        self.deadline = None;
        let devices = self.devices().filter(|device| !without.contains(device));
        out.extend(devices.map(Action::ResumeIo));
        out.push(Action::ResumeVcpus);
        self.pause = now.saturating_sub(self.stopped);
    }

    fn end(&mut self, outcome: Outcome, out: &mut Vec<Action>) -> Phase {
        self.deadline = None;
        out.push(Action::Report(Report { outcome, pause: self.pause }));
        Phase::Ended
    }

    fn tell(&self, range: StorageRange, out: &mut Vec<Action>) {
        out.extend(self.devices().map(|device| Action::SetAddressLimits(device, range)));
    }

    fn devices(&self) -> impl Iterator<Item = Device> + use<> {
        (0..self.request.devices.len()).map(Device)
    }

    fn names(&self, devices: &BTreeSet<Device>) -> Vec<String> {
        devices.iter().filter_map(|device| self.request.devices.get(device.0).cloned()).collect()
    }
}

impl Outcome {
    fn not_moved(reason: Reason) -> Self {
        Self::ResumedWhereItWas { reason, out_of_service: Vec::new() }
    }
}

#[cfg(test)]
mod tests;
