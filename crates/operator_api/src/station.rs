//! What the host tells the station, and the station everybody who looks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use tokio::sync::watch;

use crate::events::{
    Behind, Changes, Event, Everything, Measured, Quantity, Record, Written, differences,
};
use crate::metrics::Metrics;
use crate::model::{Command, Operation, OperationState, Outcome, State};
use crate::operator::Progress;
use crate::problem::Problem;

/// Operations that are remembered, those under way included.
const REMEMBERED: usize = 200;
/// Operations under way at once.
const UNDER_WAY: usize = 32;
/// Measurements that are remembered.
const MEASURED: usize = 400;

/// What there is, at one moment.
#[derive(Debug, Default, Clone)]
pub struct Snapshot {
    state: State,
    json: OnceLock<Bytes>,
}

impl Snapshot {
    /// What there was.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The same as JSON, written once for everybody who asks.
    pub(crate) fn json(&self) -> Bytes {
        let write = || serde_json::to_vec(&self.state).unwrap_or_default().into();
        self.json.get_or_init(write).clone()
    }
}

/// The middle of the station: the state as it was last told, the operations,
/// and what happened. Nothing here waits for the host.
#[derive(Debug)]
pub struct Station {
    inner: Mutex<Inner>,
    /// Number of the newest event.
    newest: watch::Sender<u64>,
    /// Tells this run of the host from others, in ids of events.
    epoch: u64,
    /// What is measured.
    pub metrics: Metrics,
}

#[derive(Debug, Default)]
struct Inner {
    snapshot: Arc<Snapshot>,
    record: Record,
    operations: BTreeMap<u64, Operation>,
    under_way: BTreeMap<u64, UnderWay>,
    last_operation: u64,
    measured: VecDeque<Measured>,
}

/// An operation that has not ended.
#[derive(Debug)]
struct UnderWay {
    /// It is to end early.
    cancelled: Arc<AtomicBool>,
    /// Closed when it has ended.
    until: watch::Sender<()>,
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Default for Station {
    fn default() -> Self {
        let (inner, metrics) = (Mutex::default(), Metrics::default());
        Self { inner, newest: watch::Sender::new(0), epoch: now(), metrics }
    }
}

impl Station {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change is whole before its guard is dropped.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, inner: &mut Inner, event: &Event) {
        inner.record.push(event);
        self.newest.send_replace(inner.record.last());
    }

    /// This is what there is now.
    pub fn publish(&self, state: State) {
        let mut inner = self.inner();
        let events = differences(&inner.snapshot.state, &state);
        if events.is_empty() {
            return;
        }
        inner.snapshot = Arc::new(Snapshot { state, json: OnceLock::new() });
        for event in &events {
            self.tell(&mut inner, event);
        }
    }

    /// This is different now from what was told last. Costs what is different,
    /// not what there is.
    pub fn amend(&self, changes: Changes) {
        if changes.is_empty() {
            return;
        }
        let mut inner = self.inner();
        // Copied only if somebody looks at it just now.
        let snapshot = Arc::make_mut(&mut inner.snapshot);
        let events = changes.apply(&mut snapshot.state);
        if events.is_empty() {
            return;
        }
        snapshot.json = OnceLock::new();
        for event in &events {
            inner.record.push(event);
        }
        self.newest.send_replace(inner.record.last());
    }

    /// What there is, as it was last told.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.inner().snapshot)
    }

    /// Something took its time.
    pub fn measured(&self, what: Quantity, of: &str, seconds: f64) {
        self.metrics.took(what, seconds);
        let one = Measured { what, of: of.to_owned(), seconds, at: now() };
        let mut inner = self.inner();
        if inner.measured.len() == MEASURED {
            inner.measured.pop_front();
        }
        inner.measured.push_back(one.clone());
        self.tell(&mut inner, &Event::Measured(one));
    }

    /// Everything, and the number of the event it is as of.
    pub(crate) fn everything(&self) -> (u64, Event) {
        let inner = self.inner();
        let everything = Everything {
            state: inner.snapshot.state.clone(),
            operations: inner.operations.values().cloned().collect(),
            measured: inner.measured.iter().cloned().collect(),
        };
        (inner.record.last(), Event::Everything(Box::new(everything)))
    }

    pub(crate) fn events_after(&self, seen: u64, most: usize) -> Result<Vec<Written>, Behind> {
        self.inner().record.after(seen, most)
    }

    /// Number of the newest event.
    pub(crate) fn newest(&self) -> u64 {
        self.inner().record.last()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A new operation, which its caller carries out, and the number of the event
    /// that tells of it.
    pub(crate) fn begin(
        self: &Arc<Self>,
        command: Command,
        by: &str,
    ) -> Result<(Operation, u64, Progress), Problem> {
        let mut inner = self.inner();
        if inner.under_way.len() >= UNDER_WAY {
            return Err(Problem::too_many(
                "as many operations are under way as there may be; try again when one has ended",
            ));
        }
        while inner.operations.len() >= REMEMBERED {
            let ended = |one: &&Operation| one.state != OperationState::Running;
            let Some(oldest) = inner.operations.values().find(ended).map(|one| one.id) else {
                break;
            };
            inner.operations.remove(&oldest);
        }
        inner.last_operation += 1;
        let id = inner.last_operation;
        let operation = Operation {
            id,
            command,
            by: by.to_owned(),
            state: OperationState::Running,
            cancelling: false,
            started: now(),
            ended: None,
            note: None,
            done: 0,
            total: 0,
            plan: None,
            result: None,
            error: None,
        };
        let cancelled = Arc::new(AtomicBool::new(false));
        let until = watch::Sender::new(());
        inner.under_way.insert(id, UnderWay { cancelled: Arc::clone(&cancelled), until });
        inner.operations.insert(id, operation.clone());
        self.tell(&mut inner, &Event::Operation(Box::new(operation.clone())));
        let (station, said) = (Arc::clone(self), Mutex::default());
        Ok((operation, inner.record.last(), Progress { station, id, cancelled, said }))
    }

    pub(crate) fn update_operation(&self, id: u64, change: impl FnOnce(&mut Operation)) {
        let mut inner = self.inner();
        let Some(operation) = inner.operations.get_mut(&id) else { return };
        change(operation);
        let event = Event::Operation(Box::new(operation.clone()));
        self.tell(&mut inner, &event);
    }

    /// An operation has ended.
    pub(crate) fn finish(&self, id: u64, result: Result<Outcome, Problem>) {
        self.update_operation(id, |operation| {
            operation.ended = Some(now());
            operation.state = match result {
                Ok(outcome) => {
                    operation.result = Some(outcome);
                    OperationState::Succeeded
                }
                Err(problem) => {
                    operation.error = Some(problem);
                    OperationState::Failed
                }
            };
        });
        // Whoever waits for the end finds how it ended.
        self.inner().under_way.remove(&id);
    }

    /// Asks an operation to end early.
    pub(crate) fn cancel(&self, id: u64) -> Option<Operation> {
        let flag = self.inner().under_way.get(&id).map(|one| Arc::clone(&one.cancelled));
        if let Some(flag) = flag {
            flag.store(true, Ordering::Relaxed);
            self.update_operation(id, |operation| {
                operation.cancelling = operation.state == OperationState::Running;
            });
        }
        self.operation(id)
    }

    /// Waits until an operation has ended.
    pub(crate) async fn end_of(&self, id: u64) {
        let until = self.inner().under_way.get(&id).map(|one| one.until.subscribe());
        if let Some(mut until) = until {
            // Nothing is sent.
            while until.changed().await.is_ok() {}
        }
    }

    pub(crate) fn operation(&self, id: u64) -> Option<Operation> {
        self.inner().operations.get(&id).cloned()
    }

    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.inner().operations.values().cloned().collect()
    }
}
