//! What a monitoring system reads at `/metrics`.

use std::fmt;
use std::sync::Mutex;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::events::Quantity;
use crate::model::{MemberState, PartitionState, State};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Done {
    command: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    pool: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Machines {
    pool: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct How {
    result: &'static str,
}

/// Status of answers, by hundreds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Status(u16);

impl EncodeLabelValue for Status {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        use fmt::Write;
        write!(encoder, "{}xx", self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    status: Status,
}

/// Everything that is measured of a host.
pub struct Metrics {
    registry: Mutex<Registry>,
    pause: Histogram,
    claim: Histogram,
    wait: Histogram,
    first_byte: Histogram,
    reset: Histogram,
    refill: Histogram,
    copy_rate: Histogram,
    copied: Counter,
    commands: Family<Done, Counter>,
    claims: Family<How, Counter>,
    conversations: Family<How, Counter>,
    main_storage: Family<OfState, Gauge>,
    partitions: Family<OfState, Gauge>,
    machines: Family<Machines, Gauge>,
    waiting: Family<OfPool, Gauge>,
    alarm: Family<OfPool, Gauge>,
    answers: Family<Answered, Counter>,
    pub(crate) streams: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// From 50 microseconds to some 100 seconds.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(50e-6, 2.0, 22))
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::default(),
            pause: seconds(),
            claim: seconds(),
            wait: seconds(),
            first_byte: seconds(),
            reset: seconds(),
            refill: seconds(),
            copy_rate: Histogram::new(exponential_buckets(64e6, 1.6, 14)),
            copied: Counter::default(),
            commands: Family::default(),
            claims: Family::default(),
            conversations: Family::default(),
            main_storage: Family::default(),
            partitions: Family::default(),
            machines: Family::default(),
            waiting: Family::default(),
            alarm: Family::default(),
            answers: Family::default(),
            streams: Gauge::default(),
        };
        let mut registry = Registry::with_prefix("berth");
        metrics.register(&mut registry);
        Self { registry: Mutex::new(registry), ..metrics }
    }
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        let seconds = || Unit::Seconds;
        let histograms = [
            ("pause", "Guests stood still while moved, exchanged or resized", &self.pause),
            ("claim", "From a user's claim to a machine that accepted", &self.claim),
            ("wait", "From a user's claim to a machine that was given", &self.wait),
            ("first_byte", "From a user's claim to the program's first byte", &self.first_byte),
            ("reset", "Machines put back to what was captured", &self.reset),
            ("refill", "Machines made for a pool", &self.refill),
        ];
        for (name, help, histogram) in histograms {
            registry.register_with_unit(name, help, seconds(), histogram.clone());
        }
        let rate = "Bytes copied per second of copying, by move or exchange";
        registry.register("copy_rate_bytes_per_second", rate, self.copy_rate.clone());
        let copied = "Bytes of guests' storage copied";
        registry.register_with_unit("copied", copied, Unit::Bytes, self.copied.clone());
        registry.register("commands", "Commands by how they ended", self.commands.clone());
        registry.register("claims", "Users' claims by their answer", self.claims.clone());
        let ended = "Conversations by how they ended";
        registry.register("conversations", ended, self.conversations.clone());
        let storage = "Main storage by whether somebody has it";
        registry.register_with_unit(
            "main_storage",
            storage,
            Unit::Bytes,
            self.main_storage.clone(),
        );
        registry.register("partitions", "Partitions by state", self.partitions.clone());
        registry.register("pool_machines", "Machines of pools by state", self.machines.clone());
        registry.register("pool_waiting", "Claims that wait for a machine", self.waiting.clone());
        let alarm = "1 if the pool builds no more machines";
        registry.register("pool_alarm", alarm, self.alarm.clone());
        registry.register("api_answers", "Answers of the interface", self.answers.clone());
        registry.register("api_event_streams", "Open event streams", self.streams.clone());
    }

    /// Something took so many seconds.
    pub(crate) fn took(&self, what: Quantity, seconds: f64) {
        let histogram = match what {
            Quantity::Pause => &self.pause,
            Quantity::Claim => &self.claim,
            Quantity::Wait => &self.wait,
            Quantity::FirstByte => &self.first_byte,
            Quantity::Reset => &self.reset,
            Quantity::Refill => &self.refill,
        };
        histogram.observe(seconds);
    }

    /// A move or exchange copied so many bytes at this rate.
    pub fn copied(&self, bytes: u64, per_second: u64) {
        if bytes > 0 {
            self.copied.inc_by(bytes);
            self.copy_rate.observe(per_second as f64);
        }
    }

    /// A command has ended: `done`, `refused` or `failed`.
    pub fn command(&self, command: &'static str, result: &'static str) {
        self.commands.get_or_create(&Done { command, result }).inc();
    }

    /// A user's claim was answered.
    pub fn claim(&self, result: &'static str) {
        self.claims.get_or_create(&How { result }).inc();
    }

    /// A conversation has ended.
    pub fn conversation(&self, result: &'static str) {
        self.conversations.get_or_create(&How { result }).inc();
    }

    /// The interface has answered.
    pub(crate) fn answered(&self, status: u16) {
        self.answers.get_or_create(&Answered { status: Status(status / 100) }).inc();
    }

    /// Gauges are set when somebody reads them.
    fn observe(&self, state: &State) {
        let set = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        let of = |state| OfState { state };
        let host = &state.host;
        set(&self.main_storage.get_or_create(&of("free")), host.free);
        let used = host.main_storage.saturating_sub(host.free);
        set(&self.main_storage.get_or_create(&of("used")), used);
        for one in PartitionState::ALL {
            let count = host.partitions.iter().filter(|partition| partition.state == one).count();
            set(&self.partitions.get_or_create(&of(one.as_str())), count as u64);
        }
        for pool in &state.pools {
            let of = || OfPool { pool: pool.name.clone() };
            set(&self.waiting.get_or_create(&of()), pool.waiting.into());
            set(&self.alarm.get_or_create(&of()), pool.alarm.is_some().into());
            for one in MemberState::ALL {
                let count = pool.members.iter().filter(|member| member.state == one).count();
                let label = Machines { pool: pool.name.clone(), state: one.as_str() };
                set(&self.machines.get_or_create(&label), count as u64);
            }
        }
    }

    /// All of it, with what there is now, in the text format of OpenMetrics.
    pub(crate) fn text(&self, state: &State) -> String {
        self.observe(state);
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}
