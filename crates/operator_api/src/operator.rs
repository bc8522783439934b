//! What the host does for the interface.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::{
    AuditPage, AuditQuery, Command, CompactPlan, DatabaseLogins, Exchange, ExchangePlan, Exec,
    FileSpaces, MovePlan, Outcome, Relocated, ResizePlan,
};
use crate::station::Station;

/// Shortest time between two words of how far a copy is.
const SELDOM: Duration = Duration::from_millis(50);

/// A host, as its operator's station sees it. Every function may block; the
/// station calls them on threads of their own.
pub trait Operator: Send + Sync + 'static {
    /// Tells the station what there is now ([`Station::publish`]).
    fn refresh(&self);

    /// The same after `command`: at least what that was on is as it is now. Whatever
    /// else has changed may follow.
    fn refresh_after(&self, command: &Command) {
        let _ = command;
        self.refresh();
    }

    /// Does what is asked, and returns when it is done. Says through `progress`
    /// how far it is, and ends early where it can if that says so.
    ///
    /// # Errors
    /// [`Refusal`], which says what has changed all the same.
    fn carry_out(&self, command: &Command, progress: &Progress) -> Result<Outcome, Refusal>;

    /// What a move would do.
    ///
    /// # Errors
    /// [`Refusal`].
    fn plan_move(&self, name: &str, to: u64) -> Result<MovePlan, Refusal>;

    /// What an exchange would do.
    ///
    /// # Errors
    /// [`Refusal`].
    fn plan_exchange(&self, exchange: &Exchange) -> Result<ExchangePlan, Refusal>;

    /// What it would take to give a partition another size.
    ///
    /// # Errors
    /// [`Refusal`].
    fn plan_resize(
        &self,
        name: &str,
        size: NewSize,
        make_room: bool,
    ) -> Result<ResizePlan, Refusal>;

    /// What a compaction would do.
    ///
    /// # Errors
    /// [`Refusal`].
    fn plan_compact(&self, free: Option<u64>) -> Result<CompactPlan, Refusal>;

    /// Records of the audit log, the newest first.
    ///
    /// # Errors
    /// [`Refusal`] when it cannot be read.
    fn audit(&self, query: &AuditQuery) -> Result<AuditPage, Refusal>;

    /// A partition's console.
    ///
    /// # Errors
    /// [`Refusal`] when there is none, nor ever was.
    fn console(&self, name: &str) -> Result<Console, Refusal>;

    /// A way into a guest. Nothing happens there before it is used.
    ///
    /// # Errors
    /// [`Refusal`]; of a guest that does not serve commands yet,
    /// [`Why::Starting`].
    fn way_in(&self, name: &str, wish: &Wish) -> Result<WayIn, Refusal>;

    /// Spaces of users' files, or one and what it holds.
    ///
    /// # Errors
    /// [`Refusal`].
    fn file_spaces(&self, only: Option<&str>) -> Result<FileSpaces, Refusal>;

    /// Who is which role of which database.
    ///
    /// # Errors
    /// [`Refusal`].
    fn database_logins(&self) -> Result<DatabaseLogins, Refusal>;
}

/// What is wanted in a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// To run a command: the socket then carries frames of `agent_protocol`.
    Exec(Exec),
    /// To see and type on its console: the socket then carries what is said
    /// there, and what is typed.
    Console,
}

/// Joins a client's socket to the guest.
pub type WayIn = Box<dyn FnOnce(UnixStream) -> std::io::Result<()> + Send>;

/// What size a partition should get, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewSize {
    /// So much more.
    By(u64),
    /// So much, which is more than now.
    UpTo(u64),
    /// So much, which is less than now.
    DownTo(u64),
    /// So much, be it more or less.
    Exactly(u64),
}

/// A guest's console.
#[derive(Debug)]
pub enum Console {
    /// What the guest says can be read here, from the last 64 KiB on, and what
    /// is written is typed.
    Live(UnixStream),
    /// Nothing runs. This is what was said last.
    Over(Vec<u8>),
}

/// Whose fault a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The operator's: there is no such thing.
    Unknown,
    /// Nobody's: main storage, as it stands, does not allow it.
    Conflict,
    /// Nobody's: what it is for is not in the state for it.
    NotNow,
    /// Nobody's: the guest is still starting.
    Starting,
    /// The operator's: it can never be done.
    Invalid,
    /// Nobody's: the host is ending.
    Ending,
    /// The host's or the guest's: it was tried.
    Failed,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// Whose fault it is.
    pub why: Why,
    /// Cause and remedy.
    pub reason: String,
    /// Partitions that use the range.
    pub in_the_way: Vec<String>,
    /// Devices still busy when the limit ran out.
    pub busy_devices: Vec<String>,
    /// Partitions that were moved before, and stay where they are.
    pub moved: Vec<Relocated>,
    /// How many moves of a plan were not done.
    pub left: Option<u32>,
}

impl Refusal {
    /// One with nothing more to say.
    pub fn new(why: Why, reason: impl Into<String>) -> Self {
        let (in_the_way, busy_devices, moved) = (Vec::new(), Vec::new(), Vec::new());
        Self { why, reason: reason.into(), in_the_way, busy_devices, moved, left: None }
    }
}

/// How an operation says how far it is.
#[derive(Debug)]
pub struct Progress {
    pub(crate) station: Arc<Station>,
    pub(crate) id: u64,
    pub(crate) cancelled: Arc<AtomicBool>,
    /// When it last said how far a copy is.
    pub(crate) said: Mutex<Option<Instant>>,
}

impl Progress {
    /// So many bytes of so many are copied. Said as often as it is told, it would
    /// drive everything else out of the record of events.
    pub fn copying(&self, done: u64, total: u64) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if done < total && said.is_some_and(|at| at.elapsed() < SELDOM) {
            return;
        }
        *said = Some(Instant::now());
        drop(said);
        self.station.update_operation(self.id, |operation| {
            (operation.done, operation.total) = (done, total);
        });
    }

    /// The operation's number.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Something to tell whoever watches.
    pub fn note(&self, text: &str) {
        self.station.update_operation(self.id, |operation| {
            operation.note = Some(text.to_owned());
            (operation.done, operation.total) = (0, 0);
        });
    }

    /// What is going to be done.
    pub fn plan(&self, plan: CompactPlan) {
        self.station.update_operation(self.id, |operation| operation.plan = Some(plan));
    }

    /// Whether to end early.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
