//! How many machines a pool has: growth, refill, and giving up.

use std::time::Duration;

use crate::members::Doing;
use crate::pool::Pool;
use crate::status::MemberState;
use crate::words::Action;

impl Pool {
    /// Gives up free machines over the maximum, which the operator lowered.
    pub(crate) fn shrink_to_bounds(&mut self, now: Duration, out: &mut Vec<Action>) {
        while self.members.alive() > usize::from(self.config.max) {
            let Some((number, _)) = self.members.longest_free() else { return };
            self.destroy(number, now, out);
        }
    }

    /// Gives up machines over the minimum that have been free for long.
    pub(crate) fn shrink_idle(&mut self, now: Duration, out: &mut Vec<Action>) {
        while let Some((number, until)) = self.first_idle() {
            if until > now {
                return;
            }
            self.destroy(number, now, out);
        }
    }

    /// The machine that is given up next if nobody wants it, and when.
    fn first_idle(&self) -> Option<(u16, Duration)> {
        let (number, since) = self.members.longest_free()?;
        let spare = self.members.alive() > usize::from(self.config.min);
        spare.then(|| (number, since.saturating_add(self.config.idle)))
    }

    /// When something happens by time alone.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let idle = self.first_idle().map(|(_, until)| until);
        self.turns.first_end().into_iter().chain(idle).min()
    }

    /// Begins the builds that are wanted and possible, and destroys what is
    /// broken and not wanted.
    pub(crate) fn refill(&mut self, now: Duration, out: &mut Vec<Action>) {
        let building = self.members.count(MemberState::Building);
        let at_once = usize::from(self.config.builds_at_once).saturating_sub(building);
        for _ in 0..self.builds_wanted().min(at_once) {
            if let Some(number) = self.members.broken() {
                self.members.set(number, now, Doing::Building);
                out.push(Action::Rebuild(self.members.id(number)));
            } else if self.members.occupied() < usize::from(self.config.max)
                && let Some(number) = self.members.vacant()
            {
                self.members.set(number, now, Doing::Building);
                out.push(Action::Build(self.members.id(number)));
            }
        }
        let missing = usize::from(self.config.min).saturating_sub(self.members.alive());
        while self.members.count(MemberState::Broken) > missing {
            let Some(number) = self.members.broken() else { return };
            self.destroy(number, now, out);
        }
    }

    /// How many machines are to be built. A claim has first call on a machine
    /// that is being restored or built; what claims there are beyond those is
    /// growth. Filling up to the minimum waits until no claim waits for a
    /// restore.
    fn builds_wanted(&self) -> usize {
        let room = usize::from(self.config.max).saturating_sub(self.members.alive());
        if room == 0 || self.health.stopped() {
            return 0;
        }
        let cleaning = self.members.count(MemberState::Cleaning);
        let coming = cleaning + self.members.count(MemberState::Building);
        let demand = self.turns.demand(coming + room);
        let growth = demand.saturating_sub(coming).min(room);
        if demand > 0 && cleaning > 0 {
            return growth;
        }
        growth.max(usize::from(self.config.min).saturating_sub(self.members.alive()))
    }
}
