//! The phases that only the live mode has.

use std::collections::BTreeSet;
use std::time::Duration;

use main_storage::MovePlan;

use super::{Phase, Relocation};
use crate::words::{Action, Copied, Device, Event, Outcome, Reason};

impl Relocation {
    pub(super) fn advance_live(
        &mut self,
        phase: Phase,
        now: Duration,
        event: Event,
        out: &mut Vec<Action>,
    ) -> Phase {
        match (phase, event) {
            (Phase::Sliding(plan), Event::Copied(copied)) => {
                self.deadline = Some(now.saturating_add(self.request.limits.quiesce));
                out.extend(self.devices().map(Action::Quiesce));
                self.settling(now, plan, copied, self.devices().collect(), out)
            }
            (Phase::Sliding(_), Event::StorageFailed(message)) => {
                self.end(Outcome::not_moved(Reason::Storage(message)), out)
            }
            (Phase::Sliding(_) | Phase::SlidingBack(_), Event::StorageLost(message)) => {
                self.end(Outcome::Lost(message), out)
            }
            (Phase::Settling(plan, copied, mut busy), Event::Idle(device)) => {
                busy.remove(&device);
                self.settling(now, plan, copied, busy, out)
            }
            (Phase::Closing(plan, copied), Event::VcpusStopped) => {
                self.begin_telling(now, plan, copied, out)
            }
            (Phase::SlidingBack(reason), Event::TakenBack) => {
                out.extend(self.devices().map(Action::ResumeIo));
                self.end(Outcome::not_moved(reason), out)
            }
            (phase, event) => self.advance_stopped(phase, now, event, out),
        }
    }

    pub(super) fn expire_live(
        &mut self,
        phase: Phase,
        now: Duration,
        out: &mut Vec<Action>,
    ) -> Phase {
        let limit = self.request.limits.quiesce;
        match phase {
            Phase::Settling(_, _, busy) => {
                let devices = self.names(&busy);
                self.slide_back(Reason::Busy { devices, limit }, out)
            }
            Phase::Closing(..) => {
                out.push(Action::ResumeVcpus);
                self.pause = now.saturating_sub(self.stopped);
                self.slide_back(Reason::VcpusRunning(limit), out)
            }
            phase => phase,
        }
    }

    fn settling(
        &mut self,
        now: Duration,
        plan: MovePlan,
        copied: Copied,
        busy: BTreeSet<Device>,
        out: &mut Vec<Action>,
    ) -> Phase {
        if !busy.is_empty() {
            return Phase::Settling(plan, copied, busy);
        }
        self.stopped = now;
        self.deadline = Some(now.saturating_add(self.request.limits.quiesce));
        out.push(Action::StopVcpus);
        Phase::Closing(plan, copied)
    }

    fn slide_back(&mut self, reason: Reason, out: &mut Vec<Action>) -> Phase {
        self.deadline = None;
        out.push(Action::TakeBack);
        Phase::SlidingBack(reason)
    }
}
