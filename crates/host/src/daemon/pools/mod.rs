//! The machines of service pools: carries out what the conversation manager
//! decides, and tells it what became of it.
//!
//! ```text
//! gateway, operator, workers ── Input ──► Driver ── Action ──► builds (threads),
//!                                          │                   orders to workers
//!                                  ConversationManager (pure)
//! ```
//!
//! One thread owns the manager and everything that is known of conversations.
//! What takes long is done on other threads, which report back.

mod build;
mod driver;
pub(super) mod gateway;
mod measure;
mod renewal;
mod status;
mod talk;
mod template;
mod turned_away;

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use main_storage::PartitionName;
use operator_api::model::Waiting;
use service_pool::{ConversationId, Ending, MemberId, Refusal, Request};
use tokio::sync::mpsc::UnboundedSender;

use super::Shared;
use crate::link::Report;
use driver::Driver;
pub(super) use status::{PoolMember, PoolStatus};
pub(super) use template::CaptureFiles;
pub(super) use turned_away::TurnedAway;

/// How long whoever asks waits for the driver, which answers at once.
const ANSWER: Duration = Duration::from_secs(30);

/// The way to the driver. Clones are the same.
#[derive(Clone)]
pub(super) struct Pools(Sender<Input>, Arc<AtomicBool>);

/// What the driver hears.
pub(super) enum Input {
    /// A claim, with the connection that the conversation is to have in the
    /// machine, and whoever is to be told of it.
    Allocate {
        request: Request,
        arguments: Vec<String>,
        connection: UnixStream,
        told: UnboundedSender<Told>,
    },
    /// The user gave up, or its connection is lost.
    Abend { conversation: ConversationId, how: Ending },
    /// A worker says something.
    Report { member: PartitionName, report: Report },
    /// A worker's machine has ended.
    Gone { member: PartitionName, why: String },
    /// A build has ended.
    Built { member: MemberId, result: Result<(), String> },
    /// Nothing is left of a machine.
    Destroyed(MemberId),
    /// The operator wants to use a machine by its primary id: answered when it
    /// is awake.
    Visit { member: PartitionName, awake: Sender<()> },
    /// The operator asks.
    Status(Sender<Vec<PoolStatus>>),
    /// Who waits for a machine?
    Waiting(Sender<Vec<Waiting>>),
    /// The operator lets pools that stopped building try again, or changes
    /// their size.
    Resume { pool: String, done: Sender<Result<(), String>> },
    /// See [`Input::Resume`].
    Resize { pool: String, bounds: (u16, u16), done: Sender<Result<(), String>> },
    /// The host ends.
    End,
}

/// What whoever allocated is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// Under which id the claim is known; always first.
    Claimed(ConversationId),
    /// A machine accepted it and wears the user's id.
    Accepted { member: String },
    /// It gets none.
    Refused(Refusal),
    /// It is over; of a program that could not be started, why.
    Ended { how: Ending, reason: Option<String> },
}

impl Pools {
    /// The driver's way in, and what it reads.
    pub(super) fn new() -> (Self, Receiver<Input>) {
        let (sender, receiver) = channel();
        (Self(sender, Arc::default()), receiver)
    }

    /// Whether the driver answers: it does from the host's beginning to its end.
    pub(super) fn are_run(&self) -> bool {
        self.1.load(Ordering::Relaxed)
    }

    /// Tells the driver; one that has ended does not listen.
    pub(super) fn tell(&self, input: Input) {
        let _ = self.0.send(input);
    }

    fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Input) -> Option<T> {
        let (answer, answered) = channel();
        self.tell(question(answer));
        answered.recv_timeout(ANSWER).ok()
    }

    /// Every pool and its machines.
    pub(super) fn status(&self) -> Vec<PoolStatus> {
        self.ask(Input::Status).unwrap_or_default()
    }

    /// Who waits for a machine.
    pub(super) fn waiting(&self) -> Vec<Waiting> {
        self.ask(Input::Waiting).unwrap_or_default()
    }

    /// Wakes a machine for its administrator.
    pub(super) fn visit(&self, member: &PartitionName) {
        let member = member.clone();
        let _ = self.ask(|awake| Input::Visit { member, awake });
    }

    /// Lets a pool build again.
    pub(super) fn resume(&self, pool: &str) -> Result<(), String> {
        let pool = pool.to_owned();
        self.ask(|done| Input::Resume { pool, done }).unwrap_or_else(ended)
    }

    /// Gives a pool other bounds.
    pub(super) fn resize(&self, pool: &str, bounds: (u16, u16)) -> Result<(), String> {
        let pool = pool.to_owned();
        self.ask(|done| Input::Resize { pool, bounds, done }).unwrap_or_else(ended)
    }
}

fn ended() -> Result<(), String> {
    Err("the host is ending".to_owned())
}

/// Carries pools on until the host ends.
pub(super) fn run(shared: &Arc<Shared>, inputs: Receiver<Input>) {
    shared.pools.1.store(true, Ordering::Relaxed);
    Driver::new(Arc::clone(shared), Instant::now()).run(inputs);
}
