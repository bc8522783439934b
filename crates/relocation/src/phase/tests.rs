//! The phase machine against a world that is slow, refuses and answers late.

use main_storage::BLOCK_SIZE as M;
use proptest::prelude::*;

use super::*;
use crate::{Driver, Limits, RangeRefused, drive};

const NAMES: [&str; 3] = ["console", "blk0", "agent"];

fn from() -> StorageRange {
    StorageRange::new(128 * M, 256 * M).unwrap()
}

fn plan() -> MovePlan {
    MovePlan::new(from(), 192 * M).unwrap()
}

fn request(devices: usize) -> Request {
    Request {
        from: from(),
        origin: plan().to().origin(),
        devices: NAMES[..devices].iter().map(ToString::to_string).collect(),
        limits: Limits::default(),
        mode: Mode::Stop,
    }
}

fn live(devices: usize) -> Request {
    Request { mode: Mode::Live, ..request(devices) }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn refused() -> RangeRefused {
    RangeRefused { message: "lpar3 is in the way".to_owned(), in_the_way: vec!["lpar3".to_owned()] }
}

#[test]
fn everything_in_order_moves_and_resumes_with_the_pause_measured() {
    let (mut relocation, first) = Relocation::new(request(1));
    assert_eq!(first, [Action::Reserve { origin: 192 * M }]);
    let disk = Device(0);
    let (to, copied) = (plan().to(), Copied { bytes: 7, nanos: 9 });
    let moved = Outcome::Moved { plan: plan(), copied, not_cleared: None };
    for (now, event, actions) in [
        (1, Event::Reserved(plan()), vec![Action::Prepare(plan())]),
        (2, Event::Prepared, vec![Action::StopVcpus]),
        (3, Event::VcpusStopped, vec![Action::Quiesce(disk)]),
        (4, Event::Idle(disk), vec![Action::CheckRange(plan())]),
        (5, Event::RangeGranted, vec![Action::Copy]),
        (6, Event::Copied(copied), vec![Action::SetAddressLimits(disk, to)]),
        (
            7,
            Event::Acknowledged(disk, to),
            vec![Action::ResumeIo(disk), Action::ResumeVcpus, Action::Finish],
        ),
        (
            9,
            Event::Finished(Ok(())),
            vec![Action::Report(Report { outcome: moved, pause: seconds(5) })],
        ),
    ] {
        assert_eq!(relocation.step(seconds(now), event.clone()), actions, "{event:?}");
    }
    assert!(relocation.ended());
}

#[test]
fn a_live_move_stops_the_guest_only_for_the_new_limits() {
    let (mut relocation, _) = Relocation::new(live(1));
    let disk = Device(0);
    let (to, copied) = (plan().to(), Copied { bytes: 7, nanos: 9 });
    let moved = Outcome::Moved { plan: plan(), copied, not_cleared: None };
    for (now, event, actions) in [
        (1, Event::Reserved(plan()), vec![Action::Prepare(plan())]),
        (2, Event::Prepared, vec![Action::Slide]),
        (30, Event::Copied(copied), vec![Action::Quiesce(disk)]),
        (31, Event::Idle(disk), vec![Action::StopVcpus]),
        (33, Event::VcpusStopped, vec![Action::SetAddressLimits(disk, to)]),
        (
            34,
            Event::Acknowledged(disk, to),
            vec![Action::ResumeIo(disk), Action::ResumeVcpus, Action::Finish],
        ),
        (
            36,
            Event::Finished(Ok(())),
            vec![Action::Report(Report { outcome: moved, pause: seconds(3) })],
        ),
    ] {
        assert_eq!(relocation.step(seconds(now), event.clone()), actions, "{event:?}");
    }
    assert!(relocation.ended());
}

#[test]
fn a_device_that_never_becomes_idle_never_stops_a_guest_that_moves_live() {
    let (mut relocation, _) = Relocation::new(live(2));
    for event in [Event::Reserved(plan()), Event::Prepared, Event::Copied(Copied::default())] {
        relocation.step(seconds(0), event);
    }
    relocation.step(seconds(1), Event::Idle(Device(0)));
    assert_eq!(relocation.waiting_for(), ["blk0"]);
    assert_eq!(relocation.step(seconds(10), Event::Tick), [Action::TakeBack]);
    let actions = relocation.step(seconds(11), Event::TakenBack);
    let [Action::ResumeIo(_), Action::ResumeIo(_), Action::Report(report)] = &actions[..] else {
        panic!("{actions:?}")
    };
    let Outcome::ResumedWhereItWas { reason, .. } = &report.outcome else { panic!("{report:?}") };
    assert_eq!(reason.busy_devices(), ["blk0"]);
    assert_eq!(report.pause, Duration::ZERO);
}

#[test]
fn devices_busy_for_ten_seconds_are_named_and_the_guest_resumes() {
    let (mut relocation, _) = Relocation::new(request(3));
    relocation.step(seconds(0), Event::Reserved(plan()));
    relocation.step(seconds(1), Event::Prepared);
    assert_eq!(relocation.deadline(), Some(seconds(11)));
    relocation.step(seconds(1), Event::VcpusStopped);
    relocation.step(seconds(2), Event::Idle(Device(1)));
    assert_eq!(relocation.waiting_for(), ["console", "agent"]);
    assert_eq!(relocation.step(seconds(10), Event::Tick), []);
    let actions = relocation.step(seconds(11), Event::Tick);
    let Some(Action::Report(report)) = actions.last() else { panic!("{actions:?}") };
    let Outcome::ResumedWhereItWas { reason, .. } = &report.outcome else { panic!("{report:?}") };
    assert_eq!(reason.busy_devices(), ["console", "agent"]);
    assert_eq!(
        reason.to_string(),
        "still busy after 10 s: console, agent; wait for their transfers to end, or allow more time"
    );
    assert!(actions.contains(&Action::ResumeVcpus) && actions.contains(&Action::Unprepare));
    assert_eq!(relocation.step(seconds(12), Event::Idle(Device(0))), []);
}

#[test]
fn a_late_acknowledgement_of_the_new_range_is_none_of_the_old() {
    let (mut relocation, _) = Relocation::new(request(2));
    for event in [
        Event::Reserved(plan()),
        Event::Prepared,
        Event::VcpusStopped,
        Event::Idle(Device(0)),
        Event::Idle(Device(1)),
        Event::RangeGranted,
        Event::Copied(Copied::default()),
        Event::Acknowledged(Device(0), plan().to()),
    ] {
        relocation.step(seconds(0), event);
    }
    assert_eq!(relocation.step(seconds(10), Event::Tick), [Action::TakeBack]);
    relocation.step(seconds(11), Event::TakenBack);
    relocation.step(seconds(11), Event::Acknowledged(Device(0), from()));
    assert_eq!(relocation.step(seconds(12), Event::Acknowledged(Device(1), plan().to())), []);
    let actions = relocation.step(seconds(13), Event::Acknowledged(Device(1), from()));
    assert!(actions.starts_with(&[Action::ResumeIo(Device(0)), Action::ResumeIo(Device(1))]));
}

#[test]
fn a_device_that_cannot_be_told_its_old_range_stays_out_of_service() {
    let (mut relocation, _) = Relocation::new(request(2));
    for event in [
        Event::Reserved(plan()),
        Event::Prepared,
        Event::VcpusStopped,
        Event::Idle(Device(0)),
        Event::Idle(Device(1)),
        Event::RangeGranted,
        Event::Copied(Copied::default()),
        Event::LimitsFailed(Device(1), plan().to(), "broken".to_owned()),
        Event::TakenBack,
        Event::LimitsFailed(Device(1), from(), "broken".to_owned()),
    ] {
        relocation.step(seconds(0), event);
    }
    let actions = relocation.step(seconds(1), Event::Acknowledged(Device(0), from()));
    let [
        Action::TakeOutOfService(Device(1)),
        Action::ResumeIo(Device(0)),
        Action::ResumeVcpus,
        Action::Report(report),
    ] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    let Outcome::ResumedWhereItWas { reason, out_of_service } = &report.outcome else {
        panic!("{report:?}")
    };
    assert_eq!(out_of_service, &["blk0"]);
    assert_eq!(reason.to_string(), "not every device took its new address limits: blk0: broken");
}

#[test]
fn lost_storage_never_resumes() {
    let (mut relocation, _) = Relocation::new(request(0));
    for event in
        [Event::Reserved(plan()), Event::Prepared, Event::VcpusStopped, Event::RangeGranted]
    {
        relocation.step(seconds(0), event);
    }
    let actions = relocation.step(seconds(1), Event::StorageLost("gone".to_owned()));
    let outcome = Outcome::Lost("gone".to_owned());
    assert_eq!(actions, [Action::Report(Report { outcome, pause: seconds(1) })]);
}

/// What a device does when it is told something.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Obeys,
    Refuses,
    /// Answers after so many seconds, even past every limit.
    Slow(u64),
}

#[derive(Debug, Clone)]
struct Script {
    live: bool,
    reserve: bool,
    prepare: bool,
    grant: bool,
    copy: bool,
    finish: bool,
    vcpus: Mood,
    /// Per device: to quiesce, to the new limits, to the old limits.
    devices: Vec<[Mood; 3]>,
    /// Which of the events that are due comes next.
    order: Vec<prop::sample::Index>,
    /// Events of no phase, said at any time.
    noise: Vec<(prop::sample::Index, u8, usize)>,
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![
        6 => Just(Mood::Obeys),
        1 => Just(Mood::Refuses),
        2 => (0u64..40).prop_map(Mood::Slow),
    ]
}

fn script() -> impl Strategy<Value = Script> {
    let often = || prop::bool::weighted(0.9);
    let device = [mood(), mood(), mood()];
    let index = any::<prop::sample::Index>;
    (
        any::<bool>(),
        (often(), often(), often(), often(), often()),
        mood(),
        prop::collection::vec(device, 0..=NAMES.len()),
        prop::collection::vec(index(), 1..40),
        prop::collection::vec((index(), 0u8..4, 0usize..5), 0..8),
    )
        .prop_map(
            |(live, (reserve, prepare, grant, copy, finish), vcpus, devices, order, noise)| {
                Script { live, reserve, prepare, grant, copy, finish, vcpus, devices, order, noise }
            },
        )
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct SeenDevice {
    idle: bool,
    told: StorageRange,
    in_service: bool,
}

/// The world: asserts at every action what may not happen.
struct World {
    script: Script,
    now: Duration,
    steps: usize,
    pending: Vec<(Duration, Event)>,
    vcpus_told_to_stop: usize,
    vcpus_resumed: usize,
    vcpus_stopped: bool,
    devices: Vec<SeenDevice>,
    window: StorageRange,
    prepared: bool,
    finished: bool,
}

impl World {
    fn new(script: Script) -> Self {
        let device = SeenDevice { idle: false, told: from(), in_service: true };
        Self {
            devices: vec![device; script.devices.len()],
            script,
            now: seconds(100),
            steps: 0,
            pending: Vec::new(),
            vcpus_told_to_stop: 0,
            vcpus_resumed: 0,
            vcpus_stopped: false,
            window: from(),
            prepared: false,
            finished: false,
        }
    }

    fn later(&mut self, delay: u64, event: Event) {
        // A device works off what it is told one by one.
        let same = |other: &Event| of(&event).is_some() && of(other) == of(&event);
        let before = self.pending.iter().filter(|(_, other)| same(other));
        let at = before.map(|(at, _)| *at).max().unwrap_or(self.now).max(self.now + seconds(delay));
        self.pending.push((at, event));
    }

    fn either(&mut self, good: bool, yes: Event, no: Event) {
        self.later(0, if good { yes } else { no });
    }

    fn quiet(&self) {
        assert!(self.vcpus_stopped && self.vcpus_resumed == 0, "vCPUs run");
        assert!(self.devices.iter().all(|device| device.idle), "a device is busy");
    }

    fn set_limits(&mut self, device: Device, range: StorageRange) {
        self.quiet();
        assert_eq!(range, self.window, "told a range that is not in force");
        let mood = self.script.devices[device.0][if range == from() { 2 } else { 1 }];
        match mood {
            Mood::Obeys => self.later(0, Event::Acknowledged(device, range)),
            Mood::Slow(delay) => self.later(delay, Event::Acknowledged(device, range)),
            Mood::Refuses => {
                self.later(0, Event::LimitsFailed(device, range, "no".to_owned()));
            }
        }
    }

    fn quiesce(&mut self, device: Device) {
        assert!(self.vcpus_stopped != self.script.live);
        match self.script.devices[device.0][0] {
            Mood::Obeys => self.later(0, Event::Idle(device)),
            Mood::Slow(delay) => self.later(delay, Event::Idle(device)),
            Mood::Refuses => {}
        }
    }

    /// What an event means in the world, at the moment it is delivered.
    fn happen(&mut self, event: &Event) {
        match event {
            Event::VcpusStopped if self.vcpus_resumed == 0 => self.vcpus_stopped = true,
            Event::Idle(device) if self.vcpus_resumed == 0 => self.devices[device.0].idle = true,
            Event::Acknowledged(device, range) => self.devices[device.0].told = *range,
            Event::Copied(_) => self.window = plan().to(),
            Event::TakenBack => self.window = from(),
            Event::Prepared => self.prepared = true,
            _ => {}
        }
    }

    fn is_first(&self, index: usize) -> bool {
        let device = of(&self.pending[index].1);
        device.is_none() || !self.pending[..index].iter().any(|(_, other)| of(other) == device)
    }

    fn noise(&mut self) -> Option<Event> {
        let position = self.script.noise.iter().position(|(at, ..)| at.index(30) == self.steps)?;
        let (_, kind, device) = self.script.noise.remove(position);
        Some(match kind {
            0 => Event::Tick,
            1 => Event::Acknowledged(Device(device), StorageRange::new(0, M).unwrap()),
            2 => Event::Idle(Device(device + NAMES.len())),
            _ => Event::LimitsFailed(Device(0), StorageRange::new(0, M).unwrap(), String::new()),
        })
    }
}

fn of(event: &Event) -> Option<Device> {
    match event {
        Event::Idle(device) | Event::Acknowledged(device, _) | Event::LimitsFailed(device, ..) => {
            Some(*device)
        }
        _ => None,
    }
}

impl Driver for World {
    fn now(&self) -> Duration {
        self.now
    }

    fn perform(&mut self, action: Action) {
        let script = self.script.clone();
        let failed = || Event::StorageFailed("no memory".to_owned());
        match action {
            Action::Reserve { .. } => {
                self.either(
                    script.reserve,
                    Event::Reserved(plan()),
                    Event::RangeRefused(refused()),
                );
            }
            Action::Prepare(_) => self.either(script.prepare, Event::Prepared, failed()),
            Action::StopVcpus => {
                self.vcpus_told_to_stop += 1;
                match script.vcpus {
                    Mood::Obeys => self.later(0, Event::VcpusStopped),
                    Mood::Slow(delay) => self.later(delay, Event::VcpusStopped),
                    Mood::Refuses => {}
                }
            }
            Action::Quiesce(device) => self.quiesce(device),
            Action::CheckRange(_) => {
                self.quiet();
                self.either(script.grant, Event::RangeGranted, Event::RangeRefused(refused()));
            }
            Action::Copy => {
                self.quiet();
                assert!(!script.live);
                assert!(self.prepared && self.window == from());
                self.prepared = false;
                self.either(script.copy, Event::Copied(Copied::default()), failed());
            }
            Action::Slide => {
                assert!(script.live && self.vcpus_told_to_stop == 0);
                assert!(self.prepared && self.window == from());
                self.prepared = false;
                self.either(script.copy, Event::Copied(Copied::default()), failed());
            }
            Action::SetAddressLimits(device, range) => self.set_limits(device, range),
            Action::TakeBack => {
                if !script.live {
                    self.quiet();
                }
                assert_eq!(self.window, plan().to());
                self.later(0, Event::TakenBack);
            }
            Action::Unprepare => {
                assert!(self.prepared);
                self.prepared = false;
            }
            Action::TakeOutOfService(device) => self.devices[device.0].in_service = false,
            Action::ResumeIo(device) => {
                let device = &mut self.devices[device.0];
                assert!(device.in_service && device.told == self.window);
                device.idle = false;
            }
            Action::ResumeVcpus => {
                self.vcpus_resumed += 1;
                self.vcpus_stopped = false;
                // Sliding back: the I/O processors wait for the old range.
                let waits = script.live && self.devices.iter().all(|device| device.told == from());
                for device in self.devices.iter().filter(|_| !(waits && self.window == plan().to()))
                {
                    let usable = device.told == self.window && !device.idle;
                    assert!(usable == device.in_service, "{device:?}");
                }
            }
            Action::Finish => {
                assert!(self.vcpus_resumed == 1 && self.window == plan().to());
                self.finished = true;
                let result = if script.finish { Ok(()) } else { Err("no".to_owned()) };
                self.later(0, Event::Finished(result));
            }
            Action::Report(_) => unreachable!("drive returns it"),
        }
    }

    fn next_event(&mut self, deadline: Option<Duration>) -> Event {
        self.steps += 1;
        assert!(self.steps < 200, "never ends");
        if let Some(noise) = self.noise() {
            return noise;
        }
        let soonest = self.pending.iter().map(|(at, _)| *at).min();
        let next = match (soonest, deadline) {
            (Some(soonest), Some(deadline)) => soonest.min(deadline),
            (Some(soonest), None) => soonest,
            (None, Some(deadline)) => deadline,
            (None, None) => panic!("waits for nothing"),
        };
        self.now = self.now.max(next);
        let due: Vec<_> = (0..self.pending.len())
            .filter(|index| self.pending[*index].0 <= self.now && self.is_first(*index))
            .collect();
        if due.is_empty() {
            return Event::Tick;
        }
        let choice = &self.script.order[self.steps % self.script.order.len()];
        let (_, event) = self.pending.remove(due[choice.index(due.len())]);
        self.happen(&event);
        event
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn it_always_ends_either_moved_or_resumed_where_it_was(script in script()) {
        let mut world = World::new(script.clone());
        let request = if script.live { live } else { request };
        let report = drive(request(script.devices.len()), &mut world);
        prop_assert_eq!(world.vcpus_told_to_stop, world.vcpus_resumed);
        prop_assert!(world.vcpus_resumed <= 1 && !world.vcpus_stopped && !world.prepared);
        let granted = script.grant || script.live;
        let smooth = script.reserve && script.prepare && granted && script.copy;
        let obedient = script.vcpus == Mood::Obeys
            && script.devices.iter().all(|moods| moods[..2] == [Mood::Obeys; 2]);
        match report.outcome {
            Outcome::Moved { not_cleared, .. } => {
                prop_assert!(smooth && world.finished);
                prop_assert_eq!(world.window, plan().to());
                prop_assert_eq!(not_cleared.is_none(), script.finish);
                prop_assert!(world.devices.iter().all(|device| device.in_service));
            }
            Outcome::ResumedWhereItWas { out_of_service, .. } => {
                prop_assert!(!(smooth && obedient));
                prop_assert!(!world.finished);
                prop_assert_eq!(world.window, from());
                let out = world.devices.iter().filter(|device| !device.in_service).count();
                prop_assert_eq!(out, out_of_service.len());
            }
            Outcome::Lost(why) => prop_assert!(false, "lost: {}", why),
        }
    }
}
