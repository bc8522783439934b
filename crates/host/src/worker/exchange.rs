//! Two partitions change places: one worker's part in it.
//!
//! Both workers have one end of a socket to each other, and memory in common
//! that says how far the swap is. So nobody else is needed once it has begun:
//! neither their host, which may die, nor the other worker.
//!
//! ```text
//! leader                                   follower
//!   prepares                                 prepares
//!                        <- Ready
//!                           Go ->
//!   holds its partition                      holds its partition
//!                        <- Held
//!   swaps both storages
//!                           Swapped ->
//!   adopts its new range                     adopts its new range
//! ```
//!
//! Either says `Not` instead, or is gone, before anything was swapped: then
//! both go on where they were. If the leader is gone in the middle of the swap,
//! the follower finishes it, and loses nothing but its neighbour. If the
//! follower is gone, so is its guest, and the leader goes on alone.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use machine::Machine;
use main_storage::ExchangePlan;
use serde::{Deserialize, Serialize};
use storage_window::{Adoption, Exchange, ExchangeReport, StorageWindow};

use super::hold::Held;
use crate::in_full;
use crate::link::{Link, MoveReport, Side};

/// How long the other worker may take to prepare itself, which allocates
/// memory, or to say a word that takes it no time.
const PREPARE: Duration = Duration::from_secs(120);

/// Why nothing comes of it when the other one is not there any more.
const GONE: &str = "the other partition's worker ended before anything was moved";

/// What the workers say to each other.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case")]
enum Word {
    Ready,
    Go,
    Held,
    Not { reason: String, busy_devices: Vec<String> },
    Swapped,
}

/// What came to the other worker.
#[derive(Debug)]
struct Stay {
    reason: String,
    busy_devices: Vec<String>,
}

impl Stay {
    fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), busy_devices: Vec::new() }
    }
}

/// Files of main storage, its keys and the exchange's record.
pub(super) struct Files {
    pub(super) storage: OwnedFd,
    pub(super) keys: OwnedFd,
    pub(super) record: OwnedFd,
}

/// One worker's part in an exchange.
pub(super) struct Party {
    pub(super) machine: Arc<Machine>,
    pub(super) window: Arc<StorageWindow>,
    pub(super) files: Files,
    pub(super) peer: Link,
    pub(super) plan: ExchangePlan,
    pub(super) side: Side,
    /// How long to wait for busy devices.
    pub(super) limit: Duration,
}

impl Party {
    /// Carries it out and says how it ended.
    pub(super) fn run(&self) -> MoveReport {
        super::placement::come_first();
        let result = match self.side {
            Side::Leader => self.lead(),
            Side::Follower => self.follow(),
        };
        result.unwrap_or_else(|stay| MoveReport::Stayed {
            reason: stay.reason,
            in_the_way: vec![],
            busy_devices: stay.busy_devices,
            out_of_service: vec![],
        })
    }

    fn lead(&self) -> Result<MoveReport, Stay> {
        let prepared = self.swap().and_then(|swap| Ok((swap, self.adoption()?)));
        let (swap, adoption) = prepared.map_err(|stay| self.refuse(stay))?;
        self.expect(PREPARE, |word| matches!(word, Word::Ready))?;
        self.say(&Word::Go)?;
        let held = self.hold()?;
        // The other one waits as long as this one for its devices.
        self.expect(2 * self.limit + PREPARE, |word| matches!(word, Word::Held))?;
        let report = swap.run().map_err(|error| self.refuse(Stay::because(in_full(&error))))?;
        // If it is gone, so is its guest; this one's storage is where it is.
        let _ = self.say(&Word::Swapped);
        Ok(self.adopt(adoption, held, report))
    }

    fn follow(&self) -> Result<MoveReport, Stay> {
        let adoption = self.adoption().map_err(|stay| self.refuse(stay))?;
        self.say(&Word::Ready)?;
        self.expect(PREPARE, |word| matches!(word, Word::Go))?;
        let held = self.hold()?;
        self.say(&Word::Held)?;
        let report = loop {
            match self.peer.receive::<Word>() {
                Ok(Some((Word::Swapped, _))) => break ExchangeReport::default(),
                Ok(Some((Word::Not { reason, busy_devices }, _))) => {
                    return Err(Stay { reason, busy_devices });
                }
                // It lives, and may be swapping: whatever it says.
                Ok(Some(_)) => {}
                Err(error) if error.kind() == ErrorKind::InvalidData => {}
                Ok(None) | Err(_) => match self.take_over() {
                    Ok(Some(report)) => break report,
                    Ok(None) => return Err(Stay::because(GONE)),
                    // Half of its storage may be elsewhere.
                    Err(reason) => return Ok(self.lost(reason)),
                },
            }
        };
        Ok(self.adopt(adoption, held, report))
    }

    /// The other worker is gone: finishes what it has begun; `None` if that is
    /// nothing.
    fn take_over(&self) -> Result<Option<ExchangeReport>, String> {
        let swap = self.swap().map_err(|stay| stay.reason)?;
        if !swap.begun() {
            return Ok(None);
        }
        tracing::warn!("the other worker is gone in the middle of the exchange; finishing it");
        swap.run().map(Some).map_err(|error| in_full(&error))
    }

    /// The guest must never be entered again: not even when it is released.
    fn lost(&self, reason: String) -> MoveReport {
        self.machine.shut_down();
        MoveReport::Lost { reason }
    }

    fn swap(&self) -> Result<Exchange, Stay> {
        let Files { storage, keys, record } = &self.files;
        Exchange::prepare(storage.as_fd(), keys.as_fd(), record.as_fd(), self.plan)
            .map_err(|error| Stay::because(in_full(&error)))
    }

    fn adoption(&self) -> Result<Adoption, Stay> {
        let plan = match self.side {
            Side::Leader => self.plan.a(),
            Side::Follower => self.plan.b(),
        };
        let (storage, keys) = (self.files.storage.as_fd(), self.files.keys.as_fd());
        self.window
            .prepare_adoption(storage, keys, &plan)
            .map_err(|error| Stay::because(in_full(&error)))
    }

    fn hold(&self) -> Result<Held, Stay> {
        Held::hold(&self.machine, self.limit).map_err(|error| {
            let reason = error.to_string();
            self.refuse(Stay { reason, busy_devices: error.busy_devices() })
        })
    }

    /// The content is at its new place: the window shows it, the I/O
    /// processors are told, and the guest goes on.
    fn adopt(&self, adoption: Adoption, mut held: Held, report: ExchangeReport) -> MoveReport {
        let adopted = match adoption.adopt() {
            Ok(adopted) => adopted,
            Err(error) => return self.lost(in_full(&error)),
        };
        let to = match self.side {
            Side::Leader => self.plan.a().to(),
            Side::Follower => self.plan.b().to(),
        };
        let silent = held.set_address_limits(to);
        let pause = held.pause();
        drop(held);
        drop(adopted);
        MoveReport::Moved {
            bytes: report.bytes,
            nanos: report.nanos,
            pause_us: u64::try_from(pause.as_micros()).unwrap_or(u64::MAX),
            not_cleared: None,
            out_of_service: silent,
        }
    }

    fn say(&self, word: &Word) -> Result<(), Stay> {
        self.peer.send(word, &[]).map_err(|error| {
            Stay::because(format!("the other partition's worker cannot be reached: {error}"))
        })
    }

    /// Tells the other worker that nothing comes of it.
    fn refuse(&self, stay: Stay) -> Stay {
        let Stay { reason, busy_devices } = &stay;
        let not = Word::Not {
            reason: format!("the other partition: {reason}"),
            busy_devices: busy_devices.clone(),
        };
        // If it is gone, it need not be told.
        let _ = self.say(&not);
        stay
    }

    fn expect(&self, limit: Duration, wanted: impl Fn(&Word) -> bool) -> Result<(), Stay> {
        let heard = self.peer.receive_within::<Word>(limit);
        match heard {
            Ok(Some((word, _))) if wanted(&word) => Ok(()),
            Ok(Some((Word::Not { reason, busy_devices }, _))) => Err(Stay { reason, busy_devices }),
            Ok(Some(_)) => Err(Stay::because("the other partition's worker is out of step")),
            Ok(None) => Err(Stay::because(GONE)),
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                let seconds = limit.as_secs();
                Err(self.refuse(Stay::because(format!(
                    "the other partition was not ready within {seconds} s"
                ))))
            }
            Err(error) => Err(Stay::because(format!("{GONE}: {error}"))),
        }
    }
}
