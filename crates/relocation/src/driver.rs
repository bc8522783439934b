//! Runs a relocation to its end.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{Action, Event, Relocation, Report, Request};

/// The worker, as a relocation sees it.
///
/// The caller guarantees nothing but the order of actions, which is the
/// relocation's promise: see [`Relocation`].
pub trait Driver {
    /// Time since any moment that stays the same.
    fn now(&self) -> Duration;

    /// Carries out one action, or begins to. What has to be answered is
    /// answered later, by [`Driver::next_event`]. [`Action::Report`] does not
    /// come here: [`drive`] returns it.
    fn perform(&mut self, action: Action);

    /// Waits for the next event until `deadline` (in terms of
    /// [`Driver::now`]; `None`: as long as it takes). [`Event::Tick`] when the
    /// deadline came first.
    fn next_event(&mut self, deadline: Option<Duration>) -> Event;
}

/// Carries out `request` and returns how it ended.
pub fn drive(request: Request, driver: &mut impl Driver) -> Report {
    let (mut relocation, first) = Relocation::new(request);
    let mut actions = VecDeque::from(first);
    loop {
        while let Some(action) = actions.pop_front() {
            if let Action::Report(report) = action {
                return report;
            }
            driver.perform(action);
        }
        let event = driver.next_event(relocation.deadline());
        actions.extend(relocation.step(driver.now(), event));
    }
}
