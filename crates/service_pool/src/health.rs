//! Whether building machines makes sense at present.

/// Counts what goes wrong with machines nobody has used. Two things stop the
/// refill: builds that fail one after the other, and machines that are built and
/// die before anybody had them, which would be rebuilt for ever.
#[derive(Debug)]
pub(crate) struct Health {
    limit: u16,
    failed_builds: u16,
    unused_deaths: u16,
    alarm: Option<String>,
}

impl Health {
    /// Healthy; stops after `limit` failures.
    pub(crate) fn new(limit: u16) -> Self {
        Self { limit, failed_builds: 0, unused_deaths: 0, alarm: None }
    }

    /// Whether nothing is to be built.
    pub(crate) fn stopped(&self) -> bool {
        self.alarm.is_some()
    }

    /// Why nothing is built.
    pub(crate) fn alarm(&self) -> Option<&str> {
        self.alarm.as_deref()
    }

    /// A build failed; the number of failures if that is too many now.
    pub(crate) fn build_failed(&mut self, why: &str) -> Option<u16> {
        self.failed_builds = self.failed_builds.saturating_add(1);
        self.stop(self.failed_builds, why)
    }

    /// A machine died that nobody had used.
    pub(crate) fn died_unused(&mut self, why: &str) -> Option<u16> {
        self.unused_deaths = self.unused_deaths.saturating_add(1);
        self.stop(self.unused_deaths, why)
    }

    /// A machine was built; true if that ends the alarm.
    pub(crate) fn built(&mut self) -> bool {
        self.failed_builds = 0;
        self.recover()
    }

    /// A machine serves a user; true if that ends the alarm.
    pub(crate) fn served(&mut self) -> bool {
        self.unused_deaths = 0;
        self.recover()
    }

    /// The operator wants builds; true if that ends an alarm.
    pub(crate) fn resume(&mut self) -> bool {
        self.failed_builds = 0;
        self.unused_deaths = 0;
        self.recover()
    }

    fn stop(&mut self, failures: u16, why: &str) -> Option<u16> {
        if failures < self.limit || self.stopped() {
            return None;
        }
        self.alarm = Some(why.to_owned());
        Some(failures)
    }

    fn recover(&mut self) -> bool {
        let well = self.failed_builds < self.limit && self.unused_deaths < self.limit;
        well && self.alarm.take().is_some()
    }
}
